"""A full disk, however a library says so: one line that tells where and how much is free."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from irlens.base.errors import UserError
from irlens.base.files import in_bytes

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What torch (its writer of archives, its sharded checkpoints), safetensors, Arrow, FAISS, SQLite and HDF5 say.
WORDS = re.compile(
    r"no space left on device|disk quota exceeded|file too large|disk is full|os error (?:28|122|27)\b|\[errno (?:28|122|27)\]"
    r"|pytorchstreamwriter failed|file write failed|unexpected pos \d+ vs|write error in .*faiss|ret == \(size\)",
    re.IGNORECASE,
)


class DiskFull(UserError):
    """What is written does not fit; the same command continues once it does."""


def is_full(error: BaseException | None) -> BaseException | None:
    """The exception, of this one and what it came of, by which a full disk is told; None if none tells one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        told = getattr(error, "errno", None) in CODES
        if told or (not isinstance(error, UserError) and WORDS.search(str(error))):
            return error
        error = error.__cause__ or error.__context__
    return None


def in_words(error: BaseException, folder: Path | None = None) -> str:
    """One line of a full disk: what could not be written, where, and how much is free there."""
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)
    place = Path(os.fsdecode(named)) if isinstance(named, (str, bytes)) else Path(folder or ".")
    there = next((part for part in (place, *place.absolute().parents) if part.is_dir()), Path("/"))
    free, code = shutil.disk_usage(there).free, getattr(error, "errno", None) or 0
    why = {errno.EDQUOT: "your quota of the disk is used up", errno.EFBIG: "a file may not be as large"}
    return (
        f"{place}: {why.get(code, 'the disk is full')} ({in_bytes(free)} free at {there}); what was written is kept: free some "
        "space, and the same command continues"
    )
