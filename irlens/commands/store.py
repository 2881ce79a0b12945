"""The store of draws and scores, looked at: its size and what it holds; pruned of what is old or too much; checked."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from irlens.base import store as stores
from irlens.base.errors import UserError
from irlens.base.files import in_bytes
from irlens.base.options import positive
from irlens.base.store_index import NAME, Foreign, Index
from irlens.commands.settings import Store

HOUR, DAY = 3600.0, 86400.0
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Line:
    """What a store holds of one maker: "draws" or "scores", by which model, how many rows and bytes, last used when."""

    kind: str
    what: str
    rows: int
    bytes: int
    used: float


@dataclass(frozen=True)
class Facts:
    """What a store is. shared: bytes of files that are in an output folder too, so that pruning them frees nothing."""

    folder: Path
    lines: list[Line]
    files: int
    bytes: int
    shared: int
    index: int


def store(settings: Store, say: Callable[[str], None] = print) -> Facts:
    """Checks and prunes as asked, and returns what is there then. Raises UserError: no store there, one that cannot be
    read, options that do not go together."""
    folder = Path(settings.folder).expanduser() if settings.folder else _usual()
    if not (folder / NAME).is_file() and (folder / stores.FOLDER).is_dir():
        folder = folder / stores.FOLDER  # the folder of the output folders was meant
    positive(older_than=settings.older_than)
    most = _bytes(settings.max_size)
    if settings.prune == (settings.older_than is None and most is None):
        raise UserError("--prune goes with --older-than DAYS, --max-size 10GB, or both: what is to go")
    with _opened(folder, say) as index:
        if settings.check:
            _check(folder, index, say)
        if settings.prune:
            _prune(folder, index, settings.older_than, most, say)
        return _facts(folder, index)


def _usual() -> Path:
    """Where the store is if nothing is said: as IRLENS_STORE has it, else of what commands write by default."""
    found = stores.place(None, Path("irlens-out") / "any")
    if found is None:
        raise UserError(f"{stores.VARIABLE}=none: there is no store; name its folder")
    return found


@contextmanager
def _opened(folder: Path, say: Callable[[str], None]) -> Iterator[Index]:
    if not (folder / NAME).is_file():
        raise UserError(f"{folder}: no store there (no {NAME}); a store is a folder {stores.FOLDER} beside an --out")
    index = None
    try:
        index = Index(folder, say)
        yield index
    except (sqlite3.Error, OSError, Foreign) as error:
        raise UserError(f"{folder}: {stores.in_words(error)}") from error
    finally:
        if index is not None:
            index.close()


def _facts(folder: Path, index: Index) -> Facts:
    known, lines, shared, size = index.files(), {}, 0, 0
    for name, kind, what, count, used, rows in known:
        path = _path(folder, name)
        if path.is_file() and path.stat().st_nlink > 1:
            shared += count
        size += count
        old = lines.get((kind, what), Line(kind, what, 0, 0, 0.0))
        lines[kind, what] = Line(kind, what, old.rows + rows, old.bytes + count, max(old.used, used))
    own = sum(path.stat().st_size for path in folder.glob(f"{NAME}*"))
    return Facts(folder, sorted(lines.values(), key=lambda line: -line.bytes), len(known), size, shared, own)


def _path(folder: Path, name: str) -> Path:
    return folder / name[:2] / name


def _check(folder: Path, index: Index, say: Callable[[str], None]) -> None:
    """Reads every file; what is not what its name says is dropped, and made again where it is needed."""
    known, bad = index.files(), 0
    for name, *_ in known:
        if (said := stores.wrong(_path(folder, name))) is not None:
            say(f"{_path(folder, name)} {said}: dropped")
            _drop(folder, index, name)
            bad += 1
    say(f"{len(known):,} files checked, {bad:,} of them wrong")


def _prune(folder: Path, index: Index, days: float | None, most: int | None, say: Callable[[str], None]) -> None:
    """Drops what was not used for so many days, then the longest unused until no more than `most` bytes are left; and
    files that no index knows, which a killed command has left."""
    known, now, gone = index.files(), time.time(), 0
    left = sum(size for _, _, _, size, _, _ in known)
    count = 0
    for name, _, _, size, used, _ in known:
        if (days is not None and now - used > days * DAY) or (most is not None and left > most):
            _drop(folder, index, name)
            left, gone, count = left - size, gone + size, count + 1
    names = {name for name, *_ in index.files()}
    for path in folder.glob("??/*"):
        if path.name not in names and now - path.stat().st_ctime > HOUR:
            path.unlink(missing_ok=True)
    index.shrink()
    say(f"pruned {count:,} of {len(known):,} files, {in_bytes(gone)}")


def _drop(folder: Path, index: Index, name: str) -> None:
    index.drop(name)
    _path(folder, name).unlink(missing_ok=True)


def _bytes(text: str | None) -> int | None:
    """10GB, 500 MB, 1e6 as bytes. Raises UserError for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:[eE]\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.I)
    if not found:
        raise UserError(f"--max-size {text!r}: expected a size such as 10GB or 500MB")
    return int(float(found[1]) * UNITS[found[2].upper()])
