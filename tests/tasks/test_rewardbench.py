"""RewardBench 2's rows: every place and file they may lie in, and everything that is wrong with a row, in one line."""

import json

import pandas as pd
import pytest

from irlens import tables
from irlens.base.errors import UserError
from irlens.models.hub import cached_as
from irlens.tasks import rewardbench


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(lines if path.suffix == ".jsonl" else json.dumps(rows))
    return path


@pytest.mark.parametrize(
    "place", ["rb.jsonl", "rb.json", "rb.parquet", "rb/test.jsonl", "rb/data/test-00000-of-00001.parquet"]
)
def test_a_file_or_a_folder_with_one(place, rewardbench_rows, tmp_path):
    rows = rewardbench_rows()
    write(tmp_path / place, rows)
    run, qrels, revision = rewardbench.read(str(tmp_path / place.partition("/")[0]))
    assert tables.check(run, "run") is run and "sha256" in revision
    assert run["query_id"].nunique() == len(rows) == 21 and len(run) == sum(row["total_completions"] for row in rows)
    assert qrels["relevance"].sum() == sum(row["num_correct"] for row in rows)
    right = qrels["relevance"].to_numpy() > 0
    assert run["text"].str.startswith("right").tolist() == right.tolist()
    assert run[run["query_id"] == "Ties/tied:1"]["text"].tolist() == [*rows[18]["chosen"], *rows[18]["rejected"]]
    assert run["score"].nunique() == 1  # the file's order says which is right, and no reranker is to read it


def test_the_hubs_data_set_needs_no_library_of_its_own(rewardbench_rows, tmp_path, monkeypatch):
    """The hub's files as its client caches them, read without `datasets`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UserError, match=r"allenai/reward-bench-2 \(dataset on the Hugging Face hub\): .* --data FILE"):
        rewardbench.read(rewardbench.HUB)
    folder = cached_as(tmp_path, rewardbench.HUB, "dataset")
    write(folder / "data" / "test-00000-of-00001.parquet", rewardbench_rows())
    run, _, revision = rewardbench.read(rewardbench.HUB)
    assert run["query_id"].nunique() == 21 and revision == f"{rewardbench.HUB}@{folder.name}"


def test_counts_may_be_left_out_and_subsets_written_small(rewardbench_rows, tmp_path):
    rows = [
        {k: v for k, v in row.items() if k not in ("num_correct", "total_completions")} for row in rewardbench_rows()
    ]
    run, _, _ = rewardbench.read(str(write(tmp_path / "rb.jsonl", [r | {"subset": r["subset"].lower()} for r in rows])))
    assert list(dict.fromkeys(run["subset"])) == list(rewardbench.SUBSETS)


WRONG = {
    "no chosen": ({"chosen": []}, r"rb.jsonl:1: no chosen completion"),
    "chosen is a text": ({"chosen": "right"}, "chosen must be a list of texts, got 'right'"),
    "chosen holds a number": ({"chosen": [1]}, r"chosen must be a list of texts, got \[1\]"),
    "no rejected": ({"rejected": None}, "needs 'rejected'"),
    "empty rejected": ({"rejected": []}, "no rejected completion"),
    "wrong num_correct": ({"num_correct": 2}, "num_correct is 2, but there are 1"),
    "wrong total": ({"total_completions": 5}, "total_completions is 5, but there are 4"),
    "unknown subset": ({"subset": "Maths"}, "unknown subset 'Maths'; did you mean 'Math'"),
    "no subset": ({"subset": None}, "needs 'subset'"),
    "an item twice": ({"id": "1"}, "rb.jsonl:2: Factuality has an item '1' already .*rb.jsonl:1"),
    "several right ones": ({"chosen": ["a", "b"], "num_correct": 2, "total_completions": 5}, "has one chosen completion, not 2"),
    "no prompt": ({"prompt": " "}, "prompt must be a text"),
    "an id that is none": ({"id": [1]}, r"id must be a short text or a whole number, got \[1\]"),
}  # fmt: skip


@pytest.mark.parametrize("spoiled, message", WRONG.values(), ids=WRONG)
def test_a_row_that_is_wrong_is_one_line_with_its_place(spoiled, message, rewardbench_rows, tmp_path):
    rows = rewardbench_rows()
    with pytest.raises(UserError, match=message) as error:
        rewardbench.read(str(write(tmp_path / "rb.jsonl", [rows[0] | spoiled, *rows[1:]])))
    assert "\n" not in str(error.value)


def test_items_of_ties_have_names_of_their_own_and_twins(rewardbench_rows, tmp_path):
    rows = rewardbench_rows()
    path = write(tmp_path / "rb.jsonl", [row for row in rows if row["id"] != "tied:2"])
    with pytest.raises(UserError, match="rb.jsonl:20: Ties has ref:2 without its twin tied:2"):
        rewardbench.read(str(path))
    write(path, [row | {"id": row["id"].replace("tied:2", "2")} for row in rows])
    with pytest.raises(UserError, match="an item of Ties is called ref:NUMBER or tied:NUMBER, not '2'"):
        rewardbench.read(str(path))
    write(path, [row | {"id": row["id"].replace("tied:2", "tied:1")} for row in rows])
    with pytest.raises(UserError, match="Ties has an item 'tied:1' already"):
        rewardbench.read(str(path))


@pytest.mark.parametrize("place, message", [
    ("nothing.jsonl", "no such file or folder, and no hub id"), ("empty", "no file of rows there"),
    ("none.jsonl", "no rows"), ("broken.jsonl", "broken.jsonl:1: malformed JSON"),
])  # fmt: skip
def test_nothing_there(place, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"id": 1,\n')
    with pytest.raises(UserError, match=message):
        rewardbench.read(place)
