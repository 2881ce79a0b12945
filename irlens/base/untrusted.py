"""Text that others wrote (models, data, servers, recipes), made harmless where it goes: on a terminal, in Markdown and TeX,
in the name of a file."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from irlens.base.errors import UserError
from irlens.base.secrets import redact

# C0 and C1 but for the line's end and the tab, DEL, what turns the direction of writing, marks without width, surrogates
CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
UNSAFE = re.compile(r"[^\w.+-]+")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|\.*", re.I)  # no files of these names on some systems
LINE = 300  # letters of a message
LONGEST = 100  # letters of a name; file systems take 255 bytes, with what commands put before and behind it

TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
       ">": r"\textgreater{}", "|": r"\textbar{}"} | {c: "\\" + c for c in "&%$#_{}"}  # fmt: skip


# -- on a terminal -------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    r"""`text` with its control characters in letters (`\x1b`), so that a terminal shows them and does nothing."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def shown(text: str) -> str:
    """What may be shown of any text: no secret, and no control characters."""
    return escaped(redact(text))


def in_one_line(message: str) -> str:
    """What may be shown of a message, in one line of at most LINE letters: long words, then its middle, are left out."""
    said = shown(" ".join(message.split()))
    if len(said) > LINE:
        said = re.sub(r"\S{81,}", lambda word: f"{word[0][:50]}…{word[0][-20:]}", said)
    return said if len(said) <= LINE else f"{said[: LINE - 103]} … {said[-100:]}"


# -- in pages ------------------------------------------------------------------------------------------------------


def markdown(text: str) -> str:
    """Text within a line of Markdown: no HTML, no link, no picture, no further cell of a table."""
    text = escaped(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
    return text.replace("](", "]\\(").replace("][", "]\\[").replace("]:", "]\\:")


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(
        "| " + " | ".join(markdown(str(cell)).replace("|", r"\|") for cell in line) + " |" for line in lines
    )


def tex(text: str) -> str:
    r"""Text as LaTeX prints it, in a table too, where `[` and `*` after the \\ of the row before would mean something."""
    said = "".join(TEX.get(letter, letter) for letter in escaped(" ".join(text.split())))
    return f"{{{said[0]}}}{said[1:]}" if said[:1] in ("[", "*") else said


# -- as names of files ---------------------------------------------------------------------------------------------


def file_name(name: str) -> str:
    """A name as the part of a file name that it stands for: letters, digits and .+-_ stay. What some system does not
    allow, or is too long, gets a digest."""
    short = UNSAFE.sub("-", unicodedata.normalize("NFKC", name)).strip("-")
    if len(short.encode()) <= LONGEST and not RESERVED.fullmatch(short):
        return short
    cut = short.encode()[: LONGEST - 10].decode(errors="ignore").strip(".-")
    return f"{cut and f'_{cut}-'}{_digest(name)}"  # `_nul.txt-…` is no reserved name


def last_word(name: str) -> str:
    """The part of a file name for a tag: "T=0.7" of "tiny T=0.7"."""
    word = name.split()[-1] if name.split() else name
    return "=".join(file_name(part) for part in word.split("="))


def file_names(names: Iterable[str], form: Callable[[str], str] = file_name) -> dict[str, str]:
    """Each name's own part of a file name: those that would share one, be it in another case, get a digest of the name."""
    short = {name: form(name) for name in dict.fromkeys(names)}
    shared = Counter(one.casefold() for one in short.values())
    return {name: one if shared[one.casefold()] == 1 else f"{one}-{_digest(name)}" for name, one in short.items()}


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:8]


def check_name(name: object, where: str) -> None:
    """Raises UserError for a name that cannot be a folder's: empty, with a slash or a control character, `..`, or longer
    than LONGEST."""
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{where}: a name must be a text that is not empty, got {name!r:.60}")
    kept = name.replace(" ", "-")
    if "/" in name or "\\" in name or not name.isprintable() or name != name.strip() or RESERVED.fullmatch(kept):
        raise UserError(
            f"{where}: {name[:60]!r} cannot be the name of a folder; use letters, digits, spaces and . + - _"
        )
    if len(name.encode("utf-8", "replace")) > LONGEST:
        raise UserError(f"{where}: the name {name[:40]!r}… is longer than {LONGEST} letters")


def check_place(path: object, option: str) -> None:
    """Raises UserError for a URL where a folder is wanted, and for a name that no file system takes."""
    if any(len(part.encode("utf-8", "replace")) > 255 for part in str(path).split(os.sep)):
        raise UserError(f"{option} {str(path)[:40]}…: a name in it is longer than 255 bytes")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise UserError(f"{option} {path}: a folder of this machine is wanted, not a URL")


def check_inside(folder: Path) -> None:
    """Raises UserError for a link in a folder that leads a file out of it."""
    home = folder.resolve()
    for path in (one for one in folder.rglob("*") if one.is_symlink()):
        if path.is_dir() and home not in path.resolve().parents:
            raise UserError(
                f"--out {folder}: {path.relative_to(folder)} is a link that leads out of it; remove the link"
            )
