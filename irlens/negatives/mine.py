"""Tiers of negatives: from draws and their judgements to lists of positives and negatives of known hardness."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from irlens.base.errors import UserError, did_you_mean
from irlens.negatives.false_negatives import REASONS
from irlens.negatives.lists import OPTIONAL
from irlens.negatives.margin import Bound, check_finite
from irlens.negatives.text_similarity import without_spacing
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

    The report's columns: tier, meaning, prompts, prompts_with, prompts_without, negatives, candidates (looked at), and
    what became of those, each counted once: used, unused (more than were wanted), unusable (unfinished or empty),
    no_positive (their prompt has none), duplicates (of another candidate or a positive), taken (by another prompt or an
    earlier tier), beyond_margin, and each of `false_negatives.REASONS` with underscores; false_negatives sums the last.
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
        fresh = self.free(query_id, text)
        self.taken.add((query_id, text) if self.reuse else text)
        return fresh

    def free(self, query_id: str, text: str) -> bool:
        return ((query_id, text) if self.reuse else text) not in self.taken

    def release(self, query_id: str, text: str) -> None:
        self.taken.discard((query_id, text) if self.reuse else text)


@dataclass
class _Pool:
    """A tier's candidates by row number: the rows, their texts without white space, and what became of each ("" yet);
    `chosen` has query_id → rows, `why` query_id → what became of all that it could choose from."""

    rows: pd.DataFrame
    texts: list[str]
    fate: np.ndarray
    chosen: dict[str, list[int]] = field(default_factory=dict)
    why: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, pool: pd.DataFrame) -> "_Pool":
        rows = pool.reset_index(drop=True)
        fate = np.where(rows["text"].map(lambda text: not text.strip()).astype(bool), "empty", "").astype(object)
        if "finish_reason" in rows.columns:
            fate[(rows["finish_reason"] == "length").to_numpy()] = "unfinished"
        return cls(rows, rows["text"].map(without_spacing).tolist(), fate)

    def open(self) -> pd.DataFrame:
        """The rows of which nothing has become yet."""
        return self.rows[self.fate == ""]


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
    prompt, the positives' own texts, and what another prompt or tier took, where texts equal but for white space are
    one: the first of them. Tiers choose in the order of TURNS, whatever the order of `pools`, and only a tier that is
    mined alone has every response to choose from. Within a tier all prompts get their first negative before any gets its
    second; of its own responses a prompt takes a later one if another prompt would go without. A random choice is a
    function of (seed, query) and the pool. Lists have the columns `lists.OPTIONAL` that pools or positives have. Raises
    UserError: a score that a tier needs is missing or not finite.
    """
    positives = positives[positives["query_id"].isin(topics["query_id"])]
    positives = positives[~_keys(positives).duplicated()]
    own_texts = set(_keys(positives))
    queries = topics[topics["query_id"].isin(positives["query_id"])]
    used, bound = _Used(allow_reuse), (bound or Bound()).check()
    done = {}
    for tier, frame in sorted(pools.items(), key=lambda item: TURNS.index(item[0])):
        pool = done[tier] = _Pool.of(frame)
        if tier in FOREIGN:
            order = _order(pool.open(), neighbours if tier == "easy" else None, seed)
            _pick_foreign(pool, queries, order, screen, own_texts, per_tier, used)
        else:
            pool.fate[~pool.rows["query_id"].isin(queries["query_id"]).to_numpy() & (pool.fate == "")] = "no positive"
            ranked = _ranked(tier, pool.open(), bound)
            _pick_own(pool, ranked, screen, own_texts, per_tier, used, tier == "margin" and bound, positives)
    lists = _as_lists(queries, positives, {tier: done[tier] for tier in pools})
    report = pd.DataFrame([_tally(tier, done[tier], len(topics)) for tier in pools])
    return Mined(lists, report, _skipped(topics, positives, lists, list(done.values())))


COUNTS = {  # column of the report → fates
    "used": ("used",),
    "unused": ("unused",),
    "unusable": ("unfinished", "empty"),
    "no_positive": ("no positive",),
    "duplicates": ("duplicate", "a positive's text"),
    "taken": ("taken",),
    "beyond_margin": ("beyond the margin",),
    **{reason.replace(" ", "_"): (reason,) for reason in REASONS},
}
SAID = {  # fate → what a prompt is told that has this only
    "unfinished": "unfinished",
    "empty": "empty",
    "right answer": "right",
    **{reason: f"a {reason}" for reason in REASONS if reason.startswith("near")},
    "a positive's text": "a positive's text",
    "beyond the margin": "beyond the margin",
    "taken": "taken by other prompts",
}


def _keys(rows: pd.DataFrame) -> pd.Series:
    """(query_id, text without white space) of rows."""
    pairs = zip(rows["query_id"], rows["text"].map(without_spacing))
    return pd.Series(list(pairs), index=rows.index, dtype=object)


def _tally(tier: str, pool: _Pool, prompts: int) -> dict:
    """A row of the report."""
    fates = Counter(pool.fate)
    counts = {name: sum(fates[fate] for fate in some) for name, some in COUNTS.items()}
    with_one = sum(map(bool, pool.chosen.values()))
    return {
        "tier": tier,
        "meaning": TIERS[tier],
        "prompts": prompts,
        "prompts_with": with_one,
        "prompts_without": prompts - with_one,
        "negatives": sum(map(len, pool.chosen.values())),
        "false_negatives": sum(fates[reason] for reason in REASONS),
        "candidates": len(pool.rows),
        **counts,
    }


def _as_lists(queries: pd.DataFrame, positives: pd.DataFrame, pools: dict[str, _Pool]) -> pd.DataFrame:
    frames = [positives, *(pool.rows for pool in pools.values())]
    extra = [c for c in OPTIONAL if any(c in frame.columns for frame in frames)]

    def records(frame: pd.DataFrame) -> list[tuple]:
        known = [[v if np.ndim(v) else None for v in frame.get(c, [None] * len(frame))] for c in extra]
        return list(zip(frame["doc_id"], frame["text"], *known))

    good: dict[str, list] = {}
    for query_id, record in zip(positives["query_id"], records(positives)):
        good.setdefault(query_id, []).append(record)
    bad, rows = {tier: records(pool.rows) for tier, pool in pools.items()}, []
    for query_id, query in zip(queries["query_id"], queries["query"]):
        chosen = [(bad[tier][row], tier) for tier, pool in pools.items() for row in pool.chosen.get(query_id, ())]
        entries = [(record, 1.0, "positive") for record in good[query_id]] if chosen else []
        entries += [(record, 0.0, tier) for record, tier in chosen]
        rows += [(query_id, query, d, t, grade, tier, *more) for (d, t, *more), grade, tier in entries]
    columns = ["query_id", "query", "doc_id", "text", "grade", "tier"]
    lists = pd.DataFrame(rows, columns=[*columns, *extra]).assign(iteration=0, list=0)
    return check(lists[[*columns, "iteration", "list", *extra]], "lists")


def _skipped(topics: pd.DataFrame, positives: pd.DataFrame, lists: pd.DataFrame, pools: list[_Pool]) -> pd.DataFrame:
    """The prompts without a list and why: no positive, or what became of every response that it could choose from."""
    have, listed, rows = set(positives["query_id"]), set(lists["query_id"]), []
    for query_id in topics["query_id"]:
        if query_id in listed:
            continue
        fates = set().union(*(pool.why.get(query_id, ()) for pool in pools))
        every = " or ".join(words for fate, words in SAID.items() if fate in fates)
        without = f"no negative: every response is {every}" if every else "no negative: no response to choose from"
        rows.append((query_id, without if query_id in have else "no positive"))
    return pd.DataFrame(rows, columns=["query_id", "why"])


def _ranked(tier: str, pool: pd.DataFrame, bound: Bound) -> pd.DataFrame:
    """A tier's own candidates in the order in which they are chosen; ties by doc_id."""
    score = bound.score if tier == "margin" else SCORES.get(tier)
    if score is None:
        return pool
    check_finite(pool, score, f"tier {tier}: candidates")
    return pool.sort_values([score, "doc_id"], ascending=[False, True], kind="stable")


def _pick_own(pool: _Pool, ranked, screen, own_texts, per_tier, used: _Used, bound, positives) -> None:
    """Chooses among a prompt's own wrong responses, in the order of `ranked`."""
    keys = _keys(ranked)
    pool.fate[ranked.index[keys.duplicated()]] = "duplicate"
    pool.fate[ranked.index[[key in own_texts for key in keys]]] = "a positive's text"
    left = ranked[pool.fate[ranked.index] == ""]
    pool.fate[left.index] = screen(left).to_numpy()
    left = left[pool.fate[left.index] == ""]
    if bound:
        pool.fate[left.index[~bound.below(left, positives)]] = "beyond the margin"
        left = left[pool.fate[left.index] == ""]
    choices: dict[str, list[int]] = {}
    for row, query_id in zip(left.index, left["query_id"]):
        choices.setdefault(query_id, []).append(int(row))
    pool.chosen = _in_rounds(choices, pool.texts, per_tier, used)
    serve = {row for rows in pool.chosen.values() for row in rows}
    for query_id, rows in choices.items():
        for row in rows:
            free = used.free(query_id, pool.texts[row])
            pool.fate[row] = "used" if row in serve else "unused" if free else "taken"
    for query_id, fate in zip(pool.rows["query_id"], pool.fate):
        pool.why.setdefault(query_id, set()).add(fate)


def _in_rounds(choices: dict[str, list[int]], texts: list[str], per_tier: int, used: _Used) -> dict[str, list[int]]:
    """query_id → up to `per_tier` of its choices (rows, best first), no text twice; all get a first before any a second,
    and as many get a first as can."""
    found: dict[str, list[int]] = {query_id: [] for query_id in choices}
    holder: dict[str, str] = {}
    for turn in range(per_tier):
        for query_id, rows in choices.items():
            if len(found[query_id]) < turn:
                continue
            row = next((row for row in rows if used.take(query_id, texts[row])), None)
            if row is not None:
                found[query_id].append(row)
                holder[texts[row]] = query_id
            elif turn == 0:
                _give_way(query_id, choices, texts, found, holder, used)
    return found


def _give_way(query_id: str, choices: dict, texts: list[str], found: dict, holder: dict, used: _Used) -> None:
    """Gives a prompt its first negative by moving others to a text that is free: an augmenting path (Berge 1957)."""
    reached: dict[str, tuple[str, int] | None] = {query_id: None}  # prompt → who would take its text, as which row
    queue = [query_id]
    for prompt in queue:
        for row in choices[prompt]:
            if used.take(prompt, texts[row]):
                while True:
                    found[prompt], holder[texts[row]] = [row], prompt
                    if (taker := reached[prompt]) is None:
                        return
                    prompt, row = taker
            other = holder.get(texts[row])
            if other is not None and other not in reached:
                reached[other] = (prompt, row)
                queue.append(other)


def _order(pool: pd.DataFrame, neighbours: dict | None, seed: int) -> Callable[[str], Iterator[int]]:
    """query_id → the rows of `pool` in the order in which they are offered to it.

    At random: a start and a stride of the query's own through one shuffled deck, so that no order has to be kept.
    """
    if neighbours is not None:
        rows_of = pool.groupby("query_id").indices
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


def _pick_foreign(pool: _Pool, queries, order, screen, own_texts, per_tier: int, used: _Used) -> None:
    """Chooses among other prompts' responses, offered in rounds; what does not suit one stays for all."""
    rows = pool.open().index.to_numpy()
    origin, doc_ids, texts = (pool.rows[c].tolist() for c in ("query_id", "doc_id", "text"))
    asked = [_plain(q) for q in pool.rows["query"]] if "query" in pool.rows.columns else [None] * len(pool.rows)
    prompt = {query_id: _plain(query) for query_id, query in zip(queries["query_id"], queries["query"])}
    before, refused = set(used.taken), dict.fromkeys(own_texts, "a positive's text")
    found = pool.chosen = {query_id: [] for query_id in prompt}
    walks, again = {query_id: _others(query_id, prompt, rows, order, origin, asked) for query_id in prompt}, set(prompt)
    for turn in range(1, per_tier + 1):
        while missing := [query_id for query_id in walks if len(found[query_id]) < turn]:
            offers = []
            for query_id in missing:
                for row in walks[query_id]:
                    key = (query_id, pool.texts[row])
                    if key not in refused and used.take(*key):
                        offers.append((query_id, row))
                        break
                else:  # once more from the start: what others were offered and did not keep may be free now
                    del walks[query_id]
                    if query_id in again:
                        again.discard(query_id)
                        walks[query_id] = _others(query_id, prompt, rows, order, origin, asked)
            parts = [(query_id, doc_ids[row], texts[row]) for query_id, row in offers]
            reasons = screen(pd.DataFrame(parts, columns=["query_id", "doc_id", "text"])) if offers else ()
            for (query_id, row), reason in zip(offers, reasons):
                if reason:
                    refused[query_id, pool.texts[row]] = reason
                    used.release(query_id, pool.texts[row])
                else:
                    found[query_id].append(row)
    for query_id in (query_id for query_id, some in found.items() if not some):
        seen = _others(query_id, prompt, rows, order, origin, asked)
        pool.why[query_id] = {refused.get((query_id, pool.texts[row]), "taken") for row in seen}
    _foreign_fates(pool, rows, before, refused)


def _others(query_id: str, prompt: dict, rows, order, origin: list, asked: list) -> Iterator[int]:
    """The rows that are offered to a prompt, in its order: not what answered itself, nor a prompt of the same words."""
    mine = prompt[query_id]
    return (int(r) for r in (rows[i] for i in order(query_id)) if origin[r] != query_id and asked[r] != mine)


def _foreign_fates(pool: _Pool, rows, before: set, refused: dict[tuple[str, str], str]) -> None:
    """What became of each text: it serves a prompt, an earlier tier took it, it suited none that it was offered to, or it
    was not needed; its other rows are duplicates."""
    serve = {pool.texts[row] for some in pool.chosen.values() for row in some}
    reasons: dict[str, str] = {}
    for (_, text), reason in refused.items():
        if reason in REASONS:
            reasons.setdefault(text, reason)
    seen: set[str] = set()
    for row in rows:
        text = pool.texts[row]
        fate = "used" if text in serve else "taken" if text in before else reasons.get(text, "unused")
        pool.fate[row] = "duplicate" if text in seen else fate
        seen.add(text)


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
        found = pd.concat(both, ignore_index=True)
        return found[~_keys(found).duplicated()].reset_index(drop=True)
    if source != "correct":
        raise UserError(f"--positives {source!r}: {did_you_mean(source, ('gold', 'correct', 'both'))}")
    right = run.merge(qrels[qrels["relevance"] > 0], on=["query_id", "doc_id"])
    columns = ["query_id", "doc_id", "text", *(c for c in OPTIONAL if c in right.columns)]
    return right.drop_duplicates("query_id")[columns].reset_index(drop=True)


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
