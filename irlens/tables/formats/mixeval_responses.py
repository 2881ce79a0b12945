"""MixEval's response files: a record of the benchmark with `id, formated_input, response`, a line each (or a JSON list).

Source: the files that MixEval's own code writes; `formated_input` is how it spells it. An id is that of a file of the
benchmark, so that the kind of question belongs to it.
"""

from __future__ import annotations

from collections.abc import Iterable

from irlens.base.errors import UserError
from irlens.tables.formats.draws import About, Draw, Log, text_of

KEYS = "id, problem_type, target, formated_input, response"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def fits(row: dict) -> bool:
    """Whether a row is one of MixEval's responses."""
    return row.keys() >= {"id", "problem_type", "target", "formated_input", "response"}


def read(rows: Iterable[tuple[str, dict]], about: About) -> Log:
    """Draws under the identifiers `free-form/ID` and `multiple-choice/ID`. Raises UserError, naming the line: a key that is
    missing or of another kind, an id twice."""
    log = Log([])
    places: dict[str, str] = {}
    for where, row in rows:
        if not fits(row) or not isinstance(row["formated_input"], str):
            raise UserError(f"{where}: MixEval's responses need {KEYS}; found: {', '.join(row)}")
        if not isinstance(row["response"], str):
            raise UserError(f"{where}: response must be a text, got {row['response']!r:.60}")
        key = f"{'multiple-choice' if 'options' in row else 'free-form'}/{row['id']}"
        if key in places:
            raise UserError(f"{where}: id {row['id']!r} occurs again (first at {places[key]})")
        places[key] = where
        text = text_of(row["response"], where)
        log.draws.append(Draw(where, text, row["formated_input"], key, answers=_golds(row["target"], where)))
    log.task = "MixEval"
    return log


def _golds(target, where: str) -> list[str]:
    """The gold texts, or the gold letter."""
    if not isinstance(target, list) or not target or not all(type(one) in (int, str) for one in target):
        raise UserError(f"{where}: target must be a list of texts, or of a whole number, got {target!r:.60}")
    if any(type(one) is int and not 0 <= one < len(LETTERS) for one in target):
        raise UserError(f"{where}: target {target!r:.60} is out of range")
    return [LETTERS[one] if type(one) is int else one for one in target]
