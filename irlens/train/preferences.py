"""Lists to train on out of what other libraries hold: preference pairs, scored completions, judged responses."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence

import pandas as pd

from irlens.base.errors import UserError
from irlens.tables import check, query_id_of

NEEDED = (
    "lists need irlens' columns (query_id, query, text, grade, …), or prompt, completions, scores, or prompt, chosen, "
    "rejected, or rows of prompt, completion, label (or score)"
)
RESPONSES, VALUES = ("completion", "response"), ("label", "score", "reward")  # of rows that hold one response each
FORMS = (("chosen", "rejected"), ("completions", "scores"), RESPONSES)  # what tells one form of rows from another
NAMES = ("prompt", "query", *FORMS[0], *FORMS[1], *RESPONSES, *VALUES)  # what a column may stand for


def as_lists(data, places: Sequence[str] | None = None) -> pd.DataFrame:
    """`data` as a table of lists: a frame, a `datasets.Dataset`, or a list of dictionaries.

    A table of irlens' own is checked and taken. Else a row is a list: `prompt`, `completions` and as many `scores`, of
    which the highest are best; or `prompt`, `chosen`, `rejected` (scores 1 and 0; `rejected` may be several), as TRL has
    them. Or a row is one response, `prompt`, `completion` (or `response`), `label` (or `score`, `reward`), and those of
    one prompt are a list. A prompt that is a text is what the model reads, word for word, as in TRL (column `prompt`); a
    prompt of chat messages goes through the chat template (column `messages`), and the last message of a completion is
    the response; a chat in `chosen` says what was asked where `prompt` is absent, or only a text. A column `margin` of pairs (by how much the
    chosen one is better) is kept, for rerankers. A column `query` says
    what is asked without the template around it. places: where each row stands, for messages; by default its number.
    Raises UserError, naming the row: a column that is missing, an empty or odd value.
    """
    if isinstance(data, pd.DataFrame) and are_own(data.columns):
        lists = check(data, "lists")
        if lists.empty:
            raise UserError("no row to train on")
        return lists if "list" in lists.columns else lists.assign(list=0)
    columns, rows = _rows(data)
    out: list[dict] = []
    numbers_of: dict[str, int] = {}
    for prompt, said, scores, where in _parsed(columns, rows, places or [f"row {i}" for i in range(len(rows))]):
        texts, grades = _texts(said, where), _grades(scores, where)
        if len(texts) != len(grades):
            raise UserError(f"{where}: {len(texts)} completions and {len(grades)} scores")
        query_id = query_id_of(prompt.pop("known"))
        place = numbers_of[query_id] = numbers_of.get(query_id, -1) + 1
        for i, (text, grade) in enumerate(zip(texts, grades)):
            tier = "positive" if grade == max(grades) else "own"
            fixed = {"query_id": query_id, "query": prompt["query"], "doc_id": f"{query_id}/{place}-{i}", "text": text}
            out.append({**fixed, "grade": grade, "tier": tier, "iteration": 0, "list": place, **prompt})
    if not out:
        raise UserError("no row to train on")
    return check(pd.DataFrame(out), "lists")


def are_own(columns: Iterable[str]) -> bool:
    """Whether a table with these columns is one of irlens' own lists; the pairs that it exports tell a tier too."""
    return bool({"grade", "tier"} & set(columns)) and "chosen" not in columns


def _parsed(columns: list[str], rows: list[dict], places: Sequence[str]) -> list[tuple[dict, list, list, str]]:
    """(prompt, what the completions are, their scores, where) of every list, by the form that the columns have."""
    response = next((name for name in RESPONSES if name in columns), None)
    value = next((name for name in VALUES if name in columns), None)
    if "completions" in columns:
        wanted: tuple[str, ...] = ("prompt", "completions", "scores")
    elif response and "chosen" not in columns:
        wanted = ("prompt", response, value or "label")
    else:
        chats = bool(rows) and _chat(rows[0].get("chosen")) is not None
        wanted = ("chosen", "rejected") if chats else ("prompt", "chosen", "rejected")
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise UserError(f"no column {missing[0]} (found: {', '.join(columns) or 'none'}); {NEEDED}")
    absent = next((where for row, where in zip(rows, places) if not row.keys() >= set(wanted)), None)
    if absent is not None:
        raise UserError(f"{absent}: lacks one of {', '.join(wanted)}; {NEEDED}")
    if wanted[-1] == "scores":
        return [(_prompt(row, where), row["completions"], row["scores"], where) for row, where in zip(rows, places)]
    if wanted[-1] == "rejected":
        return [(*_pair(row, where), where) for row, where in zip(rows, places)]
    return _gathered(rows, places, wanted[1], wanted[2])


def _pair(row: dict, where: str) -> tuple[dict, list, list]:
    """(prompt, the chosen and the rejected ones, their scores) of a preference."""
    value = row["rejected"]
    inner = _list(value)
    several = inner is not None and not (inner and isinstance(inner[0], dict))
    rejected = inner if several and inner else [value]
    chosen, given = _chat(row["chosen"]), row.get("prompt")
    if chosen and len(chosen) > 1 and _list(given) is None:  # the chat itself says what was asked
        before = chosen[:-1]
        if any((_chat(one) or [])[:-1] != before for one in rejected):
            raise UserError(f"{where}: chosen and rejected do not answer the same messages")
        row = {**row, "prompt": before}
    asked, margin = _prompt(row, where), row.get("margin")
    if margin is not None and margin == margin:  # a table's missing number is not equal to itself
        asked["margin"] = _grades([margin], where, "margin")[0]
    return asked, [row["chosen"], *rejected], [1.0] + [0.0] * len(rejected)


def _gathered(rows: list[dict], places: Sequence[str], response: str, value: str) -> list[tuple[dict, list, list, str]]:
    """Rows of one response each, those of a prompt together, in the order in which the prompts first come."""
    found: dict[str, tuple[dict, list, list, str]] = {}
    for row, where in zip(rows, places):
        prompt, text = _prompt(row, where), _texts([row[response]], where)
        _, said, scores, _ = found.setdefault(prompt["known"], (prompt, [], [], where))
        said += text
        scores += _grades([row[value]], where)
    return list(found.values())


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


def _prompt(row: dict, where: str) -> dict:
    """The columns `prompt` (a text as the model reads it), `messages` (a chat) and `query` (what is asked), and under
    `known` what tells this prompt from others."""
    value, query = row.get("prompt"), row.get("query")
    query = query if isinstance(query, str) and query else None
    if isinstance(value, str) and value.strip():
        return {"prompt": value, "messages": None, "query": query or value, "known": value}
    turns = _chat(value)
    if turns and all(isinstance(turn.get(key), str) for turn in turns for key in ("role", "content")):
        return {"prompt": None, "messages": turns, "query": query or turns[-1]["content"], "known": str(value)}
    raise UserError(f"{where}: prompt must be a non-empty text or chat messages, got {value!r:.80}")


def _chat(value) -> list[dict] | None:
    """The messages of a chat; None for what is none."""
    turns = _list(value)
    return [dict(turn) for turn in turns] if turns and all(isinstance(turn, dict) for turn in turns) else None


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


def _grades(values, where: str, what: str = "scores") -> list[float]:
    values = _list(values) or []
    values = [value.item() if hasattr(value, "item") else value for value in values]  # numpy's are no numbers.Real
    for value in values:
        if not isinstance(value, numbers.Real) or not abs(float(value)) < float("inf"):
            raise UserError(f"{where}: {what} must be finite numbers, got {value!r:.80}")
    return [float(value) for value in values]


def _list(value) -> list | None:
    """A list of a table's cell; None for what is none."""
    return list(value) if isinstance(value, (list, tuple)) or type(value).__name__ == "ndarray" else None
