"""The ray engine and the cluster under it: on two nodes started here, one of which is killed half-way."""

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

from irlens.base.errors import UserError
from irlens.retrieve.engines import choose, ray
from irlens.retrieve.options import EngineOptions

ARGS = ("passk", "--limit", "100", "-n", "50", "--temperature", "0.7,1.0")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


def test_workers_draw_what_the_inner_engine_draws():
    options, why = choose(EngineOptions(num_workers=2))
    assert (options.engine, options.inner_engine) == ("ray", "transformers") and "--num-workers" in why
    from irlens.retrieve.engines import guarantee, kind

    assert kind(options) == "transformers" and "number of workers" in guarantee(options)
    with pytest.raises(UserError, match="did you mean 'vllm'"):
        choose(EngineOptions(engine="ray", inner_engine="vlm"))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'irlens\[ray\]'"):
        ray.prepare(EngineOptions(engine="ray"), None)


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


@needs_ray
@pytest.mark.slow
def test_a_node_killed_half_way_changes_no_row(cluster, tmp_path):
    environment, _, other = cluster
    work = irlens(environment, *ARGS, "--num-workers", 2, "--out", tmp_path / "a")
    deadline = time.monotonic() + 200
    while len(list((tmp_path / "a").glob("shards/T*"))) < 2:
        assert work.poll() is None, work.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    other.kill()
    shown, _ = work.communicate(timeout=300)
    assert work.returncode == 0, shown
    assert "engine: ray (transformers), chosen because there are --num-workers" in shown
    alone = irlens(environment, *ARGS, "--out", tmp_path / "b")
    assert alone.wait(300) == 0, alone.stdout.read()
    a, b = (pd.read_parquet(tmp_path / name / "run.parquet") for name in "ab")
    assert len(a) == 100 * 50 * 2
    assert [len(ids) for ids in a["tokens"]] == a["n_tokens"].tolist()  # the ids drawn come back from the workers
    pd.testing.assert_frame_equal(a, b)


SCORE = """
from irlens.retrieve.engines.cluster import Cluster
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
