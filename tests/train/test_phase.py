"""Training in processes of its own: the weights of one process, a death that is made good, and one line where it is not."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from transformers import AutoTokenizer

from irlens.base.devices import Devices
from irlens.base.errors import NothingToRank, UserError
from irlens.base.files import write_csv, write_parquet
from irlens.models.catalog import fetch, model
from irlens.train.in_folder import Folders
from irlens.train.iterations import Kept
from irlens.train.options import TrainOptions
from irlens.train.preferences import as_lists

STEPS = {"beta": 1.0, "epochs": 6, "batch_lists": 4, "learning_rate": 1e-3}
LONG = {"epochs": 1000, "trainer_args": {"save_steps": 4}}
ROWS = [
    {"prompt": f"Question: What is {i} + 1?\nAnswer:\n", "completions": [f"#### {i + 1}", f"#### {i}", "#### -1"],
     "scores": [2.0, 1.0, 0.0]} for i in range(6)
]  # fmt: skip
DIES = '''
"""ListMLE that kills its process at the tenth pass, for as many starts as the variable DEATHS says."""
import os, signal, sys
from pathlib import Path
from irlens.train.losses.ranking import listmle

def dies(scores, beta=1.0):
    file = Path(os.environ["COUNTED"])
    before = len(file.read_text()) if file.is_file() else 0
    file.write_text("x" * (before + 1))
    if (before + 1) % 10 == 0 and (before + 1) // 10 <= int(os.environ["DEATHS"]):
        print("gone", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return listmle(beta * scores.log_ratio, scores.grade, scores.mask)
'''


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """An objective that kills, and how often it is to."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "deadly.py").write_text(DIES)
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    monkeypatch.setenv("COUNTED", str(tmp_path / "own" / "counted"))
    return lambda times: monkeypatch.setenv("DEATHS", str(times))


def fit(out, devices, **how):
    """The model folder and the lines of a training from the lists of ROWS."""
    lines, kept = [], Kept(Path(out))
    start = fetch(model("tiny"))
    lists = as_lists(pd.DataFrame(ROWS))
    topics = lists.drop_duplicates("query_id")
    tokenizer = AutoTokenizer.from_pretrained(start)
    prompts = dict(zip(topics["query_id"], tokenizer(topics["query"].tolist())["input_ids"]))
    write_parquet(lists, kept.folder(1) / "lists.parquet")
    write_csv(pd.DataFrame(columns=["query_id", "why"]), kept.folder(1) / "skipped.csv")
    options = TrainOptions.of(**{"objective": "listmle", "trainer_args": {"logging_steps": 1}, **STEPS, **how})
    folders = Folders(options, Kept(Path(out), lines.append), "tiny", devices)
    return folders.fit(start, lists, prompts, 1), lines


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("here"), Devices())[0]


def log(folder, column="loss"):
    return pd.read_csv(folder.parent / "log.csv")[column].tolist()


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_one_process_of_its_own_trains_the_same_weights(here, tmp_path):
    folder, _ = fit(tmp_path, Devices("local", 1))
    assert weights(folder) == weights(here) and log(folder) == log(here)
    assert sorted(p.name for p in folder.parent.iterdir()) == sorted(
        [*(p.name for p in here.parent.iterdir()), "phase.log"]
    )


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_and_leave_nothing_behind(here, tmp_path, monkeypatch):
    (tmp_path / "place").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "place"))
    folder, _ = fit(tmp_path, Devices("local", 2))
    left = {path.name for path in (tmp_path / "place").iterdir() if not path.name.startswith("torchinductor")}
    assert not left and not list(folder.parent.glob(".*"))
    assert log(folder) == pytest.approx(log(here), rel=2e-3) and len(log(here)) == 12  # rounding, step by step


@pytest.mark.slow
def test_one_that_dies_is_started_again_and_continues(here, tmp_path, deadly):
    deadly(1)
    folder, lines = fit(tmp_path, Devices("local", 1), objective="deadly:dies")
    assert sum("training died (with exit code -9: gone); it is started again" in line for line in lines) == 1
    assert log(folder) == log(here) and weights(folder) == weights(here)


@pytest.mark.slow
def test_four_deaths_are_one_line_and_the_same_call_continues(here, tmp_path, deadly):
    deadly(99)
    slow = {"trainer_args": {"logging_steps": 1, "save_steps": 100}}  # no checkpoint before the death
    with pytest.raises(UserError, match="training died 4 times, the last with exit code -9: gone; the same command"):
        fit(tmp_path, Devices("local", 1), objective="deadly:dies", **slow)
    deadly(0)
    folder, _ = fit(tmp_path, Devices("local", 1), objective="deadly:dies", **slow)
    assert weights(folder) == weights(here)


@pytest.mark.slow
def test_what_training_refuses_is_refused_here(tmp_path):
    with pytest.raises(NothingToRank, match="no list fits into --max-length 3"):
        fit(tmp_path, Devices("local", 2), max_length=3)


@pytest.mark.slow
def test_a_phase_ends_with_the_process_that_started_it(tmp_path):
    """Also its two processes under torchrun, which would go on writing into the folder."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_phase as t\n"
        "t.fit(sys.argv[2], t.Devices('local', 2), **t.LONG)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    while len(found := running(tmp_path)) < 3 or not list(tmp_path.rglob("checkpoint-*/complete")):
        assert parent.poll() is None
        time.sleep(0.2)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 40
    while running(tmp_path) and time.monotonic() < until:
        time.sleep(0.2)
    assert len(found) >= 3 and not running(tmp_path)


@pytest.mark.slow
def test_an_interrupt_ends_a_phase(tmp_path):
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it

    def interrupt():
        while not list(tmp_path.rglob("checkpoint-*/complete")):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path, Devices("local", 1), **LONG)
    finally:
        signal.signal(signal.SIGINT, heard)
    assert not running(tmp_path)


def running(folder):
    """Process numbers of phases that train into `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"irlens.train.phase" in words and any(str(folder).encode() in word for word in words):
            found.append(int(path.parent.name))
    return found


def test_what_a_kill_left_beside_a_model_that_was_whole_goes(tmp_path):
    """A kill between the rename of the model and the end of what only training needs."""
    here = tmp_path / "iteration-1"
    for name in (
        "model/config.json",
        "checkpoints/checkpoint-4/complete",
        "phase.json",
        "phase.ended",
        "log.csv",
        "account.json",
    ):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    folders = Folders(TrainOptions.of("listmle"), Kept(tmp_path), "tiny")
    assert folders.fit(tmp_path, pd.DataFrame(), {}, 1) == here / "model"
    assert {path.name for path in here.iterdir()} == {"model", "log.csv", "account.json"}


def test_the_processes_of_a_training_know_how_many_iterations_there_are():
    """One cosine over all of them needs it; a training on lists alone is the only one."""
    from irlens.train.launch import Phase
    from irlens.train.options import LarpoOptions

    for options in (LarpoOptions(iterations=5, temperature=(0.7, 1.0)), TrainOptions(epochs=3)):
        told = Phase(options, Path("out"), "tiny", Path("weights"), {"q": [1]}, 2)
        assert Phase.of_json(told.as_json()) == told
