"""Loads: what a command takes at the size that it is to bear, and at a tenth of it.

    python experiments/bench/load.py [verify …] [--rounds 3] [--share 1.0] [--out experiments/bench/load.csv]

The input of a load is generated, the same in every run, and not timed. Timed is the whole command in a process of its own:
seconds of the clock, of the processors (its workers included; the machine may be shared), and its largest memory. Given
are medians, and how much longer the whole takes than the tenth: 10 where time grows with the size.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

PROBLEMS = 1319  # as GSM8K's test split has


# -- inputs --------------------------------------------------------------------------------------------------------


def verify(folder: Path, rows: int) -> list[str]:
    """`irlens verify`: responses to GSM8K-like problems, all different, with answers in the forms that models write."""
    rng = np.random.default_rng(0)
    golds = rng.integers(2, 5000, PROBLEMS)
    problems = folder / "problems"
    problems.mkdir()
    with (problems / "test.jsonl").open("w", encoding="utf-8") as file:
        for i, gold in enumerate(golds):
            row = {"question": f"Problem {i}: how many are there in all?", "answer": f"Counting.\n#### {gold}"}
            file.write(json.dumps(row) + "\n")
    problem = np.arange(rows) % PROBLEMS
    said = np.where(rng.random(rows) < 0.5, golds[problem], rng.integers(2, 5000, rows))
    forms = rng.integers(0, len(ENDS), rows)
    a, b = rng.integers(2, 90, (2, rows))
    texts = [
        STEPS.format(a=x, b=y, c=x * y, draw=i) + ENDS[form].format(n=n)
        for i, (x, y, n, form) in enumerate(zip(a.tolist(), b.tolist(), said.tolist(), forms.tolist()))
    ]
    draw = np.arange(rows) // PROBLEMS
    run = pd.DataFrame({
        "query_id": [f"problems/test/{i:05d}" for i in problem],
        "doc_id": [f"d{i}" for i in range(rows)],
        "score": -draw.astype(np.float32),
        "rank": draw,
        "text": texts,
        "query": [f"Problem {i}: how many are there in all?" for i in problem],
        "finish_reason": "stop",
    })  # fmt: skip
    run.to_parquet(folder / "run.parquet")
    return ["verify", str(folder / "run.parquet"), "--dataset", str(problems), "--verifier", "gsm8k"]


STEPS = """First we look at what is given. There are {a} boxes with {b} pieces in each, so {a} * {b} = {c} pieces at first.
Then some are given away, which leaves fewer of them; we count what is left in draw {draw}, step by step.
"""
ENDS = (
    "So in all there are {n}.\n#### {n}",
    "Therefore, the answer is ${n}.",
    "**Final Answer:** \\boxed{{{n}}}",
    "The answer is {n} pieces, as 3 + 4 = 7 were given away.",
    "That leaves {n} of them",
    "I cannot say how many are left, sorry.",
)
LOADS: dict[str, tuple[Callable[[Path, int], list[str]], int]] = {"verify": (verify, 1_000_000)}


# -- measuring -----------------------------------------------------------------------------------------------------


def measured(command: list[str], out: Path) -> dict[str, float]:
    """What one run of a command into a new folder takes. Raises SystemExit where it fails."""
    arguments = [sys.executable, "-m", "irlens", *command, "--out", str(out)]
    started = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"it failed: {' '.join(arguments)}")
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "user_seconds": used.ru_utime,
        "peak_mib": used.ru_maxrss / 1024,
    }


def load(name: str, rows: int, rounds: int) -> dict:
    """Medians of one load at one size."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / name
        place.mkdir()
        command = LOADS[name][0](place, rows)
        found = [measured(command, Path(folder) / f"out-{i}") for i in range(rounds)]
    medians = {key: round(statistics.median(one[key] for one in found), 1) for key in found[0]}
    return {"load": name, "rows": rows, **medians, "rounds": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loads", nargs="*", default=list(LOADS), metavar="LOAD", help=", ".join(LOADS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the full size, to try it")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    given = parser.parse_args()
    machine = f"{os.cpu_count()}-core CPU, {platform.machine()}, Python {platform.python_version()}"
    rows = []
    for name in given.loads:
        most = int(LOADS[name][1] * given.share)
        tenth, whole = (load(name, size, given.rounds) for size in (most // 10, most))
        for one in (tenth, whole):
            rows.append(one | {"growth": round(one["user_seconds"] / tenth["user_seconds"], 1), "machine": machine})
            print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
