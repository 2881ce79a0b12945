"""Candidate lists: judged draws, merged over iterations and cut into what a ranking loss trains on."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from irlens.chat import with_tokens
from irlens.errors import UserError
from irlens.tables import check

COLUMNS = ["query_id", "query", "doc_id", "text", "grade", "tier", "iteration", "list"]


def merge(
    pools: dict[int, tuple[pd.DataFrame, pd.DataFrame]], queries: Iterable[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs and qrels of several iterations as one, for the prompts in `queries`.

    pools: iteration → (run, qrels). A draw's doc_id gets `@iteration`, since every iteration numbers its draws anew.
    """
    wanted = set(queries)
    runs, judged = [], []
    for s, (run, qrels) in pools.items():
        for frame, parts in ((run, runs), (qrels, judged)):
            kept = frame[frame["query_id"].isin(wanted)]
            parts.append(kept.assign(doc_id=kept["doc_id"] + f"@{s}"))
    return pd.concat(runs, ignore_index=True), pd.concat(judged, ignore_index=True)


def cut_lists(
    run: pd.DataFrame,
    qrels: pd.DataFrame,
    topics: pd.DataFrame,
    positives: int,
    negatives: int,
    lists: int = 1,
    iteration: int = 0,
    seed: int = 0,
    positives_from: str = "own",
    self_play: bool = False,
) -> pd.DataFrame:
    """Up to `lists` lists per query from its judged draws: the `positives` best and the `negatives` worst of each.

    Draws of equal text count once, unfinished and empty ones not at all; within a grade their order is shuffled by
    (seed, iteration, query). No positive is of the query's lowest grade and no negative of its highest, so a query
    whose draws are all of one grade gives no list. List j takes the next draws and starts over when one side runs out;
    it stops when a list would repeat an earlier one. With `negatives` 0 a list holds draws of a grade above 0 only.

    positives_from: "own" draws, the "gold" solution alone, or "both" (gold is one more best candidate). self_play: all
    own draws are negatives of the gold solution, right or wrong, as in SPIN. Columns: lists' own, and `list` (j).
    Raises UserError if gold solutions are asked for and the topics have none.
    """
    if positives_from != "own" and "solution" not in topics.columns:
        raise UserError(f"--positives-from {positives_from}: the data set has no solutions; use own")
    judged = run.merge(qrels, on=["query_id", "doc_id"])
    judged = judged[judged["finish_reason"] != "length"] if "finish_reason" in judged.columns else judged
    judged = judged[judged["text"].str.strip() != ""].drop_duplicates(["query_id", "text"])
    groups = dict(iter(judged.groupby("query_id", sort=False)))
    solutions = topics["solution"] if positives_from != "own" else [None] * len(topics)
    rows = []
    for query_id, query, gold in zip(topics["query_id"], topics["query"], solutions):
        group = groups.get(query_id, judged.iloc[:0])
        rng = np.random.default_rng([seed, iteration, *query_id.encode()])
        group = group.iloc[rng.permutation(len(group))].sort_values("relevance", ascending=False, kind="stable")
        draws = list(zip(group["doc_id"], group["text"], group["relevance"].astype(float)))
        good, bad = _sides(draws, (f"{query_id}/gold", gold) if gold else None, positives_from, self_play, negatives)
        for number, (ups, downs) in enumerate(_turns(good, bad, positives, negatives, lists)):
            rows += [(query_id, query, d, t, g, "positive", iteration, number) for d, t, g in ups]
            rows += [(query_id, query, d, t, g, "own", iteration, number) for d, t, g in downs]
    return with_tokens(check(pd.DataFrame(rows, columns=COLUMNS), "lists"), run)


def _sides(draws: list, gold: tuple | None, positives_from: str, self_play: bool, negatives: int) -> tuple[list, list]:
    """(candidates for positives, best first; candidates for negatives, worst first), each (doc_id, text, grade)."""
    if gold is None:
        if not draws:
            return [], []
        top, bottom = draws[0][2], draws[-1][2]
        good = [d for d in draws if d[2] > (bottom if negatives else 0)]
        return good, [d for d in draws if d[2] < top][::-1]
    others = [d for d in draws if d[1].strip() != gold[1].strip()]
    if self_play:
        return [(*gold, 1.0)], [(d, t, 0.0) for d, t, _ in others]
    top = max((g for _, _, g in others), default=1.0)
    right = [d for d in others if d[2] == top and top > 0] if positives_from == "both" else []
    return [(*gold, max(top, 1.0)), *right], [d for d in others if d[2] < max(top, 1.0)][::-1]


def _turns(good: list, bad: list, positives: int, negatives: int, lists: int) -> Iterable[tuple[list, list]]:
    if not good or (negatives and not bad):
        return
    p, q = min(positives, len(good)), min(negatives, len(bad))
    seen = set()
    for j in range(lists):
        ups = [good[(j * p + i) % len(good)] for i in range(p)]
        taken = {d for d, _, _ in ups}
        downs = [d for i in range(q) if (d := bad[(j * q + i) % len(bad)])[0] not in taken]
        key = (frozenset(taken), frozenset(d for d, _, _ in downs))
        if key in seen or (negatives and not downs):
            return
        seen.add(key)
        yield ups, downs
