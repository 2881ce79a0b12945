"""Stage `train --lists`: one training on lists that are there already, measured where a data set says on what."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import flags_of
from irlens.commands import truth as of_truth
from irlens.commands import validation as held_out_problems
from irlens.commands.drawing import default_out, load_policy, open_policy, train_split
from irlens.commands.evaluate import plot_diagnostics
from irlens.commands.settings import Train
from irlens.commands.validation import Job
from irlens.retrieve.policy import Policy, Say
from irlens.tasks.contract import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from irlens.commands.folder import OutputFolder
    from irlens.models.chat import Prompt
    from irlens.rerank.judges import Judge

DRAWN = (
    "prompts",
    "same_prompts",
    "n",
    "temperature",
    "memory",
    "tier",
    "positives_from",
    "positives",
    "negatives",
    "list_size",
    "lists",
    "all_draws",
    "patience",
)  # what says which lists are drawn and cut: here they are given
MEASURED = ("split", "verifier", "reward", "eval_reward", "eval_split")  # what a data set is measured by


def prepare(settings: Train, say: Say) -> Job:
    """All that the training needs; what can be refused is, before work: lists that cannot be read, of which none fits or
    that say nothing, prompts of theirs that are held out.

    Held-out problems are those of --dataset, judged by --eval-reward, --reward or the verifier; without a --dataset
    nothing is measured.
    """
    from irlens.train import in_memory, list_files

    _check(settings)
    of_lists, of_data = _columns(settings)
    lists = list_files.read(settings.list_file, of_lists)
    settings = replace(settings, iterations=1, prompts=0)  # no prompt of the data set is trained on
    topics = lists.drop_duplicates("query_id", ignore_index=True)[["query_id", "query"]]
    if settings.dataset is None:
        policy = open_policy(settings, say)
        policy.prepare()
        task = Task("lists", "train", topics)
        held_out, test, judge = None, None, None
        say(f"no --dataset: {policy.name} is trained, and measured on nothing")
    else:
        policy, judge, held_out, test = _measured(replace(settings, columns=of_data), topics, say)
        task = replace(policy.task, topics=topics)
    if policy.options.engine == "openai":
        raise UserError("--engine openai: a server does not load the policies that training makes; use another engine")
    asked = in_memory.asked(lists, policy.tokenizer, task.instruction, policy.options.messages_as)
    settings = settings.of_model(policy.entry, policy.positions)
    _check_lists(lists, _ids(asked, policy), policy, settings)
    out = default_out(settings, settings.objective, policy.name, Path(settings.list_file).resolve().stem)
    truth = of_truth.judge(policy.task, (held_out, test), judge, say)
    return Job(settings, policy.for_task(task), held_out, test, judge, judge, out, say, lists, asked, truth=truth)


def _check(settings: Train) -> None:
    """Raises UserError for options of what lists that are given leave no room for, all of them in one line."""
    if settings.loss.learns_reward:
        raise UserError(f"--lists: objective {settings.objective!r} learns its reward from draws of its own; leave --lists out")  # fmt: skip
    other = {f.name: f for f in fields(Train) if f.name in DRAWN and getattr(settings, f.name) != f.default}
    if settings.iterations not in (1, Train.iterations):
        other["iterations"] = next(f for f in fields(Train) if f.name == "iterations")
    if other:
        raise UserError(f"--lists: one training on the lists in {settings.list_file}, and no draws for it: leave out {flags_of(other.values())}")  # fmt: skip
    alone = [f for f in fields(Train) if f.name in MEASURED and getattr(settings, f.name) is not None]
    if settings.dataset is None and alone:
        raise UserError(f"--lists without --dataset measures nothing: leave out {flags_of(alone)}, or add --dataset")


def _columns(settings: Train) -> tuple[dict[str, str], str | None]:
    """(the columns that --columns names of the lists, those of the data set as it is typed): each is wherever it is found.

    Raises UserError for one that is nowhere.
    """
    from irlens import tasks
    from irlens.tasks import forms
    from irlens.train import list_files, preferences

    names = preferences.NAMES if settings.dataset is None else (*preferences.NAMES, *forms.NAMES)
    mapped = forms.parse_columns(settings.columns, tuple(dict.fromkeys(names)))
    if not mapped or settings.dataset is None:
        return mapped, None
    named = {settings.list_file: preferences.NAMES, settings.dataset: forms.NAMES}
    there = {settings.list_file: list_files.columns(settings.list_file)}
    there[settings.dataset] = tasks.columns(settings.dataset, train_split(settings))
    for name, column in mapped.items():
        if not any(name in named[where] and column in there[where] for where in named):
            found = "; ".join(f"{where}: {', '.join(there[where]) or 'names of its own'}" for where in named)
            raise UserError(f"--columns {name}={column}: no such column ({found})")
    lists, data = ({n: c for n, c in mapped.items() if n in named[w] and c in there[w]} for w in named)
    return lists, ",".join(f"{name}={column}" for name, column in data.items()) or None


def _measured(settings: Train, asked: pd.DataFrame, say: Say) -> tuple[Policy, Judge, Task, Task | None]:
    """(the policy with its data set, who judges, the problems in between, those at the end), none of them `asked`."""
    from irlens.rerank import judges as judging
    from irlens.tasks.contamination import normal

    name = settings.eval_reward or settings.reward
    policy = load_policy(settings, train_split(settings), None, say, verified=not name)
    task, option = policy.task, "--eval-reward" if settings.eval_reward else "--reward"
    own = judging.of_reward(name, task.instruction, option, say, policy.devices) if name else judging.of_task(task, say)
    known = set(map(normal, asked["query"]))
    free = task.topics[~task.topics["query"].map(normal).isin(known)].reset_index(drop=True)
    policy = policy.for_task(replace(task, topics=free))
    if len(free) or not held_out_problems.lends(policy, settings):
        settings = held_out_problems.sized(policy, settings, say)
        held_out, test, _ = held_out_problems.problems(policy, settings, say)
    else:
        raise UserError(
            f"--dataset {task.name}: every prompt of it ({task.split}) is one of the lists', so none can be held out"
        )
    policy = policy.for_task(replace(task, topics=asked))
    for part in filter(None, (held_out, test)):
        held_out_problems.refuse_shared("training", policy.task, part)
    return policy, own, policy.fitting(held_out, say), test and policy.fitting(test, say)


def _check_lists(lists: pd.DataFrame, prompts: dict[str, list[int]], policy: Policy, settings: Train) -> None:
    """Raises UserError for lists that nothing can be learnt from: none fits, none has two grades, too few prompts."""
    from irlens.train import data

    file = settings.list_file
    if settings.loss.needs_negative and not lists.groupby(["query_id", "iteration", "list"])["grade"].nunique().gt(1).any():  # fmt: skip
        raise UserError(f"{file}: no list has two different grades, and {settings.objective} compares")
    if settings.loss.mismatched and len(prompts) < 2:
        raise UserError(f"{file}: one prompt gives lists, and {settings.objective} compares with responses to another")
    given = settings.parameters
    if given.get("weighted") and given["gains"] == "grades" and (lists["grade"] < 0).any():
        raise UserError(
            f"{file}: weighted LambdaRank has gains 2^grade - 1, and there are grades below 0: add "
            '"gains": "normalised" or "gains": "ranked" to --objective-args'
        )
    examples = data.tokenise(lists, prompts, policy.tokenizer)
    fit = data.fitting(examples, settings.max_length)
    if not fit:
        shortest = min(e.longest for e in examples)
        raise UserError(
            f"{file}: none of {len(examples):,} lists fits into --max-length {settings.max_length}; the shortest has {shortest:,} tokens"
        )
    if settings.loss.needs_negative and not any(len(set(e.grades)) > 1 for e in fit):
        raise UserError(f"{file}: no list that fits into --max-length {settings.max_length} has two different grades, and {settings.objective} compares")  # fmt: skip


def _ids(asked: Sequence[Prompt], policy: Policy) -> dict[str, list[int]]:
    """query_id → the token ids of what is asked."""
    from irlens.models.chat import token_ids

    return dict(zip((prompt.query_id for prompt in asked), token_ids(policy.tokenizer, asked)))


def policies(job: Job) -> list[Path]:
    """The start and the policy trained on the lists, each validated where there are held-out problems."""
    import pandas as pd

    from irlens.commands import exported
    from irlens.train.in_folder import Folders
    from irlens.train.iterations import Kept

    policy, kept = job.policy, Kept(job.out, job.say)
    start = policy.folder
    if job.held_out is not None:
        held_out_problems.value(job, start, 0)
    none = pd.DataFrame(columns=["query_id", "why"])
    lists = kept.lists(1, policy.task, lambda: (job.lists, none))
    exported.write(job, 1, lists, job.asked)
    folders = Folders(job.settings, kept, policy.name, policy.devices)
    trained = folders.fit(start, lists, _ids(job.asked, policy), 1)
    if job.held_out is not None:
        held_out_problems.value(job, trained, 1)
    return [start, trained]


def unmeasured(job: Job, policies: list[Path], folder: OutputFolder, facts: dict) -> None:
    """Writes what a training leaves that nothing measures: the last policy's place, the log as a figure, the facts."""
    last = len(policies) - 1
    files.write_text(json.dumps({"iteration": last, "model": str(policies[last])}) + "\n", job.out / "chosen.json")
    plot_diagnostics(job.out, last)
    folder.note(**facts, chosen_iteration=last)
