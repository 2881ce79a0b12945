"""A stranger's recipes, runs and tags through the commands: nothing leaves --out, is overwritten, or reaches the terminal."""

import json
import re

import pandas as pd
import pytest

from irlens import tables
from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.untrusted import CONTROL

RECIPE = '[[preset.{preset}]]\nstage = "sample"\nname = {name}\nlimit = 2\nn = 2\nmax_tokens = 4\n'
HOSTILE = "\x1b]0;owned\x07<script>[/bold][red]\\input{a}"


@pytest.mark.parametrize(
    "name", ["../../../evil", "/tmp/evil", "..", "a\x00b", "CON", "x" * 300, "a/b", "\u202eevil", "a\nb", ""]
)
def test_a_stage_is_no_way_out_of_the_folder(name, tmp_path, refused):
    (tmp_path / "mine.toml").write_text(RECIPE.format(preset="tiny", name=json.dumps(name)))
    line = refused("reproduce", "mine.toml", "--out", "in/here")
    assert "name" in line and len(line) < 320 and not CONTROL.search(line.rstrip("\n"))
    assert [p.name for p in tmp_path.iterdir()] == ["mine.toml"]


def test_a_preset_is_none_either_nor_a_link_in_the_folder(tmp_path, refused):
    (tmp_path / "mine.toml").write_text(RECIPE.format(preset='"../../evil"', name='"draws"'))
    assert "--preset" in refused("reproduce", "mine.toml", "--preset", "../../evil")
    (tmp_path / "mine.toml").write_text(RECIPE.format(preset="tiny", name='"draws"'))
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "1-draws").symlink_to(tmp_path / "elsewhere")
    assert "is a link that leads out of it" in refused("reproduce", "mine.toml", "--out", "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("option", ["--out", "--store"])
def test_a_url_is_no_folder(option, refused, tmp_path):
    more = [] if option == "--out" else ["--out", "out"]
    assert "a folder of this machine is wanted" in refused("sample", "--limit", "2", option, "s3://bucket/a", *more)
    assert list(tmp_path.iterdir()) == []


def judged(tags, folder):
    """A run with two candidates of three prompts for each tag, and its qrels, in files."""
    rows = [
        {"query_id": f"q{q}", "doc_id": f"{t}-{q}-{d}", "score": 2.0 - d, "rank": d, "text": "a" * (d + 1), "tag": tag}
        for t, tag in enumerate(tags) for q in range(3) for d in range(2)
    ]  # fmt: skip
    run = pd.DataFrame(rows)
    grades = [
        int(row["doc_id"].endswith("-0")) if row["query_id"] != "q1" else 1 - int(row["doc_id"].endswith("-0"))
        for row in rows
    ]
    files.write_parquet(run, folder / "run.parquet")
    files.write_parquet(run[["query_id", "doc_id"]].assign(relevance=grades), folder / "qrels.parquet")
    return run


TAGS = ["one T=0.7", "two t=0.7", "a x.png", "a x ", f"b ../../{HOSTILE}"]


@pytest.mark.parametrize("command, form", [("best-of-n", "best-of-n-*.csv"), ("rerank", "trec/*.run")])
def test_a_file_for_every_tag_whatever_it_is_called(command, form, irlens, tmp_path, monkeypatch):
    judged(TAGS, tmp_path)
    drawn = lambda figure, to, **_: to.write_bytes(b"")  # noqa: E731 - ink takes seconds, and is not the question
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", drawn)
    qrels = [tmp_path / "qrels.parquet"] if command == "best-of-n" else []
    done = irlens(command, tmp_path / "run.parquet", *qrels, "--reranker", "length", "--out", "out/here", cwd=tmp_path)
    found = list((tmp_path / "out" / "here").glob(form))
    assert len({path.name.casefold() for path in found}) == len(found) == len(TAGS)
    assert {p.name for p in tmp_path.iterdir()} == {"run.parquet", "qrels.parquet", "out"}
    assert not CONTROL.search(done.stdout + done.stderr)


def test_what_a_run_is_called_commands_no_terminal_page_or_tex(irlens, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        run = judged([f"{name} {HOSTILE}"], tmp_path / name)
        if name == "second":
            files.write_parquet(
                run.assign(score=run["rank"] + 1.0, rank=1 - run["rank"]), tmp_path / name / "run.parquet"
            )
    values = pd.concat([pd.read_parquet(tmp_path / n / "run.parquet")[["query_id"]].assign(run=f"{n} {HOSTILE}", measure="RR", value=float(i)) for i, n in enumerate(("first", "second"))])  # fmt: skip
    (tmp_path / "measured").mkdir()
    files.write_parquet(values.drop_duplicates(["query_id", "run"]), tmp_path / "measured" / "per_query.parquet")
    files.write_parquet(values.iloc[:6].drop_duplicates("query_id").assign(run="x"), tmp_path / "other.parquet")
    (tmp_path / "again").mkdir()
    files.write_parquet(values.drop_duplicates(["query_id", "run"]), tmp_path / "again" / "per_query.parquet")
    done = irlens("compare", "measured", "again", "--out", "out", cwd=tmp_path)
    page, tex = ((tmp_path / "out" / f"compare.{kind}").read_text() for kind in ("md", "tex"))
    said = done.stdout + done.stderr
    assert "<script>" in said and "[/bold]" in said and "\\x1b]0;owned\\x07" in said  # as it is, in letters
    assert not re.search(r"(?<!\\)<", page) and "\\input" not in tex and "textbackslash{}input" in tex
    for text in (said, page, tex):
        assert not CONTROL.search(text)
    done = irlens("evaluate", "first/run.parquet", "first/qrels.parquet", "RR", "--out", "e", cwd=tmp_path)
    assert not CONTROL.search(done.stdout)


def test_identifiers_with_spaces_and_commands_are_refused_in_letters(tmp_path, refused):
    (tmp_path / "a.run").write_text(f"q Q0 d\x1b[2J 0 {HOSTILE} t\n")
    (tmp_path / "a.qrels").write_text("q 0 d 1\n")
    line = refused("evaluate", "a.run", "a.qrels", "RR")
    assert not CONTROL.search(line) and "score must be a number" in line
    run = pd.DataFrame({"query_id": ["q \x1b[2J"], "doc_id": ["d"], "score": [1.0], "rank": [0]})
    with pytest.raises(UserError, match="has white space"):
        tables.write_trec_run(run, tmp_path / "b.run")
    assert not (tmp_path / "b.run").exists()
