"""The problems that a training run is measured on: which they are, the measuring, and what is chosen by it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.errors import UserError
from irlens.stages.common import Policy, Say, concat

if TYPE_CHECKING:
    import pandas as pd

    from irlens.settings import Train
    from irlens.stages.judging import Judge
    from irlens.tasks import Task


def validation_problems(policy: Policy, settings: Train) -> tuple[Task, Policy]:
    """The problems between iterations, and the policy with what is left to train on.

    A data set without a validation split lends the last of its training problems. Raises UserError if one of them is
    trained on.
    """
    from irlens import tasks

    dataset = settings.dataset or policy.model.dataset
    split = settings.eval_split or ("validation" if "validation" in tasks.splits(dataset) else None)
    if split is not None:
        held_out = tasks.load(dataset, split, settings.eval_limit)
        _refuse_shared(policy.task, held_out)
        return held_out, policy
    topics = policy.task.topics
    if settings.eval_limit >= len(topics):
        raise UserError(f"--eval-limit {settings.eval_limit}: only {len(topics)} training problems to hold them out of")
    cut = len(topics) - settings.eval_limit
    held_out = replace(
        policy.task, split=f"{policy.task.split}[{cut}:]", topics=topics.iloc[cut:].reset_index(drop=True)
    )
    return held_out, replace(policy, task=replace(policy.task, topics=topics.iloc[:cut]))


def _refuse_shared(task: Task, held_out: Task) -> None:
    from irlens.contamination import shared

    both = shared(task.topics, held_out.topics)
    if both:
        raise UserError(
            f"{len(both)} of {len(held_out.topics)} held-out problems ({held_out.split}) are training problems "
            f"({task.split}), the first {both[0]}; choose another --eval-split"
        )


def test_problems(policy: Policy, held_out: Task, settings: Train) -> Task | None:
    """The problems at the end; None if there are none, none are wanted, or the ones in between are test problems."""
    from irlens import tasks

    dataset = settings.dataset or policy.model.dataset
    if held_out.split == "test" or settings.test_limit == 0 or "test" not in tasks.splits(dataset):
        return None
    test = tasks.load(dataset, "test", settings.test_limit)
    _refuse_shared(policy.task, test)
    return test


def measures_of(settings: Train) -> list[str]:
    """What held-out draws are measured by; the first one chooses. A list-relative judge gives no `reward`."""
    if settings.reward or settings.eval_reward:
        return ["win rate", "reward"]
    return [f"Pass@{N}" for N in sorted({1, settings.eval_n})]


def measure(
    weights: Path, s: int, policy: Policy, task: Task, settings: Train, judge: Judge, out: Path, where: str, say: Say
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """What policy number s is worth at every evaluation temperature, with the same random numbers for every s: Pass@1 and
    Pass@N by a verifier; by a reward model the win rate against the start's draws, and the mean reward.

    Returns results (curve, x = s, value, low, high, n), values per problem [query_id × curve], and tokens generated;
    `out/where/s/` holds the draws, run, qrels, results.csv and per_query.parquet.
    """
    from irlens import tables

    asked, here = policy.prompts(task), out / where / str(s)
    label = f"{where if where == 'test' else 'held-out'}, policy {s}"
    run = policy.draw(
        asked, settings.eval_n, settings.eval_temperature, settings.seed, here / "draws", say, label, weights
    )
    tables.write_parquet(run, here / "run.parquet")
    if judge.is_reward:
        found = _against_start(run, s, task, judge, out / where)
    else:
        found = _passed(run, task, settings, judge, here)
    table, each = _by_curve(found, s, settings)
    tables.write_parquet(each.reset_index(), here / "per_query.parquet")
    tables.write_csv(table, here / "results.csv")
    return table, each, int(run["n_tokens"].sum())


def _passed(run: pd.DataFrame, task: Task, settings: Train, judge: Judge, here: Path) -> pd.DataFrame:
    """query_id, temperature, and a column per Pass@N."""
    from irlens import measures, tables

    qrels = judge.grade(run, task.topics, here)
    tables.write_parquet(qrels, here / "qrels.parquet")
    parts = []
    for temperature in settings.eval_temperature:
        drawn = run[run["temperature"] == temperature]
        judged = qrels[qrels["doc_id"].isin(drawn["doc_id"])]
        _, per_query = measures.evaluate(drawn, judged, measures_of(settings))
        wide = per_query.pivot(index="query_id", columns="measure", values="value").reset_index()
        parts.append(wide.assign(temperature=temperature))
    return concat(parts)


def _against_start(run: pd.DataFrame, s: int, task: Task, judge: Judge, folder: Path) -> pd.DataFrame:
    """query_id, temperature, win rate and reward of a policy's draws, by those of the start in `folder/0`."""
    import pandas as pd

    from irlens.stages.judging import against_start

    start = pd.read_parquet(folder / "0" / "run.parquet")
    scores = [folder / str(k) / "scores" for k in (s, 0)]
    return against_start(judge, run, start, task.topics, *scores)


def _by_curve(found: pd.DataFrame, s: int, settings: Train) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results (curve, x = s, value, low, high, n), and values per problem with a column per curve."""
    import pandas as pd

    from irlens import stats

    columns = {}
    for temperature in settings.eval_temperature:
        own = found[found["temperature"] == temperature].set_index("query_id").drop(columns="temperature")
        suffix = f", T = {temperature:g}" if len(settings.eval_temperature) > 1 else ""
        columns |= {f"{name}{suffix}": own[name] for name in measures_of(settings) if name in own.columns}
    each = pd.DataFrame(columns).sort_index()
    low, high = stats.mean_intervals(each.to_numpy())
    ends = {"value": each.mean().to_numpy(), "low": low, "high": high, "n": len(each)}
    return pd.DataFrame({"curve": list(each.columns), "x": s, **ends}), each


def validation(policies: int, out: Path) -> tuple[pd.DataFrame, dict[int, pd.DataFrame], int]:
    """What `measure` found for every policy: results, values per problem by policy, tokens generated."""
    import pandas as pd

    folders = [out / "evaluation" / str(s) for s in range(policies)]
    results = concat([pd.read_csv(f / "results.csv") for f in folders])
    values = {s: pd.read_parquet(f / "per_query.parquet").set_index("query_id") for s, f in enumerate(folders)}
    tokens = sum(int(pd.read_parquet(f / "run.parquet", columns=["n_tokens"])["n_tokens"].sum()) for f in folders)
    return results, values, tokens


def chosen(policies: int, held_out: Task, out: Path) -> int:
    """The policy with the best validation value, the earlier of equals; the last if the problems are test problems."""
    if held_out.split == "test":
        return policies - 1
    paths = [out / f"iteration-{s}" / "validation.json" for s in range(policies)]
    values = [json.loads(path.read_text(encoding="utf-8"))["value"] for path in paths]
    return values.index(max(values))


def why(held_out: Task) -> str:
    """How `chosen` chose, in words."""
    if held_out.split == "test":
        return "being the last: nothing is chosen by test problems"
    return f"its value on {len(held_out.topics):,} validation problems ({held_out.split})"


def tests(before: pd.DataFrame, after: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Paired tests, one row per curve, with Holm's correction over them."""
    import pandas as pd

    from irlens import stats

    rows = [{"measure": c, **asdict(stats.paired_test(before[c], after[c], seed=seed))} for c in before.columns]
    found = pd.DataFrame(rows)
    return found.assign(p_holm=stats.holm(found["p"]))
