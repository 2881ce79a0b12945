"""The seeds of a recipe at once, each in a process of its own that logs to a file."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TypeVar

from irlens.errors import UserError

T = TypeVar("T")
LOG = "log.txt"


def jobs_for(seeds: int) -> int:
    """How many seeds to run at once: one per core; on an accelerator one, which has it to itself."""
    import torch

    return 1 if torch.accelerator.is_available() else min(seeds, _cores())


def run(work: Callable[[int], T], seeds: Sequence[int], jobs: int, out: Path, say: Callable[[str], None]) -> list[T]:
    """`work(seed)` of every seed, in their order, made `jobs` at once; what they print goes to `out/seed-<s>/log.txt`.

    work: picklable, and so is what it returns. Raises UserError with the seed's name where one ends in UserError, or is
    killed. That, or an interrupt, ends the others too.
    """
    say(f"{len(seeds)} seeds, {jobs} at once; see {out / 'seed-*' / LOG}")
    began, others = time.monotonic(), set(active_children())
    prepared = (max(1, _cores() // jobs), os.getpid())
    with ProcessPoolExecutor(jobs, get_context("spawn"), _prepare, prepared) as pool:
        running = {pool.submit(_logged, work, seed, out / f"seed-{seed}" / LOG): seed for seed in seeds}
        try:
            for done in as_completed(running):
                done.result()
                say(f"seed {running[done]}: done, {(time.monotonic() - began) / 60:.1f} minutes after the start")
        except BaseException as error:
            for process in set(active_children()) - others:
                process.terminate()  # what it wrote stays, and its folder is free when this returns
            if isinstance(error, UserError):
                raise UserError(f"seed {running[done]}: {error}") from error
            if isinstance(error, BrokenProcessPool):
                hint = "the same command continues, try --jobs 1"
                raise UserError(f"a seed's process was killed (out of memory?); {hint}") from error
            raise
        return [done.result() for done in running]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare(threads: int, parent: int) -> None:
    """Threads for the numeric libraries, before they are imported, and an end when the parent is gone."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # nobody waits for this seed any more, and its folder is to be free for the next start

    threading.Thread(target=watch, daemon=True).start()


def _logged(work: Callable[[int], T], seed: int, log: Path) -> T:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    return work(seed)
