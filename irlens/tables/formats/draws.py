"""What every format's reader gives, draws with what a file says of each, and the tables made of them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from irlens.base.errors import UserError, did_you_mean
from irlens.tables.contracts import check, ranked
from irlens.tables.own import query_id_of

SPACE = re.compile(r"\s+")  # what a TREC file cannot hold in an identifier
CUT = ("length", "max_tokens", "model_length")  # how tools say that a response reached its limit


@dataclass(frozen=True)
class Draw:
    """One response. `where` names its place in the file; verdicts: judgement's name → number.

    Without a query_id the prompt is its own identifier. messages: the chat that was answered, where it is more than one
    question. tag: the system that answered. step: of a training.
    """

    where: str
    text: str
    query: str | None = None
    query_id: str | None = None
    messages: list[dict] | None = None
    answers: list[str] | None = None
    verdicts: dict[str, float] = field(default_factory=dict)
    temperature: float | None = None
    finish_reason: str | None = None
    n_tokens: int | None = None
    logprob: float | None = None
    tag: str | None = None
    step: int | None = None


@dataclass
class Log:
    """The draws of a file, and what it says of all of them.

    reported: judgement's name → the file's own mean. left_out: reason → rows that are no draws. notes: what is to be said.
    """

    draws: list[Draw]
    model: str | None = None
    task: str | None = None
    reported: dict[str, float] = field(default_factory=dict)
    left_out: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class About:
    """What a reader is told beside the rows: the file, and the requests that a batch answered."""

    path: Path
    requests: Path | None = None


@dataclass(frozen=True)
class Imported:
    """A run (draws in their order) and, where the file judges every draw right or wrong, qrels; else its rewards are the
    run's column `reward`. judged_by: the judgement taken, `judgements` all there are."""

    format: str
    run: pd.DataFrame
    qrels: pd.DataFrame | None
    judged_by: str | None
    judgements: list[str]
    log: Log


def imported(format: str, log: Log, judged_by: str | None, source: str) -> Imported:
    """The tables of a log. Raises UserError: no draw, a judgement that is not there, one id for two prompts."""
    if not log.draws:
        why = ", ".join(f"{count:,} {reason}" for reason, count in log.left_out.items())
        raise UserError(f"{source}: no draw" + (f" ({why})" if why else ""))
    log.model, log.task = (None if told is None else str(told) for told in (log.model, log.task))
    names = list(dict.fromkeys(name for draw in log.draws for name in draw.verdicts))
    if judged_by is not None and judged_by not in names:
        known = did_you_mean(judged_by, names) if names else "the file judges nothing"
        raise UserError(f"--judged-by {judged_by!r}: {known}")
    chosen = judged_by or next(iter(names), None)
    run = _run(log.draws, source)
    found = [draw.verdicts.get(chosen or "") for draw in log.draws]
    grades = pd.Series(found, index=run.index, dtype=float)
    run = run.assign(reward=grades)
    run = check(ranked(run), "run", source)
    qrels = None
    if grades.notna().all() and grades.isin((0.0, 1.0)).all():
        qrels = run[["query_id", "doc_id"]].assign(relevance=run["reward"].astype("int64"))
    if qrels is not None or grades.isna().any():
        if chosen is not None and (missing := int(grades.isna().sum())):
            log.notes.append(f"{chosen} judges {len(run) - missing:,} of {len(run):,} draws: taken as not judged")
            chosen = None
        run = run.drop(columns="reward")
    return Imported(format, run, qrels, chosen, names, log)


def _run(draws: list[Draw], source: str) -> pd.DataFrame:
    """[draws] the run, in the file's order; a column that no draw fills is left out."""
    prompts: dict[str, tuple[str | None, str]] = {}
    counts: Counter = Counter()
    places: Counter = Counter()
    rows = []
    for draw in draws:
        _check_text(draw)
        asked = draw.query if draw.messages is None else json.dumps(draw.messages, ensure_ascii=False)
        if draw.query_id is not None:
            query_id = SPACE.sub("_", draw.query_id)
        elif asked is not None:
            query_id = query_id_of(asked)
        else:
            raise UserError(f"{draw.where}: it tells neither a prompt nor an identifier")
        first, where = prompts.setdefault(query_id, (asked, draw.where))
        if first != asked:
            raise UserError(f"{draw.where}: another prompt under the identifier {query_id!r} of {where}")
        rows.append(
            {
                "query_id": query_id,
                "doc_id": f"{query_id}/{counts[query_id]:05d}",
                "draw": places[query_id, draw.tag],
                "text": draw.text,
                "query": draw.query,
                "messages": draw.messages,
                "answers": draw.answers,
                "temperature": draw.temperature,
                "finish_reason": _ended(draw.finish_reason),
                "n_tokens": draw.n_tokens,
                "logprob": draw.logprob,
                "tag": draw.tag,
                "step": draw.step,
            }
        )
        counts[query_id] += 1
        places[query_id, draw.tag] += 1
    frame = pd.DataFrame(rows)
    frame = frame.assign(score=0.0 - frame["draw"], rank=0)
    if frame["messages"].notna().any():  # one column for all: a plain question is a chat of one message
        both = zip(frame["messages"], frame["query"])
        frame["messages"] = [m if isinstance(m, list) else [{"role": "user", "content": q}] for m, q in both]
    partial = [c for c in ("query", "answers", "temperature", "tag", "n_tokens") if frame[c].isna().any()]
    empty = [c for c in frame.columns if frame[c].isna().all()]
    return frame.drop(columns=list(dict.fromkeys([*partial, *empty])))


def _check_text(draw: Draw) -> None:
    """Raises UserError for a text that no file can hold."""
    told = [draw.text, draw.query, draw.query_id, draw.messages, draw.answers, draw.tag, draw.finish_reason]
    try:
        json.dumps(told, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{draw.where}: a text that is not Unicode ({error.reason} at character {error.start})"
        ) from None


def _ended(reason) -> str | None:
    return None if reason is None else "length" if reason in CUT else "stop"


# -- what the readers share ----------------------------------------------------------------------------------------


def part(row: dict, name: str, kind: type, where: str):
    """`row[name]`, an object (dict) or a list; an empty one where it is missing or null. Raises UserError for another thing."""
    value = row.get(name)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        what = "an object" if kind is dict else "a list"
        raise UserError(f"{where}: {name} must be {what}, got {value!r:.60}")
    return value


def objects(values: list, name: str, where: str) -> list[dict]:
    """A list of objects. Raises UserError for a member that is none."""
    for value in values:
        if not isinstance(value, dict):
            raise UserError(f"{where}: {name} must hold objects, got {value!r:.60}")
    return values


def number(value) -> float | None:
    """A finite number or a truth value as a float; None of anything else."""
    if isinstance(value, (bool, int, float)) and math.isfinite(value):
        return float(value)
    return None


def count(value) -> int | None:
    """A whole number from 0 on; None of anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def text_of(content, where: str) -> str:
    """The text of a response or a message's content: itself, its text parts, or nothing. Raises UserError for others."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    found = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("reasoning", "thinking"):
            continue
        if isinstance(part, str) or (
            kind in ("text", "output_text", None) and isinstance(part, dict) and "text" in part
        ):
            found.append(part if isinstance(part, str) else str(part["text"]))
        else:
            raise UserError(f"{where}: a content that is no text: {part!r:.80}")
    return "".join(found)


def chat(messages: list, where: str) -> tuple[str, list[dict] | None]:
    """(the last user message, the chat as role and content where it is more than that one message).

    What follows the last user message is an answer, no prompt. Raises UserError: no user message, one without a role.
    """
    plain = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise UserError(f"{where}: a message needs role and content, got {message!r:.80}")
        plain.append({"role": message["role"], "content": text_of(message.get("content"), where)})
    last = max((i for i, message in enumerate(plain) if message["role"] == "user"), default=-1)
    if last < 0:
        raise UserError(f"{where}: the prompt has no user message")
    plain = plain[: last + 1]
    return plain[-1]["content"], plain if len(plain) > 1 else None


def prompt(value, where: str) -> tuple[str | None, list[dict] | None]:
    """(query, messages) of a prompt: a text or a list of messages. Raises UserError for another thing."""
    if isinstance(value, str):
        return value, None
    if isinstance(value, list) and value:
        return chat(value, where)
    raise UserError(f"{where}: a prompt must be a text or a list of messages, got {value!r:.80}")


def response(value, where: str) -> str:
    """A response: a text, or chat messages of which the assistant's last one counts. Raises UserError for another thing."""
    if isinstance(value, list) and value and isinstance(value[-1], dict) and "role" in value[-1]:
        value = value[-1].get("content")
    if value is None or isinstance(value, (str, list)):
        return text_of(value, where)
    raise UserError(f"{where}: a response must be a text, got {value!r:.80}")


def answers_of(value) -> list[str] | None:
    """Gold answers: one or several, as texts; None where there are none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return [str(v) for v in (value if isinstance(value, list) else [value])] or None
