"""Stage `best-of-n`: what rerankers pick among N candidates, against oracle and chance, and how well they rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import cutoffs
from irlens.commands.evaluate import DRAWN
from irlens.commands.folder import OutputFolder
from irlens.commands.rerank import check_names, grades_digest, kept_of, say_of_thoughts
from irlens.commands.runs import Source, qrels_of, read
from irlens.commands.settings import BestOfN
from irlens.rerank import by_name as rerankers
from irlens.rerank.judges import cut_in_words
from irlens.retrieve.policy import Say, concat

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.measure.best_of_n import Picker
    from irlens.rerank.by_name import Reranker, Scores

ALWAYS = ("oracle", "random")
SHOWN = {"oracle": "oracle (Pass@N)", "random": "random (one draw)", "majority": "majority vote"}


def best_of_n(settings: BestOfN, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Measures rerankers on a judged run; returns the folder and the results (run, tag, measure, cutoff, value, …).

    Of draws at several temperatures each is a pool of its own. The folder holds results.csv and per_query.parquet
    (best-of-N values), quality.csv (nDCG, RR, AUC, tau-b), tests.csv (each reranker against chance and against the
    majority vote, paired, Holm), best-of-n.{png,pdf,csv} (per pool), shards/ of scores, and the manifest.
    """
    from irlens.measure import best_of_n as measured

    source = read(settings.run, settings.dataset, settings.split, settings.verifier, settings.thought)
    say_of_thoughts(source, settings.thought, say)
    source = _at_temperatures(source, settings.temperature)
    qrels, called = qrels_of(source, settings.qrels)
    grades = measured.grades_of(source.run, qrels, called)
    measured.check_grades(grades, called)
    at = cutoffs(int(source.run.groupby(_by(source.run)).size().min()), settings.at)
    ready = _ready(source, settings, say)
    kept = kept_of(settings, source, ready) | {"grades": grades_digest(grades), "at": at}
    kept["reranker"] = None  # `rerankers` tells those that the run allows
    out = Path(settings.out or Path("irlens-out") / f"best-of-n-{source.name}")
    with OutputFolder(out, "best-of-n", kept) as folder:
        found = {one.name: one.run(out / "shards") for one in ready}
        found = {"oracle": rerankers.Scores(grades), **found}
        results, per_query, quality = _measured(source.run, grades, found, at, settings)
        files.write_csv(results, out / "results.csv")
        files.write_csv(quality, out / "quality.csv")
        files.write_parquet(per_query, out / "per_query.parquet")
        files.write_csv(_tests(per_query, settings.seed_of("bootstrap")), out / "tests.csv")
        draw(results, out / "best-of-n", source.name, (grades % 1 == 0).all() and grades.max() <= 1)
        calls = {name: one.facts for name, one in found.items() if one.facts}
        for name, facts in calls.items():
            if cut := facts.get("truncated"):
                say(cut_in_words(cut, len(source.run), name))
        folder.note(
            data=source.data(),
            policy=source.policy,
            queries=int(source.run["query_id"].nunique()),
            candidates=len(source.run),
            right_from=_right_from(settings, grades),
            rerankers=calls,
            reward_calls=sum(facts.get("reward_calls", 0) for facts in calls.values()),
        )
    return out, results


def _by(run: pd.DataFrame) -> list[str]:
    return ["query_id", "tag"] if "tag" in run.columns else ["query_id"]


def _at_temperatures(source: Source, wanted: Sequence[float] | None) -> Source:
    """`source` with only the draws at these temperatures. Raises UserError for one that the run lacks."""
    if wanted is None:
        return source
    if "temperature" not in source.run.columns:
        raise UserError("--temperature: the run does not say at which temperature it was drawn")
    present = sorted(source.run["temperature"].unique())
    for value in wanted:
        if value not in present:
            raise UserError(f"--temperature {value:g}: the run has {', '.join(f'{t:g}' for t in present)}")
    return replace(source, run=source.run[source.run["temperature"].isin(wanted)].reset_index(drop=True))


def _ready(source: Source, settings: BestOfN, say: Say) -> list[Reranker]:
    """The rerankers asked for, and chance; of the default ones those that the run allows."""
    ready = []
    for name in check_names(settings.reranker):
        if name in ALWAYS:
            continue
        try:
            ready.append(rerankers.build(name, source, settings))
        except UserError as error:
            if settings.reranker != BestOfN.reranker:
                raise
            say(f"left out {name}: {error}")
    return [*ready, rerankers.build("random", source, settings)]


def _measured(
    run: pd.DataFrame, grades: np.ndarray, found: dict[str, Scores], at: list[int], settings: BestOfN
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(results, values per query, quality) with a column `tag` for the pool that the candidates compete in."""
    from irlens.measure import best_of_n as measured
    from irlens.measure.agreement import quality

    right_from = _right_from(settings, grades)
    results, per_query, qualities = [], [], []
    pools = run.groupby("tag", sort=False).indices if "tag" in run.columns else {"run": range(len(run))}
    for tag, rows in pools.items():
        rows = list(rows)
        part, own = run.iloc[rows], {name: _of(one, rows) for name, one in found.items()}
        pick = {name: picker(one, settings.seed_of("votes")) for name, one in own.items()}
        pick["random"] = measured.by_scores(
            grades[rows] * 0
        )  # its expectation, not the one order that it happens to give
        parts = (
            *measured.curves(part, grades[rows], pick, at),
            quality(part, grades[rows], {name: one.scores for name, one in own.items()}, right_from),
        )
        for table, into in zip(parts, (results, per_query, qualities)):
            into.append(table.assign(tag=str(tag)))
    return concat(results), concat(per_query), concat(qualities)


def _right_from(settings: BestOfN, grades: np.ndarray) -> float:
    from irlens.measure.agreement import threshold

    return threshold(grades) if settings.right_from is None else settings.right_from


def _of(one: Scores, rows: list[int]) -> Scores:
    """What a reranker says of some rows."""
    return replace(
        one,
        scores=one.scores[rows],
        answers=None if one.answers is None else [one.answers[row] for row in rows],
        weights=None if one.weights is None else one.weights[rows],
    )


def picker(found: Scores, seed: int) -> Picker:
    """How a reranker picks among N: by its scores, or by an election that N draws hold among themselves."""
    from irlens.measure.best_of_n import by_scores
    from irlens.rerank.vote import expected_vote_accuracy

    if found.answers is None:
        return by_scores(found.scores)

    def elect(rows: np.ndarray, grades: np.ndarray, at: Sequence[int]) -> np.ndarray:
        answers = [found.answers[row] for row in rows]
        weights = None if found.weights is None else found.weights[rows]
        return expected_vote_accuracy(answers, grades, at, seed=seed, weights=weights)

    return elect


def _tests(per_query: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Each reranker against chance and against the majority vote at every N above 1, paired over queries, Holm over all."""
    import pandas as pd

    from irlens.measure import stats

    rows = []
    some = per_query[per_query["cutoff"] > 1]
    for (tag, cutoff), group in some.groupby(["tag", "cutoff"], sort=False):
        values = {name: part.sort_values("query_id")["value"].to_numpy() for name, part in group.groupby("run")}
        for before in ("random", "majority"):
            for after in values:
                if before in values and after not in (*ALWAYS, before) and (before, after) != ("majority", "random"):
                    test = stats.paired_test(values[before], values[after], seed=seed)
                    rows.append({"tag": tag, "cutoff": cutoff, "before": before, "after": after, **asdict(test)})
    tests = pd.DataFrame(rows)
    return tests.assign(p_holm=stats.holm(tests["p"])) if rows else tests


def draw(results: pd.DataFrame, path: Path, name: str, binary: bool) -> None:
    """Expected grade of the pick against N, one curve per reranker; a figure per pool."""
    from irlens.measure.plots import curves as plots

    label = "share of problems solved" if binary else "expected grade of the pick"
    shown = SHOWN if binary else {}
    pools = list(results.groupby("tag", sort=False))
    for tag, table in pools:
        curves = table.assign(curve=table["run"].replace(shown), x=table["cutoff"])[DRAWN]
        mark = "" if len(pools) == 1 else "-" + rerankers.slug(str(tag).split(" ", 1)[-1].replace("=", ""))
        title = f"Best of N: {tag if 'T=' in str(tag) else name}"
        labels = {"x_label": "N (candidates per query)", "y_label": label}
        plots.curves(curves, path.with_name(path.name + mark), title=title, log_x=True, **labels)
