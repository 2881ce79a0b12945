"""Draws in the store: what names them, which of a call it has, and the shards that these and new ones make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from irlens.base import store as stores
from irlens.base.files import write_parquet
from irlens.base.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from irlens.base.store_index import Span
    from irlens.models.chat import Prompt
    from irlens.retrieve.sample import Asked, Block

KIND = "draws"


def key(prompt: Prompt, temperature: float, named: str) -> bytes:
    """What names the draws of a prompt at a temperature; a draw's number is all that is left. named: what draws them,
    the seed and the longest response."""
    told = json.dumps(asdict(prompt), sort_keys=True, default=repr)
    return stores.key("draw", named, repr(float(temperature) + 0.0), told)


@dataclass(frozen=True)
class Stored:
    """The store as the draws of one call see it."""

    store: Store
    asked: Asked
    folder: Path | None

    def keys(self, block: Block) -> list[bytes]:
        """The key of each of a block's prompts."""
        how = self.asked.draws
        named = json.dumps([how.source, how.made_with, how.seed, how.max_tokens])
        return [key(prompt, block.temperature, named) for prompt in self.asked.prompts[block.q0 : block.q1]]

    @contextmanager
    def claimed(self, block: Block) -> Iterator[bool]:
        """Whether this process is to draw a block: no other one does, and none has drawn a part of it since."""
        if not self.store.on:
            yield True
            return
        spans: list[Span] = [(one, block.d0, block.d1) for one in self.keys(block)]
        if not self.store.claim(spans):
            yield False
            return
        try:
            yield not self.take([block])
        finally:
            self.store.release(spans)

    def take(self, blocks: Sequence[Block]) -> int:
        """How many draws of these blocks the store has; each rectangle of them becomes a shard in the folder."""
        taken = 0
        for block in blocks:
            wanted = [(one, draw) for one in self.keys(block) for draw in range(block.d0, block.d1)]
            rows = self.store.fetch(wanted)
            if rows.empty or not self._are(rows, block):
                continue
            taken += len(rows)
            there = np.zeros((block.q1 - block.q0, block.d1 - block.d0), dtype=bool)
            there.ravel()[rows.index] = True
            for part in rectangles(block, there):
                self._write(rows, block, part)
        self.store.counts["draws found"] += taken
        return taken

    def _are(self, rows: pd.DataFrame, block: Block) -> bool:
        """Whether rows are the draws that their places say; an index that says otherwise is not believed."""
        if not {"query_id", "draw", "temperature"} <= set(rows.columns):
            return False
        width = block.d1 - block.d0
        names = [prompt.query_id for prompt in self.asked.prompts[block.q0 : block.q1]]
        own = [(names[i // width], block.d0 + i % width) for i in rows.index]
        found = list(zip(rows["query_id"], rows["draw"]))
        return own == found and set(rows["temperature"]) == {block.temperature}

    def _write(self, rows: pd.DataFrame, block: Block, part: Block) -> None:
        width = block.d1 - block.d0
        places = [
            (q - block.q0) * width + d - block.d0 for q in range(part.q0, part.q1) for d in range(part.d0, part.d1)
        ]
        path = self.asked.path(self.folder, part)
        write_parquet(rows.loc[places].reset_index(drop=True), path)
        self.store.link(path)

    def keep(self, shard: pd.DataFrame, block: Block) -> None:
        """Takes in a shard that is written, if its rows are in the order in which its places are counted."""
        count = block.d1 - block.d0
        if self.asked.draws.made_with is None or not self._are(shard.reset_index(drop=True), block):
            return
        items = [(one, block.d0, block.d1, i * count) for i, one in enumerate(self.keys(block))]
        self.store.keep(KIND, self.asked.draws.called, self.asked.path(self.folder, block), items)


def rectangles(block: Block, there: np.ndarray) -> Iterator[Block]:
    """The blocks that `there` [prompts, draws] marks in `block`: neighbours with the same draws make one."""
    row = 0
    while row < len(there):
        stop = row + 1
        while stop < len(there) and np.array_equal(there[stop], there[row]):
            stop += 1
        edges = np.flatnonzero(np.diff(np.concatenate([[False], there[row], [False]]).astype(np.int8)))
        for first, last in edges.reshape(-1, 2):
            place = {"q0": block.q0 + row, "q1": block.q0 + stop}
            yield type(block)(block.temperature, **place, d0=block.d0 + int(first), d1=block.d0 + int(last))
        row = stop
