"""Dense retrieval: a sentence-transformers encoder, and a corpus encoded into shards that survive a kill."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from irlens import tables
from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.progress import progress_bar
from irlens.models.catalog import Encoder
from irlens.retrieve.vectors import NAME

SHARD = 4096  # passages in a shard of vectors, unless told otherwise: what a kill can cost
CPU = (24_000, 256)  # (longest text × texts, most texts) of one batch: what was quickest with MiniLM on two cores
GPU = (200_000, 1024)
PASSAGE = ("doc_id", "text", "title")  # what is kept of a passage beside its vector
HASHED = 100_000  # passages whose content is hashed at once
DTYPES = ("float32", "float16", "bfloat16")


@dataclass
class DenseEncoder:
    """A loaded encoder with its prompts. `processes` (or several GPUs) work through sentence-transformers' pool."""

    model: object
    query_prompt: str | None
    passage_prompt: str | None
    normalize: bool
    processes: int = 1
    batch_size: int | None = None
    pool: object = None

    @classmethod
    def load(
        cls,
        chosen: Encoder,
        folder: Path,
        *,
        device: str | None = None,
        processes: int = 1,
        batch_size: int | None = None,
        dtype: str = "float32",
    ) -> DenseEncoder:
        """The encoder in `folder`. Raises UserError if sentence-transformers cannot load it or it is no dense encoder."""
        import torch
        from sentence_transformers import SentenceTransformer

        options = {"model_kwargs": {"dtype": getattr(torch, dtype)}, "device": device, "local_files_only": True}
        try:
            if (folder / "modules.json").is_file() or chosen.pooling is None:
                model = SentenceTransformer(str(folder), **options)
            else:
                model = SentenceTransformer(modules=_modules(folder, chosen, options["model_kwargs"]), device=device)
        except Exception as error:  # the loader has a dozen ways to fail: files missing, wrong shapes, custom code
            raise UserError(
                f"{folder}: not a usable sentence encoder ({' '.join(str(error).split())[:200]})"
            ) from error
        similarity = str(getattr(model.similarity_fn_name, "value", model.similarity_fn_name))
        if similarity not in ("cosine", "dot"):
            raise UserError(f"{folder}: compares vectors by {similarity} distance; only cosine and dot can be searched")
        normalize = similarity == "cosine" if chosen.normalize is None else chosen.normalize
        return cls(model, chosen.query_prompt, chosen.passage_prompt, normalize, processes, batch_size)

    def prompts(self) -> dict[str, str]:
        """The text that goes before a query and before a passage, as it is used."""
        own = self.model.prompts
        first = next((own[name] for name in ("document", "passage", "corpus") if name in own), "")
        query = own.get("query", "") if self.query_prompt is None else self.query_prompt
        return {"query": query, "passage": first if self.passage_prompt is None else self.passage_prompt}

    def encode(
        self, texts: Sequence[str], kind: str = "passage", on_batch: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """float32 vectors [texts, dimension] of queries or passages (`kind`), in the order given.

        Batches hold texts of similar length, and more of them the shorter they are. Equal texts are encoded once.
        """
        call = self.model.encode_query if kind == "query" else self.model.encode_document
        options = {"prompt": self.prompts()[kind], "normalize_embeddings": self.normalize, "show_progress_bar": False}
        unique = list(dict.fromkeys(texts))
        if self.pool is None and (self.processes > 1 or _gpus() > 1):
            self.pool = self.model.start_multi_process_pool(None if _gpus() > 1 else ["cpu"] * self.processes)
        if self.pool is not None:
            vectors = call(unique, pool=self.pool, batch_size=self.batch_size or 64, chunk_size=1024, **options)
            if on_batch:
                on_batch(len(texts))
        else:
            vectors = np.empty((len(unique), self.dimension), np.float32)
            budget = CPU if self.model.device.type == "cpu" else GPU
            for rows in batches([len(text) for text in unique], self.batch_size, budget):
                vectors[rows] = call([unique[i] for i in rows], batch_size=len(rows), **options)
                if on_batch:
                    on_batch(len(rows))
        place = {text: i for i, text in enumerate(unique)}
        vectors = vectors.astype(np.float32, copy=False)
        return vectors if len(unique) == len(texts) else vectors[[place[text] for text in texts]]

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.model.get_embedding_dimension()

    def close(self) -> None:
        """Ends the processes of the pool."""
        if self.pool is not None:
            self.model.stop_multi_process_pool(self.pool)
            self.pool = None


def _modules(folder: Path, chosen: Encoder, model_kwargs: dict) -> list:
    """Transformer, pooling and normalisation as the catalog says, for a repository without modules.json."""
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    first = Transformer(str(folder), model_kwargs=model_kwargs)
    modules = [first, Pooling(first.get_embedding_dimension(), chosen.pooling)]
    return [*modules, Normalize()] if chosen.normalize else modules


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def batches(lengths: Sequence[int], size: int | None = None, budget: tuple[int, int] = CPU) -> Iterator[np.ndarray]:
    """Row numbers of each batch, the longest texts first (so that a lack of memory shows at once).

    A batch has `size` texts, or as many as `budget` (letters with padding, texts) allows.
    """
    letters, most = budget
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        fit = size or min(most, max(1, letters // max(1, int(lengths[order[start]]))))
        yield order[start : start + fit]
        start += fit


# -- a corpus as shards of vectors ---------------------------------------------------------------------------------


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
    done = 0
    while (folder / f"{done // shard:06d}-{key}.npy").is_file() and done < total:
        done += shard
    done = min(done, total)
    if done:
        say(f"reused the vectors of {done:,} of {total:,} passages from {folder}")
    if done == total:
        return key
    encoder = load_encoder()
    try:
        with progress_bar() as progress:
            bar = progress.add_task("encoding", total=total - done, rate="")
            for number, rows in enumerate(chunks(corpus, done, shard), done // shard):
                started = time.monotonic()
                texts = tables.passage_texts(tables.check(rows, "corpus"))
                vectors = encoder.encode(texts, "passage", lambda n: progress.update(bar, advance=n))
                rate = f"{len(rows) / (time.monotonic() - started):,.0f} texts/s"
                progress.update(bar, completed=min(total - done, (number + 1) * shard - done), rate=rate)
                _check_vectors(vectors, rows["doc_id"])
                kept = [c for c in PASSAGE if c in rows.columns]
                files.write_parquet(rows[kept].reset_index(drop=True), folder / f"{number:06d}-{key}.parquet")
                write_vectors(vectors.astype(store), folder / f"{number:06d}-{key}.npy")
    finally:
        encoder.close()
    return key


def write_vectors(vectors: np.ndarray, path: Path) -> None:
    """Writes a .npy file atomically."""

    def write(to: Path) -> None:
        with to.open("wb") as file:
            np.save(file, vectors)

    files.write_atomically(path, write)


def _check_vectors(vectors: np.ndarray, doc_ids: pd.Series) -> None:
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        first = doc_ids.iloc[int(bad.argmax())]
        raise UserError(
            f"the encoder gives a vector that is not finite for {int(bad.sum())} passages, such as {first!r}"
        )
