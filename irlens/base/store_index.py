"""The index of a store: an SQLite file that says which rows of which data file answer for which key, and who is at work.

`items` says that a file's rows, from `row` on, are the numbers `first` to `stop` of `key`. `claims` are what a process is
making right now, `owners` those processes: one whose process is gone, or whose `beat` stands still, has no claim.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "index.sqlite"
APPLICATION, VERSION = 0x49524C53, 1  # what marks the file as ours: "IRLS"
BEAT, DEAD = 5.0, 60.0  # seconds between the signs of life of an owner; after so many without one it is gone
BUSY = 60.0  # seconds that a transaction of another process may take
ASKED = 900  # keys in one question to SQLite
TABLES = """
CREATE TABLE files(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, kind TEXT NOT NULL, what TEXT NOT NULL,
    bytes INTEGER NOT NULL, made REAL NOT NULL, used REAL NOT NULL);
CREATE TABLE items(key BLOB NOT NULL, first INTEGER NOT NULL, stop INTEGER NOT NULL,
    file INTEGER NOT NULL REFERENCES files(id) ON DELETE CASCADE, row INTEGER NOT NULL, mark INTEGER NOT NULL,
    PRIMARY KEY(key, first, stop)) WITHOUT ROWID;
CREATE INDEX items_of_file ON items(file);
CREATE TABLE claims(key BLOB NOT NULL, first INTEGER NOT NULL, stop INTEGER NOT NULL, owner TEXT NOT NULL,
    PRIMARY KEY(key, first, stop, owner)) WITHOUT ROWID;
CREATE TABLE owners(owner TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, beat INTEGER NOT NULL);
"""
NETWORKS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "fuse.")

Span = tuple[bytes, int, int]  # numbers `first` to `stop` of a key


class Foreign(Exception):
    """A file that is not the index of a store of this version."""


class Index:
    """An open index, safe among threads and processes. Every method may raise sqlite3.Error.

    say: gets a line where the file system lets no write-ahead log work.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self.path = folder / NAME
        self.owner, self.host = uuid.uuid4().hex, socket.gethostname()
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._heart: threading.Thread | None = None
        self._seen: dict[str, tuple[int, float]] = {}  # owner → its last beat, and when it was new to us
        self.db = sqlite3.connect(self.path, BUSY, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(say)
        except BaseException:
            self.db.close()
            raise

    def _prepare(self, say: Callable[[str], None]) -> None:
        """Journal, tables, and the mark that this is a store's. Raises Foreign for another file."""
        self._check()
        if network(self.path.parent):
            self.db.execute("PRAGMA journal_mode = DELETE")
            say(f"store {self.path.parent}: on a network file system, so without a write-ahead log (slower)")
        elif self.db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            say(f"store {self.path.parent}: this file system takes no write-ahead log, so without one (slower)")
        self.db.execute("PRAGMA synchronous = NORMAL")
        self.db.execute("PRAGMA foreign_keys = ON")
        with self.writing():
            if self._check() == 0:
                for statement in filter(str.strip, TABLES.split(";")):
                    self.db.execute(statement)
                self.db.execute(f"PRAGMA application_id = {APPLICATION}")
                self.db.execute(f"PRAGMA user_version = {VERSION}")
            self._forget(self._dead())

    def _check(self) -> int:
        """The version of the file; 0 of a new one. Raises Foreign for a file that is something else."""
        of, version = (self.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if (of, version) == (APPLICATION, VERSION):
            return version
        if of or version or self.db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            what = f"of version {version}, here {VERSION}" if of == APPLICATION else "no index of a store"
            raise Foreign(f"{self.path.name} is {what}")
        return 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction, alone."""
        with self._lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Ends the signs of life, gives back what is claimed, and closes the file."""
        self._stop.set()
        if self._heart is not None:
            self._heart.join()
        with self._lock:
            try:
                if self._heart is not None:
                    with self.writing():
                        self._forget([self.owner])
            finally:
                self.db.close()

    # -- what is there ---------------------------------------------------------------------------------------------

    def places(self, keys: Iterable[bytes]) -> dict[bytes, list[tuple[int, int, str, int]]]:
        """Key → (first, stop, file's name, row of `first`) of all that is known of it.

        Raises sqlite3.DatabaseError for an entry that is not as it was written: it may lead to rows of something else.
        """
        found: dict[bytes, list[tuple[int, int, str, int]]] = {}
        for some in _in_parts(list(dict.fromkeys(keys))):
            marks = ",".join("?" * len(some))
            question = (
                f"SELECT key, first, stop, name, row, mark FROM items JOIN files ON file = id WHERE key IN ({marks})"
            )
            with self._lock:
                rows = self.db.execute(question + " ORDER BY id", some).fetchall()
            for key, *place, mark in rows:
                if mark != _mark(key, *place):
                    raise sqlite3.DatabaseError("malformed entry")
                found.setdefault(key, []).append(tuple(place))
        return found

    def add(self, name: str, kind: str, what: str, size: int, items: Sequence[tuple[bytes, int, int, int]]) -> None:
        """A data file that is there, and the (key, first, stop, row) that it holds; they are no longer claimed."""
        now = time.time()
        with self.writing():
            row = (name, kind, what, size, now, now)
            self.db.execute("INSERT OR IGNORE INTO files(name, kind, what, bytes, made, used) VALUES(?,?,?,?,?,?)", row)
            number = self.db.execute("SELECT id FROM files WHERE name = ?", (name,)).fetchone()[0]
            rows = [(*item[:3], number, item[3], _mark(*item[:3], name, item[3])) for item in items]
            self.db.executemany("INSERT OR IGNORE INTO items VALUES(?,?,?,?,?,?)", rows)
            self._release([item[:3] for item in items])

    def used(self, names: Iterable[str]) -> None:
        """Marks files as used now, to the minute."""
        now = time.time()
        with self.writing():
            self.db.executemany(
                "UPDATE files SET used = ? WHERE name = ? AND used < ?", [(now, name, now - 60) for name in names]
            )

    def drop(self, name: str) -> None:
        """Forgets a file and all that it held."""
        with self.writing():
            self.db.execute("DELETE FROM files WHERE name = ?", (name,))

    def files(self) -> list[tuple[str, str, str, int, float, int]]:
        """(name, kind, what, bytes, last used, rows) of every file, the longest unused first."""
        held = "SELECT sum(stop - first) FROM items WHERE file = id"
        with self._lock:
            return self.db.execute(
                f"SELECT name, kind, what, bytes, used, coalesce(({held}), 0) FROM files ORDER BY used, id"
            ).fetchall()

    def shrink(self) -> None:
        """Gives the disk back what was forgotten, unless another process is at work."""
        with self._lock, suppress(sqlite3.OperationalError):
            self.db.execute("PRAGMA busy_timeout = 1000")
            self.db.execute("VACUUM")
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # -- who is at work --------------------------------------------------------------------------------------------

    def claim(self, spans: Sequence[Span]) -> bool:
        """Takes all of `spans` for this process, or none where a living one holds a part of them."""
        if self._heart is None:
            self._begin()
        with self.writing():
            rows = self.db.execute("SELECT key, first, stop, owner FROM claims WHERE owner != ?", (self.owner,))
            held: dict[bytes, list[tuple[int, int, str]]] = {}
            for key, *claim in rows.fetchall():
                held.setdefault(key, []).append(tuple(claim))
            holders = {
                owner
                for key, first, stop in spans
                for start, end, owner in held.get(key, ())
                if start < stop and first < end
            }
            dead = set(self._dead()) if holders else set()
            if holders - dead:
                return False
            self._forget(dead)
            own = [(*span, self.owner) for span in spans]
            self.db.executemany("INSERT OR IGNORE INTO claims VALUES(?,?,?,?)", own)
        return True

    def release(self, spans: Sequence[Span]) -> None:
        """Gives back what this process has claimed."""
        with self.writing():
            self._release(spans)

    def _release(self, spans: Sequence[Span]) -> None:
        own = [(*span, self.owner) for span in spans]
        self.db.executemany("DELETE FROM claims WHERE key = ? AND first = ? AND stop = ? AND owner = ?", own)

    def _begin(self) -> None:
        with self.writing():
            self.db.execute("INSERT INTO owners VALUES(?,?,?,0)", (self.owner, self.host, os.getpid()))
        self._heart = threading.Thread(target=self._live, daemon=True, name="store")
        self._heart.start()

    def _live(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                with self.writing():
                    self.db.execute("UPDATE owners SET beat = beat + 1 WHERE owner = ?", (self.owner,))
            except sqlite3.Error:  # whoever waits for us takes our claims over
                return

    def _dead(self) -> list[str]:
        """The owners that are gone: no such process on this machine, or no beat for so long."""
        now, gone = time.monotonic(), []
        for owner, host, pid, beat in self.db.execute("SELECT owner, host, pid, beat FROM owners").fetchall():
            last, since = self._seen.get(owner, (None, now))
            self._seen[owner] = (beat, now if beat != last else since)
            still = beat == last and now - since > DEAD
            if owner != self.owner and (still or (host == self.host and not _runs(pid))):
                gone.append(owner)
        return gone

    def _forget(self, owners: Iterable[str]) -> None:
        for table in ("claims", "owners"):
            self.db.executemany(f"DELETE FROM {table} WHERE owner = ?", [(owner,) for owner in owners])


def _mark(key: bytes, first: int, stop: int, name: str, row: int) -> int:
    """What tells that an entry is as it was written."""
    return zlib.crc32(repr((key, first, stop, name, row)).encode())


def _runs(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _in_parts(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), ASKED):
        yield keys[start : start + ASKED]


def network(folder: Path) -> bool:
    """Whether a folder lies on a file system of other machines, where a write-ahead log is not safe; of Linux only."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    kinds = {words.split()[4]: words.partition(" - ")[2].split()[0] for words in lines}
    here = folder.resolve()
    kind = next((kinds[str(place)] for place in (here, *here.parents) if str(place) in kinds), "")
    return kind.startswith(NETWORKS)
