"""The tables that every stage speaks: column contracts, checks with one-line errors, Parquet / TREC / BEIR files.

| table   | columns                                              | more columns where known                                  |
|---------|------------------------------------------------------|-----------------------------------------------------------|
| topics  | query_id, query                                      | messages, answers, solution                               |
| corpus  | doc_id, text                                         | title                                                     |
| run     | query_id, doc_id, score, rank                        | text, tag, temperature, draw, logprob, n_tokens, finish_reason, tokens |
| qrels   | query_id, doc_id, relevance                          |                                                           |
| lists   | query_id, query, doc_id, text, grade, tier, iteration| list, tokens                                              |
| results | measure, value, low, high, n                         | run, cutoff                                               |

Names are ir_measures' own. `tokens` are the ids that were drawn, None where they are not known. Identifiers are strings. In a run, the scores of one query under one `tag` fall strictly
with rank, so that no tool has a tie left to break its own way.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.base.files import read_jsonl, read_lines, write_text

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
            bad = ~frame[column].map(lambda v: isinstance(v, str) and v != "").astype(bool)
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise UserError(
                    f"{where}row {row}: {column} must be a non-empty string, got {frame[column].tolist()[row]!r}"
                )
    for column in NUMBERS:
        if column in COLUMNS[table]:
            numbers = pd.to_numeric(frame[column], errors="coerce")
            bad = ~np.isfinite(numbers.to_numpy(dtype=float, na_value=np.nan))
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise UserError(
                    f"{where}row {row}: {column} must be a finite number, got {frame[column].tolist()[row]!r}"
                )
    if table in ("run", "lists") and "tokens" in frame.columns:
        good = frame["tokens"].map(_are_ids).astype(bool)
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            raise UserError(
                f"{where}row {row}: tokens must be a list of whole numbers of 0 or more, or missing, got "
                f"{frame['tokens'].tolist()[row]!r:.80}"
            )
    if table in KEYS:
        twice = frame.duplicated(KEYS[table])
        if twice.any():
            key = ", ".join(f"{c}={frame[c][twice].iloc[0]}" for c in KEYS[table])
            raise UserError(f"{where}{key} occurs more than once ({int(twice.sum())} repeated rows)")
    return frame


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


# -- files ---------------------------------------------------------------------------------------------------------


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
        frame = _read_parquet(path)
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
        frame = _read_parquet(path)
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
        return check(_read_parquet(path), "lists", str(path))
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
        nested = json.loads(text)
        rows = [(query, doc, number) for query, docs in nested.items() for doc, number in docs.items()]
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: malformed JSON ({error.msg} at column {error.colno})") from error
    except AttributeError as error:
        raise UserError(f"{path}: expected {{query: {{document: {column}}}}}") from error
    return pd.DataFrame(rows, columns=["query_id", "doc_id", column])


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error


def write_trec_run(run: pd.DataFrame, path: Path, tag: str = "irlens") -> None:
    """Writes a run as trec_eval reads it, best first. Raises UserError for an identifier with white space."""
    _no_spaces(run, path)
    tags = run["tag"].astype(str).str.replace(r"\s+", "_", regex=True) if "tag" in run.columns else [tag] * len(run)
    columns = zip(run["query_id"], run["doc_id"], run["rank"], run["score"], tags)
    write_text("".join(f"{q} Q0 {d} {r} {np.float32(s)} {t}\n" for q, d, r, s, t in columns), path)


def write_trec_qrels(qrels: pd.DataFrame, path: Path) -> None:
    """Writes qrels as trec_eval reads them. Raises UserError for an identifier with white space."""
    _no_spaces(qrels, path)
    columns = zip(qrels["query_id"], qrels["doc_id"], qrels["relevance"])
    write_text("".join(f"{q} 0 {d} {r}\n" for q, d, r in columns), path)


def _no_spaces(frame: pd.DataFrame, path: Path) -> None:
    for column in ("query_id", "doc_id"):
        bad = frame[column].str.contains(r"\s", regex=True)
        if bad.any():
            raise UserError(
                f"{path}: {column} {frame[column][bad].iloc[0]!r} has white space, which TREC files cannot hold"
            )


# -- from what is at hand ------------------------------------------------------------------------------------------


def query_id_of(query: str) -> str:
    """The query_id of a prompt that has none: a digest of its text, so that topics and draws of the same prompt meet."""
    return hashlib.blake2b(query.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def topics(
    queries: Sequence[str] | Mapping[str, str] | pd.DataFrame,
    answers: Sequence | None = None,
    messages: Sequence | None = None,
) -> pd.DataFrame:
    """Topics from prompts: texts, or query_id → text, or a frame that holds them already (it is checked and copied).

    answers: for each prompt its right answer, or several of them. messages: for each prompt a chat to answer, instead
    of its text. Prompts without identifiers get `query_id_of` their text. Raises UserError: no prompt, a prompt twice,
    lengths that differ, an identifier or prompt that is no text.
    """
    if isinstance(queries, pd.DataFrame):
        found = queries.copy()
    elif isinstance(queries, Mapping):
        found = pd.DataFrame({"query_id": list(queries), "query": list(queries.values())}, dtype=object)
    else:
        texts = [queries] if isinstance(queries, str) else list(queries)
        bad = next((text for text in texts if not isinstance(text, str)), None)
        if bad is not None:
            raise UserError(f"topics: a prompt must be a text, got {bad!r:.80}")
        found = pd.DataFrame({"query_id": [query_id_of(text) for text in texts], "query": texts}, dtype=object)
    if found.empty:
        raise UserError("topics: no prompt")
    for name, given in (("answers", answers), ("messages", messages)):
        if given is None:
            continue
        if isinstance(given, str) or len(given) != len(found):
            count = "a single text" if isinstance(given, str) else len(given)
            raise UserError(f"topics: {name} must have one entry for each of the {len(found)} prompts, got {count}")
        several = [[one] if isinstance(one, (str, int, float)) else list(one) for one in given]
        found[name] = [[str(a) for a in some] for some in several] if name == "answers" else several
    return check(found, "topics")


def run(draws: Iterable[tuple] | pd.DataFrame, name: str | None = None) -> pd.DataFrame:
    """A run from one's own draws: (query, response) or (query, response, score) each, or a frame.

    A query is a prompt's text (its query_id is `query_id_of` it, as `topics` has it). A frame has a column `query_id`
    or `query` (or `prompt`), and `text` (or `response`, `completion`), and whatever else a run knows, which is kept.
    Scores order a prompt's draws and are its column `reward`; without them the order of the rows is the order of drawing.
    `name` becomes the run's tag. Raises UserError: no draw, a column that is missing, a score that some draws lack.
    """
    if not isinstance(draws, pd.DataFrame):
        rows = [tuple(draw) for draw in draws]
        if any(len(row) not in (2, 3) for row in rows):
            raise UserError("run: a draw is (query, response) or (query, response, score)")
        draws = pd.DataFrame([(*row, None)[:3] for row in rows], columns=["query", "text", "score"], dtype=object)
        if draws["score"].isna().all():
            draws = draws.drop(columns="score")
    found = draws.rename(columns={"prompt": "query", "response": "text", "completion": "text"})
    if found.empty:
        raise UserError("run: no draw")
    missing = [c for c in ("query", "text") if c not in found.columns and not (c == "query" and "query_id" in found)]
    if missing:
        raise UserError(f"run: no column {missing[0]} (found: {', '.join(map(str, draws.columns))})")
    if "query_id" not in found.columns:
        found = found.assign(query_id=[query_id_of(str(query)) for query in found["query"]])
    place = found.groupby("query_id", sort=False).cumcount()
    if "doc_id" not in found.columns:
        found = found.assign(doc_id=[f"{query_id}/{i:05d}" for query_id, i in zip(found["query_id"], place)])
    if "score" in found.columns:
        scores = pd.to_numeric(found["score"], errors="coerce")
        if scores.isna().any():
            raise UserError(
                f"run: {int(scores.isna().sum())} of {len(found)} draws have no score; give all one, or none"
            )
        found = found.assign(score=scores.astype(float))
        found = found if "reward" in found.columns else found.assign(reward=found["score"])
    else:
        found = found.assign(score=0.0 - place, draw=place)
    found = found.assign(rank=0) if name is None else found.assign(rank=0, tag=name)
    return ranked(check(found.reset_index(drop=True), "run"))
