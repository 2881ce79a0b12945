"""What a sampling engine is: prompts and settings in, draws out. One file an engine, chosen by name."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from irlens.errors import UserError


@dataclass(frozen=True)
class Prompt:
    """A templated prompt: exactly the text whose tokens the model reads."""

    query_id: str
    text: str


@dataclass(frozen=True)
class Sampling:
    """How to draw. `max_tokens` counts the response's tokens, its end-of-sequence token included."""

    temperature: float
    seed: int
    max_tokens: int


@dataclass(frozen=True)
class Draw:
    """One response. `logprob`: sum over its tokens of the policy's own log-probability (temperature 1), in nats.

    `n_tokens` counts the end-of-sequence token, which `text` leaves out; `finish_reason` is "stop" or "length".
    """

    query_id: str
    draw: int
    text: str
    n_tokens: int
    logprob: float
    finish_reason: str


class Engine(Protocol):
    """Anything that draws."""

    def sample(self, prompts: Sequence[Prompt], draws: range, sampling: Sampling) -> list[Draw]:
        """Draws number `draws` of every prompt, ordered by prompt and draw."""


def token_ids(tokenizer, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of templated prompts; a template that writes BOS itself does not get a second one."""
    bos = tokenizer.bos_token
    return [tokenizer(p.text, add_special_tokens=not (bos and p.text.startswith(bos)))["input_ids"] for p in prompts]


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


def draw_key(seed: int, query_id: str, temperature: float, draw: int) -> int:
    """The 64-bit key of a draw's random numbers: a hash of what names the draw and of nothing else."""
    name = f"{seed}\x1f{query_id}\x1f{float(temperature)!r}\x1f{draw}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def uniforms(keys: Sequence[int], length: int) -> np.ndarray:
    """[keys, length] numbers in [0, 1): row i is the SplitMix64 stream (Steele et al. 2014) that starts at keys[i]."""
    steps = np.arange(1, length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = np.array(keys, dtype=np.uint64)[:, None] + steps
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53
