"""Fuzz: spoiled inputs of every kind through every command, which may end in two ways only: well, or with one line and 2.

    python tests/fuzz.py [--inputs 10000] [--seed 0] [--only recipes,options] [--out tests/fuzz.csv] [--failures FOLDER]

hypothesis spoils the whole inputs of `fuzz_bases.py`; options are read off the parser. A process runs them in turn
(`fuzz_worker.py`); where an input ends it, or takes more than a minute, that input is kept and another process goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import fuzz_inputs
import hypothesis
import typer
from fuzz_bases import BASES
from fuzz_worker import packed
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
MOST = 60.0  # seconds of an input
ROUND = 500  # inputs of all kinds, after which the table is written
SHARES = {"recipes": 0.5, "options": 0.29, "task files": 0.05, "imports": 0.06, "runs and qrels": 0.03, "lists": 0.02, "folders": 0.01,
          "server answers": 0.01, "winrate": 0.01, "mixeval": 0.01, "rewardbench": 0.01}  # fmt: skip


class World:
    """The folders that commands wrote, and that inputs spoil."""

    def __init__(self, folder: Path):
        self.folder = folder

    def names(self, folders: tuple[str, ...]) -> list[str]:
        """Every file of some of them."""
        found = [path for one in folders for path in sorted((self.folder / one).rglob("*")) if path.is_file()]
        return [str(path.relative_to(self.folder)) for path in found if path.name != ".lock"]

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


class Fed:
    """A process that is fed inputs, and started again where one ends it."""

    def __init__(self, folder: Path):
        self.folder, self.process = folder, None

    def start(self) -> None:
        command = [sys.executable, str(HERE / "fuzz_worker.py"), str(self.folder)]
        log = (self.folder / "log.txt").open("a")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._line(300) == "ready\n", (self.folder / "log.txt").read_text()[-2000:]

    def _line(self, seconds: float) -> str | None:
        """The next line of it, None if none comes in time, "" if it has ended."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline() if ready else None

    def feed(self, case: dict) -> dict:
        """What came of an input."""
        if self.process is None:
            self.start()
        start = time.monotonic()
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        line = self._line(MOST)
        if line:
            return json.loads(line)
        self.end()
        wrong = "takes more than a minute" if line is None else f"ended the process ({self.code})"
        return {"code": None, "wrong": wrong, "seconds": time.monotonic() - start, "said": "", "trace": ""}

    def end(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            try:
                self.code = self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.code = self.process.wait()
            self.process.stdout.close()
            self.process = None


@dataclass
class Tally:
    """What came of the inputs of a kind."""

    kind: str
    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    wrong: Counter = field(default_factory=Counter)

    def row(self) -> dict:
        """A line of the table."""
        return {"kind": self.kind, "inputs": self.inputs, "refused": self.refused, "accepted": self.accepted,
                "failures": sum(self.wrong.values()), "seconds": round(self.seconds, 1), "slowest": round(self.slowest, 1)}  # fmt: skip


def cases(kind: str, world: World) -> st.SearchStrategy:
    """The inputs of a kind."""
    some = [name for name, base in BASES.items() if base.kind == kind]
    if kind == "options":
        from irlens.cli.app import app

        commands = typer.main.get_command(app).commands
        assert {f"options of {name}" for name in commands} == set(some), (
            "fuzz_bases.OPTIONS needs a line for each command"
        )
        some.remove("options of doctor")  # has none
        return st.sampled_from(some).flatmap(lambda n: fuzz_inputs.options(n, commands[n.removeprefix("options of ")]))
    made = {
        "folders": lambda name: fuzz_inputs.manifests(name, world),
        "recipes": fuzz_inputs.recipes,
        "server answers": fuzz_inputs.answers,
    }
    return st.sampled_from(some).flatmap(made.get(kind, fuzz_inputs.files))


def signature(wrong: str) -> str:
    """What is wrong without what differs from input to input."""
    return re.sub(r"'[^']*'|\d+", "·", wrong)[:160]


def storm(tally: Tally, inputs: int, seed: int, fed: Fed, keep: Path | None) -> None:
    """Feeds so many inputs of a kind; one of each failure is kept, the smallest."""
    kind = tally.kind
    kept: dict[str, tuple] = {}
    if fed.process is None:
        fed.start()

    @hypothesis.seed(seed)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(kind, World(fed.folder / "world")))
    def feed(case):
        one = packed(case)
        found = fed.feed(one)
        tally.inputs += 1
        tally.seconds += found["seconds"]
        tally.slowest = max(tally.slowest, found["seconds"])
        if found["wrong"]:
            sign = signature(found["wrong"])
            tally.wrong[sign] += 1
            if sign not in kept or len(json.dumps(one)) < len(json.dumps(kept[sign][0])):
                kept[sign] = (one, found)
        else:
            tally.refused += found["code"] == 2
            tally.accepted += found["code"] == 0

    feed()
    for i, (one, found) in enumerate(kept.values()):
        print(f"  {tally.wrong[signature(found['wrong'])]} × {one['base']}: {found['wrong']}", flush=True)
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{kind.replace(' ', '-')}-{seed}-{i:02d}.json").write_text(json.dumps({"case": one, **found}))


def table(tallies: list[Tally]) -> list[dict]:
    """A line for each kind, and one for all."""
    rows = [tally.row() for tally in tallies]
    total = {key: round(sum(row[key] for row in rows), 1) for key in rows[0] if key not in ("kind", "slowest")}
    return [*rows, {"kind": "all", **total, "slowest": max(row["slowest"] for row in rows)}]


def main() -> int:
    """Prints and writes the table; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(SHARES), help="kinds, by commas")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--failures", type=Path, help="where one input of each failure is kept")
    given = parser.parse_args()
    kinds = given.only.split(",")
    share = sum(SHARES[kind] for kind in kinds)
    with tempfile.TemporaryDirectory() as folder:
        fed, tallies = Fed(Path(folder)), {kind: Tally(kind) for kind in kinds}
        rounds = max(1, round(given.inputs / ROUND))
        for turn in range(rounds):
            for kind, tally in tallies.items():
                inputs = max(1, round(given.inputs * SHARES[kind] / share / rounds))
                storm(tally, inputs, given.seed + turn, fed, given.failures)
            rows = table(list(tallies.values()))
            print(rows[-1], flush=True)
            if given.out:
                with given.out.open("w", newline="") as file:
                    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)
        fed.end()
    print(
        f"{rows[-1]['inputs']} inputs, {rows[-1]['refused']} refused, {rows[-1]['accepted']} accepted, {rows[-1]['failures']} failures"
    )
    return bool(rows[-1]["failures"])


if __name__ == "__main__":
    sys.exit(main())
