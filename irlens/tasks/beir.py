"""BEIR folders (`corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv`), and relevance by answer strings as in DPR."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import regex

from irlens.base.errors import UserError
from irlens.base.files import read_jsonl, read_lines
from irlens.tables import check
from irlens.tasks.contract import Task, digest, folder_name, pick_split, split_files

TSV = re.compile(r"\.tsv(\.gz)?$")

# -- folders -------------------------------------------------------------------------------------------------------


def is_folder(path: Path) -> bool:
    """Whether `path` holds a BEIR corpus."""
    return _file(path, "corpus.jsonl") is not None


def load_folder(path: Path, split: str | None = None, limit: int | None = None) -> Task:
    """The first `limit` judged queries of a split (in the order of queries.jsonl), their qrels, the whole corpus."""
    corpus_file, queries_file = _file(path, "corpus.jsonl"), _file(path, "queries.jsonl")
    if queries_file is None:
        raise UserError(f"{path}: a BEIR folder needs queries.jsonl (or queries.jsonl.gz)")
    splits = split_files(path / "qrels", TSV)
    if not splits:
        raise UserError(f"{path}: a BEIR folder needs qrels/SPLIT.tsv (or .tsv.gz)")
    split = pick_split(split, splits, str(path))
    corpus = pd.DataFrame(
        [(i, row["text"], row["title"]) for i, row in _entries(corpus_file)], columns=["doc_id", "text", "title"]
    )
    queries = dict(_entries(queries_file))
    qrels = _read_qrels(splits[split], set(queries), set(corpus["doc_id"]))
    judged = set(qrels["query_id"])
    topics = pd.DataFrame(
        [(i, row["text"], row["answers"]) for i, row in queries.items() if i in judged][:limit],
        columns=["query_id", "query", "answers"],
    )
    if not topics["answers"].map(bool).any():
        topics = topics.drop(columns="answers")
    qrels = qrels[qrels["query_id"].isin(set(topics["query_id"]))].reset_index(drop=True)
    return Task(
        folder_name(path),
        split,
        check(topics, "topics"),
        corpus=check(corpus, "corpus"),
        qrels=check(qrels, "qrels"),
        revision=digest(corpus_file, queries_file, splits[split]),
    )


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _entries(path: Path) -> Iterator[tuple[str, dict]]:
    """(identifier, {text, title, answers}) of a corpus or queries file, every row checked."""
    seen = {}
    for number, row in read_jsonl(path):
        where, key = f"{path}:{number}", row.get("_id")
        if not isinstance(key, str) or not key or re.search(r"\s", key):
            raise UserError(f"{where}: _id must be a non-empty string without white space, got {key!r}")
        if key in seen:
            raise UserError(f"{where}: _id {key!r} occurs again (first on line {seen[key]})")
        seen[key] = number
        title = row.get("title") or ""
        if not isinstance(row.get("text"), str) or not isinstance(title, str):
            raise UserError(f"{where}: text must be a string, and so must title if present")
        metadata = row.get("metadata")
        answers = metadata.get("answers") or [] if isinstance(metadata, dict) else []
        if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
            raise UserError(f"{where}: metadata.answers must be a list of strings")
        yield key, {"text": row["text"], "title": title, "answers": answers}
    if not seen:
        raise UserError(f"{path}: no rows")


def _read_qrels(path: Path, queries: set[str], documents: set[str]) -> pd.DataFrame:
    rows = {}
    for number, line in read_lines(path):
        where, fields = f"{path}:{number}", line.split()
        if len(fields) != 3:
            raise UserError(f"{where}: expected 3 fields (query-id corpus-id score), got {len(fields)}")
        if number == 1 and fields[2] == "score":
            continue
        query, document, grade = fields
        if not re.fullmatch(r"[-+]?[0-9]{1,9}", grade):
            raise UserError(f"{where}: score must be a whole number, got {grade!r}")
        if query not in queries:
            raise UserError(f"{where}: query {query!r} is not in queries.jsonl")
        if document not in documents:
            raise UserError(f"{where}: document {document!r} is not in corpus.jsonl")
        if (query, document) in rows:
            raise UserError(f"{where}: query {query!r} and document {document!r} are judged twice")
        rows[query, document] = int(grade)
    if not rows:
        raise UserError(f"{path}: no rows")
    return pd.DataFrame([(*key, grade) for key, grade in rows.items()], columns=["query_id", "doc_id", "relevance"])


# -- answers -------------------------------------------------------------------------------------------------------

TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")


def _tokens(text: str) -> str:
    """DPR's tokens, lower-cased, each between two spaces: token runs are then substrings."""
    tokens = TOKEN.findall(unicodedata.normalize("NFD", text))
    return f" {' '.join(tokens).lower()} " if tokens else ""


def has_answer(answers: Iterable[str], text: str) -> bool:
    """Whether the tokens of an answer occur in a row in `text`: DPR's rule for a hit. An empty answer never does."""
    tokens = _tokens(text)
    return any(answer and answer in tokens for answer in map(_tokens, answers))


def answer_qrels(run: pd.DataFrame, topics: pd.DataFrame, corpus: pd.DataFrame) -> pd.DataFrame:
    """Qrels for each (query, document) of a run: 1 if the document's text (not its title) has an answer, else 0.

    Raises UserError for a query without answers or a document that the corpus lacks.
    """
    if missing := {"query_id", "doc_id"} - set(run.columns):
        raise UserError(f"run: missing columns: {', '.join(sorted(missing))}")
    if "answers" not in topics.columns:
        raise UserError("topics: no column answers, so documents cannot be judged by answer strings")
    pairs = run[["query_id", "doc_id"]].drop_duplicates().reset_index(drop=True)
    wanted = {
        query: list(filter(None, map(_tokens, answers)))
        for query, answers in zip(topics["query_id"], topics["answers"])
    }
    used = corpus[corpus["doc_id"].isin(set(pairs["doc_id"]))]
    texts = {document: _tokens(text) for document, text in zip(used["doc_id"], used["text"])}
    for column, known, table in (("query_id", wanted, "topics"), ("doc_id", texts, "corpus")):
        if missing := set(pairs[column]) - set(known):
            raise UserError(f"run: {column} {min(missing)!r} is not in the {table} ({len(missing)} such)")
    if bare := [query for query in pairs["query_id"].unique() if not wanted[query]]:
        raise UserError(f"topics: query {bare[0]!r} has no answers ({len(bare)} such in the run)")
    relevance = [
        int(any(answer in texts[document] for answer in wanted[query]))
        for query, document in zip(pairs["query_id"], pairs["doc_id"])
    ]
    return check(pairs.assign(relevance=pd.Series(relevance, dtype="int64")), "qrels")
