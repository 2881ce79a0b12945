"""A storm: every command is killed at random moments and started again until it ends, and must end as an unbroken one.

    python tests/storm.py [--kills 200] [--seed 0] [--only passk,train] [--cold 0.1] [--out tests/storm.csv]

Half of the moments are uniform over the time of an unbroken run, half come right after a new name appears in its folders
(a temporary file, too). What is sent: SIGKILL to the command, to one of its processes or to all of them; SIGTERM to the
command; SIGINT to its process group, as Ctrl-C does. Then the same command starts again. At the end every file must be
that of the unbroken run to the byte (`_seen` says what is left out), no temporary file and no process may be left. A
share `cold` of the commands is `python -m irlens` as a user starts it; the others are forks of a process that has done
the imports, and run the same `main` to the interpreter's end: a kill that falls into imports shows nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import storm_cases
from storm_process import GONE, LAST, SIGNALS, Run, Server, alive, cold, end_all

OWN = (
    "wall_seconds",
    "wall_seconds_of_steps",
    "peak_memory_bytes",
    "sampling",
    "store",
    "finished",
    "checksum",
)  # of a manifest


# -- what a command has made -----------------------------------------------------------------------------------------


def made(place: Path) -> dict[str, object]:
    """Name → content of every file below `place`/work, as two runs of a command are compared."""
    found = {}
    for path in sorted((place / "work").rglob("*")):
        if path.is_file() and (content := _seen(path)) is not None:
            found[str(path.relative_to(place / "work"))] = content
    return found


def _seen(path: Path) -> object:
    """A file's bytes, but for times and for what a kill makes a command do twice. Of a manifest without seconds, memory
    (`peak_memory_bytes`), what was drawn anew or found in the store (`sampling`, `store`), and `finished`, a digest over
    these very files; of sampled.json, which books draws and seconds, nothing, nor of logs; of a store's index the rows
    without times; of checksums.txt nothing, where lines of what was made twice stand twice; a rehearsal's page without
    its numbers, which are times, and its report without seconds."""
    if path.name == "manifest.json":
        told = json.loads(path.read_text(encoding="utf-8"))
        return {k: v for k, v in told.items() if k not in OWN}
    if path.name == "index.sqlite":
        with contextlib.closing(sqlite3.connect(path)) as db:
            rows = db.execute("SELECT key, first, stop, name, row FROM items JOIN files ON file = id").fetchall()
            return sorted(rows), db.execute("SELECT count(*) FROM claims").fetchone()
    if path.name == "rehearsal.md":
        return re.sub(r"[\d.]+", "", path.read_text(encoding="utf-8"))
    if path.name == "report.json":
        return {k: v for k, v in json.loads(path.read_text(encoding="utf-8")).items() if "seconds" not in k}
    if path.name in UNSEEN or (path.name.startswith("log") and path.suffix == ".txt"):
        return None
    return path.read_bytes()


def same(name: str, found: object, wanted: object) -> bool:
    """Whether a file is that of an unbroken run. A store may lack what a kill came before: it holds nothing else."""
    if "store" in name.partition("/")[0] and found != wanted:
        return found is None or (isinstance(found, tuple) and {*found[0]} <= {*wanted[0]} and found[1] == wanted[1])
    return found == wanted


def left(place: Path) -> list[str]:
    """Temporary files that are still there, in the folders and in the machine's own place for them."""
    names = [p.relative_to(place) for p in (place / "work").rglob("*") if p.name.endswith(".tmp")]
    elsewhere = [p.relative_to(place) for p in (place / "tmp").iterdir() if not p.name.startswith("torchinductor")]
    return [str(name) for name in [*names, *elsewhere]]  # torch keeps a cache there


def phase(work: Path) -> str:
    """What was written last, in words."""
    newest, when = None, 0.0
    for path in (
        Path(where) / name for where, _, names in os.walk(work) for name in names
    ):  # which may vanish meanwhile
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_mtime >= when:
                newest, when = path, path.stat().st_mtime
    if newest is None:
        return "start"
    inside = newest.relative_to(work).parts
    for word, names in PHASES.items():
        if any(re.fullmatch(name, part) for part in inside for name in names):
            return word
    return "tables" if newest.suffix in (".parquet", ".csv", ".run", ".qrels", ".jsonl", ".json") else "others"


UNSEEN = ("sampled.json", "checksums.txt", "index.sqlite-wal", "index.sqlite-shm", "phase.log")
PHASES = {
    "end": (r"chosen\.json",), "checkpoints": ("checkpoints", r"phase\..*"), "model": (r"\.?model(\.tmp)?",),
    "figures": (r".*\.(png|pdf)(\..*)?",), "store": (r"\.?store", r"\.irlens-store"), "vectors": ("vectors", r".*\.faiss.*"),
    "shards": ("shards", "draws.*", "scores.*", "rerank"), "manifest": (r"\.?manifest\.json.*", r"\.lock", r"log.*\.txt"),
}  # fmt: skip


# -- a case in the storm ---------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What the storm has done to a command, and what came of it."""

    command: str
    unbroken: float = 0.0
    seconds: float = 0.0
    ways: Counter = field(default_factory=Counter)
    fell: Counter = field(default_factory=Counter)
    thirds: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(self.ways.values())

    def row(self) -> dict:
        """A line of the table."""
        return {
            "command": self.command, "kills": self.kills, **{way: self.ways[way] for way in WAYS},
            "differences": len(self.wrong), "unbroken_s": round(self.unbroken, 1), "seconds": round(self.seconds),
            "first_third": self.thirds[0], "second_third": self.thirds[1], "last_third": self.thirds[2],
            "last_written": "; ".join(f"{word} {count}" for word, count in self.fell.most_common()),
        }  # fmt: skip


WAYS = ("main", "worker", "all", "SIGTERM", "SIGINT")


class Storm:
    """Runs cases below `folder`; what went wrong stays there to be looked at."""

    def __init__(self, folder: Path, seed: int, share_cold: float):
        self.folder, self.seed, self.cold = folder, seed, share_cold
        self.server, self.inputs = Server(), folder / "inputs"

    def prepare(self, cases: list[storm_cases.Case]) -> None:
        """What these cases read: made once, unbroken."""
        shutil.rmtree(self.inputs, ignore_errors=True)
        self.inputs.mkdir(parents=True)
        storm_cases.write_files(self.inputs)
        place = self.place("preparing")
        for name, argv in storm_cases.INPUTS.items():
            if any(name == case.finds or f"@{name}" in case.argv for case in cases):
                self.whole(self.filled(argv), place, 0.0)

    def filled(self, argv: str) -> list[str]:
        return [word.replace("@", f"{self.inputs}/") for word in argv.split(" ")]

    def place(self, name: str, case: storm_cases.Case | None = None) -> Path:
        """A folder for a command, with what the case finds there."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        (place / "tmp").mkdir(parents=True)
        if case is not None and case.finds:
            shutil.copytree(self.inputs / case.finds, place / "work")
        else:
            (place / "work").mkdir()
        return place

    def whole(self, argv: list[str], place: Path, share_cold: float, dice: random.Random | None = None) -> int:
        """Starts a command until it ends well; returns how many names it made at last, of one without `dice`."""
        for _ in range(3):
            run = (cold if dice and dice.random() < share_cold else self.server.start)(argv, place)
            _, names = wait_for_names(run, place / "work", time.monotonic() + LAST, math.inf if dice is None else 0)
            if (code := run.wait(time.monotonic() + LAST)) == 0:
                return names
            if code is None:
                end_all(run)
                break
        said = (place / "stderr").read_text(errors="replace")[-2000:]
        raise AssertionError(f"irlens {' '.join(argv)}: exit code {code}\n{said}")

    def case(self, case: storm_cases.Case, kills: int) -> Tally:
        """So many kills of a command, one to four in a row before it may end."""
        tally, began, argv = Tally(case.name), time.monotonic(), self.filled(case.argv)
        dice = random.Random(f"{self.seed} {case.name}")
        place = self.place(f"{case.name}-unbroken", case)
        started = time.monotonic()
        events = self.whole(argv, place, 0.0)
        tally.unbroken = time.monotonic() - started
        wanted, when = made(place), moments(kills, events, dice)
        episode = missed = 0
        while tally.kills < kills and missed < 20:
            here = self.place(f"{case.name}-{episode}", case)
            before = tally.kills
            for _ in range(min(dice.randint(1, 4), kills - tally.kills)):
                missed += not self.strike(argv, here, tally, next(when), dice)
            if tally.kills > before and self.compare(argv, here, wanted, tally, dice):
                shutil.rmtree(here)
            episode += 1
        tally.seconds = time.monotonic() - began
        return tally

    def strike(self, argv: list[str], place: Path, tally: Tally, when: Moment, dice: random.Random) -> bool:
        """Starts the command and sends it something; False if it ended before."""
        several = {"--devices", "--jobs"} & {*argv}  # it has workers, which come late
        way = dice.choices(WAYS, (2, 8, 2, 1, 1) if several else (4, 3, 2, 1.5, 1.5))[0]
        apart = dice.random() < self.cold
        (place / "stderr").unlink(missing_ok=True)
        since = time.time()
        run, began = (cold if apart else self.server.start)(argv, place), time.monotonic()
        length = tally.unbroken + 6 * apart
        if isinstance(when, int):
            code, _ = wait_for_names(run, place / "work", began + 2 * length, when)
        else:
            code = run.wait(began + when * length)
        while way == "worker" and several and code is None and not run.workers() and time.monotonic() < began + length:
            code = run.wait(time.monotonic() + dice.uniform(0.01, 0.5))
        if code is not None:
            return False
        others, workers = run.others(), run.workers()
        way = "main" if way == "worker" and not workers else way
        tally.fell[phase(place / "work")] += 1
        tally.thirds[min(2, int(3 * (time.monotonic() - began) / length))] += 1
        tally.ways[way] += 1
        send(run, way, workers if way == "worker" else others, dice)
        code = run.wait(time.monotonic() + (LAST if way == "worker" else 60))
        tally.wrong += self.after(run, way, code, since)
        return True

    def after(self, run: Run, way: str, code: int | None, since: float) -> list[str]:
        """What is wrong once a command was sent something. Before Python has begun to run, no program hears a signal."""
        wrong, until = [], time.monotonic() + GONE
        if code is None:
            wrong.append(f"{way}: runs on")
        while (rest := run.others()) and time.monotonic() < until:
            time.sleep(0.02)
        if rest:
            words = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:80] for pid in rest if alive(pid)]
            wrong.append(f"{way}: processes are left: {words}")
        if code is None or rest:
            end_all(run)
        wrong += [f"{way}: {line}" for line in _said(run.place) if "resource_tracker" in line or "semaphore" in line]
        if way in SIGNALS and code != 0 and not (run.apart and code == -SIGNALS[way] and not _said(run.place)):
            wrong += [f"{way}: {line}" for line in ill_ended(run.place, way, code, since)]
        return wrong

    def compare(self, argv: list[str], place: Path, wanted: dict, tally: Tally, dice: random.Random) -> bool:
        """Lets the command end, and notes how what it made differs. Whether all is well."""
        before = len(tally.wrong)
        try:
            self.whole(argv, place, self.cold, dice)
        except AssertionError as error:
            tally.wrong.append(str(error))
            return False
        found = made(place)
        differ = [name for name in sorted({*found, *wanted}) if not same(name, found.get(name), wanted.get(name))]
        tally.wrong += [f"differs: {', '.join(differ)}"] if differ else []
        tally.wrong += [f"left: {', '.join(names)}"] if (names := left(place)) else []
        return len(tally.wrong) == before


Moment = int | float  # after so many new names, or at this share of an unbroken run's time


def moments(kills: int, names: int, dice: random.Random) -> Iterator[Moment]:
    """Half are times and half are names, each half spread evenly: one in every part of a run, the parts in any order."""
    parts = max(1, kills // 2)
    while True:
        shares = [(i + dice.random()) / parts for i in range(parts)]
        yield from dice.sample([*shares, *(1 + int(share * max(1, names)) for share in shares)], 2 * parts)


def wait_for_names(run: Run, work: Path, until: float, count: float) -> tuple[int | None, int]:
    """Returns right after the `count`-th new name was seen, or at `until`: the exit code if the command has ended, and how
    many there were."""
    known, new = {path for path, _, _ in os.walk(work)}, 0
    known |= {os.path.join(where, name) for where, _, names in os.walk(work) for name in names}
    while (code := run.ended()) is None and new < count and time.monotonic() < until:
        seen = {os.path.join(where, name) for where, _, names in os.walk(work) for name in names}
        new += len(seen - known)
        known |= seen
        time.sleep(0.002)
    return code, new


def send(run: Run, way: str, others: list[int], dice: random.Random) -> None:
    """Kills or interrupts a command."""
    with contextlib.suppress(ProcessLookupError):
        if way == "SIGINT":
            os.killpg(run.pid, signal.SIGINT)
        elif way == "SIGTERM":
            os.kill(run.pid, signal.SIGTERM)
        elif way == "worker":
            os.kill(dice.choice(others), signal.SIGKILL)
        else:
            os.kill(run.pid, signal.SIGKILL)
    for pid in others if way == "all" else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _said(place: Path) -> list[str]:
    """What it said on standard error; of one that was killed before it had one, nothing."""
    if not (place / "stderr").exists():
        return []
    return (place / "stderr").read_text(errors="replace").replace("\r", "\n").splitlines()


def ill_ended(place: Path, way: str, code: int | None, since: float) -> list[str]:
    """What is wrong with how a command ended that was interrupted: exit code, its one line, the manifests that it wrote.
    What stands there from before does not count: progress bars, and what torch warns of as several processes begin."""
    wrong = [] if code == 128 + SIGNALS[way] else [f"exit code {code}"]
    said = [
        line
        for line in _said(place)
        if line.strip() and not re.search(r"\d+%\||━|it/s|s/it|\d/\d.* \d:\d\d:\d\d |reducer\.cpp:\d+\] Warning", line)
    ]
    if said != ["irlens: interrupted; the same command continues"]:
        wrong.append(f"standard error: {said[-6:]}")
    for path in (place / "work").rglob("manifest.json"):
        if path.stat().st_mtime > since and json.loads(path.read_text(encoding="utf-8"))["status"] == "running":
            wrong.append(f"{path.relative_to(place)}: running")
    return wrong


# -- the table -------------------------------------------------------------------------------------------------------


def write_table(tallies: list[Tally], path: Path, before: list[dict], add: bool = False) -> None:
    """A line per command, and one for all; commands that only an earlier storm has met (`before`) keep their line, and to
    that of the others this storm is added, where it is to `add`."""
    known, met = {row["command"]: row for row in before}, [tally.command for tally in tallies]
    rows = [added(tally.row(), known.get(tally.command) if add else None) for tally in tallies]
    rows += [row for name, row in known.items() if name not in met]
    order = [case.name for case in storm_cases.CASES]
    rows.sort(key=lambda row: order.index(row["command"]))
    sums = {key: sum(row[key] for row in rows) for key in rows[0] if isinstance(rows[0][key], (int, float))}
    sums["unbroken_s"] = round(sums["unbroken_s"], 1)
    told = {"command": "all", "last_written": summed(row["last_written"] for row in rows)}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, sums | told])


def added(row: dict, before: dict | None) -> dict:
    """A command's line with that of an earlier storm added; the time of an unbroken run is the later one's."""
    if before is None:
        return row
    sums = {key: row[key] + before[key] for key, value in row.items() if isinstance(value, int)}
    return row | sums | {"last_written": summed([row["last_written"], before["last_written"]])}


def summed(told: Iterable[str]) -> str:
    """The sum of `word count; word count …` of several lines, the largest count first."""
    fell: Counter[str] = Counter()
    for word, _, count in (some.rpartition(" ") for line in told for some in line.split("; ") if some):
        fell[word] += int(count)
    return "; ".join(f"{word} {count}" for word, count in fell.most_common())


def read_table(path: Path) -> list[dict]:
    """The lines of a table that is there, but for that of all."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["command"] != "all"]
    return [
        {k: float(v) if "." in v and k == "unbroken_s" else int(v) if v.isdigit() else v for k, v in r.items()}
        for r in rows
    ]


def main() -> int:
    """Runs the storm; 1 if anything went otherwise than unbroken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases, by commas")
    parser.add_argument("--cold", type=float, default=0.1, help="share of commands that do their imports themselves")
    parser.add_argument("--folder", type=Path, help="where to work; kept")
    parser.add_argument("--out", type=Path, help="a CSV of what was done")
    parser.add_argument("--add", action="store_true", help="to what --out says already; with another --seed")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and so in what we start
    only = set(given.only.split(",")) - {""}
    cases = [case for case in storm_cases.CASES if not only or case.name in only]
    total, tallies, before = sum(case.weight for case in cases), [], read_table(given.out) if given.out else []
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="storm-")))
        storm = Storm(folder.resolve(), given.seed, given.cold)
        stack.callback(storm.server.close)
        storm.prepare(cases)
        for case in cases:
            tallies.append(storm.case(case, max(1, round(given.kills * case.weight / total))))
            print(json.dumps(tallies[-1].row()), *tallies[-1].wrong, sep="\n  ", flush=True)
            if given.out:
                write_table(tallies, given.out, before, given.add)
    kills, wrong = sum(t.kills for t in tallies), sum(len(t.wrong) for t in tallies)
    print(f"{kills} kills of {len(tallies)} commands, {wrong} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
