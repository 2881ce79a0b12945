"""Proxy and truth: changes with intervals, where they part company, and a best place that its own values did not choose."""

import numpy as np
import pandas as pd
import pytest

from irlens.measure import best_of_n as picking
from irlens.measure import overoptimisation as over
from irlens.measure import stats
from irlens.rerank.reranker import Scores

RNG = np.random.default_rng(0)
START = RNG.random(80) / 2 + 0.25
NOISE = RNG.normal(0, 0.05, 80)


def test_a_change_is_the_paired_difference_with_its_interval():
    found, test = over.change(START, START + 0.1 + NOISE), stats.paired_test(START, START + 0.1 + NOISE)
    assert (found.value, found.low, found.high, found.n) == (test.difference, test.low, test.high, 80)
    assert found.rises and not found.falls
    assert over.change(START + 0.1 + NOISE, START).falls


@pytest.mark.parametrize("proxy, truth, expected", [
    (0.1, -0.1, True), (-0.1, 0.1, False), (0.1, 0.1, False), (-0.1, -0.1, False), (0.1, 0.0, False), (0.0, -0.1, False),
])  # fmt: skip
def test_proxy_and_truth_part_company_where_the_one_rises_and_the_other_falls(proxy, truth, expected):
    """A change of 0 is noise, whose interval holds 0."""
    centred = NOISE - NOISE.mean()
    changes = [over.change(START, START + by + centred) for by in (proxy, truth)]
    assert over.parts_company(*changes) is expected


def test_the_best_place_is_chosen_on_other_problems():
    """Place 1 is the best of all by one problem alone, which for itself must do with what the others choose."""
    values = [np.full((2, 10), 0.5), np.full((2, 10), 0.4)]
    values[1][:, 3] = 5.0
    places = over.best_places(values)
    assert values[1].mean() > values[0].mean()
    assert places.tolist() == [0 if i % 5 == 3 else 1 for i in range(10)]  # five parts: 3 and 8 are one
    taken = over.at_places(values, places)
    assert taken.shape == (2, 10) and taken[0].tolist() == [0.4, 0.4, 0.4, 0.5, 0.4, 0.4, 0.4, 0.4, 0.5, 0.4]


def test_of_places_that_are_all_alike_none_looks_better():
    """The largest of eight means of noise is above 0; what is chosen by other problems is not, over many such."""
    own, other = [], []
    for i in range(40):
        noise = list(np.random.default_rng(i).normal(size=(8, 1, 100)))
        own.append(max(values.mean() for values in noise))
        other.append(over.at_places(noise, over.best_places(noise)).mean())
    assert np.mean(own) > 0.1 and abs(np.mean(other)) < 0.06


def test_best_of_n_has_values_per_query_that_the_curves_are_means_of():
    run = pd.DataFrame(
        [(f"q{i}", f"q{i}/{d}", text) for i in range(3) for d, text in enumerate("aabc")],
        columns=["query_id", "doc_id", "text"],
    )
    grades = np.array([1.0, 1.0, 0.0, 0.0] * 3)
    scores = np.array([0.0, 0.0, 2.0, 1.0] * 3)
    results, each = over.best_of(run, grades, Scores(scores), "mine", [1, 2, 4], 0)
    mean = each.groupby(["run", "cutoff"])["value"].mean()
    known = results.set_index(["run", "cutoff"])["value"]
    assert known.drop(over.GAIN, level=0).sort_index().to_numpy() == pytest.approx(mean.sort_index().to_numpy())
    assert known["mine"].tolist() == [0.5, pytest.approx(1 / 6), 0.0]  # of 6 pairs one has both a
    assert known[over.PROXY].tolist() == [0.75, pytest.approx((3 * 2 + 2 * 1) / 6), 2.0]
    assert set(each["run"]) == {"mine", over.PROXY, *picking.ALWAYS} and len(each) == 5 * 3 * 3
    assert known[over.GAIN, 4] == pytest.approx(-known[picking.PER_TEXT, 4])
    assert over.name_of("random") == "random, as a reranker"
