"""What a paired comparison could have seen: the level that Holm leaves each test, and the smallest difference at it."""

from __future__ import annotations

import numpy as np

from irlens.base.errors import UserError
from irlens.measure import stats

ALPHA, POWER = 0.05, 0.8
RESAMPLES = 9999  # of `stats.paired_test`


def holm_levels(p_values: stats.Numbers, alpha: float = ALPHA) -> np.ndarray:
    """The level that Holm's method holds each p-value of a family to: alpha / (m − i) for the i-th smallest, i from 0.

    Equal p-values are held to the strictest level of theirs, as `stats.holm` rejects all of them or none.
    """
    p = np.asarray(p_values, dtype=float)
    smaller = (p[None, :] < p[:, None]).sum(axis=1)
    return alpha / (len(p) - smaller)


def detectable(
    before: stats.Numbers, after: stats.Numbers, level: float = ALPHA, power: float = POWER, resamples: int = RESAMPLES
) -> float:
    """The smallest mean difference that a two-sided paired test at `level` finds with probability `power`.

    (t(1 − level/2) + t(power)) · s / √n, Student's t with n − 1 degrees of freedom, s the standard deviation of the n
    paired differences as they were observed. Infinite where no difference could be found: the randomisation test's
    smallest p-value, 2 / 2ⁿ or 2 / (resamples + 1), is not below the level. NaN where the differences are all equal, for
    they say nothing of their spread. Source: Bloom 1995, "Minimum detectable effects", with t for the normal quantiles.
    Raises UserError: a level or power outside (0, 1), what `stats.paired_test` refuses.
    """
    from scipy.stats import t

    if not (0 < level < 1 and 0 < power < 1):
        raise UserError(f"a level and a power lie between 0 and 1, got {level} and {power}")
    differences = stats.paired_differences(before, after)
    n = len(differences)
    least = 2.0 / 2**n if n < 64 and 2**n <= resamples else 2.0 / (resamples + 1)
    if least >= level:
        return float("inf")
    if np.ptp(differences) == 0:
        return float("nan")
    quantiles = t.ppf(1 - level / 2, n - 1) + t.ppf(power, n - 1)
    return float(quantiles * differences.std(ddof=1) / np.sqrt(n))


def detectable_crossed(
    differences: np.ndarray, level: float = ALPHA, power: float = POWER, resamples: int = RESAMPLES
) -> float:
    """The smallest mean of differences[seeds, queries] that is found with probability `power` by both: the paired test over
    queries at `level` (`detectable`), and `stats.crossed_difference`'s 95 % interval over seeds and queries.

    For the interval: half of its width and, for the power, the normal quantile times the standard error over both.
    Infinite and NaN as `detectable`. Raises UserError as `detectable`.
    """
    from scipy.stats import norm

    means = np.asarray(differences, dtype=float).mean(axis=0)
    tested = detectable(np.zeros(len(means)), means, level, power, resamples)
    if not np.isfinite(tested):
        return tested
    low, high = stats.crossed_difference(differences)
    return max(tested, float((high - low) / 2 + norm.ppf(power) * stats.crossed_error(differences)))
