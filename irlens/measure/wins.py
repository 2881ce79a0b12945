"""Texts that compete: whose response to the same prompt is preferred, by scores or by a judge of pairs, and the win rates.

A preference is the chance that a response of the system `after` wins against one of the system `before`, a tie being half
of one: 0 to 1 for each prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.base.seeds import derive
from irlens.measure import groups, stats

if TYPE_CHECKING:
    from irlens.base.protocols import Reranker
    from irlens.rerank.reranker import Scoring

COLUMNS = ["query_id", "before", "after", "preference", "length_before", "length_after"]
RATE, DISCRETE, CONTROLLED = "win rate", "discrete win rate", "length-controlled win rate"
Pairs = Sequence[tuple[str, str]]


def preferences(
    systems: Mapping[str, pd.DataFrame],
    judge: str | Reranker | Callable,
    baseline: str | None = None,
    pairs: int = 1,
) -> pd.DataFrame:
    """query_id, before, after, preference, length_before, length_after of every two systems, or of each and the baseline.

    systems: name → run with texts; prompts are paired by query_id, those that not all have are left out. judge: a
    reranker (`irlens.reranker`) or its name. One whose scores hold within a list only (pairrm, judge) is shown two
    responses at a time, `pairs` of them per prompt and pair of systems: the first of each, the second of each, …; by
    another one's scores every response meets every other. Equal texts tie. Lengths are characters, the mean over the
    responses that met. `.attrs["facts"]`: what a judge counted. Comparisons that its server refused are left out, and
    prompts that have no other; `.attrs["refused"]` is then what it said of each comparison, "" of those that were judged.
    Raises UserError: fewer than two systems, no prompt in common, a baseline that is none of them, no answer of the judge
    that could be read, two systems of whom nothing was judged.
    """
    from irlens.base.options import at_least
    from irlens.rerank.by_name import reranker
    from irlens.rerank.reranker import as_scoring
    from irlens.rerank.scoring import need_texts

    at_least(1, pairs=pairs)
    if len(systems) < 2:
        raise UserError(f"preferences: needs two systems or more, got {len(systems)}")
    scoring = reranker(judge) if isinstance(judge, str) else as_scoring(judge)
    for name, run in systems.items():
        need_texts(run, f"preferences: {name}: a judge")
    common = set.intersection(*(set(run["query_id"]) for run in systems.values()))
    if not common:
        raise UserError("preferences: the systems have no prompt in common")
    runs = {name: run[run["query_id"].isin(common)].reset_index(drop=True) for name, run in systems.items()}
    chosen = groups.pairs(list(runs), baseline)
    if scoring.relative:
        return by_judge(runs, scoring, chosen, pairs)
    return by_scores({name: run.assign(reward=scoring.scores(run).scores) for name, run in runs.items()}, chosen)


def by_scores(systems: Mapping[str, pd.DataFrame], pairs: Pairs) -> pd.DataFrame:
    """The preferences of runs by their column `reward`: each response of a prompt meets each of the other system."""
    rows = []
    for before, after, query_id, first, second in _prompts(systems, pairs):
        above = second["reward"].to_numpy()[:, None] - first["reward"].to_numpy()[None, :]
        same = second["text"].to_numpy(dtype=object)[:, None] == first["text"].to_numpy(dtype=object)[None, :]
        wins = np.where(same, 0.5, (above > 0) + 0.5 * (above == 0))  # rounding tells equal texts apart
        rows.append((query_id, before, after, wins.mean(), _length(first), _length(second)))
    return pd.DataFrame(rows, columns=COLUMNS)


def by_judge(systems: Mapping[str, pd.DataFrame], judge: Scoring, pairs: Pairs, most: int = 1) -> pd.DataFrame:
    """The preferences of a judge of pairs: the first response of each system, the second of each, … up to `most`."""
    met: list[tuple] = []
    shown: list[dict] = []
    for before, after, query_id, first, second in _prompts(systems, pairs):
        count = min(most, len(first), len(second))
        met.append((query_id, before, after, count, _length(first[:count]), _length(second[:count])))
        shown += _shown(met[-1], first, second)
    found = judge.scores(pd.DataFrame(shown))
    check_answers(found.facts, judge.name)
    ours, theirs = found.scores[1::2], found.scores[::2]
    words = np.full(len(ours), "", dtype=object) if found.refused is None else found.refused[::2]
    wins, start, rows = np.where(words != "", np.nan, (ours > theirs) + 0.5 * (ours == theirs)), 0, []
    for query_id, before, after, count, *lengths in met:
        won = wins[start : start + count]
        if (known := won[~np.isnan(won)]).size:
            rows.append((query_id, before, after, known.mean(), *lengths))
        start += count
    out = pd.DataFrame(rows, columns=COLUMNS)
    if left := set(pairs) - set(zip(out["before"], out["after"])):
        before, after = min(left)
        raise UserError(
            f"{judge.name}: no comparison of {before} and {after} is judged, as the server refused them all ({max(words):.80})"
        )
    out.attrs["facts"] = found.facts
    if words.any():
        out.attrs["refused"] = words.tolist()
    return out


def _prompts(
    systems: Mapping[str, pd.DataFrame], pairs: Pairs
) -> Iterator[tuple[str, str, str, pd.DataFrame, pd.DataFrame]]:
    """(before, after, query_id, the rows of each) of every prompt of every pair of systems."""
    by = [column for column in ("rank",) if all(column in run.columns for run in systems.values())]
    ordered = {name: run.sort_values(by, kind="stable") if by else run for name, run in systems.items()}
    parts = {name: dict(iter(run.groupby("query_id", sort=False))) for name, run in ordered.items()}
    for before, after in pairs:
        for query_id, first in parts[before].items():
            yield before, after, str(query_id), first, parts[after][query_id]


def _length(rows: pd.DataFrame) -> float:
    return float(rows["text"].str.len().mean())


def _shown(met: tuple, first: pd.DataFrame, second: pd.DataFrame) -> Iterator[dict]:
    """The rows that a judge reads, two for each comparison: a list of its own by its tag."""
    query_id, before, after, count = met[:4]
    asked = {column: first[column].iloc[0] for column in ("query", "messages") if column in first.columns}
    for k in range(count):
        tag = f"{before} and {after}, {k}"
        for rank, (name, rows) in enumerate(((before, first), (after, second))):
            row = rows.iloc[k]
            told = {"doc_id": f"{row['doc_id']} of {name} ({tag})", "text": row["text"], "tag": tag}
            yield {"query_id": query_id, **told, "score": -float(rank), "rank": rank, **asked}


def check_answers(facts: Mapping[str, int], name: str) -> None:
    """Raises UserError if a judge was asked and none of its answers could be read: all would be ties."""
    asked = facts.get("asked", 0)
    if asked and facts.get("nonsense", 0) == asked:
        raise UserError(
            f"{name}: none of its {asked // 2:,} answers could be read, asked twice each, so nothing is known; is it a chat "
            "model, and has it room to answer?"
        )


# -- win rates -----------------------------------------------------------------------------------------------------


def win_rates(preferences: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """measure, run, against, value, se, low, high, n: three win rates of each pair in `preferences`.

    The win rate is the mean preference; discrete: the share of prompts whose preference is above one half, a half
    counting one half; length-controlled: had both responses been equally long (`irlens.measure.winrate`). se: standard
    errors over prompts, of the last by a bootstrap with `seed`. One prompt has no error and no interval. Raises
    UserError: a frame that is none of preferences.
    """
    from irlens.measure import winrate

    rows = []
    for (before, after), part in checked(preferences).groupby(["before", "after"], sort=False):
        won, longer = 1 + part["preference"].to_numpy(), (part["length_before"] - part["length_after"]).to_numpy()
        plain = winrate.win_rate(won)
        controlled = winrate.length_controlled(won, longer, seed=derive(seed, 0, "bootstrap"))
        ends = (controlled.fit_error, controlled.low, controlled.high)
        if len(part) == 1 or controlled.fit_error < 1e-12:  # resamples that are all alike say nothing
            ends = (plain.standard_error, plain.low, plain.high)
        some = {name: (one.value, one.standard_error, one.low, one.high)
                for name, one in ((RATE, plain), (DISCRETE, winrate.discrete_win_rate(won)))}  # fmt: skip
        for name, (value, error, low, high) in (some | {CONTROLLED: (controlled.value, *ends)}).items():
            told = {"measure": name, "run": after, "against": before, "value": value, "se": error}
            rows.append(told | {"low": low, "high": high, "n": plain.n})
    return pd.DataFrame(rows)


def tested(preferences: pd.DataFrame, seed: int) -> tuple[list[dict], list[tuple[list[float], list[float]]]]:
    """(rows of paired tests of the win rates against one half, the two sides of each).

    difference: the win rate of `after` less one half. Within a prompt the winner is a coin's where neither system is
    better: the test is that of `stats.paired_test` on the preference of the one and of the other.
    """
    rows, sides = [], []
    for (before, after), part in checked(preferences).groupby(["before", "after"], sort=False):
        won = part["preference"].to_numpy()
        test = asdict(stats.paired_test(1 - won, won, seed=derive(seed, 0, "bootstrap")))
        halved = {name: test[name] / 2 for name in ("difference", "low", "high")}  # of 2 · preference − 1
        rows.append({"before": before, "after": after, "measure": RATE, **test, **halved})
        sides.append(([0.5] * len(won), won.tolist()))
    return rows, sides


def checked(preferences: pd.DataFrame) -> pd.DataFrame:
    """`preferences` itself. Raises UserError if it is none, or holds one that is not a number from 0 to 1."""
    if missing := [column for column in COLUMNS if column not in preferences.columns]:
        raise UserError(f"win rates need preferences (irlens.preferences); the frame has no column {missing[0]}")
    good = preferences["preference"].between(0, 1)
    if not good.all():
        row = preferences[~good].iloc[0]
        raise UserError(
            f"preference of {row['after']} against {row['before']}, query_id={row['query_id']}: expected 0 to 1, got "
            f"{row['preference']}"
        )
    return preferences
