"""Encoding and search, side by side with plain sentence-transformers + numpy and with its `semantic_search`.

    python experiments/bench/retrieval.py --part search
    python experiments/bench/retrieval.py --part small --part encode --rounds 7 --texts 96 \\
        --nq path/to/beir/nq --model path/to/all-MiniLM-L6-v2

They write the tables retrieval-search-low-rank.csv, retrieval-small.csv and retrieval-encode.csv beside this file.

Every method runs in turn in every round, and a ratio is the median over rounds of theirs / ours in the same round, so
that a machine with other work on it does not decide. The 1,000,000 vectors of `search` are generated (`--kind`):
`low-rank` (a 32-dimensional Gaussian in 384 dimensions and noise: no clusters, hard for cells) or `nq` (around the
vectors of the NQ passages, the questions being the real ones: needs --nq and --model once).
"""

import argparse
import csv
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np

from irlens.base import files
from irlens.retrieve.corpus import SHARD, write_vectors
from irlens.retrieve.encoder import DenseEncoder
from irlens.retrieve.index import Index, Search
from irlens.retrieve.vectors import Vectors

DIMENSION, K = 384, 100
INDEXES = (
    ("Flat", Search()),
    ("IVF1024,PQ96x4fs", Search(nprobe=64)),
    ("IVF1024,PQ96x4fs", Search(nprobe=128)),
    ("IVF1024,PQ96x4fs", Search(nprobe=256)),
    ("IVF1024,PQ96x4fs", Search(nprobe=256, refine=20)),
    ("HNSW32", Search(ef_search=256)),
    ("HNSW32", Search(ef_search=512)),
)


def normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def generate(folder: Path, count: int, queries: int, kind: str, seed: int = 0) -> tuple[Vectors, np.ndarray]:
    """`count` vectors in shards, and the queries; made once."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    if kind == "nq":
        passages, asked = np.load(folder.parent / "nq-passages.npy"), np.load(folder.parent / "nq-queries.npy")
        root = np.linalg.cholesky(np.cov(passages.T) + 1e-6 * np.eye(DIMENSION)).T.astype(np.float32)

        def draw(n: int) -> np.ndarray:
            near = rng.uniform(0.3, 0.9, (n, 1)).astype(np.float32)
            cloud = passages.mean(0) + rng.standard_normal((n, DIMENSION), dtype=np.float32) @ root
            return normalised(np.sqrt(near) * passages[rng.integers(len(passages), size=n)] + np.sqrt(1 - near) * cloud)
    else:
        plane = rng.standard_normal((32, DIMENSION), dtype=np.float32) / np.float32(32**0.5)

        def draw(n: int) -> np.ndarray:
            latent = rng.standard_normal((n, 32), dtype=np.float32) @ plane
            return normalised(latent + 0.3 * rng.standard_normal((n, DIMENSION), dtype=np.float32))

        asked = draw(queries)
    for number, start in enumerate(range(0, count, SHARD)):
        vectors = draw(min(SHARD, count - start)).astype(np.float32)
        path = folder / f"{number:06d}.npy"
        if not path.is_file():
            ids = [f"d{i:07d}" for i in range(start, start + len(vectors))]
            files.write_parquet(pd.DataFrame({"doc_id": ids, "text": ""}), path.with_suffix(".parquet"))
            write_vectors(vectors, path)
    return Vectors(folder), asked[:queries].astype(np.float32)


def numpy_top_k(queries: np.ndarray, corpus: np.ndarray, k: int = K) -> np.ndarray:
    """What one writes by hand: all scores, argpartition, sort."""
    scores = queries @ corpus.T
    some = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return np.take_along_axis(some, np.argsort(-np.take_along_axis(scores, some, 1), axis=1), 1)


def semantic(queries: np.ndarray, corpus: np.ndarray, k: int = K):
    """sentence-transformers' own search."""
    import torch
    from sentence_transformers.util import semantic_search

    return semantic_search(torch.from_numpy(queries), torch.from_numpy(corpus), top_k=k)


def rounds(methods: dict, times: int, clock=time.perf_counter) -> dict[str, list[float]]:
    """Seconds of every method in each of `times` rounds, one after the other."""
    seconds = {name: [] for name in methods}
    for _ in range(times):
        for name, method in methods.items():
            started = clock()
            method()
            seconds[name].append(clock() - started)
    return seconds


def rows_of(part: str, work: int, seconds: dict, ours: str, **more) -> list[dict]:
    """A row per method: work per second, and how many times faster ours is."""
    out = []
    for name, own in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(own, seconds[ours]))
        spread = (
            f"{min(a / b for a, b in zip(own, seconds[ours])):.2f}–{max(a / b for a, b in zip(own, seconds[ours])):.2f}"
        )
        rate = f"{work / statistics.median(own):.1f}"
        out.append(
            {
                "part": part,
                "method": name,
                "per_second": rate,
                "ours_is_times_faster": f"{ratio:.2f}",
                "over_rounds": spread,
                **more,
            }
        )
    return out


def search_part(args) -> list[dict]:
    """Search over a million vectors: each index against Flat, numpy and semantic_search."""
    vectors, queries = generate(args.work / args.kind / "vectors", args.vectors, args.queries, args.kind)
    corpus = np.concatenate([block for _, block in vectors.blocks(SHARD)])
    some = queries[: args.timed]
    truth = [set(rows) for rows in numpy_top_k_blocks(queries, corpus)]
    rows, flat = [], Index(vectors, "Flat", say=print).open()
    for factory, how in (entry for entry in INDEXES if entry[0].startswith(tuple(args.index))):
        started = time.perf_counter()
        index = Index(vectors, factory, how, say=print)
        fresh = factory != "Flat" and not index.path.is_file()
        index.open()
        build = f"{time.perf_counter() - started:.0f}" if fresh else ""
        found = index.search(queries, K)[1][:, :K]
        recall = np.mean([len(true & set(mine)) / K for true, mine in zip(truth, found)])
        name = f"ours {factory}" + "".join(f" {k}={v}" for k, v in vars(how).items() if v)
        methods = {name: lambda: index.search(some, K), "numpy": lambda: numpy_top_k(some, corpus)}
        if factory == "Flat":
            methods["semantic_search"] = lambda: semantic(some, corpus)
        else:
            methods["ours Flat"] = lambda: flat.search(some, K)
        size = f"{index.path.stat().st_size / 1e6:.0f}" if factory != "Flat" else "0"
        for row in rows_of(f"search {args.kind} {len(vectors):,}", len(some), rounds(methods, args.rounds), name):
            rows.append({**row, "ours": name, "recall@100": f"{recall:.4f}", "build_s": build, "index_MB": size})
        print(rows[-3:], flush=True)
        write(rows, args.out / f"retrieval-search-{args.kind}.csv")
    return rows


def numpy_top_k_blocks(queries: np.ndarray, corpus: np.ndarray) -> np.ndarray:
    """Brute force a few queries at a time: all scores of 2,655 × 1,000,000 would take 11 GB."""
    return np.concatenate([numpy_top_k(queries[i : i + 256], corpus) for i in range(0, len(queries), 256)])


def small_part(args) -> list[dict]:
    """Search of the NQ questions over the NQ passages."""
    import pandas as pd

    passages, queries = np.load(args.work / "nq-passages.npy"), np.load(args.work / "nq-queries.npy")
    folder = args.work / "small" / "vectors"
    ids = [f"p{i:05d}" for i in range(len(passages))]
    files.write_parquet(pd.DataFrame({"doc_id": ids, "text": ""}), folder / "000000.parquet")
    write_vectors(passages, folder / "000000.npy")
    index = Index(Vectors(folder), "Flat").open()
    methods = {
        "ours Flat": lambda: index.search(queries, K),
        "numpy": lambda: numpy_top_k(queries, passages),
        "semantic_search": lambda: semantic(queries, passages),
    }
    same = np.mean([set(a[:K]) == set(b) for a, b in zip(index.search(queries, K)[1], numpy_top_k(queries, passages))])
    rows = rows_of(
        "search NQ 2,600", len(queries), rounds(methods, args.rounds), "ours Flat", same_top_100=f"{same:.4f}"
    )
    write(rows, args.out / "retrieval-small.csv")
    return rows


def encode_part(args) -> list[dict]:
    """Passages and questions encoded by plain `encode` and by ours."""
    from irlens import tables, tasks
    from irlens.models import catalog

    task = tasks.load(args.nq)
    encoder = DenseEncoder.load(catalog.encoder(str(args.model)), args.model)
    rows = []
    for kind, texts in (
        ("passages", tables.passage_texts(task.corpus)[: args.texts]),
        ("questions", task.topics["query"].tolist()[: 4 * args.texts]),
    ):
        methods = {
            "ours": lambda: encoder.encode(texts, "query" if kind == "questions" else "passage"),
            "encode": lambda: encoder.model.encode(texts),
            "encode, batch 256": lambda: encoder.model.encode(texts, batch_size=256),
        }
        clock = time.process_time if args.cpu_clock else time.perf_counter
        seconds = rounds(methods, args.rounds, clock)
        rows += rows_of(f"encode {kind}", len(texts), seconds, "ours", clock="cpu" if args.cpu_clock else "wall")
        write(rows, args.out / "retrieval-encode.csv")
    return rows


def nq_vectors(args) -> None:
    """The vectors of NQ by the given model, once."""
    from irlens import tables, tasks
    from irlens.models import catalog

    if (args.work / "nq-queries.npy").is_file() or not args.nq:
        return
    task = tasks.load(args.nq)
    encoder = DenseEncoder.load(catalog.encoder(str(args.model)), args.model)
    np.save(args.work / "nq-passages.npy", encoder.encode(tables.passage_texts(task.corpus)))
    np.save(args.work / "nq-queries.npy", encoder.encode(task.topics["query"].tolist(), "query"))


def write(rows: list[dict], path: Path) -> None:
    """The table with the machine in its last columns."""
    machine = f"{os.cpu_count()} cores {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*names, "machine"])
        writer.writeheader()
        writer.writerows({**row, "machine": machine} for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("search", "small", "encode"), action="append")
    parser.add_argument("--kind", choices=("low-rank", "nq"), default="low-rank")
    parser.add_argument("--index", action="append", help="search: Flat, IVF, HNSW; default all")
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=2655)
    parser.add_argument("--timed", type=int, default=128, help="of the queries, timed in every round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--cpu-clock", action="store_true", help="encode: CPU seconds, for a loaded machine, 1 thread")
    parser.add_argument("--nq", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--work", type=Path, default=Path("irlens-out/bench-retrieval"))
    parser.add_argument("--out", type=Path, default=Path("experiments/bench"))
    args = parser.parse_args()
    args.index = args.index or ["Flat", "IVF", "HNSW"]
    args.work.mkdir(parents=True, exist_ok=True)
    nq_vectors(args)
    for part in args.part or ("search", "small", "encode"):
        for row in {"search": search_part, "small": small_part, "encode": encode_part}[part](args):
            print(row, flush=True)


if __name__ == "__main__":
    main()
