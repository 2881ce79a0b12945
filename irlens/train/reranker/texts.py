"""Lists as a classifier reads them: prompt and response together, a row of token ids for each response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import pandas as pd
import torch

from irlens.base.errors import UserError
from irlens.rerank.reward import Reader, padded


@dataclass(frozen=True)
class Texts:
    """One list: what the classifier reads of each response (`input_ids`, and what else its tokenizer makes), its grade and
    tier, and by how much the better ones are to lead, where the data say it. starts: at which token each response begins,
    where that was asked for."""

    name: str
    query_id: str
    texts: list[dict[str, list[int]]]
    grades: list[float]
    tiers: list[str]
    margin: float = float("nan")
    starts: tuple[int, ...] = ()

    def blank(self) -> Texts:
        """A list without a candidate, of one token: it fills a pass, and adds nothing."""
        return Texts("no list", "", [{name: ids[:1] for name, ids in self.texts[0].items()}], [], [])

    @property
    def tokens(self) -> int:
        """Tokens that a pass over it reads."""
        return sum(len(one["input_ids"]) for one in self.texts)

    @property
    def longest(self) -> int:
        """Tokens of its longest text."""
        return max(len(one["input_ids"]) for one in self.texts)


def read(lists: pd.DataFrame, reader: Reader, starts: bool = False) -> list[Texts]:
    """One `Texts` per list. Raises UserError for a text that ends with the padding token: its end would not be found.

    starts: whether it is asked where responses begin.
    """
    encoded = reader.encode(lists)
    begins = _begins(lists, encoded, reader) if starts else []
    last = next((i for i, one in enumerate(encoded) if one["input_ids"][-1:] == [reader.pad]), None)
    if last is not None and reader.causal:
        raise UserError(
            f"response {lists['doc_id'].iloc[last]}: its text ends with the token that pads, so a classifier would read its "
            "score at another place; name another one with --pad-token"
        )
    margins = lists["margin"].to_numpy(dtype=float) if "margin" in lists.columns else [float("nan")] * len(lists)
    out, rows = [], lists.reset_index(drop=True)
    for (query_id, number), group in rows.groupby(["query_id", "list"], sort=False):
        texts = [encoded[i] for i in group.index]
        name = f"{query_id}, list {number}"
        grades, tiers = group["grade"].astype(float).tolist(), group["tier"].tolist()
        own = tuple(begins[i] for i in group.index) if starts else ()
        out.append(Texts(name, query_id, texts, grades, tiers, float(margins[group.index[0]]), own))
    return out


def _begins(lists: pd.DataFrame, encoded: list[dict[str, list[int]]], reader: Reader) -> list[int]:
    """How many tokens each text shares with the same prompt and an empty response: where the response begins."""
    once = lists.drop_duplicates("query_id").assign(text="")
    empty = dict(zip(once["query_id"], (one["input_ids"] for one in reader.encode(once))))
    out = []
    for query_id, one in zip(lists["query_id"], encoded):
        pairs = zip(empty[query_id], one["input_ids"])
        out.append(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return out


def collate(some: Sequence[Texts], pad: int) -> dict:
    """A batch: `texts` (rows of all responses, list by list, padded on the right), `names`, `tiers`, [B, L] tensors `grade`
    and `mask`, `margin` [B] where a list has one, and `starts` [rows] where they are known. Blank lists (`Texts.blank`) are
    left out beside others."""
    some = [one for one in some if one.grades] or list(some[:1])
    length = max(1, *(len(one.grades) for one in some))
    batch = {
        "texts": padded([text for one in some for text in one.texts], pad),
        "names": [one.name for one in some],
        "tiers": [one.tiers for one in some],
        "grade": torch.tensor([[*one.grades, *[0.0] * (length - len(one.grades))] for one in some]),
        "mask": torch.tensor([[i < len(one.grades) for i in range(length)] for one in some]),
    }
    if starts := [start for one in some for start in one.starts]:
        batch["starts"] = torch.tensor(starts)
    margin = torch.tensor([one.margin for one in some])
    return batch if margin.isnan().all() else batch | {"margin": margin}
