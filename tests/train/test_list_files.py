"""Files of lists to train on: the same lists out of every format and form, and one line for what is wrong."""

import json

import datasets
import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.base.files import write_parquet
from irlens.train import list_files
from irlens.train.preferences import as_lists

SCORED = [
    {"prompt": f"{i} + 1 =", "completions": [f"{i + 1}", f"{i}", "-1"], "scores": [2.0, 1.0, 0.5]} for i in range(3)
]
PAIRS = [{"prompt": f"{i} + 1 =", "chosen": f"{i + 1}", "rejected": f"{i}"} for i in range(3)]


def jsonl(rows, path):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_json(rows, path):
    path.write_text(json.dumps(rows, indent=1))


def parquet(rows, path):
    pd.DataFrame(rows).to_parquet(path)


def csv(rows, path):
    pd.DataFrame([{k: json.dumps(v) if isinstance(v, list) else v for k, v in r.items()} for r in rows]).to_csv(
        path, index=False
    )


def saved(rows, path):
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(str(path))


@pytest.mark.parametrize("rows", [SCORED, PAIRS], ids=["scored", "pairs"])
@pytest.mark.parametrize(
    "write, name",
    [(jsonl, "a.jsonl"), (as_json, "a.json"), (parquet, "a.parquet"), (csv, "a.csv"), (saved, "folder")],
)
def test_every_format_holds_the_same_lists(tmp_path, rows, write, name):
    write(rows, tmp_path / name)
    found, expected = list_files.read(tmp_path / name), as_lists(rows)
    pd.testing.assert_frame_equal(found, expected)
    assert list_files.digest(found) == list_files.digest(expected)


def test_own_lists_come_back_from_their_file_and_from_its_folder(tmp_path):
    lists = as_lists(SCORED)
    write_parquet(lists, tmp_path / "lists.parquet")
    for path in (tmp_path, tmp_path / "lists.parquet"):
        assert list_files.digest(list_files.read(path)) == list_files.digest(lists)
    (tmp_path / "own.jsonl").write_text(lists.to_json(orient="records", lines=True))
    assert list_files.digest(list_files.read(tmp_path / "own.jsonl")) == list_files.digest(lists)


def grades(lists):
    return lists.groupby("query_id", sort=False)[["text", "grade"]].apply(lambda g: list(g.itertuples(index=False, name=None))).tolist()  # fmt: skip


def test_several_rejected_and_rows_of_one_response_are_lists_too():
    several = [{"prompt": "1 + 1 =", "chosen": "2", "rejected": ["3", "4"]}]
    assert grades(as_lists(several)) == [[("2", 1.0), ("3", 0.0), ("4", 0.0)]]
    kto = [("a", "2", True), ("b", "4", True), ("a", "3", False)]
    lists = as_lists([dict(zip(("prompt", "completion", "label"), row)) for row in kto])
    assert grades(lists) == [[("2", 1.0), ("3", 0.0)], [("4", 1.0)]] and lists["tier"].tolist()[1] == "own"
    frame = pd.DataFrame({"prompt": ["a", "a"], "response": ["x", "y"], "score": [0.25, -3]})
    assert grades(as_lists(frame)) == [[("x", 0.25), ("y", -3.0)]]


def test_a_chat_says_itself_what_was_asked():
    """UltraFeedback-binarized's layout has the question as a text beside it, TRL's implicit prompts have none."""
    user = {"role": "user", "content": "1 + 1?"}
    row = {side: [user, {"role": "assistant", "content": text}] for side, text in (("chosen", "2"), ("rejected", "3"))}
    for more in ({"prompt": "1 + 1?"}, {}):
        lists = as_lists([{**more, **row}])
        assert lists["messages"].tolist() == [[user], [user]] and lists["prompt"].isna().all()
        assert lists["query"].tolist() == ["1 + 1?"] * 2 and lists["text"].tolist() == ["2", "3"]
    row["rejected"] = [{"role": "user", "content": "2 + 2?"}, row["rejected"][1]]
    with pytest.raises(UserError, match="row 0: chosen and rejected do not answer the same messages"):
        as_lists([row])


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"bad.jsonl: no column prompt \(found: none\)"),
        ('{"prompt": "a", "chosen": "b"}\n', r"bad.jsonl: no column rejected \(found: prompt, chosen\); lists need"),
        ('{"prompt": "a", "completion": "b"}\n', r"bad.jsonl: no column label \(found: prompt, completion\)"),
        ('{"instruction": "a", "output": "b"}\n', r"no column prompt \(found: instruction, output\)"),
        ('{"prompt": "a", "chosen": "b", "rejected": " "}\n', r"bad.jsonl:1: a completion must be a non-empty text"),
        ('{"prompt": "", "chosen": "b", "rejected": "c"}\n', r"bad.jsonl:1: prompt must be a non-empty text"),
        (
            '{"prompt": [{"role": 1.5, "content": "a"}], "chosen": "b", "rejected": "c"}\n',
            r"bad.jsonl:1: prompt must be a non-empty text or chat messages",
        ),
        (
            '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a"}\n',
            r"bad.jsonl:2: lacks one of prompt, cho",
        ),
        ('{"prompt": "a", "completions": ["b"], "scores": ["x"]}\n', r"bad.jsonl:1: scores must be finite numbers"),
        ('{"prompt": "a", "completions": ["b"], "scores": [1, 2]}\n', r"bad.jsonl:1: 1 completions and 2 scores"),
        ('{"prompt": "a", "chosen": "b", "rej', r"bad.jsonl:1: malformed JSON"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(tmp_path, text, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        list_files.read(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))


def test_other_encodings_other_files_and_no_file_are_one_line(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "é"}'.encode("latin-1"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "notes.txt").write_text("a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "several").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        jsonl(PAIRS, tmp_path / "several" / name)
    for name, message in {
        "latin.jsonl": "UTF-8",
        "broken.parquet": "not a readable Parquet file",
        "notes.txt": "expected .jsonl",
        "empty": "holds no lists.parquet",
        "several": "holds a, b and no split train",
        "2": "no such file or folder .how many lists each prompt gives is --lists-per-prompt",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            list_files.read(tmp_path / name)
        assert "\n" not in str(error.value)


def test_columns_of_other_names_are_the_same_lists(tmp_path):
    """What is mapped stands for its name, and what says the same in another way is not read."""
    pairs = [{"ask": r["prompt"], "best": r["chosen"], "rejected": r["rejected"], "completions": "x"} for r in PAIRS]
    scored = [{"prompt": r["prompt"], "answers": r["completions"], "ratings": r["scores"]} for r in SCORED]
    one = [{"prompt": "p", "said": text, "label": 7, "stars": i, "chosen": "no"} for i, text in enumerate("abc")]
    plain = [{"prompt": "p", "completion": row["said"], "score": row["stars"]} for row in one]
    for name, rows, columns, same in (
        ("a.jsonl", pairs, {"prompt": "ask", "chosen": "best"}, PAIRS),
        ("b.jsonl", scored, {"completions": "answers", "scores": "ratings"}, SCORED),
        ("c.csv", one, {"completion": "said", "score": "stars"}, plain),
    ):
        (csv if name.endswith("csv") else jsonl)(rows, tmp_path / name)
        pd.testing.assert_frame_equal(list_files.read(tmp_path / name, columns), as_lists(same))
        assert list_files.columns(tmp_path / name) == list(rows[0])


def test_a_message_names_the_option_that_maps_columns(tmp_path):
    jsonl([{"ask": "a", "chosen": "b", "rejected": "c"}, {"chosen": "b", "rejected": "c"}], tmp_path / "a.jsonl")
    with pytest.raises(
        UserError, match=r"no column prompt \(found: ask, .*; --columns prompt=COLUMN,… says which is which$"
    ):
        list_files.read(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match=r"a.jsonl: --columns prompt=asked: no such column; did you mean 'ask'"):
        list_files.read(tmp_path / "a.jsonl", {"prompt": "asked"})
    with pytest.raises(UserError, match=r"a.jsonl:2: --columns prompt=ask: no such column"):
        list_files.read(tmp_path / "a.jsonl", {"prompt": "ask"})
    write_parquet(as_lists(SCORED), tmp_path / "lists.parquet")
    with pytest.raises(UserError, match="holds irlens' own lists, which have names of their own"):
        list_files.read(tmp_path, {"prompt": "ask"})
    assert list_files.columns(tmp_path) == list_files.columns(tmp_path / "lists.parquet") == []
