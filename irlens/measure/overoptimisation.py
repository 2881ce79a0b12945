"""Over-optimisation: what the best of N by a reranker is truly worth, and whether a proxy rises where the truth falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from irlens.base.seeds import derive
from irlens.measure import best_of_n as picking
from irlens.measure import stats
from irlens.rerank.reranker import Scores

PROXY, GAIN = "own number", "less random per text"
FOLDS = 5


@dataclass(frozen=True)
class Change:
    """A mean paired difference over n queries, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    @property
    def rises(self) -> bool:
        """Whether all of the interval is above 0."""
        return self.low > 0

    @property
    def falls(self) -> bool:
        """Whether all of the interval is below 0."""
        return self.high < 0


def change(before: stats.Numbers, after: stats.Numbers) -> Change:
    """What values[queries] changed by, query by query (`stats.difference_interval`)."""
    before, after = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    differences = stats.paired_differences(before, after)
    low, high = stats.difference_interval(differences, bounds=stats.difference_bounds(before, after))
    return Change(float(differences.mean()), low, high, len(differences))


def parts_company(proxy: Change, truth: Change) -> bool:
    """Whether a proxy rises where the truth falls, both beyond what chance does."""
    return proxy.rises and truth.falls


def best_places(values: Sequence[np.ndarray]) -> np.ndarray:
    """[problems]: of values[places][seeds, problems] the place that is best on the other problems, in FOLDS parts of these;
    the earlier of equals. What is chosen by the very values that it has looks better than it is; this does not."""
    stacked = np.stack(values)
    problems = stacked.shape[2]
    fold, out = np.arange(problems) % min(FOLDS, problems), np.zeros(problems, dtype=int)
    for part in range(fold.max() + 1):
        others = fold != part if problems > 1 else fold == part
        out[fold == part] = int(stacked[:, :, others].mean(axis=(1, 2)).round(9).argmax())
    return out


def at_places(values: Sequence[np.ndarray], places: np.ndarray) -> np.ndarray:
    """[seeds, problems]: values[places][seeds, problems] at each problem's place."""
    return np.stack(values)[places, :, np.arange(len(places))].T


def best_of(
    run: pd.DataFrame, grades: np.ndarray, found: Scores, name: str, at: Sequence[int], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(results, values per query) of the best of N by the reranker `name`, expected over every choice of N.

    run: by the reranker itself, the oracle, one draw (random), a random number per text (the null); PROXY, the
    reranker's own number of its pick; in the results also GAIN, its true value less the null's. See `best_of_n.curves`.
    """
    own = name_of(name)
    pick = {
        "oracle": picking.by_scores(grades),
        own: picking.picker(found, derive(seed, 0, "votes")),
        picking.PER_TEXT: picking.by_texts(run["text"].tolist()),
        "random": picking.by_scores(grades * 0),
    }
    table, each = picking.curves(run, grades, pick, at)
    proxy, numbers = picking.curves(run, found.scores, {PROXY: picking.by_scores(found.scores)}, at)
    by = wide(each)
    gains = [vars(change(by[picking.PER_TEXT][N], by[own][N])) | {"run": GAIN, "cutoff": N} for N in at if N > 1]
    results = pd.concat([table, proxy, pd.DataFrame(gains)], ignore_index=True).assign(measure="best-of-N")
    return results, pd.concat([each, numbers], ignore_index=True)


def name_of(reranker: str) -> str:
    """What a reranker is called beside those that are always measured."""
    return reranker if reranker not in picking.ALWAYS else f"{reranker}, as a reranker"


def wide(each: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Run → values per query [query_id × cutoff]."""
    return {who: part.pivot(index="query_id", columns="cutoff", values="value") for who, part in each.groupby("run")}
