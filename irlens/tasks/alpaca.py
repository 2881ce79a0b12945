"""AlpacaEval lists: prompts, several systems' responses to each, and how a judge graded every response.

A row is `prompt_id, prompt, candidates`, a candidate `system, response, win_probability`: the judged chance, 0 to 1, that
the response beats the baseline's. So a row is a ranked list with graded relevance, and its systems are documents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice

import pandas as pd

from irlens.base.errors import UserError
from irlens.tables import check
from irlens.tables.formats import alpaca_annotations as annotations
from irlens.tasks.contract import CHAT_PROMPT, Task, query_id

GRADE = "win_probability"


def from_rows(
    given: Iterable[tuple[str, dict]], name: str, split: str, limit: int | None, revision: str, source: str
) -> Task:
    """The first `limit` prompts, with `candidates` (a run) and graded `qrels`.

    Raises UserError, naming the place: a row or a candidate without its fields, a grade that is no finite number, a
    system that answers one prompt twice, a prompt twice.
    """
    topics, rows = [], []
    for i, (where, row) in enumerate(islice(given, limit)):
        if not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
            raise UserError(f"{where}: prompt must be a non-empty string, got {row.get('prompt')!r:.80}")
        key = row.get("prompt_id")
        key = query_id(name, split, i) if key is None else str(key)
        topics.append((key, row["prompt"]))
        rows += [(key, *found) for found in candidates(row.get("candidates"), where)]
    if not topics:
        raise UserError(f"{source}: no rows")
    frame = pd.DataFrame(rows, columns=["query_id", "doc_id", "text", "relevance"])
    run = frame[["query_id", "doc_id", "text"]].assign(rank=frame.groupby("query_id", sort=False).cumcount())
    run = run.assign(score=-run["rank"].astype("float32"), tag=name)
    return Task(
        name,
        split,
        check(pd.DataFrame(topics, columns=["query_id", "query"]), "topics", source),
        candidates=check(run[["query_id", "doc_id", "score", "rank", "text", "tag"]], "run", source),
        qrels=check(frame[["query_id", "doc_id", "relevance"]], "qrels", source),
        max_prompt_length=CHAT_PROMPT,
        revision=revision,
    )


def candidates(found, where: str) -> Iterator[tuple[str, str, float]]:
    """(system, response, grade) of a row's candidates, every one checked."""
    if not isinstance(found, list) or not found:
        raise UserError(f"{where}: candidates must be a list of system, response and {GRADE}")
    for candidate in found:
        candidate = candidate if isinstance(candidate, dict) else {}
        system, response, grade = (candidate.get(field) for field in ("system", "response", GRADE))
        if not isinstance(system, str) or not system or not isinstance(response, str):
            raise UserError(f"{where}: a candidate needs system and response, both strings, got {candidate!r:.80}")
        if isinstance(grade, bool) or not isinstance(grade, (int, float)) or not math.isfinite(grade):
            raise UserError(f"{where}: {system}: {GRADE} must be a finite number, got {grade!r}")
        yield system, response, float(grade)


def pairs(rows: Iterable[tuple[str, dict]]) -> pd.DataFrame:
    """Annotations (`tables.formats.alpaca_annotations`) of lists that hold a `baseline`: a pair per prompt and system.

    The judge of such a file is not told. Raises UserError: a row without a baseline, a grade that is not from 0 to 1.
    """
    found = []
    for where, row in rows:
        if not isinstance(row.get("baseline"), str) or not isinstance(row.get("prompt"), str):
            raise UserError(f"{where}: win rates need the baseline's answer: prompt and baseline, both texts")
        about = {"instruction": row["prompt"], "dataset": str(row.get("dataset") or ""), "output_1": row["baseline"]}
        about |= {"generator_1": annotations.NAMES["generator_1"], "annotator": annotations.NAMES["annotator"]}
        for system, response, grade in candidates(row.get("candidates"), where):
            if not 0 <= grade <= 1:
                raise UserError(f"{where}: {system}: {GRADE} must be from 0 to 1, got {grade:g}")
            found.append(about | {"output_2": response, "generator_2": system, "preference": 1 + grade})
    return pd.DataFrame(found, columns=list(annotations.COLUMNS))
