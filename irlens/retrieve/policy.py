"""The LLM as a retriever: `Policy`, whose draws are a run, and which says how likely it finds any run."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irlens.base import devices, seeds
from irlens.base.errors import UserError, did_you_mean
from irlens.base.options import at_least
from irlens.base.progress import Say, silent
from irlens.models import catalog
from irlens.models.load import quiet_if_small as quiet_if_small
from irlens.models.weights import digest, digest_in_memory, digest_of_files, runs_with
from irlens.retrieve.options import EngineOptions

if TYPE_CHECKING:
    import pandas as pd

    from irlens.models.chat import Prompt
    from irlens.models.thoughts import Thought
    from irlens.retrieve.engines import Engine
    from irlens.retrieve.sample import Draws
    from irlens.tasks.contract import Task


class Policy:
    """A language model as a retriever: topics in, a run of its draws out. A `Retriever`.

    model: a name of the catalog, a folder, a hub id, or (model, tokenizer) of transformers in this process.
    engine, options: which engine draws and how (the fields of `EngineOptions`); chosen by what is there.
    max_tokens: longest response, its end included; default the model's. max_prompt_length: what `fitting` goes by.
    thought: the tags of its thoughts, as `--thought` has them; default the tokenizer's.

    Files are fetched and an engine is started when they are first needed. In a with-statement the engine is kept from
    one call to the next, until the end of it or `close`. Raises UserError: an unknown model, engine or option.
    """

    task: Task | None = None  # what a command draws for; a notebook hands topics to each call

    def __init__(
        self,
        model: str | Path | tuple,
        *,
        engine: str | None = None,
        max_tokens: int | None = None,
        max_prompt_length: int | None = None,
        thought: str | None = None,
        **options: Any,
    ):
        from irlens.models import thoughts
        from irlens.retrieve import engines

        at_least(1, max_tokens=max_tokens)
        at_least(0, max_prompt_length=max_prompt_length)
        thoughts.parse(thought)
        self._thought, self.max_prompt_length = thought, max_prompt_length
        self.options, self.why = engines.choose(_options(engine, options, isinstance(model, tuple)))
        self.devices = devices.HERE if self.options.devices is None else devices.choose(self.options.devices)
        self._in_memory = self._engine = None  # the model in this process, once there is one; the engine that is kept
        self._kept = self._prepared = False
        if isinstance(model, tuple):
            self._in_memory, self.tokenizer = model
            self.entry, self.folder = catalog.loaded(self._in_memory), None
        else:
            self.entry = (catalog.served if self.served else catalog.model)(str(model))
        self.max_tokens = max_tokens or self.entry.max_tokens
        self.left_out: dict[str, int] = {}  # data set and split → prompts that were too long

    def __repr__(self) -> str:
        return f"Policy({self.name!r}, engine={self.options.engine!r}, max_tokens={self.max_tokens})"

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The model's name in the catalog, or the folder's, or the hub id."""
        return self.entry.name

    @property
    def served(self) -> bool:
        """Whether a chat server holds it: no folder and no tokenizer here."""
        return self.options.engine == "openai" and self.options.chat

    @functools.cached_property
    def folder(self) -> Path | None:
        """Its files, fetched if they are not here; None at a chat server, and for a pair in this process."""
        if self.served:
            return None
        folder = catalog.fetch(self.entry, weights=self.options.engine != "openai")
        quiet_if_small(folder)
        return folder

    @functools.cached_property
    def tokenizer(self):
        """Its tokenizer; None at a chat server."""
        from irlens.models import load

        return self.folder and load.tokenizer(self.folder)

    @property
    def model(self):
        """Its transformers model in this process, loaded once: to score or to train.

        The transformers engine draws from this very object from then on; another engine draws from the files.
        """
        from irlens.models import load

        if self._in_memory is None:
            if self.folder is None:
                raise UserError(f"{self.name}: a server holds this model, so it cannot be scored or trained here")
            held = getattr(getattr(self._engine, "engine", None), "model", None)  # no second copy of what draws
            self._in_memory = load.causal_lm(self.folder) if held is None else held
        return self._in_memory

    @functools.cached_property
    def thought(self) -> Thought | None:
        """The tags of its thoughts."""
        from irlens.models import thoughts

        return thoughts.chosen(self._thought, self.tokenizer)

    @property
    def positions(self) -> int | None:
        """Tokens that the model has positions for; None where its configuration does not say."""
        from irlens.models import load

        return load.positions(self.folder or self.model.config)

    def at(self, weights: Path) -> Policy:
        """This policy as it was trained into the folder `weights`: the same prompts, options and name."""
        new = self._copy()
        new.tokenizer, new.folder, new._in_memory = self.tokenizer, Path(weights), None
        return new

    def for_task(self, task: Task) -> Policy:
        """This policy with what a command draws for."""
        new = self._copy()
        new.task = task
        return new

    def _copy(self) -> Policy:
        new = copy.copy(self)
        new._engine, new._kept = None, False
        return new

    # -- what it reads ---------------------------------------------------------------------------------------------

    def prompts(self, task: Task | pd.DataFrame, topics: pd.DataFrame | None = None) -> list[Prompt]:
        """A task's topics, or these of them, or topics of no task, as this model reads them."""
        import pandas as pd

        from irlens.models import chat

        if isinstance(task, pd.DataFrame):
            return chat.prompts(task, self.tokenizer, "", self.options.messages_as, self.name)
        some = task.topics if topics is None else topics
        return chat.prompts(some, self.tokenizer, task.instruction, self.options.messages_as, self.name)

    def prompt_ids(self, task: Task | pd.DataFrame, topics: pd.DataFrame | None = None) -> dict[str, list[int]]:
        """query_id → the token ids of the same."""
        from irlens.models.chat import token_ids

        asked = self.prompts(task, topics)
        return dict(zip((prompt.query_id for prompt in asked), token_ids(self.tokenizer, asked)))

    def fitting(self, task: Task, say: Say = print) -> Task:
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

    # -- what it does ----------------------------------------------------------------------------------------------

    def __call__(self, topics: pd.DataFrame, n: int) -> pd.DataFrame:
        """A run of n draws per topic at temperature 1."""
        return self.sample(topics, n)

    def sample(
        self,
        topics: pd.DataFrame | Task,
        n: int = 16,
        temperature: float | Sequence[float] = 1.0,
        seed: int = 0,
        out: str | Path | None = None,
    ) -> pd.DataFrame:
        """A run of n draws of every topic at each temperature: draw d has score −d, so its first N rows are N draws.

        topics: a table, or a task, which also says what a chat model is told after the question. out: a folder for
        shards of draws, which survive a kill and are reused; without it nothing is written. The draws are those that
        a command makes with this seed. `logprob`: nats at temperature 1, summed over `tokens`, the ids drawn. The
        columns `query` (and `messages`, of a chat) keep what was asked. Raises UserError: no topic, n below 1, a
        temperature below 0 or twice, a prompt that is empty or leaves no room for the response.
        """
        import pandas as pd

        from irlens import tables
        from irlens.retrieve.sample import Draws

        alone = isinstance(topics, pd.DataFrame)
        table = tables.check(topics if alone else topics.topics, "topics")
        if table.empty:
            raise UserError("topics: no prompt to draw for")
        at_least(1, n=n)
        heats = [temperature] if isinstance(temperature, (int, float)) else list(temperature)
        if not heats or len(set(heats)) < len(heats) or not all(0 <= t < float("inf") for t in heats):
            raise UserError(f"temperature: numbers of 0 (greedy) or above, each once, got {temperature}")
        self.prepare()
        asked, draws = self.prompts(topics), Draws(n, heats, seeds.check(seed, "seed", seeds.DERIVED))
        run = self.draw(asked, draws, Path(out) if out else None, silent)
        run = tables.with_queries(run, table)
        templated = getattr(self.tokenizer, "chat_template", None) or self.tokenizer is None
        if "messages" in table.columns or (templated and not alone and topics.instruction):
            run["messages"] = run["query_id"].map({prompt.query_id: list(prompt.messages) for prompt in asked})
        return run

    def logprobs(self, run: pd.DataFrame, topics: pd.DataFrame | Task | None = None) -> pd.DataFrame:
        """`run` with the column `logprob` computed anew: log π(response | prompt) under this policy, in nats.

        Responses are read by the ids drawn where the run has them (`tokens`) and this tokenizer reads them so, else by
        their text; `n_tokens` counts what was read. The prompts are the run's own (`query`, `messages`), or those of
        `topics`. Raises UserError: no text or prompt, a response that does not fit into the model's positions.
        """
        from irlens.models.likelihood import Likelihood

        asked = self.prompt_ids(_asked(run) if topics is None else topics)
        unknown = run["query_id"][~run["query_id"].isin(list(asked))]
        if len(unknown):
            raise UserError(
                f"logprobs: the topics have no query_id={unknown.iloc[0]} ({unknown.nunique()} such prompts)"
            )
        with self._evaluating():
            found = Likelihood(self.model, self.tokenizer, asked, self.options.batch_size)(run.reset_index(drop=True))
        return run.assign(logprob=found["score"].to_numpy(), n_tokens=found["n_tokens"].to_numpy())

    def draw(
        self, asked: list[Prompt], draws: Draws, shards: Path | None, say: Say = print, name: str | None = None
    ) -> pd.DataFrame:
        """The run of `draws` of templated prompts, its shards in the folder `shards`: what commands use."""
        from irlens.retrieve.sample import sample_run

        if shards:
            draws = replace(draws, source=self._source(), made_with=self._made_with(), called=self.name)
        draws = replace(draws, max_tokens=self.max_tokens)
        with self._evaluating():
            run = sample_run(self._open, asked, draws, shards, name or self.name, say)
        return self.marked(run)

    def marked(self, run: pd.DataFrame) -> pd.DataFrame:
        """`run` with the responses that never closed their thought as unfinished ones."""
        from irlens.models import thoughts

        return thoughts.marked(run, self.thought)

    # -- the engine ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Policy:
        self._kept = True
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """Ends the engine that is kept and lets go of a model that was loaded here. The policy can be used again."""
        if self._engine is not None:
            self._engine.engine.close()
        self._engine, self._kept = None, False
        if "folder" not in self.__dict__ or self.folder is not None:  # a pair is not ours
            self._in_memory = None

    def prepare(self) -> None:
        """What can be refused before anything is made: the engine, a server that does not answer, the files."""
        from irlens.retrieve import engines

        if not self._prepared:
            self.options = engines.module(self.options.engine).prepare(self.options, self.entry)
            self._prepared = True
        _ = self.folder

    def _open(self) -> Engine:
        """The engine: a new one, or the one that a with-statement keeps."""
        if self._engine is not None:
            return self._engine
        from irlens.retrieve import engines

        if self.options.engine == "transformers" and self._in_memory is not None:
            from irlens.retrieve.engines.transformers import TransformersEngine

            engine = TransformersEngine(self._in_memory, self.tokenizer, self.options.batch_size)
        else:
            from irlens.retrieve.engines.spread import opened

            engine = opened(self.options, self.folder, self.devices)
        if not self._kept:
            return engine
        self._engine = engines.Lent(engine, self.close)
        return self._engine

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """A model that is being trained goes on training afterwards."""
        model = self._in_memory
        training = model is not None and model.training
        try:
            yield
        finally:
            if training:
                model.train()

    # -- what names its draws --------------------------------------------------------------------------------------

    @property
    def digest(self) -> str | None:
        """Short SHA-256 over the weights that draw; for a hub snapshot its revision; None at a server."""
        if self._in_memory is not None and self.options.engine == "transformers":
            return digest_in_memory(self._in_memory)
        return digest(self.folder)

    def _source(self) -> str:
        """What draws, for the names of shards: the weights (and what stops them), the engine and its arguments."""
        from irlens.retrieve import engines

        options = self.options
        told = {
            "engine": options.engine or "transformers",
            "args": engines.engine_args_told(options),
            "chat": options.chat,
        }
        told |= {"model": self.digest, "served": options.served_model}
        if self.folder is not None:
            files = [self.folder / name for name in ("generation_config.json", "tokenizer.json")]
            told |= {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.is_file()}
        elif self._in_memory is not None:
            from irlens.models.chat import stop_tokens

            told |= {"stops": sorted(stop_tokens(self._in_memory, self.tokenizer)), "vocabulary": len(self.tokenizer)}
        return json.dumps(told, sort_keys=True)

    def _made_with(self) -> str | None:
        """What else a store names draws by, which many folders share: everything in the model's folder, and what runs it.
        None where no content can be named: at a server, for one's own engine, for a model in this process."""

        kind = self.options.engine or "transformers"
        if kind not in ("transformers", "vllm") or self.folder is None or self._in_memory is not None:
            return None
        told = {"files": digest_of_files(self.folder), "run": runs_with(kind), "through": self.options.engine}
        return json.dumps(told, sort_keys=True)

    def facts(self, out: Path) -> dict:
        """What the manifest records of the model, the data, the prompt, and of all sampling into folders under `out`."""
        from irlens.models.chat import template
        from irlens.retrieve import engines
        from irlens.retrieve.meter import read_account

        account = read_account(out)
        return {
            "model_files": str(self.folder or "at the server"),
            "model_digest": digest(self.folder),
            "data_revision": self.task.revision,
            "prompts_left_out": self.left_out,
            "prompt_template": "the server's own" if self.options.chat else template(self.tokenizer),
            "engine": {f.name: getattr(self.options, f.name) for f in fields(engines.EngineOptions)},
            "draws_are": engines.guarantee(self.options),
            "sampling": account,
            "gpu_seconds": account["gpu_seconds"],
        }


def _options(engine: str | None, given: dict, pair: bool) -> EngineOptions:
    known = [f.name for f in fields(EngineOptions) if f.name != "engine"]
    for name in given:
        if name not in known:
            raise UserError(f"Policy: unknown option {name!r}; {did_you_mean(name, known)}")
    if pair and engine not in (None, "transformers"):
        raise UserError(f"Policy: a model in this process is drawn from by the engine transformers, not by {engine}")
    return EngineOptions(engine="transformers" if pair else engine, **given)


def _asked(run: pd.DataFrame) -> pd.DataFrame:
    """The topics that a run keeps in its columns."""
    kept = [name for name in ("query_id", "query", "messages") if name in run.columns]
    if "query" not in kept:
        raise UserError("logprobs: the run has no column query, so its prompts are not known; hand over the topics too")
    return run[kept].drop_duplicates("query_id", ignore_index=True)


def concat(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Rows of all frames, numbered anew."""
    import pandas as pd

    return pd.concat(frames, ignore_index=True)
