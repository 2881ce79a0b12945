"""The prompts of a run as a task: of the folder of an `irlens import`, or of any run that tells its prompts."""

from __future__ import annotations

from pathlib import Path

from irlens.base.errors import UserError
from irlens.tables import read_run
from irlens.tasks.contract import CHAT_PROMPT, Task, digest, folder_name, pick_split

SPLIT = "run"
OF_A_TOPIC = ("query_id", "query", "messages", "answers")


def is_folder(path: Path) -> bool:
    """Whether a folder holds a run."""
    return (path / "run.parquet").is_file()


def load_folder(path: Path, split: str | None, limit: int | None = None) -> Task:
    """The first `limit` prompts of a run, without a verifier. Raises UserError for a run that does not tell its prompts."""
    split = pick_split(split, [SPLIT], str(path))
    run = read_run(path)
    if "query" not in run.columns:
        raise UserError(f"{path}: its run has no column query, so its prompts are not known")
    topics = run[[c for c in OF_A_TOPIC if c in run.columns]].drop_duplicates("query_id", ignore_index=True)
    name = folder_name(path)
    return Task(name, split, topics[:limit], max_prompt_length=CHAT_PROMPT, revision=digest(path / "run.parquet"))
