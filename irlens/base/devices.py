"""Where a phase of work runs: in this process, in worker processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from irlens.base.errors import UserError
from irlens.base.workers import Workers

LAUNCHED = (  # what torchrun and accelerate launch tell a process; none of it is for the processes that we start
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCH_NCCL_ASYNC_ERROR_HANDLING",
)  # fmt: skip


@dataclass(frozen=True)
class Devices:
    """Who works: "here" (this process), "local" (`count` processes, one per GPU where there are some) or "ray".

    count: of a Ray cluster None is one worker per GPU of it, or core. gpus: of this machine.
    """

    kind: str = "here"
    count: int | None = 1
    gpus: int = 0

    @property
    def here(self) -> bool:
        """Whether the work stays in this process."""
        return self.kind == "here"

    def workers(self, make: Callable[[], object], each: int = 1):
        """Workers that hold what `make()` returns, on `each` GPUs: `call(method, *args, seen=None)`, `count`, `close()`."""
        if self.kind == "ray":
            from irlens.base.cluster import Cluster, room

            count, gpus = room(self.count, each)
            return Cluster(make, count, gpus=gpus)
        count = max(1, (self.count or 1) // each)
        return Workers(make, [environment(number, count, each if self.gpus else 0) for number in range(count)])

    def __str__(self) -> str:
        if self.kind == "ray":
            return "a Ray cluster" if self.count is None else f"up to {self.count} workers of a Ray cluster"
        what = "GPU" if self.gpus else "process"
        return (
            "this process"
            if self.here
            else f"{self.count} {what}{'s' * (self.count != 1) if self.gpus else 'es' * (self.count != 1)}"
        )


HERE = Devices()


def choose(given: str | int | None) -> Devices:
    """What `--devices` asks for: a number, 0 (this process), `ray` or `ray:N`; None: every GPU that is visible, else here.

    On a machine without a GPU devices are processes on a core each (or OMP_NUM_THREADS of them). Raises UserError: something else, more GPUs than
    there are, Ray where it is not installed, one command on several machines without Ray.
    """
    asked = str(given).strip() if given is not None else launched()
    if asked is not None and asked.partition(":")[0] == "ray":
        from irlens.base.cluster import check_ray

        check_ray()
        return Devices("ray", _count(asked, asked.partition(":")[2], None) if ":" in asked else None)
    import torch

    gpus = torch.cuda.device_count()
    count = gpus if asked is None else _count(asked, asked, gpus)
    return Devices("local", count, gpus) if count else HERE


def _count(asked: str, number: str, gpus: int | None) -> int:
    lowest = 1 if gpus is None else 0
    if not number.isascii() or not number.isdigit() or len(number) > 9 or int(number) < lowest:
        raise UserError(f"--devices {asked}: give a number of devices, 0 for this process, ray or ray:N")
    if gpus and int(number) > gpus:
        raise UserError(f"--devices {asked}: here {'is' if gpus == 1 else 'are'} {gpus} GPU{'s' * (gpus != 1)}")
    if gpus == 0 and int(number) > MOST:
        raise UserError(f"--devices {asked}: here is no GPU, and no more than {MOST} processes are started on a CPU")
    return int(number)


MOST = 64  # worker processes on a machine without GPUs; a typing error would start thousands


def first() -> bool:
    """Whether this process is the first of those that torchrun or `accelerate launch` started, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


def launched() -> str | None:
    """How many devices a launcher meant, told in its first process; None without one. Raises UserError: several machines."""
    count, here = os.environ.get("WORLD_SIZE"), os.environ.get("LOCAL_WORLD_SIZE")
    if count is not None and here not in (None, count):
        raise UserError(
            "a launcher on several machines: start irlens once, without it, on a Ray cluster of them, with --devices ray"
        )
    return count


def environment(number: int | None, count: int, gpus: int) -> dict[str, str]:
    """The environment of worker `number` of `count` (None: of a launcher that has all): its own GPUs with a share of the
    cores, or one core, as sums are rounded by the number of threads; and nothing of a launcher that started this process."""
    clean = {k: v for k, v in os.environ.items() if k not in LAUNCHED and not k.startswith("TORCHELASTIC_")}
    if number is not None:
        clean.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count) if gpus else 1))
        if gpus:
            names = [name for name in clean.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
            own = range(number * gpus, (number + 1) * gpus)
            clean["CUDA_VISIBLE_DEVICES"] = ",".join(names[i] if names else str(i) for i in own)
    return clean


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
