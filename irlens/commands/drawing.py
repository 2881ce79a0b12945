"""What commands that draw share: a policy and its task out of their settings, and the settings that name a result."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import devices as devices_of
from irlens.base import options as options_of
from irlens.base import store as stores
from irlens.base.errors import UserError
from irlens.base.secrets import redact
from irlens.base.untrusted import file_name
from irlens.commands import memory
from irlens.models import catalog
from irlens.retrieve.options import EngineOptions
from irlens.retrieve.policy import Policy, Say, digest

if TYPE_CHECKING:
    import pandas as pd

    from irlens.commands.settings import Mine, PassK, Sample, Train
    from irlens.tasks.contract import Task


def load_policy(
    settings: Sample | PassK | Mine | Train, split: str | None, limit: int | None, say: Say, verified: bool = True
) -> Policy:
    """The policy, and as `.task` what it draws for: everything but the weights, so that what can fail fails before a
    folder is made.

    Raises UserError: an unknown model or data set, no network, no usable tokenizer, no verifier (unless `verified` is
    False: something else judges), no prompt that leaves room for the response, an engine that is absent, a server
    that does not answer or refuses.
    """
    from irlens.models import thoughts
    from irlens.rerank import verifiers

    policy = open_policy(settings, say)
    task = task_of(settings, settings.dataset or policy.entry.dataset, split, limit)
    if verified and task.verifier is None:
        other = "draw with `irlens sample` and rerank" if type(settings).__name__ == "PassK" else "give --reward"
        raise UserError(
            f"data set {task.name!r} has no verifier, so right and wrong cannot be told; give --verifier (gsm8k, nq-exact, "
            f"…, where it has answers), or {other}, for a reward model to judge"
        )
    if verified:
        verifiers.ready(task.verifier)
    if task.unused:
        other = "; --lists FILE trains on them" if _command(settings) == "train" else ""
        say(
            f"{task.name}: {task.unused}, which `{_command(settings)}` does not use: it draws its own for the prompts{other}"
        )
    policy.prepare()
    task = thoughts.of_task(task, policy.thought)
    silent = policy.thought is None and settings.thought is None and policy.tokenizer
    if silent and (line := thoughts.hidden(policy.tokenizer)):
        say(f"{policy.name}: {line}")
    if policy.folder:
        task = policy.fitting(task, say)
    elif settings.max_prompt_length:
        raise UserError("--max-prompt-length: with --chat the server makes the prompts, so they cannot be counted here")
    options = policy.options
    where = f" ({options.served_model} at {redact(options.base_url)})" if options.base_url else ""
    spread = "" if policy.devices.here or policy.served else f", on {policy.devices}"
    say(f"engine: {options.engine}{where}{spread}, {policy.why}")
    return policy.for_task(task)


def open_policy(settings: Sample | PassK | Mine | Train, say: Say) -> Policy:
    """The policy alone, on its devices. Raises UserError for a model that is not known, or does not fit there."""
    memory.check(settings, say)
    names = [f.name for f in fields(EngineOptions)] + ["max_tokens", "max_prompt_length", "thought"]
    policy = Policy(settings.model, **{name: getattr(settings, name) for name in names})
    policy.devices = devices_of.choose(settings.devices)
    return policy


def task_of(settings, dataset: str, split: str | None, limit: int | None) -> Task:
    """The data set that a command was given, its columns read as asked, judged by the verifier asked for."""
    from irlens import tasks

    task = tasks.load(dataset, split, limit, getattr(settings, "columns", None))
    name = getattr(settings, "verifier", None)
    return task if name is None else judged_by(task, name)


def judged_by(task: Task, name: str) -> Task:
    """`task` with a verifier by name. Where that needs no gold answers, a topic without any is judged with None.

    Raises UserError: an unknown verifier, one that needs answers where there are none.
    """
    from irlens.rerank import verifiers

    rule, topics = verifiers.get(name), task.topics
    if "answers" not in topics.columns:
        if rule.needs_answers:
            raise UserError(
                f"--verifier {name} compares with gold answers, and {task.name} has none; --columns answer=COLUMN says "
                f"where they are"
            )
        topics = topics.assign(answers=[[None]] * len(topics))
    return replace(task, topics=topics, verifier=rule.judge, extract=rule.extract)


def _command(settings) -> str:
    from irlens.commands.settings import STAGES

    return next(name for name, kind in STAGES.items() if isinstance(settings, kind))


def check_draws(settings: Sample | PassK) -> None:
    """Raises UserError for how many draws, or temperatures, that cannot be meant."""
    from irlens.commands.settings import heat

    options_of.at_least(1, n=settings.n, max_tokens=settings.max_tokens)
    for temperature in settings.temperature:
        heat(temperature=temperature)
    if not settings.temperature or len(set(settings.temperature)) < len(settings.temperature):
        raise UserError("--temperature: give at least one, each once")


def counts(run: pd.DataFrame) -> dict[str, int]:
    """What a manifest records of draws."""
    from irlens.retrieve.sample import count_empty

    return {
        "draws": len(run),
        "tokens_generated": int(run["n_tokens"].sum()),
        "unfinished": int((run["finish_reason"] == "length").sum()),
        "empty": count_empty(run),
        "without_logprob": int(run["logprob"].isna().sum()),
        "without_tokens": int(run["tokens"].isna().sum()),
    }


def identity(settings, policy: Policy, **more) -> dict:
    """The settings that make the result what it is, resolved: not where it goes nor how the engine is run."""
    from irlens.models import thoughts
    from irlens.retrieve import engines

    task, options = policy.task, policy.options
    resolved = {
        "model": policy.name,
        "dataset": task.name,
        "split": task.split,
        "data": task.revision,
        "max_tokens": policy.max_tokens,
        "thought": thoughts.record(policy.thought),
        "max_prompt_length": task.max_prompt_length
        if settings.max_prompt_length is None
        else settings.max_prompt_length,
    }
    resolved |= {"model_digest": digest(policy.folder), "engine": options.engine, "chat": options.chat}
    resolved |= {"served_model": options.served_model, "engine_args": engines.engine_args_told(options), **more}
    resolved |= {"messages_as": options.messages_as}
    if Path(settings.model).is_dir():  # the digest tells which one it is, so that an output folder may move
        resolved["model"] = Path(settings.model).name
    return options_of.identity(settings, **resolved)


def default_out(settings, *parts: str) -> Path:
    """`settings.out`, or a folder under irlens-out/ named after the stage and `parts`."""
    return Path(
        settings.out or Path("irlens-out") / "-".join([type(settings).__name__.lower(), *map(file_name, parts)])
    )


def store_of(settings, out: Path) -> Path | None:
    """Where a command keeps draws and scores that others find (`base.store`); None for nowhere."""
    return stores.place(getattr(settings, "store", None), out)


def train_split(settings: Mine | Train) -> str | None:
    """Training material comes from `train`, unless the data set is a single file or another split is asked for."""
    from irlens import tasks

    if settings.split:
        return settings.split
    return "train" if "train" in tasks.splits(settings.dataset or catalog.model(settings.model).dataset) else None
