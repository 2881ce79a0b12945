"""The audit of a reranker: is it calibrated, does it like length, does it tell right from wrong, what is it worth at large N.

`irlens.audit_reranker` is this module's function. Everything is measured within a prompt and averaged over prompts, with an
interval over prompts. What is pooled over prompts says so in its name, for it misleads: a reranker that tells hard prompts
from easy ones agrees with the grades over all rows, and may pick no better than chance among the answers to one prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.base.seeds import derive
from irlens.measure import best_of_n as picking
from irlens.measure import overoptimisation as over
from irlens.measure import reliability, stats
from irlens.measure.agreement import auc, tau_b, threshold
from irlens.measure.overoptimisation import GAIN as GAIN
from irlens.measure.overoptimisation import PROXY as PROXY
from irlens.rerank.reranker import Scores
from irlens.rerank.scoring import need_texts

if TYPE_CHECKING:
    from irlens.base.protocols import Reranker
    from irlens.tasks.contract import Task

BEATS, RIGHT = "right beats wrong", "is right"  # what probabilities are of
WITHIN, POOLED = "within prompts", "pooled over prompts (misleads)"


@dataclass(frozen=True)
class Audit:
    """What an audit found of the reranker `name`.

    summary: measure, value, low, high, n (prompts; no interval of what is pooled). reliability: of, from, to, x (the mean
    forecast in this bin), value (the share that came true), low, high, n, prompts. over_optimisation, None of lists that are
    no draws: run, cutoff, value, low, high, n: the true value of the best of N by the reranker, the oracle, one draw and a
    random number per text; the reranker's own number of its pick (PROXY); its true value less the null's (GAIN). picks: the
    same but for the last per query (query_id).
    """

    name: str
    summary: pd.DataFrame
    reliability: pd.DataFrame
    over_optimisation: pd.DataFrame | None = None
    picks: pd.DataFrame | None = None


@dataclass(frozen=True)
class _Texts:
    """The distinct texts of a prompt: scores, lengths in characters, whether right."""

    scores: np.ndarray
    lengths: np.ndarray
    right: np.ndarray


def audit_reranker(
    run: pd.DataFrame,
    qrels: pd.DataFrame,
    reranker: str | Reranker | Callable,
    at: Sequence[int] | None = None,
    *,
    task: Task | None = None,
    right_from: float | None = None,
    seed: int = 0,
    **options: Any,
) -> Audit:
    """The audit of a reranker on judged draws: calibration, length, AUC within prompts, over-optimisation.

    run: draws at one temperature, with texts; qrels: whether each is right. reranker, task, options: see
    `irlens.reranker`; at: the N, default 1, 3, 5, 10, … up to the draws of a prompt; right_from: the least grade that is
    right. Raises UserError: several temperatures, draws that are not judged or judged all alike, what the reranker refuses.
    """
    from irlens.base.options import cutoffs
    from irlens.rerank.by_name import reranker as named

    one_pool(run)
    grades = picking.grades_of(run, qrels)
    picking.check_grades(grades)
    scoring = named(reranker, task, qrels=qrels, seed=seed, **options)
    n = cutoffs(picking.fewest(run), at)
    return audited(run, grades, scoring.scores(run), scoring.name, at=n, right_from=right_from, seed=seed)


def one_pool(run: pd.DataFrame, hint: str = "") -> None:
    """Raises UserError for a run without texts, or of several pools of candidates: a reranker picks in one."""
    need_texts(run, "an audit")
    if len(found := picking.pools(run)) > 1:
        some = ", ".join(list(found)[:4])
        raise UserError(f"an audit is of one pool of draws, and the run has {len(found)} ({some}){hint}")


def audited(
    run: pd.DataFrame,
    grades: np.ndarray,
    found: Scores,
    name: str,
    *,
    at: Sequence[int] | None = None,
    right_from: float | None = None,
    seed: int = 0,
) -> Audit:
    """`audit_reranker` of scores that are there; grades [rows of run]. at: the N; None of lists that are no draws, such as
    RewardBench 2's, of which neither over-optimisation nor the chance of being right says anything. Where grades do not
    tell right from wrong (rewards without `right_from`) there is no calibration and no AUC."""
    run = run.reset_index(drop=True)
    least = threshold(grades) if right_from is None else right_from
    lists = list(run.groupby("query_id", sort=True).indices.values())
    right = grades >= least
    texts = [_texts_of(run.iloc[rows], found.scores[rows], right[rows]) for rows in lists]
    bootstrap, rows, curves, table, picks = derive(seed, 0, "bootstrap"), [], [], None, None
    if not np.isnan(least):
        for part, curve in (
            _beats(texts, bootstrap),
            *([] if at is None else [_is_right(found, right, lists, bootstrap)]),
        ):
            rows += part
            curves += curve
        each = [auc(found.scores[rows], right[rows]) for rows in lists]
        rows += [_row(f"AUC, {WITHIN}", each), _alone(f"AUC, {POOLED}", auc(found.scores, right), len(lists))]
    rows += _length(texts, not np.isnan(least))
    if at is not None:
        table, picks, more = _over_optimisation(run, grades, found, name, at, seed)
        rows += more
    told = pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=["of", "x", "value", "low", "high"])
    return Audit(name, pd.DataFrame(rows), told, table, picks)


def _texts_of(rows: pd.DataFrame, scores: np.ndarray, right: np.ndarray) -> _Texts:
    """The distinct texts of a prompt; a text's score is the mean of its draws', and so is whether it is right, rounded."""
    group, texts = pd.factorize(rows["text"])
    counts = np.bincount(group)
    means = [np.bincount(group, some) / counts for some in (scores, right)]
    return _Texts(means[0], np.array([len(text) for text in texts], dtype=float), means[1] >= 0.5)


def _row(measure: str, values: Sequence[float], bounds: tuple[float, float] = (0, 1)) -> dict:
    """The mean over the prompts of which a measure says something, with its interval."""
    some = np.array([value for value in values if not np.isnan(value)])
    if not len(some):
        return _alone(measure, float("nan"), 0)
    low, high = stats.mean_interval(some, bounds=bounds)
    return {"measure": measure, "value": float(some.mean()), "low": low, "high": high, "n": len(some)}


def _alone(measure: str, value: float, n: int) -> dict:
    return {"measure": measure, "value": value, "low": float("nan"), "high": float("nan"), "n": n}


# -- calibration ---------------------------------------------------------------------------------------------------


def _beats(texts: Sequence[_Texts], seed: int) -> tuple[list[dict], list[pd.DataFrame]]:
    """(summary, reliability) of the Bradley-Terry probability, over all pairs of a right and a wrong text of a prompt."""
    forecasts, order = reliability.Forecasts(np.linspace(0.5, 1, 11)), []
    for some in texts:
        good, bad = some.scores[some.right], some.scores[~some.right]
        if len(good) and len(bad):
            foretold, true = reliability.beats(np.subtract.outer(good, bad).ravel())
            forecasts.add(foretold, true)
            order.append(float(true.mean()))
    rows = [_row("pairs in the right order", order), _row(f"Brier score, {BEATS}", forecasts.brier)]
    return rows, [forecasts.curve(seed).assign(of=BEATS)] if order else []


def _is_right(
    found: Scores, right: np.ndarray, lists: Sequence[np.ndarray], seed: int
) -> tuple[list[dict], list[pd.DataFrame]]:
    """(summary, reliability) of the chance that a draw is right by its score."""
    prompt = np.empty(len(right), dtype=int)
    for number, rows in enumerate(lists):
        prompt[rows] = number
    chance, fitted = reliability.chances(found.scores, right.astype(float), prompt, seed)
    forecasts = reliability.Forecasts(np.linspace(0, 1, 11))
    for rows in lists:
        forecasts.add(chance[rows], right[rows].astype(float))
    how = f"{RIGHT}, by a logistic fit on other prompts" if fitted else f"{RIGHT}, the score as it stands"
    same = [float(((right[rows] - right.mean()) ** 2).mean()) for rows in lists]
    told = [_row(f"Brier score, {how}", forecasts.brier), _row(f"Brier score, {RIGHT}, one chance for all", same)]
    return told, [forecasts.curve(seed).assign(of=how)]


# -- length --------------------------------------------------------------------------------------------------------


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where all of one side are equal."""
    from scipy.stats import rankdata

    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _length(texts: Sequence[_Texts], known: bool) -> list[dict]:
    """Summary of how scores, and being right, go with the number of characters, over the distinct texts of a prompt."""
    rows, all_scores, all_lengths = [], *(np.concatenate([getattr(t, n) for t in texts]) for n in ("scores", "lengths"))
    for name, measure in (("Spearman", spearman), ("Kendall's tau-b", tau_b)):
        each = [measure(some.scores, some.lengths) for some in texts]
        whole = measure(all_scores, all_lengths)
        rows.append(_row(f"reward and length, {name}, {WITHIN}", each, (-1, 1)))
        rows.append(_alone(f"reward and length, {name}, {POOLED}", whole, len(texts)))
    if known:
        each = [tau_b(some.right.astype(float), some.lengths) for some in texts]
        rows.append(_row(f"being right and length, Kendall's tau-b, {WITHIN}", each, (-1, 1)))
    return rows


# -- over-optimisation ---------------------------------------------------------------------------------------------


def _over_optimisation(
    run: pd.DataFrame, grades: np.ndarray, found: Scores, name: str, at: Sequence[int], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, list[dict]]:
    """(the curves, values per query, summary): the true value of the best of N beside the null's."""
    own = over.name_of(name)
    table, each = over.best_of(run, grades, found, name, at, seed)
    by = over.wide(each)
    true, null = by[own], by[picking.PER_TEXT]
    peak, last = int(true.mean().round(9).idxmax()), max(at)
    rows = [
        {"measure": f"true value, N = {last} less N = {peak}, {who}"} | vars(over.change(some[peak], some[last]))
        for who, some in ((own, true), (picking.PER_TEXT, null))
        if peak < last
    ]
    if last > 1:
        gain = f"true value, N = {last}, {own} less {picking.PER_TEXT}"
        rows.append({"measure": gain} | vars(over.change(null[last], true[last])))
    return table, each, rows
