"""Draws per second that irlens itself can handle: a server that answers at once, then request, verify and write.

    python experiments/bench/overhead.py [--rounds 3] [--out experiments/bench/overhead.csv]

The server is the tests' stub, in a process of its own on the same machine. Counted is everything from the first request
to the written run and qrels; start-up (imports, the tokenizer) is not, since it does not grow with the draws.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from irlens import tasks
from irlens.base import files
from irlens.models.chat import prompts
from irlens.rerank.verify import verify
from irlens.retrieve.engines.openai import OpenAIEngine
from irlens.retrieve.sample import Draws, sample_run

STUB = Path(__file__).parents[2] / "tests" / "retrieve" / "stub_server.py"


def measure(url: str, task, n: int) -> float:
    """Draws per second of one run."""
    asked = prompts(task.topics, None)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()

        def load() -> OpenAIEngine:
            return OpenAIEngine([url], "stub")

        run = sample_run(load, asked, Draws(n, (1.0,), 0, 96), Path(folder) / "shards", "stub", lambda line: None)
        qrels = verify(run, task.topics, task.verifier)
        files.write_parquet(run, Path(folder) / "run.parquet")
        files.write_parquet(qrels, Path(folder) / "qrels.parquet")
        return len(run) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    given = parser.parse_args()
    rows = []
    for case, settings, n, limit in (
        ("n = 100 in requests of 50", {}, 100, 500),
        ("n = 16", {}, 16, 1000),
        ("n = 1", {}, 1, 1000),
        ("n = 16, a server that ignores n", {"ignore_n": True}, 16, 100),
    ):
        server = subprocess.Popen([sys.executable, STUB, json.dumps(settings)], stdout=subprocess.PIPE, text=True)
        try:
            url, task = f"http://127.0.0.1:{int(server.stdout.readline())}/v1", tasks.load("sums", "test", limit)
            measure(url, tasks.load("sums", "test", 10), n)
            rates = [measure(url, task, n) for _ in range(given.rounds)]
        finally:
            server.kill()
        row = {"case": case, "prompts": limit, "n": n, "draws_per_s": round(statistics.median(rates))}
        row |= {"slowest": round(min(rates)), "fastest": round(max(rates)), "rounds": given.rounds}
        rows.append(row | {"machine": f"2-core CPU, {platform.machine()}, Python {platform.python_version()}"})
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
