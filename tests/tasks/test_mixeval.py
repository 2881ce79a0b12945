"""MixEval's folders: the authors' prompts, counts of the published versions, and every kind of damage in one line."""

import gzip
import json

import pytest

from irlens import tasks
from irlens.base.errors import UserError
from irlens.tasks import mixeval

FREE = {"problem_type": "free-form", "context": None, "prompt": "Who wrote it?", "target": ["Ann", "A. B."], "benchmark_name": "TriviaQA"}  # fmt: skip
CHOICE = {"problem_type": "multiple-choice", "context": None, "prompt": "Which?", "options": ["one", "two"], "target": [1], "benchmark_name": "PIQA"}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """`folder(free, choice)` writes a version whose two sets hold these records; returns its path."""

    def write(free=None, choice=None, name="mixeval-2024-06-01"):
        for split in mixeval.SPLITS:
            (tmp_path / name / split).mkdir(parents=True, exist_ok=True)
            for kind, records in (("free-form", free or {"0": FREE}), ("multiple-choice", choice or {"0": CHOICE})):
                (tmp_path / name / split / f"{kind}.json").write_text(json.dumps(records))
        return tmp_path / name

    return write


def test_prompts_are_the_authors():
    assert mixeval.prompt(FREE) == "Question: Who wrote it?\nAnswer the question shortly."
    assert mixeval.prompt(FREE | {"context": " \n"}) == mixeval.prompt(FREE)
    assert mixeval.prompt(FREE | {"context": " In 1900.", "benchmark_name": "DROP"}) == (
        "Question:  In 1900.\nWho wrote it?\nAnswer the question shortly."
    )
    for name in ("BBH", "GSM8k", "MATH"):
        steps = "Question: Who wrote it?\nAnswer the question. \nLet's think step by step."
        assert mixeval.prompt(FREE | {"benchmark_name": name}) == steps
    assert mixeval.prompt(CHOICE | {"context": "magazine"}) == (
        "magazine\nWhich?\nA. one\nB. two\nAnswer with the option letter from the given choices directly."
    )


def test_a_version_is_a_task_by_its_path_its_checkout_or_the_word_before(folder, tmp_path):
    version = folder({"7": FREE, "9": FREE}, {"x": CHOICE})
    task = tasks.load(version)
    assert task.name == "mixeval-2024-06-01" and task.split == "mixeval" and task.verifier is None
    assert task.topics["query_id"].tolist() == [
        f"mixeval-2024-06-01/mixeval/{one}" for one in ("free-form/7", "free-form/9", "multiple-choice/x")
    ]
    assert task.topics["answers"].tolist() == [["Ann", "A. B."], ["Ann", "A. B."], ["B"]]
    assert tasks.load(f"mixeval:{version}", "mixeval-hard", 1).topics["query_id"].str.contains("mixeval-hard").all()
    assert tasks.splits(f"mixeval:{version}") == ["mixeval", "mixeval-hard"]
    inside = tmp_path / "checkout" / "mix_eval" / "data"
    inside.mkdir(parents=True)
    version.rename(inside / version.name)
    assert tasks.load(tmp_path / "checkout").name == "mixeval-2024-06-01"
    (inside / "mixeval-2024-08-11" / "mixeval").mkdir(parents=True)
    (inside / "mixeval-2024-08-11" / "mixeval" / "free-form.json").write_text(json.dumps({"0": FREE}))
    with pytest.raises(UserError, match=r"2 versions of MixEval; name one: .*2024-06-01, .*2024-08-11"):
        tasks.load(tmp_path / "checkout")


def test_base_models_get_the_authors_examples_where_the_folder_has_them(folder):
    version = folder()
    with pytest.raises(UserError, match=r"templates\.json: no such file"):
        tasks.load(version, "mixeval-5-shot")
    (version.parent / "templates.json").write_text(
        json.dumps({"five_shot_freeform": "F\n\n", "five_shot_multichoice": "C\n"})
    )
    queries = tasks.load(version, "mixeval-5-shot").topics["query"].tolist()
    assert queries[0].startswith("F\n\nQuestion: Who") and queries[1].startswith("C\nWhich?")
    assert tasks.splits(version)[2:] == ["mixeval-5-shot", "mixeval-hard-5-shot"]


@pytest.mark.parametrize("kind, change, said", [
    ("choice", {"target": [2]}, r"target 2 is out of range: there are 2 options, counted from 0"),
    ("choice", {"target": [-1]}, "target -1 is out of range"),
    ("choice", {"target": [True]}, "one whole number"),
    ("choice", {"target": [0, 1]}, "one whole number"),
    ("choice", {"target": 0}, "one whole number"),
    ("choice", {"options": ["one"]}, "options must be 2 to 26"),
    ("choice", {"options": ["one", " "]}, "not blank"),
    ("free", {"target": []}, "target must be a list of texts"),
    ("free", {"target": ["", "x"]}, "not blank"),
    ("free", {"target": [3]}, "target must be a list of texts"),
    ("free", {"prompt": ""}, "prompt must be a text"),
    ("free", {"context": 3}, "context must be a text or null"),
    ("free", {"benchmark_name": None}, "benchmark_name must be a text"),
])  # fmt: skip
def test_a_wrong_record_is_named_and_such_are_counted(folder, kind, change, said):
    good, name = (CHOICE, "multiple-choice") if kind == "choice" else (FREE, "free-form")
    bad = {"3": good, "5": good | change, "6": good | change}
    version = folder(**{kind: bad})
    with pytest.raises(UserError, match=rf"{name}\.json: id '5': .*{said}.*\(2 such records\)"):
        tasks.load(version)


@pytest.mark.parametrize("key", ["context", "prompt", "options", "target", "benchmark_name"])
def test_a_key_that_is_missing_is_named(folder, key):
    version = folder(choice={"8": {name: value for name, value in CHOICE.items() if name != key}})
    with pytest.raises(UserError, match=rf"id '8': no {key} \(1 such"):
        tasks.load(version)


def test_files_that_are_cut_double_or_absent_are_named(folder):
    file = folder() / "mixeval" / "free-form.json"
    whole = json.dumps({str(i): FREE for i in range(9)}, indent=1)
    file.write_text(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"free-form\.json:\d+: malformed JSON"):
        tasks.load(file.parents[1])
    file.write_text(f'{{"1": {json.dumps(FREE)}, "1": {json.dumps(FREE)}}}')
    with pytest.raises(UserError, match="'1' is there twice"):
        tasks.load(file.parents[1])
    file.write_text("[]")
    with pytest.raises(UserError, match="expected an object"):
        tasks.load(file.parents[1])
    file.unlink()
    with pytest.raises(UserError, match=r"no free-form\.json"):
        tasks.load(file.parents[1])
    packed = gzip.compress(whole.encode())
    file.with_suffix(".json.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"free-form\.json\.gz: "):
        tasks.load(file.parents[1])
    with pytest.raises(UserError, match=r"no split 'easy'; present: mixeval, mixeval-hard"):
        tasks.load(file.parents[1], "easy")


COUNTS = {  # version → (free, distinct, choice, distinct) of both sets
    "2024-06-01": ((2000, 1446, 2000, 1739), (500, 200, 500, 246)),
    "2024-08-11": ((2000, 1448, 1995, 1741), (500, 380, 500, 443)),
}


@pytest.mark.parametrize("version", COUNTS)
def test_the_published_versions_are_read_whole(real_data, version):
    folder = real_data(f"mixeval/mixeval-{version}")
    prompts = {}
    for split, counts in zip(mixeval.SPLITS, COUNTS[version]):
        items = mixeval.read(folder, split)
        of = {kind: [item for item in items if item.kind == kind] for kind in mixeval.KINDS}
        found = [n for some in of.values() for n in (len(some), len({item.prompt for item in some}))]
        assert tuple(found) == counts
        prompts[split] = {item.prompt for item in items}
    assert prompts["mixeval-hard"] < prompts["mixeval"]  # under other ids
