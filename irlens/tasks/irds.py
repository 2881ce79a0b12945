"""Any retrieval collection of ir_datasets by its identifier: queries, judgements, and passages that stay on disk."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pandas as pd

from irlens.base.errors import UserError, did_you_mean
from irlens.tables import check
from irlens.tasks.contract import UNSAFE, Task

ID = re.compile(r"[A-Za-z0-9][\w.+-]*(/[\w.+-]+)+")
WELL_KNOWN = ("beir", "dpr-w100", "mmarco", "msmarco-passage", "msmarco-document", "mr-tydi", "natural-questions")
INSTEAD = "--dataset facts needs no download"


def identifier(dataset: str) -> str | None:
    """The ir_datasets identifier that a name means: `irds:ID`, or anything of the form `a/b`."""
    if dataset.startswith("irds:"):
        return dataset.removeprefix("irds:")
    return dataset if ID.fullmatch(dataset) else None


def is_collection(dataset: str) -> bool:
    """Whether a name begins as some collection of ir_datasets does; `irds:ID` always means one. Without ir_datasets only
    the best-known beginnings are."""
    if dataset.startswith("irds:") or dataset.count("/") != 1:
        return True
    try:
        from ir_datasets import registry
    except ImportError:
        return dataset.split("/")[0] in WELL_KNOWN
    return dataset.split("/")[0] in {key.split("/")[0] for key in registry}


class Passages:
    """The documents of a data set: read as they are needed, in the order of its files."""

    def __init__(self, dataset, name: str):
        self._dataset, self._name = dataset, name
        self._count = _reached(name, dataset.docs_count)

    def __len__(self) -> int:
        return self._count

    @property
    def identity(self) -> str:
        """What tells these documents from others: ir_datasets fixes the files behind a name by their checksums."""
        return f"ir_datasets {self._name}, {self._count} documents"

    def chunks(self, start: int, size: int) -> Iterator[pd.DataFrame]:
        """Corpus tables (doc_id, text, title) of `size` rows from row `start` on."""
        documents = _reached(self._name, self._dataset.docs_iter)
        try:
            documents = iter(documents[start:])  # through the document store where there is one
        except TypeError:
            documents = itertools.islice(documents, start, None)
        while rows := list(itertools.islice(documents, size)):
            yield pd.DataFrame([_passage(row) for row in rows], columns=["doc_id", "text", "title"])

    def frame(self) -> pd.DataFrame:
        """All passages in memory."""
        return pd.concat(self.chunks(0, 100_000), ignore_index=True)


def load_id(name: str, split: str | None = None, limit: int | None = None) -> Task:
    """The first `limit` judged (or answered) queries of a data set, with its passages. `split` is added to the name.

    Raises UserError: ir_datasets is missing, an unknown identifier, one without queries or judgements, no network.
    """
    name = f"{name}/{split}" if split and not name.endswith(f"/{split}") else name
    dataset = _dataset(name)
    for part, has in (
        ("documents", dataset.has_docs()),
        ("queries", dataset.has_queries()),
        ("qrels", dataset.has_qrels()),
    ):
        if not has:
            more = ", ".join(splits(name)) or "none"
            raise UserError(f"{name}: the ir_datasets collection has no {part}; splits of it: {more}")
    judged = _reached(name, lambda: pd.DataFrame([(q.query_id, q.doc_id, q.relevance) for q in dataset.qrels_iter()]))
    if judged.empty:
        raise UserError(f"{name}: no judgements")
    judged.columns = ["query_id", "doc_id", "relevance"]
    judged = judged.groupby(["query_id", "doc_id"], sort=False, as_index=False)["relevance"].max()
    known = set(judged["query_id"])
    queries = _reached(name, lambda: [q for q in dataset.queries_iter() if q.query_id in known][:limit])
    topics = pd.DataFrame(
        [(q.query_id, _text(q), list(getattr(q, "answers", None) or [])) for q in queries],
        columns=["query_id", "query", "answers"],
    )
    if not topics["answers"].map(bool).all():
        topics = topics.drop(columns="answers")
    qrels = judged[judged["query_id"].isin(set(topics["query_id"]))].reset_index(drop=True)
    return Task(
        UNSAFE.sub("-", name),
        name.rpartition("/")[2],
        check(topics, "topics", name),
        corpus=Passages(dataset, name),
        qrels=check(qrels, "qrels", name),
        revision=f"ir_datasets {name}",
    )


def splits(name: str) -> list[str]:
    """The data sets right below `name` that have judgements."""
    registry = _module().registry
    below = (key.removeprefix(f"{name}/") for key in registry if key.startswith(f"{name}/"))
    return sorted(key for key in below if "/" not in key and registry[f"{name}/{key}"].has_qrels())


def _module():
    try:
        import ir_datasets
    except ImportError as error:
        raise UserError(
            f"ir_datasets collections need the extra irlens[ir-datasets], which is not installed; {INSTEAD}"
        ) from error
    return ir_datasets


def _dataset(name: str):
    try:
        return _module().load(name)
    except KeyError:
        known = [key for key in _module().registry if key.split("/")[0] == name.split("/")[0]] or [
            key for key in _module().registry if "/" not in key
        ]
        hint = (
            did_you_mean(name, known)
            if len(known) < 40
            else did_you_mean(name, known).split("known:")[0] + "see ir-datasets.com"
        )
        raise UserError(f"{name}: no such file or folder, and no data set of ir_datasets ({hint})") from None


def _reached(name: str, get):
    """What `get` returns. Raises UserError if it cannot be downloaded."""
    try:
        return get()
    except UserError:
        raise
    except Exception as error:  # the downloader raises what its libraries raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise UserError(f"{name}: ir_datasets cannot read or download it ({reason}); {INSTEAD}") from error


def _text(record) -> str:
    return record.default_text() if hasattr(record, "default_text") else record.text


def _passage(document) -> tuple[str, str, str]:
    text = getattr(document, "text", None)
    return document.doc_id, _text(document) if text is None else text, getattr(document, "title", None) or ""
