"""A verifier as a judge: run in, qrels out."""

from collections.abc import Callable, Hashable

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.rerank.scoring import finished, need_texts


def verify(
    run: pd.DataFrame,
    topics: pd.DataFrame,
    verifier: Callable[[str, str | None], bool | float],
    judge_unfinished: bool = False,
    needs_answers: bool = True,
) -> pd.DataFrame:
    """qrels with relevance 1 where `verifier(text, gold answer)` accepts a draw for one of its topic's answers.

    A verifier may also give a number; the best over the answers counts. A response that never finished (finish_reason
    "length") is wrong unless `judge_unfinished`. Without `needs_answers` a topic that has none is judged with None.
    Raises UserError: a topic without an answer, a run without texts, a verdict that is no finite number.
    """
    need_texts(run, "a verifier")
    if "answers" not in topics.columns and needs_answers:
        raise UserError("the topics have no `answers`, so there is nothing to verify against")
    given = topics["answers"] if "answers" in topics.columns else [()] * len(topics)
    answers = {query_id: list(some) for query_id, some in zip(topics["query_id"], given)}
    for query_id in run["query_id"].unique():
        if query_id not in answers and not needs_answers:
            raise UserError(f"query {query_id} of the run is not among the topics")
        if not answers.get(query_id) and needs_answers:
            raise UserError(f"query {query_id} has no gold answer to verify against")
    known: dict[tuple[str, str], float] = {}
    relevance = []
    judged = np.ones(len(run), dtype=bool) if judge_unfinished else finished(run)
    for query_id, text, at_all in zip(run["query_id"], run["text"], judged):
        if not at_all:
            relevance.append(0.0)
            continue
        if (query_id, text) not in known:
            known[query_id, text] = max(_number(verifier(text, g), query_id) for g in answers[query_id] or [None])
        relevance.append(known[query_id, text])
    grades = np.array(relevance)
    return run[["query_id", "doc_id"]].assign(relevance=grades.astype(np.int64) if (grades % 1 == 0).all() else grades)


def unreadable(run: pd.DataFrame, qrels: pd.DataFrame, extract: Callable[[str], Hashable | None] | None) -> np.ndarray:
    """[rows] whether a response finished, is wrong by `qrels` (the run's rows) and gives no answer by `extract`."""
    none = np.zeros(len(run), dtype=bool)
    if extract is None:
        return none
    wrong = finished(run) & (qrels["relevance"].to_numpy() == 0)
    known = {text: extract(text) is None for text in set(run["text"][wrong])}
    none[wrong] = [known[text] for text in run["text"][wrong]]
    return none


def _number(verdict, query_id: str) -> float:
    """A verdict as a number. Raises UserError for what is none."""
    try:
        value = float(verdict)
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise UserError(f"{query_id}: the verifier gave {verdict!r:.80}; it must give True, False or a finite number")
    return value
