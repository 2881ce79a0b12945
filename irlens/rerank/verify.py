"""A verifier as a judge: run in, qrels out."""

from collections.abc import Callable, Hashable
from functools import partial

import numpy as np
import pandas as pd

from irlens.base import limits
from irlens.base.errors import UserError
from irlens.rerank.scoring import finished, need_texts
from irlens.rerank.verifiers import gives_answer

NEVER = (0.0, False)  # grade, and whether a verdict is missing, of a response that never finished


def verify(
    run: pd.DataFrame,
    topics: pd.DataFrame,
    verifier: Callable[[str, str | None], bool | float],
    judge_unfinished: bool = False,
    needs_answers: bool = True,
) -> pd.DataFrame:
    """qrels with relevance 1 where `verifier(text, gold answer)` accepts a draw for one of its topic's answers.

    A verifier may also give a number; the best over the answers counts. A response that never finished (finish_reason
    "length") is wrong unless `judge_unfinished`. Without `needs_answers` a topic that has none is judged with None. A
    response at which the verifier takes too long (`irlens.base.limits`) is wrong too; where there is any, the column
    `not_judged` [bool] tells which.
    Raises UserError: a topic without an answer, a run without texts, a verdict that is no finite number.
    """
    need_texts(run, "a verifier")
    if "answers" not in topics.columns and needs_answers:
        raise UserError("the topics have no `answers`, so there is nothing to verify against")
    given = topics["answers"] if "answers" in topics.columns else [()] * len(topics)
    answers: dict[str, list] = {query_id: list(some) for query_id, some in zip(topics["query_id"], given)}
    for query_id in run["query_id"].unique():
        if query_id not in answers and not needs_answers:
            raise UserError(f"query {query_id} of the run is not among the topics")
        if not answers.get(query_id) and needs_answers:
            raise UserError(f"query {query_id} has no gold answer to verify against")
    judged = np.ones(len(run), dtype=bool) if judge_unfinished else finished(run)
    asked = list(zip(run["query_id"].tolist(), run["text"].tolist()))
    different = list(dict.fromkeys(pair for pair, at_all in zip(asked, judged.tolist()) if at_all))
    tried = [(text, gold) for query_id, text in different for gold in answers[query_id] or [None]]
    verdicts = iter(limits.calls(verifier, tried))
    known: dict[tuple[str, str], tuple[float, bool]] = {}
    for query_id, text in different:
        some = [next(verdicts) for _ in answers[query_id] or [None]]
        told = [_number(one, query_id) for one in some if one is not limits.NOT_JUDGED]
        known[query_id, text] = max(told, default=0.0), len(told) < len(some)
    found = [known[pair] if at_all else NEVER for pair, at_all in zip(asked, judged.tolist())]
    grades = np.array([grade for grade, _ in found])
    late = np.array([missing and grade <= 0 for grade, missing in found]).astype(bool)
    grades = grades.astype(np.int64) if (grades % 1 == 0).all() else grades
    qrels = run[["query_id", "doc_id"]].assign(relevance=grades)
    return qrels.assign(not_judged=late) if late.any() else qrels


def not_judged(qrels: pd.DataFrame) -> np.ndarray:
    """[rows] whether the verifier took too long over a response."""
    found = qrels["not_judged"] if "not_judged" in qrels.columns else np.zeros(len(qrels))
    return np.asarray(found, dtype=bool)


def not_judged_in_words(qrels: pd.DataFrame) -> str | None:
    """How many responses the verifier took too long over; None without any."""
    if not (late := int(not_judged(qrels).sum())):
        return None
    return (
        f"{late:,} of {len(qrels):,} responses were not judged, as the verifier did not come to an end within "
        f"{limits.seconds():g} s: counted as wrong; {limits.VARIABLE}=60 gives it longer"
    )


def unreadable(run: pd.DataFrame, qrels: pd.DataFrame, extract: Callable[[str], Hashable | None] | None) -> np.ndarray:
    """[rows] whether a response finished, is wrong by `qrels` (the run's rows) and gives no answer by `extract`, in time.

    One that was not judged is none of them."""
    none = np.zeros(len(run), dtype=bool)
    if extract is None:
        return none
    wrong = finished(run) & (qrels["relevance"].to_numpy() == 0) & ~not_judged(qrels)
    texts = run["text"][wrong].tolist()
    known = limits.each(partial(gives_answer, extract), texts)
    none[wrong] = [not known[text] for text in texts]
    return none


def _number(verdict, query_id: str) -> float:
    """A verdict as a number. Raises UserError for what is none."""
    if verdict is True or verdict is False:
        return float(verdict)
    try:
        value = float(verdict)
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise UserError(f"{query_id}: the verifier gave {verdict!r:.80}; it must give True, False or a finite number")
    return value
