"""Contamination: test problems that occur among training prompts, word for word or but for their numbers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
NOT_WORDS = re.compile(r"[^\w]+")


def normal(text: str) -> str:
    """A prompt's words in small letters, one space apart: without punctuation and line breaks. One without any word, such
    as a formula of signs, keeps its signs."""
    return NOT_WORDS.sub(" ", text).strip().lower() or " ".join(text.split())


def masked(text: str) -> str:
    """`normal`, with every number a 0: problems that differ by their numbers only become the same."""
    return normal(NUMBER.sub("0", text))


def shared(train: pd.DataFrame, test: pd.DataFrame, form=normal) -> list[str]:
    """The query_ids of the topics in `test` whose prompt occurs in `train`, both in that form."""
    known = set(map(form, train["query"]))
    return [query_id for query_id, query in zip(test["query_id"], test["query"]) if form(query) in known]


def overlap(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, int]:
    """How many of the problems in `test` occur among the prompts in `train`: 0 of the first kind is expected; of the
    second, templates that both sides share are no more than that."""
    return {
        "training_prompts": len(train),
        "test_problems": len(test),
        "same_text": len(shared(train, test)),
        "same_but_for_numbers": len(shared(train, test, masked)),
    }


def in_words(found: dict[str, dict[str, int]]) -> str:
    """What `overlap` found for each split: `test: 0 of 1,000 problems among 4,000 training prompts, …`."""
    parts = [
        f"{split}: {o['same_text']:,} of {o['test_problems']:,} problems among {o['training_prompts']:,} training prompts "
        f"({o['same_but_for_numbers']:,} but for their numbers)"
        for split, o in found.items()
    ]
    return "; ".join(parts) or "no problems are held out"
