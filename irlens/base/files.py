"""Files that are written whole or not at all, and text files read line by line."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import checksums, jsons
from irlens.base.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def write_atomically(path: Path, write) -> None:
    """Calls `write(temporary path)`, then renames it to `path`: a reader or a killed run never sees half a file.

    In an output folder its checksum is noted (`base.checksums`).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        checksums.note(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporary(folder: Path, lock: str) -> None:
    """Removes what a killed process has left half-written in `folder`; not in those below it that have a file `lock` of
    their own, whose next start does it."""
    for where, folders, names in os.walk(folder):
        left = [name for name in [*folders, *names] if name.startswith(".") and name.endswith(".tmp")]
        for path in (Path(where) / name for name in left):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        folders[:] = [name for name in folders if name not in left and not (Path(where) / name / lock).exists()]


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Writes atomically; the same frame gives the same bytes."""
    write_atomically(path, lambda temporary: frame.to_parquet(temporary, index=False))


def write_text(text: str, path: Path) -> None:
    """Writes UTF-8 atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes atomically, every float with all its digits."""
    write_atomically(path, lambda temporary: frame.to_csv(temporary, index=False))


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) of a text file, gzipped or not, blank lines left out."""
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        checksums.trusted(path)
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: not a UTF-8 text file ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict]]:
    """(line number, object) of a JSON-lines file. Raises UserError naming file and line of malformed JSON."""
    for number, line in read_lines(path):
        try:
            row = jsons.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: malformed JSON ({error.msg} at column {error.colno})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}")
        yield number, row


DIGESTED = (".safetensors", ".json", ".jinja", ".bin", ".txt", ".model")


SMALL = (
    200 << 20
)  # bytes of a file of weights above which the hub cache's own SHA-256 of it, where there is one, is taken


def digest(folder: Path) -> str:
    """Short SHA-256 over a model's files, all of each, whatever folder they lie in."""
    sha = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix in DIGESTED and inside.parts[0] not in ("onnx", "openvino"):
            size = path.stat().st_size
            sha.update(f"{inside}:{size}".encode())
            sha.update(_of_large(path).encode() if size > SMALL else path.read_bytes())
    return sha.hexdigest()[:16]


def _of_large(path: Path) -> str:
    """SHA-256 of a large file; in the hub's cache it is the name of the file that the snapshot's link leads to."""
    stored = path.resolve()
    if path.is_symlink() and stored.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", stored.name):
        return stored.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def in_bytes(size: float) -> str:
    """A size in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
