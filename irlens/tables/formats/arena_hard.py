"""Arena-Hard-Auto in its authors' layout (v2): questions, models' answers, and judgements of two games each.

`question.jsonl`: `uid, category, prompt`; `model_answer/MODEL.jsonl`: `uid, model, messages`, and `metadata` (tokens and
counts of Markdown); `model_judgment/JUDGE/MODEL.jsonl`: `uid, category, judge, model, games`. A game's `score` is a label
such as `A>>B`; in the first the baseline is A, in the second the system. Source: the repository lmarena/arena-hard-auto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from irlens.base.errors import UserError
from irlens.tables.formats.rows import asked, jsonl_files, once, rows, text

LABELS = {
    "A>>B": 1.0, "B<<A": 1.0, "A>B": 1.25, "B<A": 1.25, "A=B": 1.5, "B=A": 1.5, "B>A": 1.75, "A<B": 1.75, "B>>A": 2.0,
    "A<<B": 2.0,
}  # what a game says, from 1 (A is much better) to 2 (B is)  # fmt: skip
TOLD = {1.0: "A>>B", 1.25: "A>B", 1.5: "A=B", 1.75: "B>A", 2.0: "B>>A"}
BASELINES = {
    "hard_prompt": "o3-mini-2025-01-31",
    "coding": "o3-mini-2025-01-31",
    "math": "o3-mini-2025-01-31",
    "creative_writing": "gemini-2.0-flash-001",
    "arena-hard-v0.1": "gpt-4-0314",
}  # whose answers a category's systems are compared with
STYLE = ("length", "headers", "lists", "bolds")  # what metadata counts: tokens, and marks of Markdown
COUNTED = ("token_len", "header_count", "list_count", "bold_count")  # under these names
ANSWERS, JUDGEMENTS, QUESTIONS = "model_answer", "model_judgment", "question.jsonl"
QUESTION = ("uid", "category", "prompt")
GAMES = ("uid", "category", "annotator", "generator_2", "generator_1", "as_it_is", "switched", "reason")
NO_GAME = "no verdict"  # why a stored game says nothing


def is_answer(row: dict) -> bool:
    """Whether a row is a model's answer."""
    return row.keys() >= {"uid", "model", "messages"}


def is_judgement(row: dict) -> bool:
    """Whether a row is a judgement of two games."""
    return row.keys() >= {"uid", "model", "games"}


def models(folder: Path) -> dict[str, Path]:
    """Whose answers each file of a benchmark's folder holds, by its first line. Raises UserError: a line that is no answer."""
    found = {}
    for path in sorted((folder / ANSWERS).glob("*.jsonl")):
        for where, row in rows(path):
            if not is_answer(row):
                raise UserError(f"{where}: an answer needs uid, model, messages; found: {', '.join(row)}")
            found[str(row["model"])] = path
            break
    return found


def questions(path: Path) -> pd.DataFrame:
    """`uid, category, prompt` of a benchmark's folder or its file. Raises UserError: no such file, a key that is missing or
    no text, a uid twice."""
    path = path / QUESTIONS if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path}: no such file; Arena-Hard's folder holds {QUESTIONS} and {ANSWERS}/")
    found = [
        {key: text(asked(row, QUESTION, "Arena-Hard", where), key, where) for key in QUESTION}
        for where, row in rows(path)
    ]
    frame = pd.DataFrame(found, columns=list(QUESTION))
    return once(frame, ["uid"], path)


def answers(path: Path) -> pd.DataFrame:
    """`uid, model, output` of a file or folder of answers, and STYLE as its metadata has it, NaN where it has none.

    Raises UserError, naming the line: a key that is missing, an answer that is no text, a uid that a model answers twice.
    """
    found = []
    for file in jsonl_files(path):
        for where, row in rows(file):
            if not is_answer(row):
                raise UserError(f"{where}: an answer needs uid, model, messages; found: {', '.join(row)}")
            about = {key: text(row, key, where) for key in ("uid", "model")}
            found.append(about | {"output": _output(row["messages"], where)} | _style(row.get("metadata"), where))
    return once(pd.DataFrame(found, columns=["uid", "model", "output", *STYLE]), ["model", "uid"], path)


def _output(messages, where: str) -> str:
    """What the last message says: a text, or `answer` in it."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    said = content.get("answer") if isinstance(content, dict) else content
    if not isinstance(said, str):
        raise UserError(f"{where}: the last message must hold an answer, a text, got {content!r:.60}")
    return said


def _style(metadata, where: str) -> dict[str, float]:
    """STYLE of the metadata; counts by kind are added up."""
    if metadata is None:
        return dict.fromkeys(STYLE, math.nan)
    told = {}
    for name, key in zip(STYLE, COUNTED):
        value = metadata.get(key) if isinstance(metadata, dict) else None
        counts = [_count(n) for n in (value.values() if isinstance(value, dict) else [value])]
        if None in counts:
            raise UserError(f"{where}: metadata needs {', '.join(COUNTED)}, counts from 0 on; {key} is {value!r:.60}")
        told[name] = math.fsum(n for n in counts if n is not None)
    return told


def _count(value) -> float | None:
    """A number from 0 on; None of anything else."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12
    return float(value) if good else None


# -- judgements ----------------------------------------------------------------------------------------------------


def judgements(path: Path, baseline: str | None = None) -> pd.DataFrame:
    """GAMES of a file or folder: a row per system and question, both games as preferences from 1 (the baseline's answer is
    much better) to 2 (the system's is), NaN where a game says nothing, and why.

    baseline: whom a row that does not say it is compared with; default by category. Raises UserError, naming the line: a
    key that is missing, other than two games, a score that is no label, a category without a baseline, a question that
    a system has twice of one judge.
    """
    found = [_judgement(row, where, baseline) for file in jsonl_files(path) for where, row in rows(file)]
    return once(pd.DataFrame(found, columns=list(GAMES)), ["annotator", "generator_2", "uid"], path)


def _judgement(row: dict, where: str, baseline: str | None) -> dict:
    if not is_judgement(row):
        raise UserError(f"{where}: a judgement needs uid, model, games; found: {', '.join(row)}")
    category = str(row.get("category") or "all")
    against = row.get("baseline") or baseline or BASELINES.get(category)
    if against is None:
        raise UserError(f"{where}: whom is category {category!r} compared with? --baseline NAME says it")
    games = row["games"]
    if not isinstance(games, list) or len(games) != 2:
        raise UserError(f"{where}: games must be a list of two, got {games!r:.60}")
    first, second = (_label(game, where) for game in games)
    lost = math.isnan(first) or math.isnan(second)
    names = [text(row, "uid", where), category, str(row.get("judge") or "unknown judge"), text(row, "model", where)]
    return dict(zip(GAMES, [*names, str(against), first, 3 - second, NO_GAME if lost else ""]))


def _label(game, where: str) -> float:
    """What a game says as it was shown; NaN of none."""
    if game is None or (isinstance(game, dict) and game.get("score") is None):
        return math.nan
    score = game.get("score") if isinstance(game, dict) else game
    if not isinstance(score, str) or score not in LABELS:
        raise UserError(f"{where}: a score must be one of {', '.join(LABELS)}, or null, got {score!r:.60}")
    return LABELS[score]


def rows_of(pairs: pd.DataFrame) -> Iterator[dict]:
    """The lines of a file of judgements, null where a game says nothing."""
    for row in pairs.to_dict("records"):
        games = [None if math.isnan(v) else {"score": TOLD[v]} for v in (row["as_it_is"], 3 - row["switched"])]
        yield {"uid": row["uid"], "category": row["category"], "judge": row["annotator"], "model": row["generator_2"],
               "baseline": row["generator_1"], "games": games}  # fmt: skip
