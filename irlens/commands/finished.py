"""Whether an output folder is finished: made whole by this very command, by this code, and not touched since."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import MappingProxyType

from irlens.base import checksums, secrets, store

OWN = ("manifest.json", ".lock", checksums.NAME)  # what changes with every start
ELSEWHERE = ("out", "store", "jobs")  # settings that say nothing of what a folder holds
READ = 64 << 20  # bytes of a file above which only its size is told; a wrong one is gone by then (`checksums.check`)


def digest(folder: Path, asked: object, versions: dict, known: Mapping[str, str] = MappingProxyType({})) -> str:
    """What a folder is when its command ends: the settings that were typed, packages, this package's code, all files.
    known: name → SHA-256 of files that have been read already."""
    typed = {name: value for name, value in asdict(asked).items() if name not in ELSEWHERE} if is_dataclass(asked) else asked  # fmt: skip
    told = [json.dumps([secrets.redacted(typed), versions], sort_keys=True, default=str), code(), *files(folder, known)]
    return hashlib.sha256(repr(told).encode("utf-8", "backslashreplace")).hexdigest()


def files(folder: Path, known: Mapping[str, str]) -> list[tuple[str, int, str]]:
    """(name, size, SHA-256 where it is not large) of every file below a folder, but for logs, marks and its manifest."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        log = path.name.startswith("log") and path.suffix == ".txt"
        if not path.is_file() or log or path.name in OWN or store.FOLDER in inside.parts:
            continue
        size, name = path.stat().st_size, inside.as_posix()
        found.append((name, size, (known.get(name) or checksums.of(path)) if size <= READ else ""))
    return found


@functools.cache
def code() -> str:
    """SHA-256 over this package's own code, so that other code measures and draws anew."""
    package, sha = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        sha.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return sha.hexdigest()


def table(path: Path):
    """A CSV that a command wrote, every number as it was."""
    import pandas as pd

    return pd.read_csv(path, engine="python")
