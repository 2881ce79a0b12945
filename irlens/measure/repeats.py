"""Intervals of means over items that repeat: what resampling the distinct items gives, not their copies."""

from __future__ import annotations

import numpy as np

from irlens.measure.stats import Numbers, _check_level, _doubt, _finite, _normal, _score


def linearised(values: Numbers, copies: Numbers) -> np.ndarray:
    """[items]: what each item adds to Σ copies·values / Σ copies. Their mean is that ratio and their standard error the
    ratio's (Cochran 1977, section 6.4): an item that stands in the set more often is by that no better than others."""
    values, copies = _finite(values, 1), _finite(copies, 1)
    if np.ptp(values) == 0:
        return values.copy()  # without the noise of rounding
    ratio = float((copies * values).sum() / copies.sum())
    return ratio + (values - ratio) * copies * len(copies) / copies.sum()


def repeated_interval(values: Numbers, copies: Numbers, level: float = 0.95) -> tuple[float, float]:
    """(low, high) of Σ copies·values / Σ copies, values[items] from 0 to 1, of distinct items that stand in a set `copies`
    times. NaN twice for one item.

    Wilson's score interval with the variance that resampling items gives, a ratio's linearised (Cochran 1977, section
    6.4), in the place of the binomial one (Korn and Graubard 1998), and Student's t. Where few items carry the mean's
    distance from 0 or 1 the largest variance that the mean allows is mixed in, that of weighted binary values: copies add
    nothing, so that the interval is never narrower than the items' number warrants.
    """
    from scipy.stats import t

    values, copies = _finite(values, 1), _finite(copies, 1)
    _check_level(level)
    m, total = len(values), copies.sum()
    if m == 1:
        return float("nan"), float("nan")
    mean = min(max(float((copies * values).sum() / total), 0.0), 1.0)  # rounding
    variance = m / (m - 1) * ((copies * (values - mean) / total) ** 2).sum()
    most = float(m * (copies**2).sum() / total**2)  # the spread of binary values
    possible = mean * (1 - mean)
    spread = min(variance * m / possible, most) if possible > 0 else most
    carried = np.stack([copies * values, copies * (1 - values)])
    doubt = float(max(_doubt(one[:, None])[0] for one in carried))
    spread = doubt * most + (1 - doubt) * spread
    low, high = _score(np.array([mean]), np.array([spread]), m, float(t.ppf((1 + level) / 2, m - 1)), _normal(level))
    return float(low[0]), float(high[0])
