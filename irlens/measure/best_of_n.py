"""Best of N: what a reranker's pick among N draws is worth, expected over every choice of N of a query's n draws.

Without bias and without sampling where the reranker scores each draw: sorted by score, the draw of rank r (from 1) is
the best of N random ones with the chance C(n − r, N − 1) / C(n, N), because the other N − 1 must lie behind it. With
0/1 grades and the grades as scores this is Pass@N.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.measure import stats

Picker = Callable[[np.ndarray, np.ndarray, Sequence[int]], np.ndarray]  # rows of a query, their grades, N → values [N]


def pick_chances(n: int, cutoffs: Sequence[int]) -> np.ndarray:
    """[len(cutoffs), n]: the chance that the draw at each place of the order is the first of N random draws out of n.

    Raises UserError for an N outside 1 … n.
    """
    out = np.zeros((len(cutoffs), n))
    for row, N in zip(out, cutoffs):
        if not 1 <= N <= n:
            raise UserError(f"best of {N} needs at least {N} candidates per query, and a query has {n}")
        chance = N / n  # of place 1; C(n − r − 1, N − 1) / C(n − r, N − 1) is (n − r − N + 1) / (n − r)
        for r in range(1, n - N + 2):
            row[r - 1] = chance
            chance *= (n - r - N + 1) / (n - r) if n > r else 0.0
    return out


def expected_best(scores: Sequence[float], grades: Sequence[float], cutoffs: Sequence[int]) -> np.ndarray:
    """[len(cutoffs)]: the expected grade of the highest-scored of N random draws; draws of equal score share equally.

    `scores`, `grades` [n]. Raises UserError for an N outside 1 … n.
    """
    scores, grades = np.asarray(scores, dtype=float), np.asarray(grades, dtype=float)
    values, group = np.unique(-scores, return_inverse=True)
    shared = (np.bincount(group, grades, minlength=len(values)) / np.bincount(group))[group]
    return pick_chances(len(scores), cutoffs) @ shared[np.argsort(-scores, kind="stable")]


def grades_of(run: pd.DataFrame, qrels: pd.DataFrame, source: str = "the qrels") -> np.ndarray:
    """[rows] the relevance of each row of a run: what is not judged of a retrieved list is 0, as everywhere in IR.

    Raises UserError: a query of the run that the qrels do not judge, an unjudged draw (of draws each is judged).
    """
    strangers = sorted(set(run["query_id"]) - set(qrels["query_id"]))
    if strangers:
        some = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
        raise UserError(f"{source} do not judge {len(strangers)} of the run's queries ({some})")
    known = dict(zip(zip(qrels["query_id"], qrels["doc_id"]), pd.to_numeric(qrels["relevance"])))
    keys = list(zip(run["query_id"], run["doc_id"]))
    if "draw" in run.columns:
        missing = [key for key in keys if key not in known]
        if missing:
            raise UserError(f"{source} do not judge {len(missing)} draws of the run, such as {missing[0][1]}")
    return np.array([known.get(key, 0) for key in keys], dtype=np.float64)


def check_grades(grades: np.ndarray, source: str = "the qrels") -> None:
    """Raises UserError where all candidates are graded alike, so that no reranker can be told from another."""
    if len(grades) and np.ptp(grades) == 0:
        what = {0.0: "no candidate is right", 1.0: "no candidate is wrong"}.get(
            grades[0], f"all have the grade {grades[0]:g}"
        )
        raise UserError(f"{source}: {what}, so no reranker can be told from another")


def by_scores(scores: np.ndarray) -> Picker:
    """The picker of a reranker that gave each row of the run a score."""
    return lambda rows, grades, cutoffs: expected_best(scores[rows], grades, cutoffs)


def curves(
    run: pd.DataFrame, grades: np.ndarray, pickers: dict[str, Picker], cutoffs: Sequence[int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(results, values per query) of each reranker at each N, as `measures.evaluate` returns them.

    `grades` [rows of run]. results: run (the reranker's name), measure "best-of-N", cutoff, value, low, high (`stats.mean_intervals`
    over queries), n (queries). Raises UserError for a query with fewer candidates than N.
    """
    lists = run.reset_index(drop=True).groupby("query_id", sort=True).indices
    for query_id, rows in lists.items():
        if len(rows) < max(cutoffs):
            raise UserError(f"query {query_id} has {len(rows)} candidates, fewer than the largest N, {max(cutoffs)}")
    results, per_query = [], []
    for name, pick in pickers.items():
        values = np.array([pick(rows, grades[rows], cutoffs) for rows in lists.values()])
        low, high = stats.mean_intervals(values)
        named = {"run": name, "measure": "best-of-N"}
        about = {"value": values.mean(axis=0), "low": low, "high": high, "n": len(values)}
        results.append(pd.DataFrame({**named, "cutoff": list(cutoffs), **about}))
        each = {"query_id": np.repeat(list(lists), len(cutoffs)), "cutoff": list(cutoffs) * len(lists)}
        per_query.append(pd.DataFrame({**named, **each, "value": values.ravel()}))
    return pd.concat(results, ignore_index=True), pd.concat(per_query, ignore_index=True)
