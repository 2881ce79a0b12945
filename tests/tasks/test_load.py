"""load: names, files and folders become tasks; what cannot is refused in one line."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from irlens import tasks
from irlens.base.errors import UserError


def write(path: Path, rows: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


SUMS = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(5)]
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]


def test_the_catalogue_of_names_is_light():
    code = "import sys, irlens.tasks; print(sorted({'pandas', 'torch', 'regex', 'numpy'} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["sums", "facts"])
def test_a_name_needs_no_file(name):
    task = tasks.load(name, limit=2)
    assert (task.name, task.split, len(task.topics)) == (name, "test", 2)
    assert task.unrelated in tasks.NAMES
    assert task.revision == "generated, seed 0"


@pytest.mark.parametrize("name", tasks.NAMES)
def test_every_name_has_its_loader_and_refuses_an_unknown_split(name):
    with pytest.raises(UserError, match=f"{name}: no split 'tset'; present: .*t"):
        tasks.load(name, "tset")


def test_a_folder_has_a_split_per_file(tmp_path):
    write(tmp_path / "my sums" / "test.jsonl", SUMS)
    write(tmp_path / "my sums" / "train.jsonl.gz", SUMS[:3])
    task = tasks.load(tmp_path / "my sums")
    assert (task.name, task.split, len(task.topics)) == ("my-sums", "test", 5)
    assert task.topics["query_id"].tolist() == [f"my-sums-test-{i:05d}" for i in range(5)]
    assert task.revision.startswith("test.jsonl sha256:")
    train = tasks.load(str(tmp_path / "my sums"), "train", limit=2)
    assert train.topics["query_id"].tolist() == ["my-sums-train-00000", "my-sums-train-00001"]
    with pytest.raises(UserError, match="no split 'dev'; present: test, train"):
        tasks.load(tmp_path / "my sums", "dev")


def test_a_file_is_its_folder_s_split(tmp_path, monkeypatch):
    path = write(tmp_path / "set" / "dev.jsonl.gz", SUMS)
    whole, some = tasks.load(path), tasks.load(path, limit=2)
    assert (whole.name, whole.split) == ("set", "dev")
    assert whole.topics.head(2).to_dict("list") == some.topics.to_dict("list")
    pd.testing.assert_frame_equal(whole.topics, tasks.load(path.parent).topics)  # the only split needs no name
    monkeypatch.chdir(path.parent)
    pd.testing.assert_frame_equal(whole.topics, tasks.load("dev.jsonl.gz").topics)
    with pytest.raises(UserError, match="no split 'test'; present: dev"):
        tasks.load(path, "test")


def test_splits_are_those_that_load_takes(tmp_path):
    write(tmp_path / "b.jsonl", SUMS)
    path = write(tmp_path / "a.jsonl.gz", SUMS)
    assert tasks.splits(tmp_path) == ["a", "b"]
    assert tasks.splits(path) == ["a"]
    assert tasks.splits(tmp_path / "c.jsonl") == []
    assert tasks.splits("sums") == ["pretrain", "train", "validation", "test"]
    assert tasks.splits("gsm8k") == ["train", "test"]
    write(tmp_path / "corpus.jsonl", [{"_id": "d1", "text": "t"}])
    assert tasks.splits(tmp_path) == []
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "dev.tsv").write_text("", encoding="utf-8")
    assert tasks.splits(tmp_path) == ["dev"]


def test_a_folder_of_several_splits_without_test_needs_a_choice(tmp_path):
    write(tmp_path / "a.jsonl", SUMS)
    write(tmp_path / "b.jsonl", SUMS)
    with pytest.raises(UserError, match="choose a split; present: a, b"):
        tasks.load(tmp_path)


def test_a_name_goes_before_a_folder_and_a_dot_before_that(tmp_path, monkeypatch):
    write(tmp_path / "sums" / "test.jsonl", SUMS)
    monkeypatch.chdir(tmp_path)
    assert len(tasks.load("sums").topics) == 1000
    assert len(tasks.load("./sums").topics) == 5


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            "gsmk8",
            r"unknown data set 'gsmk8' \(did you mean 'gsm8k'\? known: alpacaeval, countdown, facts, gsm8k, math, nq, sums, ultrafeedback; or",
        ),
        ("", "unknown data set ''"),
        ("./nowhere", r"\./nowhere: no such file or folder"),
        ("no/where", "no/where .*: no network, .*no such file or folder here"),
        ("nowhere.jsonl", "nowhere.jsonl: no such file or folder"),
    ],
)
def test_what_is_not_there_is_refused(dataset, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        tasks.load(dataset)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(UserError, match=f"limit must be at least 1, got {limit}"):
        tasks.load("sums", limit=limit)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected .jsonl, .json .*, .parquet or .csv, one per split, or a BEIR"):
        tasks.load(tmp_path)
    (tmp_path / "board.txt").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"board.txt: expected .jsonl, .json"):
        tasks.load(tmp_path / "board.txt")
    with pytest.raises(UserError, match=r"test.jsonl: no rows"):
        tasks.load(write(tmp_path / "test.jsonl", []))
    with pytest.raises(UserError, match="the first has: colour, size"):
        tasks.load(write(tmp_path / "test.jsonl", [{"colour": 1, "size": 2}]))


# -- prompts -------------------------------------------------------------------------------------------------------


def test_prompts_keep_the_conversation_up_to_the_last_user_message(tmp_path):
    rows = [
        {"context_messages": CHAT},
        {"prompt": "Hi"},
        {
            "prompt": [
                *CHAT,
                {"role": "assistant", "content": "Yes."},
                {"role": "user", "content": "Then?"},
                {"role": "assistant", "content": "Well."},
            ]
        },
    ]
    task = tasks.load(write(tmp_path / "set" / "prompts.jsonl", rows))
    assert task.topics["query"].tolist() == ["Hello?", "Hi", "Then?"]
    assert task.topics["messages"].tolist() == [CHAT, [{"role": "user", "content": "Hi"}], rows[2]["prompt"][:4]]
    assert task.topics["query_id"].tolist() == [f"set-prompts-{i:05d}" for i in range(3)]
    assert task.verifier is None and task.corpus is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"context_messages": []}, "prompts.jsonl:2: context_messages must be a list of messages"),
        ({"prompt": 3}, "prompts.jsonl:2: prompt must be a list of messages"),
        ({"prompt": ["Hi"]}, "prompts.jsonl:2: a message needs role and content, both strings, got 'Hi'"),
        ({"prompt": [{"role": "user"}]}, "prompts.jsonl:2: a message needs role and content"),
        ({"prompt": CHAT[:1]}, "prompts.jsonl:2: prompt has no user message, or an empty one"),
        ({"prompt": " "}, "prompts.jsonl:2: prompt has no user message, or an empty one"),
        ({"question": "?"}, "prompts.jsonl:2: prompt must be a list of messages"),
    ],
)
def test_a_bad_prompt_is_refused_with_its_line(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        tasks.load(write(tmp_path / "prompts.jsonl", [{"prompt": "Hi"}, row]))


def test_real_prompts(real_data):
    task = tasks.load(real_data("ultrafeedback"))
    assert (task.name, task.split, len(task.topics)) == ("ultrafeedback", "prompts", 5000)
    assert all(m[-1]["content"] == query for m, query in zip(task.topics["messages"], task.topics["query"]))


# -- the hub -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "instead"), [("gsm8k", "--dataset sums"), ("ultrafeedback", "--dataset facts")])
def test_without_network_the_error_says_what_works_instead(name, instead, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("irlens.models.hub.online", lambda: False)
    with pytest.raises(UserError) as error:
        tasks.load(name)
    assert "no network, and it is not in the local cache; instead: --dataset F" in str(error.value)
    assert instead in str(error.value)
    assert "\n" not in str(error.value)


def test_the_hub_s_own_refusal_is_one_line(monkeypatch):
    def refuse(*args, **options):
        raise PermissionError("gated:\n  ask\n  first")

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *args, **options: SimpleNamespace(sha="0a1b2c"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    monkeypatch.setattr("irlens.models.hub.online", lambda: True)
    with pytest.raises(
        UserError, match="hub.: PermissionError: gated: ask first, and it is not in the local cache; instead: "
    ):
        tasks.load("gsm8k")


def cached(folder: Path, monkeypatch) -> None:
    folder /= "0a1b2c"
    for path, frame in (
        ("main/test-00000-of-00001.parquet", pd.DataFrame(SUMS)),
        ("main/train-00000-of-00001.parquet", pd.DataFrame(SUMS[:2])),
        ("socratic/test-00000-of-00001.parquet", pd.DataFrame(SUMS[:1])),
        ("data/train-00000-of-00001.parquet", pd.DataFrame({"context_messages": [CHAT, CHAT[1:]]})),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(folder / path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **options: str(folder))
    monkeypatch.setattr("irlens.models.hub.online", lambda: False)


def test_cached_hub_files_are_read(tmp_path, monkeypatch):
    cached(tmp_path, monkeypatch)
    test, train, prompts = tasks.load("gsm8k"), tasks.load("gsm8k", "train"), tasks.load("ultrafeedback")
    assert test.topics["query"].tolist() == [row["question"] for row in SUMS]
    assert test.topics["query_id"].iloc[0] == "gsm8k-test-00000"
    assert test.revision == "openai/gsm8k@0a1b2c"
    assert len(train.topics) == 2
    assert prompts.topics["messages"].tolist() == [CHAT, CHAT[1:]] * 3  # the paper's three parts, one after the other
    assert prompts.split == "train"
