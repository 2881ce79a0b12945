"""What a task is, and what the readers of tasks share: splits, identifiers, digests, rows from the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from irlens.base.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


CHAT_PROMPT = 1000  # tokens of a chat's prompt: the paper's limit


SUFFIX = re.compile(r"\.jsonl(\.gz)?$")


UNSAFE = re.compile(r"[^\w.-]+")  # what an identifier in a TREC file, or a file name, had better not hold


class Corpus(Protocol):
    """A corpus that need not fit in memory."""

    def __len__(self) -> int: ...

    def chunks(self, start: int, size: int) -> Iterator[pd.DataFrame]:
        """Corpus tables of `size` rows from row `start` on."""

    def frame(self) -> pd.DataFrame:
        """All of it, for what needs it in memory."""


@dataclass(frozen=True)
class Task:
    """What a run needs to know of a data set. The frames are tables of `irlens.tables`."""

    name: str
    split: str
    topics: pd.DataFrame  # query_id, query; answers, solution, messages where known
    instruction: str = ""  # what a chat model is told after the question
    verifier: Callable[[str, str], bool] | None = None  # (response, gold answer) -> right?
    extract: Callable[[str], Hashable | None] | None = None  # response -> the answer that it gives
    corpus: pd.DataFrame | Corpus | None = None
    qrels: pd.DataFrame | None = None
    candidates: pd.DataFrame | None = None  # a run that comes with the data: others' responses to the topics
    unrelated: str = "facts"  # the data set whose prompts give the easiest negatives
    max_prompt_length: int | None = None  # tokens; longer prompts are left out, unless another limit is asked for
    unused: str = ""  # what the data hold beside prompts and answers, such as "60 preference pairs"
    revision: str = ""  # what a manifest records: "generated, seed 0", digests of the files read, or a hub revision


def pick_split(split: str | None, present: Iterable[str], source: str) -> str:
    """`split` if it is among `present`; for None "test" or the only one. Else a UserError that names those present."""
    present = list(present)
    if split is None and "test" in present:
        return "test"
    if split is None and len(present) == 1:
        return present[0]
    if split in present:
        return split
    wrong = "choose a split" if split is None else f"no split {split!r}"
    raise UserError(f"{source}: {wrong}; present: {', '.join(sorted(present)) or 'none'}")


def split_files(folder: Path, suffix: re.Pattern) -> dict[str, Path]:
    """{file name without `suffix`: path} of a folder; a plain file goes before its gzipped copy."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if suffix.search(path.name) and not path.name.startswith("."):
            found.setdefault(suffix.sub("", path.name), path)
    return found


def folder_name(path: Path) -> str:
    """The name of a data set at `path` (a folder, or a file in it), fit for identifiers: no white space, not empty."""
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    return UNSAFE.sub("-", folder.name).strip("-") or "data"


def query_id(name: str, split: str, index: int) -> str:
    """The identifier of a topic whose source has none: its place in the split, whatever the limit."""
    return f"{name}-{UNSAFE.sub('-', split)}-{index:05d}"


def digest(*paths: Path) -> str:
    """`name sha256:…` of each file: what a manifest records of local data."""
    found = []
    for path in paths:
        with open(path, "rb") as file:
            found.append(f"{path.name} sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")
    return ", ".join(found)


def hub_rows(repo: str, pattern: str, instead: str) -> tuple[list[tuple[str, dict]], str]:
    """Rows (where, row) of the Parquet files of a hub data set, and its revision.

    Raises UserError, saying what works `instead`, if they are neither cached nor to be had.
    """
    import pandas as pd

    from irlens.models import hub

    folder = hub.snapshot(repo, "dataset", instead, allow_patterns=pattern)
    paths = sorted(path for path in folder.rglob("*.parquet") if path.relative_to(folder).match(pattern))
    if not paths:
        raise UserError(f"{repo} (dataset on the Hugging Face hub): it has no file {pattern}; {instead}")
    rows = [
        (f"{repo}/{path.name}: row {i}", row)
        for path in paths
        for i, row in enumerate(pd.read_parquet(path).to_dict("records"))
    ]
    return rows, f"{repo}@{folder.name}"
