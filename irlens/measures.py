"""Runs and qrels to results: ir-measures' own measures, the unbiased Pass@N, and an interval on every value.

Importing this module makes `Pass` known to ir_measures, so `Pass@10` parses and mixes with their measures anywhere.
"""

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

import ir_measures
import numpy as np
import pandas as pd
from ir_measures import Measure, ParamInfo, providers

from irlens import stats, tables
from irlens.errors import UserError, did_you_mean

TOKEN = re.compile(r"(?:\([^)]*\)?|[^\s,(])+")  # a measure; commas and spaces inside its parentheses belong to it


# -- Pass@N --------------------------------------------------------------------------------------------------------


def pass_at(n, c, k) -> np.ndarray:
    """The chance that k of n draws, taken without replacement, hold at least one of the c that are right.

    1 - C(n - c, k) / C(n, k), the unbiased estimator of Chen et al. 2021 ("Evaluating Large Language Models Trained on
    Code", equation 1). n, c and k are whole numbers or arrays of them, broadcast; the result is float64, right to about
    1e-14 relative. Raises UserError: a fraction, k < 1, k > n, c < 0 or c > n.
    """
    n, c, k = np.broadcast_arrays(*(_whole(x, name) for x, name in ((n, "n"), (c, "c"), (k, "k"))))
    rules = {"k must be at least 1": k >= 1, "k must be at most n": k <= n, "c must be 0 … n": (c >= 0) & (c <= n)}
    for rule, good in rules.items():
        if not good.all():
            i = tuple(np.argwhere(~good)[0])
            raise UserError(f"pass@k of n={n[i]} draws, c={c[i]} of them right, k={k[i]}: {rule}")
    cases, where = np.unique(np.stack([n, c, k], axis=-1).reshape(-1, 3), axis=0, return_inverse=True)
    values = np.array([_pass_at(*map(int, case)) for case in cases])
    return values[where.reshape(n.shape)]


def _pass_at(n: int, c: int, k: int) -> float:
    """C(n - c, k) / C(n, k) is the product over i < c of 1 - k / (n - i), and the same with c and k exchanged."""
    if n - c < k:
        return 1.0
    few, many = sorted((c, k))
    return float(0.0 - np.expm1(np.log1p(-many / (n - np.arange(few))).sum()))


def _whole(numbers, name: str) -> np.ndarray:
    numbers = np.asarray(numbers)
    if (numbers % 1 != 0).any():
        raise UserError(f"pass@k: {name} must hold whole numbers")
    return numbers.astype(np.int64)


class _Pass(Measure):
    """The expected Success@cutoff of that many draws taken at random from a query's draws (`pass_at`)."""

    __name__ = "Pass"
    NAME = __name__
    PRETTY_NAME = "Pass at k"
    SHORT_DESC = "The chance that at least one of k draws is relevant, estimated without bias from n >= k draws."
    SUPPORTED_PARAMS: ClassVar = {
        "cutoff": ParamInfo(dtype=int, required=True, desc="number of draws"),
        "rel": ParamInfo(dtype=int, default=1, desc="minimum relevance score to be considered relevant (inclusive)"),
    }


class _PassEvaluator(providers.Evaluator):
    """For a query, n is the number of its rows in the run and c how many of them are judged `rel` or higher."""

    def __init__(self, measures, qrels: dict[str, dict[str, int]]):
        super().__init__(measures, set(qrels))
        self.qrels = qrels

    def _iter_calc(self, run) -> Iterator[ir_measures.Metric]:
        run = ir_measures.util.RunConverter(run).as_dict_of_dict()
        queries = sorted(self.qrels)
        n = np.array([len(run.get(query, ())) for query in queries], dtype=np.int64)
        for measure in self.measures:
            few = np.flatnonzero(n < measure["cutoff"])
            if len(few):
                raise UserError(
                    f"{measure} needs at least {measure['cutoff']} draws of every judged query; fewer: {len(few)} of "
                    f"{len(queries)} queries, such as {queries[few[0]]!r} with {n[few[0]]}"
                )
        right = {
            rel: np.array(
                [
                    sum(grade >= rel for grade in map(self.qrels[query].get, run[query]) if grade is not None)
                    for query in queries
                ],
                dtype=np.int64,
            )
            for rel in {measure["rel"] for measure in self.measures}
        }
        for measure in self.measures:
            for query, value in zip(queries, pass_at(n, right[measure["rel"]], measure["cutoff"])):
                yield ir_measures.Metric(query_id=query, measure=measure, value=float(value))


class _PassProvider(providers.Provider):
    """Pass@N for ir_measures."""

    NAME = "irlens"
    SUPPORTED_MEASURES: ClassVar = [_Pass(cutoff=providers.base.Any(), rel=providers.base.Any())]

    def _evaluator(self, measures, qrels) -> _PassEvaluator:
        return _PassEvaluator(measures, ir_measures.util.QrelsConverter(qrels).as_dict_of_dict())


def _register() -> Measure:
    """The one `Pass` of this process, known to ir_measures' parser and default pipeline."""
    if "Pass" not in ir_measures.measures.registry:
        ir_measures.measures.register(_Pass())
        provider = providers.register(_PassProvider())
        ir_measures.DefaultPipeline.providers.insert(0, provider)  # last, it would load every optional provider first
    return ir_measures.measures.registry["Pass"]


Pass = _register()


# -- names ---------------------------------------------------------------------------------------------------------


def parse(measures: str | Iterable[str | Measure]) -> list[Measure]:
    """Measures in ir_measures' syntax, apart by spaces or commas ("Success@1, nDCG@10 P(rel=2)@5 Pass@10"), or a list.

    Repeats are dropped. Raises UserError: none at all, an unknown name, wrong or missing parameters, a measure that no
    installed provider can compute.
    """
    tokens = TOKEN.findall(measures) if isinstance(measures, str) else list(measures)
    if not tokens:
        raise UserError('no measure given; name some, such as "Success@1 nDCG@10 Pass@10"')
    return list(dict.fromkeys(_parse_one(token) for token in tokens))


def _parse_one(token: str | Measure) -> Measure:
    try:
        measure = ir_measures.parse_measure(token)
    except NameError as error:
        name = str(error).rpartition(" ")[2]
        raise UserError(f"no measure {name!r}; {did_you_mean(name, ir_measures.measures.registry)}") from None
    except (ValueError, TypeError):
        raise UserError(f"measure {token!r}: not of the form Name, Name@10 or Name(rel=2)@10") from None
    try:
        measure.validate_params()
        if "cutoff" in measure.params and (type(measure["cutoff"]) is not int or measure["cutoff"] < 1):
            raise AssertionError(f"invalid param cutoff={measure['cutoff']!r}")
    except AssertionError:
        known = (
            f"{name} ({info.dtype.__name__ if info.dtype else 'any'}{', required' * info.required})"
            for name, info in measure.SUPPORTED_PARAMS.items()
        )
        raise UserError(
            f"measure {str(token)!r}: wrong parameters; {measure.NAME} takes {', '.join(known) or 'none'}; "
            f"{measure.AT_PARAM} is the number after @, a whole number from 1"
        ) from None
    if not ir_measures.DefaultPipeline.supports(measure):
        raise UserError(f"measure {str(token)!r}: none of the installed ir_measures providers computes it")
    return measure


# -- evaluation ----------------------------------------------------------------------------------------------------


def evaluate(
    run: pd.DataFrame,
    qrels: pd.DataFrame,
    measures: str | Iterable[str | Measure],
    tag: str | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(results, values per query) of a run, or of each `tag` in it as a run of its own.

    results: run, measure ("Pass@10"), cutoff (10; NA without one), value, low, high (`stats.mean_intervals` over
    queries), n (queries). Per query: run, query_id, measure, value. `tag` names a run without the column `tag`
    (default "run"); in a run with it, it chooses the one to evaluate.

    Success@N is ir_measures' own: is a hit among the first N by score? Of sampled draws, "the first N" is one random
    choice, so Success@N varies more, and depends on their order; Pass@N is its expectation over every choice of N draws
    and is the one to use for draws, while Success@N is for a ranking. Never mix them in one curve.

    A query counts if it is in the qrels: what the run lacks of them counts as 0 (as in trec_eval -c), but is refused
    for Pass@N. Tied scores are put in order by `tables.ranked`. Raises UserError: tables that break their contract, an
    empty one, a query of the run that the qrels do not judge, fractional relevance, fewer draws of a query than N.
    """
    measures = parse(measures)
    judged = _nested(_judgements(qrels), "relevance")
    queries, evaluator = sorted(judged), ir_measures.evaluator(measures, judged)
    results, per_query = [], []
    runs = list(_runs(run, tag))
    for name, part in runs:
        _check_judged(name, part, judged)
    for name, part in runs:
        try:
            values = _values(evaluator, measures, queries, _nested(_untied(part), "score"))
        except UserError as error:
            raise UserError(f"run {name!r}: {error}") from None
        results.append(_summary(name, measures, values))
        per_query.append(
            pd.DataFrame(
                {
                    "run": name,
                    "query_id": np.tile(np.array(queries, dtype=object), len(measures)),
                    "measure": np.repeat(np.array([str(measure) for measure in measures], dtype=object), len(queries)),
                    "value": values.T.ravel(),
                }
            ).astype({"run": "str", "query_id": "str", "measure": "str"})
        )
    return pd.concat(results, ignore_index=True), pd.concat(per_query, ignore_index=True)


def _summary(name: str, measures: list[Measure], values: np.ndarray) -> pd.DataFrame:
    """One run's rows of the results table from values[queries, measures]."""
    counts = np.array([isinstance(measure.aggregator(), ir_measures.measures.SumAgg) for measure in measures])
    low, high = stats.mean_intervals(values)
    low[counts], high[counts] = stats.mean_intervals(values[:, counts], bounds=(-np.inf, np.inf))
    scale = np.where(counts, len(values), 1)  # NumRet and its like are sums over queries, not means
    cutoffs = [measure.params.get("cutoff", pd.NA) for measure in measures]
    return pd.DataFrame(
        {
            "run": name,
            "measure": [str(measure) for measure in measures],
            "cutoff": pd.array(cutoffs, dtype="Int64"),
            "value": values.mean(axis=0) * scale,
            "low": low * scale,
            "high": high * scale,
            "n": len(values),
        }
    ).astype({"run": "str", "measure": "str", "n": "int64"})


def _values(evaluator, measures: list[Measure], queries: list[str], run: dict[str, dict[str, float]]) -> np.ndarray:
    """[queries, measures]; what ir_measures leaves out is the measure's default, 0."""
    values = np.tile([float(measure.DEFAULT) for measure in measures], (len(queries), 1))
    row = {query: i for i, query in enumerate(queries)}
    column = {measure: j for j, measure in enumerate(measures)}
    for metric in evaluator.iter_calc(run):
        values[row[metric.query_id], column[metric.measure]] = metric.value
    return values


def _judgements(qrels: pd.DataFrame) -> pd.DataFrame:
    tables.check(qrels, "qrels")
    if qrels.empty:
        raise UserError("the qrels are empty")
    relevance = pd.to_numeric(qrels["relevance"])
    fractions = relevance[relevance % 1 != 0]
    if len(fractions):
        raise UserError(f"qrels: relevance must be a whole number for a measure, got {fractions.iloc[0]}")
    return qrels.assign(relevance=relevance.astype("int64"))


def _runs(run: pd.DataFrame, tag: str | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, rows) of each run in the frame, in order of first appearance, checked."""
    if run.empty:
        raise UserError("the run is empty")
    if "tag" not in run.columns:
        yield tag or "run", tables.check(run, "run")
        return
    if run["tag"].isna().any():
        raise UserError(f"run: row {int(np.flatnonzero(run['tag'].isna())[0])} has no tag, though others do")
    tags = run["tag"].astype(str)
    if tag is not None and not (tags == tag).any():
        raise UserError(f"no tag {tag!r} in the run; {did_you_mean(tag, tags.unique())}")
    for name, part in run.groupby(tags, sort=False):
        if tag in (None, name):
            yield name, tables.check(part, "run", f"run {name!r}")


def _check_judged(name: str, run: pd.DataFrame, judged: dict) -> None:
    strangers = sorted(set(run["query_id"].unique()) - judged.keys())
    if strangers:
        some = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
        raise UserError(f"run {name!r}: queries without any judged document in the qrels: {len(strangers)} ({some})")


def _untied(run: pd.DataFrame) -> pd.DataFrame:
    """`run` with strictly ordered 32-bit scores (trec_eval's): only ties within a query change anything."""
    scores = run.assign(score=pd.to_numeric(run["score"]).astype(np.float32))
    return tables.ranked(scores) if scores.duplicated(["query_id", "score"]).any() else scores


def _nested(frame: pd.DataFrame, column: str) -> dict[str, dict[str, float]]:
    """{query_id: {doc_id: number}}, ir_measures' quickest input."""
    nested: dict[str, dict[str, float]] = {}
    for query, doc, number in zip(frame["query_id"].tolist(), frame["doc_id"].tolist(), frame[column].tolist()):
        nested.setdefault(query, {})[doc] = number
    return nested
