"""Tiers of negatives: from draws and their judgements to lists of positives and negatives of known hardness."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.negatives import choose
from irlens.negatives.choose import Pool, Screen
from irlens.negatives.false_negatives import REASONS, false_negatives
from irlens.negatives.lists import OPTIONAL
from irlens.negatives.margin import Bound, check_finite
from irlens.negatives.tiers import FOREIGN, SCORES, TIERS, TURNS, keys, parse_tiers, pools, positives, with_scores
from irlens.negatives.tiers import positives_from as positives_from
from irlens.tables import check


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


@dataclass(frozen=True)
class Rules:
    """How negatives are chosen: up to `per_tier` of each tier for a prompt; `seed` of what is random; for `easy` the nearest
    prompts first where `neighbours` tells them (query_id → other query_ids); the tier margin's `bound`; whether one response
    may serve several prompts."""

    per_tier: int = 1
    seed: int = 0
    neighbours: Mapping[str, Sequence[str]] | None = None
    bound: Bound = field(default_factory=Bound)
    allow_reuse: bool = False


PLAIN = Rules()


def mine(
    run: pd.DataFrame,
    qrels: pd.DataFrame | None,
    tiers: Sequence[str] | str = ("hard", "hardest"),
    rules: Rules = PLAIN,
    *,
    topics: pd.DataFrame | None = None,
    positives_from: str = "own",
) -> Mined:
    """Lists by tier from a judged run of draws (query_id, doc_id, text), with what was left out and why.

    qrels: query_id, doc_id, relevance of the draws, right from 1 on; None where the column reward of the run judges: then
    the highest-rewarded draw is the positive. tiers: of TIERS but easiest, whose responses are another data set's. hard
    and easy choose from the draws at the higher temperatures, hardest from those at the lowest. topics: query_id, query
    (and solution, for positives_from gold or both); by default the run's own column query.

    A right draw is no negative, nor is one that repeats a positive's words or, without judgements, is rewarded like it.
    Raises UserError: an unknown tier, one whose temperature or score the run lacks, no prompts in words, no positive.
    """
    names = parse_tiers(tiers if isinstance(tiers, str) else ",".join(tiers))
    if "easiest" in names:
        raise UserError("tier easiest: needs draws of another data set; `irlens mine-negatives` makes them")
    heats = sorted(run["temperature"].unique()) if "temperature" in run.columns else []
    if "hardest" in names and len(heats) < 2:
        raise UserError("tier hardest: needs draws at two temperatures, a high and a low one")
    if topics is None:
        if "query" not in run.columns:
            raise UserError("the run does not say its prompts: give topics (query_id, query), or a column query")
        topics = run[["query_id", "query"]].drop_duplicates("query_id", ignore_index=True)
    found = with_scores(positives(topics, run, qrels, positives_from), run)
    asked = dict(zip(topics["query_id"], topics["query"]))
    chosen = pools(names, run, None, asked, heats[0] if len(heats) > 1 else None)
    return mine_negatives(topics, chosen, found, _screen(run, qrels, found), rules)


def _screen(run: pd.DataFrame, qrels: pd.DataFrame | None, found: pd.DataFrame) -> Screen:
    """The false-negative filter of a run: what its judgements call right, and, without any, what its rewards do."""
    right = set()
    if qrels is not None:
        right = set(keys(run.merge(qrels[qrels["relevance"] > 0], on=["query_id", "doc_id"])))

    def screen(rows: pd.DataFrame) -> pd.Series:
        known = qrels is None and "reward" in rows.columns
        reasons = false_negatives(rows, found, reward_margin=0.0 if known else None)
        return reasons.mask([pair in right for pair in keys(rows)], "right answer")

    return screen


def mine_negatives(
    topics: pd.DataFrame,
    pools: Mapping[str, pd.DataFrame],
    positives: pd.DataFrame,
    screen: Screen,
    rules: Rules = PLAIN,
) -> Mined:
    """Lists with a topic's positives and up to `rules.per_tier` negatives of each tier in `pools`.

    pools: tier → run rows (query_id, doc_id, text; finish_reason where known) to choose from. `easiest` and `easy` take
    other prompts' responses, at random or, for `easy` with `rules.neighbours`, from the nearest prompts; a column `query` tells the prompt that a row answered, and equal prompts count as the same.
    The others take the prompt's own: `hard` and `hardest` in pool order, `top-ranked` by the column logprob, `near-miss`
    by reward, `margin` by `rules.bound.score` (default logprob) below the positive's. positives: query_id, doc_id, text (and
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
    positives = positives[~keys(positives).duplicated()]
    queries = topics[topics["query_id"].isin(positives["query_id"])]
    bound = rules.bound.check()
    shared = choose.Shared(queries, screen, set(keys(positives)), rules.per_tier, choose.Used(rules.allow_reuse))
    done = {}
    for tier, frame in sorted(pools.items(), key=lambda item: TURNS.index(item[0])):
        pool = done[tier] = Pool.of(frame)
        if tier in FOREIGN:
            order = choose.order_of(pool.open(), rules.neighbours if tier == "easy" else None, rules.seed)
            choose.foreign(pool, order, shared)
        else:
            pool.fate[~pool.rows["query_id"].isin(queries["query_id"]).to_numpy() & (pool.fate == "")] = "no positive"
            below = (lambda rows: bound.below(rows, positives)) if tier == "margin" else None
            choose.own(pool, _ranked(tier, pool.open(), bound), shared, below)
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


def _tally(tier: str, pool: Pool, prompts: int) -> dict:
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


def _as_lists(queries: pd.DataFrame, positives: pd.DataFrame, pools: dict[str, Pool]) -> pd.DataFrame:
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


def _skipped(topics: pd.DataFrame, positives: pd.DataFrame, lists: pd.DataFrame, pools: list[Pool]) -> pd.DataFrame:
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


def why_none(report: pd.DataFrame) -> str:
    """What became of the candidates of every tier, in words, where no prompt got a negative."""
    names = ("unusable", "no_positive", "duplicates", "false_negatives", "beyond_margin", "taken")
    said = []
    for row in report.to_dict("records"):
        gone = [f"{row[name]:,} {name.replace('_', ' ')}" for name in names if row[name]]
        said.append(
            f"{row['tier']}: {row['candidates']:,} candidates" + (f", of them {', '.join(gone)}" if gone else "")
        )
    return "; ".join(said)
