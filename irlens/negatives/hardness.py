"""How hard the negatives of each tier are: for the policy, by reward, by their words, by their answers."""

from collections.abc import Callable, Hashable
from fractions import Fraction
from typing import Protocol

import numpy as np
import pandas as pd

from irlens.base import limits
from irlens.negatives.false_negatives import nearest_positive
from irlens.negatives.text_similarity import edit_similarity, self_bleu, words

# measure: (what it is, in which unit), in the order of the table
MEASURES = {
    "logprob": "log π(y|x) of the response for this prompt, sum over its tokens, nats",
    "logprob_gap": "that less the positive's, nats: above 0 the policy likes the negative better",
    "logprob_per_token": "log π(y|x) per token, nats",
    "logprob_per_token_gap": "that less the positive's, nats",
    "reward": "reward",
    "reward_gap": "that less the positive's",
    "word_similarity": "edit similarity to the nearest positive over words, 0 to 1",
    "embedding_similarity": "cosine to the nearest positive",
    "answer_distance": "|answer − gold|, median over prompts",
    "unparsable": "share of negatives without an answer",
    "tokens": "length in tokens, end of sequence included",
    "distinct_answers": "distinct answers among a prompt's negatives (of those with two or more)",
    "self_bleu": "self-BLEU-4 of a prompt's negatives (of those with two or more): 1 if all are alike",
    "without": "share of prompts without a negative of this tier: none was found, or choosier tiers took them all",
}
SHARES = ("word_similarity", "unparsable", "self_bleu", "without")  # from 0 to 1
GAPS = {"logprob_gap": "logprob", "logprob_per_token_gap": "logprob_per_token", "reward_gap": "reward"}
LARGEST = 1e15  # an answer further away counts as this far: a number of 300 digits is no measurement


class Intervals(Protocol):
    """What `irlens.measure.stats` offers; handed in, since measuring comes after the negatives."""

    mean_interval: Callable
    median_interval: Callable


def hardness(
    lists: pd.DataFrame,
    tiers: list[str],
    prompts: int,
    intervals: Intervals,
    *,
    answers: dict[str, list[str]] | None = None,
    extract: Callable[[str], Hashable | None] | None = None,
    embed: Callable[[list[str]], np.ndarray] | None = None,
) -> pd.DataFrame:
    """tier, measure (of MEASURES), value, low, high, n of each tier's negatives, and of the positives where that is told.

    lists: a lists table; its columns logprob and n_tokens (under the list's own prompt), and reward, are used where
    they are there, row by row where they are not NaN. tiers: all that were asked for, in order, also those that found
    nothing. prompts: how many were looked at, for `without`. intervals: `irlens.measure.stats`. answers: query_id → gold answers; extract: text → answer;
    embed: texts → vectors. A value is a mean over prompts of the mean over a prompt's negatives (answer_distance: the
    median of medians), n counts the prompts, low and high are the 95 % interval of the mean (median). A measure that nothing is
    known of has no row.
    """
    rows = _measured(lists, answers, extract, embed)
    good = rows[rows["tier"] == "positive"]
    of_positive = good.groupby("query_id")[[c for c in GAPS.values() if c in rows.columns]].mean()
    for gap, base in GAPS.items():
        if base in rows.columns:
            rows[gap] = rows[base] - rows["query_id"].map(of_positive[base])
    out = []
    for tier in ["positive", *tiers]:
        own = rows[rows["tier"] == tier]
        for measure in MEASURES:
            values = _per_prompt(own, measure, prompts)
            if tier == "positive" and measure not in ("logprob", "logprob_per_token", "reward", "tokens"):
                continue
            if len(values):
                out.append({"tier": tier, "measure": measure, **_interval(values, measure, intervals)})
    return pd.DataFrame(out, columns=["tier", "measure", "value", "low", "high", "n"])


def _measured(lists: pd.DataFrame, answers, extract, embed) -> pd.DataFrame:
    """`lists` with a column per measure that is told of a single response."""
    rows = lists.reset_index(drop=True).copy()
    if "n_tokens" in rows.columns:
        rows["tokens"] = rows["n_tokens"].astype(float)
        if "logprob" in rows.columns:
            rows["logprob_per_token"] = rows["logprob"] / rows["tokens"]
    good = rows[rows["tier"] == "positive"]
    split = {query_id: [words(text) for text in texts] for query_id, texts in good.groupby("query_id")["text"]}
    rows["word_similarity"] = [
        max((edit_similarity(words(text), other) for other in split.get(query_id, ())), default=np.nan)
        for query_id, text in zip(rows["query_id"], rows["text"])
    ]
    if embed is not None:
        rows["embedding_similarity"] = nearest_positive(rows, good, embed)
    if extract is not None:
        known = limits.each(extract, rows["text"])
        rows["answer"] = [known[text] for text in rows["text"]]
        rows["unparsable"] = [float(answer is None) for answer in rows["answer"]]
        if answers is not None:
            gold = {query_id: [extract(text) for text in some] for query_id, some in answers.items()}
            rows["answer_distance"] = [_distance(a, gold.get(q, [])) for q, a in zip(rows["query_id"], rows["answer"])]
    return rows


def _distance(answer, gold: list) -> float:
    """To the nearest gold answer; NaN unless both are numbers."""
    numbers = [g for g in gold if isinstance(g, (int, float, Fraction))]
    if not isinstance(answer, (int, float, Fraction)) or not numbers:
        return np.nan
    return min(float(min(abs(answer - g), LARGEST)) for g in numbers)


def _per_prompt(own: pd.DataFrame, measure: str, prompts: int) -> np.ndarray:
    """One value per prompt that the measure is known of."""
    groups = own.groupby("query_id", sort=False)
    if measure == "without":
        return np.repeat([0.0, 1.0], [len(groups), prompts - len(groups)])
    if measure == "self_bleu":
        return np.array([self_bleu(list(some)) for _, some in groups["text"] if len(some) > 1])
    if measure == "distinct_answers" and "answer" in own.columns:
        return np.array([float(len(set(some) - {None})) for _, some in groups["answer"] if len(some) > 1])
    if measure not in own.columns:
        return np.array([])
    values = groups[measure].median() if measure == "answer_distance" else groups[measure].mean()
    return values.dropna().to_numpy(dtype=float)


def _interval(values: np.ndarray, measure: str, intervals: Intervals) -> dict:
    if measure == "answer_distance":
        middle, (low, high) = np.median(values), intervals.median_interval(values)
    else:
        bounds = (0, 1) if measure in SHARES else (-np.inf, np.inf)
        middle, (low, high) = values.mean(), intervals.mean_interval(values, bounds=bounds)
    return {"value": float(middle), "low": low, "high": high, "n": len(values)}
