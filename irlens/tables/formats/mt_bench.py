"""MT-Bench in its authors' layout: questions of two turns, models' answers to both, references, grades per turn.

`question.jsonl`: `question_id, category, turns`; `model_answer/MODEL.jsonl` and `reference_answer/MODEL.jsonl`:
`question_id, model_id, choices`, of which the first counts; `model_judgment/gpt-4_single.jsonl`: `question_id, model,
judge, turn, score`, -1 where no grade could be read. Source: the repository lm-sys/FastChat, fastchat/llm_judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from irlens.base.errors import UserError
from irlens.tables.formats.rows import asked, jsonl_files, once, rows, text

TURNS = (1, 2)
QUESTIONS, REFERENCES = "question.jsonl", "reference_answer"
NEED_REFERENCE = ("math", "reasoning", "coding", "arena-hard-200")  # categories whose judge sees a reference answer
QUESTION = ("question_id", "category", "turns")
GRADES = ("run", "judge", "question_id", "turn", "score", "reason")
MOST = 10.0  # the best grade
NO_GRADE = "no grade"  # why a stored judgement says nothing


def is_answer(row: dict) -> bool:
    """Whether a row is a model's answers to a question."""
    return row.keys() >= {"question_id", "choices"}


def is_grade(row: dict) -> bool:
    """Whether a row is a grade of one turn."""
    return row.keys() >= {"question_id", "model", "score", "turn"}


def questions(path: Path) -> pd.DataFrame:
    """`question_id, category, turn_1, turn_2` of a benchmark's folder or its file. Raises UserError: no such file, a key that
    is missing, other than two turns, a question twice."""
    path = path / QUESTIONS if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path}: no such file; MT-Bench's folder holds {QUESTIONS}")
    found = [
        {"question_id": _id(asked(row, QUESTION, "MT-Bench", where), where), "category": text(row, "category", where)}
        | _turns(row.get("turns"), "turn", where)
        for where, row in rows(path)
    ]
    return once(pd.DataFrame(found), ["question_id"], path)


def answers(path: Path) -> pd.DataFrame:
    """`question_id, model, answer_1, answer_2` of a file or folder; a row that does not name its model is the file's.

    Raises UserError, naming the line: a key that is missing, no choice, other than two turns, a question that a model
    answers twice.
    """
    found = []
    for file in jsonl_files(path):
        for where, row in rows(file):
            if not is_answer(row):
                raise UserError(f"{where}: an answer needs question_id and choices; found: {', '.join(row)}")
            first = row["choices"][0] if isinstance(row["choices"], list) and row["choices"] else None
            turns = first.get("turns") if isinstance(first, dict) else None
            about = {"question_id": _id(row, where), "model": str(row.get("model_id") or file.stem)}
            found.append(about | _turns(turns, "answer", where))
    return once(
        pd.DataFrame(found, columns=["question_id", "model", "answer_1", "answer_2"]), ["model", "question_id"], path
    )


def _id(row: dict, where: str) -> str:
    value = row.get("question_id")
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not str(value).strip():
        raise UserError(f"{where}: question_id must be a whole number or a text, got {value!r:.60}")
    return str(value)


def _turns(value, name: str, where: str) -> dict[str, str]:
    if not isinstance(value, list) or len(value) != len(TURNS) or not all(isinstance(one, str) for one in value):
        raise UserError(f"{where}: turns must be two texts, got {value!r:.60}")
    return {f"{name}_{turn}": said for turn, said in zip(TURNS, value)}


# -- grades --------------------------------------------------------------------------------------------------------


def grades(path: Path) -> pd.DataFrame:
    """GRADES of a file or folder: a row per system, question and turn, NaN where no grade could be read, and why.

    Raises UserError, naming the line: a key that is missing, a grade out of range, a turn that is none, one twice.
    """
    found = []
    for file in jsonl_files(path):
        for where, row in rows(file):
            if not is_grade(row):
                raise UserError(f"{where}: a grade needs question_id, model, turn, score; found: {', '.join(row)}")
            if row["turn"] not in TURNS or isinstance(row["turn"], bool):
                raise UserError(f"{where}: turn must be 1 or 2, got {row['turn']!r:.60}")
            score = _score(row["score"], where)
            told = row.get("judge")
            judge = str(told[0] if isinstance(told, list) and told else told or "unknown judge")
            lost = NO_GRADE if math.isnan(score) else ""
            values = [text(row, "model", where), judge, _id(row, where), int(row["turn"]), score, lost]
            found.append(dict(zip(GRADES, values)))
    return once(pd.DataFrame(found, columns=list(GRADES)), ["run", "judge", "question_id", "turn"], path)


def _score(value, where: str) -> float:
    """A grade from 0 to 10; NaN of null and -1."""
    if value is None or (value == -1 and not isinstance(value, bool)):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST:
        raise UserError(f"{where}: a score must be a number from 0 to 10, or -1 for none, got {value!r:.60}")
    return float(value)


def rows_of(frame: pd.DataFrame) -> Iterator[dict]:
    """The lines of a file of grades, -1 where there is none."""
    for row in frame.to_dict("records"):
        name = int(row["question_id"]) if row["question_id"].isdecimal() else row["question_id"]
        score = -1 if math.isnan(row["score"]) else row["score"]
        yield {
            "question_id": name,
            "model": row["run"],
            "judge": [row["judge"], "single"],
            "turn": int(row["turn"]),
            "score": score,
        }


def second_turns(asked: pd.DataFrame, first: dict[str, str]) -> Iterator[dict]:
    """The prompts of the second turn as chats, of questions and the answers to their first turns by `question_id`."""
    for row in asked.to_dict("records"):
        if row["question_id"] in first:
            said = [("user", row["turn_1"]), ("assistant", first[row["question_id"]]), ("user", row["turn_2"])]
            yield {"query_id": row["question_id"], "messages": [{"role": role, "content": part} for role, part in said]}
