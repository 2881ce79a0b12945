"""Runs and qrels to results: ir-measures' own measures, the unbiased Pass@N, and an interval on every value.

Importing this module makes `Pass` and `Reward` known to ir_measures, so `Pass@10` parses and mixes with their measures.
"""

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

import ir_measures
import numpy as np
import pandas as pd
from ir_measures import Measure, ParamInfo, providers

from irlens import tables
from irlens.base.errors import UserError, did_you_mean
from irlens.measure import providers as computed
from irlens.measure import stats
from irlens.measure.best_of_n import expected_best, temperature_of

OF_DRAWS = ("Pass", "Reward")  # what N draws out of n are expected to give
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
        _check_draws(self.measures, queries, n)
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


def _check_draws(measures: Iterable[Measure], queries: list[str], n: np.ndarray) -> None:
    """Raises UserError if a Pass@N or Reward@N among the measures has fewer than N of the n[queries] draws of a query."""
    for measure in measures:
        few = np.flatnonzero(n < measure["cutoff"]) if measure.NAME in OF_DRAWS else ()
        if len(few):
            raise UserError(
                f"{measure} needs at least {measure['cutoff']} draws of every judged query; fewer: {len(few)} of "
                f"{len(queries)} queries, such as {queries[few[0]]!r} with {n[few[0]]}"
            )


class _PassProvider(providers.Provider):
    """Pass@N for ir_measures."""

    NAME = "irlens"
    SUPPORTED_MEASURES: ClassVar = [_Pass(cutoff=providers.base.Any(), rel=providers.base.Any())]

    def _evaluator(self, measures, qrels) -> _PassEvaluator:
        return _PassEvaluator(measures, ir_measures.util.QrelsConverter(qrels).as_dict_of_dict())


class _Reward(Measure):
    """The expected largest grade of that many draws taken at random from a query's draws: Pass for any real grade."""

    __name__ = "Reward"
    NAME = __name__
    PRETTY_NAME = "Reward at k"
    SHORT_DESC = "The expected largest grade, such as a reward, of k draws, estimated without bias from n >= k draws."
    SUPPORTED_PARAMS: ClassVar = {"cutoff": ParamInfo(dtype=int, required=True, desc="number of draws")}


class _RewardEvaluator(providers.Evaluator):
    """Grades may be any numbers; a row that nobody judged has grade 0."""

    def __init__(self, measures, qrels: dict[str, dict[str, float]]):
        super().__init__(measures, set(qrels))
        self.qrels = qrels

    def _iter_calc(self, run) -> Iterator[ir_measures.Metric]:
        run = ir_measures.util.RunConverter(run).as_dict_of_dict()
        queries = sorted(self.qrels)
        _check_draws(self.measures, queries, np.array([len(run.get(query, ())) for query in queries]))
        cutoffs = [measure["cutoff"] for measure in self.measures]
        for query in queries:
            grades = [float(self.qrels[query].get(doc_id, 0)) for doc_id in run[query]]
            for measure, value in zip(self.measures, expected_best(grades, grades, cutoffs)):
                yield ir_measures.Metric(query_id=query, measure=measure, value=float(value))


class _RewardProvider(providers.Provider):
    """Reward@k; needs no package but this one."""

    NAME = "irlens-reward"
    SUPPORTED_MEASURES: ClassVar = [_Reward(cutoff=providers.base.Any())]

    def _evaluator(self, measures, qrels) -> _RewardEvaluator:
        return _RewardEvaluator(measures, ir_measures.util.QrelsConverter(qrels).as_dict_of_dict())


def _register(measure: Measure, provider: providers.Provider) -> Measure:
    """The one measure of this name in this process, known to ir_measures' parser and default pipeline."""
    if measure.NAME not in ir_measures.measures.registry:
        ir_measures.measures.register(measure)
        known = providers.register(provider)
        ir_measures.DefaultPipeline.providers.insert(0, known)  # last, it would load every optional provider first
    return ir_measures.measures.registry[measure.NAME]


Pass = _register(_Pass(), _PassProvider())
Reward = _register(_Reward(), _RewardProvider())


# -- names ---------------------------------------------------------------------------------------------------------


def parse(measures: str | Iterable[str | Measure]) -> list[Measure]:
    """Measures in ir_measures' syntax, apart by spaces or commas ("Success@1, nDCG@10 P(rel=2)@5 Pass@10"), or a list.

    Repeats are dropped. Raises UserError: none at all, an unknown name, wrong or missing parameters, a measure that no
    installed provider can compute, one that needs more than qrels tell (subtopics).
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
    computed.check(measure)
    return measure


# -- evaluation ----------------------------------------------------------------------------------------------------


def evaluate(
    run: pd.DataFrame,
    qrels: pd.DataFrame,
    measures: str | Iterable[str | Measure],
    tag: str | None = None,
    complete: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(results, values per query) of a run, or of each `tag` in it as a run of its own.

    results: run, measure ("Pass@10"), cutoff (10; NA without one), value, low, high (`stats.mean_intervals` over
    queries), n (queries). Per query: run, query_id, measure, value. `tag` names a run without the column `tag`
    (default "run"); in a run with it, it chooses the one to evaluate.

    Success@N is ir_measures' own: is a hit among the first N by score? Of sampled draws, "the first N" is one random
    choice, so Success@N varies more, and depends on their order; Pass@N is its expectation over every choice of N draws
    and is the one to use for draws, while Success@N is for a ranking. Never mix them in one curve.

    A query counts if it is in the qrels: what the run lacks of them counts as 0 (as in ir_measures and trec_eval -c),
    but is refused for Pass@N; with `complete` off only the queries of the run count (trec_eval without -c). Scores are
    compared as trec_eval compares them: in 32 bits, ties in favour of the larger doc_id. A query for which a measure is
    not defined (Accuracy without a pair to compare) counts neither in its value nor in its n. Draws have their
    temperature in a column `temperature`. Reward@N, the expected largest grade of N draws, alone takes grades of any
    size, such as rewards. Raises UserError: tables that break their contract, an empty one, a query of the run that the
    qrels do not judge (`judged_part` leaves those out), fractional or huge relevance, fewer draws of a query than N, a
    measure that is defined for no query.
    """
    measures = parse(measures)
    qrels = _judgements(qrels, [measure for measure in measures if measure.NAME != "Reward"])
    computing = computed.Values(measures, qrels)
    results, per_query = [], []
    runs = list(_runs(run, tag))
    for name, part in runs:
        _check_judged(name, part, computing.queries)
    for name, part in runs:
        counts = part.groupby("query_id").size().reindex(computing.queries, fill_value=0)
        counted = np.flatnonzero(counts > 0) if not complete else np.arange(len(counts))
        queries = computing.queries[counted]
        try:
            _check_draws(measures, queries, counts.to_numpy()[counted])
            values = computing.of(_untied(part))[counted]
            table = _summary(name, measures, values, qrels["relevance"].between(0, 1).all())
        except UserError as error:
            raise UserError(f"run {name!r}: {error}") from None
        heat = temperature_of(part) if "temperature" in part.columns else None
        results.append(table if heat is None else _heated(table, heat))
        each = pd.DataFrame(
            {
                "run": name,
                "query_id": np.tile(queries.to_numpy(), len(measures)),
                "measure": np.repeat(np.array([str(measure) for measure in measures], dtype=object), len(queries)),
                "value": values.T.ravel(),
            }
        ).astype({"run": "str", "query_id": "str", "measure": "str"})
        each = each.dropna(subset="value")
        per_query.append(each if heat is None else _heated(each, heat))
    return pd.concat(results, ignore_index=True), pd.concat(per_query, ignore_index=True)


def _heated(table: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """`table` with a column `temperature` behind the run's name."""
    table.insert(1, "temperature", temperature)
    return table


def judged_part(run: pd.DataFrame, qrels: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """(the rows of `run` whose query is in the qrels, how many queries were left out), as trec_eval evaluates a run.

    Raises UserError if none is left.
    """
    judged = run["query_id"].isin(qrels["query_id"].unique())
    if not judged.any():
        raise UserError("run: none of its queries is in the qrels")
    return (run if judged.all() else run[judged]), int(run["query_id"][~judged].nunique())


def _summary(name: str, measures: list[Measure], values: np.ndarray, shares: bool) -> pd.DataFrame:
    """One run's rows of the results table from values[queries, measures], NaN where a measure is not defined.

    shares: whether all grades lie from 0 to 1.
    """
    defined = ~np.isnan(values)
    for measure, some in zip(measures, defined.any(axis=0)):
        if not some:
            raise UserError(f"{measure} is defined for none of its queries (no pair of documents to compare)")
    counts = np.array([isinstance(measure.aggregator(), ir_measures.measures.SumAgg) for measure in measures])
    low, high = np.empty(len(measures)), np.empty(len(measures))
    for j in range(len(measures)):
        unbounded = counts[j] or (measures[j].NAME == "Reward" and not shares)
        bounds = {"bounds": (-np.inf, np.inf)} if unbounded else {}
        low[[j]], high[[j]] = stats.mean_intervals(values[defined[:, j]][:, [j]], **bounds)
    scale = np.where(counts, len(values), 1)  # NumRet and its like are sums over queries, not means
    cutoffs = [measure.params.get("cutoff", pd.NA) for measure in measures]
    return pd.DataFrame(
        {
            "run": name,
            "measure": [str(measure) for measure in measures],
            "cutoff": pd.array(cutoffs, dtype="Int64"),
            "value": np.nanmean(values, axis=0) * scale,
            "low": low * scale,
            "high": high * scale,
            "n": defined.sum(axis=0),
        }
    ).astype({"run": "str", "measure": "str", "n": "int64"})


def _judgements(qrels: pd.DataFrame, whole: list[Measure]) -> pd.DataFrame:
    """`qrels` with whole relevance, as the measures in `whole` need it. Raises UserError, naming the row, for others."""
    tables.check(qrels, "qrels")
    if qrels.empty:
        raise UserError("the qrels are empty")
    relevance = pd.to_numeric(qrels["relevance"]).to_numpy(dtype=float)
    if not whole:
        return qrels.assign(relevance=relevance)
    for wrong, rule in (
        (relevance % 1 != 0, f"a whole number for {whole[0]} (Reward@N takes any)"),
        (np.abs(relevance) > tables.GRADE, f"at most {tables.GRADE:,} for a measure, in either direction"),
    ):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            where = f"row {row} (query_id={qrels['query_id'].iloc[row]}, doc_id={qrels['doc_id'].iloc[row]})"
            raise UserError(f"qrels: {where}: relevance must be {rule}, got {qrels['relevance'].tolist()[row]!r}")
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


def _check_judged(name: str, run: pd.DataFrame, judged: pd.Index) -> None:
    strangers = sorted(set(run["query_id"].unique()).difference(judged))
    if strangers:
        some = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
        raise UserError(f"run {name!r}: queries without any judged document in the qrels: {len(strangers)} ({some})")


def _untied(run: pd.DataFrame) -> pd.DataFrame:
    """`run` with strictly ordered 32-bit scores (trec_eval's): only ties within a query change anything."""
    scores = run.assign(score=pd.to_numeric(run["score"]).astype(np.float32))
    return tables.ranked(scores) if scores.duplicated(["query_id", "score"]).any() else scores
