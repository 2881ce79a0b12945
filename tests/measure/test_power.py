"""The smallest difference that a paired test could see: beside a table, beside simulated power, and where there is none."""

import numpy as np
import pytest

import irlens
from irlens.base.errors import UserError
from irlens.measure import power, stats


def test_the_level_that_holm_leaves_each_test():
    """A p-value below its level, in the order of p, is what Holm's method rejects; equal ones share the strictest."""
    assert power.holm_levels([0.03, 0.001, 0.2]).tolist() == pytest.approx([0.025, 0.05 / 3, 0.05])
    assert power.holm_levels([0.5, 0.5, 0.01]).tolist() == pytest.approx([0.025, 0.025, 0.05 / 3])
    p = np.array([0.001, 0.024, 0.3])
    assert ((p < power.holm_levels(p)) == (stats.holm(p) < 0.05)).all()


def test_the_formula_beside_a_table():
    """Ten differences of standard deviation 1: t(.975, 9) = 2.2622 and t(.8, 9) = .8834, over √10."""
    differences = np.array([-1.0, 1.0] * 5) * np.sqrt(9 / 10)
    found = power.detectable(np.zeros(10), differences)
    assert found == pytest.approx((2.2622 + 0.8834) / np.sqrt(10), abs=1e-4)
    assert power.detectable(np.zeros(10), 3 * differences) == pytest.approx(3 * found)
    assert power.detectable(np.zeros(10), differences, level=0.01) > found


def test_a_difference_of_that_size_is_found_four_times_in_five():
    rng, found = np.random.default_rng(0), []
    for i in range(200):
        noise = rng.normal(size=40)
        noise = (noise - noise.mean()) / noise.std(ddof=1)
        size = power.detectable(np.zeros(40), noise)
        sample = rng.normal(size, 1, 40)
        found.append(stats.paired_test(np.zeros(40), sample, resamples=499, seed=i).p < 0.05)
    assert 0.72 < np.mean(found) < 0.88


@pytest.mark.parametrize("n", [1, 2, 5])
def test_too_few_prompts_could_show_nothing(n):
    """Of five prompts no sign pattern is rarer than one of 16."""
    before, after = np.zeros(n), np.arange(1.0, n + 1)
    assert power.detectable(before, after) == float("inf")
    assert stats.paired_test(before, after).p >= 0.05
    assert power.detectable(np.zeros(6), np.arange(1.0, 7)) < float("inf")
    assert power.detectable(np.zeros(6), np.arange(1.0, 7), level=0.05 / 3) == float("inf")


def test_equal_differences_say_nothing_of_their_spread():
    assert np.isnan(power.detectable(np.ones(20), np.ones(20)))
    assert np.isnan(power.detectable(np.arange(20) / 7, np.arange(20) / 7 + 0.1))  # but for rounding


def test_a_level_or_a_power_that_is_none():
    for wrong in ({"level": 0.0}, {"power": 1.0}):
        with pytest.raises(UserError, match="between 0 and 1"):
            power.detectable([0, 1], [1, 0], **wrong)


def test_compare_holds_each_row_to_what_holm_leaves_it():
    import pandas as pd

    rng = np.random.default_rng(1)
    values = {"a": rng.random(30), "b": rng.random(30), "c": 1 + rng.random(30)}
    frames = [pd.DataFrame({"run": name, "query_id": [str(i) for i in range(30)], "measure": "m", "value": some})
              for name, some in values.items()]  # fmt: skip
    tests = irlens.compare(*frames)
    levels = dict(zip(zip(tests["before"], tests["after"]), power.holm_levels(tests["p"])))
    for row in tests.itertuples():
        both = (row.before, row.after)
        expected = power.detectable(*(values[name] for name in both), levels[both])
        assert row.detectable == pytest.approx(expected)
    assert set(levels.values()) == {0.05, 0.05 / 3}  # the two smallest p-values are equal
    alone = irlens.compare(*frames, baseline="b", correction=None)
    assert list(zip(alone["before"], alone["after"])) == [("b", "a"), ("b", "c")]
    assert alone["detectable"].iloc[0] == pytest.approx(power.detectable(values["b"], values["a"]))
    with pytest.raises(UserError, match="the baseline 'd' is no system here"):
        irlens.compare(*frames, baseline="d")


@pytest.mark.parametrize("of_seeds", [0.0, 0.03])
def test_over_seeds_the_size_that_it_names_is_found_in_about_four_of_five_runs(of_seeds):
    """By simulation: effects of 80 problems (σ .1), of 5 seeds, and noise (.1); the interval over both excludes 0."""
    rng = np.random.default_rng(0)

    def a_run():
        return rng.normal(0, 0.1, (1, 80)) + rng.normal(0, of_seeds, (5, 1)) + rng.normal(0, 0.1, (5, 80))

    sizes = [power.detectable_crossed(a_run()) for _ in range(200)]
    size = float(np.median(sizes))
    found = [stats.crossed_difference(a_run() + size)[0] > 0 for _ in range(600)]
    assert 0.7 < np.mean(found) < 0.92
    assert size >= power.detectable(np.zeros(80), a_run().mean(axis=0)) * 0.7


def test_over_seeds_nothing_is_known_of_equal_differences_nor_found_in_five_problems():
    assert np.isnan(power.detectable_crossed(np.full((3, 20), 0.1)))
    assert power.detectable_crossed(np.random.default_rng(1).normal(size=(3, 5))) == float("inf")
