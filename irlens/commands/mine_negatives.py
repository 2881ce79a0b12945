"""Stage `mine-negatives`: the draws that the tiers need, their judges, and the lists mined from them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import at_least, one_of
from irlens.commands import runs
from irlens.commands.folder import OutputFolder
from irlens.commands.hardness import policy_scorer, write_hardness, write_temperatures
from irlens.commands.settings import Mine, heat
from irlens.negatives.neighbours import embedder, load_encoder, nearest_prompts
from irlens.retrieve.policy import Policy, Say, concat, default_out, identity, load_policy, train_split

if TYPE_CHECKING:
    import pandas as pd

    from irlens.negatives.choose import Screen
    from irlens.negatives.margin import Bound
    from irlens.negatives.mine import Mined
    from irlens.retrieve.dense import DenseEncoder
    from irlens.tasks.contract import Task

NEAR_COSINE = 0.95  # where no verifier knows better


@dataclass(frozen=True)
class _Given:
    """What was read and checked before any work: the tiers, a run to mine, rewards and what they are called, encoders, the
    data set for `easiest`."""

    tiers: list[str]
    source: runs.Source | None
    rewards: pd.DataFrame | None
    rewards_of: str
    encoder: DenseEncoder | None
    related: DenseEncoder | None
    other: Task | None = None

    @property
    def run(self) -> pd.DataFrame | None:
        """The draws to mine, where they are not to be drawn."""
        return self.source and self.source.run


def mine_negatives(settings: Mine, say: Say = print) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Samples what the tiers need (or takes `settings.run`), mines, and returns the folder, lists and report per tier.

    The folder holds lists.parquet, trl.jsonl, kto.jsonl, triplets.jsonl and tuples.jsonl; report.csv, skipped.csv,
    hardness.csv and its figure tiers.{png,pdf,csv}, temperatures.csv; the draws as run.parquet, and the manifest.
    Raises UserError: settings that do not go together, rewards that miss a draw, no positive or no negative at all.
    """
    from irlens.negatives import mine, tiers

    policy, given, bound = _read(settings, say)
    task = policy.task
    out = default_out(settings, policy.model.name, task.name)
    with OutputFolder(out, "mine-negatives", _identity(settings, policy, given)) as folder:
        own, foreign = _draws(settings, policy, given, out, say)
        files.write_parquet(own, out / "run.parquet")
        scorer = policy_scorer(policy, out)
        by_policy = "top-ranked" in given.tiers or ("margin" in given.tiers and given.rewards is None)
        score = functools.partial(_with_logprobs, task=task, scorer=scorer) if by_policy else None
        own = score(own, what="draws") if score else own
        judged = _judgements(own, task)
        positives = _positives(own, judged, task, settings, given, score)
        mined = mine.mine_negatives(
            task.topics,
            tiers.pools(given.tiers, own, foreign, _asked(task, given.other), _low(settings, given.tiers)),
            positives,
            _screen(settings, task, positives, given.encoder),
            _rules(settings, task, given, bound),
        )
        facts = _write(mined, policy, out, say)
        if judged is not None:
            write_temperatures(own, judged, out, say)
        if settings.hardness:
            embed = given.encoder and embedder(given.encoder)
            write_hardness(mined, own, task, given.tiers, scorer, embed, out, say)
        folder.note(**policy.facts(out), **facts, **_account(settings, policy, given, own, foreign))
    return out, mined.lists, mined.report


# -- before any work -----------------------------------------------------------------------------------------------


def _read(settings: Mine, say: Say) -> tuple[Policy, _Given, Bound]:
    """The policy with the prompts to mine, what else was given, and the margin's bound; all that can be refused is."""
    from irlens.negatives.tiers import parse_tiers

    tiers = parse_tiers(settings.tier)
    _check(settings, tiers)
    source = (
        runs.read(settings.run, settings.dataset, settings.split, thought=settings.thought) if settings.run else None
    )
    rewards, called = _rewards(settings, source)
    bound = _bound(settings, tiers, rewards)
    if source is not None:
        settings = replace(settings, dataset=source.dataset, split=source.split)
        if source.policy not in (None, settings.model):
            said = f"drawn by {source.policy}; log-probabilities are those of --model {settings.model}"
            say(f"--run {settings.run}: {said}")
    encoder = load_encoder(settings.encoder, "--encoder") if settings.encoder else None
    given = _Given(tiers, source, rewards, called, encoder, _related(settings, tiers, encoder))
    policy = load_policy(settings, train_split(settings), settings.limit, say, verified=rewards is None)
    if policy.task.verifier is None and settings.positives_from != "own":
        raise UserError(
            f"{policy.task.name} has no verifier: use --positives-from own, the draw with the highest reward"
        )
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
    if settings.embedding_threshold is not None and not settings.encoder:
        raise UserError("--embedding-threshold needs an --encoder, such as tiny-e5")


def _low(settings: Mine, tiers: list[str]) -> float | None:
    """The temperature of the tier hardest, where it is mined."""
    return settings.temperature[1] if "hardest" in tiers else None


def _temperatures(settings: Mine, tiers: list[str]) -> list[float]:
    return list(settings.temperature[: 1 + ("hardest" in tiers)])


def _rewards(settings: Mine, source: runs.Source | None) -> tuple[pd.DataFrame | None, str]:
    """The rewards of the draws, and what to call them: of --reward-run, or of the run that is mined, where it has any."""
    from irlens import tables
    from irlens.negatives.margin import as_rewards

    if settings.reward_run:
        called = f"--reward-run {settings.reward_run}"
        return as_rewards(tables.read_run(Path(settings.reward_run)), called), called
    called = f"--run {settings.run}"
    if source is None or "reward" not in source.run.columns:
        return None, called
    return as_rewards(source.run, called), called


def _bound(settings: Mine, tiers: list[str], rewards: pd.DataFrame | None) -> Bound:
    from irlens.negatives.margin import Bound

    for option, needed in (
        ("near-miss", "near-miss" in tiers),
        ("--reward-margin", settings.reward_margin is not None),
    ):
        if needed and rewards is None:
            raise UserError(f"{option} needs rewards: --reward-run FILE, the draws as `irlens rerank` scored them")
    return Bound("logprob" if rewards is None else "reward", settings.margin, settings.percentage).check()


def _related(settings: Mine, tiers: list[str], encoder: DenseEncoder | None) -> DenseEncoder | None:
    """The encoder that finds the nearest prompts for the tier easy, where one does."""
    if settings.related in ("random", "bm25") or "easy" not in tiers:
        return None
    same = encoder is not None and settings.related == settings.encoder
    return encoder if same else load_encoder(settings.related, "--related")


def _of_run(policy: Policy, given: _Given, settings: Mine, say: Say) -> tuple[Policy, _Given]:
    """The policy with the prompts that the run has draws of, and the run with these draws only."""
    from irlens.negatives.tiers import draws_at

    task, where = policy.task, f"--run {settings.run}"
    run = policy.marked(draws_at(given.source.run, task, _temperatures(settings, given.tiers), where))
    known = task.topics["query_id"].isin(run["query_id"])
    say(f"{where}: draws of {int(known.sum()):,} of {len(known):,} prompts; only these are mined")
    policy = replace(policy, task=replace(task, topics=task.topics[known].reset_index(drop=True)))
    return policy, replace(given, source=replace(given.source, run=run))


def _check_rewards(given: _Given, settings: Mine, task: Task) -> None:
    """Refuses rewards that miss a draw before it is drawn, and a gold solution's that the tier margin needs."""
    from irlens.negatives.margin import check_rewards
    from irlens.retrieve.sample import doc_id

    ids = given.run
    if ids is None:
        ids = [
            (query_id, doc_id(query_id, float(temperature), draw))
            for temperature in _temperatures(settings, given.tiers)
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


def _identity(settings: Mine, policy: Policy, given: _Given) -> dict:
    """The settings, and what was read from files by its content."""
    from pandas.util import hash_pandas_object

    def content(frame: pd.DataFrame | None) -> str | None:
        return frame if frame is None else f"{hash_pandas_object(frame[['query_id', 'doc_id', 'score']]).sum():016x}"

    more = {"run_content": content(given.run), "reward_content": content(given.rewards)}
    return identity(settings, policy, unrelated=given.other and given.other.name, **more)


# -- draws and judges ----------------------------------------------------------------------------------------------


def _draws(
    settings: Mine, policy: Policy, given: _Given, out: Path, say: Say
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The prompts' own draws (high temperature first; with rewards where known), and those of the unrelated prompts."""
    from irlens.negatives.margin import with_rewards

    asked, parts = policy.prompts(policy.task), []
    for temperature, name in zip(_temperatures(settings, given.tiers), ("draws-high", "draws-low")):
        if given.run is None:
            parts.append(policy.draw(asked, settings.n, [temperature], settings.seed_of("draws"), out / name, say))
        else:
            parts.append(given.run[given.run["temperature"] == temperature])
    own = concat(parts)
    if given.rewards is not None:
        own = with_rewards(own, given.rewards, given.rewards_of)
    if given.other is None:
        return own, None
    foreign = policy.prompts(given.other)
    enough = -(-2 * settings.per_tier * len(asked) // len(foreign))  # some will not do: unfinished, repeated
    high = [settings.temperature[0]]
    return own, policy.draw(foreign, enough, high, settings.seed_of("unrelated draws"), out / "draws-unrelated", say)


def _with_logprobs(rows: pd.DataFrame, what: str, task: Task, scorer) -> pd.DataFrame:
    """`rows` with every log-probability, under the policy where sampling did not tell it."""
    from irlens.negatives.margin import with_logprobs

    return with_logprobs(rows, scorer and (lambda some: scorer(task, some, what)))


def _judgements(own: pd.DataFrame, task: Task) -> pd.DataFrame | None:
    """The verifier's; without one, None: the reward judges."""
    from irlens.rerank.verify import verify

    return None if task.verifier is None else verify(own, task.topics, task.verifier)


def _positives(
    own: pd.DataFrame, judged: pd.DataFrame | None, task: Task, settings: Mine, given: _Given, score: Callable | None
) -> pd.DataFrame:
    """query_id, doc_id, text, and reward and logprob as far as they are known; the best-rewarded draw without a verifier.

    score: computes the log-probabilities that no draw tells (a gold solution's), where the tiers need them.
    """
    from irlens.negatives import tiers

    found = tiers.positives(task.topics, own, judged, settings.positives_from)
    known = own.drop_duplicates("doc_id").set_index("doc_id")
    found["logprob"] = found["doc_id"].map(known["logprob"]).astype(float)
    found = score(found, what="positives") if score else found
    if given.rewards is not None:
        rewards = given.rewards.drop_duplicates("doc_id").set_index("doc_id")["score"]
        found["reward"] = found["doc_id"].map(rewards).astype(float)
    return found


def _asked(task: Task, other: Task | None) -> dict[str, str]:
    """query_id → prompt in words, of the prompts that are mined and the unrelated ones."""
    parts = [one.topics for one in (other, task) if one is not None]
    return {query_id: query for topics in parts for query_id, query in zip(topics["query_id"], topics["query"])}


def _rules(settings: Mine, task: Task, given: _Given, bound: Bound):
    from irlens.negatives.mine import Rules

    wanted = settings.related != "random" and "easy" in given.tiers
    near = nearest_prompts(task.topics, given.related) if wanted else None
    return Rules(settings.per_tier, settings.seed_of("mining"), near, bound, settings.allow_reuse)


def _screen(settings: Mine, task: Task, positives: pd.DataFrame, encoder: DenseEncoder | None) -> Screen:
    """The false-negative filter. A verifier's word counts more than nearness, so that must be asked for beside it."""
    from irlens.negatives.false_negatives import false_negatives
    from irlens.negatives.tiers import accepts

    unverified = task.verifier is None
    threshold = settings.embedding_threshold or (NEAR_COSINE if unverified else None)
    margin = settings.reward_margin if settings.reward_margin is not None else (0.0 if unverified else None)
    options = {"text_threshold": settings.text_threshold, "reward_margin": margin, "accepts": accepts(task)}
    if encoder is not None and threshold is not None:
        options |= {"embed": embedder(encoder), "embedding_threshold": threshold}

    def screen(rows: pd.DataFrame) -> pd.Series:
        known = rows if "reward" in rows.columns else rows.assign(reward=float("nan"))
        with_reward = positives if "reward" in positives.columns else positives.assign(reward=float("nan"))
        return false_negatives(known, with_reward, **options)

    return screen


# -- what is written -----------------------------------------------------------------------------------------------


def _write(mined: Mined, policy: Policy, out: Path, say: Say) -> dict:
    """Lists in every form, the report, what was skipped, and the check for false negatives; returns facts."""
    from irlens.negatives import export
    from irlens.negatives.mine import why_none

    files.write_csv(mined.report, out / "report.csv")
    files.write_csv(mined.skipped, out / "skipped.csv")
    total = len(policy.task.topics)
    if mined.lists.empty:
        raise UserError(f"none of the {total} prompts has a negative in any tier ({why_none(mined.report)})")
    files.write_parquet(mined.lists, out / "lists.parquet")
    asked = policy.prompts(policy.task)
    chat = policy.options.chat or getattr(policy.tokenizer, "chat_template", None)
    counts = export.write_all(mined.lists, out, {p.query_id: list(p.messages) if chat else p.text for p in asked})
    if len(mined.skipped):
        reasons = mined.skipped.groupby("why").size()
        some = ", ".join(f"{count:,} have {why}" for why, count in reasons.items())
        first = mined.skipped["query_id"].iloc[0]
        say(f"{len(mined.skipped):,} of {total:,} prompts give no list ({some}; the first {first}): see skipped.csv")
    if counts["lists_without_tuple"]:
        say(f"tuples.jsonl leaves out {counts['lists_without_tuple']:,} lists with fewer negatives than the largest")
    facts = {"lists": int(mined.lists["query_id"].nunique()), "skipped": len(mined.skipped), "rows": counts}
    return facts | _left(mined.lists, policy.task, say)


def _left(lists: pd.DataFrame, task: Task, say: Say) -> dict:
    """How many negatives the verifier takes as right, said and as facts; nothing without a verifier."""
    from irlens.negatives.tiers import accepts

    right = accepts(task)
    if right is None:
        return {}
    negatives = lists[lists["tier"] != "positive"]
    left = sum(right(*pair) for pair in zip(negatives["query_id"], negatives["text"]))
    share = 100 * left / len(negatives)
    say(f"false negatives left, by the verifier: {left} of {len(negatives):,} ({share:.1f} %)")
    return {"false_negatives_left": left, "negatives": len(negatives)}


def _account(settings: Mine, policy: Policy, given: _Given, own: pd.DataFrame, foreign: pd.DataFrame | None) -> dict:
    """Where the prompts are from, and what was generated and judged."""
    tokens = 0 if settings.run else int(own["n_tokens"].sum())
    tokens += 0 if foreign is None else int(foreign["n_tokens"].sum())
    known = runs.data_of(settings.dataset or policy.model.dataset, policy.task.split)
    data = known if given.source is None else given.source.data()
    return {"data": data, "tokens_generated": tokens, "reward_calls": len(own)}
