"""Shared by all tests: one thread, no network, the embedded model, and where real data may lie."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["IRLENS_STORE"] = "none"  # a test that compares two computations is to have two
os.environ |= {"COLUMNS": "160", "NO_COLOR": "1"}  # tables as wide as they are, whoever asks first

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data beside the checkout; `real_data("gsm8k")` skips, naming it, where it is absent."""

    def find(name: str) -> Path:
        if not (DATA / name).exists():
            pytest.skip(f"real data {DATA / name} is absent")
        return DATA / name

    return find


@pytest.fixture(scope="session")
def tiny_engine():
    import torch

    from irlens.models import catalog
    from irlens.retrieve.engines.transformers import TransformersEngine

    torch.set_num_threads(1)
    return TransformersEngine.load(catalog.fetch(catalog.model("tiny")))


@pytest.fixture(scope="session")
def shaken(tmp_path_factory):
    """The folder of a model like `tiny`, its weights shaken: another policy for the same prompts."""
    import torch

    from irlens.models import catalog, load

    folder, given = tmp_path_factory.mktemp("models") / "shaken", catalog.fetch(catalog.model("tiny"))
    model, tokenizer = load.causal_lm(given), load.tokenizer(given)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * weight.std() * torch.randn_like(weight))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sums_prompts(tiny_engine):
    from irlens import tasks
    from irlens.models.chat import prompts

    return prompts(tasks.load("sums", "test", 40).topics, tiny_engine.tokenizer)


@pytest.fixture(scope="session")
def rewardbench_rows():
    """`rewardbench_rows(items)`: rows as RewardBench 2 has them, `items` of each subset and pairs of Ties; the right texts
    begin with "right", and of Math the others are longer."""

    def rows(items=3):
        made = []
        for subset in ("Factuality", "Precise IF", "Math", "Safety", "Focus"):
            longer = 2 if subset == "Math" else 0
            for i in range(items):
                wrong = [f"wrong {'x' * (d + longer * i)}" for d in range(3)]
                texts = {"chosen": [f"right {'x' * (i + 1)}"], "rejected": wrong}
                about = {"id": f"{i}", "prompt": f"{subset} {i}?", "subset": subset}
                made.append(about | texts | {"num_correct": 1, "total_completions": 4})
        for i in range(items):
            for kind, right in (("ref", 1), ("tied", 2)):
                texts = {"chosen": [f"right {'y' * (5 + d)}" for d in range(right)], "rejected": ["wrong", "wrong y"]}
                about = {"id": f"{kind}:{i}", "prompt": f"Name {kind} {i}", "subset": "Ties"}
                made.append(about | texts | {"num_correct": right, "total_completions": right + 2})
        return made

    return rows


@pytest.fixture(scope="session")
def irlens_any():
    """Runs a command in this process, however it ends."""
    return lambda *args: _here(["-m", "irlens", *map(str, args)], ".")


@pytest.fixture(scope="session")
def irlens():
    """Runs a command, `apart` in a process of its own, and returns what it printed; its exit code must be `code`.

    In this process it saves the seconds that importing torch takes.
    """

    def run(*args, cwd=None, code=0, apart=False):
        command = ["-m", "irlens", *map(str, args)]
        if apart:
            command = [sys.executable, *command]
            done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
        else:
            done = _here(command, cwd or ".")
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def _here(command, cwd):
    from irlens.cli.app import main

    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        patch.setattr(sys, "argv", command[1:])
        main()
    return subprocess.CompletedProcess(command, stop.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def kill_and_continue(irlens):
    """Starts a command, sends SIGKILL once `until(folder)` holds, and runs it again to its end."""

    def run(args, folder, until):
        command = [sys.executable, "-m", "irlens", *args, "--out", str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 200
        while not until(folder):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return irlens(*args, "--out", folder)

    return run


@pytest.fixture(scope="session")
def files():
    """Name → bytes of what a stage made in a folder, but for the manifest (times), pictures and shards."""

    def read(folder):
        kept = [p for p in folder.rglob("*") if p.suffix in (".parquet", ".csv", ".run", ".qrels")]
        return {
            str(p.relative_to(folder)): p.read_bytes()
            for p in kept
            if not {"draws", "shards"} & set(p.relative_to(folder).parts)
        }

    return read


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """Runs a command that must be refused, in this process and in `tmp_path`; returns its one line."""
    from irlens.cli.app import main

    def run(*args):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["irlens", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        line = capsys.readouterr().err
        assert stop.value.code == 2 and line.startswith("irlens: ") and line.count("\n") == 1
        return line

    return run


@contextlib.contextmanager
def _servers():
    """Starts servers (of tests/retrieve, or a path under tests) with the given settings, by default the stub; each call returns its URL."""
    started = []

    def start(server="retrieve/stub_server.py", **settings) -> str:
        script = Path(__file__).parent / server
        process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(settings)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return f"http://127.0.0.1:{int(process.stdout.readline())}/v1"

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def serve():
    """`serve(**settings)` starts a stub server for a test, and returns its URL (see `_servers`)."""
    with _servers() as start:
        yield start


@pytest.fixture(scope="module")
def serve_all():
    """The same for all tests of a file."""
    with _servers() as start:
        yield start
