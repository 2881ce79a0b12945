"""Stage `mine-negatives`: the draws that the tiers need, and the lists mined from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irlens.errors import UserError, did_you_mean
from irlens.folder import OutputFolder
from irlens.settings import Mine, at_least, positive
from irlens.stages.common import Policy, Say, concat, default_out, identity, load_policy, train_split

if TYPE_CHECKING:
    import pandas as pd

    from irlens.tasks import Task


def mine_negatives(settings: Mine, say: Say = print) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Samples what the tiers need, mines, and returns the folder, the lists and the report per tier.

    The folder holds lists.parquet, report.csv, the draws and the manifest.
    """
    from irlens import mine, tables
    from irlens.rerank.verify import verify

    tiers = mine.parse_tiers(settings.tiers)
    _check(settings)
    policy = load_policy(settings, train_split(settings), settings.limit, say)
    task = policy.task
    other = _unrelated(settings, task) if "easiest" in tiers else None
    out = default_out(settings, policy.model.name, task.name)
    kept = identity(settings, policy, unrelated=other and other.name)
    with OutputFolder(out, "mine-negatives", kept) as folder:
        pools = _pools(settings, policy, other, tiers, out, say)
        answers = dict(zip(task.topics["query_id"], task.topics["answers"]))
        judged = verify(pools["high"], task.topics, task.verifier)
        mined = mine.mine_negatives(
            task.topics,
            {tier: pools["high" if tier in ("easy", "hard") else tier] for tier in tiers},
            lambda query_id, text: any(task.verifier(text, gold) for gold in answers[query_id]),
            mine.positives_from(task.topics, pools["high"], judged, settings.positives),
            settings.per_tier,
            settings.seed,
        )
        tables.write_parquet(mined.lists, out / "lists.parquet")
        tables.write_csv(mined.report, out / "report.csv")
        drawn = concat(list(pools.values()))
        calls = {"tokens_generated": int(drawn["n_tokens"].sum()), "reward_calls": len(pools["high"]) + len(drawn)}
        folder.note(**policy.facts(out), **calls, lists=int(mined.lists["query_id"].nunique()))
    return out, mined.lists, mined.report


def _check(settings: Mine) -> None:
    at_least(1, n=settings.n, per_tier=settings.per_tier)
    at_least(1, max_tokens=settings.max_tokens)
    positive(hard_temperature=settings.hard_temperature, hardest_temperature=settings.hardest_temperature)
    if settings.hardest_temperature >= settings.hard_temperature:
        raise UserError(
            f"--hardest-temperature {settings.hardest_temperature:g} must be below --hard-temperature "
            f"{settings.hard_temperature:g}: the hardest negatives are the low-temperature ones"
        )
    if settings.positives not in ("gold", "correct"):
        raise UserError(f"--positives {settings.positives!r}; {did_you_mean(settings.positives, ('gold', 'correct'))}")


def _unrelated(settings: Mine, task: Task) -> Task:
    from irlens import tasks

    other = tasks.load(settings.unrelated or task.unrelated, None, len(task.topics))
    if other.name == task.name:
        raise UserError(f"--unrelated {other.name}: must be another data set than the one that is mined")
    return other


def _pools(settings: Mine, policy: Policy, other: Task | None, tiers: list[str], out: Path, say: Say) -> dict:
    """The draws by what they are for: "high" always, "hardest" and "easiest" if their tier is asked for."""
    asked, temperature = policy.prompts(policy.task), settings.hard_temperature
    pools = {"high": policy.draw(asked, settings.n, [temperature], settings.seed, out / "draws-high", say)}
    if "hardest" in tiers:
        low = [settings.hardest_temperature]
        pools["hardest"] = policy.draw(asked, settings.n, low, settings.seed, out / "draws-low", say)
    if other is not None:
        foreign = policy.prompts(other)
        enough = -(-2 * settings.per_tier * len(asked) // len(foreign))  # some will not do: unfinished, repeated
        pools["easiest"] = policy.draw(foreign, enough, [temperature], settings.seed, out / "draws-unrelated", say)
    return pools
