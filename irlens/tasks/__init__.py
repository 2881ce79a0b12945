"""Tasks, the things to answer: a name or a local path becomes one `Task` of topics with a verifier or a corpus.

A named task is a module of this folder with `load(split, limit) -> Task` and a line in NAMES. Nothing heavy is imported
before a task is loaded, so that `--help` can list the names.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from irlens import plugins
from irlens.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

NAMES = {
    "sums": "generated word problems in GSM8K's format, with a verifier; needs no download",
    "facts": "generated passages and questions about invented people and places; needs no download",
    "nq": "Natural Questions on DPR's 21 million passages (ir_datasets: dpr-w100/natural-questions)",
    "gsm8k": "grade-school math word problems with a verifier (hub: openai/gsm8k)",
    "math": "competition problems, judged by math-verify (hub: EleutherAI/hendrycks_math; extra `math`)",
    "ultrafeedback": "prompts only, for alignment (hub: RLHFlow/ultrafeedback_iter1, 2 and 3)",
}
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
    revision: str = ""  # what a manifest records: "generated, seed 0", digests of the files read, or a hub revision


def load(dataset: str | os.PathLike, split: str | None = None, limit: int | None = None) -> Task:
    """The first `limit` topics of a named data set, or of a file or folder (`./gsm8k` where a name is in the way).

    A folder with `corpus.jsonl` is read as BEIR; other `.jsonl` files (one per split, gzipped or not) by their first
    row: `question, answer` as GSM8K, `problem, solution` as MATH, `prompt` and `candidates` as AlpacaEval's lists, `context_messages` or `prompt` as
    prompts. `beir/nq` and the like, or `irds:ID`, are identifiers of ir_datasets; `module:load` is a function of one's own,
    load(split, limit) -> Task, of a module with SPLITS. Without `split`: "test" if there is one, else the only one.
    """
    dataset = os.fspath(dataset)
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1, got {limit}")
    if dataset in NAMES:
        return importlib.import_module(f"irlens.tasks.{dataset}").load(split, limit)
    path = Path(dataset).expanduser()
    if dataset and path.exists():
        return _load_path(path, split, limit)
    from irlens.tasks import irds

    if identifier := irds.identifier(dataset):
        return irds.load_id(identifier, split, limit)
    if plugins.named(dataset):
        return _own(dataset, split, limit)
    if os.sep in dataset or dataset[:1] in ("~", ".") or SUFFIX.search(dataset):
        raise UserError(f"{dataset}: no such file or folder")
    raise UserError(f"unknown data set {dataset!r} ({did_you_mean(dataset, NAMES)}; or a path to a file or folder)")


def _own(dataset: str, split: str | None, limit: int | None) -> Task:
    """The task that `module:load` makes. Its topics are its revision, unless it names one."""
    from irlens import tables

    task = plugins.function(dataset, "--dataset")(split, limit)
    if not isinstance(task, Task):
        raise UserError(f"--dataset {dataset}: it must return an irlens.tasks.Task, got {type(task).__name__}")
    content = tables.check(task.topics, "topics", dataset).to_json(orient="records")
    return replace(task, revision=task.revision or hashlib.sha256(content.encode()).hexdigest()[:16])


def splits(dataset: str | os.PathLike) -> list[str]:
    """The splits that `load` takes for this data set; none for a path that it would refuse."""
    if (dataset := os.fspath(dataset)) in NAMES:
        return list(importlib.import_module(f"irlens.tasks.{dataset}").SPLITS)
    from irlens.tasks import beir, irds

    path = Path(dataset).expanduser()
    if not path.exists() and (identifier := irds.identifier(dataset)):
        return irds.splits(identifier)
    if not path.exists() and plugins.named(dataset):
        plugins.function(dataset, "--dataset")
        return list(getattr(sys.modules[dataset.partition(":")[0]], "SPLITS", ()))
    if path.is_dir():
        return list(split_files(path / "qrels", beir.TSV) if beir.is_folder(path) else split_files(path, SUFFIX))
    return [SUFFIX.sub("", path.name)] if path.is_file() and SUFFIX.search(path.name) else []


def _load_path(path: Path, split: str | None, limit: int | None) -> Task:
    from irlens.tasks import alpaca, beir, gsm8k, math, ultrafeedback

    if path.is_dir() and beir.is_folder(path):
        return beir.load_folder(path, split, limit)
    files = split_files(path, SUFFIX) if path.is_dir() else {SUFFIX.sub("", path.name): path}
    if not files or not all(SUFFIX.search(file.name) for file in files.values()):
        raise UserError(f"{path}: expected .jsonl or .jsonl.gz files, one per split, or a BEIR corpus.jsonl")
    split = pick_split(split, files, str(path))
    row = first_row(files[split])
    if row.keys() & {"question", "answer"}:
        return gsm8k.load_file(files[split], split, limit)
    if row.keys() >= {"problem", "solution"}:
        return math.load_file(files[split], split, limit)
    if "candidates" in row:
        return alpaca.load_file(files[split], split, limit)
    if row.keys() & {"context_messages", "prompt"}:
        return ultrafeedback.load_file(files[split], split, limit)
    raise UserError(
        f"{files[split]}: rows need question and answer, problem and solution, or context_messages or prompt (and "
        f"candidates); the first has: "
        f"{', '.join(row) or 'nothing'}"
    )


# -- what the loaders share ----------------------------------------------------------------------------------------


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
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if suffix.search(path.name) and not path.name.startswith("."):
            found.setdefault(suffix.sub("", path.name), path)
    return found


def first_row(path: Path) -> dict:
    """The first object of a JSON-lines file. Raises UserError if there is none."""
    from irlens.tables import read_jsonl

    for _, row in read_jsonl(path):
        return row
    raise UserError(f"{path}: no rows")


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
    from huggingface_hub import snapshot_download

    online = _online()
    try:
        folder = Path(snapshot_download(repo, repo_type="dataset", allow_patterns=pattern, local_files_only=not online))
        paths = sorted(path for path in folder.rglob("*.parquet") if path.relative_to(folder).match(pattern))
        why = f"it has no file {pattern}"
    except Exception as error:  # the hub client has a dozen ways to fail: blocked, gated, gone, disk full
        paths, why = [], " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if not paths:
        raise UserError(
            f"hub data set {repo} is not in the local cache and cannot be had: {why if online else 'no network'}. "
            f"{instead}"
        )
    rows = [
        (f"{repo}/{path.name}: row {i}", row)
        for path in paths
        for i, row in enumerate(pd.read_parquet(path).to_dict("records"))
    ]
    return rows, f"{repo}@{folder.name}"


def _online() -> bool:
    """Whether the hub's name resolves (or a proxy is set): the hub client itself retries for half a minute."""
    import socket
    from urllib.parse import urlparse
    from urllib.request import getproxies

    from huggingface_hub import constants

    try:
        return bool(getproxies()) or bool(socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443))
    except OSError:
        return False
