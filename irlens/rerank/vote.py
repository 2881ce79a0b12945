"""Voting as a reranker: the answer that most draws share goes first, each vote counting one or the draw's reward.

Sources: self-consistency, Wang et al. 2023; weighted by a reward, Li et al. 2023 ("Making Language Models Better
Reasoners with Step-Aware Verifier").
"""

import math
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from irlens.base import limits
from irlens.base.errors import UserError
from irlens.rerank.scoring import finished, lists, need_texts
from irlens.tables import ranked

CELLS = 20_000_000  # numbers that one block of orders may hold


def answers_of(run: pd.DataFrame, extract: Callable[[str], Hashable | None]) -> list[Hashable | None]:
    """The answer that each response gives; None for one that gives none, never finished or takes too long to read."""
    texts = need_texts(run, "a vote")["text"]
    known = limits.each(extract, texts)
    return [known[text] if done else None for text, done in zip(texts.tolist(), finished(run).tolist())]


def vote_weights(run: pd.DataFrame, rewards: np.ndarray) -> np.ndarray:
    """[rows] exp(reward), each list scaled by its best: the odds of a Bradley-Terry reward, so logits may be negative."""
    out = np.zeros(len(run))
    for rows in lists(run):
        out[rows] = np.exp(rewards[rows] - rewards[rows].max())
    return out


def vote_scores(run: pd.DataFrame, answers: Sequence[Hashable | None], weights: np.ndarray | None = None) -> np.ndarray:
    """[rows] votes (or sum of `weights`) for the row's answer among the rows of its query and tag; 0 without an answer."""
    out = np.zeros(len(run))
    for rows in lists(run):
        index, count = _classes([answers[row] for row in rows])
        cast = np.bincount(
            index[index >= 0], weights=None if weights is None else weights[rows][index >= 0], minlength=max(count, 1)
        )
        out[rows] = np.where(index >= 0, cast[index], 0.0)
    return out


def majority_vote(run: pd.DataFrame, extract: Callable[[str], Hashable | None]) -> pd.DataFrame:
    """`run` with score = votes for the draw's answer among the draws of its query and tag (0 without an answer).

    Draws of equal votes keep their order (the earlier draw first).
    """
    score = vote_scores(run, answers_of(run, extract))
    # ranks are below the number of draws, so rank / count < 1 never outweighs a vote
    return ranked(run.assign(score=score - run["rank"].to_numpy() / (run["rank"].max() + 1)))


def expected_vote_accuracy(
    answers: Sequence[Hashable | None],
    grades: Sequence[float],
    cutoffs: Sequence[int],
    orders: int = 200,
    seed: int = 0,
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """For each N of `cutoffs`: the grade that the winning answer of N random draws of one query is expected to have.

    `grades` [draws]: True for a right answer, or any number; an answer has the mean grade of its draws. Exact where at
    most `orders` choices of N exist (as for N = 1 and for all draws), else the mean over `orders` random ones, so it is
    unbiased. Answers that tie share equally. Draws without an answer do not vote, and where none votes the value is 0.
    `weights` [draws] count instead of one vote each. Returns [cutoffs].
    """
    index, count = _classes(answers)
    if not count:
        return np.zeros(len(cutoffs))
    votes = np.bincount(index[index >= 0], minlength=count)
    grade = np.bincount(index[index >= 0], np.asarray(grades, dtype=float)[index >= 0], minlength=count) / votes
    weight = np.ones(len(index)) if weights is None else np.asarray(weights, dtype=float)
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(len(index)), (orders, 1)), axis=1)
    value = np.zeros(len(cutoffs))
    block = max(1, CELLS // max(count + 1, len(index)))
    for i, n in enumerate(cutoffs):
        chosen = order[:, :n]
        if math.comb(len(index), n) <= orders:
            chosen = np.array(list(combinations(range(len(index)), n)))
        for start in range(0, len(chosen), block):
            some = chosen[start : start + block]
            cell = np.where(index[some] >= 0, index[some], count) + (count + 1) * np.arange(len(some))[:, None]
            cast = np.bincount(cell.ravel(), weight[some].ravel(), minlength=len(some) * (count + 1))
            cast = cast.reshape(len(some), count + 1)[:, :count]
            top = (cast == cast.max(axis=1, keepdims=True)) & (cast > 0)
            value[i] += ((top * grade).sum(axis=1) / np.maximum(top.sum(axis=1), 1)).sum() / len(chosen)
    return value


def _classes(answers: Sequence[Hashable | None]) -> tuple[np.ndarray, int]:
    """(number of the answer of each draw, −1 without one; how many different answers there are)."""
    known: dict[Hashable, int] = {}
    index = np.array([-1 if a is None else known.setdefault(a, len(known)) for a in answers], dtype=np.int64)
    return index, len(known)


def need_extract(extract: Callable | None, where: str) -> Callable[[str], Hashable | None]:
    """`extract` itself. Raises UserError where no answer can be taken from a response."""
    if extract is None:
        raise UserError(
            f"{where}: its responses have no short answer to vote on; use a reranker that scores them (length, "
            "likelihood, fsfairx, judge), or a --verifier that reads an answer (gsm8k, math, choice)"
        )
    return extract
