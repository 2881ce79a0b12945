"""MT-Bench's scores: mean grades over both turns, by turn and by category, with intervals over questions.

Source: Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", and lm-sys/FastChat's show_result.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.measure.repeats import linearised, repeated_interval
from irlens.measure.results import Results, results_of
from irlens.tables.formats import mt_bench as layout

SCORE = "MTBench"


def mt_bench(
    grades: pd.DataFrame | str | os.PathLike | Sequence[str | os.PathLike],
    questions: str | os.PathLike | None = None,
) -> Results:
    """Mean grades of systems on MT-Bench, from 1 to 10: `run, judge, measure, value, low, high, n, missing`, a row for both
    turns, each turn, and each category.

    grades: files or folders in the authors' layout, or their rows (`tables.formats.mt_bench.grades`). questions: the
    benchmark's folder or file, which says the categories. A turn without a grade is left out and counted in `missing`;
    `n` are questions. Intervals are over questions. Raises UserError: see `tables.formats.mt_bench`; a turn twice; a
    system without a grade.
    """
    if not isinstance(grades, pd.DataFrame):
        some = [grades] if isinstance(grades, (str, os.PathLike)) else list(grades)
        read = [layout.grades(Path(path).expanduser()) for path in some]
        grades = pd.concat(read, ignore_index=True) if read else pd.DataFrame(columns=list(layout.GRADES))
    asked = None if questions is None else layout.questions(Path(questions).expanduser())
    return scores(checked(grades), asked)


def checked(grades: pd.DataFrame) -> pd.DataFrame:
    """`grades` itself. Raises UserError: no rows, a column that is missing, a grade out of range, a turn twice."""
    if missing := [name for name in layout.GRADES if name not in grades.columns]:
        raise UserError(f"grades need the columns {', '.join(layout.GRADES)}; missing: {', '.join(missing)}")
    if grades.empty:
        raise UserError("grades: no rows")
    values = grades["score"].to_numpy(dtype=float)
    if (wrong := ~np.isnan(values) & ~((values >= 0) & (values <= layout.MOST))).any():
        raise UserError(f"a grade must be from 0 to 10, or NaN, got {values[wrong][0]:g}")
    if (twice := grades.duplicated(["run", "judge", "question_id", "turn"])).any():
        row = grades[twice].iloc[0]
        raise UserError(f"{row['run']}: turn {row['turn']} of question {row['question_id']} is graded twice")
    return grades.reset_index(drop=True)


def scores(grades: pd.DataFrame, questions: pd.DataFrame | None = None) -> Results:
    """What `mt_bench` gives, of checked grades; NaN for a turn or category of which there is none."""
    for run, some in grades.groupby("run", sort=False):
        if some["score"].isna().all():
            raise UserError(f"{run}: none of {len(some):,} turns has a grade")
    category = {} if questions is None else dict(zip(questions["question_id"], questions["category"]))
    grades = grades.assign(category=grades["question_id"].map(category))
    rows, each = [], []
    for (run, judge), some in grades.groupby(["run", "judge"], sort=False):
        for name, part in _parts(some):
            row, values = _score(part)
            rows.append({"run": run, "judge": judge, "measure": name} | row)
            each += [values.assign(run=run, measure=name)] * bool(row["n"])
    per_query = pd.concat(each, ignore_index=True)[["run", "query_id", "measure", "value"]]
    return results_of(pd.DataFrame(rows), per_query)


def _parts(some: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(measure, its rows): both turns, each, and each category."""
    yield SCORE, some
    for turn in layout.TURNS:
        if len(part := some[some["turn"] == turn]):
            yield f"{SCORE}:turn-{turn}", part
    for name in sorted(some["category"].dropna().unique()):
        yield f"{SCORE}:{name}", some[some["category"] == name]


def _score(part: pd.DataFrame) -> tuple[dict, pd.DataFrame]:
    """(value, interval, n and missing of some turns, what each question adds)."""
    known = part[part["score"].notna()]
    if known.empty:
        none = dict.fromkeys(("value", "low", "high"), float("nan"))
        return none | {"n": 0, "missing": len(part)}, pd.DataFrame(columns=["query_id", "value"])
    means = known.groupby("question_id", sort=False)["score"].agg(["mean", "size"])
    turns = means["size"].to_numpy(dtype=float)
    value = float((means["mean"] * turns).sum() / turns.sum())
    low, high = repeated_interval(means["mean"].to_numpy() / layout.MOST, turns)
    each = pd.DataFrame({"query_id": means.index, "value": linearised(means["mean"].to_numpy(), turns)})
    row = {"value": value, "low": layout.MOST * low, "high": layout.MOST * high, "n": len(means)}
    return row | {"missing": len(part) - len(known)}, each
