"""A command of the storm as a process: a fork of one that has done the imports, or as a user starts it.

python tests/storm_process.py   # the process whose forks commands are: a line per command on standard input
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WARM = ("torch", "transformers", "pandas", "pyarrow.parquet", "scipy.stats", "matplotlib.figure", "sentence_transformers",
        "faiss", "bm25s", "ir_measures", "rapidfuzz", "accelerate", "irlens.cli.report", "irlens.commands.train",
        "irlens.commands.recall", "irlens.commands.best_of_n", "irlens.commands.compare", "irlens.train.trainer",
        "irlens.retrieve.engines.transformers", "irlens.retrieve.dense", "irlens.measure.plots.curves",
        "irlens.train.adapters", "irlens.train.in_folder", "irlens.commands.mine_negatives")  # fmt: skip
LAST = 600  # seconds that a command may take
GONE = 15  # seconds that its processes have to end after it
MARK = "IRLENS_STORM"  # in the environment of every process that a command starts
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}


@dataclass
class Run:
    """A command at work in `place`, which it leads as a process group of its own."""

    pid: int
    place: Path
    ended: Callable[[], int | None]  # () → exit code, or None while it runs
    apart: bool = False  # whether it does its imports itself

    def others(self) -> list[int]:
        """The processes that it has started, and theirs."""
        mark, found = f"{MARK}={self.place}".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if int(entry.name) != self.pid and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return sorted(pid for pid in found if alive(pid))

    def workers(self) -> list[int]:
        """Those of them that work: not Python's own process that looks after semaphores, which no one kills alone."""
        found = []
        for pid in self.others():
            with contextlib.suppress(OSError):
                if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def wait(self, until: float) -> int | None:
        """Its exit code; None once `until` has come."""
        while (code := self.ended()) is None and time.monotonic() < until:
            time.sleep(0.005)
        return code


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


class Server:
    """The process that has done the imports, of which commands are forks."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.process.stdout.readline() == "ready\n"

    def start(self, argv: list[str], place: Path) -> Run:
        """A command in a fork."""
        self.process.stdin.write(json.dumps([argv, str(place)]) + "\n")
        pid = int(self.process.stdout.readline())
        codes: list[int] = []

        def ended() -> int | None:
            if not codes and select.select([self.process.stdout], [], [], 0)[0]:
                codes.append(int(self.process.stdout.readline()))
            return codes[0] if codes else None

        return Run(pid, place, ended)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def serve() -> bool:
    """Forks for every line on standard input. Returns in each fork; at the end, in the server, False."""
    for name in WARM:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a fork would copy what it looks at
    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        argv, place = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS.values())  # heard by the fork once it is the command
        pid = os.fork()
        if pid == 0:
            _become(argv, Path(place))
            return True
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS.values())
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return False


def _become(argv: list[str], place: Path) -> None:
    """Makes this process what `python -m irlens ARGV` in `place` would be."""
    os.setsid()
    os.chdir(place / "work")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(place / name, flags), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ |= _environment(place)
    tempfile.tempdir = None
    sys.argv = ["irlens", *argv]


def _environment(place: Path) -> dict[str, str]:
    return {MARK: str(place), "TMPDIR": str(place / "tmp"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def cold(argv: list[str], place: Path) -> Run:
    """A command as a user starts it."""
    command = [sys.executable, "-m", "irlens", *argv]
    with (place / "stdout").open("ab") as out, (place / "stderr").open("ab") as err:
        process = subprocess.Popen(
            command, cwd=place / "work", stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            env=os.environ | _environment(place), start_new_session=True,
        )  # fmt: skip
    return Run(process.pid, place, process.poll, apart=True)


def end_all(run: Run) -> None:
    """Ends what does not end by itself."""
    for pid in [run.pid, *run.others()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run.wait(time.monotonic() + 10)


def _command() -> None:
    """The program in a fork: what was sent to it before it could hear comes when it can."""
    from irlens.base import interrupts
    from irlens.cli.entry import main

    hear = interrupts.hear

    def unblocked() -> None:
        hear()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS.values())

    interrupts.hear = unblocked
    main()


if __name__ == "__main__" and serve():
    _command()
