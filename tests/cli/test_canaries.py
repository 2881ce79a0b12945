"""Canaries in every place a secret can enter: none comes out on the screen, and none in any byte that is written.

The places are read off the parser, so that an option that is new is covered; servers refuse, echo and fail.
"""

import base64
import gzip
import json
import sqlite3
import sys
from urllib.parse import quote

import pandas as pd
import pytest
import typer

from irlens.base.options import settings_from
from irlens.base.secrets import MARK
from irlens.cli.app import app, main
from irlens.commands.settings import STAGES, Train

NOWHERE = "127.0.0.1:9"  # where nobody answers
GROUP = typer.main.get_command(app)
PLACES = [  # every option and argument of every command that takes a value
    (command, parameter.opts[0] if parameter.opts[0].startswith("-") else None, parameter.name)
    for command, found in GROUP.commands.items()
    for parameter in found.params
    if not getattr(parameter, "is_flag", False)
]
FORMS = {
    "url": "http://me:{}@" + NOWHERE + "/v1",
    "user": "https://{}@" + NOWHERE + "/v1",
    "query": "http://" + NOWHERE + "/v1?model=a&api_key={}",
    "json": '{{"top_k": 1, "api_key": "{}"}}',
    "nested": '{{"a": [{{"headers": {{"Authorization": "Bearer {}"}}}}]}}',
    "name": "api_key={}",
}


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a command in this process and in `tmp_path`: (exit code, all that it printed)."""

    def call(*args):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("irlens.cli.app.app", GROUP)  # built once
        monkeypatch.setattr(sys, "argv", ["irlens", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return stop.value.code, said.out + said.err

    return call


def written(folder):
    """(what, text) of all that lies below a folder: names and bytes of files, and what packed ones hold."""
    for path in sorted(folder.rglob("*")):
        yield path.name, str(path)
        if not path.is_file():
            continue
        yield path.name, path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            yield path.name, pd.read_parquet(path).to_csv() + str(pd.io.parquet.get_engine("pyarrow"))
        elif path.suffix == ".gz":
            yield path.name, gzip.decompress(path.read_bytes()).decode("latin-1")
        elif path.suffix == ".sqlite":
            with sqlite3.connect(path) as index:
                yield path.name, "\n".join(index.iterdump())


def forms(canary):
    """A canary as it may be written."""
    in_base64 = [base64.b64encode(text.encode()).decode() for text in (canary, f"me:{canary}")]
    return {canary, quote(canary, safe=""), json.dumps(canary)[1:-1], *in_base64}


def leaks(canaries, said, folder):
    """Where one of the canaries is."""
    found = [("screen", canary) for canary in canaries for form in forms(canary) if form in said]
    for name, text in written(folder):
        found += [(name, canary) for canary in canaries for form in forms(canary) if form in text]
    return found


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=() if i % 2 == 0 else pytest.mark.slow) for i, form in enumerate(FORMS)]
)
def test_no_option_of_any_command_lets_a_secret_out(form, run, tmp_path):
    assert len(PLACES) > 250 and len({command for command, *_ in PLACES}) == len(GROUP.commands) - 1  # doctor has none
    ended, said = {}, {}
    for command, option, name in PLACES:
        canary = f"Canary-{command}-{name}-Zq7"
        given = [option, FORMS[form].format(canary)] if option else [FORMS[form].format(canary)]
        if option != "--out":
            given += ["--out", "out"] if any(p.name == "out" for p in GROUP.commands[command].params) else []
        if command in ("demo", "sample", "passk", "train", "mine-negatives") and name not in ("base_url", "dataset"):
            given += ["--dataset", "nothing"]  # refused before anything is made, if not before
        if command == "reproduce" and name != "recipe":
            given = ["nothing", *given]
        if command == "demo":
            given += ["--seed", "-1"] if name != "seed" else []
        ended[command, name], said[command, name] = run(command, *given)
    taken = {name for _, name in ended if name not in ("base_url", "engine_args")}
    assert set(ended.values()) == {2} and taken
    canaries = [f"Canary-{command}-{name}-Zq7" for command, name in said]
    assert leaks(canaries, "\n".join(said.values()), tmp_path) == []
    assert all(
        MARK in line for (_, name), line in said.items() if name in ("model", "run", "served_model") and form != "name"
    )


SECRETS = {name: f"Canary-{name}-Zq7" for name in ("OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "MY_PASSWORD")}


def drawn_from(url, **more):
    """A command that draws at a server."""
    options = {
        "dataset": "sums",
        "limit": 3,
        "n": 2,
        "temperature": 1.0,
        "concurrency": 2,
        "base-url": url,
        "out": "out",
    }
    options |= {"store": "store"} | more
    return [
        "sample",
        "--chat",
        *(part for name, value in options.items() for part in (f"-{name}" if name == "n" else f"--{name}", value)),
    ]


def test_another_password_is_the_same_result_and_none_is_kept(run, serve, tmp_path, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    url = serve(user="me:Canary first/Zq7", query="api_key=Canary-query-Zq7").replace(
        "/v1", "/v1?api_key=Canary-query-Zq7"
    )
    first = url.replace("//", "//me:Canary%20first%2FZq7@")
    code, said = run(*drawn_from(first, **{"engine-args": '{"top_k": 1, "api_key": "Canary-body-Zq7"}'}))
    assert code == 0 and "***@127.0.0.1" in said
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"]["engine_args"] == {"top_k": 1} and manifest["status"] == "complete"
    assert MARK in manifest["engine"]["base_url"] and MARK in " ".join(manifest["argv"])
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/shards/T*.parquet")}
    other = serve(user="me:Canary-second-Zq7").replace("//", "//me:Canary-second-Zq7@")
    more = {"engine-args": '{"top_k": 1, "api_key": "Canary-other-Zq7"}', "n": 4}
    code, again = run(*drawn_from(other, **more))
    assert code == 0 and shards and all(path.stat().st_mtime_ns == at for path, at in shards.items())
    assert len(pd.read_parquet(tmp_path / "out" / "run.parquet")) == 12
    canaries = [
        "Canary first/Zq7",
        *(f"Canary-{word}-Zq7" for word in ("query", "body", "second", "other")),
        *SECRETS.values(),
    ]
    assert leaks(canaries, said + again, tmp_path) == []
    searched = [name for name, _ in written(tmp_path)]
    assert len(searched) > 15 and any(name.endswith(".sqlite") for name in searched)


@pytest.mark.parametrize(
    "settings", [{"key": "other", "echo": True}, {"status": 400, "echo": True}, {"status": 403, "echo": True}, None]
)
def test_a_server_that_refuses_and_says_what_it_was_told(settings, run, serve, tmp_path, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    url = (serve(**settings) if settings else f"http://{NOWHERE}/v1") + "?api_key=Canary-query-Zq7"
    for given in (url, url.replace("//", "//me:Canary-login-Zq7@")):
        code, said = run(*drawn_from(given), "--engine-args", '{"hf_token": "Canary-body-Zq7"}')
        assert code == 2 and MARK in said
        assert (
            leaks(["Canary-query-Zq7", "Canary-login-Zq7", "Canary-body-Zq7", *SECRETS.values()], said, tmp_path) == []
        )


@pytest.mark.parametrize("key", ["Canary-api-key-Zq7", "Canary\nZq7", "Canaryé-Zq7"])
def test_a_key_in_the_place_of_its_name_or_with_letters_that_no_header_takes(key, run, serve, tmp_path, monkeypatch):
    code, said = run(*drawn_from(serve()), "--api-key-env", key)
    assert code == 2 and "not the key itself" in said and leaks([key], said, tmp_path) == []
    monkeypatch.setenv("OPENAI_API_KEY", key)
    _, said = run(*drawn_from(serve()))
    assert leaks([key], said, tmp_path) == []


RECIPE = """
[[preset.tiny]]
stage = "sample"
chat = true
limit = 2
n = 2
base_url = "http://me:Canary-recipe-Zq7@{where}/v1?key=Canary-query-Zq7"
engine_args = '{{"api_key": "Canary-body-Zq7"}}'
"""


def test_a_recipe_keeps_none_in_its_plan_its_folder_or_its_rehearsal(run, serve, tmp_path):
    from irlens.reproduce import recipe
    from irlens.reproduce.rehearsal import steps

    canaries, said = ["Canary-recipe-Zq7", "Canary-query-Zq7", "Canary-body-Zq7"], ""
    for where in (NOWHERE, serve().removeprefix("http://").removesuffix("/v1")):
        (tmp_path / "mine.toml").write_text(RECIPE.format(where=where))
        for more in (["--dry-run"], []):
            code, line = run("reproduce", "mine.toml", "--out", "made", *more)
            assert code == (2 if where == NOWHERE and not more else 0)
            said += line
    said += steps.as_json(recipe.load(str(tmp_path / "mine.toml"), "tiny"), [], tmp_path)
    (tmp_path / "mine.toml").unlink()
    assert leaks(canaries, said, tmp_path) == [] and (tmp_path / "made" / "manifest.json").is_file()


def test_what_a_training_hands_to_its_processes_has_none(tmp_path):
    from irlens.train.launch import Phase

    settings = settings_from(
        Train, {"engine_args": '{"api_key": "Canary-Zq7"}', "base_url": "http://a:Canary-Zq7@b"}, "here"
    )
    phase = Phase(settings, tmp_path, "tiny", tmp_path, {"q": [1, 2]}, 1)
    assert "Zq7" not in phase.as_json() and Phase.of_json(phase.as_json()).prompts == {"q": [1, 2]}


@pytest.mark.parametrize("command", STAGES)
def test_a_recipe_is_refused_a_secret_where_the_command_line_is(command):
    from dataclasses import fields

    from irlens.base.errors import UserError

    texts = [f for f in fields(STAGES[command]) if "str" in str(f.type)]
    taking = {f.name for f in texts if f.metadata.get("secret")}
    assert taking <= {"base_url", "engine_args"} and texts
    for f in texts:
        if f.name in taking:
            continue
        with pytest.raises(UserError, match="holds a secret") as error:
            settings_from(STAGES[command], {f.name: "http://me:Canary-Zq7@host"}, "here")
        assert "Zq7" not in str(error.value)
