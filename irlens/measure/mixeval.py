"""MixEval's scores of a run: over all, by type and by benchmark, of both sets, with intervals over distinct items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from irlens.base.errors import UserError, did_you_mean
from irlens.measure.repeats import linearised, repeated_interval
from irlens.measure.results import Results, results_of
from irlens.rerank import mixeval as answers
from irlens.tasks.mixeval import KINDS, SPLITS, read, version_of

if TYPE_CHECKING:
    import os

TITLES = dict(zip(SPLITS, ("MixEval", "MixEval-Hard")))
DIGITS = 3  # to which the authors round the mean of a type before they combine the two


def mixeval(
    run: pd.DataFrame,
    folder: str | os.PathLike,
    *,
    splits: str | Sequence[str] | None = None,
    judge: answers.ItemJudge | None = None,
    allow_missing: bool = False,
    parity: bool = False,
) -> Results:
    """What a run's responses are worth on MixEval and MixEval-Hard: a row for each `tag` and set, type and benchmark.

    folder: a version of the benchmark in its authors' layout, or a checkout with one. splits: mixeval, mixeval-hard;
    default those that the run answers. judge: (rows, items) → `score` and `read` of each row; default the authors' rules.
    Columns beside a results table's: `distinct` items, `unread` responses (no choice found, or no verdict; they count 0)
    and `missing` items. parity: rounded and combined as the authors do. Raises UserError: no MixEval there, a run of other
    prompts, items without a response unless `allow_missing`.
    """
    items = [item for split in present(folder) for item in read(Path(folder), split)]
    found = answers.answered(run, items, chosen(splits))
    if not allow_missing:
        answers.refuse_missing(found.missing, found.items)
    rows = answers.judged(found, judge or partial(answers.by_rule, parity=parity))
    return scores(rows, found, parity)


def present(folder: str | os.PathLike) -> list[str]:
    """The sets of a folder, without their forms for base models."""
    version = version_of(Path(folder).expanduser())
    return [split for split in SPLITS if (version / split).is_dir()]


def chosen(splits: str | Sequence[str] | None) -> list[str] | None:
    """The sets that are asked for; None for those that a run answers. Raises UserError for one that is not known."""
    found = [splits] if isinstance(splits, str) else splits
    for split in found or ():
        if split not in SPLITS:
            raise UserError(f"MixEval: no split {split!r}; {did_you_mean(split, SPLITS)}")
    return None if found is None else list(found)


def scores(rows: pd.DataFrame, found: answers.Answered, parity: bool = False) -> Results:
    """The table of judged rows (`rerank.mixeval.judged`). An item's value is the mean over its responses.

    `per_query` holds what each distinct item adds (`repeats.linearised`): paired tests of it are tests over distinct items.
    """
    about = pd.DataFrame(
        [(item.query_id, item.split, item.kind, item.benchmark) for item in found.items],
        columns=["query_id", "split", "kind", "benchmark"],
    )
    each = rows.groupby(["system", "query_id", "item"], sort=False)
    values = each.agg(value=("score", "mean"), unread=("read", lambda read: int((~read.astype(bool)).sum())))
    values = values.reset_index().merge(about, on="query_id")
    table, parts = [], []
    for system, some in values.groupby("system", sort=False):
        for split in dict.fromkeys(item.split for item in found.items):
            there = some[some["split"] == split]
            lacking = set(found.missing.get((str(system), split), ()))
            gone = about[about["query_id"].isin(lacking)]
            for name, part, missing in _parts(there, gone, TITLES[split]):
                row, per_item = _score(part, parity)
                table.append({"run": system, "measure": name} | row | {"missing": missing})
                parts.append(per_item.assign(run=system, measure=name))
    if not table:
        raise UserError("the run answers no item of MixEval")
    per_query = pd.concat(parts, ignore_index=True)[["run", "query_id", "measure", "value"]]
    return results_of(pd.DataFrame(table), per_query)


def _parts(there: pd.DataFrame, gone: pd.DataFrame, title: str) -> Iterator[tuple[str, pd.DataFrame, int]]:
    """(measure, its items, how many of it are missing): all, by type, by benchmark; nothing of what has no item."""
    if len(there):
        yield title, there, len(gone)
    for column, names in (("kind", KINDS), ("benchmark", sorted(set(there["benchmark"]), key=str.lower))):
        for name in names:
            part = there[there[column] == name]
            if len(part):
                yield f"{title} {name}", part, int((gone[column] == name).sum())


def _score(part: pd.DataFrame, parity: bool) -> tuple[dict, pd.DataFrame]:
    """(value, interval and counts of some items, what each distinct one adds)."""
    means = part.groupby("item", sort=False)["value"].agg(["mean", "size"])
    copies = means["size"].to_numpy(dtype=float)
    low, high = repeated_interval(means["mean"].to_numpy(), copies)
    added = linearised(means["mean"].to_numpy(), copies)
    kinds = [some["value"].to_numpy() for _, some in part.groupby("kind", sort=False)]
    rounded = [round(float(np.sum(some)) / len(some), DIGITS) if parity else float(np.mean(some)) for some in kinds]
    value = sum(mean * len(some) for mean, some in zip(rounded, kinds)) / len(part)
    counts = {"n": len(part), "distinct": len(copies), "unread": int(part["unread"].sum())}
    per_item = pd.DataFrame({"query_id": means.index, "value": added})
    return {"value": value, "low": low, "high": high} | counts, per_item


# -- tables --------------------------------------------------------------------------------------------------------


def together(some: Sequence[Results]) -> Results:
    """The results of several systems as one table."""
    return results_of(pd.concat(some, ignore_index=True), pd.concat([one.per_query for one in some], ignore_index=True))


def qrels(rows: pd.DataFrame) -> pd.DataFrame:
    """`query_id, doc_id, relevance` and `unread` of every response that was judged, under the run's own identifiers."""
    found = rows.drop_duplicates(["answered_by", "doc_id"])
    grades = found["score"].to_numpy(dtype=float)
    found = found[["answered_by", "doc_id"]].rename(columns={"answered_by": "query_id"})
    found = found.assign(relevance=grades.astype(np.int64) if (grades % 1 == 0).all() else grades)
    return found.assign(unread=~rows.loc[found.index, "read"].to_numpy(dtype=bool)).reset_index(drop=True)


def wide(results: pd.DataFrame) -> tuple[list[str], list[tuple[str, list]]]:
    """(columns, rows) of the table of systems: both sets over all, then by type; a cell is a row of `results`, or None."""
    known = [*TITLES.values(), *(f"{title} {kind}" for title in TITLES.values() for kind in KINDS)]
    names = [name for name in known if (results["measure"] == name).any()]
    rows = []
    for system, some in results.groupby("run", sort=False):
        cells = {row.measure: row for row in some.itertuples()}
        rows.append((str(system), [cells.get(name) for name in names]))
    return names, rows


def markdown(results: pd.DataFrame) -> str:
    """The table of systems, in per cent with intervals, and what was counted."""
    names, rows = wide(results)
    lines = [["system", *names], ["---"] * (len(names) + 1)]
    for system, cells in rows:
        told = [f"{100 * c.value:.1f} [{100 * c.low:.1f}, {100 * c.high:.1f}]" if c else "" for c in cells]
        lines.append([system.replace("|", r"\|"), *told])
    notes = [
        f"{row.run}, {row.measure}: {row.n:,} items ({row.distinct:,} distinct), {row.unread:,} responses unread and "
        f"counted as 0, {row.missing:,} items without a response."
        for row in results[results["measure"].isin(TITLES.values())].itertuples()
    ]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([table, "95 % intervals over distinct items.", *notes]) + "\n"
