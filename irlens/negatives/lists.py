"""Candidate lists: judged draws, merged over iterations and cut into what a ranking loss trains on."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from heapq import heappop, heappush
from typing import Any

import numpy as np
import pandas as pd

from irlens.base.errors import UserError, did_you_mean
from irlens.base.options import at_least, one_of
from irlens.negatives.text_similarity import without_spacing
from irlens.tables import check

COLUMNS = ["query_id", "query", "doc_id", "text", "grade", "tier", "iteration", "list"]
OPTIONAL = ("tokens", "messages")  # columns of a run that its lists have too
Candidate = tuple[int, float]  # row of the judged draws, grade


@dataclass(frozen=True)
class Cut:
    """Which lists are cut from a prompt's judged draws: `positives` of the best and `negatives` of the worst in each.

    lists: how many per prompt at most. positives_from: "own" draws, the "gold" solution alone, or "both" (gold is one
    more best candidate). self_play: all own draws are negatives of the gold solution, right or wrong, as in SPIN.
    by_reward: a grade is a reward, of which only the order within a prompt counts, and not right (above 0) or wrong.
    all_draws: one list per prompt, of all its draws in their order, equal texts as often as they were drawn; what else is
    said of lists does not apply. Within a grade the order of draws is shuffled by (seed, iteration, query).
    """

    positives: int = 1
    negatives: int = 3
    lists: int = 1
    iteration: int = 0
    seed: int = 0
    positives_from: str = "own"
    self_play: bool = False
    by_reward: bool = False
    all_draws: bool = False

    def __post_init__(self):
        at_least(1, positives=self.positives, lists=self.lists)
        at_least(0, negatives=self.negatives)
        one_of(("own", "gold", "both"), positives_from=self.positives_from)


def lists(
    run: pd.DataFrame,
    grades: pd.DataFrame | None = None,
    positives: int = 1,
    negatives: int = 3,
    topics: pd.DataFrame | None = None,
    **more: Any,
) -> pd.DataFrame:
    """Lists to train on, cut from a run of draws: in each the best draws of a prompt (tier "positive") and its worst.

    run: query_id, doc_id, text, and the prompts in a column `query` unless `topics` (query_id, query) has them. grades:
    qrels of the run (right or wrong, or any number), or None: the run's column `reward`, of which only the order counts.
    positives, negatives: how many of each a list has at most. more: further fields of `Cut`, such as `lists=2`. A prompt
    whose draws are all equally good gives none (`without_list` says why). Returns query_id, query, doc_id, text, grade,
    tier, iteration, list, and tokens where the run knows them. Raises UserError for a run that lacks what is needed.

    Source: Jin et al. 2025, "LLM Alignment as Retriever Optimization", Algorithm 1.
    """
    known = [f.name for f in fields(Cut)]
    for name in more:
        if name not in known:
            raise UserError(f"lists: unknown setting {name!r}; {did_you_mean(name, known)}")
    if topics is None:
        if "query" not in run.columns:
            raise UserError("lists: the run has no column `query`; give topics (query_id, query)")
        topics = run[["query_id", "query"]].drop_duplicates("query_id", ignore_index=True)
    more = {"by_reward": grades is None, **more}
    return cut_lists(run, grades, topics, Cut(positives, negatives, **more))


def graded(run: pd.DataFrame, grades: pd.DataFrame | None = None) -> pd.DataFrame:
    """The rows of `run` that are judged, with `grade`: of qrels (query_id, doc_id, relevance), or its own `reward`.

    Raises UserError for a run without texts, or without a reward where there are no qrels.
    """
    if "text" not in run.columns:
        raise UserError("lists are cut from texts; the run has no column `text`")
    if grades is not None:
        check(grades, "qrels")
        found = run.merge(grades[["query_id", "doc_id", "relevance"]], on=["query_id", "doc_id"])
        return found.rename(columns={"relevance": "grade"})
    if "reward" not in run.columns:
        raise UserError("the run has no column `reward`; give qrels as `grades`, or rerank the run by a reward first")
    known = run[run["reward"].notna()].reset_index(drop=True)  # of none, the grades of all would make rows anew
    return known.assign(grade=known["reward"])


def merge(runs: dict[int, pd.DataFrame], queries: Iterable[str]) -> pd.DataFrame:
    """The runs of several iterations (iteration → run) as one, for the prompts in `queries`.

    A draw's doc_id gets `@iteration`, since every iteration numbers its draws anew.
    """
    wanted = set(queries)
    kept = ((s, run[run["query_id"].isin(wanted)]) for s, run in runs.items())
    return pd.concat([run.assign(doc_id=run["doc_id"] + f"@{s}") for s, run in kept], ignore_index=True)


def cut_lists(run: pd.DataFrame, grades: pd.DataFrame | None, topics: pd.DataFrame, cut: Cut) -> pd.DataFrame:
    """Up to `cut.lists` lists per topic from its judged draws (see `graded`): the best and the worst of each.

    Draws whose texts are equal but for white space count once, as the first of them; unfinished and empty ones not at
    all. Every positive is of a higher grade than every negative of its list, so a query whose draws are all of one grade
    gives no list. No list comes twice, and there are as many as differ, if so many are asked for: first the best against
    the worst, then full lists before shorter ones, each of the draws that were used least, of those the best against the
    worst. With `cut.negatives` 0 a list holds right draws only, or those of the query's highest reward.

    Columns: lists' own, `list` (j), and those of OPTIONAL that the run has. Raises UserError if gold solutions are asked
    for and the topics have none.
    """
    if cut.all_draws:
        return _whole_lists(run, grades, topics, cut)
    if cut.positives_from != "own" and "solution" not in topics.columns:
        raise UserError(f"--positives-from {cut.positives_from}: the data set has no solutions; use own")
    judged = _distinct(graded(run, grades))
    carried = ["query_id", "doc_id", "text", *(c for c in OPTIONAL if c in run.columns)]
    pool = judged[carried] if cut.positives_from == "own" else _with_solutions(judged[carried], topics)
    solution_of = {q: len(judged) + i for i, q in enumerate(pool["query_id"][len(judged) :])}
    values, texts = judged["grade"].to_numpy(dtype=float), pool["text"].map(without_spacing).to_numpy()
    rows_of = judged.groupby("query_id", sort=False).indices
    rows, facts = [], []
    for query_id, query in zip(topics["query_id"], topics["query"]):
        own = rows_of.get(query_id, np.empty(0, dtype=int))
        own = own[np.random.default_rng([cut.seed, cut.iteration, *query_id.encode()]).permutation(len(own))]
        draws = [(int(row), float(values[row])) for row in own[np.argsort(-values[own], kind="stable")]]
        gold = solution_of.get(query_id)
        if gold is None:
            good, bad = _sides(draws, cut.negatives, cut.by_reward)
        else:
            others = [draw for draw in draws if texts[draw[0]] != texts[gold]]
            good, bad = _against_gold(gold, others, cut)
        for number, (ups, downs) in enumerate(_turns(good, bad, cut)):
            for side, tier in ((ups, "positive"), (downs, "own")):
                rows += [row for row, _ in side]
                facts += [(query, grade, tier, cut.iteration, number) for _, grade in side]
    found = pd.DataFrame({column: pool[column].iloc[rows].tolist() for column in carried})
    more = pd.DataFrame(facts, columns=["query", "grade", "tier", "iteration", "list"])
    return check(pd.concat([found, more], axis=1)[COLUMNS + carried[3:]], "lists")


def _whole_lists(run: pd.DataFrame, grades: pd.DataFrame | None, topics: pd.DataFrame, cut: Cut) -> pd.DataFrame:
    """A list per topic whose finished, not empty draws have two different grades: all of them. The best are "positive"."""
    judged = graded(run, grades)
    judged = judged[usable(judged)]
    kept = [c for c in ("query_id", "doc_id", "text", *OPTIONAL) if c in judged.columns]
    top, low = (judged.groupby("query_id")["grade"].transform(end).astype(float) for end in ("max", "min"))
    tiers = (judged["grade"] == top).map({True: "positive", False: "own"}).astype(object)
    told = {"grade": judged["grade"].astype(float), "tier": tiers, "iteration": cut.iteration, "list": 0}
    found = judged[kept].assign(**told)[top > low]
    of = dict(iter(found.groupby("query_id", sort=False)))
    parts = [of[q].assign(query=query) for q, query in zip(topics["query_id"], topics["query"]) if q in of]
    lists = pd.concat(parts or [found.assign(query="")], ignore_index=True)
    return check(lists[COLUMNS + kept[3:]], "lists")


def usable(run: pd.DataFrame) -> pd.Series:
    """Which draws say something: those that are finished and not empty."""
    said = run["text"].map(lambda text: text.strip() != "").astype(bool)
    return said & (run["finish_reason"] != "length") if "finish_reason" in run.columns else said


def _distinct(run: pd.DataFrame) -> pd.DataFrame:
    """The draws that count, of each text of a query the first."""
    run = run[usable(run)]
    texts = pd.DataFrame({"query_id": run["query_id"], "text": run["text"].map(without_spacing)})
    return run[~texts.duplicated()].reset_index(drop=True)


def _with_solutions(judged: pd.DataFrame, topics: pd.DataFrame) -> pd.DataFrame:
    """`judged` and, below it, the gold solution of every topic that has one; what a solution lacks is None."""
    have = topics[topics["solution"].map(bool)]
    gold = pd.DataFrame({"query_id": have["query_id"], "doc_id": have["query_id"] + "/gold", "text": have["solution"]})
    missing = [c for c in judged.columns if c not in gold.columns]
    both = [frame.astype(object) for frame in (judged, gold.assign(**dict.fromkeys(missing)))]
    return pd.concat(both, ignore_index=True)


def _sides(draws: list[Candidate], negatives: int, by_reward: bool) -> tuple[list[Candidate], list[Candidate]]:
    """(candidates for positives, best first; candidates for negatives, worst first) of draws sorted best first."""
    if not draws:
        return [], []
    top, bottom = draws[0][1], draws[-1][1]
    if negatives:
        return [d for d in draws if d[1] > bottom], [d for d in draws if d[1] < top][::-1]
    return [d for d in draws if (d[1] == top > bottom if by_reward else d[1] > 0)], []


def _against_gold(gold: int, others: list[Candidate], cut: Cut) -> tuple[list[Candidate], list[Candidate]]:
    """As `_sides`, with the gold solution's row as the best candidate; others: the draws that say something else."""
    if cut.self_play:
        return [(gold, 1.0)], [(row, 0.0) for row, _ in others]
    top = max((grade for _, grade in others), default=1.0)
    right = [d for d in others if d[1] == top and (cut.by_reward or top > 0)] if cut.positives_from == "both" else []
    return [(gold, max(top, 1.0)), *right], [d for d in others if d[1] < max(top, 1.0)][::-1]


def _turns(good: list[Candidate], bad: list[Candidate], cut: Cut) -> Iterator[tuple[list[Candidate], list[Candidate]]]:
    """Up to `cut.lists` different lists, each the cheapest that is left.

    What a list costs, in this order: negatives that it lacks, how often its draws were used, how far from the ends of
    `good` (best first) and `bad` (worst first) they stand.
    """
    negatives, worst = cut.negatives, bad[0][1] if bad else -np.inf
    good = [c for c in good if c[1] > worst or not negatives]
    if not good or (negatives and not bad):
        return
    p, q = min(cut.positives, len(good)), min(negatives, len(bad))
    place = (len(good) + len(bad)) ** 2  # above every sum of places
    lack, low = place * (cut.lists * (p + q) + 1), [grade for _, grade in bad]
    uses: Counter = Counter()
    given: dict[tuple, set] = {}
    for _ in range(cut.lists):
        up, down = ([place * uses[row] + i for i, (row, _) in enumerate(side)] for side in (good, bad))
        least, best = sum(sorted(down)[:q]), None
        for cost, ups in _choices(up, p):
            if best and cost + least >= best[0]:
                break
            below = bisect_left(low, min(good[i][1] for i in ups)) if negatives else 0
            size = min(q, below)
            fresh = (c for c in _choices(down[:below], size) if c[1] not in given.get(ups, ()))
            more, downs = next(fresh, (0, None))
            cost += more + lack * (q - size)
            if downs is not None and (best is None or cost < best[0]):
                best = (cost, ups, downs)
        if best is None:
            return
        given.setdefault(best[1], set()).add(best[2])
        ups, downs = [good[i] for i in best[1]], [bad[i] for i in best[2]]
        uses.update(row for row, _ in ups + downs)
        yield ups, downs


def _choices(costs: Sequence[int], size: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(sum of costs, places in rising order) of every choice of `size` of the costs, the cheapest first."""
    order = sorted(range(len(costs)), key=lambda i: (costs[i], i))
    first = tuple(range(size))
    heap, seen = [(sum(costs[order[i]] for i in first), first)], {first}
    while heap:
        cost, chosen = heappop(heap)
        yield cost, tuple(sorted(order[i] for i in chosen))
        for k, i in enumerate(chosen):  # one of them gives way to the next dearer
            after = (*chosen[:k], i + 1, *chosen[k + 1 :])
            if i + 1 < len(order) and i + 1 not in chosen and after not in seen:
                seen.add(after)
                heappush(heap, (cost + costs[order[i + 1]] - costs[order[i]], after))


# Why a prompt gives no list → in words, and what helps
REASONS = {
    "no draw": ("no draw", "draw for every prompt"),
    "no grade": ("no graded draw", "a judge that grades every draw"),
    "one draw": ("one draw only", "more draws (-n)"),
    "unfinished": ("too few finished draws", "a larger --max-tokens"),
    "empty": ("too few draws that are not empty", "another prompt template or temperature"),
    "one text": ("all draws say the same", "a higher temperature or more draws (-n)"),
    "all right": ("all draws right", "more draws (-n), a higher temperature or harder prompts"),
    "none right": ("no draw right", "more draws (-n), easier prompts or a model that solves some of them"),
    "equal rewards": ("all draws of one reward", "more draws (-n), or a reward model that tells them apart"),
    "as the solution": ("every draw says what the solution says", "other prompts"),
    "too long": ("lists too long", "a larger --max-length or a smaller --max-tokens"),
}
FAULTS = (
    "no draw",
    "no grade",
    "one draw",
    "unfinished",
    "empty",
    "too long",
)  # what settings mend, whatever the policy can do


def in_words(reasons: pd.Series, advise: Iterable[str] = REASONS) -> str:
    """`7 too few finished draws (a larger --max-tokens), 5 all draws right`: how many prompts have which of the reasons,
    the most frequent first, and what helps against those in `advise`. Others' reasons stand as they are."""
    parts = []
    for reason, count in Counter(reasons).most_common():
        words, advice = REASONS.get(reason, (reason, ""))
        parts.append(f"{count:,} {words}" + (f" ({advice})" if advice and reason in advise else ""))
    return ", ".join(parts)


def without_list(
    run: pd.DataFrame, grades: pd.DataFrame | None, topics: pd.DataFrame, lists: pd.DataFrame, cut: Cut
) -> pd.DataFrame:
    """The topics of which `cut_lists`, told the same, made no list: query_id and why (a key of REASONS).

    "unfinished" and "empty": so many draws are that too few are left to compare. "one text": the draws that are left
    say the same. "all right", "none right", "equal rewards": those that are left are equally good.
    """
    left = topics[~topics["query_id"].isin(lists["query_id"])]
    drawn = run[run["query_id"].isin(left["query_id"])]
    judged = graded(drawn, grades)
    counting = judged[usable(judged)] if cut.all_draws else _distinct(judged)
    draws, distinct = (dict(iter(f.groupby("query_id", sort=False))) for f in (judged, counting))
    drawn = set(drawn["query_id"])
    golds = left["solution"] if cut.positives_from != "own" else [None] * len(left)
    rows = []
    for query_id, gold in zip(left["query_id"], golds):
        some, used = draws.get(query_id, judged.iloc[:0]), distinct.get(query_id, judged.iloc[:0])
        needed = 2 if not gold and (cut.negatives or cut.by_reward or cut.all_draws) else 1
        why = _reason(some, used, needed, gold or None, cut.by_reward)
        rows.append((query_id, "no grade" if why == "no draw" and query_id in drawn else why))
    return pd.DataFrame(rows, columns=["query_id", "why"])


def _reason(draws: pd.DataFrame, used: pd.DataFrame, needed: int, gold: str | None, by_reward: bool) -> str:
    """draws: all of a prompt; used: those that count; needed: how many of those a list takes."""
    if draws.empty:
        return "no draw"
    if len(used) < needed:
        if usable(draws).all():
            return "one draw" if len(draws) == 1 else "one text"
        cut = "finish_reason" in draws.columns and (draws["finish_reason"] == "length").any()
        return "unfinished" if cut else "empty"
    if gold is not None and (used["text"].map(without_spacing) == without_spacing(gold)).all():
        return "as the solution"
    if by_reward:
        return "equal rewards"
    return "all right" if used["grade"].max() > 0 else "none right"
