"""Vectors on disk: the shards of an encoded corpus, memory-mapped, and exact search through them.

Nothing here needs FAISS, and no corpus needs to fit in memory: a search reads one block of vectors at a time.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from irlens.base.errors import UserError

NAME = re.compile(r"\d+(?:-(?P<key>[0-9a-f]+))?\.npy")  # of a shard: its number, and its content's key
SPARE = 32  # candidates beyond k, so that a tie across the cut is seen
NEAR = 4e-6  # scores of vectors of length 1 that are closer than this are computed anew in 64 bits
QUERIES = 64  # queries whose candidates are gathered at once


class Vectors:
    """The shards `NNNNNN-KEY.npy` of a folder (float32 or float16 [rows, dimension]), the passages in `NNNNNN-KEY.parquet`.

    `key`: whose shards (see `corpus.encode_corpus`); None: those whose names have none. Raises UserError: no shard, a
    shard that cannot be read, shards of different dimensions, a doc_id that occurs twice.
    """

    def __init__(self, folder: Path, key: str | None = None):
        self.folder, self.key = Path(folder), key
        files = sorted(self.folder.glob("[0-9]*.npy"))
        self.paths = [path for path in files if (m := NAME.fullmatch(path.name)) and m["key"] == key]
        if not self.paths:
            raise UserError(f"{folder}: no vectors; make them with `irlens index`")
        self.shards = [_open(path) for path in self.paths]
        shapes = {shard.shape[1] for shard in self.shards}
        if len(shapes) > 1:
            raise UserError(f"{folder}: shards of different dimensions ({', '.join(map(str, sorted(shapes)))})")
        self.dimension = shapes.pop()
        self.starts = np.cumsum([0, *(len(shard) for shard in self.shards)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def doc_ids(self):
        """The identifier of every row, as an Arrow array (a Python list of 21M strings would take gigabytes)."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        parts = [
            pq.read_table(path.with_suffix(".parquet"), columns=["doc_id"])["doc_id"].cast(pa.large_string())
            for path in self.paths
        ]
        ids = pa.chunked_array([chunk for part in parts for chunk in part.chunks]).combine_chunks()
        if len(ids) != len(self):
            raise UserError(f"{self.folder}: {len(ids)} passages, but {len(self)} vectors; delete it and index again")
        if pc.count_distinct(ids).as_py() < len(ids):
            counts = ids.value_counts()
            twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
            raise UserError(f"corpus: doc_id={twice[0].as_py()} occurs more than once ({len(twice)} such identifiers)")
        return ids

    def passages(self, rows: np.ndarray, column: str = "text") -> np.ndarray:
        """The texts of passages (objects, None where the corpus has no such column), one shard's file in memory at a time."""
        import pyarrow.parquet as pq

        out = np.full(len(rows), None, dtype=object)
        for shard, places in self._by_shard(rows):
            path = self.paths[shard].with_suffix(".parquet")
            if column in pq.read_schema(path).names:
                found = pq.read_table(path, columns=[column])[column].combine_chunks()
                out[places] = found.take(rows[places] - self.starts[shard]).to_numpy(zero_copy_only=False)
        return out

    def take(self, rows: np.ndarray) -> np.ndarray:
        """float32 [rows, dimension]; `rows` in any order, repeats allowed."""
        out = np.empty((len(rows), self.dimension), np.float32)
        for shard, places in self._by_shard(rows):
            out[places] = self.shards[shard][rows[places] - self.starts[shard]]
        return out

    def blocks(self, size: int, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, float32 vectors) of runs of about `size` rows from row `start`, in order."""
        held, first = [], start
        for at, shard in zip(self.starts, self.shards):
            for cut in range(max(0, start - int(at)), len(shard), size):
                held.append(shard[cut : cut + size])
                if sum(map(len, held)) >= size:
                    yield first, _joined(held)
                    first, held = first + sum(map(len, held)), []
        if held:
            yield first, _joined(held)

    def _by_shard(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        order = np.argsort(rows, kind="stable")
        cuts = np.searchsorted(rows[order], self.starts)
        for shard, (low, high) in enumerate(itertools.pairwise(cuts)):
            if high > low:
                yield shard, order[low:high]

    # -- search ----------------------------------------------------------------------------------------------------

    def nearest(
        self, queries: np.ndarray, k: int, block: int = 8192, on_block: Callable[[int], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The exact k best of every query: (scores float32 [queries, k], rows int64), best first.

        Inner products by blocks of vectors, each merged with the best so far. On GPUs the blocks go round them.
        """
        import torch

        devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())] or [torch.device("cpu")]
        asked = {device: torch.from_numpy(queries).to(device) for device in devices}
        best: dict = {}
        for number, (first, vectors) in enumerate(self.blocks(block)):
            device = devices[number % len(devices)]
            scores = asked[device] @ torch.from_numpy(vectors).to(device).T
            found = torch.topk(scores, min(k, len(vectors)), dim=1, sorted=False)
            best[device] = _merged(best.get(device), (found.values, found.indices + first), k)
            if on_block:
                on_block(len(vectors))
        whole = None
        for values, rows in best.values():
            whole = _merged(whole, (values.cpu(), rows.cpu()), k)
        scores, order = whole[0].sort(dim=1, descending=True, stable=True)
        return scores.numpy(), whole[1].gather(1, order).numpy()

    def score(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Inner products, float32, of queries [n, dimension] with their rows [n, r]; −infinity where a row is −1."""
        import torch

        out = np.empty(rows.shape, np.float32)
        for i in range(0, len(rows), QUERIES):
            some = rows[i : i + QUERIES]
            vectors = torch.from_numpy(self.take(np.maximum(some, 0).ravel())).view(*some.shape, -1)
            asked = torch.from_numpy(queries[i : i + QUERIES]).unsqueeze(-1)
            out[i : i + QUERIES] = torch.bmm(vectors, asked).squeeze(-1).numpy()
        return np.where(rows < 0, np.float32(-np.inf), out)

    def settle(self, queries: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """`scores` (falling, [n, r]) with near-ties computed anew in 64 bits, so that no batch layout can order them."""
        size = np.abs(scores).max(initial=1.0, where=np.isfinite(scores))
        with np.errstate(invalid="ignore"):
            close = np.diff(scores, axis=1) >= -NEAR * size
        near = np.pad(close, ((0, 0), (0, 1))) | np.pad(close, ((0, 0), (1, 0)))
        query, place = np.nonzero(near & (rows >= 0))
        out = scores.copy()
        for i in range(0, len(query), 16384):
            q, p = query[i : i + 16384], place[i : i + 16384]
            vectors = self.take(rows[q, p]).astype(np.float64)
            out[q, p] = np.einsum("ij,ij->i", vectors, queries[q].astype(np.float64))
        return out


class InMemory(Vectors):
    """The same of vectors [passages, dimension] and their corpus that are in memory."""

    def __init__(self, vectors: np.ndarray, corpus):
        self.folder, self.key, self.paths, self.corpus = Path(), None, [], corpus
        self.shards, self.starts, self.dimension = [vectors], np.array([0, len(vectors)]), vectors.shape[1]

    @cached_property
    def doc_ids(self):
        """The identifier of every row, as an Arrow array."""
        import pyarrow as pa

        return pa.array(self.corpus["doc_id"].tolist(), pa.large_string())

    def passages(self, rows: np.ndarray, column: str = "text") -> np.ndarray:
        """The texts of passages (objects, None where the corpus has no such column)."""
        if column not in self.corpus.columns:
            return np.full(len(rows), None, dtype=object)
        found = self.corpus[column].astype(object)
        return found.where(found.notna(), None).to_numpy(dtype=object)[rows]


def _open(path: Path) -> np.ndarray:
    try:
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable array ({error}); delete it and run again") from error
    if shard.ndim != 2 or shard.dtype not in (np.float32, np.float16):
        raise UserError(f"{path}: expected float32 or float16 [rows, dimension], got {shard.dtype} {shard.shape}")
    return shard


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return np.array(whole, dtype=np.float32)  # a copy: torch takes no read-only memory


def _merged(before, new, k: int):
    """The k best of two (values, rows) of the same queries."""
    import torch

    if before is None:
        return new
    values, rows = torch.cat([before[0], new[0]], dim=1), torch.cat([before[1], new[1]], dim=1)
    if values.shape[1] <= k:
        return values, rows
    kept = torch.topk(values, k, dim=1, sorted=False)
    return kept.values, rows.gather(1, kept.indices)
