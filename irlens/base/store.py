"""A store beside the output folders: what one command has drawn or scored is found by the next, by its content.

Rows lie in Parquet files that are named by the SHA-256 of their bytes, hard links to the shards of the output folders
where the file system has them; an SQLite index (`base.store_index`) says which rows answer for which key. What a key is
made of is the affair of who asks: `retrieve.stored` for draws, `rerank.stored` for scores. Nothing but time depends on a
store: whatever is wrong with it switches it off with one line, and deleting its folder is always safe.
"""

from __future__ import annotations

import errno
import filecmp
import functools
import hashlib
import os
import shutil
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.base.store_index import NAME, Foreign, Index, Span
from irlens.base.untrusted import check_place

if TYPE_CHECKING:
    import pandas as pd

FOLDER = ".irlens-store"
VARIABLE = "IRLENS_STORE"
OPEN_FILES = 8  # data files that are kept in memory, read and verified
POLL = 0.2  # seconds between two looks at what another process makes

Say = Callable[[str], None]


def key(*told: object) -> bytes:
    """What names something in a store: a digest of all that it depends on, each part as `repr` has it."""
    return hashlib.sha256(repr(told).encode("utf-8", "backslashreplace")).digest()[:20]


def place(option: str | None, out: Path) -> Path | None:
    """Where the store of a command with the output folder `out` is: as asked for, else as IRLENS_STORE has it, else
    beside `out`. None: there is to be none."""
    asked = option or os.environ.get(VARIABLE)
    if asked == "none":
        return None
    check_place(asked or "", "--store")
    return Path(asked).expanduser() if asked else Path(os.path.abspath(out)).parent / FOLDER


def _guarded(otherwise: Callable[[], object]):
    """Makes a method of the store one that, where disk or index fail, switches it off and returns `otherwise()`; so too
    once it is off."""

    def decorate(method):
        @functools.wraps(method)
        def guarded(self: Store, *args, **more):
            if not self.on:
                return otherwise()
            try:
                with self._lock:
                    return method(self, *args, **more)
            except (sqlite3.Error, OSError, IndexError) as error:  # an index of other files leads beyond their end
                self._switch_off(error)
                return otherwise()

        return guarded

    return decorate


def _nothing() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame()


class Store:
    """An open store, or with the folder None one that holds and keeps nothing. Used as `with`.

    counts: how many "draws kept", "draws found", … there were; who asks counts what it found.
    """

    def __init__(self, folder: Path | None, say: Say = print):
        self.folder, self.say = folder, say
        self.counts: Counter[str] = Counter()
        self._index: Index | None = None
        self._read: dict[str, pd.DataFrame] = {}
        self._lock = threading.RLock()
        if folder is not None:
            self._open(folder)

    def _open(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._index = Index(folder, self.say)
        except (sqlite3.Error, OSError, Foreign) as error:
            self._switch_off(error)

    @property
    def _opened(self) -> Index:
        assert self._index is not None  # a guarded method is only called while it is
        return self._index

    @property
    def on(self) -> bool:
        """Whether it is in use."""
        return self._index is not None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error) -> None:
        index, self._index, self._read = self._index, None, {}
        if index is not None:
            try:
                index.close()
            except sqlite3.Error as failure:
                self.say(f"store {self.folder}: {in_words(failure)}")

    # -- what is there ---------------------------------------------------------------------------------------------

    @_guarded(_nothing)
    def fetch(self, wanted: Sequence[tuple[bytes, int]]) -> pd.DataFrame:
        """The rows that are known of `wanted` (key, number); the index tells their places in it, in order."""
        import pandas as pd

        spots, parts = self._read_all(wanted)
        if not spots:
            return pd.DataFrame()
        by_file: dict[str, list[tuple[int, int]]] = {}
        for position, (name, row) in spots.items():
            by_file.setdefault(name, []).append((position, row))
        self._opened.used(by_file)
        taken = [parts[n].iloc[[r for _, r in some]].set_axis([p for p, _ in some]) for n, some in by_file.items()]
        return pd.concat(taken).sort_index()

    def _read_all(self, wanted: Sequence[tuple[bytes, int]]) -> tuple[dict[int, tuple[str, int]], dict]:
        """(where the rows are, the data files that hold them): only files that are whole."""
        while self.on:
            spots = self._spots(wanted)
            parts = {name: self._rows(name) for name in dict.fromkeys(name for name, _ in spots.values())}
            if all(part is not None for part in parts.values()):
                return spots, parts
        return {}, {}

    def _spots(self, wanted: Sequence[tuple[bytes, int]]) -> dict[int, tuple[str, int]]:
        """Position in `wanted` → (file, row), of what is known."""
        known, spots = self._opened.places(key for key, _ in wanted), {}
        for position, (name, number) in enumerate(wanted):
            for first, stop, file, row in known.get(name, ()):
                if first <= number < stop:
                    spots[position] = (file, row + number - first)
                    break
        return spots

    def _rows(self, name: str) -> pd.DataFrame | None:
        """A data file, verified; None, and forgotten, if it is not what its name says."""
        import pandas as pd

        if name in self._read:
            return self._read[name]
        path = self.path(name)
        if (said := wrong(path)) is not None:
            self.drop(name, said)
            return None
        while len(self._read) >= OPEN_FILES:
            self._read.pop(next(iter(self._read)))
        self._read[name] = pd.read_parquet(path)
        return self._read[name]

    def path(self, name: str) -> Path:
        """Where a data file lies."""
        assert self.folder is not None
        return self.folder / name[:2] / name

    @_guarded(lambda: None)
    def drop(self, name: str, why: str) -> None:
        """Forgets a data file, with a line; what it held is made again."""
        self.say(f"store {self.folder}: {name[:12]} {why}: dropped, and made again where it is needed")
        self._read.pop(name, None)
        self._opened.drop(name)
        self.path(name).unlink(missing_ok=True)

    # -- what is new -----------------------------------------------------------------------------------------------

    @_guarded(lambda: None)
    def keep(self, kind: str, what: str, shard: Path, items: Sequence[tuple[bytes, int, int, int]]) -> None:
        """Takes in a shard of an output folder, which is written and does not change any more.

        what: who made it, in words. items: (key, first, stop, row), the row at which they begin.
        """
        name = _digest(shard) + ".parquet"
        link(shard, self.path(name))
        self._opened.add(name, kind, what, shard.stat().st_size, items)
        self.counts[f"{kind} kept"] += sum(stop - first for _, first, stop, _ in items)

    @_guarded(lambda: None)
    def link(self, shard: Path) -> None:
        """Makes a shard of an output folder and the store's file of the same content one file on the disk."""
        target = self.path(_digest(shard) + ".parquet")
        if target.is_file():
            link(shard, target)

    # -- several processes -----------------------------------------------------------------------------------------

    @_guarded(lambda: True)
    def claim(self, spans: Sequence[Span]) -> bool:
        """Whether this process is to make all of `spans` (numbers `first` to `stop` of a key): no other one makes a part
        of them now. A process that has died makes nothing."""
        return self._opened.claim(spans)

    @_guarded(lambda: None)
    def release(self, spans: Sequence[Span]) -> None:
        """Gives back what was claimed."""
        self._opened.release(spans)

    def wait(self) -> None:
        """A moment, after which others may have made more."""
        time.sleep(POLL)

    # -- what goes wrong -------------------------------------------------------------------------------------------

    def _switch_off(self, error: Exception) -> None:
        index, self._index, self._read = self._index, None, {}
        if index is not None:
            with suppress(sqlite3.Error):  # it is this that failed, and is said in the next line
                index.close()
        self.say(f"store {self.folder}: {in_words(error)}: the work goes on without it")


def in_words(error: Exception) -> str:
    """What is wrong with a store, in one line."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "is full" in str(error):
        return "the disk is full"
    if isinstance(error, (Foreign, IndexError)) or "not a database" in str(error) or "malformed" in str(error):
        return f"{NAME} cannot be used ({error}); delete the folder, which is always safe, or choose another --store"
    if isinstance(error, sqlite3.OperationalError):
        return f"{NAME} cannot be opened or locked ({error})"
    return " ".join(str(error).split())


def wrong(path: Path) -> str | None:
    """What is wrong with a data file, in words; None if its content is what its name says."""
    if not path.is_file():
        return "is gone"
    return None if _digest(path) == path.stem else "has another content than its name says"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link(shard: Path, target: Path) -> None:
    """Makes `shard` and `target` (of its content, if it is there) one file, or a copy where no link can be made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and filecmp.cmp(shard, target, shallow=False):
        if not target.samefile(shard):
            _replaced(shard, lambda new: os.link(target, new))
        return
    with suppress(OSError):  # there is something of this name, or no link can be made
        os.link(shard, target)
        return
    if not _replaced(target, lambda new: os.link(shard, new)):
        _replaced(target, lambda new: shutil.copyfile(shard, new), needed=True)


def _replaced(path: Path, make: Callable[[Path], object], needed: bool = False) -> bool:
    """Whether `make(a new path)` could be renamed to `path`. Raises OSError if it could not and is `needed`."""
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        make(new)
        os.replace(new, path)
    except OSError:
        if needed:
            raise
        return False
    finally:
        new.unlink(missing_ok=True)
    return True


# -- the store of a command ----------------------------------------------------------------------------------------

NONE = Store(None)  # holds and keeps nothing
_in_use = [NONE]


def current() -> Store:
    """The store of the command that is at work; one that holds nothing where there is none."""
    return _in_use[-1]


@contextmanager
def use(folder: Path | None, say: Say = print) -> Iterator[Store]:
    """Opens a store for what is computed inside the with-statement; None: there is none."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UserError(f"--store {folder}: not a folder")
    with Store(folder, say) as store:
        _in_use.append(store)
        try:
            yield store
        finally:
            _in_use.remove(store)
