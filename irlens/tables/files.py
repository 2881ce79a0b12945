"""Tables as files: Parquet, TREC, BEIR, ranx and JSON lines, read with one-line errors and written atomically."""

import json
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from irlens.base import checksums, jsons
from irlens.base.errors import UserError
from irlens.base.files import read_jsonl, read_lines, write_text
from irlens.tables.contracts import GRADE, check, ranked


def _read_trec(path: Path, columns: tuple[str, ...], form: str) -> pd.DataFrame:
    rows = []
    for number, line in read_lines(path):
        fields = line.split()
        if len(fields) != len(columns):
            raise UserError(f"{path}:{number}: expected {len(columns)} fields ({form}), got {len(fields)}")
        rows.append(fields)
    return pd.DataFrame(rows, columns=list(columns), dtype=object)


def _numeric(frame: pd.DataFrame, column: str, path: Path, kind: str) -> pd.Series:
    numbers = pd.to_numeric(frame[column], errors="coerce")
    bad = numbers.isna()
    if kind == "int64":
        largest = GRADE if column == "relevance" else 2**53
        bad |= (numbers % 1 != 0) | (numbers.abs() > largest)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        what = "a whole number" if kind == "int64" else "a number"
        if kind == "int64" and abs(numbers.iloc[row]) > largest:
            what += f" of at most {largest:,}"
        raise UserError(f"{path}: entry {row + 1}: {column} must be {what}, got {frame[column].tolist()[row]!r}")
    return numbers.astype(kind)


def read_run(path: Path) -> pd.DataFrame:
    """A run from Parquet, from JSON ({query: {document: score}}: BEIR's and ranx's), or a TREC file (anything else).

    Parquet with the columns `q_id, doc_id, score` is ranx's. A TREC line is `query_id Q0 doc_id rank score tag`.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "run.parquet"
    if path.suffix == ".parquet":
        frame = read_parquet(path)
        if "q_id" in frame.columns and "score" in frame.columns:
            frame = _foreign(_from_ranx(frame, "score", path, rank=0))
        return check(frame, "run", str(path))
    if path.name.endswith((".json", ".json.gz")):
        return _foreign(check(_read_nested(path, "score").assign(rank=0), "run", str(path)))
    form = "query_id Q0 doc_id rank score tag"
    frame = _read_trec(path, ("query_id", "Q0", "doc_id", "rank", "score", "tag"), form)
    for column, kind in (("rank", "int64"), ("score", "float64")):
        frame[column] = _numeric(frame, column, path, kind)
    return check(frame.drop(columns="Q0"), "run", str(path))


def _foreign(run: pd.DataFrame) -> pd.DataFrame:
    """`ranked`, of scores in trec_eval's 32 bits: what these cannot tell apart is a tie."""
    with np.errstate(over="ignore"):
        return ranked(run.assign(score=pd.to_numeric(run["score"]).astype(np.float32)))


def read_qrels(path: Path) -> pd.DataFrame:
    """Qrels from Parquet, JSON ({query: {document: relevance}}), a BEIR `.tsv` (query-id, corpus-id, score) or a TREC
    file (`query_id 0 doc_id relevance`). Parquet with the columns `q_id, doc_id, score` is ranx's.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "qrels.parquet"
    if path.suffix == ".parquet":
        frame = read_parquet(path)
        if "q_id" in frame.columns and "score" in frame.columns:
            frame = _from_ranx(frame, "relevance", path)
        return check(frame, "qrels", str(path))
    if path.name.endswith((".json", ".json.gz")):
        frame = _read_nested(path, "relevance")
        frame["relevance"] = _numeric(frame, "relevance", path, "int64")
        return check(frame, "qrels", str(path))
    if path.suffix == ".tsv":
        frame = _read_trec(path, ("query_id", "doc_id", "relevance"), "query-id corpus-id score")
        if len(frame) and frame.iloc[0]["relevance"] == "score":
            frame = frame.iloc[1:].reset_index(drop=True)
    else:
        frame = _read_trec(path, ("query_id", "0", "doc_id", "relevance"), "query_id 0 doc_id relevance").drop(
            columns="0"
        )
    frame["relevance"] = _numeric(frame, "relevance", path, "int64")
    return check(frame, "qrels", str(path))


def read_lists(path: Path) -> pd.DataFrame:
    """Lists from Parquet (or a folder with lists.parquet), or from TRL's preference pairs as JSON lines.

    A pair is prompt, chosen, rejected: texts, or chat messages, of which the last of each is the response and the last
    of the prompt the query. Pairs of one prompt make one list with their texts each once, chosen ones of grade 1 and
    tier "positive", rejected ones of grade 0 and tier "own"; where the file tells query_id, query, chosen_id,
    rejected_id, tier, iteration and list (as irlens writes them), those are kept. Raises UserError, naming the line:
    a key that is missing or of another kind, an empty text, a text that is both chosen and rejected.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "lists.parquet"
    if path.suffix == ".parquet":
        return check(read_parquet(path), "lists", str(path))
    rows: dict[tuple, tuple] = {}
    numbers: dict[str, str] = {}
    for number, row in read_jsonl(path):
        where = f"{path}:{number}"
        prompt, chosen, rejected = (_last_text(row, key, where) for key in ("prompt", "chosen", "rejected"))
        query_id = str(row.get("query_id") or numbers.setdefault(json.dumps(row["prompt"]), f"{path.stem}-{len(numbers):05d}"))  # fmt: skip
        place = (row.get("iteration", 0), row.get("list", 0))
        if not all(type(part) is int for part in place):
            raise UserError(f"{where}: iteration and list must be whole numbers, got {place[0]!r} and {place[1]!r}")
        for text, key, grade, tier in (
            (chosen, "chosen_id", 1.0, "positive"),
            (rejected, "rejected_id", 0.0, str(row.get("tier", "own"))),
        ):
            doc_id = str(row.get(key) or f"{query_id}/{zlib.crc32(text.encode()):08x}")
            entry = (query_id, str(row.get("query", prompt)), doc_id, text, grade, tier, *place)
            if rows.setdefault((query_id, *place, text), entry)[4] != grade:
                raise UserError(f"{where}: the text {text[:60]!r} is both chosen and rejected for this prompt")
    columns = ["query_id", "query", "doc_id", "text", "grade", "tier", "iteration", "list"]
    lists = pd.DataFrame(rows.values(), columns=columns)
    if lists.empty:
        raise UserError(f"{path}: no rows")
    order = lists.groupby(["query_id", "iteration", "list"], sort=False).ngroup()
    ordered = lists.assign(order=order).sort_values(["order", "grade"], ascending=[True, False], kind="stable")
    return check(ordered.drop(columns="order").reset_index(drop=True), "lists", str(path))


def _last_text(row: dict, key: str, where: str) -> str:
    """A text, or the content of the last of some chat messages."""
    value = row.get(key)
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {key} must be a non-empty text or a list of messages, got {row.get(key)!r}")
    return value


def _from_ranx(frame: pd.DataFrame, column: str, path: Path, **more) -> pd.DataFrame:
    """ranx's `q_id, doc_id, score` as ours, checked before its scores are ranked."""
    renamed = frame.rename(columns={"q_id": "query_id", "score": column}).assign(**more)
    return check(renamed, "run" if column == "score" else "qrels", str(path))


def _read_nested(path: Path, column: str) -> pd.DataFrame:
    """{query_id: {doc_id: number}} as rows."""
    text = "\n".join(line for _, line in read_lines(path))
    try:
        nested = jsons.loads(text)
        rows = [(query, doc, number) for query, docs in nested.items() for doc, number in docs.items()]
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: malformed JSON ({error.msg} at column {error.colno})") from error
    except AttributeError as error:
        raise UserError(f"{path}: expected {{query: {{document: {column}}}}}") from error
    return pd.DataFrame(rows, columns=["query_id", "doc_id", column])


def read_parquet(path: Path) -> pd.DataFrame:
    """A Parquet file. Raises UserError, naming it, for one that cannot be read."""
    try:
        return pd.read_parquet(checksums.trusted(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        NotImplementedError,
        RecursionError,
        MemoryError,
    ) as error:
        why = (str(error).splitlines() or [type(error).__name__])[
            0
        ]  # Arrow's, and pandas' of what it notes about a table
        raise UserError(f"{path}: not a readable Parquet file ({why})") from error


def parquet_columns(path: Path) -> list[str]:
    """The names of a Parquet file's columns. Raises UserError, naming it, for one that cannot be read or was changed."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_schema(checksums.trusted(path)).names
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error


def write_trec_run(run: pd.DataFrame, path: Path, tag: str = "irlens") -> None:
    """Writes a run as trec_eval reads it, best first. Raises UserError for an identifier with white space."""
    no_spaces(run, path)
    tags = run["tag"].astype(str).str.replace(r"\s+", "_", regex=True) if "tag" in run.columns else [tag] * len(run)
    columns = zip(run["query_id"], run["doc_id"], run["rank"], run["score"], tags)
    write_text("".join(f"{q} Q0 {d} {r} {np.float32(s)} {t}\n" for q, d, r, s, t in columns), path)


def write_trec_qrels(qrels: pd.DataFrame, path: Path) -> None:
    """Writes qrels as trec_eval reads them. Raises UserError for an identifier with white space."""
    no_spaces(qrels, path)
    columns = zip(qrels["query_id"], qrels["doc_id"], qrels["relevance"])
    write_text("".join(f"{q} 0 {d} {r}\n" for q, d, r in columns), path)


def no_spaces(frame: pd.DataFrame, path: Path) -> None:
    """Raises UserError for an identifier with white space in what is to be written to `path`."""
    for column in ("query_id", "doc_id"):
        bad = frame[column].str.contains(r"\s", regex=True)
        if bad.any():
            raise UserError(
                f"{path}: {column} {frame[column][bad].iloc[0]!r} has white space, which TREC files cannot hold"
            )
