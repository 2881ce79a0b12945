"""What a sampling engine is: prompts and settings in, draws out. One file an engine, chosen by name.

An engine is a module of this folder and a line in NAMES. The module has

    GUARANTEE: str                        what the same seed gives again, for the manifest
    prepare(options, model) -> options    what can be refused or found out before an output folder is made
    load(options, weights) -> Engine      the engine itself, for a folder with a model
"""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from types import ModuleType, SimpleNamespace
from typing import Protocol

import numpy as np

from irlens.base import jsons, plugins, secrets
from irlens.base.errors import UserError, did_you_mean
from irlens.base.options import at_least, one_of, positive
from irlens.models.chat import MESSAGES_AS, Prompt
from irlens.models.chat import token_ids as token_ids  # every engine encodes prompts alike
from irlens.retrieve.options import EngineOptions

NAMES = {
    "transformers": "a model in this process; exact draws on CPU and GPU",
    "vllm": "vLLM in this process; needs the extra `vllm`",
    "openai": "servers that speak the OpenAI protocol, at --base-url",
}
SEED_DRAWS = 2**16  # draws that a prompt has room for in a seeded server's numbers; see `request_seed`


@dataclass(frozen=True)
class Sampling:
    """How to draw. `max_tokens` counts the response's tokens, its end-of-sequence token included.

    Temperature 0 is greedy: the likeliest token at every step, so that all draws of a prompt are equal.
    """

    temperature: float
    seed: int
    max_tokens: int


@dataclass(frozen=True)
class Draw:
    """One response. `logprob`: sum over its tokens of the policy's own log-probability (temperature 1), in nats.

    It is NaN where a server tells none. `n_tokens` counts the end-of-sequence token, which `text` leaves out;
    `finish_reason` is "stop", or "length" for whatever did not end by itself. `tokens` are the ids drawn, the token that
    ended the response included; None where a server does not tell them.
    """

    query_id: str
    draw: int
    text: str
    n_tokens: int
    logprob: float
    finish_reason: str
    tokens: tuple[int, ...] | None = None


OnBatch = Callable[[int, int], None]  # draws, tokens: called as they are made


class Engine(Protocol):
    """Anything that draws. A class that derives from this one inherits the defaults."""

    gpus: float | None = 0  # that it keeps busy; None where a server does not tell
    at_once: int = 1  # calls of `sample` that may run at the same time, each in a thread of its own
    shard_least: int = 64  # fewer would cost speed
    shard_rows: int = 2000  # draws that one call should ask for, about; what a kill can cost
    shard_tokens: int = 2**20  # tokens that they may have in all: 2000 draws of up to 524, minutes of a GPU

    def sample(
        self, prompts: Sequence[Prompt], draws: range, sampling: Sampling, on_batch: OnBatch | None = None
    ) -> list[Draw]:
        """Draws number `draws` of every prompt, ordered by prompt and draw."""

    def close(self) -> None:
        """Frees what it holds, and ends calls that still run."""


class Lent(Engine):
    """An engine that stays open when a call of it ends well: `owner` closes it."""

    def __init__(self, engine: Engine, owner: Callable[[], None]):
        self.engine, self.owner, self.sample = engine, owner, engine.sample
        self.gpus, self.at_once = engine.gpus, engine.at_once
        self.shard_rows = engine.shard_rows
        self.shard_tokens = getattr(engine, "shard_tokens", Engine.shard_tokens)  # one's own may not say
        self.shard_least = getattr(engine, "shard_least", Engine.shard_least)

    def close(self) -> None:
        """Ends it after a failure, which may have left calls in flight; else nothing."""
        if sys.exc_info()[0] is not None:
            self.owner()


def module(name: str) -> ModuleType | SimpleNamespace:
    """The module of an engine; of one's own `module:load`, load(options, weights) -> Engine. Raises UserError for an
    unknown name."""
    if plugins.named(name):
        load = plugins.function(name, "--engine")
        return SimpleNamespace(GUARANTEE=f"as {name} has it", prepare=lambda options, model: options, load=load)
    if name == "ray":
        raise UserError("--engine ray is now --devices ray (or ray:N), with --engine transformers or vllm")
    if name not in NAMES:
        raise UserError(f"unknown engine {name!r}; {did_you_mean(name, NAMES)}")
    return importlib.import_module(f"irlens.retrieve.engines.{name}")


def choose(options: EngineOptions) -> tuple[EngineOptions, str]:
    """`options` with an engine, and why it is that one. Raises UserError for options that do not go together."""
    at_least(1, batch_size=options.batch_size, concurrency=options.concurrency)
    at_least(1, tensor_parallel=options.tensor_parallel)
    positive(timeout=options.timeout)
    one_of(tuple(MESSAGES_AS), messages_as=options.messages_as)
    name, why = (options.engine, "as asked") if options.engine else _automatic(options)
    module(name)
    given = {
        "--base-url": (options.base_url, ("openai",)),
        "--served-model": (options.served_model, ("openai",)),
        "--chat": (options.chat, ("openai",)),
        "--tensor-parallel": (options.tensor_parallel > 1, ("vllm",)),
        "--engine-args": (options.engine_args, ("vllm", "openai")),
    }
    for option, (value, takers) in given.items():
        if value and name not in takers:
            raise UserError(f"{option} is for --engine {' or '.join(takers)}, not for {name}")
    chosen = EngineOptions(**{f.name: getattr(options, f.name) for f in fields(EngineOptions)})
    return replace(chosen, engine=name), why


def _automatic(options: EngineOptions) -> tuple[str, str]:
    import torch

    if options.base_url:
        return "openai", "chosen because there is a --base-url"
    if importlib.util.find_spec("vllm") is None:
        return "transformers", "chosen because vllm is not installed"
    if not torch.cuda.is_available():
        return "transformers", "chosen because there is no GPU"
    return "vllm", "chosen because there is a GPU"


def guarantee(options: EngineOptions) -> str:
    """What the same seed gives again, in words."""
    return module(options.engine or "transformers").GUARANTEE


def engine_args(options: EngineOptions) -> dict:
    """`--engine-args` as a dict; secrets in it are left out of every line from here on. Raises UserError if it is no JSON
    object."""
    secrets.learn_from(options.engine_args)
    try:
        found = jsons.loads(options.engine_args or "{}")
    except ValueError as error:
        raise UserError(f"--engine-args {options.engine_args}: malformed JSON ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f'--engine-args {options.engine_args}: expected a JSON object such as {{"top_k": -1}}')
    return found


def engine_args_told(options: EngineOptions) -> dict:
    """The same without its secrets: what names a result, which another key does not change."""
    return secrets.without(engine_args(options))


def check_lengths(prompts: Sequence[Prompt], ids: list[list[int]], max_tokens: int, positions: int | None) -> None:
    """Raises UserError, naming the prompt, for one that is empty or leaves no room for `max_tokens` in `positions`."""
    for prompt, some in zip(prompts, ids):
        if not some:
            raise UserError(f"{prompt.query_id}: an empty prompt")
        if positions and len(some) + max_tokens > positions:
            raise UserError(
                f"{prompt.query_id}: prompt of {len(some)} tokens + {max_tokens} new ones exceeds the model's "
                f"{positions} positions; lower --max-tokens or leave this prompt out"
            )


def greedy_once(
    sample: Callable[[range, OnBatch | None], list[Draw]], draws: range, on_batch: OnBatch | None
) -> list[Draw]:
    """The draws numbered `draws` at temperature 0, where all are equal: `sample` makes the first of each prompt."""

    def counted(made: int, tokens: int) -> None:
        if on_batch:
            on_batch(made * len(draws), tokens * len(draws))

    return [replace(draw, draw=number) for draw in sample(draws[:1], counted) for number in draws]


def draw_key(seed: int, query_id: str, temperature: float, draw: int) -> int:
    """The 64-bit key of a draw's random numbers: a hash of what names the draw and of nothing else."""
    name = f"{seed}\x1f{query_id}\x1f{float(temperature)!r}\x1f{draw}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def request_seed(seed: int, query_id: str, temperature: float, draw: int) -> int:
    """The seed of a draw for engines that seed requests, where child i of a request uses its seed + i.

    So a draw's seed is the same however its prompt's draws are cut into requests, and no two draws share one: every
    (seed, query, temperature) has SEED_DRAWS numbers of its own, up to collisions of a 37-bit hash (for 10,000 of them
    one in 3,000 runs has one, of two different prompts). Below 2^53, which every JSON reader keeps exactly.
    Raises UserError for a draw that has no number.
    """
    if draw >= SEED_DRAWS:
        raise UserError(f"{query_id}: draw {draw}: this engine has seeds for {SEED_DRAWS:,} draws per prompt")
    return (draw_key(seed, query_id, temperature, -1) >> 27) * SEED_DRAWS + draw


def uniforms(keys: Sequence[int], length: int) -> np.ndarray:
    """[keys, length] numbers in [0, 1): row i is the SplitMix64 stream (Steele et al. 2014) that starts at keys[i]."""
    steps = np.arange(1, length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = np.array(keys, dtype=np.uint64)[:, None] + steps
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53
