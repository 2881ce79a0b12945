"""The storm (`make storm`), a small one: commands killed at random moments and started again end as unbroken ones."""

import csv
import subprocess
import sys
from pathlib import Path

STORM = Path(__file__).with_name("storm.py")


def test_commands_that_are_killed_again_and_again_end_as_unbroken_ones(tmp_path):
    command = [sys.executable, str(STORM), "--kills", "3", "--seed", "3", "--only", "sample", "--cold", "0"]
    command += ["--out", str(tmp_path / "storm.csv")]
    done = subprocess.run(command, cwd=STORM.parents[1], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("3 kills of 1 commands, 0 differences\n")
    with (tmp_path / "storm.csv").open() as file:
        rows = {row["command"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"sample", "all"} and rows["all"]["kills"] == "3"
    assert all(sum(int(row[way]) for way in ("main", "all", "SIGTERM", "SIGINT")) > 0 for row in rows.values())
