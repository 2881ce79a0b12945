"""Rows of files, each with its place: JSON lines, JSON, Parquet and CSV, one file (or numbered parts) per split."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from irlens.base import jsons
from irlens.base.errors import UserError
from irlens.base.files import read_jsonl, read_lines
from irlens.tasks.contract import split_files

Placed = tuple[str, dict]  # (where the row stands, the row)

PART = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?$")  # of a split that the hub keeps in several files


def _jsonl(path: Path) -> Iterator[Placed]:
    return ((f"{path}:{number}", row) for number, row in read_jsonl(path))


def _json(path: Path) -> Iterator[Placed]:
    """A list of objects; what does not begin as a list is JSON lines under another name."""
    lines = read_lines(path)
    text = next((line for _, line in lines), "")
    if not text.lstrip().startswith("["):
        yield from _jsonl(path)
        return
    try:
        rows = jsons.loads("\n".join([text, *(line for _, line in lines)]))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: malformed JSON ({error.msg} at column {error.colno})") from error
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{path}: entry {i}: expected a JSON object, got {type(row).__name__}")
        yield f"{path}: entry {i}", row


def _parquet(path: Path) -> Iterator[Placed]:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1000):
                for row in batch.to_pylist():
                    yield f"{path}: row {number}", row
                    number += 1
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error


def _csv(path: Path) -> Iterator[Placed]:
    """Rows by the names in the first line; a quoted field may go over several lines, and be of any length."""
    with path.open(encoding="utf-8-sig", newline="") as file:  # line breaks within a field stay what they are
        reader = csv.reader(io.StringIO(file.read(), newline=""), strict=True)
    before = csv.field_size_limit(2**31 - 1)
    try:
        read = [(reader.line_num, fields) for fields in reader if fields not in ([], [""])]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: malformed CSV ({error})") from error
    finally:
        csv.field_size_limit(before)
    names = read[0][1] if read else []
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path}:1: the column {twice[0]!r} is named twice")
    for number, fields in read[1:]:
        if len(fields) != len(names):
            raise UserError(f"{path}:{number}: {len(fields)} fields, the first line names {len(names)}")
        yield f"{path}:{number}", dict(zip(names, fields))


READERS: tuple[tuple[re.Pattern[str], Callable[[Path], Iterator[Placed]]], ...] = (
    (re.compile(r"\.jsonl(\.gz)?$"), _jsonl),
    (re.compile(r"\.parquet$"), _parquet),
    (re.compile(r"\.csv$"), _csv),
    (re.compile(r"\.json(\.gz)?$"), _json),
)  # of a folder the first kind that it holds is read: others lie beside the data and say things about it
ENDINGS = ".jsonl, .json (or .gz of these), .parquet or .csv"


def looks_like_a_file(name: str) -> bool:
    """Whether a name ends as a file that a reader takes."""
    return any(suffix.search(name) for suffix, _ in READERS)


def splits(path: Path) -> dict[str, list[Path]]:
    """{split: its files, in order} of a file or a folder; none of what no reader takes."""
    for suffix, _ in READERS:
        if path.is_file() and suffix.search(path.name):
            return {suffix.sub("", path.name): [path]}
        found: dict[str, list[Path]] = {}
        for name, file in split_files(path, suffix).items():
            found.setdefault(PART.sub("", name), []).append(file)
        if found:
            return found
    return {}


def read(path: Path) -> Iterator[Placed]:
    """The rows of a file. Raises UserError, naming the line: what cannot be read as its ending says."""
    try:
        for suffix, reader in READERS:
            if suffix.search(path.name):
                yield from reader(path)
                return
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 text file ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    raise UserError(f"{path}: expected {ENDINGS}")
