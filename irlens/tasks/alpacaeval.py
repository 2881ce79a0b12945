"""`alpacaeval`: the 805 prompts of AlpacaEval 2, its baseline's answers, and the two files of its length control.

Source: the data set tatsu-lab/alpaca_eval of the hub (CC BY-NC 4.0), whose files are read as they are.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from irlens.base.errors import UserError
from irlens.tables import check
from irlens.tasks.contract import Task, pick_split, query_id

NAME = "alpacaeval"
REPO = "tatsu-lab/alpaca_eval"
SPLITS = ("test",)
FILES = {  # option of `winrate` → the file that `alpacaeval` means there
    "baseline": "alpaca_eval_gpt4_baseline.json",
    "difficulty": "instruction_difficulty.csv",
    "gamed": "df_gamed.csv",
}


def load(split: str | None = None, limit: int | None = None) -> Task:
    """The hub's copy. Raises UserError where it is neither cached nor to be had, or is another file than it was."""
    from irlens.tables.formats.rows import rows

    split, path = pick_split(split, SPLITS, NAME), file("baseline")
    texts = []
    for where, row in rows(path):
        if not isinstance(row.get("instruction"), str) or not row["instruction"].strip():
            raise UserError(
                f"{where}: instruction must be a text that is not blank, got {row.get('instruction')!r:.60}"
            )
        texts.append(row["instruction"])
    asked = [(query_id(NAME, split, i), text) for i, text in enumerate(texts[:limit])]
    topics = check(pd.DataFrame(asked, columns=["query_id", "query"]), "topics", str(path))
    return Task(NAME, split, topics, revision=f"{REPO}@{path.parent.name}")


def file(option: str) -> Path:
    """The published file that an option of `winrate` means by `alpacaeval`. Raises UserError where it is not to be had."""
    from irlens.models import hub

    name = FILES[option]
    found = hub.snapshot(REPO, "dataset", f"instead: --{option} FILE", allow_patterns=[name]) / name
    if not found.is_file():
        raise UserError(f"{REPO} (dataset on the Hugging Face hub): it has no file {name}; instead: --{option} FILE")
    return found


def meant(option: str, value: str | None) -> str | None:
    """`value`, or the published file where it is `alpacaeval` and no path here is called so."""
    return str(file(option)) if value == NAME and not Path(NAME).exists() else value
