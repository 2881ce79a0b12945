"""`irlens fit-reranker`: one that learns, goes wherever a reranker goes, continues to the same end, and refuses in one line."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import irlens as package
from irlens import tasks
from irlens.base.errors import UserError
from irlens.commands import judged
from irlens.commands.judged import Judged
from irlens.models import catalog, load
from irlens.rerank import reward
from irlens.train.reranker.trainer import RerankerTrainer

QUICK = ["--epochs", "2", "--batch-lists", "4", "--held-out", "0.25", "--store", "none"]
PAIRS = [{"prompt": f"What is {i} + 1?", "chosen": f"#### {i + 1}", "rejected": f"no {i}"} for i in range(24)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def drawn(folder):
    """The folder of a run of four draws for each of 12 prompts, the even ones right, one of them empty."""
    rows = [
        {"query_id": f"q{q}", "doc_id": f"q{q}/{d}", "score": float(-d), "rank": d, "draw": d, "query": f"What is {q} + 1?",
         "text": "" if (q, d) == (0, 3) else f"#### {q + 1}" if d % 2 == 0 else f"no {d}", "tag": "t"}
        for q in range(12) for d in range(4)
    ]  # fmt: skip
    folder.mkdir()
    pd.DataFrame(rows).to_parquet(folder / "run.parquet", index=False)
    grades = [{"query_id": row["query_id"], "doc_id": row["doc_id"], "relevance": 1 - row["draw"] % 2} for row in rows]
    pd.DataFrame(grades).to_parquet(folder / "qrels.parquet", index=False)
    return folder


@pytest.fixture(scope="module")
def fitted(irlens, tmp_path_factory):
    """The folder of a reranker that learnt from draws."""
    where = tmp_path_factory.mktemp("fit")
    run = drawn(where / "drawn")
    told = irlens("fit-reranker", run, *QUICK, "--out", where / "rm").stdout
    assert "left out 1 empty responses of 48" in told
    return where / "rm"


def scores_of(folder):
    run = pd.read_parquet(folder / "held-out" / "run.parquet")
    return run.sort_values("doc_id", ignore_index=True)


def test_it_learns_and_its_folder_tells_what_it_did(fitted):
    results = pd.read_csv(fitted / "results.csv").set_index("measure")
    assert results.loc["AUC", "value"] == 1.0 and results.loc["AUC", "n"] == 3
    assert results.loc["AUC", "low"] < 1 and results.loc["PairBrier", "value"] < 0.25
    told = json.loads((fitted / "manifest.json").read_text())
    assert told["status"] == "complete" and told["prompts_learnt"] == 9 and told["prompts_held_out"] == 3
    assert told["responses_empty"] == 1 and told["responses_twice"] > 0
    lists = pd.read_parquet(fitted / "lists.parquet")
    held = scores_of(fitted)
    assert not set(lists["query_id"]) & set(held["query_id"]) and told["tokens_trained"] > 2 * 9 * 10
    assert not (fitted / "checkpoints").exists() and (fitted / "model" / "checksums.txt").is_file()


def test_plain_transformers_reads_the_scores_that_rerank_gives(fitted, irlens, tmp_path):
    """In one padded batch: the model's own padding finds where each text ends."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(fitted / "model")
    model = AutoModelForSequenceClassification.from_pretrained(fitted / "model")
    assert model.num_labels == 1
    held = scores_of(fitted)
    talks = [
        tokenizer.apply_chat_template([{"role": "user", "content": q}, {"role": "assistant", "content": t}], tokenize=False)
        for q, t in zip(held["query"], held["text"])
    ]  # fmt: skip
    batch = tokenizer(talks, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        plain = model(**batch).logits[:, 0].numpy()
    assert np.allclose(plain, held["reward"], atol=1e-5) and np.ptp(plain) > 0.1
    irlens("rerank", fitted / "held-out", "--reranker", fitted, "--store", "none", "--out", tmp_path / "again")
    again = pd.read_parquet(tmp_path / "again" / "run.parquet").sort_values("doc_id", ignore_index=True)
    assert np.allclose(again["reward"], held["reward"], atol=1e-5)
    irlens("best-of-n", fitted / "held-out", "--reranker", f"{fitted},{fitted / 'model'}", "--store", "none",
           "--at", "1,2", "--out", tmp_path / "best")  # fmt: skip
    best = pd.read_csv(tmp_path / "best" / "quality.csv")
    assert (best[best["measure"] == "AUC"].set_index("run")["value"].drop("random") == 1).sum() == 3  # and the oracle


def test_the_same_command_changes_nothing_and_another_setting_is_refused(fitted, irlens, refused):
    before = {path: path.stat().st_mtime_ns for path in fitted.rglob("*") if path.name != ".lock"}
    given = ["fit-reranker", fitted.parent / "drawn", *QUICK, "--out", fitted]
    assert "finished by this command before" in irlens(*given).stdout
    assert before == {path: path.stat().st_mtime_ns for path in fitted.rglob("*") if path.name != ".lock"}
    assert "seed" in refused(*given, "--seed", "1")


@pytest.mark.parametrize(
    "more", [[], pytest.param(["--optimiser", "muon", "--every-token", "1"], marks=pytest.mark.slow)]
)
def test_one_that_stops_half_way_continues_to_the_same_weights(more, fitted, irlens, tmp_path, monkeypatch):
    """Checkpoints after every step; the first start ends in the fourth of six."""
    given, whole = ["fit-reranker", fitted.parent / "drawn", *QUICK, *more], fitted
    if more:
        irlens(*given, "--out", whole := tmp_path / "whole")
        assert (whole / "model" / "model.safetensors").read_bytes() != (
            fitted / "model" / "model.safetensors"
        ).read_bytes()
    passes, diagnose = [], RerankerTrainer.diagnose

    def breaks(self, scores):
        passes.append(1)
        if len(passes) == 4:
            raise UserError("stopped here")
        return diagnose(self, scores)

    monkeypatch.setattr(RerankerTrainer, "diagnose", breaks)
    given += ["--trainer-args", '{"save_steps": 1}']
    assert "stopped here" in irlens(*given, "--out", tmp_path / "half", code=2).stderr
    assert list((tmp_path / "half" / "checkpoints").glob("checkpoint-*")) and len(passes) == 4
    irlens(*given, "--out", tmp_path / "half")
    assert len(passes) < 4 + 6
    ends = [folder / "model" / "model.safetensors" for folder in (whole, tmp_path / "half")]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert (whole / "results.csv").read_text() == (tmp_path / "half" / "results.csv").read_text()


@pytest.mark.parametrize("objective", ["bce", pytest.param("lambdarank", marks=pytest.mark.slow)])
def test_pairs_in_python_by_other_objectives_with_a_head_on_tiny(objective, tmp_path):
    folder, results = package.fit_reranker(
        PAIRS, tmp_path / "rm", objective=objective, held_out=0.25, epochs=2, batch_lists=4, store="none"
    )
    assert results.set_index("measure").loc["PairAccuracy", "value"] == 1.0
    run = pd.DataFrame(PAIRS[:2]).assign(query=lambda rows: rows["prompt"])
    run = pd.concat([run.assign(text=run[name], doc_id=name) for name in ("rejected", "chosen")], ignore_index=True)
    run = package.run(run.assign(query_id=run["query"], score=0.0)[["query_id", "doc_id", "score", "text", "query"]])
    found = package.reranker(str(folder))(run)
    assert found[found["rank"] == 0]["doc_id"].tolist() == ["chosen", "chosen"]
    with pytest.raises(UserError, match="unknown option 'epoch'"):
        package.fit_reranker(PAIRS, tmp_path / "rm", epoch=1)


@pytest.mark.slow
def test_adapters_are_merged_and_the_head_is_trained(tmp_path, irlens):
    pytest.importorskip("peft")
    data = write(tmp_path / "pairs.jsonl", PAIRS)
    irlens("fit-reranker", data, *QUICK, "--lora-rank", "4", "--learning-rate", "0.01", "--out", tmp_path / "rm")
    results = pd.read_csv(tmp_path / "rm" / "results.csv").set_index("measure")
    assert results.loc["PairAccuracy", "value"] >= 0.9
    model, absent = load.classifier(tmp_path / "rm" / "model")
    assert absent == [] and not any("lora" in name for name, _ in model.named_parameters())
    start = load.causal_lm(catalog.fetch(catalog.model("tiny")), device="cpu")
    moved = model.model.layers[0].self_attn.q_proj.weight - start.model.layers[0].self_attn.q_proj.weight
    assert torch.linalg.matrix_rank(moved) <= 4 and moved.abs().max() > 0


def test_a_column_margin_of_pairs_reaches_the_loss(tmp_path, irlens, monkeypatch):
    seen = []
    monkeypatch.setattr(
        RerankerTrainer, "diagnose", lambda self, scores: seen.append(scores.margin) or {"lists": float(len(scores.mask))}
    )  # fmt: skip
    rows = [row | {"margin": i / 10} for i, row in enumerate(PAIRS)]
    data = write(tmp_path / "pairs.jsonl", rows)
    irlens("fit-reranker", data, "--batch-lists", "12", "--held-out", "0", "--store", "none", "--out", tmp_path / "rm")
    assert sorted(torch.cat(seen).tolist()) == pytest.approx(sorted(row["margin"] for row in rows))
    assert not (tmp_path / "rm" / "results.csv").exists()


def lists_of(grades, query="q"):
    rows = {"query_id": query, "query": query, "doc_id": [f"{query}{i}" for i in range(len(grades))], "tier": "own"}
    talk = [[{"role": "user", "content": query}]] * len(grades)
    frame = pd.DataFrame({**rows, "grade": grades, "iteration": 0, "list": 0}).assign(messages=talk)
    return frame.assign(text=[f"text {i}" for i in range(len(grades))])


def test_a_data_sets_instruction_is_unread_as_the_policy_never_saw_it(tmp_path):
    """And the folder says so by itself: every reranker that loads it gives the same score with it and without."""
    more = {"dataset": "countdown", "held_out": 0.0, "list_size": 2, "epochs": 1, "batch_lists": 8}
    folder, _ = package.fit_reranker(PAIRS, tmp_path / "rm", **more, store="none")
    added = tasks.load("countdown", None, 1).instruction
    assert json.loads((folder / "manifest.json").read_text())["settings"]["instruction_unread"] == added
    rows = pd.DataFrame({"query_id": ["bare", "told"], "text": "#### 3"})
    asked = {"bare": "What is 2 + 1?", "told": f"What is 2 + 1?\n\n{added}"}
    found = reward.load(folder / "model", {q: [{"role": "user", "content": text}] for q, text in asked.items()})(rows)
    assert found["score"].tolist() == pytest.approx([found["score"][0]] * 2, abs=1e-5)
    kept = pd.read_parquet(folder / "lists.parquet")["messages"]  # where the data set's own words stay
    assert all(turns[-1]["content"].endswith(added) for turns in kept)


def test_a_list_is_cut_evenly_over_its_grades_and_by_the_seed():
    long = Judged(lists_of([1.0] * 2 + [0.0] * 18), "n", "w", {})
    kept = [judged.cut(long, 5, seed).lists for seed in (0, 0, 1, 2)]
    assert all(sorted(part["grade"])[-1] == 1.0 and len(part) == 5 and part["grade"].min() == 0.0 for part in kept)
    ids = [tuple(part["doc_id"]) for part in kept]
    assert ids[0] == ids[1] and len(set(ids)) > 1
    twice = Judged(pd.concat([long.lists, long.lists.iloc[:3]], ignore_index=True), "n", "w", {})
    found = judged.cut(twice, 30, 0)
    assert len(found.lists) == 20 and found.left_out == {"responses_twice": 3, "responses_beyond_list_size": 0}


def test_a_balanced_list_has_as_many_of_each_grade():
    def grades(given, size):
        return sorted(judged.cut(Judged(lists_of(given), "n", "w", {}), size, 0, balanced=True).lists["grade"])

    assert grades([1.0] * 3 + [0.0] * 9, 8) == [0.0] * 3 + [1.0] * 3
    assert grades([1.0] * 5 + [0.0] * 9, 8) == [0.0] * 4 + [1.0] * 4
    assert grades([0.0] * 9, 4) == [0.0] * 4 and grades([3.0, 2.0, 2.0, 1.0, 0.0], 2) == [0.0, 3.0]


def test_prompts_of_one_text_are_held_out_together():
    parts = [lists_of([1.0, 0.0], f"what {i // 2}?").assign(query_id=f"q{i}") for i in range(20)]
    every = Judged(pd.concat(parts, ignore_index=True), "n", "w", {})
    learnt, held = judged.split(every, 0.3, 0)
    assert held.lists["query_id"].nunique() == 6 and learnt.lists["query_id"].nunique() == 14
    assert not set(learnt.lists["query"]) & set(held.lists["query"])


NOTHING = {  # what a file holds that nothing can be learnt from, and a word of the line
    "one grade": ([{"prompt": "a", "completions": ["x", "y"], "scores": [1, 1]}] * 3, "have the grade 1"),
    "apart": (
        [{"prompt": f"{i}", "completions": ["x", "y"], "scores": [i, i]} for i in range(3)],
        "two different grades",
    ),
    "alone": (
        [{"prompt": f"{i}", "completions": ["x"], "scores": [i]} for i in range(3)],
        "every list has one response",
    ),
    "empty": ([{"prompt": "a", "chosen": " ", "rejected": ""}], "non-empty"),
    "one prompt": (PAIRS[:1], "--held-out 0"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_nothing_can_be_learnt_from_is_one_line(name, refused, tmp_path):
    rows, word = NOTHING[name]
    assert word in refused("fit-reranker", write(tmp_path / "data.jsonl", rows), "--store", "none", "--out", "rm")
    assert not (tmp_path / "rm").exists()


@pytest.mark.parametrize(
    "given, word",
    [
        (["nothing.jsonl"], "no such run, file of lists or data set"),
        (["pairs.jsonl", "--objective", "listmel"], "listmle"),
        (["pairs.jsonl", "--model", "tinny"], "tiny"),
        (["pairs.jsonl", "--max-length", "5"], "fits into --max-length 5"),
        (["pairs.jsonl", "--max-length", "5000"], "reads 1,024 tokens at most"),
        (["pairs.jsonl", "--columns", "prompt=question"], "no such column"),
        (["scored.jsonl", "--objective", "bce"], "grades from 0 to 1"),
        (["scored.jsonl", "--every-token", "0.5"], "--every-token needs grades from 0 to 1"),
        (["scored.jsonl", "--objective", "lambdarank", "--objective-args", '{"weighted": 1}'], "grades below 0"),
        (["run"], "all 2 responses are empty"),
        (["pairs.jsonl", "--model", "labels"], "head of 3 labels"),
    ],
)
def test_what_cannot_be_meant_is_one_line(given, word, refused, tmp_path):
    write(tmp_path / "pairs.jsonl", PAIRS)
    write(
        tmp_path / "scored.jsonl", [{"prompt": f"{i}", "completions": ["x", "y"], "scores": [2, -1]} for i in range(3)]
    )
    (tmp_path / "run").mkdir()
    run = {"query_id": "q", "doc_id": ["a", "b"], "score": [1.0, 0.0], "rank": [0, 1], "text": "", "query": "what?"}
    pd.DataFrame(run).assign(reward=[1.0, 0.0]).to_parquet(tmp_path / "run" / "run.parquet")
    if given[-1] == "labels":
        from transformers import LlamaConfig, LlamaForSequenceClassification

        config = LlamaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                             intermediate_size=8, num_labels=3)  # fmt: skip
        LlamaForSequenceClassification(config).save_pretrained(tmp_path / "labels")
        given = [*given[:-1], "./labels"]
    assert word in refused("fit-reranker", *given, "--store", "none", "--out", "rm")
    assert not (tmp_path / "rm").exists()


def test_a_reranker_folder_with_several_labels_is_one_line(refused, tmp_path):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
                         num_labels=3)  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "rm" / "model")
    drawn(tmp_path / "drawn")
    for command in (["rerank", "drawn"], ["best-of-n", "drawn"]):
        assert "has 3 labels" in refused(*command, "--reranker", tmp_path / "rm", "--store", "none")
    given = ["train", "--reward", tmp_path / "rm", "--prompts", "4", "--store", "none", "--out", "trained"]
    assert "has 3 labels" in refused(*given)
    assert reward.labels(tmp_path / "rm" / "model") == 3 and not (tmp_path / "trained").exists()


@pytest.mark.slow
def test_two_processes_end_as_one_does(fitted, irlens, tmp_path):
    given = ["fit-reranker", fitted.parent / "drawn", *QUICK]
    irlens(*given, "--devices", "2", "--out", tmp_path / "two")
    assert np.allclose(scores_of(tmp_path / "two")["reward"], scores_of(fitted)["reward"], atol=1e-3)
    assert not (tmp_path / "two" / "phase.json").exists()


@pytest.mark.slow
def test_a_kill_half_way_ends_as_an_unbroken_one(fitted, kill_and_continue, tmp_path, files):
    args = [
        "fit-reranker",
        str(fitted.parent / "drawn"),
        *QUICK,
        "--trainer-args",
        '{"save_steps": 1}',
        "--epochs",
        "8",
    ]
    once = lambda folder: any(folder.glob("checkpoints/checkpoint-*/complete"))  # noqa: E731
    kill_and_continue(args, tmp_path / "killed", once)
    kill_and_continue(args, tmp_path / "late", lambda folder: (folder / "model").is_dir())
    ends = [files(tmp_path / name) for name in ("killed", "late")]
    for end in ends:
        end.pop("log.csv")  # what was watched before a kill is not kept
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_policy_trains_on_its_rewards(fitted, irlens, tmp_path):
    irlens("train", "--reward", fitted, "--prompts", "8", "-n", "4", "--iterations", "1", "--epochs", "1", "--eval-limit",
           "4", "--eval-n", "2", "--test-limit", "0", "--store", "none", "--out", tmp_path / "p")  # fmt: skip
    run = pd.read_parquet(tmp_path / "p" / "iteration-1" / "run.parquet")
    assert run["reward"].nunique() > 4
