"""Commands on several workers: the same bytes whatever their number, a dead one made good, and no process left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

DRAWN = ["passk", "-n", "6", "--limit", "150", "--temperature", "0.5,1.0", "--store", "none", "--out"]
TRAINED = ["train", "--prompts", "24", "-n", "4", "--iterations", "1", "--epochs", "1", "--batch-lists", "4", "--store"]
TRAINED += ["none", "--eval-limit", "6", "--eval-n", "2", "--test-limit", "0", "--out"]
ALONE = ["--devices", "1"]


def tables(folder):
    """What a command found, as bytes."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.parquet")}


@pytest.fixture(scope="module")
def drawn(irlens, tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "one"
    irlens(*DRAWN, out, *ALONE)
    return out


@pytest.mark.parametrize("devices", ["2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("0", "4"))])
def test_draws_are_the_same_to_the_byte(irlens, drawn, tmp_path, devices):
    said = irlens(*DRAWN, tmp_path / "out", "--devices", devices)
    assert tables(tmp_path / "out") == tables(drawn)
    assert (devices == "0") == ("processes" not in said.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("several", [("0", "2"), pytest.param(("0", "1", "2", "4"), marks=pytest.mark.slow)])
def test_scores_are_the_same_to_the_byte(irlens, drawn, tmp_path, several):
    for devices in several:
        args = ["--reranker", "likelihood", "--policy", "tiny", "--devices", devices, "--store", "none"]
        irlens("rerank", drawn, *args, "--out", tmp_path / devices)
    assert all(tables(tmp_path / devices) == tables(tmp_path / several[0]) for devices in several)


@pytest.mark.slow
def test_a_training_on_two_workers_has_the_lists_of_one_and_its_losses(irlens, tmp_path):
    for devices in ("0", "2"):
        irlens(*TRAINED, tmp_path / devices, "--devices", devices)
    one, two = (tmp_path / name / "iteration-1" for name in ("0", "2"))
    for name in ("run.parquet", "qrels.parquet", "lists.parquet"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    losses = [pd.read_csv(folder / "log.csv")["grad_norm"].tolist() for folder in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) and len(losses[0]) > 3


def started(args, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "irlens", *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )  # fmt: skip


def workers_of(process):
    """The processes that this one has started as workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            words = (path.parent / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if parent == process.pid and b"irlens.base.worker" in words:
            found.append(int(path.parent.name))
    return found


def wait_for(found, process):
    while not found():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_row(drawn, tmp_path):
    out = tmp_path / "out"
    process = started([*DRAWN, out, "--devices", "2"])
    wait_for(lambda: list(out.glob("shards/T*.parquet")), process)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    _, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    assert tables(out) == tables(drawn)


@pytest.mark.slow
def test_sigterm_ends_it_with_its_workers_and_the_same_command_continues(irlens, drawn, tmp_path):
    out = tmp_path / "out"
    process = started([*DRAWN, out, "--devices", "2"])
    wait_for(lambda: list(out.glob("shards/T*.parquet")), process)
    workers = workers_of(process)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert error.strip().splitlines()[-1] == "irlens: interrupted; the same command continues"
    assert workers and not any(Path(f"/proc/{pid}").exists() for pid in workers)
    irlens(*DRAWN, out, "--devices", "2")
    assert tables(out) == tables(drawn)


@pytest.mark.parametrize("given, line", [("nine", "give a number of devices"), ("99", "here is no GPU")])
def test_devices_that_are_not_there_are_one_line(irlens, tmp_path, given, line):
    said = irlens(*DRAWN, tmp_path / "out", "--devices", given, code=2)
    assert line in said.stderr and len(said.stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()
