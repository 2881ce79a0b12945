"""What `mine-negatives` is given: a policy and its prompts, a run, rewards, encoders; read and checked before any work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.base.options import at_least, one_of
from irlens.commands import runs
from irlens.commands.drawing import load_policy, train_split
from irlens.commands.settings import Mine, heat
from irlens.negatives.neighbours import load_encoder
from irlens.rerank import judges as judging
from irlens.retrieve.policy import Policy, Say

if TYPE_CHECKING:
    import pandas as pd

    from irlens.negatives.margin import Bound
    from irlens.rerank.judges import Judge
    from irlens.retrieve.encoder import DenseEncoder
    from irlens.tasks.contract import Task


@dataclass(frozen=True)
class Given:
    """What was read and checked before any work: the tiers, a run to mine, who rewards the draws, rewards that are known
    and what they are called, encoders, the data set for `easiest`."""

    tiers: list[str]
    source: runs.Source | None
    judge: Judge | None
    rewards: pd.DataFrame | None
    rewards_of: str
    encoder: DenseEncoder | None
    related: DenseEncoder | None
    other: Task | None = None

    @property
    def by_reward(self) -> bool:
        """Whether rewards are known, or will be once there are draws."""
        return self.rewards is not None or self.judge is not None

    @property
    def run(self) -> pd.DataFrame | None:
        """The draws to mine, where they are not to be drawn."""
        return self.source and self.source.run


def read(settings: Mine, say: Say) -> tuple[Policy, Given, Bound]:
    """The policy with the prompts to mine, what else was given, and the margin's bound; all that can be refused is."""
    from irlens.negatives.tiers import parse_tiers

    tiers = parse_tiers(settings.tier)
    _check(settings, tiers)
    source = None
    if settings.run:
        asked = (settings.dataset, settings.split, settings.verifier, settings.thought, settings.columns)
        source = runs.read(settings.run, *asked)
    rewards, called = _rewards(settings, source)
    bound = _bound(settings, tiers, rewards is not None or settings.reward is not None)
    if source is not None:
        told = {"columns": source.columns, "verifier": source.verifier_name}
        settings = replace(settings, dataset=source.dataset, split=source.split, **told)
        if source.policy not in (None, settings.model):
            said = f"drawn by {source.policy}; log-probabilities are those of --model {settings.model}"
            say(f"--run {settings.run}: {said}")
    encoder = load_encoder(settings.encoder, "--encoder") if settings.encoder else None
    given = Given(tiers, source, None, rewards, called, encoder, _related(settings, tiers, encoder))
    policy = load_policy(
        settings, train_split(settings), settings.limit, say, verified=rewards is None and not settings.reward
    )
    if policy.task.verifier is None and settings.positives_from != "own":
        raise UserError(
            f"{policy.task.name} has no verifier: use --positives-from own, the draw with the highest reward"
        )
    if settings.reward:
        judge = judging.of_reward(settings.reward, policy.task.instruction, say=say, devices=policy.devices)
        if judge.relative and settings.positives_from != "own":
            raise UserError(f"--reward {settings.reward}: its scores hold within one list; use --positives-from own")
        given = replace(given, judge=judge)
    if source is not None:
        policy, given = _of_run(policy, given, settings, say)
    if encoder is not None and policy.task.verifier is not None and settings.embedding_threshold is None:
        knows = "similarities are only reported, as the verifier knows better; --embedding-threshold removes by them"
        say(f"--encoder: {knows}")
    if rewards is not None:
        _check_rewards(given, settings, policy.task)
    other = policy.fitting(_unrelated(settings, policy.task), say) if "easiest" in tiers else None
    return policy, replace(given, other=other), bound


def _check(settings: Mine, tiers: list[str]) -> None:
    from irlens.negatives.false_negatives import check_thresholds
    from irlens.negatives.tiers import SOURCES

    at_least(1, n=settings.n, per_tier=settings.per_tier)
    at_least(1, max_tokens=settings.max_tokens)
    for temperature in settings.temperature:
        heat(temperature=temperature)
    given = ",".join(f"{t:g}" for t in settings.temperature)
    if len(settings.temperature) > 2:
        raise UserError(f"--temperature {given}: give a high one and a low one")
    if len(settings.temperature) == 2 and settings.temperature[1] >= settings.temperature[0]:
        raise UserError(
            f"--temperature {given}: the second must be below the first: the hardest negatives are the low-temperature ones"
        )
    if "hardest" in tiers and len(settings.temperature) < 2:
        raise UserError(f"--temperature {given}: the tier hardest needs a second, lower one, such as {given},0.7")
    if settings.positives_from == "correct":
        raise UserError("--positives-from 'correct' is now called 'own'")
    one_of(SOURCES, positives_from=settings.positives_from)
    check_thresholds(settings.text_threshold, settings.embedding_threshold, settings.reward_margin)
    if settings.reward and settings.reward_run:
        raise UserError("--reward and --reward-run: give one of them")
    if settings.embedding_threshold is not None and not settings.encoder:
        raise UserError("--embedding-threshold needs an --encoder, such as tiny-e5")


def low(settings: Mine, tiers: list[str]) -> float | None:
    """The temperature of the tier hardest, where it is mined."""
    return settings.temperature[1] if "hardest" in tiers else None


def temperatures(settings: Mine, tiers: list[str]) -> list[float]:
    return list(settings.temperature[: 1 + ("hardest" in tiers)])


def _rewards(settings: Mine, source: runs.Source | None) -> tuple[pd.DataFrame | None, str]:
    """The rewards of the draws, and what to call them: of --reward-run, or of the run that is mined, where it has any."""
    from irlens import tables
    from irlens.negatives.margin import as_rewards

    if settings.reward_run:
        called = f"--reward-run {settings.reward_run}"
        return as_rewards(tables.read_run(Path(settings.reward_run)), called), called
    called = f"--run {settings.run}"
    if settings.reward or source is None or "reward" not in source.run.columns:
        return None, called
    return as_rewards(source.run, called), called


def _bound(settings: Mine, tiers: list[str], rewarded: bool) -> Bound:
    from irlens.negatives.margin import Bound

    for option, needed in (
        ("near-miss", "near-miss" in tiers),
        ("--reward-margin", settings.reward_margin is not None),
    ):
        if needed and not rewarded:
            raise UserError(
                f"{option} needs rewards: --reward MODEL, or --reward-run FILE, the draws as `irlens rerank` scored them"
            )
    return Bound("reward" if rewarded else "logprob", settings.margin, settings.percentage).check()


def _related(settings: Mine, tiers: list[str], encoder: DenseEncoder | None) -> DenseEncoder | None:
    """The encoder that finds the nearest prompts for the tier easy, where one does."""
    if settings.related in ("random", "bm25") or "easy" not in tiers:
        return None
    same = encoder is not None and settings.related == settings.encoder
    return encoder if same else load_encoder(settings.related, "--related")


def _of_run(policy: Policy, given: Given, settings: Mine, say: Say) -> tuple[Policy, Given]:
    """The policy with the prompts that the run has draws of, and the run with these draws only."""
    from irlens.negatives.tiers import draws_at

    task, where = policy.task, f"--run {settings.run}"
    run = policy.marked(draws_at(given.source.run, task, temperatures(settings, given.tiers), where))
    known = task.topics["query_id"].isin(run["query_id"])
    say(f"{where}: draws of {int(known.sum()):,} of {len(known):,} prompts; only these are mined")
    policy = policy.for_task(replace(task, topics=task.topics[known].reset_index(drop=True)))
    return policy, replace(given, source=replace(given.source, run=run))


def _check_rewards(given: Given, settings: Mine, task: Task) -> None:
    """Refuses rewards that miss a draw before it is drawn, and a gold solution's that the tier margin needs."""
    from irlens.negatives.margin import check_rewards
    from irlens.retrieve.sample import doc_id

    ids = given.run
    if ids is None:
        ids = [
            (query_id, doc_id(query_id, float(temperature), draw))
            for temperature in temperatures(settings, given.tiers)
            for query_id in task.topics["query_id"]
            for draw in range(settings.n)
        ]
    gold = task.topics["query_id"] + "/gold" if settings.positives_from != "own" and "margin" in given.tiers else ()
    check_rewards(given.rewards, ids, list(gold), given.rewards_of)


def _unrelated(settings: Mine, task: Task) -> Task:
    from irlens import tasks

    other = tasks.load(settings.unrelated or task.unrelated, None, len(task.topics))
    if other.name == task.name:
        raise UserError(f"--unrelated {other.name}: must be another data set than the one that is mined")
    return other
