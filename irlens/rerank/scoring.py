"""What every reranker shares: scores of a run's rows a shard at a time, batches by length, and the run they make."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from irlens import tables
from irlens.base import store as stores
from irlens.base.devices import HERE, Devices
from irlens.base.errors import UserError
from irlens.base.progress import progress_bar
from irlens.models.chat import as_text as as_text
from irlens.models.chat import conversations as conversations
from irlens.rerank.stored import ALONE as ALONE
from irlens.rerank.stored import READ, Stored, plain
from irlens.rerank.stored import TOGETHER as TOGETHER

ROWS = 2048  # rows in one shard, about; what a kill can cost
CHARACTERS = 2**23  # of the texts in one shard, but for a query that has more: ROWS of 4,096, some two million tokens
PARTS, LEAST = (
    32,
    64,
)  # shards that the rows are divided into, so that several devices have work; the fewest rows of one
BATCH_TOKENS = 16_384  # tokens of one batch, padding included, where no batch size is given
REFUSED = "refused"  # column of a scorer's rows: what a server said that would not judge one, "" elsewhere

Scorer = Callable[[pd.DataFrame], "np.ndarray | pd.DataFrame"]  # rows → a score each, or a frame with a column `score`


@dataclass(frozen=True)
class MadeBy:
    """What scores depend on beside the rows: by its content a shard is found again.

    scorer: what makes its scores what they are, such as the digest of its weights. asked: query_id → prompt or conversation.
    stored: whether a score is of its row ALONE or of its query's rows TOGETHER, by which the store in use (`base.store`) is
    asked; None for a scorer whose content cannot be named.
    """

    scorer: Mapping[str, object]
    asked: Mapping[str, object] | None = None
    stored: str | None = None


def score_in_shards(
    run: pd.DataFrame,
    load: Callable[[], Scorer],
    shards: Path | None,
    name: str,
    made_by: MadeBy,
    rows: int = ROWS,
    *,
    say: Callable[[str], None] = print,
    devices: Devices = HERE,
) -> pd.DataFrame:
    """`query_id, doc_id, score` of each row of `run`, in its order, and what else the scorer says of a row.

    Whole queries go to the scorer, about `rows` rows at a time, fewer where texts are long (CHARACTERS); each such shard is
    written to `shards` by rename, named by its content: `made_by` and the rows with their texts. Shards of this content that
    are there are kept, and without a missing one the scorer is not even loaded; others stay where they are, unread. Without
    a folder nothing is kept. devices: whole shards go to their workers, which call `load`: it is to be picklable then. A
    shard that cannot be read or holds other rows is scored again, with a line, as is, without one, a shard with rows that a
    server REFUSED to judge. Raises UserError for a score that is not finite.
    """
    run = run.reset_index(drop=True)
    place = _places(run, rows)
    shard_of = run["query_id"].map(place).to_numpy()
    cut = [run[shard_of == number] for number in range(max(place.values()) + 1)]
    paths = _paths(shards, cut, made_by, say)
    kept = _store(made_by if shards else MadeBy({}), name)
    found: dict[int, pd.DataFrame] = {}
    with Spread(load, devices) as scorer, progress_bar() as progress:
        bar = progress.add_task(f"reranking by {name}", total=len(run), rate="")

        def score(rows: pd.DataFrame) -> pd.DataFrame:
            started = time.monotonic()
            shard = _scored(scorer(rows), rows, name)
            rate = scorer.at_once * len(rows) / (time.monotonic() - started)
            progress.update(bar, rate=f"{rate:,.0f} texts/s")
            return shard

        def keep(number: int) -> None:
            if (shard := _shard(cut[number], paths[number], score, kept, say)) is not None:
                found[number] = shard.set_index(cut[number].index)
                progress.update(bar, advance=len(shard))

        while len(found) < len(cut):
            before = len(found)
            scorer.each(keep, [number for number in range(len(cut)) if number not in found])
            if len(found) == before:  # another process makes what is left
                kept.store.wait()
    return pd.concat([found[number] for number in range(len(cut))]).sort_index()


def _paths(
    shards: Path | None, cut: list[pd.DataFrame], made_by: MadeBy, say: Callable[[str], None]
) -> list[Path | None]:
    """Where the scores of each part are kept; a line says how many files there are no part's."""
    if shards is None:
        return [None] * len(cut)
    paths = [shards / f"{i:06d}-{content_key(part, made_by)}.parquet" for i, part in enumerate(cut)]
    if other := {path.name for path in shards.glob("*.parquet")} - {path.name for path in paths}:
        say(f"{shards}: {len(other):,} files hold scores of other texts or by another scorer; kept, and not read")
    return paths


class Spread:
    """A scorer, loaded when it is first called: here, or one on every device, to which calls from several threads go."""

    def __init__(self, load: Callable[[], Scorer], devices: Devices):
        self._load, self._devices, self._scorer, self._workers = load, devices, None, None
        if not devices.here:
            self._workers = devices.workers(load)
        self.at_once = self._workers.count if self._workers else 1

    def __call__(self, rows: pd.DataFrame) -> np.ndarray | pd.DataFrame:
        if self._workers:
            return self._workers.call("__call__", rows)
        self._scorer = self._scorer or self._load()
        return self._scorer(rows)

    def each(self, work: Callable[[int], None], numbers: Sequence[int]) -> None:
        """`work(number)` of all, as many at once as there are scorers."""
        if self.at_once == 1:
            for number in numbers:
                work(number)
            return
        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                for done in as_completed([pool.submit(work, number) for number in numbers]):
                    done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.close()  # ends the calls in flight, which the pool waits for
                raise

    def close(self) -> None:
        """Frees what it holds."""
        getattr(self._scorer, "close", lambda: None)()
        if self._workers:
            self._workers.close()

    def __enter__(self) -> Spread:
        return self

    def __exit__(self, *error) -> None:
        self.close()


def _shard(
    part: pd.DataFrame, path: Path | None, score: Scorer, kept: Stored, say: Callable[[str], None]
) -> pd.DataFrame | None:
    """The scores of whole queries: at `path`, in the store, or new; None while another process makes them."""
    if path is None:
        return score(part)
    if path.is_file():
        try:
            shard = _read(path, part)
            if REFUSED not in shard.columns or not shard[REFUSED].any():
                return shard
        except UserError as error:
            path.unlink()
            say(f"{error}: deleted, and scored again")
    if kept.shard(part, score, path) is None:
        return None
    return _read(path, part)


def _store(made_by: MadeBy, name: str) -> Stored:
    """The store in use; one that holds nothing for a scorer that is not to be kept."""
    if made_by.stored is None or not stores.current().on:
        return Stored(stores.NONE, "", {}, TOGETHER, name)
    from irlens.models.weights import runs_with

    told = json.dumps([made_by.scorer, runs_with()], sort_keys=True, default=repr)
    return Stored(stores.current(), told, made_by.asked or {}, made_by.stored, name)


def _places(run: pd.DataFrame, rows: int) -> dict[str, int]:
    """query_id → number of its shard: as many queries in each as make `rows` rows, up to CHARACTERS of their texts."""
    texts = run["text"] if "text" in run.columns else pd.Series("", index=run.index)
    told = texts.map(lambda text: len(text) if isinstance(text, str) else 0).groupby(run["query_id"], sort=False)
    rows = max(min(rows, LEAST), min(rows, -(-len(run) // PARTS)))
    group, found, held, characters = max(1, rows // int(told.size().max())), {}, 0, 0
    number = 0
    for query_id, count in told.sum().items():
        if held and (held == group or characters + count > CHARACTERS):
            number, held, characters = number + 1, 0, 0
        found[query_id] = number
        held, characters = held + 1, characters + count
    return found


def content_key(part: pd.DataFrame, made_by: MadeBy) -> str:
    """A short SHA-256 of what scores depend on: the scorer, each row as it reads it, and what each query asked."""
    sha = hashlib.sha256(json.dumps(made_by.scorer, sort_keys=True, default=str).encode())
    columns = [column for column in READ if column in part.columns]
    for row in zip(*(part[column] for column in columns)):
        sha.update(repr((columns, [plain(value) for value in row])).encode("utf-8", "backslashreplace"))
    for query_id in dict.fromkeys(part["query_id"]) if made_by.asked else ():
        sha.update(repr((query_id, made_by.asked.get(query_id))).encode("utf-8", "backslashreplace"))
    return sha.hexdigest()[:16]


def _scored(found: np.ndarray | pd.DataFrame, part: pd.DataFrame, name: str) -> pd.DataFrame:
    """A shard. Raises UserError, naming the row, for a score that is not finite."""
    more = {c: found[c].to_numpy() for c in found} if isinstance(found, pd.DataFrame) else {"score": np.asarray(found)}
    good = np.isfinite(more["score"].astype(np.float64))
    if not good.all():
        bad = part.iloc[int(np.flatnonzero(~good)[0])]
        raise UserError(f"{name}: score not finite for query_id={bad['query_id']}, doc_id={bad['doc_id']}")
    return part[["query_id", "doc_id"]].assign(**more)


def _read(path: Path, part: pd.DataFrame) -> pd.DataFrame:
    try:
        shard = pd.read_parquet(path).astype({"query_id": object, "doc_id": object})
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: a shard that cannot be read ({error})") from error
    if shard["doc_id"].tolist() != part["doc_id"].tolist() or shard["query_id"].tolist() != part["query_id"].tolist():
        raise UserError(f"{path}: holds scores of other rows")
    return shard


def reranked(run: pd.DataFrame, scores: np.ndarray, name: str, refused: np.ndarray | None = None) -> pd.DataFrame:
    """`run` ordered by `scores` [rows], its tag followed by `name`; ties go to the larger doc_id (see `tables.ranked`).

    The column `reward` keeps the scores as they were given: `score` falls strictly, so it no longer shows a tie.
    refused: [rows] what a server said that would not judge one, a column where any has words.
    """
    tag = run["tag"].astype(str) + f", {name}" if "tag" in run.columns else name
    more = {} if refused is None or not refused.any() else {REFUSED: refused}
    return tables.ranked(run.assign(score=scores, reward=scores, tag=tag, **more))


def lists(rows: pd.DataFrame) -> Iterator[np.ndarray]:
    """Positions of the rows of each query and tag: what competes."""
    by = ["query_id", "tag"] if "tag" in rows.columns else ["query_id"]
    yield from rows.groupby(by, sort=False, dropna=False).indices.values()


def need_texts(run: pd.DataFrame, who: str) -> pd.DataFrame:
    """`run` itself. Raises UserError if it does not hold what the candidates say."""
    if "text" not in run.columns:
        raise UserError(f"{who} reads the candidates, but the run has no column text (a TREC file holds none)")
    bad = np.array([not isinstance(text, str) for text in run["text"].tolist()], dtype=bool)
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
    return finished(run) & np.array([text.strip() != "" for text in run["text"].tolist()], dtype=bool)


def grades_of(run: pd.DataFrame, qrels: pd.DataFrame, source: str = "the qrels") -> np.ndarray:
    """[rows] the relevance of each row of a run: what is not judged of a retrieved list is 0, as everywhere in IR.

    Raises UserError: a query of the run that the qrels do not judge, an unjudged draw (of draws each is judged).
    """
    strangers = sorted(set(run["query_id"].unique()) - set(qrels["query_id"].unique()))
    if strangers:
        some = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
        raise UserError(f"{source} do not judge {len(strangers)} of the run's queries ({some})")
    judged = zip(qrels["query_id"].tolist(), qrels["doc_id"].tolist())  # three times quicker than rows of the columns
    known = dict(zip(judged, pd.to_numeric(qrels["relevance"]).tolist()))
    keys = list(zip(run["query_id"].tolist(), run["doc_id"].tolist()))
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
