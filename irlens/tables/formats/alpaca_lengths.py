"""AlpacaEval's two files for length control: how hard each instruction is, and the rows of answers that gamed the judge.

Source: `instruction_difficulty.csv` (position, value) and `df_gamed.csv` of the data set tatsu-lab/alpaca_eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from irlens.base.errors import UserError

GAMED = ("std_delta_len", "instruction_difficulty", "preference")
INSTRUCTIONS = ("instruction", "prompt", "query")  # columns by which a file may name its prompts


def read_difficulty(path: Path, prompts: Sequence[str], option: str = "--difficulty") -> dict[str, float]:
    """Instruction → difficulty: by its text where the file has a column for it, else the i-th value is the i-th prompt's.

    The gamed rows' file will do too: it has the difficulty of each position. Raises UserError: a file without numbers, of
    another number of prompts, a position that is missing or occurs twice.
    """
    frame = _table(path, option)
    column = "instruction_difficulty" if "instruction_difficulty" in frame.columns else frame.columns[-1]
    if "model" in frame.columns and "index" in frame.columns:
        frame = frame.drop_duplicates("index")
    named = next((name for name in INSTRUCTIONS if name in frame.columns), None)
    values = _numbers(frame, column, path, option)
    if named:
        return dict(zip(frame[named].astype(str), values))
    at = frame["index"] if "index" in frame.columns else frame.iloc[:, 0]
    places = pd.to_numeric(at, errors="coerce").to_numpy()
    if len(frame.columns) < 2 or sorted(places) != list(range(len(frame))):
        raise UserError(f"{option} {path}: needs a column of positions from 0 on, each once, and one of values")
    if len(values) != len(prompts):
        raise UserError(
            f"{option} {path}: has {len(values):,} prompts by their position, and here are {len(prompts):,}; name all of "
            f"them in that order by --prompts FILE"
        )
    return {prompts[int(place)]: float(value) for place, value in zip(places, values)}


def read_gamed(path: Path, option: str = "--gamed") -> dict[str, np.ndarray]:
    """`delta`, `difficulty` and `preference` of the gamed rows. Raises UserError: a column that is missing, a value that
    is no finite number, a preference that is not from 0 to 1."""
    frame = _table(path, option)
    if missing := [name for name in GAMED if name not in frame.columns]:
        raise UserError(f"{option} {path}: needs the columns {', '.join(GAMED)}; missing: {', '.join(missing)}")
    delta, difficulty, preference = (_numbers(frame, name, path, option) for name in GAMED)
    if not ((preference >= 0) & (preference <= 1)).all():
        raise UserError(f"{option} {path}: preference must be from 0 to 1")
    return {"delta": delta, "difficulty": difficulty, "preference": preference}


def _table(path: Path, option: str) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{option} {path}: cannot be read as CSV ({error})") from error
    if frame.empty:
        raise UserError(f"{option} {path}: no rows")
    return frame


def _numbers(frame: pd.DataFrame, column: str, path: Path, option: str) -> np.ndarray:
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise UserError(
            f"{option} {path}: row {row}: {column} must be a finite number, got {frame[column].iloc[row]!r}"
        )
    return values
