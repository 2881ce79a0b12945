"""`ultrafeedback`: prompts without answers, what alignment by a reward model starts from."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pandas as pd

from irlens.base.errors import UserError
from irlens.base.files import read_jsonl
from irlens.tables import check
from irlens.tasks.contract import CHAT_PROMPT, Task, digest, folder_name, hub_rows, pick_split, query_id

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


def load_file(path: Path, split: str, limit: int | None = None) -> Task:
    """A JSON-lines file of `context_messages` (a list of role and content) or `prompt` (such a list, or a string)."""
    rows = ((f"{path}:{number}", row) for number, row in read_jsonl(path))
    return _task(rows, folder_name(path), split, limit, digest(path), str(path))


def _task(
    rows: Iterable[tuple[str, dict]], name: str, split: str, limit: int | None, revision: str, source: str
) -> Task:
    topics = []
    for i, (where, row) in enumerate(islice(rows, limit)):
        messages = _messages(row, where)
        topics.append((query_id(name, split, i), messages[-1]["content"], messages))
    if not topics:
        raise UserError(f"{source}: no rows")
    frame = check(pd.DataFrame(topics, columns=["query_id", "query", "messages"]), "topics", source)
    return Task(name, split, frame, max_prompt_length=CHAT_PROMPT, revision=revision)


def _messages(row: dict, where: str) -> list[dict[str, str]]:
    """The conversation of a row up to its last user message: what comes after that is an answer, no prompt."""
    field = "context_messages" if "context_messages" in row else "prompt"
    found = row.get(field)
    if isinstance(found, str):
        found = [{"role": "user", "content": found}]
    found = found.tolist() if hasattr(found, "tolist") else found  # Parquet gives arrays
    if not isinstance(found, list) or not found:
        raise UserError(f"{where}: {field} must be a list of messages (or prompt a string), got {found!r:.80}")
    messages = []
    for message in found:
        parts = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if not all(isinstance(part, str) for part in parts):
            raise UserError(f"{where}: a message needs role and content, both strings, got {message!r:.80}")
        messages.append(dict(zip(("role", "content"), parts)))
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    if last < 0 or not messages[last]["content"].strip():
        raise UserError(f"{where}: {field} has no user message, or an empty one")
    return messages[: last + 1]
