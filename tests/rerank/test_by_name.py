"""`irlens.reranker`: every name is a Reranker, run in, run out; a function too; what a run lacks is refused in a line."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import irlens
from irlens.base import protocols
from irlens.base.errors import UserError
from irlens.models import catalog
from irlens.rerank.by_name import PLAIN


@pytest.fixture(scope="module")
def task():
    return irlens.load("sums", split="test", limit=2)


@pytest.fixture
def run(task):
    """Three answers to each problem: wrong, right, right; the right one twice and longer."""
    rows = []
    for query, gold in zip(task.topics["query"], task.topics["answers"]):
        rows += [(query, "#### 0"), (query, f"It is\n#### {gold[0]}"), (query, f"So it is\n#### {gold[0]}")]
    return irlens.run(rows)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The folder of a random reward model."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("reward")
    tokenizer = AutoTokenizer.from_pretrained(catalog.fetch(catalog.encoder("tiny-e5")))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=64, num_labels=1, initializer_range=0.5)  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def texts(run):
    return run.sort_values(["query_id", "rank"])["text"].tolist()


@pytest.mark.parametrize("name", ["majority", "length", "random", "score", "oracle", "vote:length", "mean-likelihood"])
def test_every_name_is_run_to_run(name, task, run):
    before = run.assign(logprob=-np.arange(6.0), n_tokens=2)
    given, qrels = before.copy(), irlens.verify(run, task)
    reranker = irlens.reranker(name, task=task, qrels=qrels)
    assert isinstance(reranker, protocols.Reranker) and reranker.name == name
    after = reranker(given)
    pd.testing.assert_frame_equal(given, before)  # the input is not changed
    assert sorted(after["doc_id"]) == sorted(before["doc_id"])
    lists = after.groupby("query_id")
    assert lists["rank"].apply(list).map(lambda ranks: ranks == [0, 1, 2]).all()
    assert lists["reward"].apply(lambda r: r.is_monotonic_decreasing).all()
    assert lists["score"].apply(lambda s: s.is_monotonic_decreasing and s.is_unique).all()


def test_the_majority_goes_first_under_query_ids_that_only_the_text_joins(task, run):
    assert not set(run["query_id"]) & set(task.topics["query_id"])
    after = irlens.reranker("majority", task=task)(run)
    assert after["reward"].tolist() == [2, 2, 1] * 2 and all("####" in text for text in texts(after))
    assert (after[after["rank"] == 2]["text"] == "#### 0").all()


def test_a_function_gives_scores_or_a_run(run):
    by_scores = irlens.reranker(lambda run: -run["text"].str.len())
    assert isinstance(by_scores, protocols.Reranker) and by_scores(run)["tag"].unique().tolist() == ["function"]
    assert all(by_scores(run).groupby("query_id")["text"].first() == "#### 0")

    def turned(run):
        return irlens.reranker(lambda r: r["text"].str.len())(run).drop(columns="reward").iloc[::-1]

    by_run = irlens.reranker(turned)
    assert by_run.name == "turned" and (by_run(run).groupby("query_id")["text"].last() == "#### 0").all()


def test_a_reward_model_reads_the_runs_own_prompts(classifier, run, task, tmp_path):
    """The prompt is the column `query`; with a task it is the task's, and a folder keeps what was scored."""
    alone = irlens.reranker(str(classifier))(run)
    kept = irlens.reranker(classifier, folder=tmp_path)(run)
    assert np.isfinite(alone["reward"]).all() and alone["reward"].tolist() == kept["reward"].tolist()
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    other = run.assign(query=run["query"] + " Why?")
    assert irlens.reranker(str(classifier))(other)["reward"].tolist() != alone["reward"].tolist()
    asked = irlens.reranker(f"reward:{classifier}", task=replace(task, instruction=""))
    assert asked(run)["reward"].tolist() == alone["reward"].tolist()
    told = irlens.reranker(str(classifier), task=replace(task, instruction="Say a number."))
    assert told(run)["reward"].tolist() != alone["reward"].tolist()


def test_a_cross_encoder_reads_query_and_text(classifier, run, task):
    found = irlens.reranker(f"cross-encoder:{classifier}", task=task, batch_size=2)(run)
    assert sorted(found["doc_id"]) == sorted(run["doc_id"]) and found["reward"].nunique() > 2


def test_the_same_model_with_another_task_and_folder(classifier, run, task, tmp_path):
    """A training asks anew in every iteration: the model is looked up once."""
    reranker = irlens.reranker(str(classifier))
    later = reranker.using(task=task, folder=tmp_path / "scores")
    assert later.identity == reranker.identity and later.identity["model_digest"]
    found = later.scores(run)
    assert found.truncated.dtype == bool and found.facts["reward_calls"] == 6 and not later.relative
    assert list((tmp_path / "scores").iterdir())


@pytest.mark.parametrize("name, options, change, message", [
    ("majority", {}, {}, "no short answer to vote on"),
    ("lenght", {}, {}, "did you mean 'length'"),
    ("length", {"polcy": "tiny"}, {}, "unknown option 'polcy'.*did you mean 'policy'"),
    ("oracle", {}, {}, "no qrels were given"),
    ("likelihood", {}, {}, "records no log-probabilities; name its model"),
    ("length", {}, {"text": None}, "text is missing"),
    ("judge", {}, {}, "needs --base-url"),
    ("vote:", {}, {}, "what follows the colon is missing"),
])  # fmt: skip
def test_what_is_refused(name, options, change, message, run):
    with pytest.raises(UserError, match=message):
        irlens.reranker(name, **options)(run.assign(**change))


@pytest.mark.parametrize("function, message", [
    (lambda run: [1.0], r"it gave \(1,\) scores"),
    (lambda run: run["nothing"], "it failed: KeyError"),
    (lambda run: run["score"] * np.nan, "score not finite"),
    (lambda run: run.iloc[:2], "must give the rows of the run, 6, and gave 2"),
])  # fmt: skip
def test_a_function_that_gives_something_else(function, message, run):
    with pytest.raises(UserError, match=message):
        irlens.reranker(function)(run)


def test_a_run_without_prompts_says_what_is_missing(classifier, run):
    with pytest.raises(UserError, match="has no column query, so its prompts are not known; give the task"):
        irlens.reranker(str(classifier))(run.drop(columns="query"))
    with pytest.raises(UserError, match="2 queries of the run .* are not in the data set facts"):
        irlens.reranker("majority", task=irlens.load("facts", limit=2))(run)


def test_all_plain_names_are_tested_here():
    assert set(PLAIN) == {"majority", "likelihood", "mean-likelihood", "length", "random", "oracle", "score", "judge"}
