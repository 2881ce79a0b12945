"""A cross-encoder as the second stage: query and passage read together, the first stage's candidates ranked anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from irlens import tables
from irlens.base.errors import UserError
from irlens.rerank.scoring import ALONE, MadeBy, Scorer, score_in_shards

PAIRS = 2048  # pairs in one shard, about; what a kill can cost
LONGEST = 1_000_000  # a tokenizer without a limit names an astronomical one


def load(folder: Path):
    """The CrossEncoder in `folder`. Raises UserError if it cannot be loaded or gives no single score."""
    from sentence_transformers import CrossEncoder

    try:
        model = CrossEncoder(
            str(folder), local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except Exception as error:  # the loader has a dozen ways to fail
        raise UserError(f"{folder}: not a usable cross-encoder ({' '.join(str(error).split())[:200]})") from error
    if model.num_labels != 1:
        raise UserError(f"{folder}: gives {model.num_labels} scores for a pair; a reranker must give one")
    return model


def scorer(model, topics: pd.DataFrame, batch_size: int = 32) -> Scorer:
    """Rows → the model's score of each (query, title and text), float32, and `truncated`, whether the pair was cut."""
    query = dict(zip(topics["query_id"], topics["query"]))

    def score(rows: pd.DataFrame) -> pd.DataFrame:
        pairs = [(query[q], text) for q, text in zip(rows["query_id"], tables.passage_texts(rows))]
        scores = np.asarray(model.predict(pairs, batch_size=batch_size, show_progress_bar=False), np.float32)
        return pd.DataFrame({"score": scores, "truncated": longer(model, pairs)})

    return score


def longer(model, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """[pairs] whether the model's own limit cuts a pair."""
    limit = model.max_seq_length
    if not limit or limit > LONGEST:
        return np.zeros(len(pairs), dtype=bool)
    ids = model.tokenizer(*map(list, zip(*pairs)), truncation=False, verbose=False)["input_ids"]
    return np.array([len(some) > limit for some in ids])


def opened(folder: Path, topics: pd.DataFrame, batch_size: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The scorer of the cross-encoder in `folder`."""
    return scorer(load(folder), topics, batch_size)


def rerank(
    load_model: Callable[[], object],
    run: pd.DataFrame,
    topics: pd.DataFrame,
    depth: int,
    shards: Path,
    tag: str,
    batch_size: int = 32,
    *,
    made_by: Mapping[str, object],
    say: Callable[[str], None] = print,
) -> tuple[pd.DataFrame, int]:
    """The first `depth` rows of every query ordered by the model's score of (query, title and text); the rest stay below.

    Shards of scores go to `shards`, as in `score_in_shards` (`made_by`: which model). Returns a run with `tag`, and how
    many pairs were longer than the model reads; those it read were cut. Raises UserError for a score that is not finite.
    """
    top = run[run["rank"] < depth].reset_index(drop=True)
    asked = dict(zip(topics["query_id"], topics["query"]))
    found = score_in_shards(
        top,
        lambda: scorer(load_model(), topics, batch_size),
        shards,
        tag,
        MadeBy(made_by, asked, ALONE),
        PAIRS,
        say=say,
    )
    truncated = int(found["truncated"].sum())
    new = top.assign(score=found["score"].to_numpy())
    rest = run[run["rank"] >= depth]
    lowest = new.groupby("query_id")["score"].min()  # what was not read again keeps its order below what was
    below = rest["query_id"].map(lowest).astype(np.float64) - 1  # of no rows at all, a map gives no numbers
    rest = rest.assign(score=below - (rest["rank"] - depth).astype(np.float32))
    return tables.ranked(pd.concat([new, rest], ignore_index=True).assign(tag=tag)[run.columns]), truncated
