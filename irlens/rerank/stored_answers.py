"""Answers of judges in the store: what one command has paid for, the next one finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base import store as stores
from irlens.rerank.questions import Said

if TYPE_CHECKING:
    from irlens.rerank.questions import Journal, Questions

KIND = "answers"
NAME = "answers.parquet"


def fetch(plan: Questions, journal: Journal) -> int:
    """Puts what the store knows of the plan's questions into the journal; how many that were."""
    store = stores.current()
    missing = [key for key in plan.questions if key not in journal.said]
    found = store.fetch([(stores.key(KIND, key), 0) for key in missing])
    for position, row in found.iterrows():
        told = {name: row[name] for name in ("reason", "answer", "seconds")}
        counts = {name: int(row[name]) for name in ("prompt_tokens", "completion_tokens")}
        journal.add(missing[position], Said(float(row["preference"]), **told, **counts))
    store.counts[f"{KIND} found"] += len(found)
    return len(found)


def keep(plan: Questions, journal: Journal, path: Path) -> None:
    """Writes all answers of the plan to `path`, and gives those with a preference to the store."""
    import pandas as pd

    rows = [{"key": key} | vars(journal.said[key]) for key in plan.questions]
    files.write_parquet(pd.DataFrame(rows).astype({"preference": float}), path)
    items = [(stores.key(KIND, row["key"]), 0, 1, i) for i, row in enumerate(rows) if row["preference"] is not None]
    stores.current().keep(KIND, plan.model, path, items)
