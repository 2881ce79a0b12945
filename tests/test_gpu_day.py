"""`experiments/gpu_day.sh`: what it refuses, how it finds a Python, and that it runs to its end without a GPU."""

import csv
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("tests", "training", "sampling", "retrieval", "study")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(scope="module")
def day():
    """Runs the script with the Python of the tests."""

    def run(*args, timeout=100):
        command = ["bash", str(ROOT / "experiments" / "gpu_day.sh"), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)

    return run


@pytest.fixture
def environment(monkeypatch):
    """The module that finds or makes a Python."""
    monkeypatch.syspath_prepend(ROOT / "experiments" / "bench")
    import gpu_environment

    return gpu_environment


def test_help_says_the_limits_that_hold(day):
    told = day("--help")
    minutes = dict(re.findall(r"^  (\w+) +(\d+) min ", told.stdout, re.MULTILINE))
    script = (ROOT / "experiments" / "gpu_day.sh").read_text()
    limits = dict(re.findall(r"^    (\w+)\) echo (\d+) ;;", script, re.MULTILINE))
    assert told.returncode == 0 and tuple(minutes) == tuple(limits) == PARTS
    assert {part: 60 * int(some) for part, some in minutes.items()} == {part: int(s) for part, s in limits.items()}
    assert sum(map(int, limits.values())) <= 24 * 60  # a minute for the environment


@pytest.mark.parametrize(
    "args, line",
    [
        (["--only", "tests,nonsense"], "--only nonsense: no such part; known: tests, training"),
        (["--fast"], "unknown option --fast"),
        (["--wheels"], "--wheels needs a value"),
        (["a", "b"], "two folders for results: a and b"),
        (["--python", "no-such-python"], "--python no-such-python: no such command"),
        (["/dev/null/here"], "/dev/null/here: cannot be written"),
    ],
)
def test_a_wrong_call_is_one_line(day, args, line):
    done = day(*args)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and line in done.stderr and not done.stdout


@without_gpu
def test_without_a_gpu_only_a_dry_run_is_begun(day, tmp_path):
    done = day(tmp_path, "--python", sys.executable)
    assert done.returncode == 2 and done.stderr.startswith("gpu_day: no GPU is seen by torch; --dry")
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_named_and_wants_wheels(environment, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(environment, "required", lambda: ["torch>=2", "no-such-thing>=1", "numpy>=1000"])
    monkeypatch.setattr(sys, "argv", ["gpu_environment.py", "--venv", str(tmp_path / "venv")])
    with pytest.raises(SystemExit) as stop:
        environment.main()
    line = capsys.readouterr().err
    assert stop.value.code == 2 and "not installed: no-such-thing>=1, numpy>=1000; give a folder of wheels" in line
    assert not (tmp_path / "venv").exists()


@pytest.mark.slow
def test_wheels_come_into_an_environment_over_the_machines(environment, monkeypatch, capsys, tmp_path):
    with zipfile.ZipFile(tmp_path / "found_there-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("found_there.py", "value = 7\n")
        wheel.writestr("found_there-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: found-there\nVersion: 1.0\n")
        wheel.writestr(
            "found_there-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("found_there-1.0.dist-info/RECORD", "")
    monkeypatch.setattr(environment, "required", lambda: ["torch>=2", "found-there>=1"])
    monkeypatch.setattr(sys, "argv", ["gpu_environment.py", "--venv", f"{tmp_path}/venv", "--wheels", str(tmp_path)])
    environment.main()
    python = capsys.readouterr().out.strip()
    told = "import found_there, importlib.util; print(found_there.value, importlib.util.find_spec('torch').origin)"
    done = subprocess.run([python, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", torch.__file__]


@pytest.mark.slow
@without_gpu
def test_a_dry_run_comes_to_its_end(day, tmp_path):
    done = day(tmp_path, "--dry", "--python", sys.executable, timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    for part in PARTS:
        assert re.search(rf"^{part} +done ", done.stdout, re.MULTILINE)
        rows = list(csv.DictReader((tmp_path / f"{part}-CPU.csv").open()))
        assert rows and {row["device"] for row in rows} == {"CPU"}
    summary = list(csv.DictReader((tmp_path / "summary-CPU.csv").open()))
    assert [row["part"] for row in summary] == list(PARTS) and (tmp_path / "study-CPU.md").read_text()
