"""Draws by several workers, each with an engine of its own: processes of this machine, or actors of a Ray cluster.

A shard is the unit of work. The model's folder must be readable under the same path wherever they are, and irlens
installed there.
"""

import functools
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from irlens.base.devices import Devices
from irlens.base.errors import UserError
from irlens.retrieve.engines import Draw, Engine, OnBatch, Prompt, Sampling, module
from irlens.retrieve.options import EngineOptions


class Spread(Engine):
    """Calls of `sample` go to free workers, one each; one that dies gives its call to another."""

    def __init__(self, options: EngineOptions, weights: Path, devices: Devices):
        each = options.tensor_parallel
        self.workers = devices.workers(functools.partial(_engine, options, Path(weights)), each)
        self.at_once, kind = self.workers.count, options.engine
        self.shard_rows, self.shard_tokens = (
            (4096, 2**21) if kind == "vllm" else (Engine.shard_rows, Engine.shard_tokens)
        )
        self.shard_least = module("transformers").TransformersEngine.shard_least if kind == "transformers" else 64
        self.gpus = self.workers.count * each if devices.gpus else getattr(self.workers, "gpus", 0) * self.at_once

    def sample(
        self, prompts: Sequence[Prompt], draws: range, sampling: Sampling, on_batch: OnBatch | None = None
    ) -> list[Draw]:
        """See `engines.Engine`."""
        told = [0, 0]

        def seen(made: int, tokens: int) -> None:
            told[:] = told[0] + made, told[1] + tokens
            if on_batch:
                on_batch(made, tokens)

        drawn = self.workers.call("sample", list(prompts), draws, sampling, seen=seen)
        rest = len(drawn) - told[0], sum(draw.n_tokens for draw in drawn) - told[1]
        if on_batch and any(rest):  # Ray tells nothing meanwhile; a worker that died had told what is made again
            on_batch(*rest)
        return drawn

    def close(self) -> None:
        """Ends the workers; of a Ray cluster not the cluster."""
        self.workers.close()


def _engine(options: EngineOptions, weights: Path) -> Engine:
    if not weights.is_dir():
        raise UserError(f"{weights}: is not there on {platform.node()}; put it on a disk that all machines see")
    return module(options.engine).load(options, weights)


def opened(options: EngineOptions, weights: Path, devices: Devices) -> Engine:
    """The engine that `options` name for a folder with a model, in this process or spread over `devices`."""
    if devices.here or options.engine == "openai":
        return module(options.engine).load(options, weights)
    return Spread(replace(options, devices=None), weights, devices)
