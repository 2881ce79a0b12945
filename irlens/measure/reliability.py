"""Reliability of forecasts: of what was given a probability, how often it came true, by bins; and the Brier score.

Every prompt weighs the same, however many forecasts it has, and intervals resample prompts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from irlens.measure import stats

FOLDS = 5
RESAMPLES, AT_ONCE = 1000, 50


class Forecasts:
    """Forecasts of several prompts, counted in bins between `edges` as they come."""

    def __init__(self, edges: stats.Numbers):
        self.edges = np.asarray(edges, dtype=float)
        self.brier: list[float] = []
        self._sums: list[
            np.ndarray
        ] = []  # of each prompt [4, bins]: shares of its forecasts, foretold, come true; how many

    def add(self, foretold: np.ndarray, true: np.ndarray) -> None:
        """A prompt's forecasts: probabilities [n], and what came true [n]: 0, 1, or 1/2 of what is tied."""
        bins, n = len(self.edges) - 1, len(foretold)
        place = np.clip(np.searchsorted(self.edges, foretold, "right") - 1, 0, bins - 1)
        counts, told, came = (np.bincount(place, some, bins) for some in (None, foretold, true))
        self._sums.append(np.stack([counts / n, told / n, came / n, counts]))
        self.brier.append(float((true * (1 - foretold) ** 2 + (1 - true) * foretold**2).mean()))

    def curve(self, seed: int) -> pd.DataFrame:
        """A row per bin that has a forecast: from, to, x (the mean forecast), value (the share that came true), low, high, n
        (forecasts), prompts."""
        sums = np.array(self._sums)
        share, told, came, counts = sums.transpose(1, 0, 2)
        low, high = _spread(share, came, seed)
        rows = []
        for i in np.flatnonzero(counts.sum(axis=0)):
            there = counts[:, i] > 0
            each = came[there, i] / share[there, i]
            if not high[i] > low[i]:  # all alike: resampling says nothing
                low[i], high[i] = stats.mean_interval(each, bounds=(0, 1))
            whole = share[:, i].sum()
            value = (told[:, i].sum() / whole, came[:, i].sum() / whole)
            rows.append((*self.edges[i : i + 2], *value, low[i], high[i], int(counts[:, i].sum()), int(there.sum())))
        return pd.DataFrame(rows, columns=["from", "to", "x", "value", "low", "high", "n", "prompts"])


def _spread(share: np.ndarray, came: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) [bins] that hold 95 % of Σ came / Σ share [prompts, bins] where prompts are drawn with repetition."""
    rng, prompts = np.random.default_rng(seed), len(share)
    ratios = []
    for _ in range(RESAMPLES // AT_ONCE):
        drawn = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=AT_ONCE)
        whole = drawn @ share
        ratios.append(np.divide(drawn @ came, whole, out=np.full(whole.shape, np.nan), where=whole > 0))
    found = np.concatenate(ratios)
    some = ~np.isnan(found).all(axis=0)
    low, high = np.full(share.shape[1], np.nan), np.full(share.shape[1], np.nan)
    low[some], high[some] = np.nanquantile(found[:, some], [0.025, 0.975], axis=0)
    return low, high


def beats(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(foretold, true) of differences [n] of the right one's score less the wrong one's: the Bradley-Terry probability
    1 / (1 + e^-|d|) that whichever scores higher is the right one, and whether it is."""
    return sigmoid(np.abs(differences)), (differences > 0) + 0.5 * (differences == 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x)."""
    return 0.5 * (1 + np.tanh(x / 2))


def chances(scores: np.ndarray, right: np.ndarray, prompt: np.ndarray, seed: int) -> tuple[np.ndarray, bool]:
    """(the chance that each row is right by its score, whether a fit gave it) [rows]: scores from 0 to 1 as they stand, else
    a logistic fit on the other prompts, in FOLDS parts of these. prompt [rows]: numbers from 0 on."""
    if scores.min() >= 0 and scores.max() <= 1:
        return scores, False
    prompts = int(prompt.max()) + 1
    fold = np.random.default_rng(seed).permutation(prompts)[prompt] % min(FOLDS, prompts)
    out = np.full(len(scores), right.mean())
    for part in range(min(FOLDS, prompts) if prompts > 1 else 0):
        inside = fold == part
        constant, slope = logistic(scores[~inside], right[~inside])
        out[inside] = sigmoid(constant + slope * scores[inside])
    return out, True


def logistic(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(constant, slope) of the logistic fit of y [n], 0 or 1, on x [n]; a faint ridge keeps what can be told apart finite."""
    middle, scale = float(x.mean()), float(x.std()) or 1.0
    design = np.stack([np.ones(len(x)), (x - middle) / scale], axis=1)
    weights, ridge = np.zeros(2), 1e-3 * np.eye(2)
    for _ in range(50):
        p = sigmoid(design @ weights)
        slope = design.T @ (y - p) - ridge @ weights
        step = np.linalg.solve((design * (p * (1 - p))[:, None]).T @ design + ridge, slope)
        weights = weights + np.clip(step, -4, 4)
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0] - weights[1] * middle / scale), float(weights[1] / scale)
