"""What the tasks with generated problems share: splits by a hash of the problem, and the first problems of a split."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.tasks.contract import pick_split, query_id

if TYPE_CHECKING:
    import pandas as pd

SPLITS = {"pretrain": (0, 60), "train": (60, 80), "validation": (80, 90), "test": (90, 100)}  # percentiles of the hash
TRIES = 100_000  # problems in a row that are no new ones, after which there are no more


def split_of(problem: str) -> str:
    """The split that a problem belongs to: a function of what it says of itself only."""
    percentile = int.from_bytes(hashlib.blake2b(problem.encode(), digest_size=8).digest(), "big") % 100
    return next(split for split, (low, high) in SPLITS.items() if low <= percentile < high)


def distinct(problems: Iterator[dict], where: str, tries: int = TRIES) -> Iterator[dict]:
    """The problems without those whose `key` came before. Raises UserError once `tries` in a row were no new ones: there are
    only so many. where: the split, as the message calls it."""
    seen, old = set(), 0
    for problem in problems:
        if problem["key"] in seen:
            old += 1
            if old == tries:
                raise UserError(f"{where} has no more than {len(seen):,} problems")
            continue
        seen.add(problem["key"])
        old = 0
        yield problem


def take(make: Callable[[str], Iterator[dict]], split: str, limit: int | None, sizes: dict[str, int]) -> list[dict]:
    """The first `limit` of what `make` gives for a split (default and most: `sizes[split]`)."""
    return list(_taken(make, split, sizes[split] if limit is None else min(limit, sizes[split])))


@functools.cache
def _taken(make: Callable[[str], Iterator[dict]], split: str, size: int) -> tuple[dict, ...]:
    """The same, made once in a process: every step of a recipe asks for them."""
    return tuple(islice(make(split), size))


def topics(
    name: str, split: str | None, limit: int | None, sizes: dict[str, int], make: Callable[[str], Iterator[dict]]
) -> tuple[str, pd.DataFrame]:
    """(the split, its first `limit` problems as a table of topics). Raises UserError for a split that the task `name` lacks."""
    import pandas as pd

    from irlens.tables import check

    split = pick_split(split, sizes, name)
    rows = [
        (query_id(name, split, i), row["query"], [row["answer"]], row["solution"])
        for i, row in enumerate(take(make, split, limit, sizes))
    ]
    return split, check(pd.DataFrame(rows, columns=["query_id", "query", "answers", "solution"]), "topics")
