"""A sentence-transformers encoder as dense retrieval reads it: its prompts, batches of like lengths, vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from irlens.base.errors import UserError
from irlens.models.catalog import Encoder

CPU = (24_000, 256)  # (longest text × texts, most texts) of one batch: what was quickest with MiniLM on two cores
GPU = (200_000, 1024)
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
    name: str = "dense"

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

        kept = {"dtype": getattr(torch, dtype), "use_safetensors": True}  # never a pickle
        options = {"model_kwargs": kept, "device": device, "local_files_only": True, "trust_remote_code": False}
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
        named = {"name": chosen.name or "dense"}
        return cls(model, chosen.query_prompt, chosen.passage_prompt, normalize, processes, batch_size, **named)

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
        spread = _gpus() > 1 and self.model.device.type != "cpu"
        if self.pool is None and (self.processes > 1 or spread):
            self.pool = self.model.start_multi_process_pool(None if spread else ["cpu"] * self.processes)
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
