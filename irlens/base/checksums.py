"""What an output folder holds, and the SHA-256 of it: checksums.txt, as `sha256sum -c` reads it.

`files.write_atomically` notes every file of a folder that is `recording`, before the rename: a killed run leaves a line
too many, never one too few. A later start has each file read (`check`): what is not as it was written is deleted with a
line, and what is missing is made again anyway. A folder that only works as a whole, such as a model's, has a list of its
own (`seal`), by which others know it wherever it is moved.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from irlens.base import jsons
from irlens.base.errors import UserError

NAME = "checksums.txt"
LINE = re.compile(r"([0-9a-f]{64})  (.+)")
ANSWERS = "answers.jsonl"  # a judge's, which grows: each of its lines has a checksum
OWN = (NAME, "manifest.json", "larpo.json", ANSWERS, ".lock")  # those in the middle are checked by what they say
PARTS = ("checkpoints", "__pycache__")  # folders whose files come and go; a whole checkpoint has its own list
ABOVE = 5  # folders over a file in which its list is looked for

_recording: list[Path] = []


def of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def recording(folder: Path) -> Iterator[None]:
    """Notes what is written below `folder` inside the with-statement."""
    root = Path(folder).resolve()
    _recording.append(root)
    try:
        yield
    finally:
        _recording.remove(root)


def note(path: Path, content: Path) -> None:
    """Notes that `path` is to hold what `content` does; nothing outside the folders that are recording."""
    if path.name not in OWN:
        _note(path, content)


def _note(path: Path, content: Path) -> None:
    place = path.parent.resolve() / path.name
    if roots := [root for root in _recording if root in place.parents]:
        root = max(roots, key=lambda folder: len(folder.parts))
        _append(root, [(of(content), place.relative_to(root).as_posix())])


def keep_whole(temporary: Path, path: Path) -> None:
    """Renames a folder that is written to `path`, with a list of its files."""
    seal(temporary)
    for _ in range(2):  # a model is dear, and one line of the folder's list may be damaged
        _note(path / NAME, temporary / NAME)
    temporary.rename(path)


def seal(folder: Path) -> None:
    """Lists the files of a folder in it, as they are now."""
    _write(folder / NAME, _listing(folder))


def whole(folder: Path, known: list[str] | None = None) -> bool:
    """Whether a folder holds what its list says: the list whose SHA-256 is `known`, else its own; True without any."""
    text = _listing(folder)
    if known:
        is_known = hashlib.sha256(text.encode()).hexdigest() in known
        if is_known and (not (folder / NAME).is_file() or (folder / NAME).read_bytes() != text.encode()):
            _write(folder / NAME, text)  # it is the list that was damaged
        return is_known
    if not (folder / NAME).is_file():
        return True
    own, found = _read(folder), {name: digest for digest, name in LINE.findall(text)}
    return all(found.get(name) in digests for name, digests in own.items())


def check(root: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Reads what a folder's list names, and deletes, with a line, what is not as it was written.

    Files that no list names, such as all in a folder of an older version, are taken as they are, and listed from now on.
    Returns name → SHA-256 of the files that are as they were.
    """
    listed, found = _read(root), {}
    wholes = {str(Path(name).parent) for name in listed if Path(name).name == NAME}
    wholes |= {path.parent.relative_to(root).as_posix() for path in _lists(root)}
    for inside in sorted(wholes):
        folder = root / inside
        if folder.is_dir() and not whole(folder, listed.get(f"{inside}/{NAME}")):
            shutil.rmtree(folder)
            say(f"{folder}: not as it was written (a checksum differs): deleted, and made again")
    for name, digests in listed.items():
        path = root / name
        if path.name in OWN or not path.is_file():
            continue
        if (digest := of(path)) in digests:
            found[name] = digest
        else:
            path.unlink()
            say(f"{path}: not as it was written (its checksum differs): deleted, and made again where it is needed")
    _adopt(root, listed, wholes, say)
    return found


def _adopt(root: Path, listed: dict, wholes: set[str], say: Callable[[str], None]) -> None:
    """Lists what no list names, models as a whole, and says how much it was."""
    lines: list[tuple[str, str]] = []
    models: set[str] = set()
    for path in list(_unlisted(root)):
        inside = path.parent.relative_to(root).as_posix()
        if inside in wholes | models or path.relative_to(root).as_posix() in listed:
            continue
        if (path.parent / "config.json").is_file() and path.parent != root:
            seal(path.parent)
            models.add(inside)
            lines.append((of(path.parent / NAME), f"{inside}/{NAME}"))
        else:
            lines.append((of(path), path.relative_to(root).as_posix()))
    if lines:
        say(f"{root}: {len(lines):,} files without a checksum ({lines[0][1]}, …): taken as they are, and listed now")
        _append(root, lines)


def compact(root: Path) -> None:
    """Writes a folder's list anew: a line for each file that is there, the last that was noted, in order."""
    kept = {name: digests[-1] for name, digests in _read(root).items() if (root / name).is_file()}
    lines = ((1 + (Path(name).name == NAME)) * f"{kept[name]}  {name}\n" for name in sorted(kept))
    _write(root / NAME, "".join(lines))


def trusted(path: Path) -> Path:
    """`path` itself, a file that a command is given. Raises UserError if the folder it lies in was written with another
    content under this name; what is being written now is not asked about."""
    place = Path(path).resolve()
    for above in place.parents[:ABOVE]:
        if (above / NAME).is_file():
            known = _read(above).get(place.relative_to(above).as_posix())
            if known and above not in _recording and place.is_file() and of(place) not in known:
                raise UserError(
                    f"{path}: not as it was written (its checksum in {above / NAME} differs); run the command that made "
                    "it again, or copy it elsewhere to use it as it is"
                )
            break
    return path


def trusted_folder(folder: Path) -> Path:
    """The same of a folder with a list of its own, such as a model's; each state of the files is read once."""
    if (folder / NAME).is_file():
        state = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir())]
        if _seen.get(folder) != state and not whole(folder):
            raise UserError(
                f"{folder}: not as it was written (a checksum in {NAME} differs); make it again, or delete {NAME} there "
                "to use it as it is"
            )
        _seen[folder] = state
    return folder


_seen: dict[Path, list] = {}  # folders that were as they had been written


def signed(told: dict) -> dict:
    """`told`, a JSON object, with the checksum of all of it as its last entry."""
    told = {name: value for name, value in told.items() if name != "checksum"}
    return told | {"checksum": _of_object(told)}


def read_signed(path: Path) -> dict:
    """The JSON object of a file, which is what was written, where it has a checksum. Raises ValueError if it is not, and
    OSError."""
    told = jsons.loads(path.read_text(encoding="utf-8"))
    if not isinstance(told, dict):
        raise ValueError("not a JSON object")
    given = told.pop("checksum", None)
    if given is not None and given != _of_object(told):
        raise ValueError("changed after it was written, as its checksum tells; without that entry it is taken as it is")
    return told


def _of_object(told: dict) -> str:
    text = json.dumps(json.loads(json.dumps(told)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _listing(folder: Path) -> str:
    """The list of a folder's files but for the list itself."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return "".join(f"{of(folder / name)}  {name}\n" for name in names if name != NAME)


def _read(root: Path) -> dict[str, list[str]]:
    """Name → its SHA-256s, the last noted last; a line that is none is left out."""
    found: dict[str, list[str]] = {}
    if (root / NAME).is_file():
        for line in (root / NAME).read_text(encoding="utf-8", errors="replace").split("\n"):
            if not (parts := LINE.fullmatch(line)) or ".." in Path(parts[2]).parts or os.path.isabs(parts[2]):
                continue
            if Path(parts[2]).name != ANSWERS:  # a list of an older version may name it
                found.setdefault(parts[2], []).append(parts[1])
    return found


def _lists(root: Path) -> Iterator[Path]:
    """The lists of folders below `root` that are kept as a whole, those of other output folders left out."""
    for here, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not (Path(here, name, "manifest.json")).is_file()]
        if NAME in names and Path(here) != root:
            yield Path(here, NAME)


def _unlisted(root: Path) -> Iterator[Path]:
    """The files below `root` that a list should name: no logs, no marks, nothing of other output folders."""
    for here, folders, names in os.walk(root):
        folders[:] = sorted(
            n for n in folders if n not in PARTS and n[0] != "." and not Path(here, n, "manifest.json").is_file()
        )
        for name in sorted(names):
            log = name.endswith(".log") or (name.startswith("log") and name.endswith(".txt"))
            if name not in OWN and name[0] != "." and not log and NAME not in (names if Path(here) != root else ()):
                yield Path(here, name)


def _append(root: Path, lines: list[tuple[str, str]]) -> None:
    """Adds lines in one write, after what may have been left half-written."""
    text = "".join(f"{digest}  {name}\n" for digest, name in lines)
    with (root / NAME).open("ab+", buffering=0) as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            text = text if file.read(1) == b"\n" else "\n" + text
        if file.write(text.encode()) < len(text.encode()):
            raise OSError(28, "No space left on device", str(root / NAME))


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
