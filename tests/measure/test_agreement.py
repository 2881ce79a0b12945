"""Agreement of scores with grades: by hand, against ir_measures where nothing is tied, and on real graded lists."""

from itertools import pairwise, permutations

import numpy as np
import pandas as pd
import pytest

from irlens import tasks
from irlens.base.errors import UserError
from irlens.measure import measures
from irlens.measure.agreement import auc, ndcg, quality, reciprocal_rank, tau_b, threshold
from irlens.measure.best_of_n import grades_of
from irlens.rerank.baselines import length_scores, random_scores
from irlens.tables import ranked


def test_by_hand():
    assert ndcg([3, 2, 1], [0, 1, 0]) == pytest.approx(1 / np.log2(3))
    assert ndcg([1, 2], [2, 1]) == pytest.approx((1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3)))
    assert reciprocal_rank([3, 2, 1], [0, 0, 1]) == pytest.approx(1 / 3)
    assert auc([4, 3, 2, 1], [1, 0, 1, 0]) == pytest.approx(3 / 4)
    assert auc([1, 1, 0], [1, 0, 0]) == pytest.approx(3 / 4)  # a tied pair is worth one half
    assert tau_b([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert tau_b([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / np.sqrt(2 * 3))


def test_what_cannot_be_measured():
    assert ndcg([1, 2], [0, 0]) == reciprocal_rank([1, 2], [0, 0]) == 0.0
    assert np.isnan(
        [auc([1, 2], [1, 1]), auc([1, 2], [0, 0]), tau_b([1, 1], [0, 1]), tau_b([1, 2], [1, 1]), tau_b([1], [1])]
    ).all()
    with pytest.raises(UserError, match="grades from 0 on, got -1"):
        ndcg([1, 2], [-1, 1])


def test_long_and_short_lists_have_the_same_tau(monkeypatch):
    rng = np.random.default_rng(0)
    scores, grades = rng.integers(0, 5, 40), rng.integers(0, 3, 40)
    short = tau_b(scores, grades)
    monkeypatch.setattr("irlens.measure.agreement.SHORT", 0)
    assert tau_b(scores, grades) == pytest.approx(short, abs=1e-12)


def test_ties_are_the_mean_over_the_orders_that_they_leave_open():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, grades = rng.integers(0, 3, 6).astype(float), rng.integers(0, 2, 6).astype(float)
        orders = [o for o in permutations(range(6)) if all(scores[a] >= scores[b] for a, b in pairwise(o))]
        strict = [6.0 - np.argsort(o) for o in orders]
        assert ndcg(scores, grades) == pytest.approx(np.mean([ndcg(s, grades) for s in strict]))
        assert reciprocal_rank(scores, grades) == pytest.approx(np.mean([reciprocal_rank(s, grades) for s in strict]))


def test_without_ties_it_is_ir_measures():
    rng = np.random.default_rng(1)
    run = pd.DataFrame([(f"q{q}", f"d{d}") for q in range(30) for d in range(8)], columns=["query_id", "doc_id"])
    run = ranked(run.assign(score=rng.permutation(240).astype(float), rank=0))
    grades = rng.integers(0, 4, 240).astype(float)
    qrels = run[["query_id", "doc_id"]].assign(relevance=grades.astype(int))
    theirs, _ = measures.evaluate(run, qrels, "nDCG RR(rel=2)")
    ours = quality(run, grades, {"x": run["score"].to_numpy()}, right_from=2)
    assert ours["value"].tolist()[:2] == pytest.approx(theirs["value"].tolist(), abs=1e-6)
    assert ours["n"].tolist()[:2] == [30, 30] and ours["n"].tolist()[2] <= 30


def test_a_query_that_says_nothing_is_left_out_of_n():
    run = pd.DataFrame({"query_id": list("aabb"), "doc_id": list("1212")})
    found = quality(run, np.array([1.0, 0.0, 0.0, 0.0]), {"x": np.array([2.0, 1.0, 2.0, 1.0])}, 1).set_index("measure")
    assert found["n"].to_dict() == {"nDCG": 2, "RR": 2, "AUC": 1, "tau-b": 1} and found["value"]["AUC"] == 1.0
    alike = quality(run, np.ones(4), {"x": np.arange(4.0)}, 1).set_index("measure")
    assert alike["n"]["AUC"] == 0 and np.isnan(alike["value"]["AUC"])


def test_what_is_right_where_nobody_says():
    assert threshold(np.array([0.0, 1.0, 2.0])) == 1.0
    assert 0.5 < threshold(np.array([0.0, 0.4])) < 0.5001


def test_real_lists(real_data):
    task = tasks.load(real_data("alpaca"))
    run, grades = task.candidates, grades_of(task.candidates, task.qrels)
    scores = {"length": length_scores(run), "random": random_scores(run, 0), "oracle": grades}
    found = quality(run, grades, scores, threshold(grades)).set_index(["run", "measure"])
    G = grades.reshape(805, 12)
    both = ((G > 0.5).any(1) & (G <= 0.5).any(1)).sum()
    assert (found.xs("AUC", level="measure")["n"] == both).all()
    for name in ("length", "random"):
        S = scores[name].reshape(805, 12)
        pairs = S[:, :, None] - S[:, None, :]
        right = (G > 0.5)[:, :, None] & (G <= 0.5)[:, None, :]
        won = ((pairs > 0) + 0.5 * (pairs == 0)) * right
        expected = (won.sum((1, 2)) / np.maximum(right.sum((1, 2)), 1))[right.any((1, 2))].mean()
        assert found["value"][name, "AUC"] == pytest.approx(expected)
        a, b = np.sign(pairs), np.sign(G[:, :, None] - G[:, None, :])
        taus = (a * b).sum((1, 2)) / np.sqrt((a**2).sum((1, 2)) * (b**2).sum((1, 2)))
        assert found["value"][name, "tau-b"] == pytest.approx(np.nanmean(taus))
    assert found["value"]["oracle", "nDCG"] == found["value"]["oracle", "AUC"] == 1.0
    assert found["value"]["oracle", "tau-b"] == pytest.approx(1.0)
    discount = 1 / np.log2(np.arange(2, 14))
    S = scores["random"].reshape(805, 12)
    gains = np.take_along_axis(G, np.argsort(-S, axis=1), axis=1) @ discount
    assert found["value"]["random", "nDCG"] == pytest.approx((gains / (np.sort(G, 1)[:, ::-1] @ discount)).mean())
    assert abs(found["value"]["random", "AUC"] - 0.5) < 0.03 and found["value"]["length", "AUC"] > 0.6
