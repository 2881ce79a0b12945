"""What mining asks of the retrievers: the nearest other prompts of a prompt, and the embeddings of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.models import catalog
from irlens.retrieve.policy import quiet_if_small

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.retrieve.encoder import DenseEncoder

NEAR = 50  # neighbours of a prompt that are looked at
BLOCK = 2048  # prompts compared with all others at once

Embed = Callable[[Sequence[str]], "np.ndarray"]


def load_encoder(name: str, option: str) -> DenseEncoder:
    """The encoder of this name. Raises UserError, naming the option, for one that is not known or not to be had."""
    from irlens.retrieve.encoder import DenseEncoder

    try:
        chosen = catalog.encoder(name)
        folder = catalog.fetch(chosen)
        quiet_if_small(folder)
        return DenseEncoder.load(chosen, folder)
    except UserError as error:
        raise UserError(f"{option} {name}: {error}") from error


def embedder(encoder: DenseEncoder) -> Embed:
    """texts → vectors [texts, dimension]; a text is encoded once, however often it is asked for."""
    import numpy as np

    known: dict[str, np.ndarray] = {}

    def embed(texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, encoder.encode(new)))
        return np.stack([known[text] for text in texts]) if len(texts) else np.empty((0, encoder.dimension))

    return embed


def nearest_prompts(topics: pd.DataFrame, encoder: DenseEncoder | None) -> dict[str, list[str]]:
    """query_id → other query_ids, those with the nearest prompts first (at most NEAR); by BM25 without an encoder."""
    import numpy as np

    ids = topics["query_id"].tolist()
    if encoder is None:
        from irlens.retrieve.lexical import BM25

        corpus = topics[["query_id", "query"]].rename(columns={"query_id": "doc_id", "query": "text"})
        run = BM25(corpus).search(topics, k=min(NEAR + 1, len(topics)))
        run = run[run["query_id"] != run["doc_id"]]
        return {query_id: some.tolist() for query_id, some in run.groupby("query_id")["doc_id"]}
    vectors = encoder.encode(topics["query"].tolist(), "query")
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = {}
    for start in range(0, len(ids), BLOCK):
        scores = vectors[start : start + BLOCK] @ vectors.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, : NEAR + 1]
        for query_id, row in zip(ids[start : start + BLOCK], best):
            found[query_id] = [ids[i] for i in row if ids[i] != query_id][:NEAR]
    return found
