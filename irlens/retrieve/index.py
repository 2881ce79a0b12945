"""The index over encoded passages: FAISS by its own factory strings, or exact search where it is `Flat`."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from irlens import tables
from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.progress import progress_bar
from irlens.retrieve.vectors import NEAR, SPARE, Vectors

EXACT = 200_000  # up to so many passages, the default is exact search
HUGE = 5_000_000  # from here on the default's cells are found by a graph
COMPRESSED = re.compile(r"PQ|SQ[468]|LSH|RQ|LSQ|Rabit|RaBit|PRQ|ITQ", re.IGNORECASE)
GPU_MOST = 2048  # results that FAISS's indexes on a GPU give for a query
CHECKPOINT = 600  # seconds of adding vectors between two copies of an unfinished index


def default_factory(passages: int, dimension: int) -> tuple[str, str]:
    """(factory string, why) for a corpus of that size."""
    if passages <= EXACT:
        return "Flat", f"up to {EXACT:,} passages exact search is quick enough"
    cells = 2 ** round(np.log2(np.sqrt(passages)))
    codes = f"PQ{dimension // 4}x4fs" if dimension % 4 == 0 else "SQ8"
    coarse = f"IVF{cells}" if passages < HUGE else f"IVF{cells}_HNSW32"
    return f"{coarse},{codes}", f"{cells} cells for {passages:,} passages, short codes, candidates scored exactly"


def faiss_module():
    """FAISS. Raises UserError if it is missing, or if two packages overwrite each other in its place."""
    owners = sorted(set(metadata.packages_distributions().get("faiss", ())))
    if len(owners) > 1:
        raise UserError(
            f"{' and '.join(owners)} are both installed and overwrite each other: uninstall both, then install one "
            "(irlens[dense] or irlens[faiss-gpu])"
        )
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "an index other than Flat needs FAISS: pip install 'irlens[dense]' (or 'irlens[faiss-gpu]' for GPUs)"
        ) from error
    return faiss


def check_factory(factory: str | None, search: Search, passages: int, dimension: int) -> None:
    """Raises UserError for what the index cannot be, before anything is encoded: needs no vectors."""
    factory = factory or default_factory(passages, dimension)[0]
    if factory == "Flat":
        if given := [f"--{name.replace('_', '-')}" for name, value in vars(search).items() if value is not None]:
            raise UserError(f"{', '.join(given)}: the index Flat is exact and takes no such option")
        return
    faiss = faiss_module()
    try:
        faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1][-160:]
        raise UserError(f"--index {factory!r}: FAISS cannot make it for dimension {dimension} ({reason})") from error
    cells = _cells(factory)
    if (cells or 0) > passages:
        raise UserError(f"--index {factory}: more cells than the corpus has passages ({passages:,})")
    for option, value, fits, kind in (
        ("--nprobe", search.nprobe, cells is not None, "IVF"),
        ("--ef-search", search.ef_search, "HNSW" in factory and cells is None, "HNSW"),
    ):
        if value is not None and not fits:
            raise UserError(f"{option}: the index {factory} has no such parameter; only {kind} indexes do")


def _cells(factory: str) -> int | None:
    """The number of cells of an IVF index; None for another kind."""
    found = re.search(r"IVF(\d+)(k?)", factory)
    return int(found[1]) * (1024 if found[2] else 1) if found else None


@dataclass(frozen=True)
class Search:
    """How an approximate index is searched; None is the default, which `Index` says."""

    nprobe: int | None = None
    ef_search: int | None = None
    refine: int | None = None


class Index:
    """A searchable index over `vectors`: `factory` is FAISS's string, None chooses by size.

    The candidates of an approximate index are scored anew against the stored vectors, so scores are exact inner
    products under any index and only which passages are found differs; `refine` candidates per result are scored (10
    where the index is compressed, else 1).
    """

    def __init__(self, vectors: Vectors, factory: str | None = None, search: Search = Search(), say=print):
        self.vectors, self.say, self.how = vectors, say, search
        self.factory = factory
        if factory is None:
            self.factory, why = default_factory(len(vectors), vectors.dimension)
            say(f"index {self.factory} ({why}; choose with --index)")
        self._faiss = self._on_gpus = None
        check_factory(self.factory, search, len(vectors), vectors.dimension)

    @property
    def path(self) -> Path:
        """The file of the index, beside its vectors and named after their content as they are."""
        kind = re.sub(r"[^A-Za-z0-9]+", "-", self.factory).strip("-")
        return self.vectors.folder.parent / f"{kind}{f'-{self.vectors.key}' if self.vectors.key else ''}.faiss"

    @property
    def _partial(self) -> Path:
        """The copy of an unfinished one."""
        return self.path.with_name(f".partial-{self.path.name}")

    def open(self, train: int | None = None, seed: int = 0) -> Index:
        """Builds the index if its file is not there, then opens it memory-mapped (or on all GPUs)."""
        if self.factory == "Flat":
            return self
        faiss = faiss_module()
        if not self.path.is_file():
            self._build(faiss, train, seed)
        self._partial.unlink(missing_ok=True)  # a kill may have come before this
        try:
            index = faiss.read_index(str(self.path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise UserError(f"{self.path}: not a readable FAISS index; delete it and run again") from error
        if index.d != self.vectors.dimension or index.ntotal != len(self.vectors):
            raise UserError(
                f"{self.path}: holds {index.ntotal:,} vectors of dimension {index.d}, the corpus has "
                f"{len(self.vectors):,} of {self.vectors.dimension}: built with another model or corpus"
            )
        self._faiss = index
        self._set_parameters(faiss)
        if getattr(faiss, "get_num_gpus", int)() > 0:
            self._to_gpus(faiss)
        return self

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(scores float32 [queries, at least k], rows int64), best first; −1 fills up where too few were found.

        More than k columns come back where a tie may reach across the cut, for the caller to cut by doc_id.
        Raises UserError: k outside 1 … passages, queries of another dimension, a query vector that is not finite.
        """
        total = len(self.vectors)
        if not 1 <= k <= total:
            raise UserError(f"k={k} of a corpus of {total} passages; k must be between 1 and {total}")
        if queries.shape[1] != self.vectors.dimension:
            raise UserError(
                f"the index holds vectors of dimension {self.vectors.dimension}, the queries have {queries.shape[1]}: "
                "it was built with another model"
            )
        if not np.isfinite(queries).all():
            raise UserError(f"query {int((~np.isfinite(queries)).any(1).argmax())}: its vector is not finite")
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if self._faiss is None:
            return self._exact(queries, k)
        fetch = min(total, max(k + SPARE, k * self.refine))
        index = self._faiss if self._on_gpus is None or fetch > GPU_MOST else self._on_gpus
        _, rows = index.search(queries, fetch)
        scores = self.vectors.score(queries, rows)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : k + SPARE]
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        return self.vectors.settle(queries, scores, rows), rows

    def _exact(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Exact search; where the last candidate still ties with the k-th, more are fetched."""
        total, fetch = len(self.vectors), min(len(self.vectors), k + SPARE)
        while True:
            with progress_bar(silent=total <= EXACT) as progress:
                bar = progress.add_task("searching", total=total, rate="")
                scores, rows = self.vectors.nearest(queries, fetch, on_block=lambda n: progress.update(bar, advance=n))
            if fetch == total or (scores[:, -1] < scores[:, k - 1] - NEAR * np.abs(scores).max()).all():
                return self.vectors.settle(queries, scores, rows), rows
            fetch = min(total, 4 * fetch)

    @property
    def refine(self) -> int:
        """Candidates per result that are scored exactly."""
        return self.how.refine or (10 if COMPRESSED.search(self.factory) else 1)

    def facts(self) -> dict:
        """What the manifest records."""
        facts = {"index": self.factory, "passages": len(self.vectors), "dimension": self.vectors.dimension}
        return facts if self._faiss is None else facts | {"search": {**self.parameters, "refine": self.refine}}

    def _set_parameters(self, faiss) -> None:
        """nprobe and efSearch: those given, else a quarter of the cells up to 256, and 256."""
        cells, graph = _cells(self.factory), "HNSW" in self.factory and _cells(self.factory) is None
        self.parameters = {}
        if cells:
            self.parameters["nprobe"] = self.how.nprobe or max(1, min(cells // 4, 256))
            if "_HNSW" in self.factory:
                self.parameters["quantizer_efSearch"] = 2 * self.parameters["nprobe"]
        if graph:
            self.parameters["efSearch"] = self.how.ef_search or 256
        for name, value in self.parameters.items():
            faiss.ParameterSpace().set_index_parameter(self._faiss, name, value)

    def _to_gpus(self, faiss) -> None:
        """A copy of the index spread over all GPUs; kinds that FAISS has no GPU form of have none."""
        options = faiss.GpuMultipleClonerOptions()
        options.shard = True
        try:
            self._on_gpus = faiss.index_cpu_to_all_gpus(self._faiss, options)
        except RuntimeError as error:
            self.say(f"index {self.factory} stays on the CPU: {str(error).splitlines()[-1][:160]}")

    # -- building --------------------------------------------------------------------------------------------------

    def _build(self, faiss, train: int | None, seed: int) -> None:
        """Trains on a sample and adds every vector, leaving a copy every ten minutes to continue from."""
        partial = self._partial
        if partial.is_file():
            index = faiss.read_index(str(partial))
            self.say(f"continuing {self.path.name} at {index.ntotal:,} of {len(self.vectors):,} vectors")
        else:
            index = self._trained(faiss, train, seed)
        with progress_bar() as progress:
            bar = progress.add_task(
                f"adding to {self.factory}", total=len(self.vectors), completed=index.ntotal, rate=""
            )
            saved = time.monotonic()
            for _, vectors in self.vectors.blocks(8192, index.ntotal):
                index.add(vectors)
                progress.update(bar, completed=index.ntotal)
                if time.monotonic() - saved > CHECKPOINT:
                    files.write_atomically(partial, lambda to: faiss.write_index(index, str(to)))
                    saved = time.monotonic()
        files.write_atomically(self.path, lambda to: faiss.write_index(index, str(to)))

    def _trained(self, faiss, train: int | None, seed: int):
        total, d = len(self.vectors), self.vectors.dimension
        index = faiss.index_factory(d, self.factory, faiss.METRIC_INNER_PRODUCT)
        if index.is_trained:
            return index
        cells = _cells(self.factory) or 256
        wanted = min(total, train or max(50 * cells, 20_000))
        rows = np.sort(np.random.default_rng(seed).choice(total, wanted, replace=False))
        self.say(f"training {self.factory} on {wanted:,} of {total:,} vectors")
        try:
            index.train(self.vectors.take(rows))
        except RuntimeError as error:
            raise UserError(f"--index {self.factory}: {str(error).splitlines()[-1][-200:]}") from error
        return index


def to_run(
    topics: pd.DataFrame, scores: np.ndarray, rows: np.ndarray, vectors: Vectors, k: int, tag: str
) -> pd.DataFrame:
    """The run of the k best passages of every query, of equal scores the larger doc_id first: at the cut after k too."""
    query, place = np.nonzero(rows >= 0)
    found = rows[query, place]
    run = pd.DataFrame(
        {
            "query_id": topics["query_id"].to_numpy(dtype=object)[query],
            "doc_id": vectors.doc_ids.take(found).to_numpy(zero_copy_only=False),
            "score": scores[query, place],
            "rank": 0,
            "row": found,
        }
    )
    run = _cut(run, k)
    rows = run.pop("row").to_numpy()
    run["text"], titles = vectors.passages(rows), vectors.passages(rows, "title")
    if (titles != None).any():  # noqa: E711
        run["title"] = titles
    return tables.ranked(run.assign(tag=tag))


def _cut(run: pd.DataFrame, k: int) -> pd.DataFrame:
    run = run.sort_values(["query_id", "score", "doc_id"], ascending=[True, False, False], kind="stable")
    return run[run.groupby("query_id", sort=False).cumcount() < k].reset_index(drop=True)
