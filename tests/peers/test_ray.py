"""Work on a Ray cluster: on two nodes started here, one of which is killed in each phase."""

import contextlib
import importlib.util
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from irlens.base import devices
from irlens.base.errors import UserError
from irlens.retrieve.engines import choose
from irlens.retrieve.options import EngineOptions

ARGS = ("passk", "--limit", "100", "-n", "50", "--temperature", "0.7,1.0")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'irlens\[ray\]'"):
        devices.choose("ray:2")


def test_the_engine_ray_of_before_is_told_its_new_name():
    with pytest.raises(UserError, match="--engine ray is now --devices ray"):
        choose(EngineOptions(engine="ray"))


class Node:
    """One `ray start` and what it started, in a session of processes of its own."""

    def __init__(self, environment: dict, log: Path, *args: str):
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1", *args]
        command += ["--object-store-memory=100000000", "--disable-usage-stats"]
        self.log = log
        self.process = subprocess.Popen(
            command, env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True
        )

    def address(self) -> str:
        for _ in range(600):
            if found := re.search(r"--address='([\d.]+:\d+)'", self.log.read_text()):
                return found[1]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        """SIGKILL to all of it, by process id."""
        import psutil

        try:
            family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        except psutil.NoSuchProcess:
            return
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


@pytest.fixture
def cluster(tmp_path):
    """(environment that reaches it, head, other): two nodes of one core each."""
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment |= {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
    nodes = [Node(environment, tmp_path / "head.log", "--head", "--port=0", "--include-dashboard=false")]
    try:
        address = nodes[0].address()
        nodes.append(Node(environment, tmp_path / "other.log", f"--address={address}"))
        yield environment | {"RAY_ADDRESS": address, "COLUMNS": "160"}, *nodes
    finally:
        for node in reversed(nodes):
            node.kill()


def irlens(environment, *args):
    return subprocess.Popen(
        [sys.executable, "-m", "irlens", *map(str, args)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def killed_half_way(cluster, args, begun, out):
    """What the command says, run on both nodes, of which one is killed when `begun()`; it must end well."""
    environment, _, other = cluster
    work = irlens(environment, *args, "--devices", "ray:2", "--store", "none", "--out", out)
    deadline = time.monotonic() + 200
    while not begun():
        assert work.poll() is None, work.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    other.kill()
    shown, _ = work.communicate(timeout=400)
    assert work.returncode == 0, shown
    return shown


def alone(args, out):
    work = irlens(os.environ | {"OMP_NUM_THREADS": "1"}, *args, "--devices", "1", "--store", "none", "--out", out)
    shown, _ = work.communicate(timeout=400)
    assert work.returncode == 0, shown


@needs_ray
@pytest.mark.slow
def test_a_node_killed_while_drawing_changes_no_row(cluster, tmp_path):
    out = tmp_path / "a"
    shown = killed_half_way(cluster, ARGS, lambda: len(list(out.glob("shards/T*"))) > 1, out)
    assert "engine: transformers, on up to 2 workers of a Ray cluster" in shown
    alone(ARGS, tmp_path / "b")
    a, b = (pd.read_parquet(tmp_path / name / "run.parquet") for name in "ab")
    assert len(a) == 100 * 50 * 2
    assert [len(ids) for ids in a["tokens"]] == a["n_tokens"].tolist()  # the ids drawn come back from the workers
    pd.testing.assert_frame_equal(a, b)


@needs_ray
@pytest.mark.slow
def test_a_node_killed_while_scoring_changes_no_score(cluster, tmp_path):
    alone(ARGS, tmp_path / "run")
    args, out = ("rerank", tmp_path / "run", "--reranker", "likelihood", "--policy", "tiny"), tmp_path / "a"
    killed_half_way(cluster, args, lambda: len(list(out.rglob("shards/**/*.parquet"))) > 1, out)
    alone(args, tmp_path / "b")
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / name / "run.parquet") for name in "ab"))


@needs_ray
@pytest.mark.slow
def test_a_node_killed_while_training_is_made_good_by_the_other(cluster, tmp_path):
    """The processes that are left have the losses that both had: a step is the same however it is divided."""
    args = ["train", "--prompts", "60", "-n", "6", "--iterations", "1", "--epochs", "40", "--batch-lists", "8"]
    args += [
        "--eval-limit",
        "6",
        "--eval-n",
        "2",
        "--test-limit",
        "0",
        "--trainer-args",
        '{"save_steps": 20, "logging_steps": 20}',
    ]
    out = tmp_path / "a"
    shown = killed_half_way(cluster, args, lambda: list(out.rglob("checkpoint-*/complete")), out)
    assert "it is started again from its last checkpoint" in shown
    alone(args, tmp_path / "b")
    a, b = (tmp_path / name / "iteration-1" for name in "ab")
    pd.testing.assert_frame_equal(*(pd.read_parquet(folder / "lists.parquet") for folder in (a, b)))
    losses = [pd.read_csv(folder / "log.csv")["loss"] for folder in (a, b)]
    assert losses[0].iloc[:3].tolist() == pytest.approx(losses[1].iloc[:3].tolist(), rel=0.02) and len(losses[0]) > 3


@needs_ray
@pytest.mark.slow
def test_a_folder_that_another_node_does_not_see_is_one_line(cluster, tmp_path, monkeypatch):
    """Told as if another machine looked for it: the actors' phase reads a path that is not there."""
    environment, *_ = cluster
    code = (
        "from irlens.train.launch import *; from irlens.base.devices import Devices\n"
        "from irlens.base.cluster import launch\n"
        "try: launch(plugins.function(f'{PROCESS}:main', ''), '/not/there/phase.json', 2, print)\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert "/not/there/phase.json: is not seen on" in done.stdout and "put --out on a disk" in done.stdout, done.stderr


SCORE = """
from irlens.base.cluster import Cluster
from irlens.base.errors import UserError

class Scorer:
    def __init__(self, bad=False):
        if bad:
            raise UserError("no such reward model")
    def score(self, text):
        return len(text)
    def fail(self, text):
        raise UserError(f"cannot score {text}")

cluster = Cluster(Scorer, 2)
print(list(cluster.map("score", ["a" * i for i in range(20)])) == list(range(20)))
try:
    cluster.call("fail", "x")
except UserError as error:
    print(error)
cluster.close()
try:
    Cluster(lambda: Scorer(bad=True), 1).call("score", "a")
except UserError as error:
    print(error)
"""


@needs_ray
@pytest.mark.slow
def test_any_object_can_work_on_a_cluster(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCORE], capture_output=True, text=True, timeout=200)
    assert done.stdout.splitlines()[:2] == ["True", "cannot score x"], done.stderr
    assert "no such reward model" in done.stdout.splitlines()[2]
