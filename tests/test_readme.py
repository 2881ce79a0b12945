"""The README: its file map is the tree, and the commands in it exist with the options that it names."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import typer

from irlens.cli.app import app
from irlens.reproduce import recipe

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
    for block in re.findall(r"```(?:sh|python|toml)?\n(.*?)```", README, re.S):
        for line in block.splitlines():
            if found := re.search(r"(?:^|-m |^# \w+\.(?:py|toml): )irlens +(.*?)(?: {2,}#.*)?$", line):
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


OWN = re.findall(r"```python\n(# (\w+\.py): irlens (.*?)\n.*?)```", README, re.S)


@pytest.mark.parametrize("code, name, command", OWN, ids=[name for _, name, _ in OWN])
def test_ones_own_code_works_as_it_stands(code, name, command, tmp_path, irlens, monkeypatch):
    assert len(OWN) == 4 and len(code.splitlines()) <= 14
    (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    args = shlex.split(command)
    if args[0] == "rerank":
        irlens("passk", "--limit", "3", "-n", "4", "--temperature", "1.0", cwd=tmp_path)
    if args[0] == "train":
        args += ["--prompts", "16", "-n", "4", "--eval-limit", "4", "--eval-n", "2", "--test-limit", "0"]
    irlens(*args, "--out", tmp_path / "out", cwd=tmp_path)
    if args[0] == "passk":
        results = pd.read_csv(tmp_path / "out" / "results.csv")
        assert set(results["n"]) == {20} and (args[1] != "--engine" or (results["value"] < 0.5).all())
    elif args[0] == "rerank":
        run = pd.read_parquet(tmp_path / "out" / "run.parquet").sort_values(["query_id", "rank"])
        assert run.groupby("query_id")["text"].apply(lambda texts: texts.str.len().is_monotonic_increasing).all()
    else:
        log = pd.read_csv(tmp_path / "out" / "iteration-1" / "log.csv")
        assert log["loss"].iloc[0] == pytest.approx(2.0, abs=1e-3)  # the margin, where policy and reference are one


def test_ones_own_recipe_is_valid(tmp_path):
    (code,) = re.findall(r"```toml\n(.*?)```", README, re.S)
    (tmp_path / "mine.toml").write_text(code)
    mine, base = recipe.load(str(tmp_path / "mine.toml"), "tiny"), recipe.load("fig3b", "tiny")
    assert mine.title != base.title and mine.study == base.study and len(mine.steps) == len(base.steps)
    assert {step.settings.n for step in mine.steps} == {16} != {step.settings.n for step in base.steps}
