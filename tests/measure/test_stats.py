"""Intervals and paired tests: known answers, degenerate input, and whether they hold what they promise."""

import importlib.util
import math
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from irlens.base.errors import UserError
from irlens.measure.measures import pass_at
from irlens.measure.stats import (
    crossed_difference,
    crossed_interval,
    crossed_intervals,
    difference_interval,
    holm,
    mean_interval,
    mean_intervals,
    median_interval,
    paired_test,
    seed_share,
    trend_test,
)

REWARD = (-np.inf, np.inf)


def coverage_bench():
    """experiments/bench/coverage.py as a module."""
    path = Path(__file__).parents[2] / "experiments" / "bench" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_bench", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_right_or_wrong_is_wilsons_interval():
    """Of 100, 50: (.5 + z²/200 ± z √(.25/100 + z²/40000)) / (1 + z²/100), z = 1.96. Of 20, 8: Brown et al.'s form."""
    assert mean_interval([0, 1] * 50) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    assert mean_interval([1] * 8 + [0] * 12) == pytest.approx((0.21880, 0.61342), abs=1e-5)


def test_all_right_of_50_is_no_certainty():
    """z² / (n + z²) of other problems may be wrong: 3.8415 / 53.8415."""
    assert mean_interval(np.ones(50)) == pytest.approx((1 - 0.071348, 1), abs=1e-6)
    assert mean_interval(np.zeros(50)) == pytest.approx((0, 0.071348), abs=1e-6)
    assert mean_interval(np.full(50, 0.3)) == pytest.approx((0.3 - 0.3 * 0.071348, 0.3 + 0.7 * 0.071348), abs=1e-6)
    assert mean_interval(np.full(50, 1.0), bounds=(0, 10))[1] > 1.5
    low, high = mean_interval(np.r_[np.full(99, 1 - 1e-6), 1 - 1e-4])  # all but equal is no certainty either
    assert low < 0.98 and high == pytest.approx(1, abs=1e-5)


def test_few_wrong_ones_have_the_poisson_limit():
    """One of 100: the lower end is χ²(.05, 2) / 2 / 100 = -ln(.95) / 100 (Brown et al. 2001), below Wilson's .00177."""
    assert mean_interval([1] + [0] * 99)[0] == pytest.approx(-np.log(0.95) / 100)


def test_many_draws_count_as_more_problems_where_they_show_less_spread():
    rng = np.random.default_rng(0)
    many, one = rng.binomial(64, 0.5, 300) / 64, rng.binomial(1, 0.5, 300)
    (low, high), (lower, higher) = mean_interval(many), mean_interval(one)
    assert high - low == pytest.approx((higher - lower) / 8, rel=0.15)


def test_rewards_have_hall_and_student_in_the_normal_case():
    """Symmetric values have no skewness: Student's t, here of 2 ± 12.706 · 1 / √2; skewed ones reach further up."""
    assert mean_interval([1.0, 3.0], bounds=REWARD) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-3)
    values = np.random.default_rng(0).exponential(1, 40)
    low, high = mean_interval(values, bounds=REWARD)
    assert high - values.mean() > 1.2 * (values.mean() - low) > 0
    flipped = mean_interval(-values, bounds=REWARD)
    assert flipped == pytest.approx((-high, -low))


def test_a_column_has_the_interval_that_it_has_alone():
    rng = np.random.default_rng(0)
    values = np.stack([rng.random(40), rng.integers(0, 2, 40), rng.normal(3, 1, 40), np.ones(40), np.full(40, 7.0)], 1)
    low, high = mean_intervals(values)
    alone = np.array([mean_interval(column) for column in values.T])
    assert np.allclose(np.stack([low, high], axis=1), alone, rtol=1e-12, equal_nan=True)
    assert np.isnan(alone).all(axis=1).tolist() == [False] * 4 + [True]


@pytest.mark.parametrize("bounds", [None, REWARD])
def test_a_higher_level_is_wider(bounds):
    values = np.random.default_rng(0).random(50)
    low, high = mean_interval(values, 0.8, bounds)
    lower, higher = mean_interval(values, 0.99, bounds)
    assert lower < low < values.mean() < high < higher


def test_intervals_cover_as_often_as_they_say():
    """A part of experiments/bench/coverage.csv: wherever a method can know, .95 up to chance, and never below .92."""
    bench = coverage_bench()
    rows = []
    for i, cell in enumerate(bench.cells()):
        part = i % 17 == 0 if cell.kind == "rate" else i % 3 == 0 and cell.kind != "trend"
        if part and cell.problems in (30, 100):
            rows.append(bench.measure(cell, 600) | {"cell": cell})
    assert len(rows) > 60 and {row["kind"] for row in rows} == set(bench.INTERVALS)
    for row in rows:  # 4.5 standard errors of .95 over 600 samples are .04
        assert row["coverage"] > 0.92 - 0.04, row
        assert row["known"] != "yes" or row["coverage"] < 0.97 + 0.03, row
        assert row["without_width"] == 0, row
    known = [row["coverage"] for row in rows if row["known"] == "yes"]
    assert np.mean(known) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(("n", "p"), [(50, 0.02), (100, 0.98), (30, 0.02)])
def test_rare_hits_are_covered(n, p):
    """The percentile bootstrap covered .635 of .95 at 50 problems and p = .02."""
    values = (np.random.default_rng(0).random((n, 4000)) < p).astype(float)
    low, high = mean_intervals(values)
    assert ((low <= p) & (p <= high)).mean() > 0.92


@pytest.mark.filterwarnings("error")
def test_degenerate_input():
    assert np.isnan(mean_interval([0.5])).all() and np.isnan(difference_interval([0.5])).all()
    assert np.isnan(mean_interval([5.0] * 7)).all()  # a reward that is always the same says nothing of others
    assert np.isnan(mean_interval([0.5] * 7, bounds=REWARD)).all()
    assert np.isnan(difference_interval([0.0] * 7)).all()
    low, high = mean_intervals(np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert (low < high).all() and mean_intervals(np.empty((3, 0)))[0].shape == (0,)
    over = np.r_[np.full(29, 1 + 1e-12), 1.0]  # rounding
    assert mean_interval(over) == pytest.approx(mean_interval(np.ones(30)), abs=1e-6)
    tiny = mean_interval(np.full(30, 1e-300))
    assert 0 <= tiny[0] < tiny[1] <= 1


def test_a_median_lies_between_two_of_the_values():
    """Of 20 values the 6th and the 15th: P(fewer than 6 of 20 coins) = .0207; five values cannot cover .95."""
    assert median_interval(range(1, 21)) == (6, 15)
    assert np.isnan(median_interval([1, 2, 3, 4, 5])).all() and median_interval(range(6)) == (0, 5)


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
        mean_interval(values, level)


def test_many_queries_fit_in_memory():
    values = np.random.default_rng(0).random(100_000)
    tracemalloc.start()
    low, high = mean_interval(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert low < values.mean() < high and peak < 20e6


def test_paired_test_by_hand():
    """Differences 1, 2, 3: of the 8 sign patterns only all-plus and all-minus are as far from 0, so p = 2/8.

    Mean 2, standard deviation 1, so d_z = 2.
    """
    result = paired_test([5, 5, 5], [6, 7, 8])
    assert (result.difference, result.p, result.n) == (2, pytest.approx(0.25), 3)
    assert result.effect == pytest.approx(2)
    assert (result.low, result.high) == difference_interval([1, 2, 3])


def test_a_paired_difference_of_rates_is_bonett_and_prices():
    """5 gained and 1 lost of 40: (6 - 2) / 42 ± t √((8/42 - (4/42)²) / 42), t = 2.0227 of 39 degrees of freedom."""
    before, after = np.r_[np.zeros(5), 1, np.ones(34)], np.r_[np.ones(5), 0, np.ones(34)]
    half = 2.0227 * np.sqrt((8 / 42 - (4 / 42) ** 2) / 42)
    found = paired_test(before, after)
    assert (found.low, found.high) == pytest.approx((4 / 42 - half, 4 / 42 + half), abs=0.004)


def test_no_difference_at_all_is_no_certainty():
    """Two systems that agree on 50 problems may differ on others: about 3 / n either way, the rule of three."""
    same = paired_test([0, 1] * 25, [0, 1] * 25)
    assert -3 / 50 < same.low == -same.high < -2.5 / 50 and same.p == 1
    rewards = paired_test([0.3, 7, 0.5], [0.3, 7, 0.5])
    assert np.isnan([rewards.low, rewards.high]).all()


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
    assert (same.difference, same.p, same.effect, same.n) == (0, 1, 0, 3) and same.low < 0 < same.high
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
        assert (same.p, same.difference, same.effect) == (1, 0, 0) and same.low < 0 < same.high


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
    """Additive effects: half-widths of the seeds' mean (t, 39) and of the queries' (t, 299), added in quadrature."""
    rng = np.random.default_rng(3)
    seeds, queries = rng.normal(size=(40, 1)), rng.normal(size=(1, 300)) * 4
    values = seeds + queries
    low, high = crossed_interval(values, bounds=REWARD)
    half = np.hypot(2.0227 * np.sqrt(seeds.var(ddof=1) / 40), 1.9679 * np.sqrt(queries.var(ddof=1) / 300))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-3)
    one = mean_interval(values[0], bounds=REWARD)
    assert high - low > 1.1 * (one[1] - one[0])  # which neglects the seeds
    assert seed_share(values) == pytest.approx(1 / 40 / (1 / 40 + 16 / 300), abs=0.1)


def test_an_interval_over_seeds_that_agree_is_that_of_the_queries():
    values = np.random.default_rng(0).integers(0, 2, 400).astype(float)
    assert crossed_interval(values[None]) == mean_interval(values)
    alike = crossed_interval(np.stack([values] * 3))
    assert alike == pytest.approx(mean_interval(values), abs=0.001)
    assert crossed_interval(np.full((3, 7), 0.3)) == pytest.approx(mean_interval(np.full(7, 0.3)))
    assert crossed_interval(np.ones((5, 500))) == mean_interval(np.ones(500))
    assert np.isnan(crossed_interval(np.full((3, 7), 4.0))).all()
    difference = values - values[::-1]
    assert crossed_difference(difference[None], bounds=(-1, 1)) == difference_interval(difference, bounds=(-1, 1))
    assert seed_share(np.stack([values] * 3)) == 0


def test_intervals_over_five_seeds_are_hardly_wider_than_they_must_be():
    """Seeds that do not differ, problems that do: the pigeonhole bootstrap was 1.4 times too wide and covered 1.00."""
    rng = np.random.default_rng(1)
    p = rng.beta(1, 2, (200, 800))
    values = rng.binomial(4, p, (5, 200, 800)) / 4
    low, high = crossed_intervals(values)
    true = np.sqrt(1 / 18 / 200 + 1 / 6 / 4 / 1000)  # Var p / problems + E p(1 - p) / draws / (seeds · problems)
    assert (high - low).mean() / (2 * 1.96 * true) < 1.12
    assert 0.94 < ((low <= 1 / 3) & (high >= 1 / 3)).mean() < 0.98


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
