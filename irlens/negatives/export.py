"""Lists as the files that other trainers read: TRL's preference pairs and KTO rows, sentence-transformers' tuples.

`tables.read_lists` reads the pairs back. Each file is JSON lines with one object per row and all rows of one shape.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from irlens.base.errors import UserError
from irlens.base.files import write_text
from irlens.negatives.text_similarity import without_spacing
from irlens.tables import check

Prompts = dict[str, str | list[dict]]  # query_id → the text that the policy reads, or the messages of a chat


def trl(lists: pd.DataFrame, prompts: Prompts | None = None) -> list[dict]:
    """TRL's preference form: prompt, chosen, rejected for every positive of a list with every other row of it.

    prompts: what the policy reads; without it the plain query. Messages make the conversational form, where chosen and
    rejected are one assistant message each. More keys say where a pair is from (query_id, query, chosen_id,
    rejected_id, tier, iteration, list); TRL leaves them alone. Source: TRL's documentation, "Dataset formats".
    """
    rows = []
    for query_id, query, group, good, bad in _split(lists):
        for chosen in good:
            for rejected in bad:
                rows.append(
                    {
                        **_preference(query_id, query, prompts, chosen=chosen.text, rejected=rejected.text),
                        "query_id": query_id,
                        "query": query,
                        "chosen_id": chosen.doc_id,
                        "rejected_id": rejected.doc_id,
                        "tier": rejected.tier,
                        "iteration": group[0],
                        "list": group[1],
                    }
                )
    return rows


def kto(lists: pd.DataFrame, prompts: Prompts | None = None) -> list[dict]:
    """TRL's unpaired form: prompt, completion, label (true for a positive), each response of a prompt once.

    Raises UserError for a response that is both a positive and a negative.
    """
    for query_id, text in (found := _labels(lists)):
        if len(found[query_id, text]) > 1:
            response = found[query_id, text][True][1]
            raise UserError(f"lists: a response of {query_id} is both a positive and a negative: {response[:60]!r}")
    return labelled(lists, prompts)[0]


def labelled(lists: pd.DataFrame, prompts: Prompts | None = None) -> tuple[list[dict], int]:
    """(rows as `kto` has them, responses left out): those that are both a positive and a negative."""
    found = _labels(lists)
    rows = [
        {**_preference(query_id, query, prompts, completion=text), "label": label}
        for (query_id, _), labels in found.items()
        if len(labels) == 1
        for label, (query, text) in labels.items()
    ]
    return rows, len(found) - len(rows)


def _labels(lists: pd.DataFrame) -> dict[tuple[str, str], dict[bool, tuple[str, str]]]:
    """(query_id, response but for its spacing) → {whether it is a positive: (query, response)}."""
    found: dict[tuple[str, str], dict[bool, tuple[str, str]]] = {}
    for query_id, query, _, good, bad in _split(lists):
        for some, label in ((good, True), (bad, False)):
            for row in some:
                found.setdefault((query_id, without_spacing(row.text)), {}).setdefault(label, (query, row.text))
    return found


# -- runs ----------------------------------------------------------------------------------------------------------


def completions(run: pd.DataFrame, prompts: Prompts) -> list[dict]:
    """A judged run as TRL writes completions: prompt, completion, reward, a row per draw."""
    some = zip(run["query_id"], run["text"], run["reward"].astype(float))
    return [
        {**_preference(query_id, "", prompts, completion=text), "reward": reward} for query_id, text, reward in some
    ]


def judged(run: pd.DataFrame, prompts: Prompts) -> list[dict]:
    """A run that a verifier judged in TRL's unpaired form: prompt, completion, label, a row per draw."""
    some = zip(run["query_id"], run["text"], run["reward"].astype(float))
    return [
        {**_preference(query_id, "", prompts, completion=text), "label": reward > 0} for query_id, text, reward in some
    ]


def scored(run: pd.DataFrame, queries: dict[str, str]) -> list[dict]:
    """A judged run as sentence-transformers' labelled pairs: sentence1 (the query), sentence2, score, a row per draw."""
    some = zip(run["query_id"], run["text"], run["reward"].astype(float))
    return [{"sentence1": queries[query_id], "sentence2": text, "score": reward} for query_id, text, reward in some]


# -- for sentence-transformers -------------------------------------------------------------------------------------


def triplets(lists: pd.DataFrame) -> list[dict]:
    """sentence-transformers' triplets: anchor (the query), positive, negative; one per pair of a list."""
    return [
        {"anchor": query, "positive": positive.text, "negative": negative.text}
        for _, query, _, good, bad in _split(lists)
        for positive in good
        for negative in bad
    ]


def sentence_transformers(lists: pd.DataFrame, negatives: int | None = None) -> list[dict]:
    """sentence-transformers' n-tuples, for its losses over hard negatives: the rows of `tuples`."""
    return tuples(lists, negatives)[0]


def tuples(lists: pd.DataFrame, negatives: int | None = None) -> tuple[list[dict], int]:
    """(rows, lists left out): sentence-transformers' n-tuples anchor, positive, negative_1 … negative_n per list.

    All rows must have as many negatives: `negatives`, by default as many as the largest list. A list with more gives its
    first ones; lists with fewer are left out and counted.
    """
    split = list(_split(lists))
    count = negatives or max((len(bad) for *_, bad in split), default=0)
    rows, left_out = [], 0
    for _, query, _, good, bad in split:
        if len(bad) < count:
            left_out += 1
            continue
        numbered = {f"negative_{i}": row.text for i, row in enumerate(bad[:count], 1)}
        rows += [{"anchor": query, "positive": row.text, **numbered} for row in good]
    return rows, left_out


def write_all(lists: pd.DataFrame, folder: Path, prompts: Prompts | None = None) -> dict[str, int]:
    """Writes trl.jsonl, kto.jsonl, triplets.jsonl and tuples.jsonl into `folder`; returns the rows of each, by name,
    and under "lists_without_tuple" the lists that have too few negatives for tuples.jsonl.
    """
    rows, left_out = tuples(lists)
    files = {"trl": trl(lists, prompts), "kto": kto(lists, prompts), "triplets": triplets(lists), "tuples": rows}
    for name, some in files.items():
        write_jsonl(some, folder / f"{name}.jsonl")
    return {name: len(some) for name, some in files.items()} | {"lists_without_tuple": left_out}


def write_jsonl(rows: list[dict], path: Path) -> None:
    """Writes one JSON object per line, atomically."""
    write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), path)


class _Row(NamedTuple):
    doc_id: str
    text: str
    tier: str


class _List(NamedTuple):
    query_id: str
    query: str
    group: tuple[int, int]  # iteration, list
    good: list[_Row]  # positives
    bad: list[_Row]  # others


def _split(lists: pd.DataFrame) -> Iterator[_List]:
    """The lists of a frame, in the order of their first rows; rows whose iteration or list is missing are in none."""
    check(lists, "lists")
    numbered = lists if "list" in lists.columns else lists.assign(list=0)
    group = ["query_id", "iteration", "list"]
    numbers = numbered.groupby(group, sort=False).ngroup().fillna(-1).tolist()
    columns = [numbered[column].tolist() for column in (*group, "query", *_Row._fields)]
    found: dict[int, _List] = {}
    for number, query_id, iteration, place, query, *row in zip(numbers, *columns):
        if number < 0:
            continue
        if number not in found:
            found[number] = _List(query_id, query, (int(iteration), int(place)), [], [])
        told = _Row(*row)
        (found[number].good if told.tier == "positive" else found[number].bad).append(told)
    yield from found.values()


def _preference(query_id: str, query: str, prompts: Prompts | None, **responses: str) -> dict:
    prompt = query if prompts is None else prompts[query_id]
    if isinstance(prompt, str):
        return {"prompt": prompt, **responses}
    return {"prompt": prompt, **{k: [{"role": "assistant", "content": text}] for k, text in responses.items()}}
