"""The problems that a training run is measured on: which they are, the measuring, and what is chosen by it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.commands import truth
from irlens.commands.drawing import task_of
from irlens.commands.truth import TRUTH
from irlens.retrieve.policy import Policy, Say, concat

if TYPE_CHECKING:
    import pandas as pd

    from irlens.commands.settings import Train
    from irlens.models.chat import Prompt
    from irlens.rerank.judges import Judge
    from irlens.tasks.contract import Task
    from irlens.train.rft import Base


MEASURED = ("run.parquet", "per_query.parquet", "results.csv")  # what measuring a policy leaves, to be read again


@dataclass(frozen=True)
class Job:
    """A training made ready: its settings with what the model decides, the policy with its training problems, the
    problems between iterations and at the end (None: none), who judges both, and where it goes; with --lists the lists
    that are given and what their responses answer; what a reward that is learned in between starts from; truth: the
    verifier, where a reward model judges held-out draws."""

    settings: Train
    policy: Policy
    held_out: Task | None
    test: Task | None
    judge: Judge | None
    eval_judge: Judge | None
    out: Path
    say: Say
    lists: pd.DataFrame | None = None
    asked: list[Prompt] | None = None
    reward_base: Base | None = None
    truth: Judge | None = None

    @property
    def measured(self) -> truth.Measured:
        """What is measured between iterations, once it is."""
        return truth.Measured(self.out, self.settings.eval_temperature, self.say)


def chooses(settings: Train) -> bool:
    """Whether the problems between iterations choose a policy: not if they are test problems, which only measure."""
    return settings.eval_split != "test"


def problems(policy: Policy, settings: Train, say: Say) -> tuple[Task, Task | None, Policy]:
    """(problems between iterations, problems at the end or None, the policy with what is left to train on).

    In between: --eval-split, else the validation split. At the end: the test split. What the data set has no split for
    is lent by the end of its training problems, a part of its own each: the numbers at the end never chose anything.
    There are none at the end if none are wanted, or if those in between are test problems already. Raises UserError:
    too few problems, a problem in more than one of training, validation and test.
    """
    dataset = settings.dataset or policy.entry.dataset
    between, at_end, lent = _places(policy, settings)
    parts, policy = _lend(policy, lent, settings.prompts, say) if lent else ({}, policy)
    held_out = parts.get("eval_limit") or task_of(settings, dataset, between, settings.eval_limit)
    test = None
    if at_end:
        test = parts.get("test_limit") or task_of(settings, dataset, "test", settings.test_limit)
        refuse_shared("training", policy.task, test)
        refuse_shared("validation", held_out, test)
    refuse_shared("training", policy.task, held_out)
    return held_out, test, policy


def _places(policy: Policy, settings: Train) -> tuple[str | None, bool, dict[str, int]]:
    """(the split in between or None, whether there are problems at the end, what the training problems lend)."""
    from irlens import tasks

    splits = tasks.splits(settings.dataset or policy.entry.dataset)
    present = [split for split in splits if split != policy.task.split]
    between = settings.eval_split or ("validation" if "validation" in present else None)
    if between == "test" and "test" not in splits:
        between = None
    at_end = chooses(settings) and settings.test_limit > 0
    lent = {} if between else {"eval_limit": settings.eval_limit}
    if at_end and "test" not in present:
        lent["test_limit"] = settings.test_limit
    return between, at_end, lent


def lends(policy: Policy, settings: Train) -> bool:
    """Whether training problems are held out, as the data set has no other split for them."""
    return bool(_places(policy, settings)[2])


def sized(policy: Policy, settings: Train, say: Say) -> Train:
    """`settings` with the default sizes made to fit into the prompts that there are (`sizes.shrunk`)."""
    from irlens.commands import sizes
    from irlens.tasks.contamination import normal

    task, lent = policy.task, list(_places(policy, settings)[2])
    there = task.topics["query"].map(normal).nunique() if lent else len(task.topics)
    return sizes.shrunk(settings, there, lent, f"{task.name} ({task.split})", say)


def _lend(policy: Policy, sizes: dict[str, int], prompts: int, say: Say) -> tuple[dict[str, Task], Policy]:
    """({setting: that many of the last training problems}, the policy with the rest, of which `prompts` are needed).

    No text is lent twice, and none that is lent stays for training. Raises UserError if too few are left.
    """
    import numpy as np

    from irlens.tasks.contamination import normal

    task, topics = policy.task, policy.task.topics
    texts = topics["query"].map(normal)
    distinct = np.flatnonzero(~texts.duplicated(keep="last"))
    places = distinct[max(0, len(distinct) - sum(sizes.values())) :]
    stays = ~texts.isin(texts.iloc[places]).to_numpy()
    if len(places) < sum(sizes.values()) or stays.sum() < prompts:
        which = " and ".join(f"--{name.replace('_', '-')} {size}" for name, size in sizes.items())
        raise UserError(
            f"--prompts {prompts}: the split {task.split!r} of {task.name} has only {stays.sum()} of {len(topics)} left "
            f"once {which} are held out of it, as the data set has no other split for them; make them "
            "smaller, or leave them out: sizes that nobody gives shrink to what is there"
        )
    again = int((~stays).sum()) - len(places)
    if again:
        say(f"left out of training: {again:,} prompts that are word for word held-out ones")
    parts, start = {}, 0
    for name, size in sizes.items():
        rows = places[start : start + size]
        last = "" if rows[-1] == len(topics) - 1 else rows[-1] + 1
        named = f"{task.split}[{rows[0]}:{last}]"
        parts[name] = replace(task, split=named, topics=topics.iloc[rows].reset_index(drop=True))
        start += size
    return parts, policy.for_task(replace(task, topics=topics[stays].reset_index(drop=True)))


def refuse_shared(role: str, task: Task, held_out: Task) -> None:
    """Raises UserError if a held-out problem is one of the task's."""
    from irlens.tasks.contamination import shared

    both = shared(task.topics, held_out.topics)
    if both:
        raise UserError(
            f"{len(both)} of {len(held_out.topics)} held-out problems ({held_out.split}) are {role} problems "
            f"({task.split}), the first {both[0]}; choose another --eval-split"
        )


def measures_of(settings: Train) -> list[str]:
    """What held-out draws are measured by; the first one chooses. A list-relative judge gives no `reward`."""
    if settings.reward or settings.eval_reward:
        return ["win rate", "reward"]
    return [f"Pass@{N}" for N in sorted({1, settings.eval_n})]


def measured(settings: Train, made: int) -> list[int]:
    """The numbers of the policies that are measured, of those that `made` iterations made: every --eval-every-th from the
    start, and the last that there is to be."""
    return [s for s in range(made + 1) if s % settings.eval_every == 0 or s == settings.iterations]


def value(job: Job, weights: Path, s: int) -> float:
    """The validation value of policy number s, higher is better: computed once, then read."""
    path, measured = job.out / f"iteration-{s}" / "validation.json", job.out / "evaluation" / str(s)
    left = MEASURED if job.eval_judge.is_reward and job.truth is None else (*MEASURED, "qrels.parquet")
    if not path.is_file() or not all((measured / name).is_file() for name in left):
        results, _, _ = measure(job, weights, s, "evaluation")
        if job.truth is not None and s:
            truth.say_of(job.measured, s)
        files.write_text(json.dumps({"value": float(results["value"].iloc[0])}) + "\n", path)
    return json.loads(path.read_text(encoding="utf-8"))["value"]


def measure(job: Job, weights: Path, s: int, where: str) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """What policy number s is worth on the problems of `where` (evaluation or test) at every evaluation temperature, with
    the same random numbers for every s: Pass@1 and Pass@N by a verifier; by a reward model the win rate against the
    start's draws, the mean reward, and where a verifier can tell the true Pass@1.

    Returns results (curve, x = s, value, low, high, n), values per problem [query_id × curve], and tokens generated;
    `out/where/s/` holds the draws, run, qrels, results.csv and per_query.parquet.
    """
    from irlens.retrieve.sample import Draws

    settings, here = job.settings, job.out / where / str(s)
    task, name = (job.test, "test") if where == "test" else (job.held_out, "held-out")
    draws = Draws(settings.eval_n, settings.eval_temperature, settings.seed_of("evaluation"))
    run = job.policy.at(weights).draw(job.policy.prompts(task), draws, here / "draws", job.say, f"{name}, policy {s}")
    files.write_parquet(run, here / "run.parquet")
    if job.eval_judge.is_reward:
        found = _against_start(run, s, task, job.eval_judge, job.out / where)
        if job.truth is not None:
            true = _passed(run, task, settings, job.truth, here, [TRUTH])
            found = found.merge(true, on=["query_id", "temperature"], validate="one_to_one")
    else:
        found = _passed(run, task, settings, job.eval_judge, here, measures_of(settings))
    table, each = _by_curve(found, s, settings)
    files.write_parquet(each.reset_index(), here / "per_query.parquet")
    files.write_csv(table, here / "results.csv")
    return table, each, int(run["n_tokens"].sum())


def _passed(
    run: pd.DataFrame, task: Task, settings: Train, judge: Judge, here: Path, wanted: list[str]
) -> pd.DataFrame:
    """query_id, temperature, and a column per Pass@N that is `wanted`."""
    from irlens.measure import measures

    qrels = judge.grade(run, task.topics, here)
    files.write_parquet(qrels, here / "qrels.parquet")
    parts = []
    for temperature in settings.eval_temperature:
        drawn = run[run["temperature"] == temperature]
        judged = qrels[qrels["doc_id"].isin(drawn["doc_id"])]
        _, per_query = measures.evaluate(drawn, judged, wanted)
        wide = per_query.pivot(index="query_id", columns="measure", values="value").reset_index()
        parts.append(wide.assign(temperature=temperature))
    return concat(parts)


def _against_start(run: pd.DataFrame, s: int, task: Task, judge: Judge, folder: Path) -> pd.DataFrame:
    """query_id, temperature, win rate and reward of a policy's draws, by those of the start in `folder/0`."""
    import pandas as pd

    from irlens.rerank.judges import against_start

    start = pd.read_parquet(folder / "0" / "run.parquet")
    scores = [folder / str(k) / "scores" for k in (s, 0)]
    return against_start(judge, run, start, task.topics, *scores)


def _by_curve(found: pd.DataFrame, s: int, settings: Train) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results (curve, x = s, value, low, high, n), and values per problem with a column per curve."""
    import pandas as pd

    from irlens.measure import stats

    columns = {}
    for temperature in settings.eval_temperature:
        own = found[found["temperature"] == temperature].set_index("query_id").drop(columns="temperature")
        suffix = f", T = {temperature:g}" if len(settings.eval_temperature) > 1 else ""
        names = dict.fromkeys((*measures_of(settings), TRUTH))
        columns |= {f"{name}{suffix}": own[name] for name in names if name in own.columns}
    each = pd.DataFrame(columns).sort_index()
    low, high = stats.mean_intervals(each.to_numpy())
    ends = {"value": each.mean().to_numpy(), "low": low, "high": high, "n": len(each)}
    return pd.DataFrame({"curve": list(each.columns), "x": s, **ends}), each


def validation(policies: list[int], out: Path) -> tuple[pd.DataFrame, dict[int, pd.DataFrame], int]:
    """What `measure` found for these policies: results, values per problem by policy, tokens generated."""
    import pandas as pd

    folders = [out / "evaluation" / str(s) for s in policies]
    results = concat([pd.read_csv(f / "results.csv") for f in folders])
    values = {s: pd.read_parquet(f / "per_query.parquet").set_index("query_id") for s, f in zip(policies, folders)}
    tokens = sum(int(pd.read_parquet(f / "run.parquet", columns=["n_tokens"])["n_tokens"].sum()) for f in folders)
    return results, values, tokens


def chosen(policies: list[int], settings: Train, out: Path) -> int:
    """The one of these policies with the best validation value, the earlier of equals; the last if the problems are test problems."""
    if not chooses(settings):
        return policies[-1]
    paths = [out / f"iteration-{s}" / "validation.json" for s in policies]
    values = [json.loads(path.read_text(encoding="utf-8"))["value"] for path in paths]
    return policies[values.index(max(values))]


def why(held_out: Task, settings: Train) -> str:
    """How `chosen` chose, in words."""
    if not chooses(settings):
        return "being the last: nothing is chosen by test problems"
    return f"its value on {len(held_out.topics):,} validation problems ({held_out.split})"


def tests(before: pd.DataFrame, after: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Paired tests, one row per curve, with Holm's correction over them."""
    import pandas as pd

    from irlens.measure import stats

    rows = [{"measure": c, **asdict(stats.paired_test(before[c], after[c], seed=seed))} for c in before.columns]
    found = pd.DataFrame(rows)
    return found.assign(p_holm=stats.holm(found["p"]))
