"""Which candidates must not become negatives: right answers, and what is too close to a positive to be called wrong."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.negatives.text_similarity import edit_similarity, without_spacing, words

REASONS = {
    "right answer": "the verifier accepts it for this prompt: its final answer is the gold one",
    "near text": "its words are those of a positive, or nearly",
    "near embedding": "its embedding is close to that of a positive",
    "near reward": "its reward is within a margin of the positive's, or above it",
}


def false_negatives(
    candidates: pd.DataFrame,
    positives: pd.DataFrame,
    *,
    accepts: Callable[[str, str], bool] | None = None,
    text_threshold: float | None = 1.0,
    embed: Callable[[Sequence[str]], np.ndarray] | None = None,
    embedding_threshold: float = 0.95,
    reward_margin: float | None = None,
) -> pd.Series:
    """For every candidate the first of REASONS why it may be right for its query, "" if there is none.

    candidates: query_id, text (and reward). positives: query_id, text (and reward), any number per query; a candidate
    is compared with all of its query. accepts(query_id, text): the verifier's verdict. A text is near where its
    `edit_similarity` over words reaches `text_threshold` (1: the same words; None: not looked at), or its cosine under
    `embed` (texts → vectors [texts, dimension], of any length) reaches `embedding_threshold`. A reward is near where it
    is above the lowest reward of the query's positives less `reward_margin` (in units of the reward), or equal to it.
    A query without a positive, and a reward that is NaN on either side (unknown), settle nothing by nearness.

    Beware of near texts where a verifier knows better: a wrong solution may differ from a right one by a digit.
    Raises UserError: a threshold outside 0 … 1, a margin that is not a number from 0 on, rewards that are not there.
    """
    check_thresholds(text_threshold, embedding_threshold, reward_margin)
    reason = np.full(len(candidates), "", dtype=object)
    for name, found in (
        ("right answer", lambda open_: _accepted(open_, accepts)),
        ("near text", lambda open_: _near_texts(open_, positives, text_threshold)),
        ("near embedding", lambda open_: _near_vectors(open_, positives, embed, embedding_threshold)),
        ("near reward", lambda open_: _near_rewards(open_, positives, reward_margin)),
    ):
        still = np.flatnonzero(reason == "")
        if len(still):
            reason[still[found(candidates.iloc[still])]] = name
    return pd.Series(reason, index=candidates.index, dtype=object)


def check_thresholds(text: float | None, embedding: float | None, reward_margin: float | None) -> None:
    """Raises UserError for a value that cannot be meant; None is one that is not used."""
    for name, value in (("text", text), ("embedding", embedding)):
        if value is not None and not 0 < value <= 1:
            raise UserError(f"{name} threshold {value:g}: a similarity must be above 0 and at most 1")
    if reward_margin is not None and not 0 <= reward_margin < float("inf"):
        raise UserError(f"reward margin {reward_margin:g}: must be a number from 0 on")


def _accepted(candidates: pd.DataFrame, accepts) -> np.ndarray:
    if accepts is None:
        return np.zeros(len(candidates), dtype=bool)
    pairs = list(zip(candidates["query_id"], candidates["text"]))
    known = {pair: bool(accepts(*pair)) for pair in dict.fromkeys(pairs)}
    return np.array([known[pair] for pair in pairs], dtype=bool)


def _near_texts(candidates: pd.DataFrame, positives: pd.DataFrame, threshold: float | None) -> np.ndarray:
    if threshold is None:
        return np.zeros(len(candidates), dtype=bool)
    of = {query: [words(text) for text in texts] for query, texts in positives.groupby("query_id")["text"]}

    def near(query_id: str, text: str) -> bool:
        own = words(text)
        return any(edit_similarity(own, positive) >= threshold for positive in of.get(query_id, ()))

    return _accepted(candidates, near)


def _near_vectors(candidates: pd.DataFrame, positives: pd.DataFrame, embed, threshold: float) -> np.ndarray:
    if embed is None:
        return np.zeros(len(candidates), dtype=bool)
    best = nearest_positive(candidates, positives, embed)
    return best >= threshold - 1e-6  # 1 means equal vectors, which float32 does not always say exactly


def nearest_positive(candidates: pd.DataFrame, positives: pd.DataFrame, embed) -> np.ndarray:
    """The largest cosine of each candidate with a positive of its query, float [candidates]; −inf without a positive.

    Texts equal but for white space have one vector, that of the first of them.
    """
    first: dict[str, str] = {}
    for text in [*positives["text"], *candidates["text"]]:
        first.setdefault(without_spacing(text), text)
    vectors = np.asarray(embed(list(first.values())), dtype=float)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    row = {text: i for i, text in enumerate(first)}
    texts = positives["text"].map(without_spacing)
    of = {query: vectors[some.map(row)] for query, some in texts.groupby(positives["query_id"])}
    out = np.full(len(candidates), -np.inf)
    for i, (query_id, text) in enumerate(zip(candidates["query_id"], candidates["text"])):
        if query_id in of:
            out[i] = (of[query_id] @ vectors[row[without_spacing(text)]]).max()
    return out


def _near_rewards(candidates: pd.DataFrame, positives: pd.DataFrame, margin: float | None) -> np.ndarray:
    if margin is None:
        return np.zeros(len(candidates), dtype=bool)
    for name, frame in (("candidates", candidates), ("positives", positives)):
        if "reward" not in frame.columns:
            raise UserError(f"a reward margin needs rewards; the {name} have no column `reward`")
    lowest = candidates["query_id"].map(positives.groupby("query_id")["reward"].min()).to_numpy(dtype=float)
    return candidates["reward"].to_numpy(dtype=float) >= lowest - margin
