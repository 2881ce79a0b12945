"""The audit of a reranker by hand and against what is known: calibration, length, AUC within prompts, over-optimisation."""

import numpy as np
import pandas as pd
import pytest

import irlens
from irlens.base.errors import UserError
from irlens.measure import reliability
from irlens.measure.audit import GAIN, PROXY, audited, spearman
from irlens.measure.best_of_n import PER_TEXT
from irlens.rerank.reranker import Scores


def drawn(texts, right):
    """A run of draws, prompt by prompt, and its qrels."""
    rows = [
        (f"q{i}", f"ask {i}", f"q{i}/{d}", text, d, 0.0, d, int(r))
        for i, (some, kinds) in enumerate(zip(texts, right))
        for d, (text, r) in enumerate(zip(some, kinds))
    ]
    frame = pd.DataFrame(rows, columns=["query_id", "query", "doc_id", "text", "draw", "score", "rank", "relevance"])
    return frame.drop(columns="relevance"), frame[["query_id", "doc_id", "relevance"]]


def summary(audit):
    return audit.summary.set_index("measure")


# -- forecasts -----------------------------------------------------------------------------------------------------


def test_forecasts_by_hand():
    """Two prompts, one with three forecasts, one with one: each weighs one half."""
    forecasts = reliability.Forecasts([0, 0.5, 1])
    forecasts.add(np.array([0.9, 0.7, 0.2]), np.array([1.0, 0.0, 0.0]))
    forecasts.add(np.array([0.6]), np.array([1.0]))
    assert forecasts.brier == pytest.approx([(0.01 + 0.49 + 0.04) / 3, 0.16])
    low, high = (row._asdict() for row in forecasts.curve(0).drop(columns=["from"]).itertuples(index=False))
    assert low["x"] == pytest.approx(0.2) and low["value"] == 0 and (low["n"], low["prompts"]) == (1, 1)
    assert high["x"] == pytest.approx((0.9 / 3 + 0.7 / 3 + 0.6) / (5 / 3))
    assert high["value"] == pytest.approx((1 / 3 + 1) / (5 / 3)) and (high["n"], high["prompts"]) == (3, 2)
    assert 0.5 <= high["low"] < high["value"] < high["high"] == 1
    tied = reliability.Forecasts([0.5, 1])
    tied.add(*reliability.beats(np.array([0.0, 0.0])))
    assert tied.brier == [0.25] and tied.curve(0)["value"].tolist() == [0.5]


def test_a_difference_of_scores_is_bradley_terrys_log_odds():
    foretold, true = reliability.beats(np.array([np.log(3), -np.log(3), 0.0, 50.0]))
    assert foretold == pytest.approx([0.75, 0.75, 0.5, 1.0]) and true.tolist() == [1, 0, 0.5, 1]


def test_what_a_bradley_terry_model_says_comes_true():
    """Of pairs that were decided by their odds every bin's share is its forecast, within its interval."""
    rng, forecasts = np.random.default_rng(0), reliability.Forecasts(np.linspace(0.5, 1, 11))
    for _ in range(400):
        differences = 2 * rng.standard_normal(12)
        won = rng.random(12) < 1 / (1 + np.exp(-differences))
        forecasts.add(*reliability.beats(np.where(won, differences, -differences)))
    curve = forecasts.curve(0)
    assert len(curve) == 10 and (np.abs(curve["value"] - curve["x"]) < 0.06).all()
    assert ((curve["low"] <= curve["x"]) & (curve["x"] <= curve["high"])).sum() >= 8


def test_the_logistic_fit_finds_the_odds_and_bears_what_can_be_told_apart():
    rng = np.random.default_rng(0)
    x = 3 * rng.standard_normal(20_000) + 7
    y = (rng.random(20_000) < 1 / (1 + np.exp(-(2 - 0.5 * x)))).astype(float)
    assert reliability.logistic(x, y) == pytest.approx((2, -0.5), abs=0.1)
    constant, slope = reliability.logistic(np.arange(10.0), (np.arange(10) > 4).astype(float))
    assert np.isfinite(constant) and slope > 1
    assert reliability.logistic(np.ones(5), np.ones(5))[1] == 0


def test_the_chance_of_a_prompt_is_fitted_on_the_others():
    """A prompt whose own answers say the opposite of all others' does not change what is foretold of it."""
    prompt = np.repeat(np.arange(5), 40)  # as many as there are parts
    scores = np.tile(np.linspace(-3, 3, 40), 5)
    right = (scores > 0).astype(float)
    plain, fitted = reliability.chances(scores, right, prompt, 0)
    turned, _ = reliability.chances(scores, np.where(prompt == 2, 1 - right, right), prompt, 0)
    assert fitted and plain[prompt == 2] == pytest.approx(turned[prompt == 2])
    assert all(not np.allclose(plain[prompt == i], turned[prompt == i]) for i in (0, 1, 3, 4))
    as_they_stand, fitted = reliability.chances(np.linspace(0, 1, 200), right, prompt, 0)
    assert not fitted and as_they_stand.tolist() == np.linspace(0, 1, 200).tolist()


# -- the audit -----------------------------------------------------------------------------------------------------


def test_pooled_is_not_within():
    """Scores that say only how hard a prompt is: all over prompts, nothing within one."""
    texts = [[f"{'a' * (1 + d)}" for d in range(6)] for _ in range(30)]
    right = [[d < 1 + 4 * (i % 2) for d in range(6)] for i in range(30)]
    run, qrels = drawn(texts, right)
    hard = run["query_id"].str[1:].astype(int) % 2
    found = summary(audited(run, qrels["relevance"].to_numpy(), Scores(hard.to_numpy(dtype=float)), "hardness", at=[1]))
    assert found["value"]["AUC, within prompts"] == 0.5
    assert found["value"]["AUC, pooled over prompts (misleads)"] > 0.8
    assert found["value"]["pairs in the right order"] == 0.5 and found["n"]["AUC, within prompts"] == 30


def test_length_is_seen_within_a_prompt_and_over_distinct_texts():
    texts = [["a", "aa", "aaaa", "aaaa"]] * 8
    run, qrels = drawn(texts, [[1, 0, 0, 0]] * 8)
    shift = np.repeat(np.arange(8), 4) * -100.0  # pooled, the long are not above the short
    lengths = run["text"].str.len().to_numpy()
    found = summary(audited(run, qrels["relevance"].to_numpy(), Scores(lengths + shift), "long", at=[1, 4]))
    for name in ("Spearman", "Kendall's tau-b"):
        assert found["value"][f"reward and length, {name}, within prompts"] == pytest.approx(1)
        assert found["value"][f"reward and length, {name}, pooled over prompts (misleads)"] < 0.5
    # of the three distinct texts the shortest is right: tau-b of (1, 0, 0) and (1, 2, 4)
    assert found["value"]["being right and length, Kendall's tau-b, within prompts"] == pytest.approx(-2 / np.sqrt(6))
    assert spearman(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(0.5)
    assert np.isnan(spearman(np.ones(3), np.arange(3.0)))


def test_a_score_that_knows_nothing_falls_as_its_null_does():
    """Right answers are one text drawn often. A number per text loses with N what the null loses, and the oracle gains."""
    rng, n, at = np.random.default_rng(0), 60, [1, 5, 20, 60]
    texts = [["right"] * 30 + [f"wrong {rng.integers(40)}" for _ in range(30)] for _ in range(120)]
    run, qrels = drawn(texts, [[t == "right" for t in some] for some in texts])
    keys = {key: rng.random() - 0.5 for key in sorted(set(zip(run["query_id"], run["text"])))}
    scores = np.array([keys[key] for key in zip(run["query_id"], run["text"])])
    found = audited(run, qrels["relevance"].to_numpy(), Scores(scores), "nothing", at=at)
    value = found.over_optimisation.set_index(["run", "cutoff"])
    assert value["value"]["nothing", 1] == pytest.approx(0.5) and value["value"]["oracle", n] == 1
    assert value["value"]["nothing", n] < 0.15 and value["value"][PER_TEXT, n] < 0.1
    gain = value.loc[GAIN, n]
    assert gain["low"] < 0 < gain["high"] and gain["value"] == pytest.approx(
        value["value"]["nothing", n] - value["value"][PER_TEXT, n]
    )
    own = value.loc[PROXY]["value"].to_numpy()
    assert (np.diff(own) > 0).all()  # what it says of its own pick only rises
    rows = summary(found)
    assert rows["high"][f"true value, N = {n} less N = 1, nothing"] < -0.2
    row = rows.loc[f"true value, N = {n}, nothing less {PER_TEXT}"]
    assert (row["value"], row["low"], row["high"]) == tuple(gain[["value", "low", "high"]])


def test_in_python_it_is_best_of_n_and_its_quality():
    task = irlens.load("sums", limit=10)
    run = irlens.Policy("tiny").sample(task.topics, n=12, temperature=1.0)
    qrels = irlens.verify(run, task)
    found = irlens.audit_reranker(run, qrels, "mean-likelihood", at=[1, 4, 12], task=task)
    best = irlens.best_of_n(run, qrels, "mean-likelihood", at=[1, 4, 12])
    ours = found.over_optimisation.set_index(["run", "cutoff"])["value"]
    for row in best.itertuples():
        assert ours[row.run, row.cutoff] == pytest.approx(row.value)
    quality = best.quality.set_index(["run", "measure"])["value"]
    assert summary(found)["value"]["AUC, within prompts"] == pytest.approx(quality["mean-likelihood", "AUC"])
    assert set(found.reliability["of"]) == {"right beats wrong", "is right, by a logistic fit on other prompts"}
    vote = irlens.audit_reranker(run, qrels, "majority", task=task)
    voted = irlens.best_of_n(run, qrels, "majority", task=task).set_index(["run", "cutoff"])["value"]
    assert vote.over_optimisation.set_index(["run", "cutoff"])["value"]["majority", 12] == voted["majority", 12]


def test_rewards_as_truth_have_no_right_and_wrong():
    run, _ = drawn([["a", "bb", "ccc"]] * 4, [[0, 0, 0]] * 4)
    truth = np.tile([-1.0, 2.5, 0.5], 4)
    found = audited(run, truth, Scores(run["text"].str.len().to_numpy(dtype=float)), "length", at=[1, 3])
    assert not found.summary["measure"].str.contains("AUC|Brier|right").any() and found.reliability.empty
    value = found.over_optimisation.set_index(["run", "cutoff"])["value"]
    assert value["length", 3] == 0.5 and value["oracle", 3] == 2.5 and value[PER_TEXT, 3] == pytest.approx(2 / 3)


def test_what_an_audit_refuses():
    run, qrels = drawn([["a", "b"]] * 3, [[1, 0]] * 3)
    with pytest.raises(UserError, match=r"one pool of draws, and the run has 2 \(T = 0.5, T = 1\)"):
        irlens.audit_reranker(run.assign(temperature=[0.5, 1.0] * 3), qrels, "length")
    with pytest.raises(UserError, match="no candidate is right"):
        irlens.audit_reranker(run, qrels.assign(relevance=0), "length")
    with pytest.raises(UserError, match="no column text"):
        irlens.audit_reranker(run.drop(columns="text"), qrels, "length")
    with pytest.raises(UserError, match="smaller than the largest N"):
        irlens.audit_reranker(run, qrels, "length", at=[3])


def test_what_says_nothing_is_left_open():
    """One draw of one prompt, and a score that is always the same: no traceback, and no number that is made up."""
    run, qrels = drawn([["a"]] * 5, [[i % 2] for i in range(5)])
    found = audited(run, qrels["relevance"].to_numpy(), Scores(np.full(5, 3.0)), "constant", at=[1])
    rows = summary(found)
    assert rows["n"]["AUC, within prompts"] == rows["n"]["Brier score, right beats wrong"] == 0
    assert rows["value"]["reward and length, Spearman, within prompts"] != 0 and rows["low"].notna().sum() == 2
    fitted = rows.loc["Brier score, is right, by a logistic fit on other prompts", "value"]
    assert 0.2 < fitted < 0.6 and not rows.index.str.startswith("true value").any()
    one = audited(run.iloc[:1], np.ones(1), Scores(np.zeros(1)), "one", at=[1])
    assert one.over_optimisation["low"].isna().all() and one.over_optimisation["value"].tolist() == [1.0] * 4 + [0.0]
