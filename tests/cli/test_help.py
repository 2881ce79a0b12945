"""--help at 80 columns: short, in panels, in words that mean one thing; examples, completion, --version."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import version

import pytest
from typer.main import get_command

from irlens.cli.app import app
from irlens.cli.options import PANELS
from irlens.commands import reproducing, settings

COMMANDS = get_command(app).commands


@pytest.fixture(scope="module")
def page():
    """Command → its --help at 80 columns."""

    def show(*args):
        return subprocess.run(
            [sys.executable, "-m", "irlens", *args, "--help"],
            capture_output=True,
            text=True,
            env=os.environ | {"COLUMNS": "80"},
        ).stdout

    return show


def test_the_page_of_train_is_half_of_what_it_was(page):
    lines = page("train").splitlines()
    assert 40 < len(lines) <= 219 // 2 and max(map(len, lines)) <= 80
    text = "\n".join(lines)
    panels = re.findall(r"╭─ ([\w ]+?) ─", text)
    assert panels == [panel for panel in PANELS if panel in panels] and panels[-1] == "Engine"
    assert {"Data", "Draws", "Lists", "Objective", "Trainer", "Measuring"} <= set(panels)
    assert "<think>,</think>" in text  # what looks like markup is shown as it is


@pytest.mark.parametrize("name", COMMANDS)
def test_no_page_is_wider_or_longer_and_every_option_has_words(name, page):
    lines = page(name).splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) <= 109
    for option in COMMANDS[name].params:
        assert option.help, f"{name} {option.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_understood(name):
    """It is parsed as the command line would, but not run: most want models and data that are not here."""
    example = re.search(r"Example: `irlens (.*?)`", COMMANDS[name].help, re.S)[1]
    first, *args = shlex.split(example)
    assert first == name
    COMMANDS[name].make_context(name, args)


def test_a_name_means_one_thing_in_every_command():
    """Options of one name are of one kind: numbers here and words there would be two things."""
    kinds, seen = {}, 0
    for kind in (*settings.STAGES.values(), settings.Evaluate, settings.Temperatures, reproducing.Reproduce):
        for f in fields(kind):
            plain = f.type.replace(" | None", "")
            seen += f.name in kinds
            assert kinds.setdefault(f.name, plain) == plain, f"{kind.__name__}.{f.name}"
    assert seen > 50


@pytest.mark.parametrize(
    "line, word, wanted",
    [
        ("irlens mine", 1, "mine-negatives"),
        ("irlens train --posit", 2, "--positives-from"),
        ("irlens passk -", 2, "-n"),
    ],
)
def test_completion_in_bash(line, word, wanted):
    asked = {"_IRLENS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(word)}
    code = "import sys; sys.argv = ['irlens']; from irlens.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | asked)
    assert wanted in done.stdout.split(), done.stderr


def test_the_version(irlens):
    assert irlens("--version").stdout == f"irlens {version('irlens')}\n"
    assert "No such option" in irlens("--versoin", code=2).stderr
