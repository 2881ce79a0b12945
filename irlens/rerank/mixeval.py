"""A run as an answer to MixEval: which response answers which item, and what each is worth by rule or by a judge.

A run's queries are the items of one of the sets, by identifier or by the text of the prompt. Copies of a question that a
run holds once share its responses, and so do the items of MixEval-Hard, all of which are in MixEval under other ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from irlens.base.errors import UserError
from irlens.rerank.mixeval_rules import chosen, says
from irlens.rerank.scoring import need_texts
from irlens.tasks.mixeval import CHOICE, SPLITS, Item

ItemJudge = Callable[[pd.DataFrame, Mapping[str, Item]], pd.DataFrame]  # rows, items → `score` and `read` of each row


def by_rule(rows: pd.DataFrame, items: Mapping[str, Item], parity: bool = False) -> pd.DataFrame:
    """`score` (0 or 1) of each row's `text` for the item `query_id`, and whether it was `read`: a response to a
    multiple-choice question in which no choice is found is not. parity: see `mixeval_rules.says`."""
    scores, read = [], []
    for query_id, text in zip(rows["query_id"], rows["text"]):
        item = items[query_id]
        letter = chosen(text, item.options) if item.kind == CHOICE else ""
        right = letter in item.answers if item.kind == CHOICE else says(text, item.answers, parity)
        scores.append(float(right))
        read.append(letter is not None)
    return pd.DataFrame({"score": scores, "read": read})


# -- who answers what ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    """The items of the splits that are measured, and `rows`: system, query_id (of an item), answered_by (a query of the
    run), doc_id, text. `missing`: (system, split) → items without a response. `known`: the items of all splits."""

    known: dict[str, Item]
    items: list[Item]
    rows: pd.DataFrame
    missing: dict[tuple[str, str], list[str]]


def answered(run: pd.DataFrame, items: Sequence[Item], splits: Sequence[str] | None = None) -> Answered:
    """Joins a run with `items` (of all splits). splits: those to be measured; without it each that the run is meant for.

    Raises UserError: queries that are no items of these sets, a run without texts, or whose queries no text tells.
    """
    known = {item.query_id: item for item in items}
    asked = _prompts(need_texts(run, "MixEval"), known)
    prompts = {item.prompt for item in items}
    if strange := [query_id for query_id, prompt in asked.items() if prompt not in prompts]:
        raise UserError(
            f"{len(strange):,} of {len(asked):,} queries of the run ({strange[0]}, …) are not in this version of MixEval "
            f"({items[0].query_id.partition('/')[0]})"
        )
    measured = splits or _meant(asked, items, known)
    wanted = [item for item in items if item.split in measured]
    tags = run["tag"].astype(str) if "tag" in run.columns else pd.Series("run", index=run.index)
    rows, missing = [], {}
    for system, part in run.assign(tag=tags).groupby("tag", sort=False):
        groups = dict(iter(part.groupby("query_id", sort=False)))
        by_prompt: dict[str, list[str]] = {}
        for query_id in groups:
            by_prompt.setdefault(asked[query_id], []).append(query_id)
        for item in wanted:
            sources = [item.query_id] if item.query_id in groups else by_prompt.get(item.prompt, [])
            if not sources:
                missing.setdefault((str(system), item.split), []).append(item.query_id)
            for source in sources:
                some = groups[source]
                rows += [(system, item.query_id, source, *row) for row in zip(some["doc_id"], some["text"])]
    columns = ["system", "query_id", "answered_by", "doc_id", "text"]
    return Answered(known, wanted, pd.DataFrame(rows, columns=columns), missing)


def _prompts(run: pd.DataFrame, known: Mapping[str, Item]) -> dict[str, str]:
    """query_id of a run → the prompt that it stands for: an item's, else the run's own text."""
    told = "query" in run.columns
    first = run.drop_duplicates("query_id")
    texts = first["query"] if told else first["query_id"]
    found = {q: known[q].prompt if q in known else str(text) for q, text in zip(first["query_id"], texts)}
    if not told and (strange := [query_id for query_id in found if query_id not in known]):
        raise UserError(
            f"query {strange[0]} of the run is no item of MixEval, and the run has no column query to tell it by"
        )
    return found


def _meant(asked: Mapping[str, str], items: Sequence[Item], known: Mapping[str, Item]) -> list[str]:
    """The splits that a run is meant for: one whose own items it answers, by identifier or with a prompt that the other
    has not; and the hard one wherever one of its prompts is answered."""
    full, hard = SPLITS
    answers = set(asked.values())
    prompts = {split: {item.prompt for item in items if item.split == split} for split in SPLITS}
    named = {known[query_id].split for query_id in asked if query_id in known}
    found = [full] if full in named or answers & (prompts[full] - prompts[hard]) else []
    return found + [hard] * bool(prompts[hard] & answers)


# -- what a response is worth --------------------------------------------------------------------------------------


def texts_of(found: Answered) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(`rows` with `item`, the first copy of the question; query_id, doc_id, text of what is to be judged, each text once).

    A response to copies of a question is judged once.
    """
    first: dict[tuple, str] = {}
    same = {name: first.setdefault((item.prompt, *item.answers), name) for name, item in found.known.items()}
    rows = found.rows.assign(item=found.rows["query_id"].map(same))
    texts = rows[["item", "text"]].drop_duplicates(ignore_index=True).rename(columns={"item": "query_id"})
    place = texts.groupby("query_id", sort=False).cumcount()
    return rows, texts.assign(doc_id=[f"{query_id}/{i:05d}" for query_id, i in zip(texts["query_id"], place)])


def judged(found: Answered, judge: ItemJudge) -> pd.DataFrame:
    """`rows` with `item` (see `texts_of`), `score` (0 to 1) and `read`."""
    rows, texts = texts_of(found)
    verdicts = judge(texts, found.known).reset_index(drop=True)
    verdicts = texts[["query_id", "text"]].assign(score=verdicts["score"], read=verdicts["read"])
    return rows.merge(verdicts.rename(columns={"query_id": "item"}), on=["item", "text"], how="left")


def refuse_missing(missing: Mapping[tuple[str, str], Sequence[str]], items: Sequence[Item]) -> None:
    """Raises UserError that names and counts the items without a response, if there are any."""
    for (system, split), some in missing.items():
        count = sum(item.split == split for item in items)
        raise UserError(
            f"{system}: {len(some):,} of the {count:,} items of {split} have no response ({', '.join(some[:3])}"
            f"{', …' if len(some) > 3 else ''}); --allow-missing measures the others"
        )
