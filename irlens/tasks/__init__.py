"""Tasks, the things to answer: a name or a local path becomes one `Task` of topics with a verifier or a corpus.

A named task is a module of this folder with `load(split, limit) -> Task` and a line in NAMES. Nothing heavy is imported
before a task is loaded, so that `--help` can list the names.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import plugins
from irlens.base.errors import UserError, did_you_mean
from irlens.tasks.contract import SUFFIX, Task, first_row, pick_split, split_files

if TYPE_CHECKING:
    pass

NAMES = {
    "sums": "generated word problems in GSM8K's format, with a verifier; needs no download",
    "facts": "generated passages and questions about invented people and places; needs no download",
    "nq": "Natural Questions on DPR's 21 million passages (ir_datasets: dpr-w100/natural-questions)",
    "gsm8k": "grade-school math word problems with a verifier (hub: openai/gsm8k)",
    "math": "competition problems, judged by math-verify (hub: EleutherAI/hendrycks_math; extra `math`)",
    "ultrafeedback": "prompts only, for alignment (hub: RLHFlow/ultrafeedback_iter1, 2 and 3)",
}


def load(dataset: str | os.PathLike, split: str | None = None, limit: int | None = None) -> Task:
    """The first `limit` topics of a named data set, or of a file or folder (`./gsm8k` where a name is in the way).

    A folder with `corpus.jsonl` is read as BEIR, one with `run.parquet` as the prompts of that run; other `.jsonl` files (one per split, gzipped or not) by their first
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
    from irlens.tasks import alpaca, beir, drawn, gsm8k, math, ultrafeedback

    if path.is_dir() and beir.is_folder(path):
        return beir.load_folder(path, split, limit)
    if path.is_dir() and drawn.is_folder(path):
        return drawn.load_folder(path, split, limit)
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
