"""The tests that are marked `gpu`, each a row of a table as it ends.

python experiments/bench/gpu_tests.py --out experiments/bench/gpu
"""

import re
import sys
from pathlib import Path

import pytest
from gpu_common import Table, options

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("test", "outcome", "seconds", "why")


class Rows:
    """A plugin of pytest that writes a row per test."""

    def __init__(self, table: Table):
        self.table = table

    def pytest_runtest_logreport(self, report) -> None:
        ended = report.when == "call" or report.outcome != "passed"  # setup and teardown only where they go wrong
        if not ended:
            return
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "").strip()
        why = why.splitlines()[-1][:200] if why else ""
        self.table.add(test=report.nodeid, outcome=report.outcome, seconds=round(report.duration, 2), why=why)
        if report.skipped:
            print(f"skipped: {report.nodeid}: {why}", flush=True)


def files() -> list[str]:
    """The files with such tests; collecting the others would import what need not be installed."""
    marked = [
        path for path in sorted((ROOT / "tests").rglob("test_*.py")) if re.search(r"mark\.gpu\b", path.read_text())
    ]
    return [str(path.relative_to(ROOT)) for path in marked]


def main() -> None:
    given = options(__doc__).parse_args()
    table = Table(given.out.resolve(), "tests", COLUMNS)
    arguments = ["--rootdir", str(ROOT), "-q", "-m", "gpu", "-p", "no:cacheprovider", "--no-header"]
    sys.exit(pytest.main([*arguments, *(str(ROOT / name) for name in files())], plugins=[Rows(table)]))


if __name__ == "__main__":
    main()
