"""Who prefers which text in `compare`: the reward model that scores all, or the judge of pairs, found before any work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import devices
from irlens.base.errors import UserError
from irlens.base.options import at_least, flags_of
from irlens.base.untrusted import file_name
from irlens.commands.exchange import Compare
from irlens.rerank import judge_names
from irlens.rerank.given import Given
from irlens.retrieve.policy import Say

if TYPE_CHECKING:
    import pandas as pd

    from irlens.commands.runs import Source
    from irlens.rerank.reranker import Scoring

OF_JUDGES = ("judge_tokens", "pairs")
SERVER = ("base_url", "served_model", "api_key_env", "concurrency", "timeout", "engine_args")


def at_server(settings: Compare) -> bool:
    """Whether the judge is asked at --base-url."""
    return settings.judge == judge_names.OWN


def check(settings: Compare) -> None:
    """Raises UserError for a judge's option without a judge, for measures of a judge that gives win rates alone, and for
    models that a server draws where it would be the judge's too."""
    idle = [f for f in fields(Compare) if f.name in OF_JUDGES and getattr(settings, f.name) != f.default]
    if idle and not settings.judge:
        raise UserError(f"{flags_of(idle)}: for a judge, and there is no --judge")
    if settings.judge and settings.measures:
        raise UserError("--measures: a judge of pairs gives win rates and no other values")
    at_least(1, pairs=settings.pairs, judge_tokens=settings.judge_tokens)
    if at_server(settings) and settings.engine == "openai":
        raise UserError(
            f"--judge {settings.judge}: --base-url names its server, so --engine openai has none; draw by `irlens sample` first"
        )


def drawing_alone(settings: Compare) -> Compare:
    """The settings of what draws: where the judge is at a server, that is not the server of the draws."""
    if not at_server(settings):
        return settings
    return replace(settings, **{f.name: f.default for f in fields(Compare) if f.name in SERVER})


def judge_of(settings: Compare) -> Scoring | None:
    """The judge of pairs that was asked for, reached; its task and folder are given later. Raises UserError: no such
    model, no server there, a reward model that scores texts alone."""
    if not settings.judge:
        return None
    from irlens.rerank.options import ScoringOptions

    shared = ("judge_tokens", "batch_size", *(SERVER if at_server(settings) else ("concurrency", "timeout")))
    options = ScoringOptions(**{name: getattr(settings, name) for name in shared})
    given = Given(options=options, seed=settings.seed, devices=devices.choose(settings.devices), where="--judge")
    found = None if judge_names.scores_alone(settings.judge) else judge_names.scoring(settings.judge, given)
    if found is None or not found.relative:
        raise UserError(f"--judge {settings.judge}: scores texts alone; --reward {settings.judge}")
    return found


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
    """The judge's preferences between runs that say what they answer; what it could not read, or its server refused, is said."""
    from irlens.measure import wins
    from irlens.rerank.judges import refused_in_words

    found = wins.preferences(runs, judge.using(folder=folder), settings.baseline, settings.pairs)
    facts = found.attrs.get("facts", {})
    if nonsense := facts.get("nonsense"):
        say(f"{nonsense // 2:,} of {facts['asked'] // 2:,} answers could not be read, asked twice: kept as ties")
    if line := refused_in_words(refused(found), f"--judge {settings.judge}", "comparisons"):
        say(line)
    return found


def refused(preferences: pd.DataFrame | None) -> Sequence[str]:
    """Of each comparison what the judge's server said that refused it, "" of the others; nothing where it refused none."""
    return () if preferences is None else preferences.attrs.get("refused", ())


def asked_in(source: Source) -> pd.DataFrame:
    """The run with what its responses answer, in the columns `query` and `messages`."""
    from irlens.models.chat import conversations

    task = source.task
    talks = conversations(task.topics, task.instruction)
    texts = dict(zip(task.topics["query_id"], task.topics["query"]))
    run = source.run
    return run.assign(query=run["query_id"].map(texts), messages=run["query_id"].map(talks))
