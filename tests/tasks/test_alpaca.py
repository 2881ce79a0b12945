"""AlpacaEval lists: prompts, a run of the systems' responses, graded qrels; damaged rows by file and line."""

import json

import pytest

from irlens import tasks
from irlens.base.errors import UserError

ROW = {
    "prompt_id": "a0",
    "prompt": "Say hi.",
    "candidates": [
        {"system": "s1", "response": "hi", "win_probability": 0.25},
        {"system": "s2", "response": "", "win_probability": 1},
    ],
}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_becomes_topics_a_run_and_graded_qrels(tmp_path):
    (tmp_path / "lists").mkdir()
    write(tmp_path / "lists" / "candidates.jsonl", ROW, ROW | {"prompt_id": "a1"})
    task = tasks.load(tmp_path / "lists")
    assert task.split == "candidates" and task.topics["query"].tolist() == ["Say hi."] * 2
    assert task.candidates["doc_id"].tolist() == ["s1", "s2"] * 2 and task.candidates["text"].tolist() == ["hi", ""] * 2
    assert task.candidates["rank"].tolist() == [0, 1, 0, 1] and task.candidates["score"].tolist() == [0, -1, 0, -1]
    assert task.qrels["relevance"].tolist() == [0.25, 1.0] * 2 and task.verifier is None
    assert len(tasks.load(tmp_path / "lists", limit=1).topics) == 1


def test_a_prompt_without_an_id_gets_its_place(tmp_path):
    path = write(tmp_path / "x.jsonl", {k: v for k, v in ROW.items() if k != "prompt_id"})
    assert tasks.load(path).topics["query_id"].tolist()[0].endswith("-x-00000")


@pytest.mark.parametrize("change, message", [
    ({"prompt": ""}, "x.jsonl:2: prompt must be a non-empty string"),
    ({"candidates": []}, "x.jsonl:2: candidates must be a list"),
    ({"candidates": [{"system": "s"}]}, "x.jsonl:2: a candidate needs system and response"),
    ({"candidates": [ROW["candidates"][0] | {"win_probability": None}]}, "x.jsonl:2: s1: win_probability must be a finite"),
    ({"candidates": [ROW["candidates"][0]] * 2}, "occurs more than once"),
    ({"prompt_id": "a0"}, "occurs more than once"),
])  # fmt: skip
def test_damaged_rows_are_named(tmp_path, change, message):
    path = write(tmp_path / "x.jsonl", ROW, ROW | {"prompt_id": "a1"} | change)
    with pytest.raises(UserError, match=message):
        tasks.load(path)


def test_real_lists(real_data):
    task = tasks.load(real_data("alpaca"))
    assert len(task.topics) == 805 and task.candidates.groupby("query_id").size().eq(12).all()
    by_system = task.qrels.groupby("doc_id")["relevance"].mean() * 100
    rows = (real_data("alpaca") / "leaderboard.csv").read_text().splitlines()[1:]
    published = {row.split(",")[0]: float(row.split(",")[1]) for row in rows}
    assert by_system.to_dict() == pytest.approx(published, abs=0.2)
