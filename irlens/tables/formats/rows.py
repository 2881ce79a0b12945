"""The rows of a file, each with its place: JSON lines, a JSON list or object, Parquet, inspect_ai's .eval."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import jsons
from irlens.base.errors import UserError
from irlens.base.files import read_jsonl, read_lines
from irlens.tables.files import read_parquet

if TYPE_CHECKING:
    import pandas as pd

KINDS = ".jsonl, .json (gzipped or not), .parquet, .eval, or a folder of Parquet files"


def rows(path: Path) -> Iterator[tuple[str, dict]]:
    """(place, object) of every row. Raises UserError, naming file and row: what cannot be read, a row that is no object."""
    if path.is_dir():
        parts = sorted(path.glob("*.parquet"))
        if not parts:
            raise UserError(f"{path}: no Parquet file in this folder; name one file ({KINDS})")
        for part in parts:
            yield from rows(part)
    elif path.suffix == ".parquet":
        for i, row in enumerate(read_parquet(path).to_dict("records")):
            yield f"{path}: row {i}", {key: plain(value) for key, value in row.items()}
    elif path.suffix == ".eval":
        from irlens.tables.formats.inspect_log import loaded

        yield str(path), loaded(path)
    elif path.name.endswith((".json", ".json.gz")):
        yield from _of_json(path)
    else:
        yield from ((f"{path}:{number}", row) for number, row in read_jsonl(path))


def _of_json(path: Path) -> Iterator[tuple[str, dict]]:
    """A list of objects, one object, or JSON lines under this name."""
    lines = list(read_lines(path))
    try:
        found = jsons.loads("\n".join(line for _, line in lines))
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            line = lines[min(error.lineno, len(lines)) - 1][0] if lines else 1
            raise UserError(f"{path}:{line}: malformed JSON ({error.msg} at column {error.colno})") from error
        yield from ((f"{path}:{number}", row) for number, row in read_jsonl(path))
        return
    if isinstance(found, dict):
        yield str(path), found
        return
    for i, row in enumerate(found if isinstance(found, list) else [found]):
        if not isinstance(row, dict):
            raise UserError(f"{path}: entry {i}: expected a JSON object, got {type(row).__name__}")
        yield f"{path}: entry {i}", row


def plain(value):
    """Parquet's arrays as lists, all the way down, and its numbers as Python's."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return value


# -- of benchmarks' files ----------------------------------------------------------------------------------------------


def jsonl_files(path: Path) -> list[Path]:
    """A file, or the JSON lines of a folder, else of those in it, by name. Raises UserError: a folder without any."""
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.jsonl")) or sorted(path.glob("*/*.jsonl"))
    if not found:
        raise UserError(f"{path}: no .jsonl file in this folder")
    return found


def first_of(path: Path) -> dict:
    """The first row of a file or folder of JSON lines, {} of an empty file."""
    return next((row for _, row in rows(jsonl_files(path)[0])), {})


def judged_in(name: str) -> Path:
    """What a name leads to: of a benchmark's folder, or of one that was written in its layout, the judgements in it.

    Raises UserError: nothing is there.
    """
    path = Path(name).expanduser()
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    return path / "model_judgment" if (path / "model_judgment").is_dir() else path


def benchmark_of(dataset: str | None, names: Sequence[str], file: str) -> Path | None:
    """The folder of a benchmark whose questions are `file`: the one asked for, or of the file asked for, else the one that
    the things named are or lie in; None where none is known."""
    if dataset:
        asked = Path(dataset).expanduser()
        return asked.parent if asked.is_file() and asked.name == file else asked
    paths = [Path(name).expanduser().resolve() for name in names]
    above = (folder for path in paths for folder in (path, *path.parents))
    return next((folder for folder in above if (folder / file).is_file()), None)


def text(row: dict, key: str, where: str) -> str:
    """What a row has under a key. Raises UserError for what is no text, or blank."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {key} must be a text that is not blank, got {value!r:.60}")
    return value


def asked(row: dict, keys: Sequence[str], benchmark: str, where: str) -> dict:
    """A row itself, a benchmark's question. Raises UserError for one that lacks all but one of `keys`: another benchmark's."""
    if sum(key in row for key in keys) < 2:
        raise UserError(
            f"{where}: {benchmark}'s questions have {', '.join(keys)}; found: {', '.join(row) or 'nothing'}"
        )
    return row


def once(frame: pd.DataFrame, keys: list[str], path: Path) -> pd.DataFrame:
    """`frame` itself. Raises UserError: no rows, or what must be there once is there twice."""
    if frame.empty:
        raise UserError(f"{path}: no rows")
    if (twice := frame.duplicated(keys)).any():
        raise UserError(
            f"{path}: {' '.join(map(str, frame[twice].iloc[0][keys]))} is there twice ({int(twice.sum()):,} such rows)"
        )
    return frame
