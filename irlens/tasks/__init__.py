"""Tasks, the things to answer: a name or a local path becomes one `Task` of topics with a verifier or a corpus.

A named task is a module of this folder with `load(split, limit) -> Task` and a line in NAMES. Nothing heavy is imported
before a task is loaded, so that `--help` can list the names.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import plugins
from irlens.base.errors import UserError, did_you_mean
from irlens.tasks import rows
from irlens.tasks.contract import UNSAFE, Task, digest, folder_name, pick_split, split_files

if TYPE_CHECKING:
    from irlens.tasks import forms

NAMES = {
    "sums": "generated word problems in GSM8K's format, with a verifier; needs no download",
    "countdown": "generated numbers to make a target of, several answers right, with a verifier; needs no download",
    "facts": "generated passages and questions about invented people and places; needs no download",
    "nq": "Natural Questions on DPR's 21 million passages (ir_datasets: dpr-w100/natural-questions)",
    "gsm8k": "grade-school math word problems with a verifier (hub: openai/gsm8k)",
    "math": "competition problems, judged by math-verify (hub: EleutherAI/hendrycks_math; extra `math`)",
    "ultrafeedback": "prompts only, for alignment (hub: RLHFlow/ultrafeedback_iter1, 2 and 3)",
    "alpacaeval": "AlpacaEval 2's 805 prompts, for win rates (hub: tatsu-lab/alpaca_eval)",
}


def load(
    dataset: str | os.PathLike,
    split: str | None = None,
    limit: int | None = None,
    columns: str | Mapping[str, str] | None = None,
) -> Task:
    """The first `limit` topics of a named data set, or of a file or folder (`./gsm8k` where a name is in the way).

    A folder with `corpus.jsonl` is read as BEIR, one of MixEval (which `mixeval:` may precede) as its authors lay it
    out, one with `run.parquet` as the prompts of that run, one of `save_to_disk` through `datasets`; other files (JSON lines,
    JSON, Parquet, CSV; one per split) by the keys of their first row (`tasks.forms`). `beir/nq` and the like, or
    `irds:ID`, are identifiers of ir_datasets; any other `owner/name[:configuration]`, or `hf:…`, is a data set of the
    hub; `module:load` is a function of one's own, load(split, limit) -> Task, of a module with SPLITS. columns: which
    ones stand for which of `forms.NAMES`: `prompt=instruction,answer=output`. Without `split`: "test" if there is one,
    else the only one. Raises UserError: nothing of that name, a split or column that is not there, a row that is wrong.
    """
    from irlens.tasks import mixeval

    dataset = mixeval.place(os.fspath(dataset))
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1, got {limit}")
    from irlens.tasks import forms, irds

    if (given := _rows(dataset, split)) is not None:
        return forms.task_of(replace(given, limit=limit), columns)
    path = Path(dataset).expanduser()
    if dataset not in NAMES and dataset and path.exists():
        return _of_tables(path, split, limit, columns)
    if columns is not None:
        raise UserError(f"--columns: for files, folders and data sets of the hub; {dataset} has names of its own")
    if dataset in NAMES:
        return importlib.import_module(f"irlens.tasks.{dataset}").load(split, limit)

    if identifier := irds.identifier(dataset):
        return irds.load_id(identifier, split, limit)
    if plugins.named(dataset):
        return _own(dataset, split, limit)
    if os.sep in dataset or dataset[:1] in ("~", ".") or rows.looks_like_a_file(dataset):
        raise UserError(f"{dataset}: no such file or folder")
    raise UserError(f"unknown data set {dataset!r} ({did_you_mean(dataset, NAMES)}; or a path to a file or folder)")


def _own(dataset: str, split: str | None, limit: int | None) -> Task:
    """The task that `module:load` makes. Its topics are its revision, unless it names one."""
    from irlens import tables

    load = plugins.function(dataset, "--dataset")
    try:
        task = load(split, limit)
    except TypeError as error:
        if error.__traceback__ is None or error.__traceback__.tb_next is not None:
            raise  # within it
        raise UserError(f"--dataset {dataset}: is called as load(split, limit), and cannot be: {error}") from error
    if not isinstance(task, Task):
        raise UserError(f"--dataset {dataset}: it must return an irlens.tasks.Task, got {type(task).__name__}")
    content = tables.check(task.topics, "topics", dataset).to_json(orient="records")
    return replace(task, revision=task.revision or hashlib.sha256(content.encode()).hexdigest()[:16])


def columns(dataset: str | os.PathLike, split: str | None = None) -> list[str]:
    """The columns that `load`'s `columns` may name: of the first row; none where a data set has names of its own."""
    given = _rows(os.fspath(dataset), split)
    return [] if given is None else [str(name) for name in next(iter(given.rows), ("", {}))[1]]


def splits(dataset: str | os.PathLike) -> list[str]:
    """The splits that `load` takes for this data set; none for a path that it would refuse."""
    from irlens.tasks import beir, datasets_library, drawn, irds, mixeval

    if (dataset := mixeval.place(os.fspath(dataset))) in NAMES:
        return list(importlib.import_module(f"irlens.tasks.{dataset}").SPLITS)

    path = Path(dataset).expanduser()
    if not path.exists() and _on_hub(dataset):
        return datasets_library.hub_splits(str(datasets_library.identifier(dataset)))
    if not path.exists() and (identifier := irds.identifier(dataset)):
        return irds.splits(identifier)
    if not path.exists() and plugins.named(dataset):
        plugins.function(dataset, "--dataset")
        return list(getattr(sys.modules[dataset.partition(":")[0]], "SPLITS", ()))
    if beir.is_folder(path):
        return list(split_files(path / "qrels", beir.TSV))
    if drawn.is_folder(path):
        return [drawn.SPLIT]
    if mixeval.is_folder(path):
        return mixeval.splits(path)
    return datasets_library.saved_splits(path) if datasets_library.is_saved(path) else list(rows.splits(path))


def _on_hub(dataset: str) -> bool:
    """Whether a name that is no path is a data set of the hub: `hf:…`, or `owner/name` that no collection of ir_datasets
    begins like."""
    from irlens.tasks import datasets_library, irds

    other = dataset in NAMES or dataset.startswith((".", "~")) or rows.looks_like_a_file(dataset)
    if other or datasets_library.identifier(dataset) is None:
        return False
    return dataset.startswith("hf:") or not irds.is_collection(dataset)


def _rows(dataset: str, split: str | None) -> forms.Rows | None:
    """The rows of a file, folder or data set of the hub that is read by its keys; None of what has names of its own."""
    from irlens.tasks import beir, datasets_library, drawn, forms, mixeval

    path = Path(dataset).expanduser()
    there = dataset not in NAMES and bool(dataset) and path.exists()
    if not there and _on_hub(dataset):
        name = str(datasets_library.identifier(dataset))
        found, split, revision = datasets_library.hub_rows(name, split)
        return forms.Rows(found, UNSAFE.sub("-", name), split, revision, name)
    if not there or beir.is_folder(path) or drawn.is_folder(path) or mixeval.is_folder(path):
        return None
    if datasets_library.is_saved(path):
        found, split, revision = datasets_library.saved_rows(path, split)
        return forms.Rows(found, folder_name(path), split, revision, str(path))
    files = rows.splits(path)
    if not files:
        raise UserError(f"{path}: expected {rows.ENDINGS}, one per split, or a BEIR corpus.jsonl")
    split = pick_split(split, files, str(path))
    some = files[split]
    found = chain.from_iterable(map(rows.read, some))
    return forms.Rows(found, folder_name(path), split, digest(*some), str(some[0]))


def _of_tables(path: Path, split: str | None, limit: int | None, columns: object) -> Task:
    """A BEIR folder, the prompts of a folder with a run, or MixEval; none knows other `columns`."""
    from irlens.tasks import beir, drawn, mixeval

    known = ((beir, "is a BEIR folder"), (drawn, "holds a run"), (mixeval, "holds MixEval"))
    reader, what = next(one for one in known if one[0].is_folder(path))
    if columns is not None:
        raise UserError(f"--columns: {path} {what}, which has names of its own")
    return reader.load_folder(path, split, limit)
