"""A file of lists to train on: preference pairs, scored completions, or irlens' own, in every format that a data set has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from irlens.base import jsons
from irlens.base.errors import UserError
from irlens.tables import files as tables
from irlens.train.preferences import FORMS, RESPONSES, VALUES, are_own, as_lists

OWN = "lists.parquet"  # of a folder that mining or an iteration of training wrote
TYPED = ("completions", "scores", "rejected", "label", "score", "reward", "grade", "margin")  # what a CSV holds as text


def read(path: str | Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The lists of a file or folder, as `preferences.as_lists` has them. columns: {name of `preferences.NAMES`: theirs}.

    A file: JSON lines, JSON, Parquet or CSV (lists in a cell as JSON). A folder: one with lists.parquet, one of
    `datasets.save_to_disk`, or one of such files, of which the split train is read, or the only one. Raises UserError,
    naming the file and the row: no such file, a format or form that is none of these, what cannot be trained on.
    """
    path = _there(path)
    own = path / OWN if path.is_dir() else path
    if own.suffix == ".parquet" and own.is_file() and are_own(set(tables.parquet_columns(own))):
        if columns:
            raise UserError(f"--columns: {own} holds irlens' own lists, which have names of their own")
        return as_lists(tables.read_lists(own))
    return _of_rows(_placed(path), path, dict(columns or {}))


def of_hub(name: str, split: str | None = None, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The same of a data set of the hub, `owner/name[:configuration]`; without `split` of its training material."""
    from irlens.tasks import datasets_library

    name = str(datasets_library.identifier(name))
    split = split or _training(datasets_library.hub_splits(name), Path(name))
    return _of_rows(datasets_library.hub_rows(name, split)[0], Path(name), dict(columns or {}))


def columns(path: str | Path) -> list[str]:
    """The columns of the first row of a file or folder of lists; none of irlens' own, which have names of their own."""
    path = _there(path)
    if path.is_dir() and (path / OWN).is_file():
        path = path / OWN
    first = next(iter(_placed(path)), ("", {}))[1]
    return [] if are_own(first) else list(map(str, first))


def _there(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"--lists {path}: no such file or folder (how many lists each prompt gives is --lists-per-prompt)"
        )
    return path


def digest(lists: pd.DataFrame) -> str:
    """SHA-256 of what lists hold, whatever file they came in."""
    told = lists.to_json(orient="records", double_precision=15)
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def _placed(path: Path) -> Iterable[tuple[str, dict]]:
    """(where, row) of every row of a file, or of a folder's training material."""
    from irlens.tasks import datasets_library, rows

    if path.is_dir() and datasets_library.is_saved(path):
        split = _training(datasets_library.saved_splits(path), path)
        yield from datasets_library.saved_rows(path, split)[0]
        return
    if path.is_file():
        yield from rows.read(path)
        return
    found = rows.splits(path)
    if not found:
        raise UserError(f"{path}: holds no {OWN} and no {rows.ENDINGS}")
    for file in found[_training(found, path)]:
        yield from rows.read(file)


def _training(splits: Iterable[str], path: Path) -> str:
    """The split to train on."""
    present = list(splits)
    if "train" in present or len(present) == 1:
        return "train" if "train" in present else present[0]
    raise UserError(f"{path}: holds {', '.join(present)} and no split train; name the file to train on")


def _of_rows(placed: Iterable[tuple[str, dict]], path: Path, mapped: dict[str, str]) -> pd.DataFrame:
    """Lists of rows; what is wrong with a column is said of the file, what is wrong with a row of its place."""
    places, found = [], []
    for where, row in placed:
        if mapped:
            row = _renamed(row, mapped, where if found else str(path))
        places.append(where)
        found.append(_typed(row) if path.suffix == ".csv" else row)
    try:
        if found and are_own(found[0]):
            return as_lists(pd.DataFrame(found))
        return as_lists(found, places)
    except UserError as error:
        if str(error).startswith(str(path)):  # it names the row
            raise
        which = "; --columns prompt=COLUMN,… says which is which" if str(error).startswith("no column") else ""
        raise UserError(f"{path}: {error}{which}") from error


def _renamed(row: dict, mapped: dict[str, str], where: str) -> dict:
    """A row by our names. What the same could be read from is left out: another form of lists, another value."""
    from irlens.tasks import forms

    forms.check_columns(mapped, row, where)
    asked = [form for form in (*FORMS, VALUES) if mapped.keys() & {*form}]
    others = {name for form in FORMS if form not in asked for name in form} if {*asked} & {*FORMS} else set()
    others |= {name for form in asked if form in (RESPONSES, VALUES) for name in form}
    return {name: value for name, value in row.items() if name not in others} | {n: row[c] for n, c in mapped.items()}


def _typed(row: dict) -> dict:
    """A row of a CSV, with what it holds as JSON read: numbers, true and false, lists of texts and of numbers."""
    return {name: _value(value, name) if name in TYPED else value for name, value in row.items()}


def _value(text: str, name: str):
    try:
        value = jsons.loads(text.lower() if name == "label" else text)
    except ValueError:
        return text
    if name == "rejected":  # one that looks like a number is still a text
        return value if isinstance(value, list) and value and isinstance(value[0], (str, dict)) else text
    return value
