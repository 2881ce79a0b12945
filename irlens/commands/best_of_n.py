"""Stage `best-of-n`: what rerankers pick among N candidates, against oracle and chance, and how well they rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import cutoffs
from irlens.base.untrusted import file_names
from irlens.commands import finished
from irlens.commands.drawing import store_of
from irlens.commands.evaluate import DRAWN
from irlens.commands.folder import OutputFolder
from irlens.commands.rerank import check_names, grades_digest, kept_of, source_of
from irlens.commands.runs import Source, qrels_of
from irlens.commands.settings import BestOfN
from irlens.rerank import by_name
from irlens.rerank.judges import cut_in_words, refused_in_words
from irlens.retrieve.policy import Say

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.measure.best_of_n import Picker
    from irlens.rerank.reranker import Prepared, Scores

SHOWN = {
    "oracle": "oracle (Pass@N)",
    "random": "random (one draw)",
    "random per text": "random per text (null)",
    "majority": "majority vote",
}


def best_of_n(settings: BestOfN, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Measures rerankers on a judged run; returns the folder and the results (run, tag, measure, cutoff, value, …).

    Of draws at several temperatures each is a pool of its own. Grades are judgements, or rewards where nothing else
    judges the run. The folder holds results.csv and per_query.parquet
    (best-of-N values), quality.csv (nDCG, RR, AUC, tau-b), tests.csv (each reranker against one draw, a random number per
    text and the majority vote, paired, Holm), best-of-n.{png,pdf,csv} (per pool), shards/ of scores, and the manifest.
    """
    from irlens.measure import best_of_n as picking
    from irlens.rerank.reranker import Scores

    source = at_temperatures(source_of(settings, say), settings.temperature)
    out = Path(settings.out or Path("irlens-out") / f"best-of-n-{source.name}")
    grades = grades_of(source, settings.qrels, say)
    at = cutoffs(picking.fewest(source.run), settings.at)
    ready = _ready(source, settings, out / "shards", say)
    kept = kept_of(settings, source, ready) | {"grades": grades_digest(grades), "at": at}
    kept["reranker"] = None  # `rerankers` tells those that the run allows
    with OutputFolder(out, "best-of-n", kept, store=store_of(settings, out), say=say, asked=settings) as folder:
        if folder.finished:
            return out, finished.table(out / "results.csv")
        found = {"oracle": Scores(grades)} | {name: one.score() for name, one in ready.items()}
        results, per_query, quality = picking.measured(
            source.run, grades, found, at, settings.right_from, settings.seed_of("votes")
        )
        files.write_csv(results, out / "results.csv")
        files.write_csv(quality, out / "quality.csv")
        files.write_parquet(per_query, out / "per_query.parquet")
        files.write_csv(picking.tests(per_query, settings.seed_of("bootstrap")), out / "tests.csv")
        draw(
            results, out / "best-of-n", source.name, (grades % 1 == 0).all() and 0 <= grades.min() <= grades.max() <= 1
        )
        folder.note(**_facts(source, settings, grades, found, say))
        if any(one.facts.get("refused") for one in found.values()):
            folder.asked = None  # those are asked again at the next start
    return out, results


def grades_of(source: Source, qrels: str | None, say: Say) -> np.ndarray:
    """[rows] the grade of each candidate. Raises UserError for draws that are not judged, or grades that are all alike."""
    from irlens.measure import best_of_n as picking

    found, called = qrels_of(source, qrels)
    grades = picking.grades_of(source.run, found, called)
    picking.check_grades(grades, called)
    if grades.min() < 0 or (grades.max() > 1 and (grades % 1 != 0).any()):  # rewards, such as a training's
        say(f"grades are {called}, from {grades.min():g} to {grades.max():g}")
    return grades


def _facts(source: Source, settings: BestOfN, grades: np.ndarray, found: dict[str, Scores], say: Say) -> dict:
    """What the manifest holds; what was read cut, or not judged, is said."""
    from irlens.measure.agreement import threshold

    calls = {name: one.facts for name, one in found.items() if one.facts}
    for name, facts in calls.items():
        if cut := facts.get("truncated"):
            say(cut_in_words(cut, len(source.run), name))
        refused = found[name].refused
        if refused is not None and (line := refused_in_words(refused, name)):
            say(line)
    right_from = threshold(grades) if settings.right_from is None else settings.right_from
    return {
        "data": source.data(),
        "policy": source.policy,
        "queries": int(source.run["query_id"].nunique()),
        "candidates": len(source.run),
        "right_from": right_from if right_from == right_from else None,
        "rerankers": calls,
        "reward_calls": sum(facts.get("reward_calls", 0) for facts in calls.values()),
    }


def at_temperatures(source: Source, wanted: Sequence[float] | None) -> Source:
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


def _ready(source: Source, settings: BestOfN, shards: Path, say: Say) -> dict[str, Prepared]:
    """The rerankers asked for, and chance; of the default ones those that the run allows."""
    from irlens.measure.best_of_n import ALWAYS

    given, ready = source.given(settings, settings.seed, shards, settings.qrels), {}
    for name in check_names(settings.reranker):
        if name in ALWAYS:
            continue
        try:
            ready[name] = by_name.build(name, given).prepared(source.run)
        except UserError as error:
            if settings.reranker != BestOfN.reranker:
                raise
            say(f"left out {name}: {error}")
    return ready | {"random": by_name.build("random", given).prepared(source.run)}


def picker(found: Scores, seed: int) -> Picker:
    """See `irlens.measure.best_of_n.picker`."""
    from irlens.measure import best_of_n as picking

    return picking.picker(found, seed)


def draw(results: pd.DataFrame, path: Path, name: str, binary: bool) -> None:
    """Expected grade of the pick against N, one curve per reranker; a figure per pool."""
    from irlens.measure.plots import curves as plots

    label = "share of problems solved" if binary else "expected grade of the pick"
    shown = SHOWN if binary else {}
    pools = list(results.groupby("tag", sort=False))
    marks = file_names((str(tag) for tag, _ in pools), _mark)
    for tag, table in pools:
        curves = table.assign(curve=table["run"].replace(shown), x=table["cutoff"])[DRAWN]
        mark = "" if len(pools) == 1 else f"-{marks[str(tag)]}"
        title = f"Best of N: {tag if 'T=' in str(tag) else name}"
        labels = {"x_label": "N (candidates per query)", "y_label": label}
        plots.curves(curves, path.with_name(path.name + mark), title=title, log_x=True, **labels)


def _mark(tag: str) -> str:
    """The part of a figure's name for a pool: "T0.7" of "tiny T=0.7"."""
    from irlens.measure.plots.style import SUFFIXES

    short = by_name.slug(tag.split(" ", 1)[-1].replace("=", ""))
    return f"{short}-" if short.endswith(SUFFIXES) else short  # which a figure's name would lose
