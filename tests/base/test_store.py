"""The store: what it has it gives whole, one process makes what several need, and whatever is wrong with it is one line."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from irlens.base import store as stores
from irlens.base import store_index
from irlens.base.files import write_parquet
from irlens.base.store import Store, key

A, B = key("a"), key("b")


def shard(folder, numbers, name="shard"):
    path = folder / f"{name}.parquet"
    write_parquet(pd.DataFrame({"number": list(numbers)}), path)
    return path


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    with Store(tmp_path / "store", said.append) as opened:
        yield opened


def values(store, *wanted):
    rows = store.fetch(wanted)
    return dict(zip(rows.index, rows["number"])) if len(rows) else {}


def test_rows_are_found_by_key_and_number_in_any_cut(tmp_path, store, said):
    store.keep("draws", "m", shard(tmp_path, range(10, 16), "one"), [(A, 0, 4, 0), (B, 2, 4, 4)])
    store.keep("draws", "m", shard(tmp_path, range(20, 24), "two"), [(A, 4, 8, 0)])
    assert values(store, (A, 5), (B, 3), (A, 0), (B, 0), (A, 3)) == {0: 21, 1: 15, 2: 10, 4: 13}
    assert values(store, (key("c"), 0)) == {} and store.counts == {"draws kept": 10} and said == []


def test_what_is_kept_is_found_by_the_next_process(tmp_path, said):
    with Store(tmp_path / "store", said.append) as first:
        first.keep("draws", "m", shard(tmp_path, [7]), [(A, 0, 1, 0)])
    with Store(tmp_path / "store", said.append) as second:
        assert values(second, (A, 0)) == {0: 7}


def test_a_shard_is_one_file_on_the_disk_with_the_stores(tmp_path, store):
    first, again = shard(tmp_path, [1, 2]), shard(tmp_path, [1, 2], "again")
    store.keep("draws", "m", first, [(A, 0, 2, 0)])
    store.link(again)
    assert first.samefile(again) and first.stat().st_nlink == 3


def test_a_shard_comes_into_the_store_by_one_call_so_that_a_kill_leaves_nothing(tmp_path, store, monkeypatch):
    linked = []
    monkeypatch.setattr("os.link", lambda one, two, link=os.link: (linked.append(Path(two).name), link(one, two)))
    store.keep("draws", "m", shard(tmp_path, [1, 2]), [(A, 0, 2, 0)])
    (kept,) = (tmp_path / "store").glob("??/*")
    assert linked == [kept.name]


def test_where_no_link_can_be_made_it_is_a_copy(tmp_path, store, monkeypatch):
    def none(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", none)
    path = shard(tmp_path, [1, 2])
    store.keep("draws", "m", path, [(A, 0, 2, 0)])
    assert values(store, (A, 1)) == {0: 2} and path.stat().st_nlink == 1


def test_a_file_that_changed_is_dropped_with_a_line_and_taken_in_again(tmp_path, store, said):
    path = shard(tmp_path, [1, 2])
    store.keep("draws", "m", path, [(A, 0, 2, 0)])
    (inside,) = (tmp_path / "store").glob("??/*")
    whole = path.read_bytes()
    path.unlink()
    inside.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with Store(tmp_path / "store", said.append) as again:
        assert values(again, (A, 0)) == {}
    assert len(said) == 1 and "another content than its name says: dropped" in said[0] and not inside.exists()
    store.keep("draws", "m", shard(tmp_path, [1, 2]), [(A, 0, 2, 0)])
    assert values(store, (A, 1)) == {0: 2}


def test_a_file_that_is_gone_is_dropped(tmp_path, store, said):
    store.keep("draws", "m", shard(tmp_path, [1, 2]), [(A, 0, 2, 0)])
    shutil.rmtree(next(path for path in (tmp_path / "store").iterdir() if path.is_dir()))
    assert values(store, (A, 0)) == {} and "is gone" in said[0]


# -- several processes ---------------------------------------------------------------------------------------------


def test_one_of_two_makes_what_both_need(tmp_path, store, said):
    with Store(tmp_path / "store", said.append) as other:
        assert store.claim([(A, 0, 4), (B, 0, 4)])
        assert not other.claim([(A, 2, 8)]) and not other.claim([(key("c"), 0, 1), (B, 3, 4)])
        assert other.claim([(A, 4, 8)]) and not store.claim([(A, 7, 9)])
        store.keep("draws", "m", shard(tmp_path, range(4)), [(A, 0, 4, 0)])  # made, so no longer claimed
        assert other.claim([(A, 2, 4)]) and not other.claim([(B, 0, 1)])
        store.release([(B, 0, 4)])
        assert other.claim([(B, 0, 1)])
    assert store.claim([(B, 0, 1)]) and said == []  # what is closed claims nothing


CLAIM = """
import sys
from pathlib import Path
from pathlib import Path
from irlens.base.store import Store, key
store = Store(Path(sys.argv[1]))
assert store.claim([(key("a"), 0, 4)])
print("claimed", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_claims_nothing(tmp_path, store):
    command = [sys.executable, "-c", CLAIM, str(tmp_path / "store")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "claimed\n"
        assert not store.claim([(A, 0, 1)])
        process.kill()
        process.wait()
        assert store.claim([(A, 0, 1)])


def test_another_machines_process_is_gone_when_its_beat_stands_still(tmp_path, store, monkeypatch):
    with Store(tmp_path / "store") as other:
        other._index.host = "another machine"
        assert other.claim([(A, 0, 4)])
        assert not store.claim([(A, 0, 4)])
        monkeypatch.setattr(store_index, "DEAD", -1.0)  # as if that much time had passed since the beat was new
        assert store.claim([(A, 0, 4)])


# -- what is wrong with it -----------------------------------------------------------------------------------------


def still_works(store, tmp_path):
    """A store that is off keeps nothing, gives nothing, and leaves all work to who asks."""
    store.keep("draws", "m", shard(tmp_path, [1]), [(A, 0, 1, 0)])
    assert not store.on and store.claim([(A, 0, 1)]) and values(store, (A, 0)) == {}
    store.release([(A, 0, 1)])


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_index_is_one_line(tmp_path, said, content):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / store_index.NAME).write_bytes(content)
    with Store(tmp_path / "store", said.append) as opened:
        if not content:  # as SQLite makes a new one
            assert opened.on
            return
        still_works(opened, tmp_path)
    assert len(said) == 1 and "cannot be used" in said[0] and "delete the folder" in said[0]


@pytest.mark.parametrize("make", ["CREATE TABLE others(x)", "PRAGMA user_version = 7", "PRAGMA application_id = 5"])
def test_the_index_of_something_else_is_left_as_it_is(tmp_path, said, make):
    (tmp_path / "store").mkdir()
    path = tmp_path / "store" / store_index.NAME
    with sqlite3.connect(path) as db:
        db.execute(make)
    db.close()
    before = path.read_bytes()
    with Store(tmp_path / "store", said.append) as opened:
        still_works(opened, tmp_path)
    assert len(said) == 1 and "is no index of a store" in said[0] and path.read_bytes() == before


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def full_index(*_, **__):
    raise sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize("place, fail", [("store.link", full_disk), ("store_index.Index.add", full_index)])
def test_a_full_disk_is_one_line_and_the_work_goes_on(tmp_path, store, said, monkeypatch, place, fail):
    monkeypatch.setattr(f"irlens.base.{place}", fail)
    path = shard(tmp_path, [1])
    store.keep("draws", "m", path, [(A, 0, 1, 0)])
    assert said == [f"store {tmp_path / 'store'}: the disk is full: the work goes on without it"]
    assert path.is_file()
    still_works(store, tmp_path)
    assert len(said) == 1


def test_a_store_that_cannot_be_locked_is_off_with_one_line(tmp_path, said, monkeypatch):
    monkeypatch.setattr(store_index, "BUSY", 0.0)
    with Store(tmp_path / "store"):
        pass
    with sqlite3.connect(tmp_path / "store" / store_index.NAME, isolation_level=None) as db:
        db.execute("BEGIN EXCLUSIVE")
        with Store(tmp_path / "store", said.append) as opened:
            still_works(opened, tmp_path)
        db.execute("ROLLBACK")
    db.close()
    assert len(said) == 1 and "cannot be opened or locked (database is locked)" in said[0]


def test_a_folder_deleted_under_it_is_no_loss(tmp_path, store, said):
    store.keep("draws", "m", shard(tmp_path, [1]), [(A, 0, 1, 0)])
    shutil.rmtree(tmp_path / "store")
    path = shard(tmp_path, [2], "two")
    for number in range(3):
        store.keep("draws", "m", path, [(B, number, number + 1, 0)])
        store.claim([(A, 0, 1)])
    assert path.is_file() and len(said) <= 1
    with Store(tmp_path / "store", said.append) as again:
        assert again.on


def test_a_place_that_cannot_be_made_is_one_line(tmp_path, said):
    (tmp_path / "file").write_text("")
    with Store(tmp_path / "file" / "store", said.append) as opened:
        still_works(opened, tmp_path)
    assert len(said) == 1 and "the work goes on without it" in said[0]


def test_on_a_network_file_system_there_is_no_write_ahead_log(tmp_path, said, monkeypatch):
    monkeypatch.setattr(store_index, "network", lambda folder: True)
    with Store(tmp_path / "store", said.append) as opened:
        opened.keep("draws", "m", shard(tmp_path, [1]), [(A, 0, 1, 0)])
        assert values(opened, (A, 0)) == {0: 1}
        assert opened._index.db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert len(said) == 1 and "network file system" in said[0]


def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount(tmp_path, monkeypatch):
    lines = f"1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {tmp_path} rw shared:1 - nfs4 server:/x rw\n"
    monkeypatch.setattr(store_index.Path, "read_text", lambda *_, **__: lines)
    assert store_index.network(tmp_path / "deep") and not store_index.network(tmp_path.parent)


def test_where_a_store_is(tmp_path, monkeypatch):
    monkeypatch.delenv("IRLENS_STORE", raising=False)
    assert stores.place(None, tmp_path / "out") == tmp_path / ".irlens-store"
    assert stores.place("none", tmp_path / "out") is None and stores.place("x", tmp_path / "out") == stores.Path("x")
    monkeypatch.setenv("IRLENS_STORE", "/elsewhere")
    assert stores.place(None, tmp_path / "out") == stores.Path("/elsewhere")
    monkeypatch.setenv("IRLENS_STORE", "none")
    assert stores.place(None, tmp_path) is None and stores.place("x", tmp_path) == stores.Path("x")
