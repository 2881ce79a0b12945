"""What stands between tables of text ids and ir_measures' providers: ids that all of them read, limits that they have.

Providers differ in what they take: gdeval wants numbers as query ids and grades up to 4, trec_eval a positive `rel`, and
two measures of one call can disturb each other. Here every measure gets ids, calls and limits that suit it, or is
refused by name before work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import ir_measures
import numpy as np
import pandas as pd
from ir_measures import Measure
from ir_measures.measures.base import _NOT_PROVIDED
from ir_measures.providers import Evaluator, FallbackProvider, Provider, base

from irlens.base.errors import UserError
from irlens.tables import GRADE

GDEVAL_GRADE = 4  # the largest that gdeval.pl reads
LARGEST = 2**31 - 1  # of a cutoff
INPUTS = {"query_id", "doc_id", "relevance", "score"}


class _AccuracyEvaluator(Evaluator):
    """ir_measures' Accuracy, but silent for a query without a pair to compare, where theirs divides by zero."""

    def __init__(self, measures, qrels: dict[str, dict[str, int]]):
        super().__init__(measures, set(qrels))
        self.qrels = qrels

    def iter_calc(self, run) -> Iterator[ir_measures.Metric]:
        run = ir_measures.util.RunConverter(run).as_dict_of_dict()
        for query_id, scores in run.items():
            grades = self.qrels.get(query_id, {})
            order = sorted(scores, key=scores.get, reverse=True)
            for measure in self.measures:
                first = order[: measure.params.get("cutoff")]
                right = np.array([grades.get(doc_id, 0) >= measure["rel"] for doc_id in first], dtype=bool)
                if right.any() and not right.all():
                    swapped = (~right).cumsum()[right].sum()  # pairs with the irrelevant one above
                    yield ir_measures.Metric(query_id, measure, float(1 - swapped / (right.sum() * (~right).sum())))


class _Accuracy(Provider):
    """Accuracy, over the queries for which it is defined: a relevant and an irrelevant document are retrieved."""

    NAME = "irlens-accuracy"
    SUPPORTED_MEASURES: ClassVar = [ir_measures.Accuracy(cutoff=base.Any(), rel=base.Any())]

    def _evaluator(self, measures, qrels) -> _AccuracyEvaluator:
        return _AccuracyEvaluator(measures, ir_measures.util.QrelsConverter(qrels).as_dict_of_dict())


_OWN = _Accuracy()


def _pipeline() -> FallbackProvider:
    """ir_measures' providers in its order (`Pass` of irlens.measure.measures among them), behind our Accuracy."""
    return FallbackProvider([_OWN, *ir_measures.DefaultPipeline.providers])


def _provider(measure: Measure) -> Provider | None:
    """The first installed one that computes the measure; None if no installed one does."""
    return next((p for p in _pipeline().providers if p.supports(measure) and p.is_available()), None)


# -- limits --------------------------------------------------------------------------------------------------------


def check(measure: Measure) -> None:
    """Raises UserError for a measure that no installed provider computes from these tables, or with these parameters."""
    name = f"measure {str(measure)!r}"
    problem = _wrong_parameter(measure)
    if problem:
        raise UserError(f"{name}: {problem}")
    provider = _provider(measure)
    if provider is None:
        known = (p.install_instructions() for p in _pipeline().providers if p.supports(measure))
        how = next((f"; `{text}` brings one that does" for text in known if text and text.startswith("pip ")), "")
        raise UserError(f"{name}: none of the installed ir_measures providers computes it{how}")
    if provider.NAME == "pyndeval" or not INPUTS.issuperset(provider.qrel_inputs([measure])):
        raise UserError(f"{name}: judges by subtopics, which qrels here do not tell (query_id, doc_id, relevance)")


def _wrong_parameter(measure: Measure) -> str:
    """What is wrong with a parameter that ir_measures lets pass and a provider breaks on; empty if nothing is."""
    params = measure.params
    if "rel" in params and not 1 <= params["rel"] <= GRADE:
        return f"rel must be 1 … {GRADE:,}"
    if params.get("cutoff", 1) > LARGEST:
        return f"the number after @ must be at most {LARGEST:,}"
    for key, gain in params.get("gains", {}).items():
        if type(key) is not int or type(gain) is not int or abs(gain) > GRADE:
            return f"gains must map whole grades to whole gains of at most {GRADE:,}, got {key!r}: {gain!r}"
    recall = params.get("recall", 0.0)
    if not 0 <= recall <= 1 or round(recall, 2) != recall:
        return "recall must be 0 … 1 with two decimals, as trec_eval reads it"
    if not 0 < params.get("p", 0.5) <= 1:
        return "p must lie above 0 and be at most 1"
    if "max_rel" in params and not params.get("min_rel", 0) < params["max_rel"] <= GRADE:
        return f"max_rel must lie above min_rel and be at most {GRADE:,}"
    return ""


def check_grades(measures: Sequence[Measure], qrels: pd.DataFrame) -> None:
    """Raises UserError, naming measure and row, for grades that the provider of a measure does not read."""
    by_gdeval = [measure for measure in measures if _provider(measure).NAME == "gdeval"]
    over = np.flatnonzero(qrels["relevance"].to_numpy() > GDEVAL_GRADE)
    if by_gdeval and len(over):
        row = qrels.iloc[over[0]]
        raise UserError(
            f"{by_gdeval[0]} takes grades up to {GDEVAL_GRADE} (gdeval); row {over[0]} of the qrels (query_id="
            f"{row['query_id']}, doc_id={row['doc_id']}) has {row['relevance']}"
        )


# -- values --------------------------------------------------------------------------------------------------------


class Values:
    """The values of measures for each judged query of a run, computed under numbers in the place of ids.

    queries: their ids, in order. One evaluator serves every run.
    """

    def __init__(self, measures: Sequence[Measure], qrels: pd.DataFrame):
        """measures: checked ones. qrels: with whole `relevance`. Raises UserError for grades beyond a provider's."""
        check_grades(measures, qrels)
        self.measures = list(measures)
        self.queries = pd.Index(sorted(qrels["query_id"].unique()), dtype=object)
        self._docs = pd.Index(qrels["doc_id"].astype(object).unique())
        relevance = qrels["relevance"].tolist()
        self._judged = _nested(self._numbers(qrels["query_id"]), self._documents(qrels["doc_id"]), relevance)
        self._evaluators = [_pipeline().evaluator(group, self._judged) for group in _groups(measures)]

    def of(self, run: pd.DataFrame) -> np.ndarray:
        """[queries, measures] of a run with scores that differ within a query; NaN where a measure is not defined.

        A judged query that the run lacks has what `trec_eval -c` gives it: it is counted (NumQ), so are its relevant
        documents (NumRel), and every other measure is 0. The run may hold judged queries only.
        """
        ids = self._numbers(run["query_id"]), self._documents(run["doc_id"])
        nested = _nested(*ids, run["score"].astype(float).tolist())
        undefined = [np.nan if measure.NAME == "Accuracy" else float(measure.DEFAULT) for measure in self.measures]
        values = np.tile(undefined, (len(self.queries), 1))
        column = {measure: j for j, measure in enumerate(self.measures)}
        for evaluator in self._evaluators:
            for metric in evaluator.iter_calc(nested):
                values[int(metric.query_id) - 1, column[metric.measure]] = metric.value
        for measure, j in column.items():
            if measure.NAME in ("NumQ", "NumRel"):
                for number, grades in self._judged.items():
                    if number not in nested:
                        right = [grade >= measure.params.get("rel", 1) for grade in grades.values()]
                        values[int(number) - 1, j] = 1 if measure.NAME == "NumQ" else sum(right)
        return values

    def _numbers(self, query_ids: pd.Series) -> list[str]:
        """From 1, in the order of the ids."""
        return (self.queries.get_indexer(query_ids.astype(object)) + 1).astype(str).tolist()

    def _documents(self, doc_ids: pd.Series) -> list[str]:
        """A number for a judged document, `u` and the row for one that nobody has judged."""
        places = self._docs.get_indexer(doc_ids.astype(object)).tolist()
        return [str(place) if place >= 0 else f"u{row}" for row, place in enumerate(places)]


def _groups(measures: Sequence[Measure]) -> list[list[Measure]]:
    """Measures that one call computes without disturbing each other.

    ir_measures computes a measure for which `rel` does not matter in whatever call of trec_eval there is already: then
    a plain nDCG next to one with gains takes those gains.
    """
    groups: dict[tuple, list[Measure]] = {}
    for measure in measures:
        gains = measure.params.get("gains", _NOT_PROVIDED)
        key = (None if gains is _NOT_PROVIDED else str(sorted(gains.items())), measure.params.get("judged_only", False))
        groups.setdefault((measure.NAME == "Accuracy", *key), []).append(measure)
    return list(groups.values())


def _nested(query_ids: list[str], doc_ids: list[str], numbers: list) -> dict[str, dict]:
    """{query_id: {doc_id: number}}, ir_measures' quickest input."""
    nested: dict[str, dict] = {}
    for query, doc, number in zip(query_ids, doc_ids, numbers):
        nested.setdefault(query, {})[doc] = number
    return nested
