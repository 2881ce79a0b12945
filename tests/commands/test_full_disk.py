"""A disk that is full at any write of any command: one line that says where, and the same command continues."""

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from irlens.base import checksums, full
from irlens.base.errors import UserError

LINES = ["sample", "passk", "index", "recall", "mine-negatives", "rerank", "verify", "best-of-n", "evaluate", "compare", "import",
         "export", "temperatures", "winrate", "plot", "train", "train on lists", "reproduce"]  # fmt: skip


DEAR = ("train", "reproduce")  # of places that differ in a number or an arm the first one fails


class Failing:
    """Every place is full when it is first written to; one that has failed takes the next writes. kinds: so is the first of
    those that are alike."""

    def __init__(self, patch, home, kinds=False):
        self.home, self.failed, self.kinds = home, [], kinds
        import safetensors.torch
        import torch
        from transformers import modeling_utils

        lost = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        words = RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 1024 vs 918")
        tensors = safetensors.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )
        self._wrap(patch, checksums, "note", lambda path, content: (path, content), lost)
        self._wrap(patch, checksums, "_write", lambda path, text: (path, None), lost)
        self._wrap(patch, checksums, "_append", lambda root, lines: (root / "appended", None), lost)
        self._wrap(patch, torch, "save", lambda what, to, *_, **__: (to, None), words)
        self._wrap(patch, modeling_utils, "safe_save_file", lambda what, to, **_: (to, None), tensors)

    def _wrap(self, patch, module, name, placed, error):
        write = getattr(module, name)

        def writer(*args, **more):
            path, content = placed(*args, **more)
            if self._is_first(path):
                if content is not None:  # what was written of it stays half
                    os.truncate(content, os.path.getsize(content) // 2)
                raise error
            return write(*args, **more)

        patch.setattr(module, name, writer)

    def _is_first(self, path) -> bool:
        if not isinstance(path, (str, os.PathLike)) or self.home not in Path(path).absolute().parents:
            return False
        name = str(Path(path).relative_to(self.home))
        name = re.sub(r"\d+|\b[ab]\b", "#", name) if self.kinds else name
        if name in self.failed:
            return False
        self.failed.append(name)
        return True


def one_line(done):
    assert done.returncode == 2, done.stderr or done.stdout
    *bars, line = done.stderr.splitlines()
    assert line.startswith("irlens: ") and "Traceback" not in done.stderr, done.stderr
    assert not [other for other in bars if "irlens" in other], done.stderr
    assert "the disk is full" in line and " free at /" in line, done.stderr


def every_write_in_turn(name, tmp_path, irlens, irlens_any, command, made):
    """Starts a command until it ends well, a place more failing at each start; how often it was refused."""
    home = tmp_path / "home"
    home.mkdir()
    words = command(name, home)
    with pytest.MonkeyPatch.context() as patch:
        failing = Failing(patch, home, name in DEAR)
        starts = 0
        while (done := irlens_any(*words)).returncode:
            one_line(done)
            starts += 1
            assert len(failing.failed) >= starts, "the same place fails twice"
    assert not [path for path in home.rglob("*.tmp") if path.exists()]
    print(f"{name}: {starts} full disks, at {len(failing.failed)} places")
    whole = tmp_path / "whole"
    irlens(*command(name, whole))
    assert made(home) == made(whole)
    return starts, failing.failed


@pytest.mark.parametrize("name", ["passk"])
def test_every_write_fails_in_turn(name, tmp_path, irlens, irlens_any, command, made):
    starts, failed = every_write_in_turn(name, tmp_path, irlens, irlens_any, command, made)
    assert starts >= 15 and {"out/manifest.json", "out/checksums.txt", "out/passk.pdf"} <= set(failed)


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
def test_every_write_of_every_command_fails_in_turn(name, tmp_path, irlens, irlens_any, command, made):
    starts, failed = every_write_in_turn(name, tmp_path, irlens, irlens_any, command, made)
    assert 1 <= starts <= len(failed)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of so many bytes, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("no small file system can be mounted here (not root)")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["passk with a store", "index", "train on lists", "train", "reproduce"])
def test_a_small_file_system_that_fills_up(name, tmp_path, small_disk, irlens, irlens_any, command, made):
    whole = tmp_path / "whole"
    irlens(*command(name, whole))
    needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    refused, parts = 0, 4 if name in DEAR or "train" in name else 8
    for part in range(parts):
        home = small_disk / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        free = shutil.disk_usage(small_disk).free - needed * part // parts
        with (small_disk / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(1, free))
        done = irlens_any(*command(name, home))
        if done.returncode:
            one_line(done)
            refused += 1
        (small_disk / "ballast").unlink()
        irlens(*command(name, home))
        assert made(home) == made(whole)
    print(f"{name}: {refused} of {parts} disks too small")
    assert refused >= parts // 2


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device", "/x/y"),
    OSError(errno.EFBIG, "File too large"),
    RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
    RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
    ValueError("I/O error: No space left on device (os error 28)"),
])  # fmt: skip
def test_what_libraries_say_of_a_full_disk(error):
    assert full.is_full(error) is error
    wrapped = UserError("a layer above")
    wrapped.__cause__ = error
    assert full.is_full(wrapped) is error
    line = full.in_words(error, Path("/x"))
    assert line.startswith("/x") and "free at /" in line and "\n" not in line


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory"), UserError("the disk is full of it"), OSError(2, "no")]
)
def test_what_is_no_full_disk(error):
    assert full.is_full(error) is None
