"""SIGTERM and SIGINT (Ctrl-C): the first one ends what is at work, tidily, and with one line."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 10.0  # seconds that cleaning up has; a signal that comes later ends the process at once
AGAIN = 0.05  # seconds after which a signal comes again that was raised where nothing can be
LINE = "interrupted; the same command continues"


class Interrupted(BaseException):
    """A signal asked this process to end. args: its number."""


_came: list[float] = []  # when the signal came that ends this process
_holders: list[object] = []  # who does what must not be cut in two
_waiting: list[int] = []  # the signal that waits for them
unfinished: list[
    Callable[[], None]
] = []  # what is still to be done where an interrupt has cut short even the cleaning up


def hear() -> None:
    """From here on SIGTERM and SIGINT raise Interrupted in the main thread, once; a SIGINT that is ignored (by a process
    in the background) stays so."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _hear)
    sys.unraisablehook = _unraisable


@contextmanager
def held() -> Iterator[None]:
    """While open, an interrupt waits: it is raised at the end. For what must not be cut in two, such as a process that is
    started and then known by its number. Other threads than the main one are never interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _holders.append(None)
    try:
        yield
    finally:
        _holders.pop()
        if _waiting and not _holders:
            _hear(_waiting.pop(), None)


def came() -> bool:
    """Whether this process is being ended by a signal."""
    return bool(_came)


def deafen() -> None:
    """The work is done: what comes now is too late to end it. Ignored, as Python gives back what it hears before it ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def ended(error: BaseException) -> int:
    """The exit code of a process that `error` has interrupted, once all is as it should be after it."""
    for finish in reversed(unfinished):
        with suppress(OSError):  # such as a full disk
            finish()
    unfinished.clear()
    return 128 + (error.args[0] if isinstance(error, Interrupted) else signal.SIGINT)


def _hear(number: int, _) -> None:
    now = time.monotonic()
    if _came:  # what is cleaned up is not to be cut short
        if now - _came[0] > PATIENCE:
            os._exit(128 + number)
        return
    if _holders:
        _waiting[:] = [number]
        return
    _came.append(now)
    raise Interrupted(number)


def _unraisable(told) -> None:
    """Python drops what is raised in a destructor or a callback: the signal comes again, elsewhere."""
    if not isinstance(told.exc_value, Interrupted):
        return sys.__unraisablehook__(told)
    number = told.exc_value.args[0]

    def again() -> None:
        _came.clear()
        os.kill(os.getpid(), number)

    threading.Timer(AGAIN, again).start()
    return None
