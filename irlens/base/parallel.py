"""Parts of a recipe at once (seeds, and arms that need nothing of each other), each in a process of its own with a log."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context, resource_tracker
from pathlib import Path
from typing import Any, TypeVar

from irlens.base import interrupts
from irlens.base.devices import cores
from irlens.base.errors import UserError
from irlens.base.secrets import kept_off_streams

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One call of the work, what people call it, and the file for what it prints."""

    name: str
    log: Path
    arguments: tuple[Any, ...]


def jobs_for(parts: int) -> int:
    """How many parts to run at once: one per core; on an accelerator one, which has it to itself."""
    import torch

    return 1 if torch.accelerator.is_available() else min(parts, cores())


def run(work: Callable[..., T], parts: Sequence[Part], jobs: int, say: Callable[[str], None]) -> list[T]:
    """`work(*part.arguments)` of every part, in their order, made `jobs` at once.

    Work, arguments and what is returned: picklable. Raises UserError with the part's name where one ends in UserError,
    or is killed. That, or an interrupt, ends the others too.
    """
    say(f"{len(parts)} parts, {jobs} at once; see {parts[0].log} and its like")
    began, others = time.monotonic(), set(active_children())
    _start_tracker()
    prepared = (max(1, cores() // jobs), os.getpid())
    with ProcessPoolExecutor(jobs, get_context("spawn"), _prepare, prepared) as pool:
        try:
            running = _submitted(pool, work, parts)
            for done in as_completed(running):
                done.result()
                say(f"{running[done]}: done, {(time.monotonic() - began) / 60:.1f} minutes after the start")
        except BaseException as error:
            _end(set(active_children()) - others)
            if isinstance(error, UserError):
                raise UserError(f"{running[done]}: {error}") from error
            if isinstance(error, BrokenProcessPool):
                hint = "the same command continues, try --jobs 1"
                raise UserError(f"a process was killed (out of memory?); {hint}") from error
            raise
        return [done.result() for done in running]


def _start_tracker() -> None:
    """Starts Python's own process that removes the pool's semaphores where this one is killed. It does so without a word:
    its warning, long after the prompt has come back, would tell the user of nothing that is left."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join([*filter(None, [before]), "ignore:resource_tracker"])
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


def _submitted(pool: ProcessPoolExecutor, work: Callable, parts: Sequence[Part]) -> dict[Future, str]:
    """The parts handed to the pool, with their names. Its processes start with SIGINT blocked: Ctrl-C reaches all of a
    terminal's processes, and it is for this one to end those."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with interrupts.held():  # what is started is known
            return {pool.submit(_logged, work, part): part.name for part in parts}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(processes: set) -> None:
    """Ends processes; what they wrote stays, and their folders are free when this returns."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + interrupts.PATIENCE
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        process.kill()


def _prepare(threads: int, parent: int) -> None:
    """Threads for the numeric libraries, before they are imported, and an end when the parent is gone or says so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    interrupts.hear()
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # nobody waits for this part any more, and its folders are to be free for the next start

    threading.Thread(target=watch, daemon=True).start()


def _logged(work: Callable[..., T], part: Part) -> T:
    part.log.parent.mkdir(parents=True, exist_ok=True)
    with part.log.open("a") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    try:
        with kept_off_streams():
            return work(*part.arguments)
    except interrupts.Interrupted as error:  # the pool would hand it on, and wait for more work
        code = interrupts.ended(error)
        sys.stdout.flush()
        os._exit(code)
