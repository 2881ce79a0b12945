"""Lists in the forms of other trainers, read back by ours and by the libraries that they are for."""

import json

import pandas as pd
import pytest

from irlens import tables
from irlens.base import files
from irlens.base.errors import UserError
from irlens.models import catalog
from irlens.negatives import export

ROWS = [
    ("a", "1+1?", "a/gold", "it is 2", 1.0, "positive"),
    ("a", "1+1?", "a7", "two: 2", 1.0, "positive"),
    ("a", "1+1?", "b3", "it is 11", 0.0, "easy"),
    ("a", "1+1?", "a4", 'it is "3"\n', 0.0, "hard"),
    ("b", "2+2?", "b/gold", "it is 4 …", 1.0, "positive"),
    ("b", "2+2?", "b1", "it is 5", 0.0, "hard"),
]
LISTS = pd.DataFrame(ROWS, columns=["query_id", "query", "doc_id", "text", "grade", "tier"]).assign(iteration=0, list=0)
PROMPTS = {"a": "Question: 1+1?\nAnswer:\n", "b": "Question: 2+2?\nAnswer:\n"}
CHAT = {"a": [{"role": "user", "content": "1+1?"}], "b": [{"role": "user", "content": "2+2?"}]}


def test_pairs_are_every_positive_with_every_negative():
    rows = export.trl(LISTS, PROMPTS)
    assert [(r["chosen_id"], r["rejected_id"], r["tier"]) for r in rows] == [
        ("a/gold", "b3", "easy"),
        ("a/gold", "a4", "hard"),
        ("a7", "b3", "easy"),
        ("a7", "a4", "hard"),
        ("b/gold", "b1", "hard"),
    ]
    assert rows[0]["prompt"] == PROMPTS["a"] and rows[0]["chosen"] == "it is 2" and rows[0]["rejected"] == "it is 11"
    assert export.trl(LISTS)[0]["prompt"] == "1+1?"
    chat = export.trl(LISTS, CHAT)[-1]
    assert chat["prompt"] == CHAT["b"] and chat["chosen"] == [{"role": "assistant", "content": "it is 4 …"}]


def test_many_lists_are_read_by_column(monkeypatch):
    """A frame per list made 100,000 lists an hour's work; in what order rows stand in the frame is no matter of speed."""
    many = pd.concat([LISTS.assign(query_id=LISTS["query_id"] + str(i)) for i in range(50)], ignore_index=True)
    frames, made = [], pd.DataFrame.__init__
    monkeypatch.setattr(pd.DataFrame, "__init__", lambda self, *a, **k: frames.append(1) or made(self, *a, **k))
    rows, tuples = export.trl(many), export.tuples(many, 1)[0]
    assert len(frames) < 50
    assert len(rows) == 250 and len(tuples) == 150
    assert [(r["query_id"], r["rejected_id"]) for r in rows[-2:]] == [("a49", "a4"), ("b49", "b1")]
    mixed = many.iloc[::-1].reset_index(drop=True)
    pairs = {(r["query_id"], r["chosen_id"], r["rejected_id"]) for r in rows}
    assert {(r["query_id"], r["chosen_id"], r["rejected_id"]) for r in export.trl(mixed)} == pairs
    lost = many.assign(iteration=[None, *many["iteration"][1:]])  # a row that is in no iteration is in no list
    assert [r["chosen_id"] for r in export.trl(lost)[:2]] == ["a7", "a7"]


def test_kto_has_each_response_once():
    rows = export.kto(LISTS, PROMPTS)
    assert [(r["completion"], r["label"]) for r in rows] == [(row[3], row[4] > 0) for row in ROWS]
    twice = pd.concat([LISTS, LISTS.assign(list=1)])
    assert export.kto(twice, PROMPTS) == rows
    with pytest.raises(UserError, match="a response of b is both a positive and a negative"):
        export.kto(pd.concat([LISTS, LISTS[4:5].assign(tier="hard", list=1)]))


def test_tuples_have_equally_many_negatives_and_count_what_they_leave_out():
    assert len(export.triplets(LISTS)) == 5
    rows, left_out = export.tuples(LISTS)
    assert left_out == 1 and [list(r) for r in rows] == [["anchor", "positive", "negative_1", "negative_2"]] * 2
    assert rows[1] == {"anchor": "1+1?", "positive": "two: 2", "negative_1": "it is 11", "negative_2": 'it is "3"\n'}
    rows, left_out = export.tuples(LISTS, 1)
    assert left_out == 0 and [r["negative_1"] for r in rows] == ["it is 11", "it is 11", "it is 5"]


@pytest.mark.parametrize("prompts", [None, PROMPTS, CHAT])
def test_our_pairs_come_back_as_the_lists_they_were(tmp_path, prompts):
    export.write_all(LISTS, tmp_path, prompts)
    pd.testing.assert_frame_equal(tables.read_lists(tmp_path / "trl.jsonl"), LISTS)
    files.write_parquet(LISTS, tmp_path / "lists.parquet")
    pd.testing.assert_frame_equal(tables.read_lists(tmp_path), LISTS, check_dtype=False)


def test_pairs_of_others_become_lists(tmp_path):
    user = {"role": "user", "content": "hi?"}
    rows = [
        {"prompt": "hi?", "chosen": "yes", "rejected": "no"},
        {"prompt": "who?", "chosen": "me", "rejected": "you", "score": 3},
        {"prompt": "hi?", "chosen": "yes", "rejected": "maybe"},
        {"prompt": [user], "chosen": [user, {"role": "assistant", "content": "yes"}], "rejected": [{"content": "no"}]},
    ]
    export.write_jsonl(rows, tmp_path / "pairs.jsonl")
    lists = tables.read_lists(tmp_path / "pairs.jsonl")
    assert lists.groupby("query_id")["text"].apply(list).to_dict() == {
        "pairs-00000": ["yes", "no", "maybe"],
        "pairs-00001": ["me", "you"],
        "pairs-00002": ["yes", "no"],
    }
    assert lists["query"].tolist() == ["hi?"] * 3 + ["who?"] * 2 + ["hi?"] * 2
    assert set(lists["tier"]) == {"positive", "own"} and lists["doc_id"].is_unique


@pytest.mark.parametrize(
    "row, message",
    [
        ({"prompt": "a", "chosen": "b"}, "pairs.jsonl:2: rejected must be a non-empty text"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "pairs.jsonl:2: rejected must be"),
        ({"prompt": [], "chosen": "b", "rejected": "c"}, "pairs.jsonl:2: prompt must be"),
        ({"prompt": "p", "chosen": "n", "rejected": "m"}, "pairs.jsonl:2: the text 'n' is both chosen and rejected"),
        (
            {"prompt": "p", "chosen": "y", "rejected": "n", "list": "x"},
            "pairs.jsonl:2: iteration and list must be whole",
        ),
    ],
)
def test_damaged_pairs_are_named_by_line(tmp_path, row, message):
    export.write_jsonl([{"prompt": "p", "chosen": "y", "rejected": "n"}, row], tmp_path / "pairs.jsonl")
    with pytest.raises(UserError, match=message):
        tables.read_lists(tmp_path / "pairs.jsonl")


def loaded(path):
    datasets = pytest.importorskip("datasets")
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(path.parent / "cache"))


@pytest.mark.parametrize("prompts", [PROMPTS, CHAT])
def test_the_libraries_own_loader_reads_what_was_written(tmp_path, prompts):
    counts = export.write_all(LISTS, tmp_path, prompts)
    assert counts == {"trl": 5, "kto": 6, "triplets": 5, "tuples": 2, "lists_without_tuple": 1}
    for name in ("trl", "kto", "triplets", "tuples"):
        written = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        found = loaded(tmp_path / f"{name}.jsonl")
        assert found.to_list() == written and set(found.column_names) == set(written[0])


@pytest.mark.parametrize("name", ["triplets", "tuples"])
def test_sentence_transformers_trains_on_the_tuples(tmp_path, name):
    export.write_all(LISTS, tmp_path)
    found = loaded(tmp_path / f"{name}.jsonl")
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss, TripletLoss

    model = SentenceTransformer(str(catalog.fetch(catalog.encoder("tiny-e5"))), device="cpu")
    loss = (TripletLoss if name == "triplets" else MultipleNegativesRankingLoss)(model)
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "out"),
        max_steps=1,
        per_device_train_batch_size=2,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
    )
    done = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=found, loss=loss).train()
    assert done.global_step == 1 and done.training_loss > 0


@pytest.mark.parametrize("name", ["trl", "kto"])
def test_trl_trains_on_the_pairs_and_on_the_kto_rows(tmp_path, name):
    trl = pytest.importorskip("trl")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export.write_all(LISTS, tmp_path, PROMPTS)
    found = loaded(tmp_path / f"{name}.jsonl")
    folder = catalog.fetch(catalog.model("tiny"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    if name == "trl":
        kinds = trl.DPOConfig, trl.DPOTrainer
    else:
        kinds = [getattr(trl, kind, None) for kind in ("KTOConfig", "KTOTrainer")]
        if None in kinds:
            from trl.experimental.kto import KTOConfig, KTOTrainer

            kinds = KTOConfig, KTOTrainer
    arguments = kinds[0](
        str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2, report_to="none", use_cpu=True, bf16=False,
        save_strategy="no", gradient_checkpointing=False,
    )  # fmt: skip
    trainer = kinds[1](model=model, args=arguments, train_dataset=found, processing_class=tokenizer)
    assert trainer.train().global_step == 1


def test_a_response_that_differs_in_white_space_is_the_same_row():
    twice = pd.concat([LISTS, LISTS.assign(text=" " + LISTS["text"] + "\n", list=1)])
    assert export.kto(twice, PROMPTS) == export.kto(LISTS, PROMPTS)


def test_the_public_names_give_rows():
    import irlens

    assert irlens.export.trl is export.trl and irlens.export.kto is export.kto
    assert irlens.export.sentence_transformers(LISTS) == export.tuples(LISTS)[0]
    assert set(irlens.export.sentence_transformers(LISTS, 1)[0]) == {"anchor", "positive", "negative_1"}
