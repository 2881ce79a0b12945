"""Dense retrieval: an encoder over a corpus, in memory or through the index of a folder; topics in, a run out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from irlens import tables
from irlens.base import checksums
from irlens.base.errors import UserError
from irlens.base.files import digest
from irlens.base.progress import silent
from irlens.models import catalog
from irlens.models.load import quiet_if_small
from irlens.retrieve.corpus import check_vectors
from irlens.retrieve.encoder import DenseEncoder
from irlens.retrieve.index import EXACT, Index, to_run
from irlens.retrieve.vectors import InMemory, Vectors


class Dense:
    """A dense retriever. A `Retriever`.

    encoder: a name of the catalog, a sentence-transformers folder, a hub id, or a `DenseEncoder`. corpus: a table
    (`doc_id, text`, `title` where there is one), encoded into memory; or None with `index`, a folder of `irlens index`
    (or an open `Index`). Raises UserError: an unknown encoder, a corpus that is empty or too large for memory, an index
    made by another encoder or of another number of passages.
    """

    def __init__(self, encoder: str | Path | DenseEncoder, corpus: Any = None, index: str | Path | Index | None = None):
        if corpus is None and index is None:
            raise UserError("Dense: give a corpus, or the folder of an index")
        if not isinstance(encoder, DenseEncoder):
            chosen = catalog.encoder(str(encoder))
            files = catalog.fetch(chosen)
            quiet_if_small(files)
            encoder = DenseEncoder.load(chosen, files)
            if isinstance(index, (str, Path)):
                index = _opened(Path(index), digest(files))
        elif isinstance(index, (str, Path)):
            index = _opened(Path(index), None)
        self.encoder, self.name = encoder, encoder.name
        self.index = index or Index(_encoded(encoder, corpus), "Flat", say=silent)
        if corpus is not None and len(corpus) != len(self):
            raise UserError(f"Dense: the index holds {len(self):,} passages, the corpus {len(corpus):,}")

    def __len__(self) -> int:
        return len(self.index.vectors)

    def __call__(self, topics: pd.DataFrame, n: int) -> pd.DataFrame:
        """The run of the n best passages of every topic, all of them where there are no more.

        Columns: `query_id, doc_id, score` (the inner product), `rank, text, title` (where known), `tag`, `query`.
        """
        tables.check(topics, "topics")
        if n < 1:
            raise UserError(f"Dense: n must be at least 1, got {n}")
        n = min(n, len(self))
        try:
            queries = self.encoder.encode(topics["query"].tolist(), "query")
        finally:
            self.encoder.close()
        scores, rows = self.index.search(queries, n)
        run = to_run(topics, scores, rows, self.index.vectors, n, self.name)
        return tables.with_queries(run, topics)


def _encoded(encoder: DenseEncoder, corpus) -> InMemory:
    if len(corpus) > EXACT:
        raise UserError(
            f"Dense: {len(corpus):,} passages are too many to encode into memory (at most {EXACT:,}); make an index with "
            "`irlens index` and hand over its folder as index"
        )
    frame = corpus if isinstance(corpus, pd.DataFrame) else corpus.frame()
    tables.check(frame, "corpus")
    if frame.empty:
        raise UserError("Dense: the corpus is empty; give it at least one passage")
    try:
        vectors = encoder.encode(tables.passage_texts(frame), "passage")
    finally:
        encoder.close()
    check_vectors(vectors, frame["doc_id"])
    return InMemory(vectors.astype(np.float32, copy=False), frame)


def _opened(folder: Path, encoder: str | None) -> Index:
    """The index of a folder that `irlens index` made, with the encoder whose files have this digest."""
    try:
        manifest = checksums.read_signed(folder / "manifest.json")
        key, factory, made_by = manifest["vectors"], manifest["index"], manifest["settings"]["encoder_digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: no folder of a finished `irlens index`") from error
    if encoder is not None and encoder != made_by:
        raise UserError(f"{folder}: the index was made by another encoder ({manifest.get('encoder')})")
    index = Index(Vectors(folder / "vectors", key), factory, say=silent)
    for path in (*index.vectors.paths, *(path.with_suffix(".parquet") for path in index.vectors.paths), index.path):
        checksums.trusted(path)
    return index.open()
