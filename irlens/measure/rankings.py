"""Judges and rerankers as rankings: the systems' answers to a prompt are a list of candidates that a judge has graded.

A judge's preference for an answer over the baseline's is the answer's relevance; what another judge, or a reranker, makes
of the same answers is a run. Measures are ir_measures'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from ir_measures import Measure

from irlens.base.seeds import derive
from irlens.measure import measures as computing
from irlens.measure import providers, stats
from irlens.measure.results import Results, results_of
from irlens.measure.verdicts import Verdicts
from irlens.tables import query_id_of

MEASURES = "nDCG@3 nDCG RR"
LEVELS = 200  # of grades: a measure wants whole ones, and trec_eval takes as long as there are many
ORDERS = 10  # in which tied answers are put, each as likely, and the mean taken
ORACLE, CHANCE = "oracle", "chance"


@dataclass(frozen=True)
class Measures:
    """graded: by the preference, over the best one of the prompt (which nDCG does not see) in LEVELS steps; binary: those
    that ask for right and wrong, and right is what beats the baseline."""

    graded: list[Measure]
    binary: list[Measure]

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [str(measure) for measure in (*self.graded, *self.binary)]


def parsed(measures: str) -> Measures:
    """Measures in ir_measures' syntax. Raises UserError: see `irlens.measure.measures.parse`."""
    found = computing.parse(measures)
    binary = [m for m in found if "rel" in m.SUPPORTED_PARAMS and "rel" not in m.params]
    return Measures([m for m in found if m not in binary], binary)


def ranked(found: Verdicts, graders: Sequence[str], measures: Measures, seed: int = 0) -> Results | None:
    """`run, judge, measure, value, low, high, n`: each judge and reranker (`run`) as a ranking of the answers that another
    judge has graded, over the prompts where both have two systems or more. oracle: the judge's own order, the most that
    can be reached; chance: no order. A judge without scores ranks by its preferences; tied answers are put in ORDERS
    random orders. None where no prompt has two systems.
    """
    rows, each = [], []
    for judge in graders:
        for name, scores, part in _rankers(found, judge):
            values = _values(part, scores, measures, seed)
            if values is None:
                continue
            for measure, column in zip(measures.names, values.T):
                known = column[~np.isnan(column)]
                if not len(known):
                    continue
                low, high = stats.mean_interval(known)
                about = {"run": name, "judge": judge, "measure": measure, "value": float(known.mean())}
                rows.append(about | {"low": low, "high": high, "n": len(known)})
            ids = sorted(part["query_id"].unique())
            told = {"run": name, "judge": judge, "query_id": np.tile(ids, len(measures.names))}
            told |= {"measure": np.repeat(measures.names, len(ids)), "value": values.T.ravel()}
            each.append(pd.DataFrame(told).dropna(subset="value"))
    if not rows:
        return None
    return results_of(pd.DataFrame(rows), pd.concat(each, ignore_index=True), seed)


def _rankers(found: Verdicts, judge: str) -> Iterator[tuple[str, np.ndarray, pd.DataFrame]]:
    """(name, scores, `query_id, doc_id, grade`) of all that rank the answers which a judge has graded."""
    own = found.values[:, found.judges.index(judge)] - 1
    lists = found.pairs.assign(
        grade=own, query_id=found.pairs["instruction"].map(query_id_of), doc_id=found.pairs["generator_2"]
    )
    lists = lists[~np.isnan(own)].drop_duplicates(["query_id", "doc_id"])
    for i, name in enumerate(found.judges):
        scored = ~np.isnan(found.margins[:, i]).all()
        scores = (found.margins if scored else found.values)[:, i][lists.index]
        if name != judge:
            yield name, *_lists(lists, scores)
    yield ORACLE, *_lists(lists, lists["grade"].to_numpy())
    yield CHANCE, *_lists(lists, np.zeros(len(lists)))


def _lists(lists: pd.DataFrame, scores: np.ndarray) -> tuple[np.ndarray, pd.DataFrame]:
    """The rows that have a score, of prompts with two of them or more."""
    known = ~np.isnan(scores)
    counts = lists["query_id"][known].value_counts()
    kept = known & lists["query_id"].isin(counts.index[counts > 1]).to_numpy()
    return scores[kept], lists[kept][["query_id", "doc_id", "grade"]].reset_index(drop=True)


def _values(part: pd.DataFrame, scores: np.ndarray, measures: Measures, seed: int) -> np.ndarray | None:
    """[prompts in order, measures]: the mean over the orders that ties leave open; None without a prompt."""
    if part.empty:
        return None
    best = part.groupby("query_id")["grade"].transform("max").to_numpy()
    levels = np.rint(LEVELS * part["grade"].to_numpy() / np.where(best > 0, best, 1.0))
    graded = part.assign(relevance=levels.astype(int))
    binary = part.assign(relevance=(part["grade"] > 0.5 + 1e-9).astype(int))
    asked = [
        (providers.Values(some, qrels))
        for some, qrels in ((measures.graded, graded), (measures.binary, binary))
        if some
    ]
    rng = np.random.default_rng(derive(seed, 0, "random ranking"))
    query = pd.factorize(part["query_id"], sort=True)[0]
    tied = part.assign(score=scores)[["query_id", "score"]].duplicated(keep=False).groupby(part["query_id"]).any()
    again = tied.to_numpy()
    total, counts = 0.0, np.where(again, ORDERS, 1)
    for number in range(ORDERS if again.any() else 1):
        kept = np.ones(len(part), dtype=bool) if number == 0 else again[query]
        order = np.lexsort((rng.random(len(part)), -scores, query))
        rank = np.empty(len(part))
        rank[order] = np.arange(len(part))
        run = part[kept].assign(score=-rank[kept])
        values = np.concatenate([one.of(run) for one in asked], axis=1)
        total = total + np.where(
            np.ones(len(again), dtype=bool)[:, None] if number == 0 else again[:, None], values, 0.0
        )
    return total / counts[:, None]
