"""Tiers of negatives: from draws and their judgements to lists of positives and negatives of known hardness."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from irlens.candidate_scores import Bound, check_finite
from irlens.errors import UserError, did_you_mean
from irlens.false_negatives import REASONS
from irlens.tables import check

# What a negative of each tier is: the paper's four (Figure 3a), easiest first, then those of retrieval
TIERS = {
    "easiest": "response to a random prompt of another data set",
    "easy": "response to another prompt of the same data set",
    "hard": "wrong response at high temperature",
    "hardest": "wrong response at low temperature",
    "top-ranked": "wrong response that the policy finds likeliest (ANCE)",
    "near-miss": "wrong response with the highest reward",
    "margin": "wrong response scored highest below the positive's score less a margin (NV-Retriever)",
}
FOREIGN = ("easiest", "easy")  # responses to other prompts
TURNS = ("near-miss", "top-ranked", "margin", "hardest", "hard", "easy", "easiest")  # the choosiest tier chooses first
SCORES = {"top-ranked": "logprob", "near-miss": "reward"}  # what orders the candidates of a tier, highest first


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
    """What was mined: lists; report, a row per tier; skipped, the prompts without a list (query_id, why).

    The report's columns: tier, meaning, prompts, prompts_with, prompts_without, negatives, candidates (looked at),
    unusable (unfinished or empty), duplicates, taken (by another prompt or an earlier tier), beyond_margin,
    false_negatives and, of those, each of `false_negatives.REASONS` with underscores.
    """

    lists: pd.DataFrame
    report: pd.DataFrame
    skipped: pd.DataFrame


@dataclass
class _Used:
    """Texts that already serve: no text is a negative of two prompts (unless `reuse`), and none of one prompt twice."""

    reuse: bool
    taken: set = field(default_factory=set)

    def take(self, query_id: str, text: str) -> bool:
        key = (query_id, text) if self.reuse else text
        fresh = key not in self.taken
        self.taken.add(key)
        return fresh

    def release(self, query_id: str, text: str) -> None:
        self.taken.discard((query_id, text) if self.reuse else text)


def mine_negatives(
    topics: pd.DataFrame,
    pools: dict[str, pd.DataFrame],
    positives: pd.DataFrame,
    screen: Callable[[pd.DataFrame], pd.Series],
    per_tier: int = 1,
    seed: int = 0,
    *,
    neighbours: dict[str, list[str]] | None = None,
    bound: Bound | None = None,
    allow_reuse: bool = False,
) -> Mined:
    """Lists with a topic's positives and up to `per_tier` negatives of each tier in `pools`.

    pools: tier → run rows (query_id, doc_id, text; finish_reason where known) to choose from. `easiest` and `easy` take
    other prompts' responses, at random or, for `easy` with neighbours (query_id → other query_ids, nearest first), from
    the nearest prompts; a column `query` tells the prompt that a row answered, and equal prompts count as the same.
    The others take the prompt's own: `hard` and `hardest` in pool order, `top-ranked` by the column logprob, `near-miss`
    by reward, `margin` by `bound.score` (default logprob) below the positive's. positives: query_id, doc_id, text (and
    those scores), any number per query; a topic without one gets no list. screen(query_id, text and other columns of
    rows) → "" or why each may be right for its prompt (`false_negatives.false_negatives`); such a text is not used.

    Unfinished and empty responses are left out: they are not known to be wrong. So are repeats of a text within a
    prompt, the positives' own texts, and what another prompt or tier took: tiers choose in the order of TURNS, whatever
    the order of `pools`, and only a tier that is mined alone has every response to choose from. A random choice is a function of
    (seed, query) and the pool. Raises UserError: a score that a tier needs is missing or not finite.
    """
    positives = positives[positives["query_id"].isin(topics["query_id"])]
    own_texts = set(zip(positives["query_id"], positives["text"]))
    queries = topics[topics["query_id"].isin(positives["query_id"])]
    used, bound = _Used(allow_reuse), (bound or Bound()).check()
    chosen, rows = {}, {}
    for tier, pool in sorted(pools.items(), key=lambda item: TURNS.index(item[0])):
        counts = Counter(dict.fromkeys((*COUNTS, *map(_column, REASONS)), 0))
        pool = _usable(pool, counts)
        if tier in FOREIGN:
            order = _order(pool, neighbours if tier == "easy" else None, seed)
            found = _pick_foreign(queries, pool, order, screen, own_texts, per_tier, used, counts)
        else:
            ranked = _ranked(tier, pool[pool["query_id"].isin(queries["query_id"])], bound)
            found = _pick_own(ranked, screen, own_texts, per_tier, used, counts, tier == "margin" and bound, positives)
        chosen[tier] = found
        with_one = sum(map(bool, found.values()))
        rows[tier] = {
            "tier": tier,
            "meaning": TIERS[tier],
            "prompts": len(topics),
            "prompts_with": with_one,
            "prompts_without": len(topics) - with_one,
            "negatives": sum(map(len, found.values())),
            "false_negatives": sum(counts[_column(reason)] for reason in REASONS),
            **counts,
        }
    lists, skipped = _as_lists(topics, positives, {tier: chosen[tier] for tier in pools})
    return Mined(lists, pd.DataFrame([rows[tier] for tier in pools]), skipped)


COUNTS = ("candidates", "unusable", "duplicates", "taken", "beyond_margin")


def _column(reason: str) -> str:
    return reason.replace(" ", "_")


def _as_lists(topics: pd.DataFrame, positives: pd.DataFrame, chosen: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    good = {query_id: list(zip(some["doc_id"], some["text"])) for query_id, some in positives.groupby("query_id")}
    rows, skipped = [], []
    for query_id, query in zip(topics["query_id"], topics["query"]):
        negatives = [(d, t, tier) for tier, found in chosen.items() for d, t in found.get(query_id, ())]
        if query_id not in good or not negatives:
            skipped.append((query_id, "no positive" if query_id not in good else "no negative in any tier"))
            continue
        rows += [(query_id, query, d, t, 1.0, "positive") for d, t in good[query_id]]
        rows += [(query_id, query, d, t, 0.0, tier) for d, t, tier in negatives]
    lists = pd.DataFrame(rows, columns=["query_id", "query", "doc_id", "text", "grade", "tier"])
    return check(lists.assign(iteration=0, list=0), "lists"), pd.DataFrame(skipped, columns=["query_id", "why"])


def _usable(pool: pd.DataFrame, counts: Counter) -> pd.DataFrame:
    good = pool["text"].str.strip() != ""
    if "finish_reason" in pool.columns:
        good &= pool["finish_reason"] != "length"
    counts["candidates"], counts["unusable"] = len(pool), int((~good).sum())
    return pool[good]


def _ranked(tier: str, pool: pd.DataFrame, bound: Bound) -> pd.DataFrame:
    """A tier's own candidates in the order in which they are chosen; ties by doc_id."""
    score = bound.score if tier == "margin" else SCORES.get(tier)
    if score is None:
        return pool
    check_finite(pool, score, f"tier {tier}: candidates")
    return pool.sort_values([score, "doc_id"], ascending=[False, True], kind="stable")


def _pick_own(ranked, screen, own_texts, per_tier, used, counts, bound, positives) -> dict[str, list]:
    """query_id → [(doc_id, text)]: a prompt's own wrong responses, in the order of `ranked`."""
    distinct = ranked.drop_duplicates(["query_id", "text"])
    fresh = [pair not in own_texts for pair in zip(distinct["query_id"], distinct["text"])]
    distinct = distinct[np.array(fresh, dtype=bool)]
    counts["duplicates"] = len(ranked) - len(distinct)
    reasons = screen(distinct).to_numpy()
    counts.update(Counter(_column(reason) for reason in reasons if reason))
    wrong = distinct[reasons == ""]
    if bound:
        below = bound.below(wrong, positives)
        counts["beyond_margin"] = int((~below).sum())
        wrong = wrong[below]
    found: dict[str, list] = {}
    for query_id, doc_id, text in zip(wrong["query_id"], wrong["doc_id"], wrong["text"]):
        some = found.setdefault(query_id, [])
        if len(some) < per_tier:
            if used.take(query_id, text):
                some.append((doc_id, text))
            else:
                counts["taken"] += 1
    return found


def _order(pool: pd.DataFrame, neighbours: dict | None, seed: int) -> Callable[[str], Iterator[int]]:
    """query_id → the rows of `pool` in the order in which they are offered to it.

    At random: a start and a stride of the query's own through one shuffled deck, so that no order has to be kept.
    """
    if neighbours is not None:
        rows_of = pool.reset_index(drop=True).groupby("query_id").indices
        return lambda query_id: (int(row) for near in neighbours.get(query_id, ()) for row in rows_of.get(near, ()))
    size = len(pool)
    deck = np.random.default_rng(seed).permutation(size)

    def walk(query_id: str) -> Iterator[int]:
        rng = np.random.default_rng([seed, *query_id.encode()])
        start, stride = (int(rng.integers(size)), int(rng.integers(size))) if size else (0, 0)
        while np.gcd(stride, size) > 1:
            stride += 1
        return (int(deck[(start + i * stride) % size]) for i in range(size))

    return walk


def _pick_foreign(queries, pool, order, screen, own_texts, per_tier, used, counts) -> dict[str, list]:
    """query_id → [(doc_id, text)]: other prompts' responses, offered in rounds; what does not suit one stays for all."""
    counts["duplicates"] = int(pool.duplicated("text").sum())
    origin, doc_ids, texts = (pool[c].tolist() for c in ("query_id", "doc_id", "text"))
    asked = [_plain(q) for q in pool["query"]] if "query" in pool.columns else [None] * len(pool)
    prompt = {query_id: _plain(query) for query_id, query in zip(queries["query_id"], queries["query"])}
    found: dict[str, list] = {query_id: [] for query_id in prompt}
    refused: set[tuple[str, str]] = set(own_texts)
    walks, again = {query_id: order(query_id) for query_id in prompt}, set(prompt)
    while walks:
        offers = []
        for query_id in list(walks):
            for row in walks[query_id]:
                text, same = texts[row], origin[row] == query_id or asked[row] == prompt[query_id]
                if not same and (query_id, text) not in refused and used.take(query_id, text):
                    offers.append((query_id, doc_ids[row], text))
                    if len(found[query_id]) + sum(q == query_id for q, _, _ in offers[-per_tier:]) >= per_tier:
                        break
            else:  # once more from the start: what others were offered and did not keep may be free now
                if query_id in again:
                    again.discard(query_id)
                    walks[query_id] = order(query_id)
                else:
                    del walks[query_id]
        offered = pd.DataFrame(offers, columns=["query_id", "doc_id", "text"])
        for (query_id, doc_id, text), reason in zip(offers, screen(offered) if offers else ()):
            if reason:
                counts[_column(reason)] += 1
                refused.add((query_id, text))
                used.release(query_id, text)
            else:
                found[query_id].append((doc_id, text))
        walks = {query_id: walk for query_id, walk in walks.items() if len(found[query_id]) < per_tier}
    return found


def _plain(query: str) -> str:
    return " ".join(query.split()).lower()


def positives_from(topics: pd.DataFrame, run: pd.DataFrame, qrels: pd.DataFrame, source: str) -> pd.DataFrame:
    """One positive per query (query_id, doc_id, text): its gold solution, or its first right draw (`source`: gold, correct),
    or (`both`) two where there are two, the gold solution first.

    A gold solution is never part of the run: its doc_id is `<query_id>/gold`.
    """
    if source == "gold":
        if "solution" not in topics.columns:
            raise UserError("--positives gold: the data set has no solutions; use --positives correct")
        return topics[["query_id"]].assign(doc_id=topics["query_id"] + "/gold", text=topics["solution"])
    if source == "both":
        both = [positives_from(topics, run, qrels, one) for one in ("gold", "correct")]
        return pd.concat(both, ignore_index=True).drop_duplicates(["query_id", "text"], ignore_index=True)
    if source != "correct":
        raise UserError(f"--positives {source!r}: {did_you_mean(source, ('gold', 'correct', 'both'))}")
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
