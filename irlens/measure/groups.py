"""Which systems meet, and which cannot be told apart: the groups that paired tests leave, as letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from string import ascii_lowercase

import pandas as pd

from irlens.base.errors import UserError, did_you_mean


def pairs(names: Sequence[str], baseline: str | None = None) -> list[tuple[str, str]]:
    """Every two names, or the baseline with each other one. Raises UserError for a baseline that is none of them."""
    if baseline is None:
        return list(combinations(names, 2))
    if baseline not in names:
        raise UserError(f"compare: the baseline {baseline!r} is no system here; {did_you_mean(baseline, names)}")
    return [(baseline, name) for name in names if name != baseline]


def letters(tests: pd.DataFrame, order: Sequence[str], alpha: float = 0.05) -> dict[str, str]:
    """System → its letters: two systems share one if their test does not tell them apart (p_holm of `alpha` or more).

    tests: before, after, p_holm of every pair, of one measure. order: the systems, best first; group a holds the best.
    Every largest set of systems of which no two can be told apart is a group, so a system may be in several.
    Source: Piepho 2004, "An algorithm for a letter-based representation of all-pairwise comparisons".
    """
    alike = {name: {name} for name in order}
    for row in tests.itertuples():
        if not row.p_holm < alpha:
            alike[row.before].add(row.after)
            alike[row.after].add(row.before)
    place = {name: i for i, name in enumerate(order)}
    groups = sorted((sorted(group, key=place.__getitem__) for group in _cliques(set(), set(order), set(), alike)),
                    key=lambda group: [place[name] for name in group])  # fmt: skip
    named = [(ascii_lowercase[i % 26] * (1 + i // 26), group) for i, group in enumerate(groups)]
    return {name: "".join(letter for letter, group in named if name in group) for name in order}


def _cliques(chosen: set, open_: set, done: set, alike: dict[str, set]) -> Iterator[set]:
    """Every largest set whose members are all alike (Bron and Kerbosch 1973)."""
    if not open_ and not done:
        yield chosen
    for name in sorted(open_):
        near = alike[name] - {name}
        yield from _cliques(chosen | {name}, open_ & near, done & near, alike)
        open_, done = open_ - {name}, done | {name}
