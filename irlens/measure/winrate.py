"""Win rates of a judge's preferences, plain, discrete and length-controlled, with errors and intervals: AlpacaEval 2's.

A preference is 1 where the baseline wins, 2 where the system does, and anything between; an older file's 0 is a draw, -1
and NaN say nothing. Everything here is over arrays [n], one entry a prompt; what comes out is a share from 0 to 1, which
the published leaderboard shows times 100.

Source: Dubois et al. 2024, "Length-Controlled AlpacaEval: A Simple Way to Debias Automatic Evaluators", and the package
alpaca_eval, whose numbers these are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from irlens.base.errors import UserError
from irlens.measure import stats

Numbers = Sequence[float] | np.ndarray

RESAMPLES = 1000  # of a bootstrap
CELLS = 1_000_000  # numbers that one block of resamples may hold
GAMED_WEIGHT = 0.1  # of a gamed row beside a system's own: 0.2 over the two gamed models
STRENGTHS = tuple(np.logspace(-4, 4, 10))  # C, the inverse of the penalty's weight, to choose from
FOLDS = 5
PRIOR_SLOPE, PRIOR_PRECISION = -1.0, 100.0  # of the length's weight, where no gamed rows say what it is
ALIKE = 1e-9  # between values of resamples: what a fit leaves open
LOOSE = 1e-4  # precision of the constant's prior: it keeps a system that always wins finite


@dataclass(frozen=True)
class WinRate:
    """A share of wins with its standard error and 95 % interval over n prompts; `missing` prompts have no preference."""

    value: float
    standard_error: float
    low: float
    high: float
    n: int
    missing: int


@dataclass(frozen=True)
class Gamed:
    """Answers written to win by their length, [m] rows: what AlpacaEval fits beside each system's.

    delta: the length difference over its standard deviation, per model. preference: from 0 to 1. Source: the file
    df_gamed.csv of the data set tatsu-lab/alpaca_eval.
    """

    delta: np.ndarray
    difficulty: np.ndarray
    preference: np.ndarray


@dataclass(frozen=True)
class Weights:
    """The fit: what the log-odds of a win are made of, and C (None where a prior took its place)."""

    length: float
    difficulty: float
    constant: float
    strength: float | None = None

    def probability(self, difficulty: np.ndarray) -> np.ndarray:
        """[n]: the chance of a win for each difficulty [n], were both answers equally long."""
        return _logistic(self.difficulty * difficulty + self.constant)


@dataclass(frozen=True)
class LengthControlled:
    """A length-controlled win rate.

    standard_error: as published, of the fitted chances, as if the fit were known. fit_error: the bootstrap's, the fit
    made anew in each resample; low and high are its interval. probabilities [n]: each prompt's chance. resampled: the
    fits of the resamples. values [n]: what each prompt adds, its effect on the fit counted in: their mean is `value`, and
    what holds for a mean of values per prompt (intervals, paired tests) holds for these about it, to first order.
    """

    value: float
    standard_error: float
    fit_error: float
    low: float
    high: float
    n: int
    weights: Weights
    probabilities: np.ndarray
    resampled: tuple[Weights, ...] = ()
    values: np.ndarray = field(default_factory=lambda: np.empty(0))


# -- preferences ---------------------------------------------------------------------------------------------------


def read_preferences(preferences: Sequence[float | None] | np.ndarray) -> np.ndarray:
    """[n] from 1 to 2, a draw 1.5, NaN where nothing is known: what files mean by 0, -1, null.

    Raises UserError, saying how many and the first, for any other number outside 1 to 2.
    """
    values = np.array([np.nan if value is None else value for value in preferences], dtype=float)
    values[values == -1] = np.nan
    values[values == 0] = 1.5
    wrong = np.flatnonzero(~np.isnan(values) & ~((values >= 1) & (values <= 2)))
    if len(wrong):
        raise UserError(
            f"{len(wrong):,} of {len(values):,} preferences are not from 1 to 2 (the first, number {wrong[0] + 1}, is "
            f"{values[wrong[0]]:g}); 1: the baseline wins, 2: the system, 0: a draw, -1 or NaN: missing"
        )
    return values


def win_rate(preferences: Numbers, level: float = 0.95) -> WinRate:
    """The mean of preference - 1, missing ones left out; its error is sd / √n with n - 1.

    The interval is `stats.mean_interval`'s. Raises UserError: see `read_preferences`; no preference at all.
    """
    return _mean(read_preferences(preferences) - 1, level)


def discrete_win_rate(preferences: Numbers, level: float = 0.95) -> WinRate:
    """(wins + draws / 2) / n, where only exactly 1.5 is a draw; else as `win_rate`."""
    return _mean(0.5 + 0.5 * np.sign(read_preferences(preferences) - 1.5), level)


def _mean(wins: np.ndarray, level: float) -> WinRate:
    known = wins[~np.isnan(wins)]
    if not len(known):
        raise UserError(f"a win rate needs preferences, and none of the {len(wins):,} prompts has one")
    error = float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")
    low, high = stats.mean_interval(known, level, bounds=(0, 1))
    return WinRate(float(known.mean()), error, low, high, len(known), len(wins) - len(known))


# -- length control ------------------------------------------------------------------------------------------------


def length_controlled(
    preferences: Numbers,
    delta: Numbers,
    difficulty: Numbers | None = None,
    gamed: Gamed | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> LengthControlled:
    """The win rate had both answers been equally long.

    delta [n]: characters of the baseline's answer less those of the system's. difficulty [n], gamed: AlpacaEval's files;
    with both this is its length-controlled win rate, with the difficulty alone what it calls `length_controlled_noreg`
    (1 point off, as measured on its systems), without either a fit of length and constant under a normal prior on the
    length's weight (0.6 points off). Rows without a preference are no part of the fit, and are of the mean, as published.

    The interval resamples prompts and repeats standardisation and fit; C and the gamed rows, which are a part of the
    measure, are kept. NaN, not known: 0 resamples, one prompt, resamples that are all alike.
    Raises UserError: see `read_preferences`; lengths of the arguments; a difficulty that is not finite.
    """
    data = _Data.of(preferences, delta, difficulty, gamed)
    strength = None if difficulty is None else data.chosen_strength()
    weights = data.fit(np.arange(data.n), strength)
    each = weights.probability(data.difficulty)
    value, error = float(each.mean()), float(each.std(ddof=1) / np.sqrt(data.n)) if data.n > 1 else float("nan")
    fits, values = [], []
    for rows in resampled_rows(data.n, resamples, seed):
        if np.isnan(data.wins[rows]).all():
            continue
        fits.append(data.fit(rows, strength))
        values.append(float(fits[-1].probability(data.difficulty[rows]).mean()))
    fit_error, low, high = interval(np.array(values), value, data.wins, level)
    linear = data.values(weights)
    return LengthControlled(value, error, fit_error, low, high, data.n, weights, each, tuple(fits), linear)


def resampled_rows(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Rows [n] drawn with replacement, `resamples` times: the same for all systems over the same prompts."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield rng.integers(0, n, n)


def between(first: Weights, second: Weights, difficulty: Numbers) -> float:
    """The length-controlled win rate of one system against another, both fitted against one baseline, over the prompts
    of `difficulty` [n] (zeros where none is known). Source: alpaca_eval's `predict_winrate`."""
    constant, slope = first.constant - second.constant, first.difficulty - second.difficulty
    return float(_logistic(constant + slope * np.asarray(difficulty, dtype=float)).mean())


def between_interval(
    first: LengthControlled, second: LengthControlled, difficulty: Numbers, *, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """(standard error, low, high) of `between`, from the resamples of both: paired where these were over the same prompts
    with the same seed. NaN without resamples. Raises UserError for systems of other numbers of prompts or resamples."""
    difficulty = np.asarray(difficulty, dtype=float)
    if not (first.n == second.n == len(difficulty)) or len(first.resampled) != len(second.resampled):
        raise UserError(
            f"two systems need the same prompts and resamples; they have {first.n:,} and {second.n:,} prompts, "
            f"{len(first.resampled):,} and {len(second.resampled):,} resamples"
        )
    hard, counts = _drawn(difficulty.tobytes(), len(first.resampled), seed)
    constant, slope = (
        np.array([getattr(a, name) - getattr(b, name) for a, b in zip(first.resampled, second.resampled)])
        for name in ("constant", "difficulty")
    )
    block, found = max(1, CELLS // len(hard)), np.empty(len(counts))
    for start in range(0, len(counts), block):
        some = slice(start, start + block)
        found[some] = (counts[some] * _logistic(constant[some, None] + slope[some, None] * hard)).sum(axis=1)
    value = between(first.weights, second.weights, difficulty)
    return _spread(found / len(difficulty), value, level)


@lru_cache(maxsize=1)  # every two systems over the same prompts have the same resamples
def _drawn(difficulty: bytes, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(the different difficulties [m], how often each was drawn in each of `resampled_rows` [resamples, m])."""
    hard, which = np.unique(np.frombuffer(difficulty), return_inverse=True)
    counts = np.empty((resamples, len(hard)), dtype=np.int32)
    for row, drawn in zip(counts, resampled_rows(len(which), resamples, seed)):
        row[:] = np.bincount(which[drawn], minlength=len(hard))
    return hard, counts


@dataclass(frozen=True)
class _Data:
    """What a fit reads: wins [n] (NaN: unknown), delta [n], difficulty [n], and the gamed rows."""

    wins: np.ndarray
    delta: np.ndarray
    difficulty: np.ndarray
    gamed: Gamed | None

    @classmethod
    def of(cls, preferences, delta, difficulty, gamed: Gamed | None) -> _Data:
        wins = read_preferences(preferences) - 1
        n, hard = len(wins), difficulty is not None
        given = {"delta": delta, "difficulty": difficulty if hard else np.zeros(n)}
        given = {name: np.asarray(values, dtype=float) for name, values in given.items()}
        for name, values in given.items():
            if values.shape != (n,) or not np.isfinite(values).all():
                raise UserError(f"length control: {name} must be {n:,} finite numbers, one a preference")
        if gamed is not None and not hard:
            raise UserError("length control: the gamed rows need each prompt's difficulty beside them")
        if np.isnan(wins).all():
            raise UserError(f"a win rate needs preferences, and none of the {n:,} prompts has one")
        return cls(wins, given["delta"], given["difficulty"], gamed)

    @property
    def n(self) -> int:
        return len(self.wins)

    def fit(self, rows: np.ndarray, strength: float | None) -> Weights:
        """The weights for some rows, which may repeat."""
        features, wins, weight = self._table(rows)
        if strength is None:
            length, constant = _with_prior(features[:, [0, 2]], wins, weight)
            return Weights(length, 0.0, constant)
        return Weights(*_lasso(features, wins, weight, strength), strength)

    def chosen_strength(self) -> float:
        """C by cross-validation: the least log-loss over five parts that are left out in turn."""
        features, wins, weight = self._table(np.arange(self.n))
        fold = np.arange(len(wins))[::-1] % FOLDS  # a row's two copies together, as GroupKFold has it
        losses = []
        for strength in STRENGTHS:
            parts = []
            for out in range(FOLDS):
                test, train = fold == out, fold != out
                fitted = _lasso(features[train], wins[train], weight[train], strength)
                parts.append(_log_loss(features[test] @ np.array(fitted), wins[test], weight[test]))
            losses.append(np.mean(parts))
        return float(STRENGTHS[int(np.argmin(losses))])

    def values(self, weights: Weights) -> np.ndarray:
        """[n]: the mean of the chances plus each prompt's influence on it, by way of its own chance and of the fit.

        The infinitesimal jackknife (Efron 1982): the first-order change of the mean as a prompt's weight grows, the
        standardisation of lengths held fixed. A weight that the penalty keeps at 0 stays there.
        """
        features, wins, weight = self._table(np.arange(self.n))
        w = np.array([weights.length, weights.difficulty, weights.constant])
        chance, own = _logistic(features @ w), weights.probability(self.difficulty)
        moving = w != 0 if weights.strength is not None else np.array([True, False, True])
        curve = (features * (weight * chance * (1 - chance))[:, None]).T @ features
        if weights.strength is None:
            curve += np.diag([PRIOR_PRECISION, 0.0, LOOSE])
        slope = (own * (1 - own)) @ np.c_[np.zeros(self.n), self.difficulty, np.ones(self.n)] / self.n
        pull, known = np.zeros(self.n), ~np.isnan(self.wins)
        inner = np.linalg.pinv(curve[np.ix_(moving, moving)]) @ slope[moving]
        theirs = slice(len(wins) - int(known.sum()), None)  # the system's own rows, after the gamed ones
        pull[known] = self.n * (features[theirs][:, moving] @ inner) * (wins - chance)[theirs]
        found = own + pull
        return found - found.mean() + own.mean()

    def _table(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(features [m, 3], wins [m], weights [m]): gamed rows first, then the system's that have a preference. Lengths are
        standardised over all the system's rows."""
        delta, wins = self.delta[rows], self.wins[rows]
        spread = delta.std(ddof=1) if len(delta) > 1 else 0.0
        length = np.tanh(delta / spread) if spread > 0 else np.zeros(len(delta))
        features, known = np.c_[length, self.difficulty[rows], np.ones(len(rows))], ~np.isnan(wins)
        features, wins, weight = features[known], wins[known], np.ones(int(known.sum()))
        if self.gamed is None:
            return features, wins, weight
        more = np.c_[np.tanh(self.gamed.delta), self.gamed.difficulty, np.zeros(len(self.gamed.delta))]
        weight = np.r_[np.full(len(more), GAMED_WEIGHT), weight]
        return np.r_[more, features], np.r_[self.gamed.preference, wins], weight


# -- fits ----------------------------------------------------------------------------------------------------------


def _lasso(features: np.ndarray, wins: np.ndarray, weight: np.ndarray, strength: float) -> tuple[float, float, float]:
    """Logistic regression of soft labels: least |w|₁ + C · Σ weight · log-loss, each row once as a win and once as a loss.

    By liblinear with the published seed and tolerance: its third decimal is a part of the published numbers. It leaves
    out rows without weight and needs both labels, so that a system that always wins is given a trace of a loss.
    """
    from sklearn.linear_model import LogisticRegression

    if not wins.any() or (wins == 1).all():
        wins = np.clip(wins, 1e-9, 1 - 1e-9)
    model = LogisticRegression(
        C=strength, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=123, max_iter=100
    )
    labels = np.r_[np.ones(len(wins)), np.zeros(len(wins))]
    model.fit(np.r_[features, features], labels, sample_weight=np.r_[weight * wins, weight * (1 - wins)])
    length, difficulty, constant = map(float, model.coef_[0])
    return length, difficulty, constant


def _with_prior(features: np.ndarray, wins: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Logistic regression of length and constant [m, 2] with a normal prior on the length's weight, by Newton's method.

    tanh saturates for systems that are always short, so that length and constant become one: the prior says which.
    """
    mean, precision = np.array([PRIOR_SLOPE, 0.0]), np.array([PRIOR_PRECISION, LOOSE])
    w = np.zeros(2)
    for _ in range(100):
        p = _logistic(features @ w)
        slope = features.T @ (weight * (p - wins)) + precision * (w - mean)
        curve = (features * (weight * p * (1 - p))[:, None]).T @ features + np.diag(precision)
        step = np.linalg.solve(curve, slope)
        w = w - step * min(1.0, 1 / max(float(np.abs(step).max()), 1e-300))
        if np.abs(step).max() < 1e-10:
            break
    return float(w[0]), float(w[1])


def _log_loss(odds: np.ndarray, wins: np.ndarray, weight: np.ndarray) -> float:
    """The mean of weight · cross-entropy (alpaca_eval divides by the rows, not by their weight)."""
    p = np.clip(_logistic(odds), 1e-15, 1 - 1e-15)
    return float(-np.mean(weight * (wins * np.log(p) + (1 - wins) * np.log(1 - p))))


def _logistic(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


# -- intervals -----------------------------------------------------------------------------------------------------


def interval(found: np.ndarray, value: float, wins: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """(standard error, low, high) from a bootstrap's values; at least the plain win rate's interval about its own mean
    where so few prompts were won, or lost, that resampling them shows nothing."""
    error, low, high = _spread(found, value, level)
    known = wins[~np.isnan(wins)]
    if len(found) and min(known.sum(), (1 - known).sum()) < stats.EVENTS:
        plain = stats.mean_interval(known, level, bounds=(0, 1))
        low, high = np.fmin(low, plain[0]), np.fmax(high, plain[1])
    return error, float(low), float(high)


def _spread(found: np.ndarray, value: float, level: float) -> tuple[float, float, float]:
    """(standard error, low, high): a normal interval of the log-odds, whose spread is the bootstrap's. NaN, not known, where
    there are no two resamples or all are alike: of one prompt, or of prompts that all say the same."""
    if len(found) < 2 or np.ptp(found) < ALIKE:
        return float("nan"), float("nan"), float("nan")
    from scipy.special import expit, logit
    from scipy.stats import norm

    odds = logit(np.clip(found, 1e-12, 1 - 1e-12))
    half = norm.ppf((1 + level) / 2) * odds.std(ddof=1)
    middle = logit(min(max(value, 1e-12), 1 - 1e-12))
    return float(found.std(ddof=1)), float(expit(middle - half)), float(expit(middle + half))
