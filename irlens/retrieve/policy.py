"""What the stages share: a model at hand with its task, an engine for it, and the settings that name a result."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import options as options_of
from irlens.base.errors import UserError
from irlens.base.options import at_least
from irlens.models import catalog

if TYPE_CHECKING:
    import pandas as pd

    from irlens.commands.settings import Mine, PassK, Train
    from irlens.models.thoughts import Thought
    from irlens.retrieve.engines import Prompt
    from irlens.retrieve.options import EngineOptions
    from irlens.tasks.contract import Task

Say = Callable[[str], None]


@dataclass(frozen=True)
class Policy:
    """A model at hand with its task: what sampling needs. A chat server's model has no folder and no tokenizer here."""

    model: catalog.Model
    folder: Path | None
    task: Task
    tokenizer: object
    max_tokens: int
    options: EngineOptions
    thought: Thought | None = None  # the tags of its thoughts
    max_prompt_length: int | None = None  # as asked: 0 leaves none out, None is the data set's own
    left_out: dict[str, int] = field(default_factory=dict)  # data set and split → prompts that were too long

    def prompts(self, task: Task, topics: pd.DataFrame | None = None) -> list[Prompt]:
        """The task's topics, or these of them, as this model reads them."""
        from irlens.retrieve.sample import prompts

        some = task.topics if topics is None else topics
        return prompts(some, self.tokenizer, task.instruction, self.options.messages_as, self.model.name)

    def prompt_ids(self, task: Task, topics: pd.DataFrame | None = None) -> dict[str, list[int]]:
        """query_id → the token ids of the same."""
        from irlens.models.chat import token_ids

        asked = self.prompts(task, topics)
        return dict(zip((prompt.query_id for prompt in asked), token_ids(self.tokenizer, asked)))

    @property
    def positions(self) -> int | None:
        """Tokens that the model has positions for; None where its configuration does not say."""
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(self.folder).get_text_config()
        return getattr(config, "max_position_embeddings", None)

    def fitting(self, task: Task, say: Say) -> Task:
        """`task` without the prompts that are longer than is wanted or leave no room for the response; a line counts them.

        Raises UserError: a prompt that is empty, or too long where none is to be left out; no prompt that fits.
        """
        from irlens.retrieve.engines import check_lengths, token_ids

        asked, positions = self.prompts(task), self.positions
        ids = token_ids(self.tokenizer, asked)
        limit = task.max_prompt_length if self.max_prompt_length is None else self.max_prompt_length
        if self.max_prompt_length != 0:
            room = None if positions is None else max(0, positions - self.max_tokens)
            most = min((value for value in (limit, room) if value is not None), default=None)
            fits = [most is None or len(some) <= most for some in ids]
            if not all(fits):
                why = f"{self.max_tokens:,} new ones fill the model's {positions:,} positions" if most == room else "--max-prompt-length"  # fmt: skip
                named = f"{len(fits):,} prompts of {task.name} ({task.split})"
                if not any(fits):
                    raise UserError(f"none of {named} has at most {most:,} tokens ({why}); the shortest has {min(map(len, ids)):,}")  # fmt: skip
                say(f"left out {fits.count(False):,} of {named}: longer than {most:,} tokens ({why}), the first {asked[fits.index(False)].query_id}")  # fmt: skip
                self.left_out[f"{task.name} {task.split}"] = fits.count(False)
                task = replace(task, topics=task.topics[fits].reset_index(drop=True))
                asked, ids = ([one for one, fit in zip(some, fits) if fit] for some in (asked, ids))
        check_lengths(asked, ids, self.max_tokens, positions)
        return task

    def draw(
        self,
        asked: list[Prompt],
        n: int,
        temperatures: Sequence[float],
        seed: int,
        shards: Path,
        say: Say,
        name: str | None = None,
        weights: Path | None = None,
    ) -> pd.DataFrame:
        """A run of n draws per prompt, by this model or by the copy of it that was trained into `weights`."""
        from irlens.retrieve import engines
        from irlens.retrieve.sample import sample_run

        def load_engine() -> engines.Engine:
            return engines.module(self.options.engine).load(self.options, weights or self.folder)

        label, source = name or self.model.name, self._source(weights or self.folder)
        run = sample_run(load_engine, asked, n, temperatures, seed, self.max_tokens, shards, label, say, source)
        return self.marked(run)

    def marked(self, run: pd.DataFrame) -> pd.DataFrame:
        """`run` with the responses that never closed their thought as unfinished ones."""
        from irlens.models import thoughts

        return thoughts.marked(run, self.thought)

    def _source(self, weights: Path | None) -> str:
        """What draws, for the names of shards: the weights (and what stops them), the engine and its arguments."""
        import json

        from irlens.retrieve import engines

        options = self.options
        told = {"engine": engines.kind(options), "args": engines.engine_args(options), "chat": options.chat}
        told |= {"model": _digest(weights), "served": options.served_model}
        if weights is not None:
            files = [weights / name for name in ("generation_config.json", "tokenizer.json")]
            told |= {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}
        return json.dumps(told, sort_keys=True)

    def facts(self, out: Path) -> dict:
        """What the manifest records of the model, the data, the prompt, and of all sampling into folders under `out`."""
        from irlens.retrieve import engines
        from irlens.retrieve.meter import read_account
        from irlens.retrieve.sample import template

        account = read_account(out)
        return {
            "model_files": str(self.folder or "at the server"),
            "model_digest": _digest(self.folder),
            "data_revision": self.task.revision,
            "prompts_left_out": self.left_out,
            "prompt_template": "the server's own" if self.options.chat else template(self.tokenizer),
            "engine": {f.name: getattr(self.options, f.name) for f in fields(engines.EngineOptions)},
            "draws_are": engines.guarantee(self.options),
            "sampling": account,
            "gpu_seconds": account["gpu_seconds"],
        }


def load_policy(
    settings: PassK | Mine | Train, split: str | None, limit: int | None, say: Say, verified: bool = True
) -> Policy:
    """Everything but the weights, so that what can fail fails before a folder is made.

    Raises UserError: an unknown model or data set, no network, no usable tokenizer, no verifier (unless `verified` is
    False: something else judges), no prompt that leaves room for the response, an engine that is absent, a server
    that does not answer or refuses.
    """
    from irlens import tasks
    from irlens.models import thoughts
    from irlens.retrieve import engines

    at_least(0, max_prompt_length=settings.max_prompt_length)
    thoughts.parse(settings.thought)
    options, why = engines.choose(settings)
    served = options.engine == "openai" and options.chat  # such a model may be known to its server only
    model = catalog.served(settings.model) if served else catalog.model(settings.model)
    task = tasks.load(settings.dataset or model.dataset, split, limit)
    if verified and task.verifier is None:
        raise UserError(f"data set {task.name!r} has no verifier, so right and wrong cannot be told; use sums or gsm8k")
    options = engines.module(options.engine).prepare(options, model)
    folder = None if served else catalog.fetch(model, weights=options.engine != "openai")
    if folder:
        quiet_if_small(folder)
    tokenizer = folder and _tokenizer(folder)
    thought = thoughts.chosen(settings.thought, tokenizer)
    task = thoughts.of_task(task, thought)
    if thought is None and settings.thought is None and tokenizer and (line := thoughts.hidden(tokenizer)):
        say(f"{model.name}: {line}")
    policy = Policy(
        model,
        folder,
        task,
        tokenizer,
        settings.max_tokens or model.max_tokens,
        options,
        thought,
        settings.max_prompt_length,
    )
    if folder:
        policy = replace(policy, task=policy.fitting(task, say))
    elif settings.max_prompt_length:
        raise UserError("--max-prompt-length: with --chat the server makes the prompts, so they cannot be counted here")
    where = f"{options.served_model} at {options.base_url}" if options.base_url else options.inner_engine
    say(f"engine: {options.engine}{f' ({where})' if where else ''}, {why}")
    return policy


def _digest(folder: Path | None) -> str | None:
    """Short SHA-256 over the weights of a small model; for a hub snapshot its revision; None at a server."""
    if folder is None:
        return None
    if folder.parent.name == "snapshots":
        return folder.name
    files = sorted(folder.glob("*.safetensors"))
    return _sha256(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@functools.cache
def _sha256(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Of the contents of files (path, size, time of change), each read once while it stays as it is."""
    sha = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                sha.update(block)
    return sha.hexdigest()[:16]


def quiet_if_small(folder: Path) -> None:
    """No progress bars for loading and saving weights that take no time."""
    from transformers.utils import logging

    if sum(path.stat().st_size for path in folder.glob("*.safetensors")) < 1e9:
        logging.disable_progress_bar()


def _tokenizer(folder: Path):
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: no usable tokenizer ({str(error).splitlines()[0]})") from error


def identity(settings, policy: Policy, **more) -> dict:
    """The settings that make the result what it is, resolved: not where it goes nor how the engine is run."""
    from irlens.models import thoughts
    from irlens.retrieve import engines

    task, options = policy.task, policy.options
    resolved = {
        "model": policy.model.name,
        "dataset": task.name,
        "split": task.split,
        "data": task.revision,
        "max_tokens": policy.max_tokens,
        "thought": thoughts.record(policy.thought),
        "max_prompt_length": task.max_prompt_length
        if settings.max_prompt_length is None
        else settings.max_prompt_length,
    }
    resolved |= {"model_digest": _digest(policy.folder), "engine": engines.kind(options), "chat": options.chat}
    resolved |= {"served_model": options.served_model, "engine_args": engines.engine_args(options), **more}
    resolved["messages_as"] = options.messages_as
    if Path(settings.model).is_dir():  # the digest tells which one it is, so that an output folder may move
        resolved["model"] = Path(settings.model).name
    resolved["inner_engine"] = None  # part of `engine`
    return options_of.identity(settings, **resolved)


def default_out(settings, *parts: str) -> Path:
    """`settings.out`, or a folder under irlens-out/ named after the stage and `parts`."""
    return Path(settings.out or Path("irlens-out") / "-".join([type(settings).__name__.lower(), *parts]))


def concat(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Rows of all frames, numbered anew."""
    import pandas as pd

    return pd.concat(frames, ignore_index=True)


def train_split(settings: Mine | Train) -> str | None:
    """Training material comes from `train`, unless the data set is a single file or another split is asked for."""
    from irlens import tasks

    if settings.split:
        return settings.split
    return "train" if "train" in tasks.splits(settings.dataset or catalog.model(settings.model).dataset) else None
