"""Stage `rewardbench`: RewardBench 2's scores of a reranker, and the audit of it on these and on judged draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import at_least, cutoffs, identity
from irlens.commands import audit_pages, finished, runs
from irlens.commands.drawing import store_of
from irlens.commands.folder import OutputFolder
from irlens.commands.rerank import grades_digest, say_of_thoughts
from irlens.commands.reward_models import RewardBench
from irlens.commands.settings import heat
from irlens.rerank import by_name
from irlens.rerank.judges import cut_in_words
from irlens.retrieve.policy import Say

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.measure.audit import Audit
    from irlens.measure.results import Results
    from irlens.rerank.given import Given
    from irlens.rerank.reranker import Prepared, Scores, Scoring

BENCH = "RewardBench 2"


@dataclass(frozen=True)
class Part:
    """What a reranker is measured on, accepted by it: the benchmark, or judged draws (`at`: the N).

    called: in tables; about: what its result depends on beside the reranker; data: what the manifest tells of it.
    """

    called: str
    run: pd.DataFrame
    grades: np.ndarray
    scoring: Scoring
    ready: Prepared
    about: dict
    data: dict
    at: list[int] | None = None


def rewardbench(settings: RewardBench, say: Say = print) -> tuple[Path, pd.DataFrame | None, pd.DataFrame]:
    """Scores and measures; returns the folder, RewardBench 2's scores (None without it) and the audit's summary.

    The folder holds audit.md (the page), audit.csv, reliability.{png,pdf,csv}; of the benchmark results.csv,
    per_query.parquet and completions/ (run.parquet with the rewards, qrels.parquet); of draws picks.csv (true value, own
    number and gain over the null at every N), picks.parquet (the same per query) and over-optimisation.{png,pdf,csv}; shards/ of scores, and the manifest.
    Raises UserError: no reranker, rows or draws that are wrong, draws of several pools, what the reranker refuses.
    """
    _check(settings)
    where = _out(settings)
    parts = _parts(settings, where / "shards", say)
    kept = identity(settings, **{name: part.about for name, part in parts.items()})
    kept |= dict.fromkeys(("qrels", "temperature", "dataset", "split", "columns"))  # said by `run`
    with OutputFolder(where, "rewardbench", kept, store=store_of(settings, where), say=say, asked=settings) as folder:
        if folder.finished:
            bench = finished.table(where / "results.csv") if "data" in parts else None
            return where, bench, finished.table(where / "audit.csv")
        found = {name: part.ready.score() for name, part in parts.items()}
        bench = _benchmark(parts["data"], found["data"].scores, settings, where) if "data" in parts else None
        audits = {part.called: _audit(part, found[name], settings) for name, part in parts.items()}
        summary = _written(audits, bench, settings, where, any(part.scoring.relative for part in parts.values()))
        folder.note(reranker=settings.reranker, **_facts(parts, found, say))
    return where, bench, summary


def _check(settings: RewardBench) -> None:
    """Raises UserError for settings that cannot be meant."""
    if not settings.reranker:
        raise UserError("rewardbench: name the reranker with --reranker: a reward model's hub id or folder, length, …")
    at_least(0, resamples=settings.resamples)
    heat(temperature=settings.temperature)
    for name in ("qrels", "temperature", "at", "right_from"):
        if getattr(settings, name) is not None and not settings.run:
            raise UserError(f"--{name.replace('_', '-')} is about the draws of --run, which is not given")


def _out(settings: RewardBench) -> Path:
    if settings.out:
        return Path(settings.out)
    on = f"-{Path(settings.run).expanduser().resolve().name}" if settings.run else ""
    return Path("irlens-out") / f"rewardbench-{by_name.slug(settings.reranker or '')}{on}"[:120]


# -- what it is measured on ----------------------------------------------------------------------------------------


def _parts(settings: RewardBench, shards: Path, say: Say) -> dict[str, Part]:
    """`data` (the benchmark), `run` (the draws), or both, each read and accepted before anything is scored."""
    parts = {}
    if settings.data or not settings.run:
        parts["data"] = _bench(settings, shards / "rewardbench", say)
    if settings.run:
        parts["run"] = _draws(settings, shards / "draws", say)
    return parts


def _bench(settings: RewardBench, shards: Path, say: Say) -> Part:
    from irlens.base import devices
    from irlens.rerank.given import Given
    from irlens.tasks import rewardbench as benchmark

    place = settings.data or benchmark.HUB
    run, qrels, revision = benchmark.read(place)
    if lacking := [subset for subset in benchmark.SUBSETS if subset not in set(run["subset"])]:
        say(f"{place}: has no {', '.join(lacking)}: the mean of the six subsets is not given")
    given = Given(
        qrels=qrels,
        options=settings,
        seed=settings.seed,
        folder=shards,
        where=place,
        devices=devices.choose(settings.devices),
    )
    grades = qrels["relevance"].to_numpy(dtype=float)
    return _accepted(BENCH, run, grades, given, settings, {"content": revision}, {"benchmark": revision})


def _draws(settings: RewardBench, shards: Path, say: Say) -> Part:
    """The draws at one temperature, with their judgements."""
    from irlens.commands.best_of_n import at_temperatures, grades_of
    from irlens.measure import best_of_n as picking
    from irlens.measure.audit import one_pool

    told = (settings.dataset, settings.split, settings.verifier, settings.thought, settings.columns)
    source = runs.read(str(settings.run), *told)
    say_of_thoughts(source, settings.thought, say)
    source = at_temperatures(source, None if settings.temperature is None else (settings.temperature,))
    one_pool(source.run, "; --temperature names one")
    grades = grades_of(source, settings.qrels, say)
    at = cutoffs(picking.fewest(source.run), settings.at)
    given = source.given(settings, settings.seed, shards, settings.qrels)
    about = {"content": source.revision, "temperature": settings.temperature, "grades": grades_digest(grades)}
    found = _accepted(source.name, source.run, grades, given, settings, about | source.data(), source.data())
    return replace(found, at=at)


def _accepted(
    called: str, run: pd.DataFrame, grades: np.ndarray, given: Given, settings: RewardBench, about: dict, data: dict
) -> Part:
    scoring = by_name.build(str(settings.reranker), given)
    ready = scoring.prepared(run)
    return Part(called, run, grades, scoring, ready, about | {"reranker": ready.identity}, data)


def _facts(parts: Mapping[str, Part], found: Mapping[str, Scores], say: Say) -> dict:
    """What the manifest holds; what was read cut is said."""
    for name, one in found.items():
        if cut := one.facts.get("truncated"):
            say(cut_in_words(cut, len(parts[name].run), parts[name].scoring.name))
    return {
        "measured_on": {part.called: part.data for part in parts.values()},
        "rows": {part.called: len(part.run) for part in parts.values()},
        "scored": {parts[name].called: one.facts for name, one in found.items()},
        "reward_calls": sum(one.facts.get("reward_calls", 0) for one in found.values()),
    }


# -- what it finds -------------------------------------------------------------------------------------------------


def _benchmark(part: Part, scores: np.ndarray, settings: RewardBench, out: Path) -> Results:
    from irlens.measure import rewardbench as scoring
    from irlens.rerank.scoring import reranked

    name = part.scoring.name
    qrels = part.run[["query_id", "doc_id"]].assign(relevance=part.grades.astype(int))
    found = scoring.scored(part.run, qrels, scores, name, settings.resamples, settings.seed)
    files.write_csv(found, out / "results.csv")
    files.write_parquet(found.per_query, out / "per_query.parquet")
    files.write_parquet(reranked(part.run, scores, name), out / "completions" / "run.parquet")
    files.write_parquet(qrels, out / "completions" / "qrels.parquet")
    return found


def _audit(part: Part, found: Scores, settings: RewardBench) -> Audit:
    from irlens.measure.audit import audited

    right_from = settings.right_from if part.at else None
    return audited(
        part.run, part.grades, found, part.scoring.name, at=part.at, right_from=right_from, seed=settings.seed
    )


def _written(
    audits: Mapping[str, Audit], bench: Results | None, settings: RewardBench, out: Path, relative: bool
) -> pd.DataFrame:
    """The audit's tables, figures and page in the folder; returns its summary, the column `on` telling of what."""
    import pandas as pd

    summary = pd.concat([audit.summary.assign(on=on) for on, audit in audits.items()], ignore_index=True)
    files.write_csv(summary[["on", "measure", "value", "low", "high", "n"]], out / "audit.csv")
    if picks := [
        one.over_optimisation.assign(on=on) for on, one in audits.items() if one.over_optimisation is not None
    ]:
        files.write_csv(pd.concat(picks, ignore_index=True), out / "picks.csv")
        each = [one.picks.drop(columns="measure").assign(on=on) for on, one in audits.items() if one.picks is not None]
        files.write_parquet(pd.concat(each, ignore_index=True), out / "picks.parquet")
    figures = audit_pages.figures(audits, out)
    name = next(iter(audits.values())).name
    files.write_text(audit_pages.page(name, audits, bench, figures, relative), out / "audit.md")
    return finished.table(out / "audit.csv")
