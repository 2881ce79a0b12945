"""Stage `mine-negatives`: the draws that the tiers need, their judges, and the lists mined from them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.commands import finished, mining, runs
from irlens.commands.drawing import default_out, identity, store_of
from irlens.commands.folder import OutputFolder
from irlens.commands.hardness import policy_scorer, write_hardness, write_temperatures
from irlens.commands.settings import Mine
from irlens.negatives.neighbours import embedder, nearest_prompts
from irlens.retrieve.policy import Policy, Say, concat

if TYPE_CHECKING:
    import pandas as pd

    from irlens.negatives.choose import Screen
    from irlens.negatives.margin import Bound
    from irlens.negatives.mine import Mined
    from irlens.retrieve.encoder import DenseEncoder
    from irlens.tasks.contract import Task

NEAR_COSINE = 0.95  # where no verifier knows better


def mine_negatives(settings: Mine, say: Say = print) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Samples what the tiers need (or takes `settings.run`), mines, and returns the folder, lists and report per tier.

    The folder holds lists.parquet, trl.jsonl, kto.jsonl, triplets.jsonl and tuples.jsonl; report.csv, skipped.csv,
    hardness.csv and its figure tiers.{png,pdf,csv}, temperatures.csv; the draws as run.parquet, and the manifest.
    Raises UserError: settings that do not go together, rewards that miss a draw, no positive or no negative at all.
    """
    from irlens.negatives import mine, tiers

    policy, given, bound = mining.read(settings, say)
    task = policy.task
    out = default_out(settings, policy.name, task.name)
    kept = {"store": store_of(settings, out), "say": say, "asked": settings}
    with OutputFolder(out, "mine-negatives", _identity(settings, policy, given), **kept) as folder:
        if folder.finished:
            import pandas as pd

            return out, pd.read_parquet(out / "lists.parquet"), finished.table(out / "report.csv")
        own, foreign = _draws(settings, policy, given, out, say)
        own, given = _rewarded(own, task, given, out / "scores")
        files.write_parquet(own, out / "run.parquet")
        scorer = policy_scorer(policy, out)
        by_policy = "top-ranked" in given.tiers or ("margin" in given.tiers and not given.by_reward)
        score = functools.partial(_with_logprobs, task=task, scorer=scorer) if by_policy else None
        own = score(own, what="draws") if score else own
        judged = _judgements(own, task, say)
        positives = _positives(own, judged, task, settings, given, score, out / "scores-positives")
        mined = mine.mine_negatives(
            task.topics,
            tiers.pools(given.tiers, own, foreign, _asked(task, given.other), mining.low(settings, given.tiers)),
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


def _identity(settings: Mine, policy: Policy, given: mining.Given) -> dict:
    """The settings, and what was read from files by its content."""
    from pandas.util import hash_pandas_object

    def content(frame: pd.DataFrame | None) -> str | None:
        return frame if frame is None else f"{hash_pandas_object(frame[['query_id', 'doc_id', 'score']]).sum():016x}"

    more = {"run_content": content(given.run), "reward_content": content(given.rewards)}
    more |= {"reward_files": given.judge.identity} if given.judge else {}
    return identity(settings, policy, unrelated=given.other and given.other.name, **more)


# -- draws and judges ----------------------------------------------------------------------------------------------


def _draws(
    settings: Mine, policy: Policy, given: mining.Given, out: Path, say: Say
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The prompts' own draws (high temperature first; with rewards where known), and those of the unrelated prompts."""
    from irlens.negatives.margin import with_rewards
    from irlens.retrieve.sample import Draws

    asked, parts = policy.prompts(policy.task), []
    for temperature, name in zip(mining.temperatures(settings, given.tiers), ("draws-high", "draws-low")):
        if given.run is None:
            draws = Draws(settings.n, [temperature], settings.seed_of("draws"))
            parts.append(policy.draw(asked, draws, out / name, say))
        else:
            parts.append(given.run[given.run["temperature"] == temperature])
    own = concat(parts)
    if given.rewards is not None:
        own = with_rewards(own, given.rewards, given.rewards_of)
    if given.other is None:
        return own, None
    foreign = policy.prompts(given.other)
    enough = -(-2 * settings.per_tier * len(asked) // len(foreign))  # some will not do: unfinished, repeated
    draws = Draws(enough, [settings.temperature[0]], settings.seed_of("unrelated draws"))
    return own, policy.draw(foreign, draws, out / "draws-unrelated", say)


def _rewarded(own: pd.DataFrame, task: Task, given: mining.Given, scores: Path) -> tuple[pd.DataFrame, mining.Given]:
    """The draws with the rewards of --reward, all draws of a prompt in one list; as they were where none was asked for."""
    if given.judge is None:
        return own, given
    graded = given.judge.grade(own.assign(tag=""), task.topics, scores)
    rewards = graded[["query_id", "doc_id"]].assign(score=graded["relevance"].to_numpy(dtype=float))
    return own.assign(reward=rewards["score"].to_numpy()), replace(given, rewards=rewards)


def _with_logprobs(rows: pd.DataFrame, what: str, task: Task, scorer) -> pd.DataFrame:
    """`rows` with every log-probability, under the policy where sampling did not tell it."""
    from irlens.negatives.margin import with_logprobs

    return with_logprobs(rows, scorer and (lambda some: scorer(task, some, what)))


def _judgements(own: pd.DataFrame, task: Task, say: Say) -> pd.DataFrame | None:
    """The verifier's; without one, None: the reward judges."""
    from irlens.rerank.verify import not_judged_in_words, verify

    if task.verifier is None:
        return None
    qrels = verify(own, task.topics, task.verifier)
    if line := not_judged_in_words(qrels):
        say(line)
    return qrels


def _positives(
    own: pd.DataFrame,
    judged: pd.DataFrame | None,
    task: Task,
    settings: Mine,
    given: mining.Given,
    score: Callable | None,
    scores: Path,
) -> pd.DataFrame:
    """query_id, doc_id, text, and reward and logprob as far as they are known; the best-rewarded draw without a verifier.

    score: computes the log-probabilities that no draw tells (a gold solution's), where the tiers need them. scores: where
    the reward model's scores of such positives are kept.
    """
    import pandas as pd

    from irlens.negatives import tiers

    found = tiers.positives(task.topics, own, judged, settings.positives_from)
    known = own.drop_duplicates("doc_id").set_index("doc_id")
    found["logprob"] = found["doc_id"].map(known["logprob"]).astype(float)
    found = score(found, what="positives") if score else found
    if given.rewards is not None:
        rewards = given.rewards.drop_duplicates("doc_id").set_index("doc_id")["score"]
        found["reward"] = found["doc_id"].map(rewards).astype(float)
    unknown = found["reward"].isna() if given.judge is not None else pd.Series([False])
    if unknown.any():
        graded = given.judge.grade(found[unknown].assign(tag="", rank=0, score=0.0), task.topics, scores)
        found.loc[unknown, "reward"] = graded["relevance"].to_numpy(dtype=float)
    return found


def _asked(task: Task, other: Task | None) -> dict[str, str]:
    """query_id → prompt in words, of the prompts that are mined and the unrelated ones."""
    parts = [one.topics for one in (other, task) if one is not None]
    return {query_id: query for topics in parts for query_id, query in zip(topics["query_id"], topics["query"])}


def _rules(settings: Mine, task: Task, given: mining.Given, bound: Bound):
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


def _account(
    settings: Mine, policy: Policy, given: mining.Given, own: pd.DataFrame, foreign: pd.DataFrame | None
) -> dict:
    """Where the prompts are from, and what was generated and judged."""
    tokens = 0 if settings.run else int(own["n_tokens"].sum())
    tokens += 0 if foreign is None else int(foreign["n_tokens"].sum())
    dataset = settings.dataset or policy.entry.dataset
    known = runs.data_of(dataset, policy.task.split, settings.columns, settings.verifier)
    data = known if given.source is None else given.source.data()
    return {"data": data, "tokens_generated": tokens, "reward_calls": len(own)}
