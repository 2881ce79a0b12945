"""A page per command, written from the command itself, so that it cannot be out of date."""

import re
from collections import defaultdict
from pathlib import Path

import typer

from irlens.cli.app import app


def write(folder: Path) -> None:
    """Writes `folder/NAME.md` for every command and an index of them."""
    folder.mkdir(parents=True)
    known = {name: command for name, command in typer.main.get_command(app).commands.items() if not command.hidden}
    rows = []
    for name, command in known.items():
        told, _, rest = _help(command).partition("\n\n")
        rows.append(f"| [`{name}`]({_file(name)}) | {_cell(told)} |")
        (folder / _file(name)).write_text(_page(name, command, told, rest), encoding="utf-8")
    table = ["| command | what it does |", "|---|---|", *rows]
    text = (
        "# Commands\n\nWithout arguments each command runs on the embedded default. Every command writes a folder "
        "(`--out`), and the same command in the same folder continues. [What is in the folders](../files.md).\n\n"
    )
    (folder / "index.md").write_text(text + "\n".join(table) + "\n", encoding="utf-8")


def _file(name: str) -> str:
    """The page of a command; `index` is the folder's own page."""
    return "index-command.md" if name == "index" else f"{name}.md"


def _page(name: str, command, told: str, rest: str) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name != "argument" and not p.hidden]
    usage = " ".join(["irlens", name, *(f"[{p.name.upper()}]" for p in arguments), "[OPTIONS]"])
    parts = [f"# irlens {name}", told, f"```text\n{usage}\n```"]
    parts += [re.sub(r"^Example: `(.*)`$", r"For example:\n\n```sh\n\1\n```", rest, flags=re.M)] if rest else []
    if arguments:
        parts += ["## Arguments", *(_entry(f"`{p.name.upper()}`", p) for p in arguments)]
    panels = defaultdict(list)
    for p in options:
        panels[p.rich_help_panel or "Options"].append(p)
    for panel, members in panels.items():
        parts += [f"## {panel}", *(_entry(_flags(p), p) for p in members)]
    return "\n\n".join(parts) + "\n"


def _entry(term: str, p) -> str:
    """An option as a term and its meaning, with its default unless the meaning ends with it."""
    told, default = " ".join((p.help or "").split()), _default(p)
    told = told.removesuffix(f"[{p.default}]").removesuffix("\\").strip()
    return f"{term}\n:   {_cell(told)}" + (f" Default: {default}." if default else "")


def _help(command) -> str:
    """A command's help, as Markdown, one line per paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))


def _flags(p) -> str:
    kind = "" if p.is_flag else f" {_kind(p)}"
    return ", ".join(f"`{flag}{kind}`" for flag in (*p.opts, *p.secondary_opts))


def _kind(p) -> str:
    """What an option takes, by its type: NUMBER for an int, TEXT for a string or a path."""
    annotation = p.type_descriptor.annotation
    return {int: "NUMBER", float: "NUMBER"}.get(annotation, "TEXT")


def _default(p) -> str:
    value = p.default
    if value is None or value == () or callable(value) or type(value).__name__ == "Sentinel":
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")
