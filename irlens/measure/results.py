"""Results as a table that knows its values per query: `irlens.measure`, `irlens.compare`, `irlens.best_of_n`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from irlens.base.errors import UserError, did_you_mean
from irlens.base.seeds import derive
from irlens.measure import best_of_n as picking
from irlens.measure import groups, power, stats, wins

if TYPE_CHECKING:
    from ir_measures import Measure

    from irlens.base.protocols import Reranker
    from irlens.tasks.contract import Task

KEYS = ("run", "judge", "tag", "temperature", "measure", "cutoff")  # what tells one value from another


class Results(pd.DataFrame):
    """A frame `run, measure, cutoff, value, low, high, n` (and `temperature` of draws), an interval on every value.

    `per_query` are the values that the rows are means of: `run, query_id, measure, value`. A selection of rows keeps
    those of its rows. `quality`, of `best_of_n`, says how well each reranker ranks all candidates. `seed`: of the
    random signs of the paired tests that `compare` makes.
    """

    _metadata: ClassVar = ["_each", "quality", "seed"]
    _each: pd.DataFrame | None = None
    quality: pd.DataFrame | None = None
    seed: int = 0

    @property
    def _constructor(self):
        return Results

    @property
    def per_query(self) -> pd.DataFrame:
        """`run, query_id, measure, value` of the rows that are here."""
        if self._each is None:
            raise UserError("these results know no values per query; take them from irlens.measure or irlens.best_of_n")
        keys = [c for c in KEYS if c in self.columns and c in self._each.columns]
        here = pd.DataFrame(self[keys]).drop_duplicates()
        return self._each.merge(here, on=keys) if len(here) else self._each.iloc[:0]


def results_of(
    table: pd.DataFrame, per_query: pd.DataFrame, seed: int = 0, quality: pd.DataFrame | None = None
) -> Results:
    """A results table with its values per query."""
    found = Results(table)
    found._each, found.quality, found.seed = per_query, quality, seed
    return found


def judgements_of(run: pd.DataFrame, qrels: pd.DataFrame) -> pd.DataFrame:
    """The qrels of the documents in `run`, if it is a model's draws; else all of them."""
    if "draw" not in run.columns:
        return qrels
    drawn, judged = (frame["doc_id"].astype(object) for frame in (run, qrels))  # pandas' strings take 20 times as long
    return qrels[judged.isin(drawn)]


def measure(
    run: pd.DataFrame,
    qrels: pd.DataFrame,
    measures: str | Iterable[str | Measure],
    seed: int = 0,
    *,
    complete: bool = True,
) -> Results:
    """What a run is worth by some qrels: ir_measures' measures, Pass@N and Reward@N, each with its 95 % interval.

    Each `tag` is a run of its own, as is each temperature of draws without tags. Draws (a column `draw`) are judged by
    their own qrels only; of a ranking a judged query that it lacks counts as 0, or not at all without `complete`.
    seed: of the tests that `compare` makes of it; measuring itself draws no random number. Raises UserError: see
    `irlens.measure.measures.evaluate`.
    """
    from irlens.measure import measures as computing

    if run.empty:
        raise UserError("the run is empty")
    parsed, drawn = computing.parse(measures), "draw" in run.columns
    apart = drawn or ("tag" not in run.columns and len(picking.pools(run)) > 1)
    parts = [run.iloc[rows] for rows in picking.pools(run).values()] if apart else [run]
    found = [computing.evaluate(part, judgements_of(part, qrels), parsed, complete=complete) for part in parts]
    table, per_query = (pd.concat(tables, ignore_index=True) for tables in zip(*found))
    return results_of(table, per_query, seed)


# -- comparing -----------------------------------------------------------------------------------------------------


def compare(
    *systems: Results | pd.DataFrame,
    measures: str | Sequence[str] | None = None,
    correction: str | None = "holm",
    seed: int | None = None,
    baseline: str | None = None,
) -> pd.DataFrame:
    """Paired tests of every two runs: before, after, measure, difference, low, high, p, effect, n, p_holm, detectable.

    systems: Results, or frames of values per query (query_id, measure, value, and run); one that holds several runs
    gives each of them. Runs of one name get the number of their argument. Preferences between systems
    (`irlens.preferences`) are tested too: the win rate against one half. difference: mean of after − before with its
    95 % interval; p: a paired randomisation test, adjusted over all rows by Holm's method ("holm"; None leaves it out);
    effect: Cohen's d_z; detectable: the smallest difference that the test would find four times in five at the level
    that Holm leaves it (`irlens.measure.power`). measures: some of those that all have; default all of these. baseline:
    the name of a run; each other one is tested against it alone. Raises UserError: fewer than two runs, a measure that
    one lacks, other queries on the two sides, a baseline that is none of the runs.
    """
    if correction not in ("holm", None):
        raise UserError(f"compare: {did_you_mean(str(correction), ('holm',))}, or None for no correction")
    given = [s for s in systems if not _are_preferences(s)]
    runs, rows, sides = _runs(given), [], []
    if len(runs) < 2 and (given or not systems):
        raise UserError(f"compare: needs two runs or more, got {len(runs)}")
    seed = next((s.seed for s in systems if isinstance(s, Results)), 0) if seed is None else seed
    for name in _measures(runs, measures) if runs else ():
        for a, b in groups.pairs(list(runs), baseline):
            before, after = _paired(runs[a][name], runs[b][name], a, b)
            test = stats.paired_test(before, after, seed=derive(seed, 0, "bootstrap"))
            rows.append({"before": a, "after": b, "measure": name, **asdict(test)})
            sides.append((before, after))
    for some in filter(_are_preferences, systems):
        more = wins.tested(some, seed)
        rows, sides = rows + more[0], sides + more[1]
    return _corrected(pd.DataFrame(rows), sides, correction)


def _are_preferences(system: object) -> bool:
    return isinstance(system, pd.DataFrame) and "preference" in system.columns


def _corrected(
    tests: pd.DataFrame, sides: Sequence[tuple[stats.Numbers, stats.Numbers]], correction: str | None = "holm"
) -> pd.DataFrame:
    """`tests` with p_holm over all of its rows, and what each could have seen of its two sides' values per query."""
    levels = power.holm_levels(tests["p"]) if correction else [power.ALPHA] * len(tests)
    if correction:
        tests = tests.assign(p_holm=stats.holm(tests["p"]))
    return tests.assign(detectable=[power.detectable(*both, level) for both, level in zip(sides, levels)])


def _runs(systems: Sequence[Results | pd.DataFrame]) -> dict[str, dict[str, pd.Series]]:
    """Label of each run → measure → values by query_id."""
    found = []
    for number, system in enumerate(systems, start=1):
        if not isinstance(system, pd.DataFrame):
            raise UserError(f"compare: argument {number} is no Results and no frame, but {type(system).__name__}")
        each = pd.DataFrame(system.per_query if isinstance(system, Results) else system)
        if missing := [c for c in ("query_id", "measure", "value") if c not in each.columns]:
            raise UserError(f"compare: argument {number} needs values per query; it has no column {missing[0]}")
        by = [c for c in ("run", "tag", "temperature") if c in each.columns]
        parts = each.groupby(by, sort=False, dropna=False) if by else [((), each)]
        several = each["temperature"].nunique() > 1 if "temperature" in by else False
        for key, part in parts:
            about = dict(zip(by, key if isinstance(key, tuple) else (key,)))
            heat = f", T = {about['temperature']:g}" if several and about["run"] == "run" else ""
            label = ", ".join(str(about[c]) for c in ("run", "tag") if c in about) or "run"
            found.append((label + heat, number, _by_measure(part, label)))
    labels = [label for label, _, _ in found]
    return {f"{la} ({number})" if labels.count(la) > 1 else la: values for la, number, values in found}


def _by_measure(part: pd.DataFrame, label: str) -> dict[str, pd.Series]:
    """Measure → values by query_id; best-of-N with its N."""
    names = part["measure"].astype(str)
    if "cutoff" in part.columns:
        names = names.where(~names.str.endswith("-N"), names.str.removesuffix("N") + part["cutoff"].astype(str))
    out = {name: rows.set_index("query_id")["value"] for name, rows in part.groupby(names, sort=False)}
    for name, values in out.items():
        if values.index.has_duplicates:
            raise UserError(
                f"compare: {label}: {name} has several values of query {values.index[values.index.duplicated()][0]}"
            )
    return out


def _measures(runs: Mapping[str, Mapping[str, pd.Series]], wanted: str | Sequence[str] | None) -> list[str]:
    """The measures asked for, else those that all runs have. Raises UserError for one that a run lacks."""
    common = [name for name in next(iter(runs.values())) if all(name in values for values in runs.values())]
    if wanted is None:
        if not common:
            raise UserError("compare: the runs have no measure in common")
        return common
    names = [str(name) for name in (wanted.split() if isinstance(wanted, str) else wanted)]
    for name in names:
        if lacking := [label for label, values in runs.items() if name not in values]:
            raise UserError(
                f"compare: {lacking[0]!r} was not measured by {name}; {did_you_mean(name, runs[lacking[0]])}"
            )
    return names


def _paired(before: pd.Series, after: pd.Series, a: str, b: str) -> tuple[list[float], list[float]]:
    """The values of both, query by query. Raises UserError where they are not of the same queries."""
    if set(before.index) != set(after.index):
        both = len(set(before.index) & set(after.index))
        raise UserError(
            f"compare: {a!r} ({len(before):,} queries) and {b!r} ({len(after):,}) share {both:,} queries; a paired test "
            "needs the same ones"
        )
    queries = sorted(before.index)
    return before[queries].tolist(), after[queries].tolist()


# -- best of N -----------------------------------------------------------------------------------------------------


def best_of_n(
    run: pd.DataFrame,
    qrels: pd.DataFrame,
    rerankers: str | Reranker | Sequence[str | Reranker | Callable],
    at: Sequence[int] | None = None,
    *,
    task: Task | None = None,
    seed: int = 0,
    right_from: float | None = None,
    **options: Any,
) -> Results:
    """What rerankers pick among N candidates of a query, expected over every choice of N: beside them the oracle, one draw
    at random, and the null of a reranker that reads texts, a random number for each distinct one.

    rerankers: names (see `irlens.reranker`; task and options are for these) or Rerankers. A vote holds its election
    among the N. at: the N; default 1, 3, 5, 10, … up to the candidates that each query has. qrels: a grade per draw, any
    real number; with `right_from` the least that is right, for RR and AUC in `.quality`. Returns run (the reranker's
    name), measure "best-of-N", cutoff, value, low, high, n, tag (the pool of candidates: a tag, or a temperature).
    Raises UserError: draws that are not judged, grades that are all alike, an N above the candidates.
    """
    from irlens.base.options import cutoffs
    from irlens.rerank.by_name import reranker

    grades = picking.grades_of(run, qrels)
    picking.check_grades(grades)
    several = [rerankers] if isinstance(rerankers, str) or callable(rerankers) else list(rerankers)
    named = [reranker(one, task, qrels=qrels, seed=seed, **options) for one in several]
    named = [one for one in named if one.name not in picking.ALWAYS]
    if len({one.name for one in named}) < len(named):
        raise UserError(f"best_of_n: rerankers of one name: {', '.join(one.name for one in named)}")
    n = cutoffs(picking.fewest(run), at)
    ready = {one.name: one.prepared(run) for one in (*named, reranker("random", seed=seed))}
    found = {"oracle": picking.Scores(grades)} | {name: one.score() for name, one in ready.items()}
    table, per_query, quality = picking.measured(run, grades, found, n, right_from, derive(seed, 0, "votes"))
    return results_of(table, per_query, seed, quality)
