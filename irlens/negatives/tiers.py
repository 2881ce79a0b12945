"""What mining starts from: the tiers' names, the draws that each chooses from, and the positives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from irlens.base import limits
from irlens.base.errors import UserError, did_you_mean
from irlens.negatives.lists import OPTIONAL
from irlens.negatives.text_similarity import without_spacing
from irlens.tasks.contract import Task

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
SOURCES = ("gold", "own", "both")  # of positives


def parse_tiers(text: str) -> list[str]:
    """Comma-separated tier names, in the order given. Raises UserError for an unknown or repeated one, or none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TIERS:
            raise UserError(f"unknown tier {name!r}; {did_you_mean(name, TIERS)}")
    if not names or len(set(names)) < len(names):
        raise UserError(f"--tier {text!r}: give each tier once, of: {', '.join(TIERS)}")
    return names


def draws_at(run: pd.DataFrame, task: Task, wanted: Sequence[float], where: str) -> pd.DataFrame:
    """The draws of a run for the prompts of `task` at the temperatures `wanted`, with the columns that mining reads.

    Raises UserError, naming `where`: no draws of a model, none of these prompts, or none at a temperature.
    """
    missing = [c for c in ("text", "temperature") if c not in run.columns]
    if missing:
        raise UserError(f"{where}: needs a model's draws; columns missing: {', '.join(missing)}")
    run = run[run["query_id"].isin(task.topics["query_id"])].reset_index(drop=True)
    if run.empty:
        raise UserError(
            f"{where}: no draw for any of the {len(task.topics)} prompts of {task.name}, split {task.split}; is it of "
            f"another --split or --dataset?"
        )
    there = sorted(run["temperature"].unique())
    for temperature in wanted:
        if temperature not in there:
            raise UserError(
                f"{where}: no draws at T = {temperature:g}; there are: {', '.join(f'{t:g}' for t in there)}"
            )
    run = run[run["temperature"].isin(wanted)].reset_index(drop=True)
    defaults = {"finish_reason": "stop", "logprob": float("nan"), "n_tokens": 0}
    return run.assign(**{name: value for name, value in defaults.items() if name not in run.columns})


def pools(
    tiers: Sequence[str],
    own: pd.DataFrame,
    foreign: pd.DataFrame | None,
    asked: dict[str, str],
    low: float | None = None,
) -> dict[str, pd.DataFrame]:
    """Tier → the rows that it chooses from.

    own: the prompts' draws: those at the temperature `low` for `hardest`, the others for `easy` and `hard` (all of them
    where none is low), all of them for the tiers that go by scores. foreign: another data set's, for `easiest`. asked:
    query_id → the prompt in words, of both.
    """
    high = own if low is None else own[own["temperature"] != low]
    found = {"easy": with_query(high, asked), "hard": high}
    if low is not None:
        found["hardest"] = own[own["temperature"] == low]
    if foreign is not None:
        found["easiest"] = with_query(foreign, asked)
    return {tier: found.get(tier, own) for tier in tiers}


def with_query(rows: pd.DataFrame, asked: dict[str, str]) -> pd.DataFrame:
    """`rows` with the column query: the prompt that each answers."""
    return rows.assign(query=rows["query_id"].map(asked))


def positives(
    topics: pd.DataFrame, own: pd.DataFrame, judged: pd.DataFrame | None, source: str = "own"
) -> pd.DataFrame:
    """The positives of mining (`positives_from`); without judgements the draw with the highest reward of each prompt.

    Raises UserError if there is none at all.
    """
    found = best_rewarded(own) if judged is None else positives_from(topics, own, judged, source)
    if found.empty:
        raise UserError(
            f"none of the {len(topics)} prompts has a right draw, so there is no positive; use --positives-from gold, more "
            f"draws (-n), or a model that solves some of them"
        )
    return found


def with_scores(found: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Positives with the draws' log-probabilities and rewards, as far as these have any; NaN for a gold solution."""
    known = own.drop_duplicates("doc_id").set_index("doc_id")
    scores = {name: found["doc_id"].map(known[name]).astype(float) for name in ("logprob", "reward") if name in known}
    return found.assign(**scores)


def best_rewarded(own: pd.DataFrame) -> pd.DataFrame:
    """The finished draw with the highest reward of each prompt, ties by doc_id."""
    if "reward" not in own.columns:
        raise UserError("without judgements the rewards choose the positives, and the draws have none")
    ended = own if "finish_reason" not in own.columns else own[own["finish_reason"] != "length"]
    ended = ended[ended["text"].str.strip() != ""].sort_values(
        ["reward", "doc_id"], ascending=[False, True], kind="stable"
    )
    known = ["query_id", "doc_id", "text", *(c for c in OPTIONAL if c in ended.columns)]
    return ended.drop_duplicates("query_id")[known].reset_index(drop=True)


def positives_from(topics: pd.DataFrame, run: pd.DataFrame, qrels: pd.DataFrame, source: str) -> pd.DataFrame:
    """One positive per query (query_id, doc_id, text): its gold solution, or its first right draw (`source`: gold, own), or
    (`both`) two where there are two, the gold solution first.

    A gold solution is never part of the run: its doc_id is `<query_id>/gold`.
    """
    if source == "gold":
        if "solution" not in topics.columns:
            raise UserError("--positives-from gold: the data set has no solutions; use --positives-from own")
        return topics[["query_id"]].assign(doc_id=topics["query_id"] + "/gold", text=topics["solution"])
    if source == "both":
        both = [positives_from(topics, run, qrels, one) for one in ("gold", "own")]
        found = pd.concat(both, ignore_index=True)
        return found[~keys(found).duplicated()].reset_index(drop=True)
    if source != "own":
        raise UserError(f"--positives-from {source!r}: {did_you_mean(source, SOURCES)}")
    right = run.merge(qrels[qrels["relevance"] > 0], on=["query_id", "doc_id"])
    columns = ["query_id", "doc_id", "text", *(c for c in OPTIONAL if c in right.columns)]
    return right.drop_duplicates("query_id")[columns].reset_index(drop=True)


def keys(rows: pd.DataFrame) -> pd.Series:
    """(query_id, text without white space) of rows."""
    pairs = zip(rows["query_id"], rows["text"].map(without_spacing))
    return pd.Series(list(pairs), index=rows.index, dtype=object)


def accepts(task: Task) -> Callable[[str, str], bool] | None:
    """(query_id, text) → whether the verifier takes it as right, in time; None without a verifier."""
    if task.verifier is None:
        return None
    answers = dict(zip(task.topics["query_id"], task.topics["answers"]))

    def right(query_id: str, text: str) -> bool:
        verdicts = limits.calls(task.verifier, [(text, gold) for gold in answers[query_id]])
        return any(one for one in verdicts if one is not limits.NOT_JUDGED)

    return right
