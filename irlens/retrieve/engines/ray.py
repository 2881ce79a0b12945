"""The ray engine: the workers of a Ray cluster, each with an engine of its own; a shard is the unit of work.

Runs on the cluster of RAY_ADDRESS, else on this machine. The model's folder must be readable under the same path on
every node, and irlens installed there.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from irlens.retrieve.engines import Draw, Engine, OnBatch, Prompt, Sampling, module
from irlens.retrieve.engines.cluster import Cluster, check_ray, connect, resources
from irlens.retrieve.options import EngineOptions

GUARANTEE = "those of the inner engine, whatever the number of workers and whichever of them die"


class RayEngine(Engine):
    """Calls of `sample` go to free workers, one each; one that dies gives its call to another."""

    def __init__(self, options: EngineOptions, weights: Path, workers: int, gpus: int):
        self.gpus, self.at_once = gpus * workers, workers

        def make() -> Engine:
            return module(options.engine).load(options, weights)

        self.cluster = Cluster(make, workers, cpus=1, gpus=gpus)

    def sample(
        self, prompts: Sequence[Prompt], draws: range, sampling: Sampling, on_batch: OnBatch | None = None
    ) -> list[Draw]:
        """See `engines.Engine`."""
        drawn = self.cluster.call("sample", list(prompts), draws, sampling)
        if on_batch:
            on_batch(len(drawn), sum(draw.n_tokens for draw in drawn))
        return drawn

    def close(self) -> None:
        """Ends the workers, not the cluster."""
        self.cluster.close()


def prepare(options: EngineOptions, model) -> EngineOptions:
    """Raises UserError where Ray is absent. The inner engine may be installed on the other nodes only."""
    check_ray()
    return options


def load(options: EngineOptions, weights: Path) -> RayEngine:
    """One worker per GPU (or per `tensor_parallel` of them); on a cluster without GPUs one per core, on one thread."""
    connect()
    cores, devices = resources()
    gpus = options.tensor_parallel if devices else 0
    workers = options.num_workers or max(1, devices // gpus if gpus else cores)
    inner = replace(options, engine=options.inner_engine, inner_engine=None, num_workers=None)
    return RayEngine(inner, Path(weights), workers, gpus)
