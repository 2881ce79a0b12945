"""Best of N: the closed form against every choice of N, Pass@N as its oracle, real graded lists against plain numpy."""

from fractions import Fraction
from itertools import combinations, permutations
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irlens import tasks
from irlens.base.errors import UserError
from irlens.measure.best_of_n import (
    PER_TEXT,
    by_scores,
    by_texts,
    check_grades,
    curves,
    expected_best,
    grades_of,
    measured,
    pick_chances,
    text_chances,
)
from irlens.measure.measures import pass_at
from irlens.rerank.baselines import length_scores, random_scores
from irlens.rerank.reranker import Scores


def test_chances_by_hand():
    # of 4 draws choose 2: the best is among 3 of the 6 pairs, the second leads 2, the third 1, the last never
    assert pick_chances(4, [2])[0] == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0])
    assert pick_chances(3, [1, 3]) == pytest.approx(np.array([[1 / 3] * 3, [1, 0, 0]]))
    assert pick_chances(1, [1]).tolist() == [[1.0]]
    assert pick_chances(1000, [1, 7, 1000]).sum(axis=1) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("N", [0, 5])
def test_more_than_there_are_is_refused(N):
    with pytest.raises(UserError, match=f"best of {N} needs at least {N} candidates per query, and a query has 4"):
        pick_chances(4, [N])


def every_choice(scores, grades, N):
    """The mean over all choices of N, equal best scores shared."""
    values = []
    for some in combinations(range(len(scores)), N):
        best = max(scores[i] for i in some)
        values.append(np.mean([grades[i] for i in some if scores[i] == best]))
    return np.mean(values)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=7))
def test_the_expectation_is_the_mean_over_every_choice(pairs):
    scores, grades = map(np.array, zip(*pairs))
    at = range(1, len(pairs) + 1)
    assert expected_best(scores, grades, at) == pytest.approx([every_choice(scores, grades, N) for N in at], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.data())
def test_the_oracle_is_pass_at_n_and_equal_scores_are_the_mean(n, data):
    right = np.arange(n) < data.draw(st.integers(0, n))
    at = sorted({1, (n + 1) // 2, n})
    assert expected_best(right, right, at) == pytest.approx(pass_at(n, int(right.sum()), np.array(at)), abs=1e-12)
    assert expected_best(np.zeros(n), right, at) == pytest.approx([right.mean()] * len(at))


# -- a random number per text --------------------------------------------------------------------------------------


def test_chances_of_texts_by_hand():
    """A text drawn three times and one drawn once: of two draws half of the pairs hold both, and then a coin decides."""
    assert text_chances(np.array([3, 1]), [1, 2, 3, 4]) == pytest.approx(
        np.array([[3 / 4, 1 / 4], [3 / 4, 1 / 4], [1 / 4 + 3 / 8, 3 / 8], [1 / 2, 1 / 2]])
    )
    assert text_chances(np.array([5]), [1, 5]) == pytest.approx(np.ones((2, 1)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_the_chances_of_texts_are_the_mean_over_every_order(counts):
    draws, at = np.repeat(np.arange(len(counts)), counts), range(1, sum(counts) + 1)
    orders = list(permutations(range(len(counts))))
    expected = [
        np.mean([expected_best(np.array(order)[draws], draws == text, at) for order in orders], axis=0)
        for text in range(len(counts))
    ]
    assert text_chances(np.array(counts), at) == pytest.approx(np.array(expected).T, abs=1e-12)


def test_the_chances_of_a_dozen_texts_are_those_counted_over_every_set_before_them():
    """Of K texts each set of d others stands before one with the chance 1 / (K·C(K − 1, d)), and a text is first if the N draws
    hold some of its own and none of those: counted, without an integral or a transform."""
    counts = np.array([1, 1, 1, 1, 1, 2, 2, 2, 3, 5, 8, 13])
    n, texts, at = int(counts.sum()), len(counts), (1, 2, 7, 20, 40)
    for text in (0, 5, 10, 11):
        ways = np.zeros((texts, n + 1), dtype=object)  # [d, a]: sets of d others that were drawn a times together
        ways[0, 0] = 1
        for other in np.delete(counts, text):
            ways[1:, other:] = ways[1:, other:] + ways[:-1, : n + 1 - other]
        own = int(counts[text])
        for N, found in zip(at, text_chances(counts, at)[:, text]):
            exact = sum(
                Fraction(int(ways[d, a]) * (comb(n - a, N) - comb(n - a - own, N)), comb(n, N) * texts * comb(texts - 1, d))
                for d in range(texts) for a in range(n - own + 1) if ways[d, a]
            )  # fmt: skip
            assert found == pytest.approx(float(exact), abs=1e-12)


def test_many_texts_keep_their_chances():
    """Of 1,000 draws: one draw is as good as another, all of them are a choice among texts, and something is always first."""
    counts = np.array([1] * 500 + [2] * 100 + [3] * 30 + [10] * 18 + [30])
    found = text_chances(counts, [1, 7, 100, 1000])
    assert counts.sum() == 1000 and found.sum(axis=1) == pytest.approx([1] * 4, abs=1e-11)
    assert found[0] == pytest.approx(counts / 1000) and found[3] == pytest.approx([1 / len(counts)] * len(counts))


def test_a_reranker_that_knows_nothing_falls_with_n_and_so_does_its_null():
    """The right answer is one text drawn often: 200 orders of texts, each measured, are the null on average."""
    texts = ["right"] * 6 + [f"wrong {i}" for i in range(4)]
    grades, at, rng = np.array([1.0] * 6 + [0.0] * 4), [1, 2, 5, 10], np.random.default_rng(0)
    null = by_texts(texts)(np.arange(10), grades, at)
    assert null[0] == pytest.approx(0.6) and null[-1] == pytest.approx(1 / 5) and (np.diff(null)[1:] < 0).all()
    place = pd.factorize(np.array(texts, dtype=object))[0]
    orders = [expected_best(rng.random(5)[place], grades, at) for _ in range(4000)]
    assert np.mean(orders, axis=0) == pytest.approx(null, abs=0.02)
    run = pd.DataFrame({"query_id": "a", "doc_id": [str(i) for i in range(10)], "text": texts})
    named = {"random": Scores(rng.random(10))}
    value = measured(run, grades, named, at)[0].set_index(["run", "cutoff"])["value"]
    assert value[PER_TEXT, 10] == pytest.approx(1 / 5) and value["random", 10] == pytest.approx(0.6)
    assert PER_TEXT not in set(measured(run.drop(columns="text"), grades, named, at)[0]["run"])


RUN = pd.DataFrame({"query_id": list("aabb"), "doc_id": list("1212"), "rank": [0, 1, 0, 1], "score": [1.0, 0.0] * 2})


def test_curves_of_a_run():
    grades = np.array([1.0, 0.0, 0.0, 1.0])
    pickers = {"oracle": by_scores(grades), "worst": by_scores(-grades), "same": by_scores(grades * 0)}
    results, per_query = curves(RUN, grades, pickers, [1, 2])
    assert results["value"].tolist() == [0.5, 1.0, 0.5, 0.0, 0.5, 0.5] and (results["n"] == 2).all()
    assert len(per_query) == 12 and set(per_query.columns) == {"run", "measure", "query_id", "cutoff", "value"}
    assert (results["low"] <= results["value"]).all() and (results["value"] <= results["high"]).all()
    with pytest.raises(UserError, match="query a has 2 candidates, fewer than the largest N, 3"):
        curves(RUN, grades, pickers, [3])


def test_grades_of_a_run():
    qrels = pd.DataFrame({"query_id": ["a", "b"], "doc_id": ["2", "1"], "relevance": [1, 2]})
    assert grades_of(RUN, qrels).tolist() == [0, 1, 2, 0]
    with pytest.raises(UserError, match=r"the qrels do not judge 1 of the run's queries \(b\)"):
        grades_of(RUN, qrels.iloc[:1])
    with pytest.raises(UserError, match="do not judge 2 draws of the run, such as 1"):
        grades_of(RUN.assign(draw=0), qrels)


@pytest.mark.parametrize(
    "grade, message", [(0.0, "no candidate is right"), (1.0, "no candidate is wrong"), (0.3, "the grade 0.3")]
)
def test_equal_grades_tell_nothing(grade, message):
    with pytest.raises(UserError, match=message):
        check_grades(np.full(4, grade))


def test_real_lists_of_twelve_systems(real_data):
    """Length, chance and oracle over 805 prompts, against numpy on matrices of [prompts, systems]."""
    task = tasks.load(real_data("alpaca"))
    run, grades = task.candidates, grades_of(task.candidates, task.qrels)
    assert len(run) == 805 * 12
    G = grades.reshape(805, 12)
    at = [1, 2, 4, 12]
    pickers = {
        "length": by_scores(length_scores(run)),
        "random": by_scores(grades * 0),
        "one order": by_scores(random_scores(run, 0)),
        "oracle": by_scores(grades),
    }
    results, _ = curves(run, grades, pickers, at)
    value = results.set_index(["run", "cutoff"])["value"]
    assert [value["random", N] for N in at] == pytest.approx([G.mean()] * 4)
    assert value["oracle", 12] == pytest.approx(G.max(axis=1).mean())
    L = np.array([len(text) for text in run["text"]]).reshape(805, 12)
    longest = L.max(axis=1, keepdims=True) == L
    assert value["length", 12] == pytest.approx(((G * longest).sum(1) / longest.sum(1)).mean())
    i, j = np.triu_indices(12, 1)  # all 66 pairs of systems
    longer = np.where(L[:, i] > L[:, j], G[:, i], np.where(L[:, i] < L[:, j], G[:, j], (G[:, i] + G[:, j]) / 2))
    assert value["length", 2] == pytest.approx(longer.mean())
    assert value["oracle", 2] == pytest.approx(np.maximum(G[:, i], G[:, j]).mean())
    chance = random_scores(run, 0).reshape(805, 12).argmax(axis=1)
    assert value["one order", 12] == pytest.approx(G[np.arange(805), chance].mean())
    assert value["random", 12] < value["length", 12] < value["oracle", 12]
