"""A reward model as the judge of training: prompts without answers, win rates against the start, list-relative scores."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import irlens
from irlens.base import files, protocols
from irlens.base.errors import UserError
from irlens.commands.settings import Train
from irlens.commands.train import train as run_train
from irlens.rerank import judges as judging
from irlens.tasks import sums

SMALL = {"prompts": 12, "n": 4, "iterations": 1, "epochs": 1, "batch_lists": 4, "eval_limit": 6, "eval_n": 2}
SMALL["test_limit"] = 2


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": row["query"]}) for row in sums.take("train", 20)))
    return str(path)


def test_prompts_without_answers_are_trained_on_by_a_reward(tmp_path, classifier, prompts):
    plan = Train(dataset=prompts, reward=str(classifier), out=str(tmp_path / "out"), **SMALL)
    told = []
    folder, results, _ = run_train(plan, told.append)
    assert list(dict.fromkeys(results["curve"])) == ["win rate", "reward"]
    start = results[(results["curve"] == "win rate") & (results["x"] == 0)].iloc[0]
    assert start["value"] == 0.5 and start["low"] < 0.5 < start["high"] and start["n"] == 6
    lists = pd.read_parquet(folder / "iteration-1" / "lists.parquet")
    judged = pd.read_parquet(folder / "iteration-1" / "run.parquet")
    rewards = judged.set_index("doc_id")["reward"]
    assert (lists["grade"].to_numpy() == rewards[lists["doc_id"]].to_numpy()).all()
    assert not (folder / "iteration-1" / "qrels.parquet").exists()  # a reward is a column, never a qrel
    best = lists[lists["tier"] == "positive"].set_index("query_id")["grade"]
    assert (lists.groupby("query_id")["grade"].max() == best).all()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"]["reward_files"] and manifest["contamination"]
    cut = int(judged["truncated"].sum())
    assert manifest["truncated_by_reward"] == cut > 0  # of 64 tokens that this model reads
    assert any(f": {cut:,} of {len(judged):,} texts were longer than the model reads, and were cut" in t for t in told)
    assert "win rate" in set(pd.read_csv(folder / "training.csv")["curve"])
    again = run_train(plan, lambda line: None)[1]
    pd.testing.assert_frame_equal(again, results)


def test_another_models_scores_are_not_taken_for_this_ones(tmp_path, classifier):
    """Same rows, same folder, same name: only the weights differ."""
    import shutil

    from safetensors.torch import load_file, save_file

    topics = pd.DataFrame({"query_id": ["q"], "query": ["1+1?"]})
    run = pd.DataFrame({"query_id": "q", "doc_id": list("ab"), "text": ["two", "three apples"]})
    first = judging.of_reward(str(classifier), "", say=str).grade(run, topics, tmp_path / "scores")
    other = tmp_path / "other" / classifier.name
    shutil.copytree(classifier, other)
    weights = load_file(other / "model.safetensors")
    save_file({k: -v if k == "classifier.weight" else v for k, v in weights.items()}, other / "model.safetensors", {"format": "pt"})  # fmt: skip
    told = []
    second = judging.of_reward(str(other), "", say=told.append).grade(run, topics, tmp_path / "scores")
    assert (first["relevance"] != second["relevance"]).all() and "by another scorer" in told[0]
    asked = judging.of_reward(str(classifier), "Say N.", say=str).grade(run, topics, tmp_path / "scores")
    assert (asked["relevance"] != first["relevance"]).all()  # the same draws, another prompt
    again = judging.of_reward(str(classifier), "", say=str).grade(run, topics, tmp_path / "scores")
    pd.testing.assert_frame_equal(again, first)


def test_large_weights_are_told_apart_wherever_they_differ(tmp_path, classifier, monkeypatch):
    """A fine-tuned copy may begin with the very bytes of its base: its embeddings were never changed."""
    import shutil

    monkeypatch.setattr(files, "SMALL", 1000)
    other = tmp_path / "copy"
    shutil.copytree(classifier, other)
    assert files.digest(other) == files.digest(classifier)
    with (other / "large.bin").open("wb") as file:
        file.write(b"0" * (20 << 20))
    before = files.digest(other)
    with (other / "large.bin").open("r+b") as file:
        file.seek(18 << 20)
        file.write(b"1")
    assert files.digest(other) != before


def test_win_rates_by_hand(tmp_path):
    def run(*texts):
        rows = [("q", f"{i}", text, 1.0) for i, text in enumerate(texts)]
        return pd.DataFrame(rows, columns=["query_id", "doc_id", "text", "temperature"])

    judge = judging.Judge(
        "length", lambda r, t, f: r[["query_id", "doc_id"]].assign(relevance=r["text"].map(len)), True
    )
    found = judging.against_start(judge, run("aaa", "a"), run("aa", "a"), None, tmp_path, tmp_path)
    assert found["win rate"].tolist() == [(1 + 1 + 0 + 0.5) / 4] and found["reward"].tolist() == [2.0]


def test_a_list_relative_judge_sees_both_in_one_list(tmp_path):
    seen = []

    def grade(run, topics, folder):
        seen.append(run)
        centred = run["text"].map(len) - run.groupby(["query_id", "tag"])["text"].transform(lambda s: s.map(len).mean())
        return run[["query_id", "doc_id"]].assign(relevance=centred)

    rows = [(q, f"{q}/{t}/{i}", "a" * (i + 1 + (q == "p")), t) for q in "qp" for t in (0.5, 1.0) for i in range(2)]
    run = pd.DataFrame(rows, columns=["query_id", "doc_id", "text", "temperature"])
    judge = judging.Judge("centred", grade, True, relative=True)
    found = judging.against_start(judge, run.assign(text=run["text"] + "aa"), run, None, tmp_path, tmp_path)
    assert list(found.columns) == ["query_id", "temperature", "win rate"] and (found["win rate"] == 1.0).all()
    (both,) = seen
    assert both["doc_id"].is_unique and np.all(both.groupby(["query_id", "tag"]).size() == 4)


@pytest.mark.parametrize("options, message", [
    (["--reward", "fsfair"], "--reward 'fsfair': no such reward model; known: tiny-rm, fsfairx, pairrm"),
    (["--reward", "CLASSIFIER", "--tier", "easy"], "--tier easy needs a verifier"),
    (["--reward", "CLASSIFIER", "--positives-from", "gold"], "has no solutions; use own"),
    ([], "has no verifier"),
])  # fmt: skip
def test_refusals(refused, classifier, prompts, options, message):
    options = [str(classifier) if word == "CLASSIFIER" else word for word in options]
    assert message in refused("train", "--dataset", prompts, "--prompts", 12, "--eval-limit", 6, *options)


def test_a_model_of_two_labels_is_no_judge(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="exactly one"):
        judging.of_reward(str(tmp_path), "")


# -- verifiers as judges -------------------------------------------------------------------------------------------


def drawn(*answers):
    """A run of one's own: a right draw and such ones for the first problems of sums."""
    topics = irlens.load("sums", split="test", limit=2).topics
    return irlens.run([
        (query, text.format(gold[0]))
        for query, gold in zip(topics["query"], topics["answers"])
        for text in ("#### {}", *answers)
    ])  # fmt: skip


def test_a_task_judges_by_its_own_verifier_and_joins_by_text():
    """`irlens.run` names a query by its text, the task by its place."""
    task = irlens.load("sums", split="test", limit=5)
    run = drawn("#### -1")
    assert not set(run["query_id"]) & set(task.topics["query_id"])
    before = run.copy()
    judge = judging.Verifier(task)
    assert isinstance(judge, protocols.Judge)
    for qrels in (irlens.verify(run, task), judge(run), irlens.verify(run, judge)):
        assert qrels["relevance"].tolist() == [1, 0, 1, 0] and list(qrels) == ["query_id", "doc_id", "relevance"]
        assert qrels["doc_id"].tolist() == run["doc_id"].tolist()
    pd.testing.assert_frame_equal(run, before)


def test_another_verifier_a_function_and_the_runs_own_answers():
    run, task = drawn("#### -1"), irlens.load("sums", split="test", limit=2)
    assert irlens.verify(run, task, verifier=r"regex:#### (\d+)")["relevance"].tolist() == [1, 0, 1, 0]
    assert irlens.verify(run, lambda text, gold: "-" in text)["relevance"].tolist() == [0, 1, 0, 1]
    own = pd.DataFrame({"query": "1 + 1?", "text": ["#### 2", "#### 3"], "answers": [["2"], ["2"]]})
    assert irlens.verify(irlens.run(own), "gsm8k")["relevance"].tolist() == [1, 0]


def test_thoughts_are_not_judged():
    task = irlens.load("sums", split="test", limit=2)
    run = drawn("<think>#### {}</think>#### -1", "<think>no</think>#### {}", "<think>#### {}")
    assert (
        irlens.verify(run, task)["relevance"].tolist() == [1, 0, 1, 1] * 2
    )  # the last one: nobody said what thoughts are
    found = irlens.verify(run, task, thought="<think>,</think>")
    assert found["relevance"].tolist() == [1, 0, 1, 0] * 2


@pytest.mark.parametrize("what, message", [
    ("gsm9k", "did you mean 'gsm8k'"),
    (3, "give a task, a verifier's name or a function, not int"),
    ("gsm8k", "nothing to verify against"),
    ("facts", "data set 'facts' has no verifier of its own; give --verifier"),
    (lambda text, gold: 1 / 0, "verifier <lambda>: it failed: ZeroDivisionError"),
    (lambda text, gold: "yes", "must give True, False or a finite number"),
])  # fmt: skip
def test_what_cannot_judge(what, message):
    with pytest.raises(UserError, match=message):
        irlens.verify(drawn(), irlens.load("facts", limit=2) if what == "facts" else what)


def test_queries_of_another_task():
    with pytest.raises(UserError, match="2 queries of the run .* are not in the data set facts"):
        irlens.verify(drawn(), irlens.load("facts", limit=2), verifier="gsm8k")


def test_a_reranker_is_no_judge():
    with pytest.raises(UserError, match="is a reranker, whose rewards are no verdicts"):
        irlens.verify(drawn(), irlens.reranker("length"))


def test_a_text_that_is_asked_twice_with_other_answers_needs_its_query_id():
    task = irlens.load("sums", split="test", limit=2)
    topics = pd.DataFrame({"query_id": ["a", "b"], "query": ["1?", "1?"], "answers": [["1"], ["2"]]})
    twice = replace(task, topics=topics)
    with pytest.raises(UserError, match="more than once, with other answers"):
        irlens.verify(irlens.run([("1?", "#### 1")]), twice)
    own = irlens.run(pd.DataFrame({"query_id": ["b"], "query": ["1?"], "text": ["#### 1"]}))
    assert irlens.verify(own, twice)["relevance"].tolist() == [0]
