"""Stage `index`: a corpus encoded by a sentence encoder, and an index over the vectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError, did_you_mean
from irlens.base.files import digest
from irlens.base.options import at_least
from irlens.base.untrusted import file_name
from irlens.commands.folder import OutputFolder
from irlens.commands.settings import Index, Recall
from irlens.models import catalog
from irlens.models.load import quiet_if_small
from irlens.retrieve.policy import Say

if TYPE_CHECKING:
    from irlens.retrieve.dense import Dense
    from irlens.retrieve.encoder import DenseEncoder
    from irlens.retrieve.index import Search
    from irlens.tasks.contract import Task


def index(settings: Index, say: Say = print) -> tuple[Path, dict]:
    """Encodes the corpus and builds the index; returns the folder and what the manifest says of it.

    The folder holds vectors/ (shards), one .faiss file per index type, and the manifest with the encoder, its digest,
    the dimension, the prompts and the normalisation. A second index type uses the same vectors.
    """
    from irlens import tasks

    if settings.retriever == "bm25":
        raise UserError("bm25 needs no index on disk: `irlens recall --retriever bm25` makes it in memory")
    task = with_corpus(tasks.load(settings.dataset))
    prepared = prepare(settings, task)
    built = prepared.build(settings, task, Path(settings.out) if settings.out else None, say)
    return built.folder, built.facts


def with_corpus(task: Task) -> Task:
    """`task` if there is something to retrieve from."""
    if task.corpus is None:
        raise UserError(f"data set {task.name!r} has no corpus to retrieve from; use facts, nq or a BEIR folder")
    if not len(task.corpus):
        raise UserError(f"data set {task.name!r}: the corpus is empty")
    return task


@dataclass(frozen=True)
class Built:
    """An index that is ready: where it is, what searches it, and what the manifest says of it."""

    folder: Path
    retriever: Dense
    facts: dict


@dataclass(frozen=True)
class Prepared:
    """An encoder whose files are at hand and whose settings are checked: nothing is written yet."""

    chosen: catalog.Encoder
    files: Path
    encoder: DenseEncoder
    search: Search

    @cached_property
    def digest(self) -> str:
        """Of the encoder's files."""
        return digest(self.files)

    def output(self, settings: Index | Recall, task: Task, out: Path | None) -> OutputFolder:
        """The index's folder, with what makes the vectors what they are: another encoder is another digest."""
        kept = self.made_by(settings) | {
            "store": settings.vector_dtype,
            "shard_size": settings.shard_size,
            "dataset": task.name,
            "data": corpus_revision(task),
        }
        folder = out or default_index_folder(Path("irlens-out"), self.chosen.name, task.name)
        return OutputFolder(folder, "index", kept)

    def made_by(self, settings: Index | Recall) -> dict:
        """What makes a text's vector what it is."""
        return {
            "encoder_digest": self.digest,
            "dimension": self.encoder.dimension,
            "prompts": self.encoder.prompts(),
            "normalize": self.encoder.normalize,
            "dtype": settings.dtype,
        }

    def build(self, settings: Index | Recall, task: Task, out: Path | None, say: Say) -> Built:
        """Encodes what is not encoded yet into `out` and opens the index."""
        from irlens.retrieve.corpus import encode_corpus
        from irlens.retrieve.dense import Dense
        from irlens.retrieve.index import Index as OpenIndex
        from irlens.retrieve.vectors import Vectors

        with self.output(settings, task, out) as output:
            folder = output.path
            how = {"store": settings.vector_dtype, "say": say, "shard": settings.shard_size}
            made_by = self.made_by(settings)
            key = encode_corpus(lambda: self.encoder, task.corpus, folder / "vectors", made_by=made_by, **how)
            vectors = Vectors(folder / "vectors", key)
            _ = vectors.doc_ids  # refuses identifiers that occur twice
            if len(vectors) != len(task.corpus):
                raise UserError(f"{folder}: {len(vectors):,} vectors for {len(task.corpus):,} passages; delete it")
            opened = OpenIndex(vectors, settings.index, self.search, say).open(
                settings.train_size, settings.seed_of("index")
            )
            files = [path for path in (folder / "vectors", opened.path) if path.exists()]
            facts = {
                "encoder": self.chosen.name,
                "vectors": key,
                **opened.facts(),
                "encoder_files": str(self.files),
                "bytes_on_disk": sum(map(_bytes, files)),
            }
            output.note(**facts)
        return Built(folder, Dense(self.encoder, index=opened), facts)


def prepare(settings: Index | Recall, task: Task, name: str | None = None) -> Prepared:
    """What can fail before a folder is made: options, the encoder's files, the encoder itself."""
    from irlens.retrieve.encoder import DTYPES, DenseEncoder
    from irlens.retrieve.index import Search, check_factory

    at_least(1, shard_size=settings.shard_size, processes=settings.processes)
    at_least(1, batch_size=settings.batch_size, train_size=settings.train_size)
    for option, value in (("--dtype", settings.dtype), ("--vector-dtype", settings.vector_dtype)):
        allowed = DTYPES if option == "--dtype" else DTYPES[:2]
        if value not in allowed:
            raise UserError(f"{option} {value!r}; {did_you_mean(value, allowed)}")
    search = Search(*(getattr(settings, option, None) for option in ("nprobe", "ef_search", "refine")))
    at_least(1, **vars(search))
    chosen = catalog.encoder(name or settings.retriever)
    given = {k: getattr(settings, k) for k in ("query_prompt", "passage_prompt") if getattr(settings, k) is not None}
    if given:
        from dataclasses import replace

        chosen = replace(chosen, **given)
    files = catalog.fetch(chosen)
    quiet_if_small(files)
    options = {"processes": settings.processes, "batch_size": settings.batch_size, "dtype": settings.dtype}
    loaded = DenseEncoder.load(chosen, files, **options)
    check_factory(settings.index, search, len(task.corpus), loaded.dimension)
    return Prepared(chosen, files, loaded, search)


def default_index_folder(beside: Path, retriever: str, dataset: str) -> Path:
    """Where an index is kept unless another folder is named: beside the output of `recall`."""
    return beside / f"index-{file_name(retriever)}-{file_name(dataset)}"


def corpus_revision(task: Task) -> str:
    """What identifies the corpus: of a BEIR folder the digest of corpus.jsonl, so that splits share an index."""
    return next((part for part in task.revision.split(", ") if part.startswith("corpus.jsonl")), task.revision)


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
