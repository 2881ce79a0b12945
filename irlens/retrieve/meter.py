"""What sampling shows while it runs and what it costs: draws, tokens, rates, time left, GPU-seconds."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from irlens.base.files import write_text
from irlens.base.progress import progress_bar

ACCOUNT = "sampled.json"  # beside the shards; what made them
LINE_EVERY = 30.0  # seconds between lines where there is no terminal to draw a bar on


class Meter:
    """Used as `with Meter(...) as meter:`; a bar on a terminal, elsewhere a line now and then. Safe among threads.

    `kept` adds what was done since the last call to the folder's account, so that a kill loses at most a shard's.
    """

    def __init__(self, name: str, todo: int, folder: Path | None, say: Callable[[str], None]):
        self.name, self.todo, self.folder, self.say = name, todo, folder, say
        self.draws = self.tokens = 0
        self.lock = threading.Lock()
        self.started = self.said = self.booked = time.monotonic()
        self.account = read_account(folder) if folder else None

    def __enter__(self) -> "Meter":
        self.progress = progress_bar(unit="draws", passing=True)
        self.bar = self.progress.add_task(f"sampling {self.name}", total=self.todo, rate="loading the model")
        if self.progress.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self.progress.live.is_started:
            self.progress.stop()
        if self.draws:
            self.say(f"{self.name}: made {self.draws:,} draws, {self.tokens:,} tokens, {self.rate()}")

    def add(self, draws: int, tokens: int) -> None:
        """Counts what an engine has just made."""
        with self.lock:
            self.draws, self.tokens = self.draws + draws, self.tokens + tokens
            self.progress.update(self.bar, advance=draws, rate=self.rate())
            now = time.monotonic()
            if not self.progress.console.is_terminal and now - self.said > LINE_EVERY:
                self.said = now
                left = (now - self.started) * (self.todo - self.draws) / max(self.draws, 1)
                self.say(f"{self.name}: {self.draws:,} of {self.todo:,} draws, {self.rate()}, {_clock(left)} left")

    def rate(self) -> str:
        """Draws and tokens per second since the start, loading included."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        return f"{self.draws / seconds:,.0f} draws/s, {self.tokens / seconds:,.0f} tokens/s"

    def kept(self, draws: int, tokens: int, gpus: float | None) -> None:
        """Books a shard that is on disk, and the time since the last one; nothing where nothing is written."""
        if self.account is None:
            return
        with self.lock:
            now = time.monotonic()
            spent, self.booked = now - self.booked, now
            old = self.account
            cost = None if gpus is None or old["gpu_seconds"] is None else old["gpu_seconds"] + spent * gpus
            self.account = {
                "draws": old["draws"] + draws,
                "tokens": old["tokens"] + tokens,
                "seconds": round(old["seconds"] + spent, 3),
                "gpu_seconds": cost if cost is None else round(cost, 3),
            }
            write_text(json.dumps(self.account) + "\n", self.folder / ACCOUNT)


def read_account(folder: Path) -> dict:
    """What sampling into `folder` and everything below it has cost; `gpu_seconds` is None if one part is unknown."""
    total = {"draws": 0, "tokens": 0, "seconds": 0.0, "gpu_seconds": 0.0}
    for path in sorted(folder.rglob(ACCOUNT)):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            for key, value in total.items():
                total[key] = None if value is None or found[key] is None else round(value + found[key], 3)
        except (OSError, ValueError, KeyError, TypeError):  # an account is no reason to lose draws
            total["gpu_seconds"] = None
    return total


def _clock(seconds: float) -> str:
    return f"{int(seconds // 3600)}:{int(seconds // 60) % 60:02d}:{int(seconds) % 60:02d}"
