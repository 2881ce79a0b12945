"""The contracts of the tables: their columns, what a valid one is, and the order of a run."""

import numpy as np
import pandas as pd

from irlens.base.errors import UserError

COLUMNS = {
    "topics": ("query_id", "query"),
    "corpus": ("doc_id", "text"),
    "run": ("query_id", "doc_id", "score", "rank"),
    "qrels": ("query_id", "doc_id", "relevance"),
    "lists": ("query_id", "query", "doc_id", "text", "grade", "tier", "iteration"),
    "results": ("measure", "value", "low", "high", "n"),
}
KEYS = {
    "topics": ["query_id"],
    "corpus": ["doc_id"],
    "run": ["query_id", "doc_id"],
    "qrels": ["query_id", "doc_id"],
}
NUMBERS = ("score", "relevance", "grade", "value")
OPTIONAL = ("temperature", "draw", "n_tokens")  # numbers that a run may have; None where they are not known
LARGEST = (
    10**9
)  # of a score or grade: what is beyond is a time or an identifier, and 32 bits do not tell its like apart
LONGEST_ID = 1000  # letters
GRADE = 10_000  # the largest relevance that a measure takes: trec_eval's nDCG works on a table of all grades up to it


def check(frame: pd.DataFrame, table: str, source: str = "") -> pd.DataFrame:
    """`frame` itself if it is a valid `table` (a key of COLUMNS).

    Raises UserError, naming `source`: a missing column, a missing or non-string identifier, a number that is not
    finite, a key that occurs twice.
    """
    where = f"{source or table}: "
    missing = [c for c in COLUMNS[table] if c not in frame.columns]
    if missing:
        raise UserError(
            f"{where}a {table} table needs the columns {', '.join(COLUMNS[table])}; missing: {', '.join(missing)} "
            f"(found: {', '.join(map(str, frame.columns)) or 'none'})"
        )
    for column in ("query_id", "doc_id"):
        if column in COLUMNS[table]:
            cells = frame[column].tolist()
            _all([isinstance(v, str) and v != "" for v in cells], frame[column], where, "a non-empty string")
            short = [len(v) <= LONGEST_ID for v in cells]
            _all(short, frame[column], where, f"a string of at most {LONGEST_ID:,} letters")
    for column in NUMBERS:
        if column in COLUMNS[table]:
            numbers = np.abs(_numbers(frame[column], f"{where}{column}"))
            _all(np.isfinite(numbers), frame[column], where, "a finite number")
            if column != "relevance":  # which measures bound by GRADE
                _all(numbers <= LARGEST, frame[column], where, f"a finite number of at most {LARGEST:,}")
    for column in (name for name in OPTIONAL if table == "run" and name in frame.columns):
        good = np.abs(_numbers(frame[column], f"{where}{column}")) <= LARGEST
        _all(good | frame[column].isna().to_numpy(dtype=bool), frame[column], where, "a finite number")
    if table == "lists" and "text" in frame.columns:
        _all([isinstance(v, str) for v in frame["text"].tolist()], frame["text"], where, "a text")
    if table in ("run", "lists") and "tokens" in frame.columns:
        good = frame["tokens"].map(_are_ids)
        _all(good, frame["tokens"], where, "a list of whole numbers of 0 or more, or missing")
    if table in KEYS:
        twice = frame.duplicated(KEYS[table])
        if twice.any():
            key = ", ".join(f"{c}={frame[c][twice].iloc[0]}" for c in KEYS[table])
            raise UserError(f"{where}{key} occurs more than once ({int(twice.sum())} repeated rows)")
    return frame


def _all(good, column: pd.Series, where: str, what: str) -> None:
    """Raises UserError for the first cell of a column that is not good."""
    bad = np.flatnonzero(~np.asarray(good, dtype=bool))
    if len(bad):
        row = int(bad[0])
        raise UserError(f"{where}row {row}: {column.name} must be {what}, got {column.tolist()[row]!r:.80}")


def _numbers(column: pd.Series, where: str) -> np.ndarray:
    """A column as float64, NaN where a cell is no number. Raises UserError for a type that holds none."""
    try:
        if column.dtype == object:  # texts of digits are no numbers
            column = column.where(column.map(lambda v: isinstance(v, (int, float, np.number))).astype(bool))
        return pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where} must be a number, got {column.dtype}") from error


def _are_ids(value) -> bool:
    """Whether a cell holds token ids, or says that they are not known."""
    if isinstance(value, np.ndarray):
        return value.size == 0 or (value.ndim == 1 and value.dtype.kind in "iu" and value.min() >= 0)
    if isinstance(value, (list, tuple)):
        return all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) and i >= 0 for i in value)
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def ranked(run: pd.DataFrame) -> pd.DataFrame:
    """`run` sorted by score within each query (and tag), with `rank` from 0 and strictly falling float32 scores.

    Tied scores are ordered as trec_eval orders them, the larger doc_id first, then lowered by the smallest step that
    float32 knows: other tools break a tie by file order or the smaller doc_id.
    """
    by = ["query_id", "tag"] if "tag" in run.columns else ["query_id"]
    out = run.assign(score=run["score"].astype(np.float64))  # sorted before the cast, which can make scores equal
    out = out.sort_values([*by, "score", "doc_id"], ascending=[True] * len(by) + [False, False], kind="stable")
    out = out.reset_index(drop=True)
    out["rank"] = out.groupby(by, sort=False, dropna=False).cumcount().astype("int64")
    with np.errstate(over="ignore"):
        scores, ranks = out["score"].to_numpy(dtype=np.float32, copy=True), out["rank"].to_numpy()
    if not np.isfinite(scores).all():
        row = out.iloc[int(np.flatnonzero(~np.isfinite(scores))[0])]
        raise UserError(
            f"run: query_id={row['query_id']}, doc_id={row['doc_id']}: score must be a finite 32-bit number, "
            f"got {row['score']}"
        )
    for i in np.flatnonzero((ranks[1:] > 0) & (np.diff(scores) >= 0)) + 1:
        while i < len(scores) and ranks[i] > 0 and scores[i] >= scores[i - 1]:  # a nudge can reach the next score
            scores[i] = np.nextafter(scores[i - 1], np.float32(-np.inf))
            i += 1
    out["score"] = scores
    return out


def with_queries(run: pd.DataFrame, topics: pd.DataFrame) -> pd.DataFrame:
    """`run` with the text of each topic as `query`, for what reads the question too: rerankers, lists, training."""
    return run.assign(query=run["query_id"].map(dict(zip(topics["query_id"], topics["query"]))).astype(object))


def passage_texts(corpus: pd.DataFrame) -> list[str]:
    """What an encoder reads of each passage: its title, where it has one, and its text (E5's and BEIR's form)."""
    if "title" not in corpus.columns:
        return corpus["text"].tolist()
    titles = corpus["title"].astype(object).where(corpus["title"].notna(), "")
    return [f"{title} {text}" if title else text for title, text in zip(titles, corpus["text"])]
