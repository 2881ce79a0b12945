"""The store as commands use it: what one has drawn the next one finds, a finished folder is read, and `irlens store`."""

import errno
import json
import os
import shutil
import sqlite3

import pandas as pd
import pytest

from irlens.base.checksums import signed
from irlens.commands.reproducing import Reproduce
from irlens.commands.settings import PassK, Store, Train

PASSK = ("passk", "--limit", "12", "-n", "6", "--temperature", "0.7,1.0")
TRAIN = ("train", "--prompts", "24", "-n", "6", "--temperature", "1.0", "--iterations", "1", "--epochs", "1",
         "--eval-limit", "8", "--eval-n", "4", "--eval-split", "test")  # fmt: skip


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    """Where the store is by default: the other tests have none."""
    monkeypatch.delenv("IRLENS_STORE")


@pytest.fixture
def no_engine(monkeypatch):
    """From when it is called on, nothing is drawn."""

    def stop():
        monkeypatch.setattr(
            "irlens.retrieve.engines.transformers.TransformersEngine.load", lambda *_, **__: pytest.fail("drawn again")
        )

    return stop


def counts(folder):
    return json.loads((folder / "manifest.json").read_text())["store"]


def test_another_folder_draws_nothing_and_is_the_same_to_the_byte(tmp_path, irlens, files, no_engine):
    irlens(*PASSK, "--out", tmp_path / "without", "--store", "none")
    assert not (tmp_path / ".irlens-store").exists()
    irlens(*PASSK, "--out", tmp_path / "a")
    no_engine()
    said = irlens(*PASSK, "--out", tmp_path / "b").stdout
    assert f"144 of 144 draws were in the store {tmp_path / '.irlens-store'}" in said
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "without")
    assert counts(tmp_path / "a") == {"draws kept": 144} and counts(tmp_path / "b") == {"draws found": 144}
    fewer = irlens("passk", "--limit", "5", "-n", "4", "--temperature", "1.0", "--out", tmp_path / "c").stdout
    assert "20 of 20 draws were in the store" in fewer


@pytest.mark.slow
def test_a_training_finds_what_another_arm_began_with(tmp_path, irlens, files):
    irlens(*TRAIN, "--objective", "pairwise", "--out", tmp_path / "a")
    irlens(*TRAIN, "--objective", "contrastive", "--out", tmp_path / "b")
    assert (
        counts(tmp_path / "b")["draws found"] == 24 * 6 + 8 * 4
    )  # its first draws, and those of the start's evaluation
    irlens(*TRAIN, "--objective", "contrastive", "--out", tmp_path / "alone" / "b", "--store", "none")
    assert files(tmp_path / "b") == files(tmp_path / "alone" / "b")
    model = "iteration-1/model/model.safetensors"
    assert (tmp_path / "b" / model).read_bytes() == (tmp_path / "alone" / "b" / model).read_bytes()


def test_likelihoods_are_computed_once(tmp_path, irlens, monkeypatch):
    irlens(*PASSK, "--out", tmp_path / "a")
    asked = ("rerank", tmp_path / "a", "--reranker", "likelihood", "--policy", "tiny")
    first = irlens(*asked, "--out", tmp_path / "b").stdout
    monkeypatch.setattr("irlens.rerank.by_name._policy_scorer", lambda *_: pytest.fail("scored again"))
    assert irlens(*asked, "--out", tmp_path / "c").stdout.replace("/c/", "/b/") == first
    assert counts(tmp_path / "b")["scores kept"] == counts(tmp_path / "c")["scores found"] == 144


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_store_on_a_full_disk_costs_a_line_and_no_result(tmp_path, irlens, files, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("irlens.base.store.link", full)
        said = irlens(*PASSK, "--out", tmp_path / "a").stdout
    line = f"store {tmp_path / '.irlens-store'}: the disk is full: the work goes on without it"
    assert said.count(line) == 1
    irlens(*PASSK, "--out", tmp_path / "b", "--store", "none")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_broken_store_costs_a_line_and_deleting_it_is_safe(tmp_path, irlens, files):
    store = tmp_path / ".irlens-store"
    store.mkdir()
    (store / "index.sqlite").write_bytes(b"something else" * 400)
    assert "index.sqlite cannot be used" in irlens(*PASSK, "--out", tmp_path / "a").stdout
    shutil.rmtree(store)
    assert "cannot be used" not in irlens(*PASSK, "--out", tmp_path / "b").stdout
    assert files(tmp_path / "a") == files(tmp_path / "b")


# -- a finished folder ---------------------------------------------------------------------------------------------


def test_a_finished_folder_is_read_and_measured_by_nobody(tmp_path, irlens, files, monkeypatch):
    first = irlens(*PASSK, "--out", tmp_path / "a").stdout
    before = files(tmp_path / "a") | {"manifest": (tmp_path / "a" / "manifest.json").read_bytes()}
    with monkeypatch.context() as patch:
        for place in ("irlens.measure.measures.evaluate", "irlens.rerank.verify.verify"):
            patch.setattr(place, lambda *_, **__: pytest.fail("measured again"))
        again = irlens(*PASSK, "--out", tmp_path / "a").stdout
    assert "finished by this command before, and unchanged" in again
    assert first[first.index("N = 1") :] == again[again.index("N = 1") :]  # the same table
    assert before == files(tmp_path / "a") | {"manifest": (tmp_path / "a" / "manifest.json").read_bytes()}


def gone(folder):
    (folder / "passk.png").unlink()


def edited(folder):
    (folder / "results.csv").write_text("run\n")


def interrupted(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(signed(manifest | {"status": "running"})))


def other_packages(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(signed(manifest | {"finished": "0" * 64})))


@pytest.mark.parametrize(
    "change", [edited, *(pytest.param(one, marks=pytest.mark.slow) for one in (gone, interrupted, other_packages))]
)
def test_a_folder_that_was_touched_is_made_again(tmp_path, irlens, files, change):
    irlens(*PASSK, "--out", tmp_path / "a")
    before = files(tmp_path / "a")
    change(tmp_path / "a")
    assert "finished" not in irlens(*PASSK, "--out", tmp_path / "a").stdout
    assert files(tmp_path / "a") == before and (tmp_path / "a" / "passk.png").is_file()


def test_other_options_measure_a_finished_folder_anew(tmp_path, irlens):
    irlens(*PASSK, "--out", tmp_path / "a")
    said = irlens(*PASSK, "--at", "1,2", "--out", tmp_path / "a").stdout
    assert "finished" not in said and set(pd.read_csv(tmp_path / "a" / "results.csv")["cutoff"]) == {1, 2}


@pytest.mark.slow
def test_arms_of_a_recipe_share_and_a_finished_recipe_is_read(tmp_path, irlens, files, monkeypatch, two_arms):
    (tmp_path / "arms.toml").write_text(two_arms(prompts=24, n=6, eval_limit=8, eval_n=4))
    asked = ("reproduce", tmp_path / "arms.toml", "--jobs", "1", "--out", tmp_path / "out" / "arms")
    first = irlens(*asked).stdout
    assert counts(tmp_path / "out" / "arms" / "2-b")["draws found"] == 24 * 6 + 8 * 4
    assert (tmp_path / "out" / ".irlens-store").is_dir() and not (tmp_path / "out" / "arms" / ".irlens-store").exists()
    before = files(tmp_path / "out")
    with monkeypatch.context() as patch:
        for place in ("commands.train._policies", "reproduce.kept.collect", "measure.stats.mean_intervals"):
            patch.setattr(f"irlens.{place}", lambda *_, **__: pytest.fail("made again"))
        again = irlens(*asked).stdout
    assert again.count("finished by this command before") == 3 and files(tmp_path / "out") == before
    assert [line for line in first.splitlines() if "paired randomisation test" in line] == [
        line for line in again.splitlines() if "paired randomisation test" in line
    ]


# -- irlens store --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory, irlens):
    folder = tmp_path_factory.mktemp("made")
    irlens(*PASSK, "--out", folder / "a", "--store", folder / ".irlens-store")
    return folder


@pytest.fixture
def stored(tmp_path, made):
    """A store beside the folder that filled it."""

    def one(source, target):
        (os.link if source.endswith(".parquet") else shutil.copyfile)(source, target)

    shutil.copytree(made, tmp_path, copy_function=one, dirs_exist_ok=True)
    return tmp_path / ".irlens-store"


def test_what_is_in_a_store_is_shown(stored, irlens, refused):
    said = irlens("store", stored).stdout
    assert "draws" in said and "tiny" in said and " 144 " in said and "are the very files of output folders too" in said
    assert irlens("store", stored.parent).stdout == said
    assert "no store there" in refused("store", stored.parent / "a")


def test_a_check_finds_what_has_changed_and_it_is_made_again(stored, irlens, tmp_path):
    path = next(stored.glob("??/*"))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:50] + bytes([content[50] ^ 4]) + content[51:])
    said = irlens("store", stored, "--check").stdout
    assert f"{path} has another content than its name says: dropped" in said and "2 files checked, 1 of them" in said
    assert (
        "2 files checked, 0" not in said and "1 files checked, 0 of them" in irlens("store", stored, "--check").stdout
    )
    assert "72 of 144 draws were in the store" in irlens(*PASSK, "--out", tmp_path / "b").stdout


def test_a_store_is_pruned_by_age_and_by_size(stored, irlens):
    assert "pruned 0 of 2" in irlens("store", stored, "--prune", "--older-than", "1", "--max-size", "1GB").stdout
    with sqlite3.connect(stored / "index.sqlite") as db:
        db.execute("UPDATE files SET used = used - 3 * 86400 WHERE id = 1")
    db.close()
    assert "pruned 1 of 2" in irlens("store", stored, "--prune", "--older-than", "2").stdout
    assert len(list(stored.glob("??/*"))) == 1
    assert "pruned 1 of 1" in irlens("store", stored, "--prune", "--max-size", "1 kB").stdout
    assert not list(stored.glob("??/*"))


def test_the_longest_unused_goes_first(tmp_path, irlens):
    for name, temperature in (("a", "0.7"), ("b", "1.0"), ("c", "0.5")):
        irlens("passk", "--limit", "4", "-n", "2", "--temperature", temperature, "--out", tmp_path / name)
    with sqlite3.connect(tmp_path / ".irlens-store" / "index.sqlite") as db:
        db.execute("UPDATE files SET used = 1e9 - id")
        size, last = db.execute("SELECT bytes, name FROM files WHERE id = 1").fetchone()
    db.close()
    irlens("store", tmp_path, "--prune", "--max-size", size)
    assert [path.name for path in (tmp_path / ".irlens-store").glob("??/*")] == [last]


@pytest.mark.parametrize("options, message", [
    (["--prune"], "--prune goes with"),
    (["--older-than", "3"], "--prune goes with"),
    (["--prune", "--older-than", "-1"], "--older-than must be a number above 0"),
    (["--prune", "--max-size", "ten"], "--max-size 'ten': expected a size"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(stored, refused, options, message):
    assert message in refused("store", stored, *options)


def test_a_broken_index_is_refused_with_a_line(stored, refused):
    (stored / "index.sqlite").write_bytes(b"x" * 4096)
    for more in stored.glob("index.sqlite-*"):
        more.unlink()
    assert "cannot be used" in refused("store", stored)


def test_the_option_is_one_of_all_commands_that_draw():
    from dataclasses import fields

    assert all("store" in {f.name for f in fields(kind)} for kind in (PassK, Train, Reproduce))
    assert Store().prune is False
