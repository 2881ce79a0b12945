"""Intervals, paired tests and corrections for values per query.

The unit of everything here is one query's value of a measure (or one prompt's win), never one draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from irlens.base.errors import UserError

Numbers = Sequence[float] | np.ndarray  # one per query

CELLS = 2_000_000  # numbers that one batch of resamples may hold: 16 MB
EVENTS = 5.0  # how many problems must carry a mean's distance from a bound before their spread is believed


def mean_intervals(
    values: np.ndarray, level: float = 0.95, bounds: tuple[float, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(low[m], high[m]) of the mean of each column of values[queries, m]; no resampling, so the same every time.

    bounds: what a value can be at least and at most; (-inf, inf) for rewards. By default 0 and 1 for a column whose
    values all lie there, none for another. One query says nothing about spread and gives NaN twice, as do equal values
    without bounds. Else no width is zero: what was not seen in n queries may still be there.

    Bounded: Wilson's score interval with the effective number of queries in the place of their number (Korn and
    Graubard 1998; Dean and Pagano 2015), Student's t for values other than 0 and 1, and Poisson limits where three
    effective events or fewer carry the mean (Brown, Cai and DasGupta 2001, section 4.1.1). Where few queries carry the
    distance to a bound the largest spread that the bounds allow is mixed in (`_shrunk`). Equal values: the score
    interval's share of unseen queries, at either bound.
    Unbounded: Student's t, its skewness removed (Hall 1992, "On the removal of skewness by transformation").
    `experiments/bench/coverage.csv` says how often each covers.

    Raises UserError: no query, a value that is not finite or out of bounds, a level outside (0, 1).
    """
    values = _finite(values, 2)
    _check_level(level)
    n, m = values.shape
    if n == 1 or m == 0:
        return np.full(m, np.nan), np.full(m, np.nan)
    low, high = _ends(values, bounds)
    rates = np.isfinite(low)
    out = np.empty((2, m))
    out[:, ~rates] = _skewed(values[:, ~rates], level)
    low, width = low[rates], (high - low)[rates]
    out[:, rates] = low + width * _rate(np.clip((values[:, rates] - low) / width, 0, 1), level)  # rounding
    return out[0], out[1]


def mean_interval(
    values: Numbers, level: float = 0.95, bounds: tuple[float, float] | None = None
) -> tuple[float, float]:
    """(low, high) of the mean of values[queries]: `mean_intervals` for one measure."""
    low, high = mean_intervals(_finite(values, 1)[:, None], level, bounds)
    return float(low[0]), float(high[0])


def median_interval(values: Numbers, level: float = 0.95) -> tuple[float, float]:
    """(low, high) of the median of values[queries]: two of the sorted values, whatever the distribution.

    NaN twice where even the least and the largest do not cover as often as `level` (below 6 values for 95 %). Ties may
    make both ends one number. Source: Conover 1999, section 3.2 (the sign test inverted).
    """
    from scipy.stats import binom

    values = np.sort(_finite(values, 1))
    _check_level(level)
    k = int(binom.ppf((1 - level) / 2, len(values), 0.5))
    if k == 0:  # P(no value below the median) is above (1 - level) / 2
        return float("nan"), float("nan")
    return float(values[k - 1]), float(values[-k])


def difference_interval(
    differences: Numbers, level: float = 0.95, bounds: tuple[float, float] | None = None
) -> tuple[float, float]:
    """(low, high) of the mean of paired differences[queries], where many may be exactly 0: `crossed_differences` of one
    seed."""
    return crossed_difference(_finite(differences, 1)[None], level, bounds)


def crossed_interval(
    values: np.ndarray, level: float = 0.95, bounds: tuple[float, float] | None = None
) -> tuple[float, float]:
    """(low, high) of the mean of values[seeds, queries]: `crossed_intervals` for one measure."""
    low, high = crossed_intervals(_finite(values, 2)[:, :, None], level, bounds)
    return float(low[0]), float(high[0])


def crossed_intervals(
    values: np.ndarray, level: float = 0.95, bounds: tuple[float, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(low[m], high[m]) of the means of values[seeds, queries, m]: what another training run on other queries might
    give. One seed says nothing of others: its interval is over queries alone. bounds as in `mean_intervals`.

    Two-way analysis of variance without replication; seeds and queries each with their own Student's t (`_crossed`).
    Two seeds that differ much cannot be told from two that happen to lie apart: t with one degree of freedom is 12.7,
    so that such an interval covers, and is of little use.
    """
    values = _finite(values, 3)
    _check_level(level)
    if 1 in values.shape[:2]:
        return mean_intervals(values.reshape(-1, values.shape[2]), level, bounds)
    mean, each, (half, error) = values.mean(axis=(0, 1)), values.mean(axis=0), _crossed(values, level)
    low, high = _ends(values.reshape(-1, values.shape[2]), bounds)
    plain = np.where(half > 0, half, np.nan)
    out, rates = np.array([mean - plain, mean + plain]), np.isfinite(low)
    low, width, n, z = low[rates], (high - low)[rates], values.shape[1], _normal(level)
    mean, each = (np.clip((of[..., rates] - low) / width, 0, 1) for of in (mean, each))  # rounding
    half, error = half[rates] / width, error[rates] / width
    equal = (half == 0) | (mean == 0) | (mean == 1)  # whatever the seed: as the values of one
    spread = np.where(equal, 1.0, error**2 * n / np.maximum(mean * (1 - mean), np.finfo(float).tiny))
    quantile = np.where(equal, z, half / np.where(equal, 1.0, error))
    ends = _score(mean, _shrunk(spread, each), n, quantile, z)
    out[:, rates] = low + width * np.where(equal, _equal(mean, n, z), ends)
    return out[0], out[1]


def crossed_error(values: np.ndarray) -> float:
    """The standard error of the mean of values[seeds, queries], both of them random; of one seed over queries alone, of one
    query NaN."""
    values = _finite(values, 2)
    if 1 in values.shape:
        return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")
    return float(_crossed(values[:, :, None], 0.95)[1][0])


def crossed_difference(
    differences: np.ndarray, level: float = 0.95, bounds: tuple[float, float] | None = None
) -> tuple[float, float]:
    """(low, high) of the mean of differences[seeds, queries]: `crossed_differences` for one pair of systems."""
    low, high = crossed_differences(_finite(differences, 2)[:, :, None], level, bounds)
    return float(low[0]), float(high[0])


def crossed_differences(
    differences: np.ndarray, level: float = 0.95, bounds: tuple[float, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(low[m], high[m]) of the means of paired differences[seeds, queries, m], seeds counted as in `crossed_intervals`.

    Two queries are added, one for either side, of the size that a difference has where there is one; then Student's t.
    For systems that are right or wrong this is Bonett and Price 2012, "Adjusted Wald confidence interval for a
    difference of binomial proportions based on paired data". bounds: (-1, 1) for differences of rates; then no
    difference in any of n queries gives about 2.8 / n either way (near the rule of three's 3 / n: Hanley and
    Lippman-Hand 1983), and where few queries differ the bound's size is mixed in as `_shrunk` has it. Without bounds
    zeros alone say nothing and give NaN twice, as does one query.
    """
    from scipy.stats import t

    differences = _finite(differences, 3)
    _check_level(level)
    each = differences.mean(axis=0)
    n, some = len(each), (each != 0).sum(axis=0)
    if n == 1:
        return np.full(len(some), np.nan), np.full(len(some), np.nan)
    size = (each**2).sum(axis=0) / np.maximum(some, 1)
    if bounds is not None:
        doubt = _doubt(np.abs(each))
        size = doubt * max(bounds[0] ** 2, bounds[1] ** 2) + (1 - doubt) * size
    quantile = float(t.ppf((1 + level) / 2, n - 1))
    one = len(differences) == 1
    half = quantile * each.std(axis=0, ddof=1) / np.sqrt(n) if one else _crossed(differences, level)[0]
    mean = each.sum(axis=0) / (n + 2)
    added = quantile**2 * (2 * size + 2 * each.sum(axis=0) ** 2 / (n * (n + 2)))
    half = np.sqrt(half**2 * n * (n - 1) + added) / (n + 2)
    half = np.where(half > 0, half, np.nan)
    low, high = bounds or (-np.inf, np.inf)
    return np.maximum(mean - half, low), np.minimum(mean + half, high)


def difference_bounds(before: np.ndarray, after: np.ndarray) -> tuple[float, float] | None:
    """(-1, 1) where both systems' values all lie from 0 to 1, as rates do; else None, for values of any size."""
    rates = all(((values >= 0) & (values <= 1)).all() for values in (before, after))
    return (-1.0, 1.0) if rates else None


def seed_share(values: np.ndarray) -> float:
    """The estimated share, 0 to 1, that differences between seeds have in the variance of the mean of values[seeds,
    queries]. Raises UserError for one seed or one query."""
    values = _finite(values, 2)
    if min(values.shape) < 2:
        raise UserError(f"the share of seeds needs two seeds and two queries, got {list(values.shape)}")
    of_seeds, of_queries, rest = (float(square[0]) for square in _mean_squares(values[:, :, None]))
    between, queries = max(of_seeds - rest, 0.0), max(of_queries, rest)
    return between / (between + queries) if between + queries else 0.0


def _rate(values: np.ndarray, level: float) -> np.ndarray:
    """[2, m]: the ends for values[queries, m] from 0 to 1."""
    from scipy.stats import t

    n, z = len(values), _normal(level)
    mean = values.mean(axis=0)
    binary = ((values == 0) | (values == 1)).all(axis=0)
    most = np.maximum(mean * (1 - mean), np.finfo(float).tiny)
    quantile = np.where(binary, z, t.ppf((1 + level) / 2, n - 1))
    spread = np.where(binary, 1.0, np.minimum(values.var(axis=0, ddof=1) / most, 1.0))
    ends = _score(mean, np.where(binary, 1.0, _shrunk(spread, values)), n, quantile, z)
    equal = np.ptp(values, axis=0) == 0
    return np.where(equal, _equal(values[0], n, z), ends)


def _shrunk(spread: np.ndarray | float, values: np.ndarray) -> np.ndarray:
    """`spread` [m], the variance of values[queries, m] over the largest that their mean allows, drawn towards 1 where
    few queries carry the mean's distance from a bound: those that were not seen would have shown it."""
    doubt = np.maximum(_doubt(values), _doubt(1 - values))
    return doubt * np.maximum(spread, 1.0) + (1 - doubt) * spread


def _doubt(sizes: np.ndarray) -> np.ndarray:
    """[m]: exp(-K / EVENTS), where K = √((Σx)³ / Σx³) says how many of sizes[queries, m] (from 0 on) carry their sum:
    K of equal size among zeros give K, one that is far above the others gives 1."""
    cubes = (sizes**3).sum(axis=0)
    carry = np.sqrt(sizes.sum(axis=0) ** 3 / np.where(cubes > 0, cubes, 1.0))
    return np.exp(-carry / EVENTS)


def _score(mean, spread, n: int, quantile, z: float) -> np.ndarray:
    """[2, m]: Wilson's interval at mean[m] of n queries whose variance is spread · mean (1 - mean), and below it the
    Poisson limit where no more than three effective events are on either side."""
    from scipy.stats import chi2, norm

    k = quantile**2 * spread / n
    middle, half = (mean + k / 2) / (1 + k), np.sqrt(k * mean * (1 - mean) + k * k / 4) / (1 + k)
    size = n / spread
    ends = []
    for share, low in ((mean, middle - half), (1 - mean, 1 - middle - half)):
        events = share * size
        few = chi2.ppf(2 * norm.sf(z), 2 * np.maximum(events, 1e-9)) / (2 * size)
        ends.append(np.maximum(np.where(events < 3.01, np.minimum(few, low), low), 0.0))
    return np.array([ends[0], 1 - ends[1]])


def _equal(value, n: int, z: float) -> np.ndarray:
    """[2, m]: n equal values from 0 to 1; of other queries a share z² / (n + z²), Wilson's, may lie at either bound."""
    unseen = z * z / (n + z * z)
    return np.array([value - unseen * value, value + unseen * (1 - value)])


def _skewed(values: np.ndarray, level: float) -> np.ndarray:
    """[2, m]: Hall's transformed t for values[queries, m] of any size; NaN where they are equal."""
    from scipy.stats import t

    n = len(values)
    mean = values.mean(axis=0)
    error = values.std(axis=0, ddof=1) / np.sqrt(n)
    equal = np.ptp(values, axis=0) == 0
    variance = np.where(equal, 1.0, values.var(axis=0))
    skew = ((values - mean) ** 3).mean(axis=0) / variance**1.5 / np.sqrt(n)
    skew = np.where(np.abs(skew) < 1e-9, 1e-9, skew)  # the transformation's limit is the identity
    quantile = t.ppf((1 + level) / 2, n - 1)
    back = [3 / skew * (np.cbrt(1 + skew * (q - skew / 6)) - 1) for q in (quantile, -quantile)]
    return np.where(equal, np.nan, mean - error * np.array(back))


def _crossed(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Half the widths [m] of intervals of the means of values[seeds, queries, m], both of them random, and the standard
    errors [m].

    With mean squares A of seeds, B of queries and E of the rest, the mean's variance is (A + B - E) / (seeds · queries).
    A / (seeds · queries) is the variance of the mean over seeds on these queries, and (B - E) / (seeds · queries) what
    other queries add; each counts with its own Student's t and the half-widths are added in quadrature (Howe 1974,
    "Approximate confidence limits on the mean of X + Y"; one number of degrees of freedom for both, Satterthwaite's
    1946, covers .86 of .95 with two seeds). Never less than half of what the queries alone, or the rest alone, would give.
    """
    from scipy.stats import t

    seeds, queries = values.shape[:2]
    of_seeds, of_queries, rest = _mean_squares(values)
    few, many = (float(t.ppf((1 + level) / 2, count - 1)) ** 2 for count in (seeds, queries))
    added, least = np.maximum(of_queries - rest, 0.0), np.maximum(of_queries, rest) / 4
    half, error = np.maximum(few * of_seeds + many * added, many * least), np.maximum(of_seeds + added, least)
    size = seeds * queries
    return np.sqrt(half / size), np.sqrt(error / size)


def _mean_squares(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean squares [m] of seeds, of queries and of the rest of values[seeds, queries, m]."""
    seeds, queries = values.shape[:2]
    by_seed, by_query = values.mean(axis=1), values.mean(axis=0)
    rest = values - by_seed[:, None] - by_query[None] + by_query.mean(axis=0)
    of_rest = (rest**2).sum(axis=(0, 1)) / ((seeds - 1) * (queries - 1))
    return queries * by_seed.var(axis=0, ddof=1), seeds * by_query.var(axis=0, ddof=1), of_rest


def _normal(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf((1 + level) / 2))


def _ends(values: np.ndarray, bounds: tuple[float, float] | None) -> tuple[np.ndarray, np.ndarray]:
    """(least[m], most[m]) that values[queries, m] can be, infinite both where that is not known."""
    if bounds is not None:
        low, high = bounds
        if values.size and not low - 1e-9 <= values.min() <= values.max() <= high + 1e-9:
            raise UserError(f"values from {values.min():g} to {values.max():g} are out of the bounds {low:g}, {high:g}")
        known: np.ndarray = np.full(values.shape[1], bool(np.isfinite(low) and np.isfinite(high)))
    else:
        low, high, known = 0.0, 1.0, np.asarray(((values >= -1e-9) & (values <= 1 + 1e-9)).all(axis=0))
    return np.where(known, low, -np.inf), np.where(known, high, np.inf)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"the level of an interval must lie between 0 and 1, got {level}")


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
    """A paired comparison over n queries: mean of after - before, its interval (`difference_interval`), the p-value and
    Cohen's d_z."""

    difference: float
    low: float
    high: float
    p: float
    effect: float
    n: int


def paired_test(
    before: Numbers, after: Numbers, level: float = 0.95, resamples: int = 9999, seed: int = 0
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
    differences = paired_differences(before, after)
    low, high = difference_interval(differences, level, difference_bounds(before, after))
    return Comparison(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p=_sign_flip_p(differences, resamples, seed),
        effect=_effect(differences),
        n=len(differences),
    )


def paired_differences(before: Numbers, after: Numbers) -> np.ndarray:
    """after - before in whole steps of 2^-40 of the largest value: what rounding alone tells apart is equal, and sums of
    differences that cancel are 0 to the last bit. Raises UserError: see `paired_test`."""
    before, after = _finite(before, 1), _finite(after, 1)
    if len(before) != len(after):
        raise UserError(f"a paired test needs the same queries on both sides, not {len(before)} and {len(after)}")
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


def holm(p_values: Numbers) -> np.ndarray:
    """The p-values of a family of tests, adjusted so that the chance of any false rejection is held (Holm 1979).

    The i-th smallest of m is multiplied by m - i (i from 0), then raised to the largest before it, at most 1. The
    order of the input is kept. Raises UserError for a number outside [0, 1]. These three lines are all that statsmodels,
    a package of 20 MB, would be needed for.
    """
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise UserError(f"p-values must be a list of numbers from 0 to 1, got {p_values!r}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def _finite(values: Numbers, dimensions: int) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != dimensions:
        raise UserError(f"values per query must have {dimensions} dimension(s), got the shape {values.shape}")
    if len(values) == 0:
        raise UserError("no query to compute an interval or a test over")
    if not np.isfinite(values).all():
        raise UserError(f"value {int(np.flatnonzero(~np.isfinite(values))[0])} of {values.size} is not a finite number")
    return values
