"""Majority voting as a reranker (self-consistency, Wang et al. 2023): the answer that most draws share goes first."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import pandas as pd

from irlens.tables import ranked


def majority_vote(run: pd.DataFrame, extract: Callable[[str], Hashable | None]) -> pd.DataFrame:
    """`run` with score = votes for the draw's answer among the draws of its query and tag (0 without an answer).

    Draws of equal votes keep their order (the earlier draw first).
    """
    answers = [extract(text) for text in run["text"]]
    by = list(zip(run["query_id"], run["tag"])) if "tag" in run.columns else list(run["query_id"])
    votes = Counter((group, answer) for group, answer in zip(by, answers) if answer is not None)
    score = np.array([votes[group, answer] for group, answer in zip(by, answers)], dtype=np.float64)
    # ranks are below the number of draws, so rank / count < 1 never outweighs a vote
    return ranked(run.assign(score=score - run["rank"].to_numpy() / (run["rank"].max() + 1)))


def expected_vote_accuracy(
    answers: Sequence[Hashable | None],
    correct: Sequence[bool],
    cutoffs: Sequence[int],
    orders: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """For each N of `cutoffs`: the chance that the majority of N random draws of one query is a right answer.

    The mean over `orders` random orders of the draws, so it is unbiased in the draws' order; a tie between answers
    counts as the share of right ones among them. Draws without an answer do not vote. Returns [cutoffs].
    """
    classes: dict[Hashable, int] = {}
    index = np.array([classes.setdefault(a, len(classes)) if a is not None else -1 for a in answers])
    if not classes:
        return np.zeros(len(cutoffs))
    right = np.zeros(len(classes), dtype=bool)
    right[index[(index >= 0) & np.asarray(correct, dtype=bool)]] = True
    one_hot = np.eye(len(classes), dtype=np.int32)[index] * (index >= 0)[:, None]
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(len(index)), (orders, 1)), axis=1)
    value = np.zeros(len(cutoffs))
    for i, n in enumerate(cutoffs):
        counts = one_hot[order[:, :n]].sum(axis=1)
        top = (counts == counts.max(axis=1, keepdims=True)) & (counts > 0)
        value[i] = ((top & right).sum(axis=1) / np.maximum(top.sum(axis=1), 1)).mean()
    return value
