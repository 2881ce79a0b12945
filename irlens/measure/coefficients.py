"""How far raters agree: Cohen's κ, Krippendorff's α, Kendall's τ over systems, and intervals that resample prompts.

Each is a function of sums over prompts, so that a resample of the prompts is a weighted sum of what they hold: a thousand
of them are one product of matrices. Values are checked against scikit-learn, scipy and Krippendorff's own examples.

Source: Cohen 1960, "A coefficient of agreement for nominal scales"; Krippendorff 2011, "Computing Krippendorff's
alpha-reliability".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from irlens.base.errors import UserError
from irlens.measure.agreement import tau_b
from irlens.measure.repeats import repeated_interval

CATEGORIES = ("loss", "tie", "win")  # of the system, in this order
ALIKE = 1e-9  # between preferences: rounding of a mean over orders
CELLS = 4_000_000  # numbers that one block of resamples may hold

Statistic = Callable[[np.ndarray], np.ndarray]  # sums [resamples, k] → values [resamples]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval over `prompts`, from n judged pairs (or pairs of verdicts). NaN: not known."""

    value: float
    low: float
    high: float
    n: int
    prompts: int


def categories(preferences: np.ndarray) -> np.ndarray:
    """[...] 0 for a loss of the system (a preference below 1.5), 1 for a tie, 2 for a win; -1 where nothing is known."""
    above = np.asarray(preferences, dtype=float) - 1.5
    found = np.where(above > ALIKE, 2, np.where(above < -ALIKE, 0, 1))
    return np.where(np.isnan(above), -1, found)


# -- coefficients --------------------------------------------------------------------------------------------------


def kappa(first: Sequence[int], second: Sequence[int]) -> float:
    """Cohen's κ of two raters' categories [n], whole numbers from 0 on; NaN where both only ever say one and the same.

    Raises UserError for raters of other lengths.
    """
    a, b = np.asarray(first, dtype=int), np.asarray(second, dtype=int)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise UserError(f"kappa: two raters of the same things, got {a.shape} and {b.shape} categories")
    size = int(max(a.max(), b.max())) + 1
    return float(_kappa(np.bincount(a * size + b, minlength=size * size)[None].astype(float))[0])


def alpha(values: np.ndarray, level: str = "interval") -> float:
    """Krippendorff's α of values [units, raters], NaN where a rater says nothing of a unit.

    level: interval (the distance is the squared difference) or nominal (equal or not). A unit with fewer than two values
    says nothing. NaN where no unit has two, or all values are equal. Raises UserError for another level.
    """
    values = np.asarray(values, dtype=float)
    return float(_alpha(_alpha_sums(values, level, np.zeros(len(values), dtype=int), 1))[0])


def _kappa(tables: np.ndarray) -> np.ndarray:
    """[m]: κ of m tables of counts, each [k · k]."""
    size = int(np.sqrt(tables.shape[1]))
    shares = tables.reshape(-1, size, size) / np.maximum(tables.sum(axis=1), 1e-300)[:, None, None]
    agreed = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(axis=2) * shares.sum(axis=1)).sum(axis=1)
    return np.where(1 - chance > 1e-12, (agreed - chance) / np.maximum(1 - chance, 1e-12), np.nan)


def _alpha(sums: np.ndarray) -> np.ndarray:
    """[m]: α of sums [m, 3 + d]: within units Σ‖x − y‖² / (values - 1), the values, Σ‖x‖², and Σx [d].

    α = 1 − observed / expected disagreement; 1[x ≠ y] is half the squared distance of one-hot vectors, so that one
    formula serves both levels.
    """
    within, n, squares, total = sums[:, 0], sums[:, 1], sums[:, 2], sums[:, 3:]
    expected = 2 * (n * squares - (total**2).sum(axis=1)) / np.maximum(n - 1, 1e-300)
    good = (n > 1) & (expected > 1e-9 * np.maximum(squares, 1e-300))
    return np.where(good, 1 - within / np.where(good, expected, 1.0), np.nan)


def _alpha_sums(values: np.ndarray, level: str, prompt: np.ndarray, prompts: int) -> np.ndarray:
    """[prompts, 3 + d]: what `_alpha` reads of the units [n, raters], each of which belongs to a prompt."""
    if level not in ("interval", "nominal"):
        raise UserError(f"alpha: level must be interval or nominal, got {level!r}")
    known = ~np.isnan(values)
    if level == "nominal":
        kinds = np.unique(values[known])
        vectors = (values[:, :, None] == kinds).astype(float)
    else:
        vectors = np.where(known, values, 0.0)[:, :, None]
    count = known.sum(axis=1)
    pairable = count > 1
    squares = (vectors**2).sum(axis=(1, 2))
    total = vectors.sum(axis=1)
    within = 2 * (count * squares - (total**2).sum(axis=1)) / np.maximum(count - 1, 1)
    columns = np.c_[within, count, squares, total][pairable]
    return summed(columns, prompt[pairable], prompts)


# -- resampling prompts --------------------------------------------------------------------------------------------


def summed(columns: np.ndarray, prompt: np.ndarray, prompts: int) -> np.ndarray:
    """[prompts, k]: rows [n, k] added up by prompt."""
    out = np.zeros((prompts, columns.shape[1]))
    np.add.at(out, prompt, columns)
    return out


def resampled(sums: np.ndarray, statistic: Statistic, resamples: int, seed: int) -> np.ndarray:
    """[resamples]: the statistic of the sums [prompts, k] of prompts drawn with replacement."""
    n, rng, parts = len(sums), np.random.default_rng(seed), [np.empty(0)]
    block = max(1, CELLS // n)
    for start in range(0, resamples, block):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(block, resamples - start))
        parts.append(statistic(counts @ sums))
    return np.concatenate(parts)


def estimate(
    sums: np.ndarray, statistic: Statistic, n: int, resamples: int, seed: int, level: float = 0.95
) -> Estimate:
    """A statistic of all prompts with its percentile interval over resamples of those that say anything; NaN, not known,
    where there are no resamples or all are alike.

    The percentiles are further out the fewer prompts there are: resamples vary less than samples do, by what Student's t
    is wider than the normal (Hesterberg 2015, "What teachers should know about the bootstrap", section 3.3).
    """
    from scipy.stats import norm, t

    sums = sums[np.abs(sums).sum(axis=1) > 0]
    if not len(sums):
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
    value = float(statistic(sums.sum(axis=0)[None])[0])
    found = resampled(sums, statistic, resamples, seed) if len(sums) > 1 else np.empty(0)
    found = found[~np.isnan(found)]
    low = high = float("nan")
    if len(found) > 1 and np.ptp(found) > ALIKE:
        n_prompts = len(sums)
        tail = float(norm.sf(np.sqrt(n_prompts / (n_prompts - 1)) * t.ppf((1 + level) / 2, n_prompts - 1)))
        low, high = (float(end) for end in np.quantile(found, [tail, 1 - tail]))
    return Estimate(value, low, high, n, len(sums))


def share(values: np.ndarray, prompt: np.ndarray) -> Estimate:
    """The mean of values [n] from 0 to 1, its interval over prompts (`repeats.repeated_interval`): none is empty because
    few prompts differ from the others."""
    _, place, counts = np.unique(prompt, return_inverse=True, return_counts=True)
    if not len(counts):
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
    means = np.bincount(place, values) / counts
    return Estimate(float(np.mean(values)), *repeated_interval(np.clip(means, 0, 1), counts), len(values), len(counts))


# -- two judges ----------------------------------------------------------------------------------------------------


def cohen(values: np.ndarray, prompt: np.ndarray, resamples: int, seed: int) -> Estimate:
    """κ over win, tie and loss of the preferences of two judges [n, 2], all known."""
    a, b = categories(values).T
    size = len(CATEGORIES)
    cells = np.eye(size * size)[a * size + b]
    return estimate(summed(cells, prompt, _many(prompt)), _kappa, len(values), resamples, seed)


def krippendorff(values: np.ndarray, prompt: np.ndarray, level: str, resamples: int, seed: int) -> Estimate:
    """α of the preferences of judges [n, judges], NaN where one says nothing: of the categories (nominal) or as they are."""
    if level == "nominal":
        found = categories(values)
        values = np.where(found < 0, np.nan, found)
    n = int(((~np.isnan(values)).sum(axis=1) > 1).sum())
    sums = _alpha_sums(values, level, prompt, _many(prompt))
    return estimate(sums, _alpha, n, resamples, seed)


def kendall(values: np.ndarray, prompt: np.ndarray, system: np.ndarray, resamples: int, seed: int) -> Estimate:
    """Kendall's τ-b between the systems' mean preferences by two judges [n, 2], all known; system: [n] from 0 on."""
    systems = int(system.max()) + 1
    place = np.zeros((len(values), 3, systems))
    rows = np.arange(len(values))
    place[rows, 0, system], place[rows, 1, system], place[rows, 2, system] = values[:, 0], values[:, 1], 1
    sums = summed(place.reshape(len(values), -1), prompt, _many(prompt))

    def statistic(some: np.ndarray) -> np.ndarray:
        first, second, counts = np.moveaxis(some.reshape(-1, 3, systems), 1, 0)
        means = [np.where(counts > 0, of / np.maximum(counts, 1), np.nan).round(9) for of in (first, second)]
        there = counts > 0
        return np.array([tau_b(a[known], b[known]) for a, b, known in zip(*means, there)])

    return estimate(sums, statistic, len(values), resamples, seed)


def _many(prompt: np.ndarray) -> int:
    return int(prompt.max()) + 1 if len(prompt) else 1
