"""Forms of data: whatever file they stand in, rows become the same topics; what is wrong is named with its place."""

import csv
import json
import sys

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import irlens
from irlens import tasks
from irlens.base.errors import UserError
from irlens.tasks import forms

USER = {"role": "user", "content": "Hello?"}
SAID = {"role": "assistant", "content": "Yes."}
PLAIN = [{"instruction": f"Say {i}.", "output": f"{i}", "uid": f"u{i}"} for i in range(4)]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def listed(path, rows):
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def parquet(path, rows):
    pd.DataFrame(rows).to_parquet(path)
    return path


def table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def saved(path, rows):
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({path.stem: datasets.Dataset.from_list(rows)}).save_to_disk(path.with_suffix(""))
    return path.with_suffix("")


WRITERS = {"x.jsonl": jsonl, "x.json": listed, "x.parquet": parquet, "x.csv": table, "x": saved}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_rows_in_any_file_are_the_same_topics(tmp_path, name):
    path = WRITERS[name](tmp_path / name, PLAIN)
    task = tasks.load(path, limit=3, columns="prompt=instruction,answer=output,id=uid")
    assert task.topics["query"].tolist() == ["Say 0.", "Say 1.", "Say 2."] and task.split == "x"
    assert task.topics["answers"].tolist() == [["0"], ["1"], ["2"]]
    assert task.topics["query_id"].tolist() == ["u0", "u1", "u2"]
    assert task.revision and tasks.splits(path) == ["x"]
    as_a_mapping = tasks.load(path, columns={"prompt": "instruction"})
    assert "answers" not in as_a_mapping.topics.columns and len(as_a_mapping.topics) == 4


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=4))
def test_any_text_comes_back_from_any_file(tmp_path_factory, pairs):
    """Line breaks, quotes, commas, a byte-order mark and other scripts come back as they were."""
    pairs = [
        (a.replace("\0", "").encode("utf-8", "ignore").decode() + "x", b.replace("\0", "").encode("utf-8", "ignore").decode() + "x")
        for a, b in pairs
    ]  # fmt: skip
    rows, folder = [{"prompt": a, "answer": b} for a, b in pairs], tmp_path_factory.mktemp("any")
    for name in ("x.jsonl", "x.json", "x.parquet", "x.csv"):
        task = tasks.load(WRITERS[name](folder / name, rows))
        assert task.topics["query"].tolist() == [a for a, _ in pairs]
        assert task.topics["answers"].tolist() == [[b] for _, b in pairs]


def test_a_field_of_any_length_is_read(tmp_path):
    task = tasks.load(table(tmp_path / "x.csv", [{"prompt": "a" * 200_000}]))
    assert len(task.topics["query"].iloc[0]) == 200_000 and csv.field_size_limit() == 131_072


def test_numbered_parts_are_one_split_in_order(tmp_path):
    for part in (0, 1):
        parquet(tmp_path / f"train-{part:05d}-of-00002.parquet", [{"prompt": f"{part}{i}"} for i in range(2)])
    assert tasks.splits(tmp_path) == ["train"]
    assert tasks.load(tmp_path).topics["query"].tolist() == ["00", "01", "10", "11"]
    assert tasks.load(tmp_path).revision.count("sha256:") == 2


def test_openai_messages_keep_system_and_turns_and_join_text_parts(tmp_path):
    parts = {"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]}
    system = {"role": "system", "content": "Be brief."}
    rows = [{"messages": [system, USER, SAID, parts]}, {"messages": [USER, SAID]}]
    task = tasks.load(jsonl(tmp_path / "x.jsonl", rows))
    assert task.topics["messages"].iloc[0] == [system, USER, SAID, {"role": "user", "content": "One\ntwo"}]
    in_parts = [{"messages": [{"role": m["role"], "content": [{"type": "text", "text": "a"}]} for m in (system, USER)]}]
    nested = tasks.load(parquet(tmp_path / "y.parquet", in_parts))
    assert nested.topics["messages"].iloc[0] == [{"role": "system", "content": "a"}, {"role": "user", "content": "a"}]
    assert task.topics["messages"].iloc[1] == [USER] and task.unused == "1 responses that follow the prompts"
    as_json = table(tmp_path / "x.csv", [{"messages": json.dumps([system, USER])}])
    assert tasks.load(as_json).topics["messages"].iloc[0] == [system, USER]


PAIR = {"prompt": "Hello?", "chosen": "Yes.", "rejected": "No."}
CHAT = {"prompt": [USER], "chosen": [SAID], "rejected": [SAID]}
IMPLICIT = {"chosen": [USER, SAID], "rejected": [USER, {"role": "assistant", "content": "No."}]}
BINARIZED = IMPLICIT | {"prompt": "Hello?", "prompt_id": "ab", "messages": [USER, SAID], "score_chosen": 8.0}
KTO = {"prompt": "Hello?", "completion": "Yes.", "label": True}


@pytest.mark.parametrize(
    ("row", "unused"),
    [(PAIR, "3 preference pairs"), (CHAT, "3 preference pairs"), (IMPLICIT, "3 preference pairs"),
     (BINARIZED, "3 preference pairs"), (KTO, "3 judged completions"), ({"prompt": [USER], "completion": [SAID]}, "3 completions")],
)  # fmt: skip
def test_rows_of_one_prompt_are_one_topic_and_the_responses_are_counted(tmp_path, row, unused):
    other = json.loads(json.dumps(row).replace("Hello?", "And then?"))
    path = jsonl(tmp_path / "x.jsonl", [row, row, other])
    task = tasks.load(path)
    assert task.topics["query"].tolist() == ["Hello?", "And then?"] and task.unused == unused
    assert task.topics["messages"].iloc[0] == [USER] and task.verifier is None
    assert [key[-5:] for key in task.topics["query_id"]] == ["00000", "00002"]
    first = tasks.load(path, limit=1)
    assert len(first.topics) == 1 and first.unused == unused.replace("3", "2")


LAYOUTS = {
    "aime": ({"id": 60, "problem": "$1+1$?", "solution": r"So \boxed{2}.", "answer": "2", "year": "2024"}, "2"),
    "aime by another": ({"ID": "2024-I-1", "Problem": "$1+1$?", "Solution": "So 2.", "Answer": 2}, "2"),
    "aime without solutions": ({"problem": "$1+1$?", "answer": 2}, "2"),
    "math-500": ({"problem": "Half?", "solution": r"\boxed{1/2}", "answer": r"\frac{1}{2}", "level": 1}, r"\frac{1}{2}"),
}  # fmt: skip


@pytest.mark.parametrize("row, gold", LAYOUTS.values(), ids=LAYOUTS)
def test_competition_problems_by_their_keys(tmp_path, row, gold):
    pytest.importorskip("math_verify")
    task = tasks.load(jsonl(tmp_path / "x.jsonl", [row]))
    assert task.topics["answers"].tolist() == [[gold]] and task.verifier(rf"\boxed{{{gold}}}", gold)
    assert ("solution" in task.topics.columns) == any(key.lower() == "solution" for key in row)


def test_competition_problems_are_drawn_for_without_what_judges_them(tmp_path, monkeypatch):
    """`irlens sample` judges nothing, so it needs no extra; what judges says which, before it draws."""
    from irlens.commands.passk import passk
    from irlens.commands.sample import sample
    from irlens.commands.settings import PassK, Sample

    monkeypatch.setitem(sys.modules, "math_verify", None)
    path = str(jsonl(tmp_path / "x.jsonl", [LAYOUTS["math-500"][0]]))
    _, found = sample(Sample(dataset=path, n=2, max_tokens=4, store="none", out=str(tmp_path / "s")), str)
    assert found["draws"].tolist() == [2]
    task = tasks.load(path)
    for judging in (
        lambda: passk(PassK(dataset=path, n=2, max_tokens=4, out=str(tmp_path / "p")), str),
        lambda: irlens.verify(pd.read_parquet(tmp_path / "s" / "run.parquet"), task),
    ):
        with pytest.raises(UserError, match=r"the verifier math needs math-verify: pip install 'irlens\[math\]'"):
            judging()
    assert not (tmp_path / "p").exists()


def test_answers_in_words_and_numbers_are_read(tmp_path):
    """`answer: Paris` need not end in `#### number`; who judges it is to be said."""
    rows = [{"question": "Capital?", "answer": "Paris"}, {"question": "How many?", "answer": 3.5}]
    task = tasks.load(jsonl(tmp_path / "x.jsonl", rows))
    assert task.topics["answers"].tolist() == [["Paris"], ["3.5"]] and task.verifier is None
    several = tasks.load(jsonl(tmp_path / "y.jsonl", [{"query_id": "a", "query": "Who?", "answers": ["A", "B"]}]))
    assert several.topics.values.tolist() == [["a", "Who?", ["A", "B"]]]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([PLAIN[0]], None, r"the first has: instruction, output, uid; say which is which: --columns prompt=COLUMN"),
        ([PLAIN[0]], "prompt=instruktion", r"--columns prompt=instruktion: no such column; did you mean 'instruction'"),
        ([PLAIN[0], {"x": 1}], "prompt=instruction", r"x.jsonl:2: no column instruction"),
        ([PLAIN[0]], "promt=instruction", r"--columns promt=…: did you mean 'prompt'"),
        ([PLAIN[0]], "instruction", r"expected NAME=COLUMN"),
        ([PLAIN[0]], "prompt=uid,prompt=output", r"give each name once"),
        ([PAIR, {"prompt": "Hello?", "chosen": "a"}], None, r"x.jsonl:2: no rejected \(found: prompt, chosen\)"),
        ([KTO, {"prompt": "Hello?", "label": True}], None, r"x.jsonl:2: no completion"),
        ([{"chosen": "a", "rejected": "b"}], None, r"x.jsonl:1: chosen is a text, so the row needs a prompt"),
        ([IMPLICIT | {"rejected": [SAID]}], None, r"x.jsonl:1: chosen and rejected do not answer the same"),
        ([{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}], None, r"x.jsonl:1: .* type 'image_url'"),
        ([{"messages": "Hello"}], None, r"x.jsonl:1: messages must be a list of messages, got 'Hello'"),
        ([{"prompt": "a", "answer": "b"}, {"prompt": "c"}], None, r"x.jsonl:2: no answer, which other rows have"),
        ([{"prompt": "a", "answer": []}], None, r"x.jsonl:1: answer is an empty list"),
        ([{"prompt": "a", "answer": None}], None, r"x.jsonl:1: answer must be a text, a number or a list"),
        ([{"prompt": "a", "query_id": "q"}] * 2, None, r"x.jsonl:2: query_id q is that of .*x.jsonl:1 already"),
        ([{"prompt": "a", "query_id": None}], None, r"x.jsonl:1: query_id must be a text or a whole number"),
        ([{"problem": "a", "answer": ""}], None, r"x.jsonl:1: answer must be a non-empty string"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(tmp_path, rows, columns, message):
    with pytest.raises(UserError, match=message) as error:
        tasks.load(jsonl(tmp_path / "x.jsonl", rows), columns=columns)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"prompt,answer\na\n", r"x.csv:2: 1 fields, the first line names 2"),
        ("x.csv", b'prompt\n"a\n', r"x.csv:2: malformed CSV"),
        ("x.csv", b"prompt,prompt\na,b\n", r"x.csv:1: the column 'prompt' is named twice"),
        ("x.csv", "prompt\nÄ\n".encode("latin-1"), r"x.csv: not a UTF-8 text file"),
        ("x.csv", b"prompt\n", r"x.csv: no rows"),
        ("x.json", b'[{"prompt": "a"},\n{"prompt"', r"x.json:2: malformed JSON"),
        ("x.json", b"[1]", r"x.json: entry 0: expected a JSON object, got int"),
        ("x.json", b'{"prompt": "a"}\n{"pro', r"x.json:2: malformed JSON"),
        ("x.parquet", b"PAR1", r"x.parquet: not a readable Parquet file"),
        ("x.jsonl", b'{"prompt": "a"}\n{"pro', r"x.jsonl:2: malformed JSON"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        tasks.load(tmp_path / name)
    assert "\n" not in str(error.value)


def test_columns_are_for_data_of_ones_own(tmp_path):
    with pytest.raises(UserError, match="--columns: for files, folders and data sets of the hub; sums has names"):
        tasks.load("sums", columns="prompt=question")
    jsonl(tmp_path / "corpus.jsonl", [{"_id": "d", "text": "t"}])
    with pytest.raises(UserError, match="--columns: .* is a BEIR folder"):
        tasks.load(tmp_path, columns="prompt=question")


def test_every_form_has_a_name_and_the_first_that_fits_counts():
    assert len({form.name for form in forms.FORMS}) == len(forms.FORMS)
    fits = [[form.fits(row) for form in forms.FORMS].index(True) for row in (PAIR, KTO, {"messages": []})]
    assert fits == sorted(fits)


# -- the library datasets ------------------------------------------------------------------------------------------

CARD = """---
configs:
- config_name: easy
  default: true
  data_files:
  - split: train
    path: easy/train-*.parquet
  - split: test
    path: easy/test-*.parquet
- config_name: hard
  data_files:
  - split: train
    path: hard/train-*.parquet
---
"""


@pytest.fixture
def on_hub(tmp_path, monkeypatch):
    """A data set of two configurations in a hub cache of its own, and no network."""
    pytest.importorskip("datasets")
    from irlens.models import hub

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("irlens.models.hub.online", lambda: False)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "prepared")
    folder = hub.cached_as(tmp_path, "owner/bags", "dataset")
    (folder / "README.md").write_text(CARD)
    for name, rows in (("easy/train", PLAIN), ("easy/test", PLAIN[:2]), ("hard/train", PLAIN[1:])):
        (folder / name).parent.mkdir(exist_ok=True)
        parquet(folder / f"{name}-00000-of-00001.parquet", rows)
    return folder


def test_a_data_set_of_the_hub_by_its_owner_and_name(on_hub):
    columns = "prompt=instruction,answer=output"
    task = tasks.load("owner/bags", columns=columns)
    assert (task.name, task.split, len(task.topics)) == ("owner-bags", "test", 2)
    assert task.revision == f"owner/bags@{on_hub.name}" and tasks.splits("owner/bags") == ["train", "test"]
    hard = tasks.load("hf:owner/bags:hard", limit=2, columns=columns)
    assert hard.split == "train" and hard.topics["query"].tolist() == ["Say 1.", "Say 2."]
    with pytest.raises(UserError, match="no split 'dev'; present: test, train"):
        tasks.load("owner/bags", "dev", columns=columns)
    (on_hub / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(UserError, match="README.md: not a readable card"):
        tasks.load("owner/bags")
    (on_hub / "README.md").write_text(CARD)
    with pytest.raises(UserError, match="owner/bags:harder: `datasets` cannot read it .ValueError"):
        tasks.load("owner/bags:harder")


def test_without_the_library_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(
        UserError, match=r"--dataset owner/name: needs the library datasets: pip install 'irlens\[datasets"
    ):
        tasks.load("owner/name")
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(UserError, match=r"pip install 'irlens\[datasets"):
        tasks.load(tmp_path)


def test_a_damaged_folder_of_datasets_is_one_line(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="`datasets` cannot read it"):
        tasks.load(tmp_path)
