"""AlpacaEval's annotations: pairs of answers to one instruction, the baseline's first, and a judge's preference.

A JSON list of `instruction, output_1, generator_1, output_2, generator_2, annotator, preference`, and more that is kept
where it is known. Source: AlpacaEval's README, and the files of its leaderboard.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from irlens.base.errors import UserError

PAIR = ("instruction", "output_1", "output_2")
NAMES = {
    "generator_1": "baseline",
    "generator_2": "system",
    "annotator": "unknown judge",
    "dataset": "",
}  # where not told
COLUMNS = ("instruction", "dataset", "output_1", "generator_1", "output_2", "generator_2", "annotator", "preference")
MORE = ("price_per_example", "time_per_example", "raw_completion")


def fits(row: dict) -> bool:
    """Whether a row is an annotation."""
    return row.keys() >= {*PAIR, "preference"}


def read(rows: Iterable[tuple[str, dict]]) -> pd.DataFrame:
    """A frame with COLUMNS; a preference that is null is NaN. Raises UserError, naming the entry: a key that is missing or
    of another kind."""
    found = []
    for where, row in rows:
        if not fits(row) or not all(isinstance(row[name], str) for name in PAIR):
            raise UserError(
                f"{where}: an annotation needs {', '.join(PAIR)} (texts) and preference; found: {list(row)}"
            )
        value = row["preference"]
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise UserError(f"{where}: preference must be a number or null, got {value!r:.60}")
        names = {name: str(row.get(name) or otherwise) for name, otherwise in NAMES.items()}
        found.append({name: row[name] for name in PAIR} | names | {"preference": math.nan if value is None else value})
    return pd.DataFrame(found, columns=list(COLUMNS)).astype({"preference": float})


def rows_of(frame: pd.DataFrame) -> list[dict]:
    """The entries of an annotations.json: null where there is no preference, and MORE, null where it is not known."""
    out = []
    for row in frame.to_dict("records"):
        told = {name: row.get(name, NAMES.get(name)) for name in COLUMNS} | {name: row.get(name) for name in MORE}
        out.append({name: None if _unknown(value) else value for name, value in told.items()})
    return out


def _unknown(value) -> bool:
    return isinstance(value, float) and math.isnan(value)
