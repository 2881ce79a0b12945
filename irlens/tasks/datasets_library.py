"""Data sets of the hub (`owner/name`) and of `save_to_disk`, read through the library `datasets` (extra `datasets`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irlens.base.errors import UserError
from irlens.tasks.contract import pick_split

if TYPE_CHECKING:
    from irlens.tasks.rows import Placed

ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?(@\w[\w./-]*)?")  # owner/name[:configuration][@revision]
INSTEAD = "no such file or folder here either; instead: --dataset FILE.jsonl (or .parquet, .csv) of the same rows"
DATA = ("*.parquet", "*.jsonl", "*.json", "*.csv", "*.jsonl.gz", "*.json.gz", "*.arrow", "README.md")


def identifier(dataset: str) -> str | None:
    """The hub's identifier that a name means: `hf:owner/name`, or `owner/name`; with `:configuration` and `@revision` where given."""
    name = dataset.removeprefix("hf:")
    return name if ID.fullmatch(name) else None


# -- from the hub --------------------------------------------------------------------------------------------------


def hub_splits(name: str) -> list[str]:
    """The splits of a data set of the hub."""
    return list(_builder(name)[0].config.data_files)


def hub_rows(name: str, split: str | None) -> tuple[Iterator[Placed], str, str]:
    """(rows, split, revision) of a data set of the hub; `split` as `contract.pick_split` takes it.

    Raises UserError: `datasets` is absent, nothing to be had, no such configuration, files that it cannot read.
    """
    builder, revision = _builder(name)
    split = pick_split(split, builder.config.data_files, name)
    try:
        builder.download_and_prepare()
        found = builder.as_dataset(split=split)
    except Exception as error:  # its readers raise what their libraries raise
        raise UserError(f"{name}: `datasets` cannot read it ({_line(error)})") from error
    return _rows(found, name), split, revision


def _builder(name: str) -> tuple[Any, str]:
    """What `datasets` makes of the files of a configuration, and their revision."""
    from irlens.models import hub

    datasets = library(f"--dataset {name}")
    named, revision = hub.pinned(name, "--dataset")
    repo, _, chosen = named.partition(":")
    card = hub.snapshot(repo, "dataset", INSTEAD, revision, allow_patterns="README.md")
    folder = hub.snapshot(repo, "dataset", INSTEAD, revision, allow_patterns=_patterns(card, chosen))
    try:
        builder = datasets.load_dataset_builder(str(folder), chosen or None)
    except Exception as error:  # a missing configuration is a ValueError, no data a class of its own
        raise UserError(f"{name}: `datasets` cannot read it ({_line(error)})") from error
    return builder, f"{repo}@{folder.name}"


def _patterns(card: Path, chosen: str) -> list[str]:
    """The files that a configuration needs, as its card names them; all of data where it names none."""
    from huggingface_hub import DatasetCard

    if not (card / "README.md").is_file():
        return list(DATA)
    try:
        known = DatasetCard.load(card / "README.md").data.to_dict().get("configs") or []
    except Exception as error:  # YAML's own, or a ValueError for what it means
        raise UserError(f"{card / 'README.md'}: not a readable card ({_line(error)})") from error
    wanted = [one for one in known if one.get("config_name", "default") == (chosen or "default") or one.get("default")]
    files = (wanted or known[:1])[0].get("data_files") if known and (wanted or not chosen) else None
    some = [files] if isinstance(files, str) else list(files.values()) if isinstance(files, dict) else files or []
    paths = [path for one in some for path in _listed(one["path"] if isinstance(one, dict) else one)]
    return ["README.md", *paths] if paths else list(DATA)


def _listed(paths) -> list[str]:
    return [paths] if isinstance(paths, str) else list(paths or [])


# -- from a folder -------------------------------------------------------------------------------------------------


def is_saved(folder: Path) -> bool:
    """Whether `datasets` wrote a folder by `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def saved_splits(folder: Path) -> list[str]:
    """The splits of such a folder; one data set alone is named after its folder."""
    found = _saved(folder)
    return list(found) if isinstance(found, dict) else [str(found.split or folder.resolve().name)]


def saved_rows(folder: Path, split: str | None) -> tuple[Iterator[Placed], str, str]:
    """(rows, split, revision) of such a folder. Raises UserError: `datasets` is absent, or cannot read it."""
    found = _saved(folder)
    split = pick_split(split, saved_splits(folder), str(folder))
    chosen = found[split] if isinstance(found, dict) else found
    return _rows(chosen, str(folder)), split, f"{folder.name} {chosen._fingerprint}"


def _saved(folder: Path):
    datasets = library(str(folder))
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # arrow's, or those of a file that lacks a key
        raise UserError(f"{folder}: `datasets` cannot read it ({_line(error)})") from error


# -- both ----------------------------------------------------------------------------------------------------------


def library(what: str):
    """The module `datasets`. Raises UserError, naming the extra, where it is absent."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{what}: needs the library datasets: pip install 'irlens[datasets]'") from error
    return datasets


def _rows(found, name: str) -> Iterator[Placed]:
    return ((f"{name}: row {i}", row) for i, row in enumerate(found))


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
