"""RewardBench 2's scores of a reranker: best of four, the Ties score, their mean, each with its interval over prompts.

`irlens.rewardbench` is this module's function. Source: Malik et al. 2025, "RewardBench 2", and the scoring of
allenai/reward-bench (`reroll_and_score_dataset`, `process_single_model`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from irlens.base.seeds import derive
from irlens.measure import stats
from irlens.measure.results import Results, results_of
from irlens.tasks import rewardbench as benchmark

if TYPE_CHECKING:
    from irlens.base.protocols import Reranker

OVERALL = "RewardBench 2"
RESAMPLES = 2000
WEIGHTS = {
    "tied accuracy": 0.3,
    "ref accuracy": 0.3,
    "margin": 0.2,
    "margin of both": 0.2,
    "margin ratio": 0.01,
}  # of the parts of the Ties score


def rewardbench(
    reranker: str | Reranker | Callable,
    data: str | os.PathLike = benchmark.HUB,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    **options: Any,
) -> Results:
    """RewardBench 2's six subset scores of a reranker and their mean: run, measure, value, low, high, n (prompts; of Ties
    pairs of prompts).

    reranker: a name (see `irlens.reranker`, whose options these are) or a Reranker. data: the hub's, a file or a folder of
    such rows (`irlens.tasks.rewardbench.read`). Intervals resample prompts within each subset. The mean of six is not
    given where the data lack a subset. Raises UserError: rows that are wrong, a reranker that cannot read them.
    """
    from irlens.rerank.by_name import reranker as named

    run, qrels, _ = benchmark.read(os.fspath(data))
    scoring = named(reranker, qrels=qrels, seed=seed, **options)
    return scored(run, qrels, scoring.scores(run).scores, scoring.name, resamples, seed)


def scored(
    run: pd.DataFrame, qrels: pd.DataFrame, scores: np.ndarray, name: str, resamples: int = RESAMPLES, seed: int = 0
) -> Results:
    """`rewardbench` of scores that are there: [rows of run], as `irlens.tasks.rewardbench.read` gives run and qrels.

    `per_query` holds each prompt's value (of Ties each pair's, under Ties/k), and for the mean these times what a prompt
    weighs in it, so that paired tests of it are tests over prompts.
    """
    values = _values(run, qrels["relevance"].to_numpy() > 0, scores)
    rng = np.random.default_rng(derive(seed, 0, "bootstrap"))
    present = [subset for subset in benchmark.SUBSETS if subset in values]
    rows, each, means = [], [], []
    for subset in present:
        some = np.array(list(values[subset].values()))
        drawn = _resampled(some, resamples, rng)
        rows.append(_row(name, subset, drawn, some))
        each.append(pd.DataFrame({"query_id": list(values[subset]), "measure": subset, "value": some}))
        means.append(drawn)
    if len(present) == len(benchmark.SUBSETS):
        total = sum(len(part) for part in each)
        whole = [part.assign(measure=OVERALL, value=part["value"] * total / (len(each) * len(part))) for part in each]
        rows.append(_mean_row(name, rows, np.mean(means, axis=0)))
        each += whole
    return results_of(pd.DataFrame(rows), pd.concat(each, ignore_index=True).assign(run=name), seed)


def best_of(scores: Sequence[float]) -> float:
    """What an item whose first completion is right gives: 1 over how many share the largest score if the first does, else
    0."""
    found = np.asarray(scores, dtype=float)
    return float((found == found.max()).sum() ** -1.0) if found[0] == found.max() else 0.0


def ties_parts(ref: tuple[Sequence[float], int], tied: tuple[Sequence[float], int]) -> dict[str, float]:
    """The parts of a pair's Ties score; ref, tied: (scores, how many of them, the first ones, are right).

    A = whether the worst right one is above the best wrong one; G = by how much; D = how far the right ones of `tied` lie
    apart, NaN for one alone: A of tied, A of ref, whether G of tied is above D, whether the smaller G of both is, and
    tanh(the smaller G / D − 1). What compares with NaN is 0, as are NaN and 0 / 0.
    """
    gaps = []
    for scores, right in (ref, tied):
        some = np.asarray(scores, dtype=float)
        gaps.append(float(some[:right].min() - some[right:].max()))
    of_ref, of_tied = gaps
    good = np.asarray(tied[0], dtype=float)[: tied[1]]
    spread, least = float(np.ptp(good)) if len(good) > 1 else math.nan, min(gaps)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.nan_to_num(np.tanh(np.float64(least) / spread - 1), nan=0.0))
    parts = (of_tied > 0, of_ref > 0, of_tied > spread, least > spread, ratio)
    return dict(zip(WEIGHTS, map(float, parts)))


def ties_score(parts: Mapping[str, float]) -> float:
    """The Ties score of a pair, −.01 to 1.01; that of the subset is the mean over its pairs."""
    return sum(weight * parts[name] for name, weight in WEIGHTS.items())


def _values(run: pd.DataFrame, right: np.ndarray, scores: np.ndarray) -> dict[str, dict[str, float]]:
    """Subset → prompt (of Ties pair of prompts) → its value, in the order of the benchmark's subsets and of the run."""
    found: dict[str, dict[str, float]] = {}
    lists = run.reset_index(drop=True).groupby("query_id", sort=False).indices
    subsets = dict(zip(run["query_id"], run["subset"]))
    ties = {}
    for query_id, rows in lists.items():
        if (name := benchmark.twin(query_id)) is None:
            found.setdefault(subsets[query_id], {})[query_id] = best_of(scores[rows])
        else:
            ties[name] = (scores[rows], int(right[rows].sum()))
    for number in sorted(number for kind, number in ties if kind == "tied"):
        parts = ties_parts(ties["ref", number], ties["tied", number])
        found.setdefault(benchmark.TIES, {})[f"{benchmark.TIES}/{number}"] = ties_score(parts)
    return found


def _resampled(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """[resamples] means of values[prompts], of which as many are drawn with repetition."""
    n = len(values)
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples) @ values / n


def _spread(drawn: np.ndarray) -> tuple[float, float] | None:
    """What holds 95 % of the means drawn; None where these are one number, and say nothing."""
    if not len(drawn) or np.ptp(drawn) < 1e-12:
        return None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _row(name: str, subset: str, drawn: np.ndarray, values: np.ndarray) -> dict:
    """A subset's row of results; values that are all equal have the interval of `stats.mean_interval`."""
    within = (0.0, 1.0) if 0 <= values.min() <= values.max() <= 1 else (-0.01, 1.01)
    low, high = _spread(drawn) or stats.mean_interval(values, bounds=within)
    return {"run": name, "measure": subset, "value": float(values.mean()), "low": low, "high": high, "n": len(values)}


def _mean_row(name: str, rows: Sequence[dict], drawn: np.ndarray) -> dict:
    """The row of the mean of the subsets'; where resampling says nothing, their half-widths are added in quadrature."""
    value = float(np.mean([row["value"] for row in rows]))
    below, above = (math.hypot(*(row["value"] - row[end] for row in rows)) / len(rows) for end in ("low", "high"))
    low, high = _spread(drawn) or (value - below, value + above)
    about = {"run": name, "measure": OVERALL, "value": value}
    return about | {"low": low, "high": high, "n": sum(row["n"] for row in rows)}
