"""Worker processes of this machine, each with an object of its own; one that dies is started again, and its work with it."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe

from irlens.base import errors, interrupts
from irlens.base.errors import UserError

AGAIN = 3  # times that the same work is given to a new worker after one has died at it


class Workers:
    """`len(environments)` processes that each hold what `make()` returns. `call` is thread-safe.

    make: picklable; called in the worker when its first work comes. A call whose worker dies is done again by another,
    AGAIN times; then it raises UserError with what the worker said last. They end with `close`, and with this process
    however it ends. Each is a session of its own, so that no signal of the terminal reaches it, and ends with all that it
    started itself.
    """

    def __init__(self, make: Callable[[], object], environments: Sequence[dict[str, str]]):
        self.count, self.closed = len(environments), False
        told = pickle.dumps(make)
        self.all = [Worker(told, some) for some in environments]
        self.free: queue.LifoQueue[Worker] = queue.LifoQueue()  # one that is started already comes before a new one
        for worker in reversed(self.all):
            self.free.put(worker)

    def call(self, method: str, *args, seen: Callable[..., None] | None = None):
        """The result of `method(*args)` on a free worker's object; `seen` is called with what it reports meanwhile.

        Raises UserError: what the method raised, in one line, or the death of AGAIN + 1 workers at this work.
        """
        for tries in range(AGAIN + 1):
            worker = self.free.get()
            try:
                if self.closed:
                    raise UserError("stopped")
                return worker.ask(method, args, seen)
            except EOFError:
                if self.closed:
                    raise UserError("stopped") from None
                if tries == AGAIN:
                    raise UserError(
                        f"{AGAIN + 1} workers died at the same work, the last {worker.last_words()}"
                    ) from None
            finally:
                self.free.put(worker)

    def map(self, method: str, items: Iterable) -> Iterator:
        """`method(item)` of every item, in order, on all workers at once."""
        with ThreadPoolExecutor(self.count) as pool:
            try:
                yield from pool.map(lambda item: self.call(method, item), items)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.close()  # ends the calls in flight, which the pool waits for
                raise

    def close(self) -> None:
        """Ends the workers; calls in flight raise."""
        self.closed = True
        for worker in self.all:
            worker.end()


class Worker:
    """One process (`irlens.base.worker`), started when there is work, and the pipe to it. What it prints goes to a file
    without a name, of which nothing stays, however this process ends."""

    def __init__(self, make: bytes, environment: dict[str, str]):
        self.make, self.environment, self.log = make, environment, tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the worker
        self.process: subprocess.Popen | None = None

    def ask(
        self,
        method: str,
        args: tuple,
        seen: Callable[..., None] | None,
        look: Callable[[], None] | None = None,
        every: float = 0.05,
    ):
        """See `Workers.call`. look: called while the process says nothing, `every` so many seconds; what it raises ends the
        process. Raises EOFError if the process ends meanwhile."""
        try:
            if self.process is None or self.process.poll() is not None:
                self._start()
            self.pipe.send((method, args, seen is not None))
            while True:
                while look is not None and not self.pipe.poll(every):
                    self._look(look)
                kind, *told = self.pipe.recv()
                if kind == "done":
                    return told[0]
                if kind == "refused":
                    raise getattr(errors, told[0])(told[1])
                if kind == "failed":
                    raise UserError(told[0])
                if seen is not None:
                    seen(*told)
        except OSError as error:  # a pipe whose other end is gone
            self.gone()
            raise EOFError from error
        except EOFError:
            self.gone()
            raise

    def _look(self, look: Callable[[], None]) -> None:
        try:
            look()
        except BaseException:
            self.gone()
            raise

    def last_words(self) -> str:
        """How it ended, and the last line that it wrote."""
        status = self.process.returncode if self.process else None
        how = f"by {signal.Signals(-status).name}" if status and status < 0 else f"with exit code {status}"
        if status == -signal.SIGKILL:
            how += " (out of memory?)"
        self.log.seek(0)
        return said_last(how, self.log.read())

    def end(self) -> None:
        """Ends it with all that it started."""
        end(self.process)

    def _start(self) -> None:
        self.pipe, theirs = Pipe()
        with interrupts.held():  # what is started is known
            self.process = subprocess.Popen(
                [sys.executable, "-m", "irlens.base.worker", str(theirs.fileno())],
                env=self.environment | {"PYTHONPATH": python_path()},
                stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        theirs.close()
        self.pipe.send_bytes(self.make)

    def gone(self) -> None:
        """Ends it where a call did not end well: the next work starts another."""
        self.end()
        self.pipe.close()


def python_path() -> str:
    """Where this process finds modules, for one that it starts."""
    return os.pathsep.join(path or os.getcwd() for path in sys.path)


def stop(process: subprocess.Popen) -> None:
    """Asks a process that leads a session to end, as `irlens.base.interrupts` has it, and ends it if it does not."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(interrupts.PATIENCE)
    end(process)


def end(process: subprocess.Popen | None) -> None:
    """Ends a process that leads a session of its own, with all that it started, and waits for it."""
    if process is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing of it is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def said_last(how: str, log: bytes) -> str:
    """`how`, and the last line of a log that says something: no progress bar, no rule."""
    lines = log.decode("utf-8", "replace").splitlines()
    said = (re.sub(r"\s*\d+%\|.*\]", "", line).strip() for line in reversed(lines))
    last = next((line for line in said if re.search(r"\w", line)), "")
    return f"{how}: {last[:200]}" if last else how
