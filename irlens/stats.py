"""Intervals, paired tests and corrections for values per query.

The unit of everything here is one query's value of a measure (or one prompt's win), never one draw.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from irlens.errors import UserError

CELLS = 2_000_000  # numbers that one batch of resamples may hold: 16 MB


def bootstrap_intervals(
    values: np.ndarray, level: float = 0.95, resamples: int = 2000, seed: int = 0, statistic: Callable = np.mean
) -> tuple[np.ndarray, np.ndarray]:
    """(low[m], high[m]): percentile bootstrap of the mean of each column of values[queries, m].

    `statistic` may be another that takes an axis, such as np.median.

    One set of resampled queries serves all columns, so a column's interval is what it would be alone. A column of equal
    values gives that value twice; one query says nothing about spread and gives NaN twice. Raises UserError: no query,
    a value that is not finite, a level outside (0, 1). Source: Efron and Tibshirani 1993, chapter 13.
    """
    from scipy.stats import bootstrap

    values = _finite(values, 2)
    n, m = values.shape
    if not 0 < level < 1:
        raise UserError(f"the level of an interval must lie between 0 and 1, got {level}")
    if n == 1 or m == 0:
        return np.full(m, np.nan), np.full(m, np.nan)
    interval = bootstrap(
        (values.T,),
        statistic,
        axis=-1,
        vectorized=True,
        confidence_level=level,
        n_resamples=resamples,
        batch=max(1, CELLS // values.size),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    equal = np.ptp(values, axis=0) == 0
    return np.where(equal, values[0], interval.low), np.where(equal, values[0], interval.high)


def bootstrap_interval(
    values: Sequence[float], level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """(low, high) of the mean of values[queries]: `bootstrap_intervals` for one measure."""
    low, high = bootstrap_intervals(_finite(values, 1)[:, None], level, resamples, seed)
    return float(low[0]), float(high[0])


def crossed_interval(
    values: np.ndarray, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """(low, high) of the mean of values[seeds, queries], both resampled: what another training run on other queries
    might give. One seed is resampled over queries only.

    Percentile bootstrap with both factors drawn anew (Owen 2007, "The pigeonhole bootstrap", which is conservative).
    """
    values = np.asarray(values, dtype=float)
    seeds, queries = values.shape
    if seeds == 1:
        return bootstrap_interval(values[0], level, resamples, seed)
    rng = np.random.default_rng(seed)
    runs = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    problems = rng.multinomial(queries, np.full(queries, 1 / queries), size=resamples)
    means = np.einsum("rs,sq,rq->r", runs, values, problems, optimize=True) / values.size
    low, high = np.clip(np.quantile(means, [(1 - level) / 2, (1 + level) / 2]), values.min(), values.max())  # rounding
    return float(low), float(high)


@dataclass(frozen=True)
class Trend:
    """Page's test that columns rise from left to right: its L, the p-value, and Spearman's mean ρ over the blocks."""

    statistic: float
    p: float
    rho: float
    blocks: int


def trend_test(values: np.ndarray) -> Trend:
    """Page's L test of values[blocks, conditions]: do the conditions rise in the order of the columns?

    One-sided. A block is what is alike but for the condition: a training seed. Raises UserError for fewer than two
    blocks or three conditions. Source: Page 1963; scipy.stats.page_trend_test.
    """
    from scipy.stats import page_trend_test, spearmanr

    values = _finite(values, 2)
    if values.shape[0] < 2 or values.shape[1] < 3:
        raise UserError(f"a trend test needs two blocks and three conditions or more, got {list(values.shape)}")
    found = page_trend_test(values)
    rho = [spearmanr(range(len(row)), row).statistic if np.ptp(row) else 0.0 for row in values]
    return Trend(float(found.statistic), float(found.pvalue), float(np.mean(rho)), len(values))


@dataclass(frozen=True)
class Comparison:
    """A paired comparison over n queries: mean of after - before, its interval, the p-value and Cohen's d_z."""

    difference: float
    low: float
    high: float
    p: float
    effect: float
    n: int


def paired_test(
    before: Sequence[float], after: Sequence[float], level: float = 0.95, resamples: int = 9999, seed: int = 0
) -> Comparison:
    """Two-sided paired randomisation test of values[queries] of two systems, aligned query by query.

    Null hypothesis: within a query the two systems are exchangeable, so the sign of each difference is a coin's. All
    sign patterns are tried where there are at most `resamples` of them, else that many random ones, with 1 added to
    count and total: p is never 0. effect is the mean over the standard deviation of the differences (0 if all are 0,
    infinite if they are equal and not 0, NaN for one query). Values that differ by rounding only, as the sums of equal
    numbers in another order do, do not differ. Raises UserError: lengths differ, no query, a value that is not finite.
    Source: Smucker, Allan and Carterette 2007; Phipson and Smyth 2010 for the 1.
    """
    before, after = _finite(before, 1), _finite(after, 1)
    if len(before) != len(after):
        raise UserError(f"a paired test needs the same queries on both sides, not {len(before)} and {len(after)}")
    differences = _differences(before, after)
    low, high = bootstrap_interval(differences, level, resamples=2000, seed=seed)
    return Comparison(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p=_sign_flip_p(differences, resamples, seed),
        effect=_effect(differences),
        n=len(differences),
    )


def _differences(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """after - before in whole steps of 2^-40 of the largest value: what rounding alone tells apart is equal, and sums of
    differences that cancel are 0 to the last bit."""
    step = 4096 * np.spacing(max(np.abs(before).max(), np.abs(after).max()))
    return np.rint((after - before) / step) * step


def _sign_flip_p(differences: np.ndarray, resamples: int, seed: int) -> float:
    """The p-value of a mean of 0 under random signs; zeros keep their value under either sign and are left out."""
    from scipy.stats import permutation_test

    differences = differences[differences != 0]
    if len(differences) < 2:  # no difference, or one: both of its signs are equally far from 0
        return 1.0
    test = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        alternative="two-sided",
        n_resamples=resamples,
        batch=max(1, CELLS // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def _effect(differences: np.ndarray) -> float:
    """Cohen's d_z, the mean in units of the sample standard deviation (n - 1)."""
    if not differences.any():
        return 0.0
    if len(differences) == 1:
        return float("nan")
    if np.ptp(differences) == 0:
        return float(np.copysign(np.inf, differences[0]))
    return float(differences.mean() / differences.std(ddof=1))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """The p-values of a family of tests, adjusted so that the chance of any false rejection is held (Holm 1979).

    The i-th smallest of m is multiplied by m - i (i from 0), then raised to the largest before it, at most 1. The
    order of the input is kept. Raises UserError for a number outside [0, 1].
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise UserError(f"p-values must be a list of numbers from 0 to 1, got {p_values!r}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def _finite(values: Sequence[float] | np.ndarray, dimensions: int) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != dimensions:
        raise UserError(f"values per query must have {dimensions} dimension(s), got the shape {values.shape}")
    if len(values) == 0:
        raise UserError("no query to compute an interval or a test over")
    if not np.isfinite(values).all():
        raise UserError(f"value {int(np.flatnonzero(~np.isfinite(values))[0])} of {values.size} is not a finite number")
    return values
