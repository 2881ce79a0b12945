"""An output folder continues its own command and refuses to mix."""

import json
import os
import signal
import subprocess
import sys

import pytest

from irlens.base import interrupts
from irlens.base.errors import UserError
from irlens.commands.folder import OutputFolder

SETTINGS = {"model": "tiny", "n": 10, "temperature": (0.5, 1.0)}


def manifest(path):
    return json.loads((path / "manifest.json").read_text())


def test_the_manifest_tells_what_was_done(tmp_path):
    with OutputFolder(tmp_path / "o", "passk", SETTINGS) as folder:
        assert manifest(tmp_path / "o")["status"] == "running"
        folder.note(tokens_generated=12)
    found = manifest(tmp_path / "o")
    assert found["status"] == "complete" and found["tokens_generated"] == 12 and found["command"] == "passk"
    assert found["settings"] == {"model": "tiny", "n": 10, "temperature": [0.5, 1.0]}
    assert found["versions"]["torch"] and found["peak_memory_bytes"]["process"] > 1e6


def test_the_same_settings_continue_and_add_up_the_time(tmp_path):
    for _ in range(2):
        with OutputFolder(tmp_path, "passk", SETTINGS) as folder:
            pass
    assert folder.continued
    assert manifest(tmp_path)["wall_seconds"] >= 0


def test_a_failure_is_written_down(tmp_path):
    with pytest.raises(RuntimeError), OutputFolder(tmp_path, "passk", SETTINGS):
        raise RuntimeError
    assert manifest(tmp_path)["status"] == "interrupted"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": "other"}, "was made with model = 'tiny', now 'other'"),
        ({"temperature": (0.5,)}, r"temperature = \[0.5, 1.0\], now \[0.5\]"),
        ({"n": 5}, "n = 10, now 5; n can only grow"),
        ({"extra": 1}, "extra = None, now 1"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_changed(tmp_path, change, message):
    with OutputFolder(tmp_path, "passk", SETTINGS, growing=("n",)):
        pass
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(UserError, match=message), OutputFolder(tmp_path, "passk", SETTINGS | change, growing=("n",)):
        pass
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_a_growing_setting_may_grow(tmp_path):
    for n in (10, 20):
        with OutputFolder(tmp_path, "passk", SETTINGS | {"n": n}, growing=("n",)):
            pass
    assert manifest(tmp_path)["settings"]["n"] == 20


def test_another_command_or_a_foreign_folder_is_refused(tmp_path):
    with OutputFolder(tmp_path / "a", "passk", SETTINGS):
        pass
    with (
        pytest.raises(UserError, match="holds the output of `irlens passk`"),
        OutputFolder(tmp_path / "a", "train", SETTINGS),
    ):
        pass
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="not made by irlens"), OutputFolder(tmp_path / "b", "passk", SETTINGS):
        pass
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["thesis.tex"]


def test_two_processes_do_not_share_a_folder(tmp_path):
    with OutputFolder(tmp_path, "passk", SETTINGS):
        with pytest.raises(UserError, match="another irlens process"), OutputFolder(tmp_path, "passk", SETTINGS):
            pass
    with OutputFolder(tmp_path, "passk", SETTINGS) as folder:
        assert folder.continued


HOLD = """
import sys, time
from irlens.commands.folder import OutputFolder
with OutputFolder(sys.argv[1], "passk", {}):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_killed_process_holds_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "o"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another irlens process"), OutputFolder(tmp_path / "o", "passk", {}):
        pass
    process.kill()
    process.wait()
    with OutputFolder(tmp_path / "o", "passk", {}) as folder:
        assert folder.continued


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), OutputFolder(tmp_path / "file" / "o", "passk", SETTINGS):
        pass
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        with (
            pytest.raises(UserError, match="cannot be written"),
            OutputFolder(tmp_path / "locked" / "o", "passk", SETTINGS),
        ):
            pass


def test_a_damaged_manifest_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not a readable manifest"), OutputFolder(tmp_path, "passk", SETTINGS):
        pass


def test_a_difference_deep_in_the_settings_is_named_by_its_place(tmp_path):
    old = {"steps": [{"stage": "train", "n": 8}, {"stage": "passk"}]}
    with OutputFolder(tmp_path / "a", "reproduce", old):
        pass
    same = {"steps": [{"stage": "train", "n": 8, "reward": None}, {"stage": "passk"}]}
    with OutputFolder(tmp_path / "a", "reproduce", same) as folder:  # a setting of a newer version, not given
        assert folder.continued
    for new, message in (
        ({"steps": [{"stage": "train", "n": 9}, {"stage": "passk"}]}, r"steps\[0\].n = 8, now 9"),
        ({"steps": [{"stage": "train", "n": 8}]}, "steps = "),
    ):
        with pytest.raises(UserError, match=message):
            OutputFolder(tmp_path / "a", "reproduce", new).check()


def test_a_folder_that_was_killed_before_its_manifest_is_begun(tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / ".lock").touch()
    (tmp_path / "o" / f".manifest.json.{'0' * 32}.tmp").write_text("{")
    with OutputFolder(tmp_path / "o", "passk", SETTINGS) as folder:
        assert not folder.continued
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [".lock", "checksums.txt", "manifest.json"]


def test_what_a_kill_left_half_written_goes_at_the_next_start(tmp_path):
    """But not in a folder below that is another command's, which may be at work."""
    with OutputFolder(tmp_path / "o", "train", {}):
        pass
    for name in ("figures/.a.pdf.0.tmp", ".run.parquet.1.tmp", "iteration-1/.model.tmp/config.json", "other/.b.2.tmp"):
        (tmp_path / "o" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "o" / name).write_text("half")
    (tmp_path / "o" / "other" / ".lock").touch()
    with OutputFolder(tmp_path / "o", "train", {}):
        left = {str(path.relative_to(tmp_path / "o")) for path in (tmp_path / "o").rglob("*") if path.is_file()}
    assert left == {".lock", "checksums.txt", "manifest.json", "other/.lock", "other/.b.2.tmp"}


def test_an_interrupt_in_the_midst_of_leaving_a_folder_leaves_it_interrupted(tmp_path, monkeypatch):
    def interrupted(*_):
        raise interrupts.Interrupted(signal.SIGTERM)

    monkeypatch.setattr("irlens.commands.finished.digest", interrupted)
    monkeypatch.setattr(interrupts, "unfinished", [])
    monkeypatch.setattr(interrupts, "_came", [0.0])
    with pytest.raises(interrupts.Interrupted) as stop, OutputFolder(tmp_path / "o", "passk", {}, asked=SETTINGS):
        pass
    assert manifest(tmp_path / "o")["status"] == "running"
    assert interrupts.ended(stop.value) == 143 and manifest(tmp_path / "o")["status"] == "interrupted"
