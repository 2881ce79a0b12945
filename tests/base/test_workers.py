"""Worker processes: what they answer, what a death costs, and that none outlives the process that started it."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from irlens.base.devices import LAUNCHED, choose, environment, first
from irlens.base.errors import NothingToRank, UserError
from irlens.base.workers import AGAIN, Workers


class Held:
    """What a worker holds here."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def square(self, x):
        return x * x

    def pid(self):
        time.sleep(0.1)  # so that one does not take the other's call
        return os.getpid()

    def variable(self, name):
        return os.environ.get(name)

    def dies(self, times):
        """Kills its process, for so many calls of whoever."""
        file = self.folder / "deaths"
        before = len(file.read_text()) if file.is_file() else 0
        if before < times:
            file.write_text("x" * (before + 1))
            print("the last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return before

    def refuses(self):
        raise NothingToRank("nothing there")

    def fails(self):
        raise ZeroDivisionError("by zero\nand more")

    def counts(self, to, on_batch=None):
        for i in range(to):
            on_batch(i, 2 * i)
        return to

    def sleeps(self):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (self.folder / f"child-{os.getpid()}").write_text(str(child.pid))
        time.sleep(600)


def broken():
    raise ImportError("No module named 'vllm'")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """A worker imports what it holds from where this process does."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


@pytest.fixture
def workers(tmp_path):
    made = Workers(partial(Held, tmp_path), [environment(i, 2, 0) for i in range(2)])
    yield made
    made.close()


def gone(pid):
    """Whether a process ends within ten seconds (one whose parent does not wait for it is a zombie, and gone)."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


def test_work_is_divided_and_comes_back_in_order(workers):
    assert list(workers.map("square", range(20))) == [i * i for i in range(20)]
    with ThreadPoolExecutor(2) as pool:
        pids = set(pool.map(lambda _: workers.call("pid"), range(6)))
    assert len(pids) == 2 and os.getpid() not in pids


def test_what_is_reported_meanwhile_is_heard(workers):
    heard = []
    assert workers.call("counts", 3, seen=lambda *told: heard.append(told)) == 3
    assert heard == [(0, 0), (1, 2), (2, 4)]


def test_a_death_costs_its_work_and_no_more(workers):
    assert workers.call("dies", AGAIN) == AGAIN
    assert workers.call("square", 3) == 9


def test_four_deaths_at_the_same_work_are_one_line_with_the_last_words(workers):
    with pytest.raises(UserError, match=r"4 workers died at the same work, the last by SIGKILL .*: the last words$"):
        workers.call("dies", AGAIN + 1)
    assert workers.call("square", 3) == 9  # other work goes on


def test_what_a_worker_raises_is_raised_here(workers):
    with pytest.raises(NothingToRank, match="nothing there"):
        workers.call("refuses")
    with pytest.raises(UserError, match="^a worker failed: ZeroDivisionError: by zero and more$"):
        workers.call("fails")
    assert workers.call("square", 3) == 9


def test_a_worker_that_cannot_import_its_engine_is_one_line():
    made = Workers(broken, [environment(0, 1, 0)])
    with pytest.raises(UserError, match="^a worker failed: ImportError: No module named 'vllm'$"):
        made.call("square", 1)
    made.close()


def test_closing_ends_calls_in_flight_and_what_they_started(workers, tmp_path):
    heard = []

    def call():
        try:
            workers.call("sleeps")
        except UserError as error:
            heard.append(str(error))

    threads = [threading.Thread(target=call) for _ in range(3)]  # one waits for a worker
    [thread.start() for thread in threads]
    while len(list(tmp_path.glob("child-*"))) < 2 or not all(p.read_text() for p in tmp_path.glob("child-*")):
        time.sleep(0.05)
    workers.close()
    [thread.join(20) for thread in threads]
    assert heard == ["stopped"] * 3
    assert all(gone(int(path.read_text())) and gone(int(path.name[6:])) for path in tmp_path.glob("child-*"))


def test_workers_at_work_end_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from functools import partial; import test_workers as t\n"
        "t.Workers(partial(t.Held, sys.argv[2]), [t.environment(0, 1, 0)]).call('sleeps')"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)])
    while not any(path.read_text() for path in tmp_path.glob("child-*")):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    (child,) = tmp_path.glob("child-*")
    assert gone(int(child.name[6:])) and gone(int(child.read_text()))


STARTS = """
import os, pathlib, signal, subprocess, sys, types
from irlens.base import devices, interrupts
from irlens.reproduce import rehearsal
from irlens.train import launch

home = pathlib.Path(sys.argv[1])

class Started(subprocess.Popen):
    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        (home / "pid").write_text(str(self.pid))
        os.kill(os.getpid(), signal.SIGTERM)

subprocess.Popen = Started
rehearsal.steps = types.SimpleNamespace(__name__="asleep")
interrupts.hear()
try:
    if sys.argv[2] == "rehearsal":
        rehearsal._run(home, print)
    else:
        launch.on_this_machine(types.SimpleNamespace(file=home / "phase.json", process="asleep"), devices.Devices("local", 1), print)
except interrupts.Interrupted as error:
    sys.exit(interrupts.ended(error))
"""


@pytest.mark.parametrize("what", ["rehearsal", "training"])
def test_a_process_does_not_outlive_an_interrupt_that_comes_as_it_is_started(tmp_path, what):
    """It is known by then, though it may not listen yet to the pipe from the one that started it."""
    (tmp_path / "asleep.py").write_text("import time\ntime.sleep(60)")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", STARTS, tmp_path, what], env=env, capture_output=True, timeout=50)
    pid = int((tmp_path / "pid").read_text())
    assert done.returncode == 128 + signal.SIGTERM and not Path(f"/proc/{pid}").exists(), done.stderr


def test_workers_at_work_have_no_file_that_a_kill_would_leave(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "place"))
    (tmp_path / "place").mkdir()
    made = Workers(partial(Held, tmp_path), [environment(0, 1, 0)])
    assert made.call("square", 3) == 9 and not list((tmp_path / "place").iterdir())
    made.close()


def test_the_environment_of_a_worker_is_clean(monkeypatch):
    for name in (*LAUNCHED, "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    found = environment(1, 2, 2)
    assert not {*LAUNCHED, "TORCHELASTIC_RUN_ID"} & set(found)
    assert found["CUDA_VISIBLE_DEVICES"] == "6,7" and int(found["OMP_NUM_THREADS"]) >= 1
    assert environment(3, 4, 0)["OMP_NUM_THREADS"] == "1"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert environment(1, 4, 2)["CUDA_VISIBLE_DEVICES"] == "2,3"


@pytest.mark.parametrize(
    "gpus, given, kind, count",
    [(0, None, "here", 1), (8, None, "local", 8), (8, "3", "local", 3), (8, "0", "here", 1), (0, "4", "local", 4), (0, "0", "here", 1)],
)  # fmt: skip
def test_devices_are_what_is_there_or_asked_for(monkeypatch, gpus, given, kind, count):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    found = choose(given)
    assert (found.kind, found.count) == (kind, count)


@pytest.mark.parametrize(
    "given, line",
    [
        ("9", "--devices 9: here are 8 GPUs"),
        ("-1", "give a number"),
        ("two", "give a number"),
        ("ray:0", "give a number"),
    ],
)
def test_devices_that_are_not_there_are_refused(monkeypatch, given, line):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("irlens.base.cluster.check_ray", lambda: None)
    with pytest.raises(UserError, match=line):
        choose(given)


def test_of_a_launchers_processes_the_first_works_on_as_many_devices(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert first() and choose(None).count == 4
    monkeypatch.setenv("RANK", "1")
    assert not first()
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(UserError, match="several machines.*--devices ray"):
        choose(None)
