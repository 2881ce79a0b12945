"""Killed half-way and started again: the result is that of an unbroken run, to the byte."""

import errno
import json

import pandas as pd
import pytest

from irlens.base import files as written_whole


@pytest.mark.slow
def test_passk_killed_half_way_ends_as_unbroken(tmp_path, irlens, files, kill_and_continue):
    args = ("passk", "--limit", "30", "-n", "50", "--temperature", "0.7,1.0")
    resumed = kill_and_continue(args, tmp_path / "a", lambda f: any(f.glob("shards/T*")))
    assert "reused" in resumed.stdout
    irlens(*args, "--out", tmp_path / "b", apart=True)
    assert files(tmp_path / "a") == files(tmp_path / "b")


TRAIN = ("train", "--save-dtype", "bfloat16", "--prompts", "24", "-n", "6", "--iterations", "2", "--epochs", "2", "--batch-lists", "8",
         "--eval-limit", "10", "--eval-n", "4", "--test-limit", "10")  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, irlens):
    folder = tmp_path_factory.mktemp("train") / "unbroken"
    irlens(*TRAIN, "--out", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("moment", [
    "iteration-1/checkpoints/checkpoint-*/complete",
    "iteration-2/lists.parquet",
    pytest.param("iteration-1/draws/T*", marks=pytest.mark.slow),
    pytest.param("iteration-1/model", marks=pytest.mark.slow),
])  # fmt: skip
def test_train_killed_half_way_ends_as_unbroken(tmp_path, unbroken, moment, files, kill_and_continue):
    kill_and_continue(TRAIN, tmp_path / "a", lambda f: any(f.glob(moment)))
    ours, theirs = files(tmp_path / "a"), files(unbroken)
    assert ours == theirs and "iteration-1/log.csv" in ours
    for s in (1, 2):
        model = f"iteration-{s}/model/model.safetensors"
        assert (tmp_path / "a" / model).read_bytes() == (unbroken / model).read_bytes()


@pytest.mark.slow
def test_train_writes_models_that_the_other_commands_take(tmp_path, unbroken, irlens):
    manifest = json.loads((unbroken / "manifest.json").read_text())
    assert manifest["tokens_trained"] > 0 and manifest["lists_trained"] > 0
    model = unbroken / "iteration-2" / "model"
    irlens("passk", "--model", model, "--limit", "3", "-n", "2", "--temperature", "1.0", "--out", tmp_path / "a")
    assert len(pd.read_parquet(tmp_path / "a" / "run.parquet")) == 6


def test_a_full_disk_is_one_line_and_the_same_command_continues(tmp_path, monkeypatch, refused, irlens, files):
    args = ("passk", "--limit", "20", "-n", "20", "--temperature", "0.7,1.0")
    written = []

    def full(write):
        def writer(what, path):
            if written:
                raise OSError(errno.ENOSPC, "No space left on device")
            written.extend([path] if path.suffix == ".parquet" else [])
            write(what, path)

        return writer

    with monkeypatch.context() as patch:
        patch.setattr("irlens.retrieve.sample.write_parquet", full(written_whole.write_parquet))
        patch.setattr("irlens.commands.folder.write_text", full(written_whole.write_text))
        patch.setattr("irlens.retrieve.meter.write_text", full(written_whole.write_text))
        assert "the disk is full" in refused(*args, "--out", tmp_path / "a")
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["status"] == "running"
    assert "reused 240 of 800 draws" in irlens(*args, "--out", tmp_path / "a").stdout
    irlens(*args, "--out", tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
