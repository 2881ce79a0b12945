"""Who prefers which text in `compare`: the reward model that scores all, or the judge of pairs, found before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import devices
from irlens.base.errors import UserError
from irlens.base.options import at_least, flags_of
from irlens.base.untrusted import file_name
from irlens.commands.exchange import Compare
from irlens.models import catalog
from irlens.retrieve.policy import Say

if TYPE_CHECKING:
    import pandas as pd

    from irlens.commands.runs import Source
    from irlens.rerank.reranker import Scoring

OF_JUDGES = ("judge_tokens", "pairs", "judge_key_env")


def check(settings: Compare) -> None:
    """Raises UserError for a judge's option without a judge, and for measures of a judge that gives win rates alone."""
    judge = settings.judge or settings.judge_url
    idle = [f for f in fields(Compare) if f.name in OF_JUDGES and getattr(settings, f.name) != f.default]
    if idle and not judge:
        raise UserError(f"{flags_of(idle)}: for a judge, and there is no --judge")
    if judge and settings.measures:
        raise UserError("--measures: a judge of pairs gives win rates and no other values")
    at_least(1, pairs=settings.pairs, judge_tokens=settings.judge_tokens)


def judge_of(settings: Compare) -> Scoring | None:
    """The judge of pairs that was asked for, reached; its task and folder are given later. Raises UserError: no such
    model, no server there, a reward model that scores texts alone."""
    if not (settings.judge or settings.judge_url):
        return None
    from irlens.rerank import by_name
    from irlens.rerank.given import Given
    from irlens.rerank.options import ScoringOptions

    shared = {name: getattr(settings, name) for name in ("judge_tokens", "batch_size", "concurrency", "timeout")}
    server = {"base_url": settings.judge_url, "api_key_env": settings.judge_key_env, "served_model": settings.judge}
    options = ScoringOptions(**shared, **(server if settings.judge_url else {}))
    given = Given(options=options, seed=settings.seed, devices=devices.choose(settings.devices), where="--judge")
    name = "judge" if settings.judge_url else _name(str(settings.judge))
    try:
        return by_name.build(name, given)
    except UserError as error:
        raise UserError(str(error).replace(f"--reranker {name}", f"--judge {settings.judge}")) from error


def _name(judge: str) -> str:
    """The reranker that a judge's name means: PairRM, or a chat model of this machine."""
    from irlens.rerank import pairrm

    folder, known = Path(judge).expanduser(), catalog.REWARDS.get(judge)
    last = judge.rpartition("/")[2]
    form = known.form if known else next((r.form for r in catalog.REWARDS.values() if r.repo.endswith("/" + last)), "")
    if form == "pairrm" or (folder.is_dir() and pairrm.is_layout(folder)):
        return judge if known else f"reward:{judge}"
    if form == "scalar" or _classifies(folder):
        raise UserError(f"--judge {judge}: a reward model that scores texts alone; --reward {judge}")
    return f"judge:{judge}"


def _classifies(folder: Path) -> bool:
    """Whether a folder's model is a classifier, as scalar reward models are."""
    import json

    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return any("SequenceClassification" in name for name in told.get("architectures") or ())


@dataclass(frozen=True)
class Grader:
    """What gives each response of a run a grade: qrels `grade(source, folder)`; a reward model's are its scores."""

    grade: Callable[[Source, str], pd.DataFrame]
    identity: str | None = None


def reward_of(settings: Compare, out: Path, say: Say) -> Grader | None:
    """The reward model that was asked for. Raises UserError for one that is not to be had, or compares pairs only."""
    if not settings.reward:
        return None
    from irlens.rerank import judges

    spread, name = devices.choose(settings.devices), settings.reward
    first = judges.of_reward(name, "", say=say, devices=spread)
    if first.relative:
        raise UserError(
            f"--reward {name}: its scores hold within one list; --judge {name} lets the texts of two systems compete"
        )

    def grade(source: Source, system: str) -> pd.DataFrame:
        task = source.task
        judge = judges.of_reward(name, task.instruction, say=say, devices=spread) if task.instruction else first
        run = source.run if "tag" in source.run.columns else source.run.assign(tag="run")
        return judge.grade(run, task.topics, out / "scores" / file_name(system))

    return Grader(grade, first.identity)


def preferred(
    judge: Scoring, runs: Mapping[str, pd.DataFrame], settings: Compare, folder: Path, say: Say
) -> pd.DataFrame:
    """The judge's preferences between runs that say what they answer; what it could not read is said."""
    from irlens.measure import wins

    found = wins.preferences(runs, judge.using(folder=folder), settings.baseline, settings.pairs)
    facts = found.attrs.get("facts", {})
    if nonsense := facts.get("nonsense"):
        say(f"{nonsense // 2:,} of {facts['asked'] // 2:,} answers could not be read, asked twice: kept as ties")
    return found


def asked_in(source: Source) -> pd.DataFrame:
    """The run with what its responses answer, in the columns `query` and `messages`."""
    from irlens.models.chat import conversations

    task = source.task
    talks = conversations(task.topics, task.instruction)
    texts = dict(zip(task.topics["query_id"], task.topics["query"]))
    run = source.run
    return run.assign(query=run["query_id"].map(texts), messages=run["query_id"].map(talks))
