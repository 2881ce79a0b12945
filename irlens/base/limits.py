"""Calls on text that nobody vouches for, in a worker process that can be ended: none takes longer than it may.

A pattern can be catastrophic, a formula a tower of powers, a function of one's own an endless loop. The worker tells in
shared memory at which call it is; one that takes too long, or kills its process, costs the process and is NOT_JUDGED. A
function that is marked `linear` runs here, or where there are many calls in a process per core.
"""

from __future__ import annotations

import atexit
import functools
import mmap
import os
import pickle
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from irlens.base.errors import UserError
from irlens.base.workers import Worker

VARIABLE = "IRLENS_VERDICT_SECONDS"
SECONDS = 3.0  # that one call may take
START = 300.0  # seconds that a worker may take to import what it calls
BATCH = 2000  # calls that are sent at once
MANY = 20_000  # calls of a function of ours from which on other cores help
TELL = 0.05  # seconds between what a worker tells
LOOK = 0.05  # seconds between looks at a worker that tells nothing
MEMORY = 4 * 2**30  # bytes that calls of our own functions may take, a formula's numbers among them


class NotJudged:
    """What a call gives that took too long, or took its process with it."""

    def __repr__(self) -> str:
        return "NOT_JUDGED"


NOT_JUDGED = NotJudged()


class TooLong(Exception):
    """A call is over its time."""


def linear(function: Callable) -> Callable:
    """Marks a function of ours whose time is proven to grow no faster than its text (`tests/base/test_limits.py`)."""
    function.linear = True  # type: ignore[attr-defined]
    return function


def is_linear(function: Callable) -> bool:
    """Whether a function is marked; of a partial one, whether it and all functions that it is given are."""
    if isinstance(function, partial):
        return all(is_linear(part) for part in (function.func, *function.args) if callable(part))
    return getattr(function, "linear", False)


def is_foreign(function: Callable) -> bool:
    """Whether a function is, or calls, one that is not this package's: it may load models, or use many cores."""
    if isinstance(function, partial):
        return any(is_foreign(part) for part in (function.func, *function.args) if callable(part))
    return getattr(function, "foreign", not (getattr(function, "__module__", None) or "").startswith("irlens."))


def seconds() -> float:
    """How long a call may take: as the environment has it. Raises UserError for what is no number above 0."""
    told = os.environ.get(VARIABLE)
    try:
        value = float(told or SECONDS)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"{VARIABLE}={told}: give the seconds that a verdict may take, a number above 0")
    return value


def calls(function: Callable, arguments: Sequence[tuple]) -> list:
    """`function(*some)` for each of `arguments`, in order; NOT_JUDGED for one that took too long or died of it.

    A function that a worker cannot import (a lambda, one of a notebook) is called here, without a limit. Raises UserError:
    what the function raised as one, in one line whatever else it raised in a worker.
    """
    few = not arguments or (is_linear(function) and len(arguments) < MANY)
    told = None if few else _pickled(function)
    if told is None:
        return [function(*some) for some in arguments]
    with _here.lock:
        return _within(told, is_foreign(function), arguments, seconds())


def _within(told: bytes, foreign: bool, arguments: Sequence[tuple], limit: float) -> list:
    """The calls by a worker; one that once took too long is not tried again."""
    late = {some for key, some in _here.late if key == (told, limit)}
    fresh = [some for some in arguments if some not in late] if late else arguments
    few = foreign or len(fresh) < MANY
    found = _worker(foreign, 0).all(told, fresh, limit) if few else _on_all_cores(told, fresh, limit)
    _here.late |= {((told, limit), some) for some, one in zip(fresh, found) if one is NOT_JUDGED}
    if not late:
        return found
    rest = iter(found)
    return [NOT_JUDGED if some in late else next(rest) for some in arguments]


def each(function: Callable[[str], Any], texts: Iterable[str]) -> dict[str, Any]:
    """text → `function(text)` of all that are different; None too where it took too long."""
    known = list(dict.fromkeys(texts))
    found = calls(function, [(text,) for text in known])
    return {text: None if one is NOT_JUDGED else one for text, one in zip(known, found)}


def _on_all_cores(told: bytes, arguments: Sequence[tuple], limit: float) -> list:
    """The calls by a worker per core."""
    from irlens.base.devices import cores

    parts = [arguments[i : i + BATCH] for i in range(0, len(arguments), BATCH)]
    count = min(cores(), len(parts))
    with ThreadPoolExecutor(count) as pool:
        free: queue.SimpleQueue[_Calls] = queue.SimpleQueue()
        for i in range(count):
            free.put(_worker(False, i))

        def work(part: Sequence[tuple]) -> list:
            worker = free.get()
            try:
                return worker.all(told, part, limit)
            finally:
                free.put(worker)

        try:
            out = list(pool.map(work, parts))
        except BaseException:
            close()
            raise
    return [one for part in out for one in part]


def _pickled(function: Callable) -> bytes | None:
    """A function as another process can have it; None where it cannot."""
    try:
        told = pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return None if b"__main__" in told else told


# -- workers -------------------------------------------------------------------------------------------------------


class _Workers:
    """The workers of this process, for functions found on one sys.path, in one folder; and what took them too long."""

    def __init__(self):
        self.lock = threading.RLock()
        self.place: tuple = ()
        self.workers: dict[tuple[bool, int], _Calls] = {}
        self.late: set[tuple] = set()


_here = _Workers()


def _worker(foreign: bool, number: int) -> _Calls:
    place = (tuple(sys.path), os.getcwd(), os.getpid())
    if place != _here.place:
        close()
        _here.place = place
    if (foreign, number) not in _here.workers:
        _here.workers[foreign, number] = _Calls(foreign)
    return _here.workers[foreign, number]


@atexit.register
def close() -> None:
    """Ends the workers; the next call starts new ones."""
    if _here.place[-1:] == (os.getpid(),):  # not those of a process that forked this one
        for worker in _here.workers.values():
            worker.close()
    _here.workers = {}


class _Calls:
    """One worker process, and how far it is."""

    def __init__(self, foreign: bool):
        self.closed = False
        self.folder = tempfile.TemporaryDirectory(prefix="irlens-calls-", ignore_cleanup_errors=True)
        path = Path(self.folder.name)
        (path / "at").write_bytes(bytes(8))
        self.at = _counter(path / "at")
        self.worker = Worker(pickle.dumps(partial(_Called, str(path / "at"), foreign)), dict(os.environ))

    def all(self, told: bytes, arguments: Sequence[tuple], limit: float) -> list:
        """See `calls`."""
        out: list[Any] = []
        ends: list[int] = []  # calls at which a worker ended; what it did before without telling is done again
        while len(out) < len(arguments):
            if ends and len(out) == ends[-1]:
                out.append(NOT_JUDGED)
                continue
            start = len(out)
            stop = min([start + BATCH, *(end for end in ends if end > start)])
            self.at[0] = -1
            try:
                self.worker.ask("do", (told, arguments[start:stop], limit), out.extend, self._watch(limit))
            except (EOFError, TooLong) as error:
                if self.closed:
                    raise UserError("stopped") from error
                if self.at[0] < 0:
                    raise UserError(f"a worker did not come to its first call: {self.worker.last_words()}") from error
                ends.append(start + self.at[0])
            except UserError:  # the worker lives
                raise
            except BaseException:
                self.worker.gone()
                raise
        return out

    def _watch(self, limit: float) -> Callable[[], None]:
        """Raises TooLong once the worker has been at the same call for longer than it may."""
        seen = [self.at[0], time.monotonic()]

        def look() -> None:
            at, now = self.at[0], time.monotonic()
            if at != seen[0]:
                seen[:] = [at, now]
            elif now - seen[1] > (START if at < 0 else limit):
                raise TooLong

        return look

    def close(self) -> None:
        self.closed = True
        self.worker.end()
        self.folder.cleanup()


def _counter(path: str | Path) -> memoryview:
    with open(path, "r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 8)).cast("q")


class _Called:
    """What a worker holds."""

    def __init__(self, at: str, foreign: bool):
        self.at, self.foreign = _counter(at), foreign
        _limit("RLIMIT_CORE", 0)  # a process that dies of a call leaves nothing behind
        if not foreign:
            _limit("RLIMIT_AS", MEMORY)

    def do(self, told: bytes, arguments: Sequence[tuple], limit: float, on_batch: Callable[[list], None]) -> None:
        """Calls the pickled function; `on_batch` is told the results, at least every TELL seconds or at the next."""
        function, at, out = _loaded(told), self.at, []
        told_at = self._alarm(limit)
        for i, some in enumerate(arguments):
            at[0] = i
            out.append(function(*some))
            if time.monotonic() - told_at > TELL:
                on_batch(out)
                out, told_at = [], self._alarm(limit)
        on_batch(out)
        self._alarm(0.0)

    def _alarm(self, limit: float) -> float:
        """Has the system end this process after twice the time: where a call holds the interpreter, it would outlive a
        process that was killed. 0 ends that. Returns the time."""
        if hasattr(signal, "setitimer"):  # math-verify has the real clock for itself, and foreign code many cores
            signal.setitimer(signal.ITIMER_REAL if self.foreign else signal.ITIMER_PROF, 2 * limit)
        return time.monotonic()


@functools.lru_cache(maxsize=8)
def _loaded(told: bytes) -> Callable:
    return pickle.loads(told)


def _limit(name: str, value: int) -> None:
    try:
        import resource

        most = resource.getrlimit(getattr(resource, name))[1]
        resource.setrlimit(getattr(resource, name), (value if most < 0 else min(value, most), most))
    except (ImportError, AttributeError, ValueError, OSError):  # another system has no such limit
        return
