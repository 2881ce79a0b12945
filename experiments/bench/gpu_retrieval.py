"""Dense retrieval on a GPU: passages encoded per second, and questions searched per second through a million vectors.

    python experiments/bench/gpu_retrieval.py --out experiments/bench/gpu

The encoder has random weights and BERT-base's shape, the passages some 100 to 200 tokens. The vectors are random, 384
numbers each: `exact` is the package's own search, block by block from the disk's cache; `exact, all on the device` is one
product with vectors that lie there, which is what it could come to; FAISS's indexes are built on the CPU and searched on
the GPU where faiss-gpu is installed.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from gpu_common import DEVICE, Table, forget, now, options

from irlens import tasks
from irlens.models import catalog
from irlens.retrieve.encoder import DenseEncoder
from irlens.retrieve.index import Index, Search

COLUMNS = ("part", "method", "dtype", "items", "seconds", "per_second", "recall_at_100", "note")
K, DIMENSION = 100, 384


def encoder_folder(folder: Path, dry: bool) -> Path:
    """An encoder of BERT-base's shape (`dry`: a small one) with random weights, and the embedded encoder's tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(catalog.fetch(catalog.encoder("tiny-e5")), model_max_length=512)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), **(small if dry else {}))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def encoding(table: Table, folder: Path, dry: bool) -> None:
    texts = tasks.load("facts").corpus["text"].tolist()[: 20 if dry else None]
    count = 20 if dry else 20_000
    passages = [" ".join(texts[(i + j) % len(texts)] for j in range(2 if dry else 8)) for i in range(count)]
    passages = [f"{i} {text}" for i, text in enumerate(passages)]  # equal ones would be encoded once
    chosen = catalog.Encoder("random", str(folder), query_prompt="", passage_prompt="", pooling="mean", normalize=True)
    for dtype in ("float32",) if DEVICE == "cpu" else ("float32", "bfloat16"):
        encoder = DenseEncoder.load(chosen, folder, dtype=dtype)
        encoder.encode(passages[:64])
        started = now()
        vectors = encoder.encode(passages)
        seconds = now() - started
        assert vectors.shape == (count, encoder.dimension) and np.isfinite(vectors).all()
        rate = round(count / seconds, 1)
        table.add(part="encode", method="ours", dtype=dtype, items=count, seconds=round(seconds, 3), per_second=rate)
        del encoder
        forget()


def searching(table: Table, folder: Path, dry: bool, end: float) -> None:
    from retrieval import generate

    count, asked = (2000, 16) if dry else (1_000_000, 1024)
    vectors, queries = generate(folder / "vectors", count, asked, "low-rank")
    exact = Index(vectors, "Flat", say=print).open()
    seconds, (_, rows) = timed(lambda: exact.search(queries, K))
    truth = [set(some) for some in rows[:, :K].tolist()]
    told = {"part": f"search {count:,}", "dtype": "float32", "items": asked}
    table.add(
        **told, method="exact", seconds=round(seconds, 4), per_second=round(asked / seconds, 1), recall_at_100=1.0
    )
    name, there = "exact, all on the device", torch.from_numpy(queries).to(DEVICE)
    search = partial(all_at_once, there, on_device(vectors))
    seconds, found = timed(search)
    rate, shared = round(asked / seconds, 1), round(recall(truth, found.tolist()), 4)
    table.add(**told, method=name, seconds=round(seconds, 4), per_second=rate, recall_at_100=shared)
    del search
    forget()
    with_faiss(table, vectors, queries, truth, told, dry, end)


def on_device(vectors) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([block for _, block in vectors.blocks(2**17)])).to(DEVICE)


def all_at_once(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """The best rows of every query, 128 queries at a time: all scores of 1,024 would be 4 GB."""
    return torch.cat([(part @ vectors.T).topk(K).indices for part in queries.split(128)]).cpu()


def with_faiss(table, vectors, queries, truth, told, dry: bool, end: float) -> None:
    try:
        import faiss
    except ImportError:
        print("skipped: FAISS, faiss is not installed", flush=True)
        return
    where = "GPU" if getattr(faiss, "get_num_gpus", int)() else "CPU"
    factories = (("IVF16,Flat", 4),) if dry else (("IVF1024,Flat", 64), ("IVF1024,PQ96", 64))
    for factory, nprobe in factories:
        if now() > end:
            break
        index = Index(vectors, factory, Search(nprobe=nprobe), say=print).open()
        seconds, (_, rows) = timed(lambda: index.search(queries, K))
        name = f"FAISS on the {where}, {factory} nprobe={nprobe}"
        rate, shared = round(len(queries) / seconds, 1), round(recall(truth, rows[:, :K].tolist()), 4)
        table.add(**told, method=name, seconds=round(seconds, 4), per_second=rate, recall_at_100=shared)


def timed(search):
    """(the faster of two rounds after one of warm-up in seconds, what it found)."""
    seconds = []
    for _ in range(3):
        started = now()
        found = search()
        seconds.append(now() - started)
    return min(seconds[1:]), found


def recall(truth: list[set], rows: list[list[int]]) -> float:
    return float(np.mean([len(true & set(mine)) / len(true) for true, mine in zip(truth, rows)]))


def main() -> None:
    given = options(__doc__).parse_args()
    table, end = Table(given.out, "retrieval", COLUMNS), now() + given.seconds
    with tempfile.TemporaryDirectory() as folder:
        encoding(table, encoder_folder(Path(folder) / "encoder", given.dry), given.dry)
        searching(table, Path(folder), given.dry, end)


if __name__ == "__main__":
    main()
