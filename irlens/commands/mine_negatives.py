"""Stage `mine-negatives`: the draws that the tiers need, their judges, and the lists mined from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError, did_you_mean
from irlens.base.options import at_least
from irlens.commands import runs
from irlens.commands.drawing import default_out, identity, load_policy, train_split
from irlens.commands.folder import OutputFolder
from irlens.commands.hardness import policy_scorer, write_hardness, write_temperatures
from irlens.commands.settings import Mine, heat
from irlens.negatives.neighbours import embedder, load_encoder, nearest_prompts
from irlens.retrieve.policy import Policy, Say, concat

if TYPE_CHECKING:
    import pandas as pd

    from irlens.commands.hardness import Scorer
    from irlens.retrieve.encoder import DenseEncoder
    from irlens.tasks.contract import Task

POSITIVES = ("gold", "correct", "both")
NEAR_COSINE = 0.95  # where no verifier knows better


@dataclass(frozen=True)
class _Given:
    """What was read and checked before any work: a run to mine, its rewards, encoders, the data set for `easiest`."""

    run: pd.DataFrame | None
    data: dict | None  # where the run's prompts are from
    rewards: pd.DataFrame | None
    encoder: DenseEncoder | None
    related: DenseEncoder | None
    other: Task | None


def mine_negatives(settings: Mine, say: Say = print) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Samples what the tiers need (or takes `settings.run`), mines, and returns the folder, lists and report per tier.

    The folder holds lists.parquet, trl.jsonl, kto.jsonl, triplets.jsonl and tuples.jsonl; report.csv, skipped.csv,
    hardness.csv and its figure tiers.{png,pdf,csv}, temperatures.csv; the draws as run.parquet, and the manifest.
    Raises UserError: settings that do not go together, rewards that miss a draw, no positive or no negative at all.
    """
    from irlens.negatives import mine
    from irlens.negatives.margin import Bound

    tiers = mine.parse_tiers(settings.tiers)
    _check(settings, tiers)
    bound = Bound("reward" if settings.reward_run else "logprob", settings.margin, settings.percentage).check()
    policy, given = _read(settings, tiers, say)
    task = policy.task
    out = default_out(settings, policy.name, task.name)
    with OutputFolder(out, "mine-negatives", _identity(settings, policy, given)) as folder:
        own, foreign = _draws(settings, policy, given, tiers, out, say)
        files.write_parquet(own, out / "run.parquet")
        scorer = policy_scorer(policy, out)
        by_policy = "top-ranked" in tiers or ("margin" in tiers and given.rewards is None)
        own = _with_logprobs(own, task, scorer, "draws") if by_policy else own
        judged = _judgements(own, task)
        positives = _positives(own, judged, task, settings, given, scorer if by_policy else None)
        near = nearest_prompts(task.topics, given.related) if _related(settings, tiers) else None
        mined = mine.mine_negatives(
            task.topics,
            _pools(settings, task, tiers, own, foreign, given.other),
            positives,
            _screen(settings, task, positives, given.encoder),
            settings.per_tier,
            settings.seed_of("mining"),
            neighbours=near,
            bound=bound,
            allow_reuse=settings.allow_reuse,
        )
        facts = _write(mined, settings, policy, given, out, say)
        if judged is not None:
            write_temperatures(own, judged, out, say)
        if settings.hardness:
            embed = given.encoder and embedder(given.encoder)
            write_hardness(mined, own, task, tiers, scorer, embed, out, say)
        tokens = 0 if settings.run else int(own["n_tokens"].sum())
        tokens += 0 if foreign is None else int(foreign["n_tokens"].sum())
        data = runs.data_of(settings.dataset or policy.entry.dataset, task.split) if given.run is None else given.data
        folder.note(**policy.facts(out), **facts, data=data, tokens_generated=tokens, reward_calls=len(own))
    return out, mined.lists, mined.report


# -- before any work -----------------------------------------------------------------------------------------------


def _check(settings: Mine, tiers: list[str]) -> None:
    from irlens.negatives.false_negatives import check_thresholds

    at_least(1, n=settings.n, per_tier=settings.per_tier)
    at_least(1, max_tokens=settings.max_tokens)
    heat(hard_temperature=settings.hard_temperature, hardest_temperature=settings.hardest_temperature)
    if settings.hardest_temperature >= settings.hard_temperature:
        raise UserError(
            f"--hardest-temperature {settings.hardest_temperature:g} must be below --hard-temperature "
            f"{settings.hard_temperature:g}: the hardest negatives are the low-temperature ones"
        )
    if settings.positives not in POSITIVES:
        raise UserError(f"--positives {settings.positives!r}; {did_you_mean(settings.positives, POSITIVES)}")
    check_thresholds(settings.text_threshold, settings.embedding_threshold, settings.reward_margin)
    if settings.embedding_threshold is not None and not settings.encoder:
        raise UserError("--embedding-threshold needs an --encoder, such as tiny-e5")
    for option, needed in (
        ("near-miss", "near-miss" in tiers),
        ("--reward-margin", settings.reward_margin is not None),
    ):
        if needed and not settings.reward_run:
            raise UserError(f"{option} needs rewards: --reward-run FILE, the draws as `irlens rerank` scored them")


def _related(settings: Mine, tiers: list[str]) -> bool:
    return settings.related != "random" and "easy" in tiers


def _read(settings: Mine, tiers: list[str], say: Say) -> tuple[Policy, _Given]:
    from irlens import tables
    from irlens.negatives.margin import as_rewards

    given = (settings.run, settings.dataset, settings.split)
    source = runs.read(*given, thought=settings.thought) if settings.run else None
    if source is not None:
        settings = replace(settings, dataset=source.dataset, split=source.split)
        if source.policy not in (None, settings.model):
            say(
                f"--run {settings.run}: drawn by {source.policy}; log-probabilities are those of --model {settings.model}"
            )
    run = source and source.run
    rewards = None
    if settings.reward_run:
        rewards = as_rewards(tables.read_run(Path(settings.reward_run)), f"--reward-run {settings.reward_run}")
    encoder = load_encoder(settings.encoder, "--encoder") if settings.encoder else None
    related = None
    if _related(settings, tiers) and settings.related != "bm25":
        same = encoder is not None and settings.related == settings.encoder
        related = encoder if same else load_encoder(settings.related, "--related")
    policy = load_policy(settings, train_split(settings), settings.limit, say, verified=rewards is None)
    if policy.task.verifier is None and settings.positives != "correct":
        raise UserError(
            f"{policy.task.name} has no verifier: use --positives correct, the draw with the highest reward"
        )
    if run is not None:
        run = policy.marked(_checked_run(run, settings, tiers, policy.task))
        known = policy.task.topics["query_id"].isin(run["query_id"])
        say(f"--run {settings.run}: draws of {int(known.sum()):,} of {len(known):,} prompts; only these are mined")
        policy = policy.for_task(replace(policy.task, topics=policy.task.topics[known].reset_index(drop=True)))
    if encoder is not None and policy.task.verifier is not None and settings.embedding_threshold is None:
        say(
            "--encoder: similarities are only reported, as the verifier knows better; --embedding-threshold removes by them"
        )
    if rewards is not None:
        _check_rewards(rewards, run, settings, tiers, policy.task)
    other = policy.fitting(_unrelated(settings, policy.task), say) if "easiest" in tiers else None
    return policy, _Given(run, source and source.data(), rewards, encoder, related, other)


def _checked_run(run: pd.DataFrame, settings: Mine, tiers: list[str], task: Task) -> pd.DataFrame:
    where = f"--run {settings.run}"
    missing = [c for c in ("text", "temperature") if c not in run.columns]
    if missing:
        raise UserError(f"{where}: needs a model's draws; columns missing: {', '.join(missing)}")
    run = run[run["query_id"].isin(task.topics["query_id"])].reset_index(drop=True)
    if run.empty:
        raise UserError(
            f"{where}: no draw for any of the {len(task.topics)} prompts of {task.name}, split {task.split}; is it of "
            f"another --split or --dataset?"
        )
    wanted, there = _temperatures(settings, tiers), sorted(run["temperature"].unique())
    for temperature in wanted:
        if temperature not in there:
            raise UserError(
                f"{where}: no draws at T = {temperature:g}; there are: {', '.join(f'{t:g}' for t in there)}"
            )
    run = run[run["temperature"].isin(wanted)].reset_index(drop=True)
    defaults = {"finish_reason": "stop", "logprob": float("nan"), "n_tokens": 0}
    return run.assign(**{name: value for name, value in defaults.items() if name not in run.columns})


def _temperatures(settings: Mine, tiers: list[str]) -> list[float]:
    return [settings.hard_temperature] + [settings.hardest_temperature] * ("hardest" in tiers)


def _check_rewards(rewards: pd.DataFrame, run, settings: Mine, tiers: list[str], task: Task) -> None:
    """Refuses rewards that miss a draw, before it is drawn: draws have their identifiers beforehand."""
    import pandas as pd

    from irlens.negatives.margin import with_rewards
    from irlens.retrieve.sample import doc_id

    if run is None:
        ids = [
            (query_id, doc_id(query_id, float(temperature), draw))
            for temperature in _temperatures(settings, tiers)
            for query_id in task.topics["query_id"]
            for draw in range(settings.n)
        ]
        run, rewards = pd.DataFrame(ids, columns=["query_id", "doc_id"]), rewards.drop(columns="text", errors="ignore")
    with_rewards(run, rewards, f"--reward-run {settings.reward_run}")
    gold = task.topics["query_id"] + "/gold"
    missing = ~gold.isin(rewards["doc_id"])
    if "margin" in tiers and settings.positives != "correct" and missing.any():
        raise UserError(
            f"--reward-run {settings.reward_run}: no score for the positive {gold[missing].iloc[0]}, which the tier margin "
            f"needs; score the gold solutions too, or use --positives correct"
        )


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
    settings: Mine, policy: Policy, given: _Given, tiers: list[str], out: Path, say: Say
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The prompts' own draws (high temperature first; with rewards where known), and those of the unrelated prompts."""
    from irlens.negatives.margin import with_rewards
    from irlens.retrieve.sample import Draws

    asked, parts = policy.prompts(policy.task), []
    for temperature, name in zip(_temperatures(settings, tiers), ("draws-high", "draws-low")):
        if given.run is None:
            draws = Draws(settings.n, [temperature], settings.seed_of("draws"))
            parts.append(policy.draw(asked, draws, out / name, say))
        else:
            parts.append(given.run[given.run["temperature"] == temperature])
    own = concat(parts)
    if given.rewards is not None:
        own = with_rewards(own, given.rewards, f"--reward-run {settings.reward_run}")
    if given.other is None:
        return own, None
    foreign = policy.prompts(given.other)
    enough = -(-2 * settings.per_tier * len(asked) // len(foreign))  # some will not do: unfinished, repeated
    draws = Draws(enough, [settings.hard_temperature], settings.seed_of("unrelated draws"))
    return own, policy.draw(foreign, draws, out / "draws-unrelated", say)


def _with_logprobs(rows: pd.DataFrame, task: Task, scorer: Scorer | None, what: str) -> pd.DataFrame:
    """`rows` with every log-probability: those that sampling did not tell are computed under the policy."""
    unknown = rows["logprob"].isna()
    if not unknown.any():
        return rows
    if scorer is None:
        raise UserError(
            f"{int(unknown.sum()):,} responses have no log-probability, and the server holds the policy's weights: leave "
            f"out the tiers top-ranked and margin, or use another engine"
        )
    out = rows.copy()
    out.loc[unknown, "logprob"] = scorer(task, rows[unknown], what)["logprob"].to_numpy()
    return out


def _judgements(own: pd.DataFrame, task: Task) -> pd.DataFrame | None:
    """The verifier's; without one, None: the reward judges."""
    from irlens.rerank.verify import verify

    return None if task.verifier is None else verify(own, task.topics, task.verifier)


def _positives(own, judged, task: Task, settings: Mine, given: _Given, scorer: Scorer | None) -> pd.DataFrame:
    """query_id, doc_id, text, and reward and logprob as far as they are known; the best-rewarded draw without a verifier.

    With a scorer, log-probabilities that no draw tells (a gold solution's) are computed.
    """
    from irlens.negatives.lists import OPTIONAL
    from irlens.negatives.mine import positives_from

    if judged is None:
        ended = own[(own["finish_reason"] != "length") & (own["text"].str.strip() != "")]
        best = ended.sort_values(["reward", "doc_id"], ascending=[False, True], kind="stable").drop_duplicates(
            "query_id"
        )
        known = ["query_id", "doc_id", "text", *(c for c in OPTIONAL if c in best.columns)]
        found = best[known].reset_index(drop=True)
    else:
        found = positives_from(task.topics, own, judged, settings.positives)
    if found.empty:
        raise UserError(
            f"none of the {len(task.topics)} prompts has a right draw, so there is no positive; use --positives gold, more "
            f"draws (-n), or a model that solves some of them"
        )
    scores = own.drop_duplicates("doc_id").set_index("doc_id")
    found["logprob"] = found["doc_id"].map(scores["logprob"]).astype(float)
    found = found if scorer is None else _with_logprobs(found, task, scorer, "positives")
    if given.rewards is not None:
        found["reward"] = found["doc_id"].map(given.rewards.drop_duplicates("doc_id").set_index("doc_id")["score"])
        found["reward"] = found["reward"].astype(float)
    return found


def _pools(settings: Mine, task: Task, tiers: list[str], own, foreign, other: Task | None) -> dict[str, pd.DataFrame]:
    """What each tier chooses from."""
    high = own[own["temperature"] == settings.hard_temperature]
    pools = {"easy": high.assign(query=high["query_id"].map(dict(zip(task.topics["query_id"], task.topics["query"]))))}
    pools |= {"hard": high, "hardest": own[own["temperature"] == settings.hardest_temperature]}
    if other is not None:
        asked = dict(zip(other.topics["query_id"], other.topics["query"]))
        pools["easiest"] = foreign.assign(query=foreign["query_id"].map(asked))
    return {tier: pools.get(tier, own) for tier in tiers}


def _screen(settings: Mine, task: Task, positives: pd.DataFrame, encoder: DenseEncoder | None):
    """The false-negative filter. A verifier's word counts more than nearness, so that must be asked for beside it."""
    from irlens.negatives.false_negatives import false_negatives

    unverified = task.verifier is None
    threshold = settings.embedding_threshold or (NEAR_COSINE if unverified else None)
    margin = settings.reward_margin if settings.reward_margin is not None else (0.0 if unverified else None)
    options = {"text_threshold": settings.text_threshold, "reward_margin": margin, "accepts": _accepts(task)}
    if encoder is not None and threshold is not None:
        options |= {"embed": embedder(encoder), "embedding_threshold": threshold}

    def screen(rows: pd.DataFrame) -> pd.Series:
        known = rows if "reward" in rows.columns else rows.assign(reward=float("nan"))
        with_reward = positives if "reward" in positives.columns else positives.assign(reward=float("nan"))
        return false_negatives(known, with_reward, **options)

    return screen


def _accepts(task: Task):
    """(query_id, text) → whether the verifier takes it as right; None without a verifier."""
    if task.verifier is None:
        return None
    answers = dict(zip(task.topics["query_id"], task.topics["answers"]))
    return lambda query_id, text: any(task.verifier(text, gold) for gold in answers[query_id])


# -- what is written -----------------------------------------------------------------------------------------------


def _write(mined, settings: Mine, policy: Policy, given: _Given, out: Path, say: Say) -> dict:
    """Lists in every form, the report, what was skipped, and the check for false negatives; returns facts."""
    from irlens.negatives import export

    files.write_csv(mined.report, out / "report.csv")
    files.write_csv(mined.skipped, out / "skipped.csv")
    total = len(policy.task.topics)
    if mined.lists.empty:
        why = "; ".join(f"{tier}: {_why(row)}" for tier, row in mined.report.set_index("tier").iterrows())
        raise UserError(f"none of the {total} prompts has a negative in any tier ({why})")
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
    accepts = _accepts(policy.task)
    if accepts:
        negatives = mined.lists[mined.lists["tier"] != "positive"]
        left = sum(accepts(*pair) for pair in zip(negatives["query_id"], negatives["text"]))
        say(
            f"false negatives left, by the verifier: {left} of {len(negatives):,} ({100 * left / len(negatives):.1f} %)"
        )
        facts |= {"false_negatives_left": left, "negatives": len(negatives)}
    return facts


def _why(row: pd.Series) -> str:
    """What became of a tier's candidates."""
    names = ("unusable", "no_positive", "duplicates", "false_negatives", "beyond_margin", "taken")
    gone = [f"{row[name]:,} {name.replace('_', ' ')}" for name in names if row[name]]
    return f"{row['candidates']:,} candidates" + (f", of them {', '.join(gone)}" if gone else "")
