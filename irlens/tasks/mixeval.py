"""MixEval and MixEval-Hard in their authors' layout: the items, and the prompts that a model is to answer.

`VERSION/{mixeval,mixeval-hard}/{free-form,multiple-choice}.json`, gzipped or not, a version's folder, the folder of
several, or a checkout of the authors' repository. A file is an object, id → record. Items repeat on purpose, so that the
mixture has the shape of what people ask. Source: Ni et al. 2024, "MixEval", arXiv 2406.06565, and its repository.
"""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from irlens.base import jsons
from irlens.base.errors import UserError
from irlens.base.files import read_lines
from irlens.tasks.contract import Task, digest, folder_name

SPLITS = ("mixeval", "mixeval-hard")
FREE, CHOICE = KINDS = ("free-form", "multiple-choice")  # as the files are called
PREFIX = "mixeval:"  # that may stand before a folder, to say what it is
SHOTS = "-5-shot"  # after a split: for models without a chat format
TEMPLATES = "templates.json"  # the authors' messages to judges and examples for base models, where a folder has them
STEPS = ("BBH", "GSM8k", "MATH")  # whose answers are to be reasoned out
LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class Item:
    """One record of a file. `answers`: the gold texts, of multiple choice the gold letter."""

    query_id: str
    split: str
    kind: str
    id: str
    record: dict

    @property
    def benchmark(self) -> str:
        """The benchmark that the question is from."""
        return self.record["benchmark_name"]

    @property
    def options(self) -> list[str]:
        """The texts to choose from; none of a free-form question."""
        return self.record.get("options", [])

    @property
    def answers(self) -> list[str]:
        """The gold texts, or the gold letter."""
        return [LETTERS[i] for i in self.record["target"]] if self.kind == CHOICE else self.record["target"]

    @cached_property
    def prompt(self) -> str:
        """What a model is asked: one user turn. Copies of a question have the same one."""
        return prompt(self.record)


def prompt(record: dict) -> str:
    """The authors' prompt of a record, zero-shot."""
    context = record.get("context") or ""
    asked = (f"{context}\n" if context.strip() else "") + record["prompt"]
    if "options" in record:
        return f"{asked}\n{lettered(record['options'])}\nAnswer with the option letter from the given choices directly."
    steps = "Answer the question. \nLet's think step by step."
    told = steps if record["benchmark_name"] in STEPS else "Answer the question shortly."
    return f"Question: {asked}\n{told}"


def lettered(options: list[str]) -> str:
    """The options, a line each: `A. …`"""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options))


# -- folders -------------------------------------------------------------------------------------------------------


def place(dataset: str) -> str:
    """`dataset` without the word `mixeval:` before a path."""
    return dataset.removeprefix(PREFIX) or dataset


def is_folder(path: Path) -> bool:
    """Whether `path` holds MixEval: a version, several, or a checkout."""
    return path.is_dir() and bool(_versions(path))


def splits(path: Path) -> list[str]:
    """The splits of a folder; with the authors' templates also in the form for base models."""
    found = [split for split in SPLITS if _files(version_of(path) / split)]
    return found + [split + SHOTS for split in found] * (templates(path) is not None)


def version_of(path: Path) -> Path:
    """The folder of the one version at `path`. Raises UserError for none, or several, naming them."""
    found = _versions(path)
    if len(found) == 1:
        return found[0]
    if not found:
        wanted = ", ".join(f"{split}/{kind}.json" for split in SPLITS for kind in KINDS)
        raise UserError(f"{path}: no MixEval here; a version's folder holds {wanted}")
    raise UserError(f"{path}: holds {len(found)} versions of MixEval; name one: {', '.join(map(str, found))}")


def templates(path: Path) -> Path | None:
    """The file with the authors' messages in the folder of a version or above it, where there is one."""
    version = version_of(path).absolute()
    folders = dict.fromkeys((path.absolute(), version, *version.parents[:1]))
    return next((folder / TEMPLATES for folder in folders if (folder / TEMPLATES).is_file()), None)


def _versions(path: Path) -> list[Path]:
    """The folders of versions at or in `path`, by name."""
    if any(_files(path / split) for split in SPLITS):
        return [path]
    folders = (path, path / "data", path / "mix_eval" / "data")
    inside = [one for folder in folders if folder.is_dir() for one in sorted(folder.iterdir()) if one.is_dir()]
    return [one for one in inside if any(_files(one / split) for split in SPLITS)]


def _files(folder: Path) -> dict[str, Path]:
    """{kind: file} of a split's folder."""
    names = {kind: (folder / f"{kind}.json", folder / f"{kind}.json.gz") for kind in KINDS}
    return {kind: path for kind, some in names.items() for path in some[::-1] if path.is_file()}


# -- reading -------------------------------------------------------------------------------------------------------


def read(path: Path | str, split: str) -> list[Item]:
    """The items of a split, free-form first, in the order of the files. Raises UserError: no such split, a file that is
    missing or cut, an id or key twice, records that lack a key or hold a wrong value (how many, and the first)."""
    version = version_of(Path(path).expanduser())
    if split not in SPLITS or not (version / split).is_dir():
        raise UserError(f"{version}: no split {split!r}; present: {', '.join(splits(version))}")
    files, found = _files(version / split), []
    for kind in KINDS:
        if kind not in files:
            raise UserError(f"{version / split}: no {kind}.json (or {kind}.json.gz)")
        records = _object(files[kind])
        wrong = [(key, said) for key, record in records.items() if (said := _wrong(record, kind))]
        if wrong:
            raise UserError(f"{files[kind]}: id {wrong[0][0]!r}: {wrong[0][1]} ({len(wrong):,} such records)")
        name = f"{folder_name(version)}/{split}/{kind}"
        found += [Item(f"{name}/{key}", split, kind, key, record) for key, record in records.items()]
    return found


def files_of(path: Path | str) -> list[Path]:
    """The files of all splits of the version at `path`: what a digest is made of."""
    version = version_of(Path(path).expanduser())
    return [file for split in SPLITS for file in _files(version / split).values()]


def _object(path: Path) -> dict[str, dict]:
    """The records of a file, by their ids."""
    try:
        found = jsons.loads("\n".join(line for _, line in read_lines(path)), object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: malformed JSON ({error.msg} at column {error.colno})") from error
    except _Twice as error:
        raise UserError(f"{path}: {error.args[0]!r} is there twice") from error
    if not isinstance(found, dict) or not found:
        raise UserError(f"{path}: expected an object, id → record, got {type(found).__name__} of {len(found or ())}")
    for key in found:
        if not key or any(map(str.isspace, key)):
            raise UserError(f"{path}: an id must be a text without white space, got {key!r:.80}")
    return found


class _Twice(Exception):
    """A key that an object has twice."""


def _once(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in found if keys.count(key) > 1))
    return found


def _wrong(record, kind: str) -> str | None:
    """What is wrong with a record, in words; None of a good one."""
    if not isinstance(record, dict):
        return f"expected an object, got {type(record).__name__}"
    wanted = ("context", "prompt", "target", "benchmark_name") + (("options",) if kind == CHOICE else ())
    if missing := [key for key in wanted if key not in record]:
        return f"no {missing[0]}"
    for key in ("prompt", "benchmark_name"):
        if not isinstance(record[key], str) or not record[key].strip():
            return f"{key} must be a text that is not blank, got {record[key]!r:.60}"
    if not isinstance(record["context"], (str, type(None))):
        return f"context must be a text or null, got {record['context']!r:.60}"
    target = record["target"]
    if kind == FREE:
        return None if _texts(target) else f"target must be a list of texts that are not blank, got {target!r:.60}"
    options = record["options"]
    if not _texts(options) or not 2 <= len(options) <= len(LETTERS):
        return f"options must be 2 to {len(LETTERS)} texts that are not blank, got {options!r:.60}"
    if not isinstance(target, list) or len(target) != 1 or type(target[0]) is not int:
        return f"target must be a list of one whole number, got {target!r:.60}"
    if not 0 <= target[0] < len(options):
        return f"target {target[0]} is out of range: there are {len(options)} options, counted from 0"
    return None


def _texts(value) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and one.strip() for one in value)


# -- as a task -----------------------------------------------------------------------------------------------------


def load_folder(path: Path, split: str | None = None, limit: int | None = None) -> Task:
    """The first `limit` prompts of a split, by default mixeval; every copy of a repeated question is a topic of its own.

    A split that ends in `-5-shot` puts the authors' examples before each prompt, for models without a chat format.
    """
    import pandas as pd

    from irlens.tables import check

    split = split or SPLITS[0]
    items = read(path, split.removesuffix(SHOTS))[:limit]
    before = dict.fromkeys(KINDS, "")
    if split.endswith(SHOTS):
        before = {FREE: _shots(path, "five_shot_freeform"), CHOICE: _shots(path, "five_shot_multichoice")}
    rows = [(item.query_id, before[item.kind] + item.prompt, item.answers) for item in items]
    topics = pd.DataFrame(rows, columns=["query_id", "query", "answers"])
    version = version_of(path)
    return Task(folder_name(version), split, check(topics, "topics"), revision=digest(*files_of(version)))


def _shots(path: Path, name: str) -> str:
    return str(read_templates(templates(path), (name,))[name])


def read_templates(path: Path | None, names: tuple[str, ...]) -> dict:
    """What the authors' file has under some names. Raises UserError: no file, no JSON object, a name that is missing."""
    if path is None or not path.is_file():
        raise UserError(f"{path or TEMPLATES}: no such file; it holds the authors' messages to judges and base models")
    try:
        found = jsons.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable JSON file ({error})") from error
    for name in names:
        if not isinstance(found, dict) or name not in found:
            raise UserError(f"{path}: no {name}")
    return found
