"""Lists to train on out of what other libraries hold: rows of `prompt, completions, scores`, or TRL's preference pairs."""

from __future__ import annotations

import numbers

import pandas as pd

from irlens.base.errors import UserError
from irlens.tables import check, query_id_of

NEEDED = "lists need irlens' columns (query_id, query, text, grade, …), or prompt, completions, scores, or prompt, chosen, rejected"


def as_lists(data) -> pd.DataFrame:
    """`data` as a table of lists: a frame, a `datasets.Dataset`, or a list of dictionaries.

    A table of irlens' own is checked and taken. Else each row is a list: `prompt`, `completions` and as many `scores`, of
    which the highest are best; or `prompt`, `chosen`, `rejected` (scores 1 and 0), as TRL has them. A prompt that is a
    text is what the model reads, word for word, as in TRL (column `prompt`); a prompt of chat messages goes through the
    chat template (column `messages`), and the last message of a completion is the response. Raises UserError, naming the
    row: a column that is missing, an empty or odd value, no row with two different scores.
    """
    if isinstance(data, pd.DataFrame) and {"grade", "tier"} & set(data.columns):
        lists = check(data, "lists")
        return lists if "list" in lists.columns else lists.assign(list=0)
    columns, rows = _rows(data)
    if "completions" in columns and "scores" not in columns:
        raise UserError(f"no column scores beside completions; {NEEDED}")
    scored = "completions" in columns
    wanted = ("prompt", "completions", "scores") if scored else ("prompt", "chosen", "rejected")
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise UserError(f"no column {missing[0]} (found: {', '.join(columns) or 'none'}); {NEEDED}")
    out, numbers_of = [], {}
    for number, row in enumerate(rows):
        where = f"row {number}"
        said, scores = (row["completions"], row["scores"]) if scored else ([row["chosen"], row["rejected"]], [1.0, 0.0])
        prompt = _prompt(row["prompt"], where)
        texts, grades = _texts(said, where), _grades(scores, where)
        if len(texts) != len(grades):
            raise UserError(f"{where}: {len(texts)} completions and {len(grades)} scores")
        asked = prompt["prompt"] or prompt["query"]
        query_id = query_id_of(str(row["prompt"]))
        place = numbers_of[query_id] = numbers_of.get(query_id, -1) + 1
        for i, (text, grade) in enumerate(zip(texts, grades)):
            tier = "positive" if grade == max(grades) else "own"
            fixed = {"query_id": query_id, "query": asked, "doc_id": f"{query_id}/{place}-{i}", "text": text}
            out.append({**fixed, "grade": grade, "tier": tier, "iteration": 0, "list": place, **prompt, "query": asked})
    if not out:
        raise UserError("no row to train on")
    return check(pd.DataFrame(out), "lists")


def _rows(data) -> tuple[list[str], list[dict]]:
    """(columns, rows) of a frame, a Dataset or a list of dictionaries."""
    if hasattr(data, "column_names"):  # a datasets.Dataset, which need not be installed
        if isinstance(data.column_names, dict):
            raise UserError(
                f"a dataset of several splits ({', '.join(data.column_names)}); choose one, such as ['train']"
            )
        return list(data.column_names), list(data)
    if isinstance(data, pd.DataFrame):
        return list(map(str, data.columns)), data.to_dict("records")
    if isinstance(data, (list, tuple)) and all(isinstance(row, dict) for row in data):
        return list(data[0]) if data else [], list(data)
    raise UserError(f"{type(data).__name__} is no table of lists; {NEEDED}")


def _prompt(value, where: str) -> dict:
    """The columns `prompt` (a text as the model reads it), `messages` (a chat) and `query` (what is asked)."""
    if isinstance(value, str) and value:
        return {"prompt": value, "messages": None, "query": value}
    turns = _list(value)
    if turns and all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns):
        return {"prompt": None, "messages": [dict(turn) for turn in turns], "query": turns[-1]["content"]}
    raise UserError(f"{where}: prompt must be a non-empty text or chat messages, got {value!r:.80}")


def _texts(values, where: str) -> list[str]:
    """What each completion says: a text, or the last of its messages."""
    values = _list(values)
    if not values:
        raise UserError(f"{where}: completions must be a list of texts or of chats, got none")
    out = []
    for value in values:
        turns = _list(value)
        text = turns[-1].get("content") if turns and isinstance(turns[-1], dict) else value
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}: a completion must be a non-empty text or chat messages, got {value!r:.80}")
        out.append(text)
    return out


def _grades(values, where: str) -> list[float]:
    values = _list(values) or []
    for value in values:
        if not isinstance(value, numbers.Real) or not abs(float(value)) < float("inf"):
            raise UserError(f"{where}: scores must be finite numbers, got {value!r:.80}")
    return [float(value) for value in values]


def _list(value) -> list | None:
    """A list of a table's cell; None for what is none."""
    return list(value) if isinstance(value, (list, tuple)) or type(value).__name__ == "ndarray" else None
