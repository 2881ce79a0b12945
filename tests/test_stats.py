"""Intervals and paired tests: known answers, degenerate input, and whether they hold what they promise."""

import math
import tracemalloc

import numpy as np
import pytest

from irlens.errors import UserError
from irlens.measures import pass_at
from irlens.stats import bootstrap_interval, bootstrap_intervals, crossed_interval, holm, paired_test, trend_test


def test_bootstrap_of_a_coin_is_the_binomial():
    """100 values, half of them 1: resampled, 100 * mean is binomial(100, 1/2), whose middle 95 % run from 40 to 60."""
    low, high = bootstrap_interval([0, 1] * 50, resamples=20_000)
    assert low == pytest.approx(0.40, abs=0.011) and high == pytest.approx(0.60, abs=0.011)


def test_bootstrap_is_a_function_of_its_seed():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_a_column_has_the_interval_that_it_has_alone(monkeypatch):
    values = np.random.default_rng(0).random((40, 3))
    low, high = bootstrap_intervals(values)
    alone = np.array([bootstrap_interval(column) for column in values.T])
    assert np.allclose(np.stack([low, high], axis=1), alone, rtol=1e-12)
    monkeypatch.setattr("irlens.stats.CELLS", 500)  # other batches, same numbers
    assert np.allclose(bootstrap_intervals(values), (low, high), rtol=1e-12)


def test_a_higher_level_is_wider():
    values = np.random.default_rng(0).random(50)
    low, high = bootstrap_interval(values, level=0.8)
    lower, higher = bootstrap_interval(values, level=0.99)
    assert lower < low < values.mean() < high < higher


def test_interval_covers_the_truth_as_often_as_it_says():
    """1,000 samples of 60 skewed values (a squared uniform, mean 1/3): 95 % intervals cover 1/3 in about 95 %."""
    values = np.random.default_rng(3).random((60, 1000)) ** 2
    low, high = bootstrap_intervals(values, resamples=400)
    assert 0.92 < ((low <= 1 / 3) & (high >= 1 / 3)).mean() < 0.97


@pytest.mark.filterwarnings("error")
def test_degenerate_input():
    assert bootstrap_interval([0.1] * 7) == (0.1, 0.1)
    assert np.isnan(bootstrap_interval([0.5])).all()
    low, high = bootstrap_intervals(np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert low[0] == high[0] == 1 and low[1] < high[1]


@pytest.mark.parametrize(
    ("values", "level", "part"),
    [
        ([], 0.95, "no query"),
        ([0.5, float("nan")], 0.95, "value 1 of 2 is not a finite number"),
        ([0.5, 0.6], 1.0, "between 0 and 1"),
        ([[0.5], [0.6]], 0.95, "dimension"),
    ],
)
def test_interval_refuses(values, level, part):
    with pytest.raises(UserError, match=part):
        bootstrap_interval(values, level)


def test_many_queries_fit_in_memory():
    values = np.random.default_rng(0).random(100_000)
    tracemalloc.start()
    low, high = bootstrap_interval(values, resamples=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert low < values.mean() < high and peak < 100e6  # all resamples at once would be 80 MB twice and more


def test_paired_test_by_hand():
    """Differences 1, 2, 3: of the 8 sign patterns only all-plus and all-minus are as far from 0, so p = 2/8.

    Mean 2, standard deviation 1, so d_z = 2.
    """
    result = paired_test([5, 5, 5], [6, 7, 8])
    assert (result.difference, result.p, result.n) == (2, pytest.approx(0.25), 3)
    assert result.effect == pytest.approx(2)
    assert 1 <= result.low < 2 < result.high <= 3


def test_paired_test_is_symmetric():
    rng = np.random.default_rng(0)
    a, b = rng.random(12), rng.random(12)
    there, back = paired_test(a, b), paired_test(b, a)
    assert there.p == back.p and there.difference == -back.difference and there.effect == -back.effect


def test_random_signs_agree_with_all_signs():
    rng = np.random.default_rng(1)
    before = rng.random(14)
    after = before + rng.normal(0.05, 0.2, 14)
    every, some = paired_test(before, after, resamples=2**14), paired_test(before, after, resamples=4000)
    assert every.p != some.p and some.p == pytest.approx(every.p, abs=0.03)  # 4 standard errors of 4,000 draws


def test_p_is_never_zero():
    result = paired_test(np.zeros(40), np.linspace(1, 2, 40), resamples=999)
    assert result.p == pytest.approx(2 / 1000)  # two-sided: twice (0 + 1) / (999 + 1)


def test_equal_queries_do_not_change_p():
    before, after = np.array([0.0, 0, 0, 1]), np.array([1.0, 1, 1, 0])
    padding = np.ones(500)
    long = paired_test(np.r_[before, padding], np.r_[after, padding])
    assert long.p == paired_test(before, after).p and long.n == 504
    assert long.difference == pytest.approx(2 / 504)


@pytest.mark.filterwarnings("error")
def test_paired_test_without_differences():
    same = paired_test([0.3, 0.4, 0.5], [0.3, 0.4, 0.5])
    assert (same.difference, same.low, same.high, same.p, same.effect, same.n) == (0, 0, 0, 1, 0, 3)
    assert paired_test([0, 0], [1, 1]).effect == float("inf")
    one = paired_test([0], [1])
    assert one.p == 1 and one.difference == 1 and np.isnan([one.low, one.high, one.effect]).all()


def test_values_that_differ_by_rounding_only_are_equal():
    """Pass@16 of 64 draws as a product and as a quotient, and the mean of the same votes in two orders: no difference."""
    one = np.array([1 - math.prod(1 - 16 / (64 - i) for i in range(c)) for c in range(45)])
    other = np.array([1 - math.comb(64 - c, 16) / math.comb(64, 16) for c in range(45)])
    votes = np.random.default_rng(0).random((60, 7))
    for before, after in ((one, other), (votes.mean(axis=1), [sum(row[::-1]) / 7 for row in votes])):
        assert (before != after).any()
        same = paired_test(before, after)
        assert (same.p, same.difference, same.effect, same.low, same.high) == (1, 0, 0, 0, 0)


def test_a_few_real_differences_among_rounding_count_alone():
    """Two queries up, one down, by 0.1 as far as rounding lets it be: of the 8 sign patterns all are as far from 0."""
    before = np.array([0.1 + 0.2, 0.7, 0.2, 0.5, 0.3, 0.8])
    after = np.array([0.3, 0.8, 0.3, 0.4, 0.3 + 1e-16, 0.9 - 0.1])
    found = paired_test(before, after)
    assert found.p == 1 and found.difference == pytest.approx(0.1 / 6)
    assert paired_test(before * 1e6, after * 1e6).p == 1
    values = {"product": pass_at(64, [16, 20, 20, 19, 23, 23], 4)}  # three queries up by three more right, three down
    values["quotient"] = [1 - math.comb(64 - c, 4) / math.comb(64, 4) for c in (19, 23, 23, 16, 20, 20)]
    assert paired_test(*values.values()).p == 1
    up_and_down = paired_test([0.7, 0.2], [0.8, 0.1])
    assert up_and_down.difference == 0 and up_and_down.p == 1


@pytest.mark.parametrize(
    ("before", "after", "part"),
    [
        ([1, 2], [1, 2, 3], "not 2 and 3"),
        ([], [], "no query"),
        ([1, 2], [1, float("inf")], "not a finite number"),
    ],
)
def test_paired_test_refuses(before, after, part):
    with pytest.raises(UserError, match=part):
        paired_test(before, after)


def test_a_true_null_is_rejected_as_often_as_it_says():
    """600 comparisons of two systems that differ by symmetric, heavy-tailed noise only."""
    rng = np.random.default_rng(7)
    p = np.array([paired_test(np.zeros(10), rng.standard_t(3, 10), resamples=199, seed=i).p for i in range(600)])
    for alpha in (0.05, 0.2, 0.5):
        spread = 3 * np.sqrt(alpha * (1 - alpha) / len(p))
        assert (p <= alpha).mean() == pytest.approx(alpha, abs=spread)


def test_a_real_difference_is_found():
    rng = np.random.default_rng(0)
    p = [paired_test(np.zeros(30), rng.normal(1, 1, 30), resamples=499, seed=i).p for i in range(20)]
    assert max(p) < 0.05


def test_holm_by_hand():
    """Sorted .01, .02, .03, .04 times 4, 3, 2, 1 = .04, .06, .06, .04; the last is raised to the one before it."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([0.2]) == pytest.approx([0.2]) and holm([]).shape == (0,)


@pytest.mark.parametrize("p", [[0.1, 1.2], [-0.1], [float("nan")], [[0.1]]])
def test_holm_refuses(p):
    with pytest.raises(UserError, match="from 0 to 1"):
        holm(p)


def test_an_interval_over_seeds_and_queries_has_the_variance_of_both():
    """Additive effects: the variance of a resampled mean is that of the seeds' mean plus that of the queries'."""
    rng = np.random.default_rng(3)
    seeds, queries = rng.normal(size=(40, 1)), rng.normal(size=(1, 300)) * 4
    low, high = crossed_interval(seeds + queries, resamples=20_000)
    half = 1.96 * np.sqrt(seeds.var() / 40 + queries.var() / 300)
    assert low == pytest.approx((seeds + queries).mean() - half, abs=0.02)
    assert high == pytest.approx((seeds + queries).mean() + half, abs=0.02)
    only = np.sqrt(queries.var() / 300)
    assert high - low > 1.1 * 2 * 1.96 * only  # which neglects the seeds


def test_an_interval_over_seeds_that_agree_is_that_of_the_queries():
    values = np.random.default_rng(0).integers(0, 2, 400).astype(float)
    assert crossed_interval(values[None]) == bootstrap_interval(values)
    alike = crossed_interval(np.stack([values] * 3))
    assert alike == pytest.approx(bootstrap_interval(values), abs=0.01)
    assert crossed_interval(np.full((3, 7), 0.3)) == (0.3, 0.3)
    assert crossed_interval(np.ones((5, 500))) == (1, 1)


def test_pages_trend_by_hand():
    rising = trend_test(np.array([[1, 2, 3], [0, 5, 6], [2, 3, 9]]))
    assert (rising.statistic, rising.rho, rising.blocks) == (42, 1, 3)  # 3 · (1·1 + 2·2 + 3·3)
    assert rising.p == pytest.approx(1 / 6**3)  # one of the 3! orders in every block
    one_off = trend_test(np.array([[1, 2, 3], [0, 5, 6], [2, 9, 3]]))
    assert one_off.statistic == 41 and one_off.p == pytest.approx(7 / 6**3)  # six neighbours swapped, and all in order
    falling = trend_test(np.array([[3, 2, 1], [6, 5, 0], [9, 3, 2]]))
    assert falling.p == 1 and falling.rho == -1
    assert trend_test(np.full((4, 3), 0.5)).rho == 0
    for values in (np.ones((1, 3)), np.ones((5, 2))):
        with pytest.raises(UserError, match="two blocks and three conditions"):
            trend_test(values)


def test_no_trend_is_called_one_as_often_as_it_says():
    noise = np.random.default_rng(0).normal(size=(400, 5, 4))
    assert 0.02 < np.mean([trend_test(values).p < 0.05 for values in noise]) < 0.07
