"""The package's plan, held to: its rooms, which of them may import which, one purpose a file, and a light front door."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "irlens"
# A room may import the rooms before it, and itself.
ROOMS = (
    "base", "tables", "models", "tasks", "retrieve", "rerank", "negatives", "train", "measure", "commands", "reproduce", "cli"
)  # fmt: skip
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(module: str) -> set[str]:
    """The modules of irlens that a module imports anywhere, but for type checkers."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    hidden = {id(inner) for node in typing for inner in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{module}: a relative import"
            found |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in FILES else node.module for a in node.names
            }
    return {name for name in found if name in FILES and name != module}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "irlens"


def test_twelve_rooms_and_no_more():
    entries = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert entries - {"py.typed"} == set(ROOMS)


@pytest.mark.parametrize("module", [m for m in FILES if room(m) in ROOMS])
def test_imports_point_one_way(module):
    allowed = ROOMS[: ROOMS.index(room(module)) + 1]
    wrong = {name for name in imports(module) if room(name) not in allowed}
    assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


def test_no_circle():
    try:
        TopologicalSorter({module: imports(module) for module in FILES}).prepare()
    except CycleError as error:
        pytest.fail("modules import each other in a circle: " + " → ".join(error.args[1]))


@pytest.mark.parametrize("module", FILES)
def test_a_file_names_its_purpose_in_its_first_line(module):
    words = ast.get_docstring(ast.parse(FILES[module].read_text(encoding="utf-8")))
    assert words and re.search(r"\w", words.splitlines()[0]), f"{module} has no docstring"
