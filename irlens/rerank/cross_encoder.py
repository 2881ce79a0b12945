"""A cross-encoder as the second stage: query and passage read together, the first stage's candidates ranked anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from irlens import tables
from irlens.errors import UserError
from irlens.progress import progress_bar

PAIRS = 2048  # pairs in one shard, about; what a kill can cost


def load(folder: Path):
    """The CrossEncoder in `folder`. Raises UserError if it cannot be loaded or gives no single score."""
    from sentence_transformers import CrossEncoder

    try:
        model = CrossEncoder(str(folder), local_files_only=True)
    except Exception as error:  # the loader has a dozen ways to fail
        raise UserError(f"{folder}: not a usable cross-encoder ({' '.join(str(error).split())[:200]})") from error
    if model.num_labels != 1:
        raise UserError(f"{folder}: gives {model.num_labels} scores for a pair; a reranker must give one")
    return model


def rerank(
    load_model: Callable[[], object],
    run: pd.DataFrame,
    topics: pd.DataFrame,
    depth: int,
    shards: Path,
    tag: str,
    batch_size: int = 32,
) -> pd.DataFrame:
    """The first `depth` rows of every query ordered by the model's score of (query, title and text); the rest stay below.

    Shards of scores go to `shards`, each by rename; those already there are kept, and without a missing one the model
    is not even loaded. Returns a run with `tag`. Raises UserError for a score that is not finite.
    """
    top = run[run["rank"] < depth].reset_index(drop=True)
    query = dict(zip(topics["query_id"], topics["query"]))
    ids = list(dict.fromkeys(top["query_id"]))
    group = max(1, PAIRS // depth)
    parts, model = [], None
    place = {query_id: i // group for i, query_id in enumerate(ids)}
    shard_of = top["query_id"].map(place).to_numpy()
    count = len(set(place.values()))
    with progress_bar() as progress:
        bar = progress.add_task(f"reranking by {tag}", total=len(top), rate="")
        for number in range(count):
            rows, path = top[shard_of == number], shards / f"{number:06d}.parquet"
            if not path.is_file():
                model = model or load_model()
                started = time.monotonic()
                pairs = [(query[q], text) for q, text in zip(rows["query_id"], tables.passage_texts(rows))]
                scores = np.asarray(model.predict(pairs, batch_size=batch_size, show_progress_bar=False), np.float32)
                if not np.isfinite(scores).all():
                    bad = rows.iloc[int((~np.isfinite(scores)).argmax())]
                    raise UserError(f"{tag}: score not finite for query_id={bad['query_id']}, doc_id={bad['doc_id']}")
                tables.write_parquet(rows[["query_id", "doc_id"]].assign(score=scores), path)
                progress.update(bar, rate=f"{len(rows) / (time.monotonic() - started):,.0f} pairs/s")
            parts.append(pd.read_parquet(path))
            progress.update(bar, advance=len(rows))
    scored = pd.concat(parts, ignore_index=True).astype({"query_id": object, "doc_id": object})
    new = top.drop(columns="score").merge(scored, on=["query_id", "doc_id"], validate="one_to_one")
    rest = run[run["rank"] >= depth]
    lowest = new.groupby("query_id")["score"].min()  # what was not read again keeps its order below what was
    rest = rest.assign(score=rest["query_id"].map(lowest) - 1 - (rest["rank"] - depth).astype(np.float32))
    return tables.ranked(pd.concat([new, rest], ignore_index=True).assign(tag=tag)[run.columns])
