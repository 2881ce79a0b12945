"""`ultrafeedback`: prompts without answers, what alignment by a reward model starts from."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import pandas as pd

from irlens.base.errors import UserError
from irlens.tables import check
from irlens.tasks import conversations
from irlens.tasks.contract import CHAT_PROMPT, Task, hub_rows, pick_split, query_id

REPO = "RLHFlow/ultrafeedback_iter{}"
PARTS = (1, 2, 3)  # 20,000 prompts each: the paper's iterations, one after the other
SPLITS = ("train",)


def load(split: str | None = None, limit: int | None = None) -> Task:
    """The hub's copy. Raises UserError where it is neither cached nor to be had."""
    split = pick_split(split, SPLITS, "ultrafeedback")
    instead = "instead: --dataset FILE.jsonl with rows of context_messages or prompt, or --dataset facts"
    rows, revisions = [], []
    for part in PARTS:
        if limit is None or len(rows) < limit:
            more, revision = hub_rows(REPO.format(part), f"data/{split}-*.parquet", instead)
            rows += more
            revisions.append(revision)
    return _task(rows, "ultrafeedback", split, limit, ", ".join(revisions), REPO.format("1..3"))


def _task(
    rows: Iterable[tuple[str, dict]], name: str, split: str, limit: int | None, revision: str, source: str
) -> Task:
    topics = []
    for i, (where, row) in enumerate(islice(rows, limit)):
        messages, _ = conversations.of_row(row, where)
        topics.append((query_id(name, split, i), messages[-1]["content"], messages))
    if not topics:
        raise UserError(f"{source}: no rows")
    frame = check(pd.DataFrame(topics, columns=["query_id", "query", "messages"]), "topics", source)
    return Task(name, split, frame, max_prompt_length=CHAT_PROMPT, revision=revision)
