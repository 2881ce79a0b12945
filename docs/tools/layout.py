"""Where things are, told by the files themselves: the first line of each module's docstring, room by room."""

import ast
import re
from pathlib import Path

MARK = "<!-- layout -->"
ORDER = [
    "base",
    "tables",
    "models",
    "tasks",
    "retrieve",
    "rerank",
    "negatives",
    "train",
    "measure",
    "commands",
    "reproduce",
    "cli",
]


def fill(text: str, root: Path) -> str:
    """Puts a section for every room of the package in the place of `<!-- layout -->`."""
    return text.replace(MARK, sections(root)) if MARK in text else text


def sections(root: Path) -> str:
    """Every module under its room, rooms in the order of the story, a room that is not in it last."""
    package = root / "irlens"
    rooms = sorted((p.parent for p in package.glob("*/__init__.py")), key=lambda p: (_place(p.name), p.name))
    parts = [_section("irlens/", "", sorted(package.glob("*.py")), package)]
    for room in rooms:
        told = purpose(room / "__init__.py")
        parts.append(_section(f"irlens/{room.name}/", told, sorted(room.rglob("*.py")), room))
    return "\n\n".join(parts)


def purpose(path: Path) -> str:
    """The first sentence or line of a module's docstring."""
    told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = told.split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[^.].[.!?]) ", first)[0]


def _section(name: str, told: str, files: list[Path], room: Path) -> str:
    named = [path for path in files if path.name != "__init__.py" or path.parent != room]
    rows = [f"`{path.relative_to(room)}`\n:   {purpose(path).replace('<', '&lt;')}" for path in named if purpose(path)]
    return "\n\n".join([f"## `{name}`", *([told] if told else []), *rows])


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)
