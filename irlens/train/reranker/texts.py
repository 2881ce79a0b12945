"""Lists as a classifier reads them: prompt and response together, a row of token ids for each response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from irlens.base.errors import UserError
from irlens.rerank.reward import Reader, padded


@dataclass(frozen=True)
class Texts:
    """One list: what the classifier reads of each response (`input_ids`, and what else its tokenizer makes), its grade and
    tier, and by how much the better ones are to lead, where the data say it."""

    name: str
    query_id: str
    texts: list[dict[str, list[int]]]
    grades: list[float]
    tiers: list[str]
    margin: float = float("nan")

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


def read(lists: pd.DataFrame, reader: Reader) -> list[Texts]:
    """One `Texts` per list. Raises UserError for a text that ends with the padding token: its end would not be found."""
    encoded = reader.encode(lists)
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
        out.append(Texts(name, query_id, texts, grades, tiers, float(margins[group.index[0]])))
    return out


def collate(some: Sequence[Texts], pad: int) -> dict:
    """A batch: `texts` (rows of all responses, list by list, padded on the right), `names`, `tiers`, [B, L] tensors `grade`
    and `mask`, and `margin` [B] where a list has one. Blank lists (`Texts.blank`) are left out beside others."""
    some = [one for one in some if one.grades] or list(some[:1])
    length = max(1, *(len(one.grades) for one in some))
    batch = {
        "texts": padded([text for one in some for text in one.texts], pad),
        "names": [one.name for one in some],
        "tiers": [one.tiers for one in some],
        "grade": torch.tensor([[*one.grades, *[0.0] * (length - len(one.grades))] for one in some]),
        "mask": torch.tensor([[i < len(one.grades) for i in range(length)] for one in some]),
    }
    margin = torch.tensor([one.margin for one in some])
    return batch if margin.isnan().all() else batch | {"margin": margin}
