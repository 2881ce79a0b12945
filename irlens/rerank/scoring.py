"""What every reranker shares: scores of a run's rows a shard at a time, batches by length, and the run they make."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from irlens import tables
from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.progress import progress_bar
from irlens.models.chat import as_text as as_text
from irlens.models.chat import conversations as conversations

ROWS = 2048  # rows in one shard, about; what a kill can cost
CHARACTERS = 2**23  # of the texts in one shard, but for a query that has more: ROWS of 4,096, some two million tokens
READ = ("query_id", "doc_id", "tag", "title", "text", "tokens", "finish_reason")  # columns that a scorer may read
BATCH_TOKENS = 16_384  # tokens of one batch, padding included, where no batch size is given

Scorer = Callable[[pd.DataFrame], "np.ndarray | pd.DataFrame"]  # rows → a score each, or a frame with a column `score`


def score_in_shards(
    run: pd.DataFrame,
    load: Callable[[], Scorer],
    shards: Path | None,
    name: str,
    rows: int = ROWS,
    unit: str = "responses",
    *,
    made_by: Mapping[str, object],
    asked: Mapping[str, object] | None = None,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """`query_id, doc_id, score` of each row of `run`, in its order, and what else the scorer says of a row.

    Whole queries go to the scorer, about `rows` rows at a time, fewer where texts are long (CHARACTERS); each such shard is written to `shards` by rename, named
    by its content: the scorer (`made_by`: what makes its scores what they are, such as the digest of its weights), the
    rows with their texts, and what each query asked (`asked`: query_id → prompt or conversation). Shards of this content
    that are there are kept, and without a missing one the scorer is not even loaded; others stay where they are, unread.
    Without a folder nothing is kept. Raises UserError: a score that is not finite, a shard that cannot be read or belongs to other rows.
    """
    run = run.reset_index(drop=True)
    place = _places(run, rows)
    shard_of = run["query_id"].map(place).to_numpy()
    cut = [run[shard_of == number] for number in range(max(place.values()) + 1)]
    paths = [shards and shards / f"{i:06d}-{content_key(part, made_by, asked)}.parquet" for i, part in enumerate(cut)]
    if shards and (other := {path.name for path in shards.glob("*.parquet")} - {path.name for path in paths}):
        say(f"{shards}: {len(other):,} files hold scores of other texts or by another scorer; kept, and not read")
    parts, scorer = [], None
    try:
        with progress_bar() as progress:
            bar = progress.add_task(f"reranking by {name}", total=len(run), rate="")
            for part, path in zip(cut, paths):
                shard = None
                if path is None or not path.is_file():
                    scorer = scorer or load()
                    started = time.monotonic()
                    shard = _scored(scorer(part), part, name)
                    progress.update(bar, rate=f"{len(part) / (time.monotonic() - started):,.0f} {unit}/s")
                if path is not None:
                    shard = _kept(shard, path, part)
                parts.append(shard.set_index(part.index))
                progress.update(bar, advance=len(part))
    finally:
        getattr(scorer, "close", lambda: None)()
    return pd.concat(parts).sort_index()


def _places(run: pd.DataFrame, rows: int) -> dict[str, int]:
    """query_id → number of its shard: as many queries in each as make `rows` rows, up to CHARACTERS of their texts."""
    texts = run["text"] if "text" in run.columns else pd.Series("", index=run.index)
    told = texts.map(lambda text: len(text) if isinstance(text, str) else 0).groupby(run["query_id"], sort=False)
    group, found, held, characters = max(1, rows // int(told.size().max())), {}, 0, 0
    number = 0
    for query_id, count in told.sum().items():
        if held and (held == group or characters + count > CHARACTERS):
            number, held, characters = number + 1, 0, 0
        found[query_id] = number
        held, characters = held + 1, characters + count
    return found


def content_key(part: pd.DataFrame, made_by: Mapping[str, object], asked: Mapping[str, object] | None = None) -> str:
    """A short SHA-256 of what scores depend on: the scorer, each row as it reads it, and what each query asked."""
    sha = hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode())
    columns = [column for column in READ if column in part.columns]
    for row in zip(*(part[column] for column in columns)):
        sha.update(repr((columns, [_plain(value) for value in row])).encode("utf-8", "backslashreplace"))
    for query_id in dict.fromkeys(part["query_id"]) if asked else ():
        sha.update(repr((query_id, asked.get(query_id))).encode("utf-8", "backslashreplace"))
    return sha.hexdigest()[:16]


def _plain(value):
    """A cell as it is hashed: the same in memory and read back from Parquet."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [int(number) for number in value]
    return None if value is pd.NA or value != value else value


def _scored(found: np.ndarray | pd.DataFrame, part: pd.DataFrame, name: str) -> pd.DataFrame:
    """A shard. Raises UserError, naming the row, for a score that is not finite."""
    more = {c: found[c].to_numpy() for c in found} if isinstance(found, pd.DataFrame) else {"score": np.asarray(found)}
    good = np.isfinite(more["score"].astype(np.float64))
    if not good.all():
        bad = part.iloc[int(np.flatnonzero(~good)[0])]
        raise UserError(f"{name}: score not finite for query_id={bad['query_id']}, doc_id={bad['doc_id']}")
    return part[["query_id", "doc_id"]].assign(**more)


def _kept(shard: pd.DataFrame | None, path: Path, part: pd.DataFrame) -> pd.DataFrame:
    """The shard at `path`, written first if it is new: what is used is what the file says."""
    if shard is not None:
        files.write_parquet(shard, path)
    return _read(path, part)


def _read(path: Path, part: pd.DataFrame) -> pd.DataFrame:
    try:
        shard = pd.read_parquet(path).astype({"query_id": object, "doc_id": object})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: a shard that cannot be read ({error}); delete it and run again") from error
    if shard["doc_id"].tolist() != part["doc_id"].tolist() or shard["query_id"].tolist() != part["query_id"].tolist():
        raise UserError(f"{path}: holds scores of other rows; delete it, or choose another --out")
    return shard


def reranked(run: pd.DataFrame, scores: np.ndarray, name: str) -> pd.DataFrame:
    """`run` ordered by `scores` [rows], its tag followed by `name`; ties go to the larger doc_id (see `tables.ranked`).

    The column `reward` keeps the scores as they were given: `score` falls strictly, so it no longer shows a tie.
    """
    tag = run["tag"].astype(str) + f", {name}" if "tag" in run.columns else name
    return tables.ranked(run.assign(score=scores, reward=scores, tag=tag))


def lists(rows: pd.DataFrame) -> Iterator[np.ndarray]:
    """Positions of the rows of each query and tag: what competes."""
    by = ["query_id", "tag"] if "tag" in rows.columns else ["query_id"]
    yield from rows.groupby(by, sort=False, dropna=False).indices.values()


def need_texts(run: pd.DataFrame, who: str) -> pd.DataFrame:
    """`run` itself. Raises UserError if it does not hold what the candidates say."""
    if "text" not in run.columns:
        raise UserError(f"{who} reads the candidates, but the run has no column text (a TREC file holds none)")
    bad = ~run["text"].map(lambda text: isinstance(text, str)).astype(bool)
    if bad.any():
        row = run[bad].iloc[0]
        raise UserError(f"{who}: query_id={row['query_id']}, doc_id={row['doc_id']}: text is missing")
    return run


def finished(run: pd.DataFrame) -> np.ndarray:
    """Whether each response ended by itself [rows]; a run that does not say so holds finished texts."""
    if "finish_reason" not in run.columns:
        return np.ones(len(run), dtype=bool)
    return (run["finish_reason"] != "length").to_numpy(dtype=bool)


def usable(run: pd.DataFrame) -> np.ndarray:
    """Whether each response says something [rows]: it is finished and not empty."""
    return finished(run) & run["text"].map(lambda text: text.strip() != "").to_numpy(dtype=bool)


def grades_of(run: pd.DataFrame, qrels: pd.DataFrame, source: str = "the qrels") -> np.ndarray:
    """[rows] the relevance of each row of a run: what is not judged of a retrieved list is 0, as everywhere in IR.

    Raises UserError: a query of the run that the qrels do not judge, an unjudged draw (of draws each is judged).
    """
    strangers = sorted(set(run["query_id"]) - set(qrels["query_id"]))
    if strangers:
        some = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
        raise UserError(f"{source} do not judge {len(strangers)} of the run's queries ({some})")
    known = dict(zip(zip(qrels["query_id"], qrels["doc_id"]), pd.to_numeric(qrels["relevance"])))
    keys = list(zip(run["query_id"], run["doc_id"]))
    if "draw" in run.columns:
        missing = [key for key in keys if key not in known]
        if missing:
            raise UserError(f"{source} do not judge {len(missing)} draws of the run, such as {missing[0][1]}")
    return np.array([known.get(key, 0) for key in keys], dtype=np.float64)


def batches(lengths: Sequence[int], batch_size: int | None, tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Positions in batches of similar length, longest first: `batch_size` of them, or as many as `tokens` holds."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = batch_size or max(1, tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size
