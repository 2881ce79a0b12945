"""How a tier's negatives are chosen: from a prompt's own responses by their order, from other prompts' in rounds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from irlens.negatives.false_negatives import REASONS
from irlens.negatives.text_similarity import without_spacing
from irlens.negatives.tiers import keys

Screen = Callable[[pd.DataFrame], pd.Series]  # query_id, text and other columns of rows → "" or why each may be right
Order = Callable[[str], Iterator[int]]  # query_id → the rows in the order in which they are offered to it


@dataclass
class Used:
    """Texts that already serve: no text is a negative of two prompts (unless `reuse`), and none of one prompt twice."""

    reuse: bool
    taken: set = field(default_factory=set)

    def take(self, query_id: str, text: str) -> bool:
        fresh = self.free(query_id, text)
        self.taken.add((query_id, text) if self.reuse else text)
        return fresh

    def free(self, query_id: str, text: str) -> bool:
        return ((query_id, text) if self.reuse else text) not in self.taken

    def release(self, query_id: str, text: str) -> None:
        self.taken.discard((query_id, text) if self.reuse else text)


@dataclass
class Pool:
    """A tier's candidates by row number: the rows, their texts without white space, and what became of each ("" yet);
    `chosen` has query_id → rows, `why` query_id → what became of all that it could choose from."""

    rows: pd.DataFrame
    texts: list[str]
    fate: np.ndarray
    chosen: dict[str, list[int]] = field(default_factory=dict)
    why: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, pool: pd.DataFrame) -> "Pool":
        rows = pool.reset_index(drop=True)
        fate = np.where(rows["text"].map(lambda text: not text.strip()).astype(bool), "empty", "").astype(object)
        if "finish_reason" in rows.columns:
            fate[(rows["finish_reason"] == "length").to_numpy()] = "unfinished"
        return cls(rows, rows["text"].map(without_spacing).tolist(), fate)

    def open(self) -> pd.DataFrame:
        """The rows of which nothing has become yet."""
        return self.rows[self.fate == ""]


@dataclass
class Shared:
    """What the choices of all tiers share: the prompts, the screen, the positives' own texts ((query_id, text without white
    space)), how many negatives a prompt gets of a tier, and the texts that already serve."""

    queries: pd.DataFrame
    screen: Screen
    own_texts: set[tuple[str, str]]
    per_tier: int
    used: Used


def own(
    pool: Pool, ranked: pd.DataFrame, shared: Shared, below: Callable[[pd.DataFrame], np.ndarray] | None = None
) -> None:
    """Chooses among a prompt's own wrong responses, in the order of `ranked`; below: rows → which stay below a bound."""
    pairs, used = keys(ranked), shared.used
    pool.fate[ranked.index[pairs.duplicated()]] = "duplicate"
    pool.fate[ranked.index[[pair in shared.own_texts for pair in pairs]]] = "a positive's text"
    left = ranked[pool.fate[ranked.index] == ""]
    pool.fate[left.index] = shared.screen(left).to_numpy()
    left = left[pool.fate[left.index] == ""]
    if below is not None:
        pool.fate[left.index[~below(left)]] = "beyond the margin"
        left = left[pool.fate[left.index] == ""]
    choices: dict[str, list[int]] = {}
    for row, query_id in zip(left.index, left["query_id"]):
        choices.setdefault(query_id, []).append(int(row))
    pool.chosen = _in_rounds(choices, pool.texts, shared.per_tier, used)
    serve = {row for rows in pool.chosen.values() for row in rows}
    for query_id, rows in choices.items():
        for row in rows:
            free = used.free(query_id, pool.texts[row])
            pool.fate[row] = "used" if row in serve else "unused" if free else "taken"
    for query_id, fate in zip(pool.rows["query_id"], pool.fate):
        pool.why.setdefault(query_id, set()).add(fate)


def _in_rounds(choices: dict[str, list[int]], texts: list[str], per_tier: int, used: Used) -> dict[str, list[int]]:
    """query_id → up to `per_tier` of its choices (rows, best first), no text twice; all get a first before any a second,
    and as many get a first as can."""
    found: dict[str, list[int]] = {query_id: [] for query_id in choices}
    holder: dict[str, str] = {}
    for turn in range(per_tier):
        for query_id, rows in choices.items():
            if len(found[query_id]) < turn:
                continue
            row = next((row for row in rows if used.take(query_id, texts[row])), None)
            if row is not None:
                found[query_id].append(row)
                holder[texts[row]] = query_id
            elif turn == 0:
                _give_way(query_id, choices, texts, found, holder, used)
    return found


def _give_way(query_id: str, choices: dict, texts: list[str], found: dict, holder: dict, used: Used) -> None:
    """Gives a prompt its first negative by moving others to a text that is free: an augmenting path (Berge 1957)."""
    reached: dict[str, tuple[str, int] | None] = {query_id: None}  # prompt → who would take its text, as which row
    queue = [query_id]
    for prompt in queue:
        for row in choices[prompt]:
            if used.take(prompt, texts[row]):
                while True:
                    found[prompt], holder[texts[row]] = [row], prompt
                    if (taker := reached[prompt]) is None:
                        return
                    prompt, row = taker
            other = holder.get(texts[row])
            if other is not None and other not in reached:
                reached[other] = (prompt, row)
                queue.append(other)


def order_of(pool: pd.DataFrame, neighbours: Mapping[str, Sequence[str]] | None, seed: int) -> Order:
    """query_id → the rows of `pool` in the order in which they are offered to it.

    At random: a start and a stride of the query's own through one shuffled deck, so that no order has to be kept.
    """
    if neighbours is not None:
        rows_of = pool.groupby("query_id").indices
        return lambda query_id: (int(row) for near in neighbours.get(query_id, ()) for row in rows_of.get(near, ()))
    size = len(pool)
    deck = np.random.default_rng(seed).permutation(size)

    def walk(query_id: str) -> Iterator[int]:
        rng = np.random.default_rng([seed, *query_id.encode()])
        start, stride = (int(rng.integers(size)), int(rng.integers(size))) if size else (0, 0)
        while np.gcd(stride, size) > 1:
            stride += 1
        return (int(deck[(start + i * stride) % size]) for i in range(size))

    return walk


def foreign(pool: Pool, order: Order, shared: Shared) -> None:
    """Chooses among other prompts' responses, offered in rounds; what does not suit one stays for all."""
    queries, used = shared.queries, shared.used
    rows = pool.open().index.to_numpy()
    origin, doc_ids, texts = (pool.rows[c].tolist() for c in ("query_id", "doc_id", "text"))
    asked = [_plain(q) for q in pool.rows["query"]] if "query" in pool.rows.columns else [None] * len(pool.rows)
    prompt = {query_id: _plain(query) for query_id, query in zip(queries["query_id"], queries["query"])}
    before, refused = set(used.taken), dict.fromkeys(shared.own_texts, "a positive's text")
    found = pool.chosen = {query_id: [] for query_id in prompt}
    walks, again = {query_id: _others(query_id, prompt, rows, order, origin, asked) for query_id in prompt}, set(prompt)
    for turn in range(1, shared.per_tier + 1):
        while missing := [query_id for query_id in walks if len(found[query_id]) < turn]:
            offers = []
            for query_id in missing:
                for row in walks[query_id]:
                    key = (query_id, pool.texts[row])
                    if key not in refused and used.take(*key):
                        offers.append((query_id, row))
                        break
                else:  # once more from the start: what others were offered and did not keep may be free now
                    del walks[query_id]
                    if query_id in again:
                        again.discard(query_id)
                        walks[query_id] = _others(query_id, prompt, rows, order, origin, asked)
            parts = [(query_id, doc_ids[row], texts[row]) for query_id, row in offers]
            reasons = shared.screen(pd.DataFrame(parts, columns=["query_id", "doc_id", "text"])) if offers else ()
            for (query_id, row), reason in zip(offers, reasons):
                if reason:
                    refused[query_id, pool.texts[row]] = reason
                    used.release(query_id, pool.texts[row])
                else:
                    found[query_id].append(row)
    for query_id in (query_id for query_id, some in found.items() if not some):
        seen = _others(query_id, prompt, rows, order, origin, asked)
        pool.why[query_id] = {refused.get((query_id, pool.texts[row]), "taken") for row in seen}
    _foreign_fates(pool, rows, before, refused)


def _others(query_id: str, prompt: dict, rows, order, origin: list, asked: list) -> Iterator[int]:
    """The rows that are offered to a prompt, in its order: not what answered itself, nor a prompt of the same words."""
    mine = prompt[query_id]
    return (int(r) for r in (rows[i] for i in order(query_id)) if origin[r] != query_id and asked[r] != mine)


def _foreign_fates(pool: Pool, rows, before: set, refused: dict[tuple[str, str], str]) -> None:
    """What became of each text: it serves a prompt, an earlier tier took it, it suited none that it was offered to, or it
    was not needed; its other rows are duplicates."""
    serve = {pool.texts[row] for some in pool.chosen.values() for row in some}
    reasons: dict[str, str] = {}
    for (_, text), reason in refused.items():
        if reason in REASONS:
            reasons.setdefault(text, reason)
    seen: set[str] = set()
    for row in rows:
        text = pool.texts[row]
        fate = "used" if text in serve else "taken" if text in before else reasons.get(text, "unused")
        pool.fate[row] = "duplicate" if text in seen else fate
        seen.add(text)


def _plain(query: str) -> str:
    return " ".join(query.split()).lower()
