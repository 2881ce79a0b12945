"""A corpus as shards of vectors: encoded a shard at a time, so that a kill costs one of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from irlens import tables
from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.progress import progress_bar
from irlens.retrieve.encoder import DenseEncoder
from irlens.retrieve.vectors import NAME

SHARD = 4096  # passages in a shard of vectors, unless told otherwise: what a kill can cost
PASSAGE = ("doc_id", "text", "title")  # what is kept of a passage beside its vector
HASHED = 100_000  # passages whose content is hashed at once


def chunks(corpus, start: int, size: int) -> Iterator[pd.DataFrame]:
    """The rows of a corpus from `start`, `size` at a time: a frame is cut, anything else has `chunks(start, size)`."""
    if not isinstance(corpus, pd.DataFrame):
        yield from corpus.chunks(start, size)
        return
    for first in range(start, len(corpus), size):
        yield corpus.iloc[first : first + size]


def corpus_digest(corpus) -> str:
    """Short SHA-256 of every passage in its order, whatever holds them; or the corpus's own `identity`, if it has one."""
    if identity := getattr(corpus, "identity", None):
        return str(identity)
    from pandas.util import hash_pandas_object

    sha = hashlib.sha256()
    for rows in chunks(corpus, 0, HASHED):
        kept = [column for column in PASSAGE if column in rows.columns]
        sha.update(str(kept).encode())
        sha.update(hash_pandas_object(rows[kept], index=False).to_numpy().tobytes())
    return sha.hexdigest()[:16]


def encode_corpus(
    load_encoder: Callable[[], DenseEncoder],
    corpus,
    folder: Path,
    store: str = "float32",
    say: Callable[[str], None] = print,
    shard: int = SHARD,
    *,
    made_by: Mapping[str, object],
) -> str:
    """Encodes a corpus into `folder`/NNNNNN-KEY.npy (vectors [rows, dimension]) and .parquet (doc_id, text, title).

    The key, which is returned and opens them (`Vectors`), is a digest of the corpus and of what makes its vectors what
    they are: `made_by` (the encoder's digest, prompts, precision), `store` and `shard`. A shard is two files, each
    written by rename, the vectors last: those of this key are kept, and the encoder is not even loaded if none is missing;
    files of other keys stay where they are, unread. Raises UserError: an empty corpus, a doc_id that occurs twice, a
    vector that is not finite.
    """
    total = len(corpus)
    if not total:
        raise UserError("the corpus is empty: there is nothing to index")
    if isinstance(corpus, pd.DataFrame):
        tables.check(corpus, "corpus")
    content = {"made_by": made_by, "store": store, "shard": shard, "corpus": corpus_digest(corpus), "passages": total}
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
    if other := [path for path in folder.glob("*.npy") if (m := NAME.fullmatch(path.name)) and m["key"] != key]:
        say(f"{folder}: {len(other):,} files hold vectors of another corpus or encoder; kept, and not read")
    missing = _missing(folder, key, total, shard)
    todo = sum(min(total, last * shard) - first * shard for first, last in missing)
    if todo < total:
        say(f"reused the vectors of {total - todo:,} of {total:,} passages from {folder}")
    if not missing:
        return key
    encoder = load_encoder()
    try:
        for number, rows, vectors in _encoded(encoder, corpus, missing, todo, shard):
            kept = [c for c in PASSAGE if c in rows.columns]
            files.write_parquet(rows[kept].reset_index(drop=True), folder / f"{number:06d}-{key}.parquet")
            write_vectors(vectors.astype(store), folder / f"{number:06d}-{key}.npy")
    finally:
        encoder.close()
    return key


def _missing(folder: Path, key: str, total: int, shard: int) -> list[tuple[int, int]]:
    """(first, last, itself not) of the shards that lack one of their two files, neighbours together."""
    names = [folder / f"{number:06d}-{key}" for number in range(-(-total // shard))]
    there = [path.with_suffix(".npy").is_file() and path.with_suffix(".parquet").is_file() for path in names]
    edges = np.flatnonzero(np.diff(np.array([True, *there, True]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def _encoded(
    encoder: DenseEncoder, corpus, missing: Sequence[tuple[int, int]], todo: int, shard: int
) -> Iterator[tuple[int, pd.DataFrame, np.ndarray]]:
    """(number, passages, vectors) of the shards that are missing, `todo` passages, under a bar."""
    parts = (
        found
        for first, last in missing
        for found in zip(range(first, last), chunks(corpus, first * shard, shard), strict=False)
    )
    done = 0
    with progress_bar() as progress:
        bar = progress.add_task("encoding", total=todo, rate="")
        for number, rows in parts:
            started = time.monotonic()
            texts = tables.passage_texts(tables.check(rows, "corpus"))
            vectors = encoder.encode(texts, "passage", lambda n: progress.update(bar, advance=n))
            done += len(rows)
            rate = f"{len(rows) / (time.monotonic() - started):,.0f} texts/s"
            progress.update(bar, completed=done, rate=rate)
            check_vectors(vectors, rows["doc_id"])
            yield number, rows, vectors


def write_vectors(vectors: np.ndarray, path: Path) -> None:
    """Writes a .npy file atomically."""

    def write(to: Path) -> None:
        with to.open("wb") as file:
            np.save(file, vectors)

    files.write_atomically(path, write)


def check_vectors(vectors: np.ndarray, doc_ids: pd.Series) -> None:
    """Raises UserError, naming the passage, for a vector that is not finite."""
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        first = doc_ids.iloc[int(bad.argmax())]
        raise UserError(
            f"the encoder gives a vector that is not finite for {int(bad.sum())} passages, such as {first!r}"
        )
