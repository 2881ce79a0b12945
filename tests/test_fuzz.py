"""The fuzz (`make fuzz`) in small: inputs that once failed, nonsense that is refused, and a short one of every kind."""

import base64
import csv
import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import fuzz  # noqa: E402
import fuzz_bases  # noqa: E402
from fuzz_inputs import DEEP, LONG, content, jsonl  # noqa: E402

CORPUS = HERE / "fuzz_corpus.json"


@pytest.fixture(scope="module")
def fed(tmp_path_factory):
    one = fuzz.Fed(tmp_path_factory.mktemp("fuzz"))
    yield one
    one.end()


def unpacked(case):
    """An input as it is fed: the corpus holds files deflated."""
    inflate = lambda text: base64.b64encode(zlib.decompress(base64.b64decode(text))).decode()  # noqa: E731
    more = {"files": {name: inflate(text) for name, text in case.get("files", {}).items()}}
    return case | more | ({"answer": inflate(case["answer"])} if "answer" in case else {})


def test_what_once_failed_does_not(fed):
    cases = json.loads(CORPUS.read_text())
    assert len(cases) > 15 and CORPUS.stat().st_size < 200_000
    found = [(case["base"], case["was"], fed.feed(unpacked(case))) for case in cases]
    assert [(base, was, one["wrong"]) for base, was, one in found if one["wrong"]] == []


def trec(*scores):
    return content(("lines", [["q0", "Q0", f"d{i}", i, score, "x"] for i, score in enumerate(scores)]))


def recipe(line, stage="passk"):
    return f'[[preset.tiny]]\nstage = "{stage}"\n{line}\n'.encode()


def stage_of(line, stage="passk"):
    return {"base": "stages", "files": {"mine.toml": recipe(line, stage)}}


def optioned(name, *words):
    return {"base": f"options of {name}", "argv": [*fuzz_bases.BASES[f"options of {name}"].argv, *words]}


def row(**more):
    return jsonl([{"query_id": "q0", "prompt": "a", "answer": "1"} | more])


NONSENSE = {
    "score must be a finite number of at most 1,000,000,000": {"base": "trec x trec", "files": {"run.trec": trec(1700000000, 1.0)}},
    "a finite number, got": {"base": "trec x trec", "files": {"run.trec": trec("inf", 1.0)}},
    "a whole number of at most 10,000": {"base": "trec x trec", "files": {"qrels.trec": b"q0 0 a 4611686018427387904\n"}},
    "string of at most 1,000 letters": {
        "base": "rerank table",
        "files": {"run.parquet": content(("parquet", [{**one, "query_id": LONG} for one in fuzz_bases.ROWS]))},
    },
    "n must be at least 1, got -4": stage_of("n = -4"),
    "limit must be at least 1, got 0": stage_of("limit = 0"),
    "temperature must be a finite number": stage_of("temperature = [nan]"),
    "shard_size must be at least 1, got 0": stage_of("shard_size = 0", "recall"),
    "title must be a text": {"base": "stages", "files": {"mine.toml": b"title = 1\n"}},
    "a recipe cannot be like itself (a.toml → b.toml → a.toml)": {
        "base": "stages", "argv": ["reproduce", "a.toml", "--dry-run"],
        "files": {"a.toml": b'like = "b.toml"\n', "b.toml": b'like = "a.toml"\n'},
    },
    "malformed TOML": {"base": "stages", "files": {"mine.toml": b"a = " + b"1" * 5000}},
    "--right-from must be a finite number": optioned("best-of-n", "--right-from", "inf"),
    "--shard-size must be at least 1": optioned("recall", "--shard-size", "0"),
    "--index '🍎'": {"base": "beir", "argv": [*fuzz_bases.BASES["beir"].argv, "--index", "🍎"]},
    "half a letter": optioned("rerank", "--out", "a\ud83d"),
    "-n must be a finite number of at most": optioned("sample", "-n", "9" * 300),
    "--seed must be a whole number from 0": optioned("rerank", "--seed", "-1"),
    "text with half a letter": {"base": "task jsonl", "files": {"data.jsonl": row(answer="\ud800")}},
    "nested too deeply": {"base": "task jsonl", "files": {"data.jsonl": b'{"prompt": ' + b"[" * DEEP}},
    "a whole number of thousands of digits": {"base": "task jsonl", "files": {"data.jsonl": b'{"prompt": ' + b"9" * 5000 + b"}"}},
    "temperature must be a finite number, got": {
        "base": "mined", "files": {"run.parquet": content(("parquet", [{**one, "temperature": "hot"} for one in fuzz_bases.ROWS]))},
    },
}  # fmt: skip


@pytest.mark.parametrize("said", NONSENSE)
def test_nonsense_is_refused(fed, said):
    found = fed.feed(fuzz.packed(NONSENSE[said]))
    assert (found["code"], found["wrong"]) == (2, ""), found
    assert said in found["said"].encode().decode("unicode_escape", "ignore") or said in found["said"], found["said"]


def test_what_is_refused_leaves_no_folder_that_stops_the_right_one(fed):
    """The identifier has a space, which is found as the order is written."""
    rows = [{**one, "query_id": "q 0"} for one in fuzz_bases.ROWS]
    found = fed.feed(fuzz.packed({"base": "rerank table", "files": {"run.parquet": content(("parquet", rows))}}))
    assert (found["code"], found["wrong"]) == (2, "") and "white space" in found["said"]


def test_a_short_fuzz_of_every_kind(tmp_path):
    command = [
        sys.executable,
        str(HERE / "fuzz.py"),
        "--inputs",
        "50",
        "--seed",
        "7",
        "--out",
        str(tmp_path / "f.csv"),
    ]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "f.csv").open() as file:
        rows = {line["kind"]: line for line in csv.DictReader(file)}
    assert rows.keys() == {*fuzz.SHARES, "all"} and int(rows["all"]["inputs"]) >= 45 and rows["all"]["failures"] == "0"
    assert int(rows["all"]["refused"]) > int(rows["all"]["accepted"]) > 0
