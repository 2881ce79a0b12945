"""Rerankers that read no model: a random order, length, and the policy's own likelihood as the run records it."""

import hashlib

import numpy as np
import pandas as pd

from irlens.rerank.scoring import need_texts


def random_scores(run: pd.DataFrame, seed: int) -> np.ndarray:
    """[rows] numbers in [0, 1), each a function of (seed, query_id, doc_id) alone."""
    keys = (f"{seed}\x1f{q}\x1f{d}".encode() for q, d in zip(run["query_id"].tolist(), run["doc_id"].tolist()))
    return np.array([int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "big") for key in keys]) / 2.0**48


def length_scores(run: pd.DataFrame) -> np.ndarray:
    """[rows] characters of each text: the longest is best, a judge's best known weakness."""
    return need_texts(run, "length")["text"].str.len().to_numpy(dtype=np.float64)


def recorded_likelihood(run: pd.DataFrame, per_token: bool) -> np.ndarray | None:
    """[rows] the drawing policy's log-probability of each response at temperature 1, in nats, or its mean per token.

    None where the run does not record it for every row.
    """
    if not {"logprob", "n_tokens"} <= set(run.columns) or run[["logprob", "n_tokens"]].isna().any(axis=None):
        return None
    total = run["logprob"].to_numpy(dtype=np.float64)
    return total / run["n_tokens"].clip(lower=1).to_numpy() if per_token else total
