"""Loads: what a command takes at the size that it is to bear, and at a tenth of it.

    python experiments/bench/load.py [verify …] [--rounds 3] [--share 1.0] [--out experiments/bench/load.csv]

The input of a load (`load_inputs.py`) is generated, the same in every run, and not timed. Timed is the whole command in a
process of its own: seconds of the clock, of the processors (its workers included; `user_seconds` without the system's),
the memory of its largest process, and `others_cores`, how many cores of the machine other programs kept busy meanwhile.
Given are medians over rounds, and the growth of user seconds from the tenth to the whole: 10 where time grows with the
size, less with a start-up in both. Rows take the place of those of the same load in the table; others stay.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import load_inputs as inputs
import pandas as pd

# name → the input and command line of so many rows, the rows, the goals on two cores: seconds, GiB
LOADS: dict[str, tuple[Callable[[Path, int], list[str]], int, float | None, float | None]] = {
    "verify": (inputs.verify, 1_000_000, 30, None),
    "evaluate": (inputs.evaluate, 10_000_000, 180, 6),
    "mine-negatives": (inputs.mine, 1_000_000, 300, 4),
    "best-of-n": (inputs.best_of_n, 1_000_000, 60, None),
    "compare": (inputs.compare, 1_000_000, None, None),
    "import": (inputs.import_, 1_000_000, None, None),
    "export": (inputs.export, 1_000_000, None, None),
    "recall": (inputs.recall, 1_000_000, None, None),
    "winrate": (inputs.winrate, 80_500, None, None),
    "again": (inputs.again, 1_000_000, None, None),
}


# -- measuring -----------------------------------------------------------------------------------------------------


def measured(command: list[str], out: Path) -> dict[str, float]:
    """What one run of a command into a new folder takes, `--out` its own where it names one. Raises SystemExit where it
    fails."""
    arguments = [sys.executable, "-m", "irlens", *command]
    arguments += [] if "--out" in command else ["--out", str(out)]
    started, busy = time.perf_counter(), _busy()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"it failed: {' '.join(arguments)}")
    seconds, cpu = time.perf_counter() - started, used.ru_utime + used.ru_stime
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "user_seconds": used.ru_utime,
        "peak_mib": used.ru_maxrss / 1024,
        "others_cores": max(0.0, _busy() - busy - cpu) / seconds,
    }


def _busy() -> float:
    """Seconds of all processors of this machine spent at work since it started; 0 where the system does not tell."""
    try:
        told = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, *_ = (int(one) for one in told)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def load(name: str, rows: int, rounds: int) -> dict:
    """Medians of one load at one size."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / name
        place.mkdir()
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process starts with its parent's peak as its own
            command = pool.submit(LOADS[name][0], place, rows).result()
        found = [measured(command, Path(folder) / f"out-{i}") for i in range(rounds)]
    medians = {key: round(statistics.median(one[key] for one in found), 1) for key in found[0]}
    return {"load": name, "rows": rows, **medians, "rounds": rounds}


def kept(path: Path, rows: list[dict]) -> None:
    """Writes rows into the table, in the place of those of the same loads that it holds."""
    known = pd.read_csv(path).to_dict("records") if path.is_file() else []
    fresh = {row["load"] for row in rows}
    both = [row for row in known if row["load"] not in fresh] + rows
    order = list(LOADS)
    pd.DataFrame(sorted(both, key=lambda row: (order.index(row["load"]), row["rows"]))).to_csv(path, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loads", nargs="*", default=list(LOADS), metavar="LOAD", help=", ".join(LOADS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of the full size, to try it")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    given = parser.parse_args()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    for name in given.loads:
        _, most, seconds, gib = LOADS[name]
        sizes = int(most * given.share / 10), int(most * given.share)
        tenth, whole = (load(name, size, given.rounds) for size in sizes)
        rows = []
        for one in (tenth, whole):
            growth = round(one["user_seconds"] / tenth["user_seconds"], 1)
            goals = {"goal_seconds": seconds, "goal_gib": gib} if one["rows"] == most else {}
            rows.append(one | {"growth": growth} | goals | {"machine": machine})
            print(rows[-1], flush=True)
        kept(given.out, rows)


if __name__ == "__main__":
    main()
