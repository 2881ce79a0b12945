"""Hardness tiers and candidate lists: from runs and their judgements to what a ranking loss trains on."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from irlens.errors import UserError, did_you_mean
from irlens.tables import check

# Tiers of the paper's Figure 3a, easiest first: (what a negative of this tier is)
TIERS = {
    "easiest": "response to a random prompt of another data set",
    "easy": "response to another prompt of the same data set",
    "hard": "wrong response at high temperature",
    "hardest": "wrong response at low temperature",
}


def parse_tiers(text: str) -> list[str]:
    """Comma-separated tier names, in the order given. Raises UserError for an unknown or repeated one, or none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TIERS:
            raise UserError(f"unknown tier {name!r}; {did_you_mean(name, TIERS)}")
    if not names or len(set(names)) < len(names):
        raise UserError(f"--tiers {text!r}: give each tier once, of: {', '.join(TIERS)}")
    return names


@dataclass
class Mined:
    """Lists, and one row per tier of `report`: prompts, negatives, prompts_without, false_negatives, duplicates."""

    lists: pd.DataFrame
    report: pd.DataFrame


@dataclass
class _Used:
    """Texts that already serve as a negative somewhere: no negative is used for two prompts."""

    texts: set[str] = field(default_factory=set)

    def take(self, text: str) -> bool:
        fresh = text not in self.texts
        self.texts.add(text)
        return fresh


def mine_negatives(
    topics: pd.DataFrame,
    pools: dict[str, pd.DataFrame],
    accepts: Callable[[str, str], bool],
    positives: pd.DataFrame,
    per_tier: int = 1,
    seed: int = 0,
) -> Mined:
    """Lists with one positive and up to `per_tier` negatives of each tier in `pools` per topic.

    pools: tier → run rows (query_id, doc_id, text; finish_reason where known) to choose from. The tiers `easiest` and
    `easy` take another prompt's response, at random; `hard` and `hardest` the prompt's own wrong ones, in pool order.
    accepts(query_id, text): whether the verifier takes this text as right for this prompt; such a text never becomes
    its negative and is counted as a false negative removed. positives: query_id, doc_id, text, one row per query;
    a topic without one gets no list and is counted in `report`. Responses that never finished are left out: they are
    not known to be wrong. Exact duplicates within a prompt are dropped, and no text is a negative of two prompts.
    """
    positive = {row.query_id: row for row in positives.itertuples()}
    used, rng = _Used(), np.random.default_rng(seed)
    chosen: dict[str, dict[str, list]] = {}
    report = []
    for tier, pool in pools.items():
        if "finish_reason" in pool.columns:
            pool = pool[pool["finish_reason"] != "length"]
        pick = _pick_foreign if tier in ("easiest", "easy") else _pick_own
        chosen[tier], counts = pick(list(positive), pool, accepts, positive, per_tier, used, rng)
        with_one = sum(bool(found) for found in chosen[tier].values())
        report.append(
            {
                "tier": tier,
                "meaning": TIERS[tier],
                "prompts": len(topics),
                "prompts_with": with_one,
                "prompts_without": len(topics) - with_one,
                "negatives": sum(map(len, chosen[tier].values())),
                **counts,
            }
        )
    rows = []
    for query_id, query in zip(topics["query_id"], topics["query"]):
        if query_id in positive and any(chosen[tier].get(query_id) for tier in pools):
            rows.append((query_id, query, positive[query_id].doc_id, positive[query_id].text, 1.0, "positive"))
            rows += [(query_id, query, d, t, 0.0, tier) for tier in pools for d, t in chosen[tier].get(query_id, [])]
    lists = pd.DataFrame(rows, columns=["query_id", "query", "doc_id", "text", "grade", "tier"]).assign(
        iteration=0, list=0
    )
    return Mined(check(lists, "lists"), pd.DataFrame(report))


def _pick_own(queries, pool, accepts, positive, per_tier, used, rng):
    """A prompt's own wrong responses, in pool order."""
    found, counts = {}, {"false_negatives": 0, "duplicates": 0}
    groups = dict(iter(pool.groupby("query_id", sort=False)))
    for query_id in queries:
        found[query_id] = []
        own = groups.get(query_id)
        if own is None:
            continue
        seen = {positive[query_id].text}
        for doc_id, text in zip(own["doc_id"], own["text"]):
            if text in seen:
                counts["duplicates"] += 1
            elif accepts(query_id, text):
                counts["false_negatives"] += 1
            elif len(found[query_id]) < per_tier and used.take(text):
                found[query_id].append((doc_id, text))
            seen.add(text)
    return found, counts


def _pick_foreign(queries, pool, accepts, positive, per_tier, used, rng):
    """Other prompts' responses, at random without repetition; what does not suit one prompt stays for the next."""
    found, counts = {}, {"false_negatives": 0, "duplicates": 0}
    shuffled = pool.iloc[rng.permutation(len(pool))]
    waiting = list(zip(shuffled["query_id"], shuffled["doc_id"], shuffled["text"]))[::-1]
    for query_id in queries:
        found[query_id], put_back = [], []
        while waiting and len(found[query_id]) < per_tier:
            origin, doc_id, text = waiting.pop()
            if text in used.texts:
                counts["duplicates"] += 1
            elif origin == query_id or text == positive[query_id].text:
                put_back.append((origin, doc_id, text))
            elif accepts(query_id, text):
                counts["false_negatives"] += 1
                put_back.append((origin, doc_id, text))
            else:
                used.take(text)
                found[query_id].append((doc_id, text))
        waiting += put_back[::-1]
    return found, counts


def positives_from(topics: pd.DataFrame, run: pd.DataFrame, qrels: pd.DataFrame, source: str) -> pd.DataFrame:
    """One positive per query (query_id, doc_id, text): its gold solution, or its first right draw (`source`: gold, correct).

    A gold solution is never part of the run: its doc_id is `<query_id>/gold`.
    """
    if source == "gold":
        if "solution" not in topics.columns:
            raise UserError("--positives gold: the data set has no solutions; use --positives correct")
        return topics[["query_id"]].assign(doc_id=topics["query_id"] + "/gold", text=topics["solution"])
    if source != "correct":
        raise UserError(f"--positives {source!r}: {did_you_mean(source, ('gold', 'correct'))}")
    right = run.merge(qrels[qrels["relevance"] > 0], on=["query_id", "doc_id"])
    return right.drop_duplicates("query_id")[["query_id", "doc_id", "text"]].reset_index(drop=True)


def as_pairs(lists: pd.DataFrame) -> pd.DataFrame:
    """Mined lists (one positive, several negatives) as lists of two: `list` numbers a query's pairs."""
    positive = lists[lists["tier"] == "positive"]
    negative = lists[lists["tier"] != "positive"]
    negative = negative.assign(list=negative.groupby("query_id").cumcount())
    pairs = negative[["query_id", "list"]].merge(positive.drop(columns="list"), on="query_id")
    both = pd.concat([pairs, negative], ignore_index=True)[lists.columns]
    return both.sort_values(
        ["query_id", "list", "grade"], ascending=[True, True, False], kind="stable", ignore_index=True
    )
