"""Parts run at once: each has its log, one that is refused or killed is named, and a parent's end is theirs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irlens.base import interrupts, parallel
from irlens.base.errors import UserError
from irlens.base.parallel import Part


def parts(out, *seeds):
    return [Part(f"seed {seed}", out / f"seed-{seed}" / "log.txt", (out, seed)) for seed in seeds]


def work(out, seed):
    print(f"seed {seed} with {os.environ['OMP_NUM_THREADS']} threads", flush=True)
    os.write(2, b"from below\n")
    (out / f"seed-{seed}" / "made").write_text(str(seed))
    if seed == 13:
        raise UserError("--n: thirteen is refused")
    if seed >= 60:
        time.sleep(60)
    if seed == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * seed


def test_every_part_is_run_and_logs_to_its_own_file(tmp_path, capfd):
    said = []
    assert parallel.run(work, parts(tmp_path, 5, 3, 0), 2, said.append) == [10, 6, 0]
    for seed in (0, 3, 5):
        assert (tmp_path / f"seed-{seed}" / "made").read_text() == str(seed)
        log = (tmp_path / f"seed-{seed}" / "log.txt").read_text()
        assert log == f"seed {seed} with {os.environ['OMP_NUM_THREADS']} threads\nfrom below\n"
    assert said[0].startswith("3 parts, 2 at once; see ") and len(said) == 4
    assert "from below" not in capfd.readouterr().err


def test_a_part_that_is_refused_or_killed_is_named(tmp_path):
    with pytest.raises(UserError, match="^seed 13: --n: thirteen is refused"):
        parallel.run(work, parts(tmp_path, 1, 13), 2, str)
    with pytest.raises(UserError, match="was killed .out of memory.*--jobs 1"):
        parallel.run(work, parts(tmp_path, 9, 1), 2, str)


@pytest.mark.slow
def test_what_runs_or_waits_ends_with_the_part_that_is_refused(tmp_path):
    started = time.monotonic()
    with pytest.raises(UserError, match="thirteen"):
        parallel.run(work, parts(tmp_path, 60, 13, 61, 62), 2, str)
    assert time.monotonic() - started < 50 and not (tmp_path / "seed-62").exists()


def slow(out, seed):
    (out / f"seed-{seed}" / "pid").write_text(str(os.getpid()))
    time.sleep(60)


def tidy(out, seed):
    try:
        slow(out, seed)
    finally:
        (out / f"seed-{seed}" / "tidied").touch()


def interrupted(out):
    interrupts.hear()
    try:
        parallel.run(tidy, parts(out, 0, 1), 2, str)
    except interrupts.Interrupted as error:
        sys.exit(interrupts.ended(error))


def start_slowly(out):
    parallel.run(slow, parts(out, 0, 1), 2, str)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_they_end_when_their_parent_is_killed_or_interrupted(tmp_path, sent):
    hears = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a test run in the background ignores it
    code = (
        f"import pathlib, signal, test_parallel; {hears}; test_parallel.start_slowly(pathlib.Path({str(tmp_path)!r}))"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    parent = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)
    files = [tmp_path / f"seed-{seed}" / "pid" for seed in (0, 1)]
    until(lambda: all(file.is_file() and file.read_text() for file in files))
    parent.send_signal(sent)
    _, said = parent.communicate(timeout=60)  # to the end of the last process that could say something
    assert "semaphore" not in said
    until(lambda: not any(alive(int(file.read_text())) for file in files))


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_lets_them_tidy_up_and_says_nothing_on_their_behalf(tmp_path, sent):
    """Ctrl-C reaches every process of a terminal, SIGTERM the first alone. No semaphore is said to have leaked either."""
    hears = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"import pathlib, signal, test_parallel; {hears}; test_parallel.interrupted(pathlib.Path({str(tmp_path)!r}))"
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    parent = subprocess.Popen(
        [sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    files = [tmp_path / f"seed-{seed}" / "pid" for seed in (0, 1)]
    until(lambda: all(file.is_file() and file.read_text() for file in files))
    (os.killpg if sent == signal.SIGINT else os.kill)(parent.pid, sent)
    _, said = parent.communicate(timeout=60)
    assert (parent.returncode, said) == (128 + sent, "")
    assert not any(alive(int(file.read_text())) for file in files)
    assert all((file.parent / "tidied").exists() for file in files)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
