"""The README: its file map is the tree, and the commands in it exist with the options that it names."""

import re
from pathlib import Path

import pytest
import typer

from irlens.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands


def test_the_file_map_is_the_tree():
    told = README.split("```\nirlens/\n")[1].split("```")[0]
    named = set(re.findall(r"[\w]+\.py", told)) | set(re.findall(r"(?<=  )\w+/", told))
    there = {p.name for p in (ROOT / "irlens").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert there <= named, f"the README does not name {sorted(there - named)}"
    folders = {p.name + "/" for p in (ROOT / "irlens").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders <= named
    files = {p.name for p in ROOT.glob("irlens/**/*.py")} | {p.name for p in ROOT.glob("experiments/*.py")}
    assert {name for name in named if name.endswith(".py")} <= files, "the README names files that are not there"


def commands():
    """Every `irlens …` line in the README's code blocks, without what follows a comment."""
    for block in re.findall(r"```(?:sh)?\n(.*?)```", README, re.S):
        for line in block.splitlines():
            if found := re.search(r"(?:^|-m )irlens +(.*?)(?: {2,}#.*)?$", line):
                yield found[1]


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_every_command_of_the_readme_is_one(line):
    name, *words = line.split()
    assert name in COMMANDS, f"no command {name}"
    known = {option for parameter in COMMANDS[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert given <= known, f"{name} has no {sorted(given - known)}"


def test_there_are_enough_of_them():
    assert len(set(commands())) > 20 and {line.split()[0] for line in commands()} >= set(COMMANDS) - {"demo"}
