"""Scores in the store: what names a row's score, which of a shard it has, and what a new shard adds to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from irlens.base import files
from irlens.base import store as stores
from irlens.base.store import Store

KIND = "scores"
ALONE, TOGETHER = "alone", "together"  # a score is of its row; of the rows of its query, all that the scorer is given
READ = ("query_id", "doc_id", "tag", "title", "text", "tokens", "finish_reason")  # columns that a scorer may read
OF_A_ROW = ("query_id", "title", "text", "tokens", "finish_reason")  # those of one that scores rows alone


@dataclass(frozen=True)
class Stored:
    """The store as a scorer's rows see it.

    made_by: what makes the scorer's numbers what they are. asked: query_id → what it asked. keyed: ALONE or TOGETHER.
    """

    store: Store
    made_by: str
    asked: Mapping[str, object]
    keyed: str
    called: str

    def keys(self, part: pd.DataFrame) -> list[tuple[bytes, int]]:
        """(key, number) of each row of a shard: of rows alone the number is 0, else the place in the query's rows."""
        columns = [c for c in (OF_A_ROW if self.keyed == ALONE else READ) if c in part.columns]
        rows = [tuple(map(plain, row)) for row in zip(*(part[column] for column in columns))]
        names = part["query_id"].tolist()
        if self.keyed == ALONE:
            return [(self._key(name, columns, row), 0) for name, row in zip(names, rows)]
        lists: dict[str, list] = {}
        for name, row in zip(names, rows):
            lists.setdefault(name, []).append(row)
        keys, out, place = {name: self._key(name, columns, some) for name, some in lists.items()}, [], {}
        for name in names:
            place[name] = place.get(name, -1) + 1
            out.append((keys[name], place[name]))
        return out

    def _key(self, query_id: str, columns: list[str], content: object) -> bytes:
        return stores.key("score", self.keyed, self.made_by, query_id, self.asked.get(query_id), columns, content)

    def shard(
        self, part: pd.DataFrame, score: Callable[[pd.DataFrame], pd.DataFrame], path: Path
    ) -> pd.DataFrame | None:
        """The shard of `part`, written to `path`: of what the store has, and of what `score` says of the other rows.
        None while another process makes some of it."""
        if not self.store.on:
            return _written(part, score(part), path)
        keys = self.keys(part)
        known, rest = self._whole(part, self._known(part, keys))
        if not rest:
            self.store.counts["scores found"] += len(part)
            shard = _written(part, known, path)
            self.store.link(path)
            return shard
        spans = sorted({(keys[i][0], keys[i][1], keys[i][1] + 1) for i in rest})
        if not self.store.claim(spans):
            return None
        try:
            known, rest = self._whole(part, self._known(part, keys))  # as others may have made it since
            if rest:
                new = score(part.iloc[rest])
                if len(known) and list(known.columns) != list(new.columns):  # by another version of the scorer
                    known, rest, new = known.iloc[:0], list(range(len(part))), score(part)
                known = pd.concat([known, new.set_axis(rest)]).sort_index() if len(known) else new.set_axis(rest)
            self.store.counts["scores found"] += len(part) - len(rest)
            shard = _written(part, known, path)
            self.store.keep(KIND, self.called, path, [(*keys[i], keys[i][1] + 1, i) for i in rest])
        finally:
            self.store.release(spans)
        return shard

    def _known(self, part: pd.DataFrame, keys: list[tuple[bytes, int]]) -> pd.DataFrame:
        """What the store has of a shard's rows, by their places; an index that says other queries is not believed."""
        known = self.store.fetch(keys)
        if len(known) and not {"query_id", "score"} <= set(known.columns):
            return known.iloc[:0]
        if len(known) and known["query_id"].tolist() != part["query_id"].iloc[known.index].tolist():
            return known.iloc[:0]
        return known

    def _whole(self, part: pd.DataFrame, known: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
        """(what is known, the places of the rows that are to be scored): where scores hold together, of whole queries."""
        there = np.zeros(len(part), dtype=bool)
        there[known.index] = True
        if self.keyed == TOGETHER:
            there = pd.Series(there).groupby(part["query_id"].to_numpy()).transform("all").to_numpy()
        return known[there[known.index]], np.flatnonzero(~there).tolist()


def _written(part: pd.DataFrame, scores: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A shard with the rows of `part` and their scores, as it stands at `path`."""
    more = {column: scores[column].to_numpy() for column in scores if column not in ("query_id", "doc_id")}
    shard = part[["query_id", "doc_id"]].assign(**more)
    files.write_parquet(shard, path)
    return shard


def plain(value):
    """A cell as it is hashed: the same in memory and read back from Parquet."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [int(number) for number in value]
    return None if value is pd.NA or value != value else value
