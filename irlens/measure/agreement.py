"""How well a reranker's scores agree with grades, as IR measures its rankings: nDCG, RR, AUC and Kendall's tau-b.

All four are of one list, and every tie in the scores is shared: nDCG and RR are expectations over the orders that a tie
leaves open, AUC counts a tied pair one half, tau-b corrects for it. So a reranker gains nothing by the order of a file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.measure import stats

SHORT = 300  # candidates whose pairs are simply counted


def ndcg(scores: Sequence[float], grades: Sequence[float]) -> float:
    """nDCG of the whole list with linear gains (trec_eval's); 0 where every grade is 0.

    Ties: McSherry and Najork 2008. Raises UserError for a grade below 0.
    """
    scores, grades = _pair(scores, grades)
    if (grades < 0).any():
        raise UserError(f"nDCG needs grades from 0 on, got {grades.min():g}")
    discount = 1 / np.log2(np.arange(2, len(grades) + 2))
    best = float(np.sort(grades)[::-1] @ discount)
    order = np.argsort(-scores, kind="stable")
    _, group = np.unique(-scores, return_inverse=True)
    shared = (np.bincount(group, grades) / np.bincount(group))[group]
    return float(shared[order] @ discount) / best if best else 0.0


def reciprocal_rank(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The expected 1 / rank of the first right candidate; 0 without any."""
    scores, right = _pair(scores, right)
    above = 0
    for value in np.unique(scores)[::-1]:
        tied = scores == value
        size, good = int(tied.sum()), int(right[tied].sum())
        if good:
            chance, total = good / size, 0.0  # that the first right one of them is the k-th
            for k in range(1, size - good + 2):
                total += chance / (above + k)
                chance *= (size - good - k + 1) / (size - k) if size > k else 0.0
            return total
        above += size
    return 0.0


def auc(scores: stats.Numbers, right: stats.Numbers) -> float:
    """The chance that a right candidate scores above a wrong one, a tie counting one half; NaN without either kind."""
    scores, right = _pair(scores, right)
    good, bad = scores[right > 0], np.sort(scores[right <= 0])
    if not len(good) or not len(bad):
        return float("nan")
    below = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
    return float(below.sum() / (2 * len(good) * len(bad)))


def tau_b(scores: stats.Numbers, grades: stats.Numbers) -> float:
    """Kendall's tau-b; NaN where all scores or all grades are equal."""
    scores, grades = _pair(scores, grades)
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(grades) == 0:
        return float("nan")
    if len(scores) > SHORT:
        from scipy.stats import kendalltau

        return float(kendalltau(scores, grades, variant="b").statistic)
    a, b = (np.sign(x[:, None] - x) for x in (scores, grades))  # of short lists fifty times as fast as scipy's
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def _pair(scores, grades) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(scores, dtype=float), np.asarray(grades, dtype=float)


def threshold(grades: np.ndarray) -> float:
    """From which grade on a candidate is right where nobody says: 1 for whole grades, above one half for shares of 0 to 1.

    NaN for other numbers, such as rewards: none of them says which are right.
    """
    if (grades % 1 == 0).all() and (grades >= 0).all():
        return 1.0
    return float(np.nextafter(0.5, 1.0)) if ((grades >= 0) & (grades <= 1)).all() else float("nan")


def quality(run: pd.DataFrame, grades: np.ndarray, scores: dict[str, np.ndarray], right_from: float) -> pd.DataFrame:
    """Each reranker's measures over the queries of a run: run, measure, value, low, high, n.

    `grades` and each of `scores` [rows of run]; `right_from`: the least grade that is right, for RR and AUC. A query
    where a measure says nothing (AUC without both right and wrong, tau-b of equal numbers) is left out of it and of
    its n; a measure that says nothing at all has n = 0 and no value: nDCG where a grade is below 0, RR and AUC where
    `right_from` is NaN.
    """
    lists = list(run.reset_index(drop=True).groupby("query_id", sort=True).indices.values())
    right = grades >= right_from
    gains, unsure = (grades >= 0).all(), np.isnan(right_from)
    measured = {
        "nDCG": lambda s, rows: ndcg(s[rows], grades[rows]) if gains else np.nan,
        "RR": lambda s, rows: np.nan if unsure else reciprocal_rank(s[rows], right[rows]),
        "AUC": lambda s, rows: auc(s[rows], right[rows]),
        "tau-b": lambda s, rows: tau_b(s[rows], grades[rows]),
    }
    out = []
    for name, some in scores.items():
        for measure, value_of in measured.items():
            values = np.array([value_of(some, rows) for rows in lists])
            values = values[~np.isnan(values)]
            mean, low, high = np.nan, np.nan, np.nan
            if len(values):
                bounds = (-1, 1) if measure == "tau-b" else (0, 1)
                mean, (low, high) = float(values.mean()), stats.mean_interval(values, bounds=bounds)
            out.append((name, measure, mean, low, high, len(values)))
    return pd.DataFrame(out, columns=["run", "measure", "value", "low", "high", "n"])
