"""How well a learned reranker ranks the responses of held-out prompts: AUC, pairs in order, nDCG and Brier scores.

Everything is of one list, and the unit is the prompt: AUC over all responses together would count differences between
prompts, which no reranker is asked about.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from irlens.measure import stats
from irlens.measure.agreement import auc, ndcg, threshold


def pair_accuracy(scores: np.ndarray, grades: np.ndarray) -> float:
    """The share of pairs of different grades that the scores put in order, a tie counting one half; NaN without such a
    pair."""
    wins, above = _pairs(scores, grades)
    return float((np.sign(wins)[above] + 1).mean() / 2) if above.any() else float("nan")


def pair_brier(scores: np.ndarray, grades: np.ndarray) -> float:
    """The mean of (1 - sigma(s_i - s_j))^2 over the pairs with grade_i > grade_j: Brier's score of the Bradley-Terry
    probabilities, .25 where all scores are equal; NaN without such a pair."""
    wins, above = _pairs(scores, grades)
    return float((_sigma(-wins[above]) ** 2).mean()) if above.any() else float("nan")


def brier(scores: np.ndarray, right: np.ndarray) -> float:
    """The mean of (sigma(s) - right)^2: of scores that are log-odds."""
    return float(((_sigma(scores) - right) ** 2).mean())


def _pairs(scores: np.ndarray, grades: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(s_i - s_j, whether grade_i > grade_j), both [n, n]."""
    scores, grades = np.asarray(scores, dtype=float), np.asarray(grades, dtype=float)
    return scores[:, None] - scores[None], grades[:, None] > grades[None]


def _sigma(x: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(x)


def held_out(lists: pd.DataFrame, name: str, calibrated: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(results, values per prompt) of the column `score` of some lists against their `grade`.

    lists: query_id, list, grade, score. calibrated: whether a score is the log-odds of being right, for Brier's. A list
    where a measure says nothing (two different grades, or right and wrong, are wanted) is left out of it; a prompt's value
    is the mean over its lists, its interval over prompts. A measure that says nothing at all has no row.
    """
    grades = lists["grade"].to_numpy(dtype=float)
    least, gains = threshold(grades), (grades >= 0).all()
    rows = []
    for (query_id, _), part in lists.groupby(["query_id", "list"], sort=False):
        scores, grade = part["score"].to_numpy(dtype=float), part["grade"].to_numpy(dtype=float)
        right = grade >= least
        values = {
            "AUC": auc(scores, right) if not np.isnan(least) else np.nan,
            "PairAccuracy": pair_accuracy(scores, grade),
            "nDCG": ndcg(scores, grade) if gains and np.ptp(grade) > 0 else np.nan,
            "PairBrier": pair_brier(scores, grade),
            "Brier": brier(scores, right) if calibrated and not np.isnan(least) else np.nan,
        }
        rows += [(name, query_id, measure, value) for measure, value in values.items() if not np.isnan(value)]
    columns = ["run", "query_id", "measure", "value"]
    each = pd.DataFrame(rows, columns=columns).groupby(columns[:3], sort=False, as_index=False)["value"].mean()
    out = []
    for measure, part in each.groupby("measure", sort=False):
        values = part["value"].to_numpy(dtype=float)
        low, high = stats.mean_interval(values, bounds=(0, 1))
        out.append((name, measure, values.mean(), low, high, len(values)))
    return pd.DataFrame(out, columns=["run", "measure", "value", "low", "high", "n"]), each
