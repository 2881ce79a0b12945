"""A verifier as a judge: run in, qrels out."""

from collections.abc import Callable

import pandas as pd

from irlens.errors import UserError


def verify(run: pd.DataFrame, topics: pd.DataFrame, verifier: Callable[[str, str], bool]) -> pd.DataFrame:
    """qrels with relevance 1 where `verifier(text, gold answer)` accepts a draw for one of its topic's answers.

    A response that never finished (finish_reason "length") is wrong. Raises UserError if a topic has no answer.
    """
    if "answers" not in topics.columns:
        raise UserError("the topics have no `answers`, so there is nothing to verify against")
    answers = dict(zip(topics["query_id"], topics["answers"]))
    for query_id in run["query_id"].unique():
        if not len(answers.get(query_id, ())):
            raise UserError(f"query {query_id} has no gold answer to verify against")
    known: dict[tuple[str, str], bool] = {}
    relevance = []
    for query_id, text, reason in zip(run["query_id"], run["text"], run["finish_reason"]):
        if reason == "length":
            relevance.append(0)
            continue
        if (query_id, text) not in known:
            known[query_id, text] = any(verifier(text, gold) for gold in answers[query_id])
        relevance.append(int(known[query_id, text]))
    return run[["query_id", "doc_id"]].assign(relevance=relevance)
