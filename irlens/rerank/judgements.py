"""Judgements of pairs of answers: what is still to be asked, what it costs, every answer kept, and the preferences.

A pair is a row `instruction, output_1, output_2` (the baseline's answer first); a preference is 1 where the first is
better, 2 where the second is, or between. Each answer of a judge is a line of a journal as soon as it has come, named by
the digest of all that it depends on, so that a killed command asks nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import jsons
from irlens.base.errors import UserError
from irlens.rerank.judge_server import Answer
from irlens.rerank.pair_protocols import Protocol, is_switched, text_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.rerank.reranker import Scoring

LETTERS = 4  # characters of a token, about
FIRST = 8  # questions after which a judge of whom nothing can be read is given up
SAME, REFUSED, UNREADABLE = "same answers", "refused", "unreadable"  # why a pair has no question or no preference
TRIES = 2  # of a question whose answer cannot be read

Ask = Callable[[Sequence[tuple[str, dict]], Callable[[str, Answer], None]], None]  # `JudgeServer.ask`


@dataclass(frozen=True)
class Said:
    """What a judge said of one question: its preference in the order shown, None where there is none, and why."""

    preference: float | None
    reason: str = ""
    answer: str = ""  # as it came, JSON
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    @property
    def final(self) -> bool:
        """Whether it is not to be asked again at the next start."""
        return not self.reason.startswith(REFUSED)


@dataclass(frozen=True)
class Cost:
    """What is still to be asked: calls, and tokens about, at four characters each; dollars where a price is given."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    price: tuple[float, float] | None = None

    @property
    def dollars(self) -> float | None:
        """By a price of (input, output) per million tokens; answers as long as they may be."""
        return None if self.price is None else _dollars(self.price, self.prompt_tokens, self.completion_tokens)

    def in_words(self) -> str:
        """One line of it."""
        money = "" if self.dollars is None else f", at most about ${self.dollars:,.2f}"
        return (
            f"{self.calls:,} questions to the judge, about {self.prompt_tokens:,} tokens to read and at most "
            f"{self.completion_tokens:,} to write{money}"
        )


def _dollars(price: tuple[float, float], read: float, written: float) -> float:
    return (read * price[0] + written * price[1]) / 1e6


# -- the journal ---------------------------------------------------------------------------------------------------


class Journal:
    """Answers by key in a file of JSON lines, each with a checksum; a line that is not whole is left out, and counted."""

    def __init__(self, path: Path):
        self.path, self.said, self.damaged = path, {}, 0
        if path.is_file():
            self._read()

    def _read(self) -> None:
        whole = []
        for line in self.path.read_bytes().splitlines():
            try:
                text, _, check = line.decode().rpartition("\t")
                if int(check, 16) != zlib.crc32(text.encode()):
                    raise ValueError("another checksum")
                row = jsons.loads(text)
                key = row.pop("key")
                self.said[key] = Said(**row)
                whole.append(line)
            except (ValueError, TypeError, KeyError, AttributeError):
                self.damaged += 1
        if self.damaged:  # so that the next line begins at a line's beginning
            from irlens.base.files import write_text

            write_text("".join(line.decode() + "\n" for line in whole), self.path)

    def add(self, key: str, said: Said) -> None:
        """Keeps an answer, on the disk when this returns."""
        self.said[key] = said
        text = json.dumps({"key": key} | vars(said))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{text}\t{zlib.crc32(text.encode()):08x}\n")


# -- questions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """What is asked about a pair in one order: the body of the request, and the digest of all that an answer depends on."""

    key: str
    body: dict

    @property
    def characters(self) -> int:
        return sum(len(message["content"]) for message in self.body["messages"])


@dataclass
class Plan:
    """The questions about some pairs. both: each is asked in both orders, else in the one that `is_switched` throws.

    more: settings of every request of the user's own; model: who is asked.
    """

    pairs: pd.DataFrame
    protocol: Protocol
    model: str
    both: bool = False
    more: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def asked(self) -> list[list[tuple[str, bool]]]:
        """Of each pair the (key, switched) of its questions; none where the answers are the same."""
        return [[(question.key, switched) for question, switched in some] for some in self._each]

    @cached_property
    def questions(self) -> dict[str, Question]:
        """Key → question; equal ones are one."""
        return {question.key: question for some in self._each for question, _ in some}

    @cached_property
    def _each(self) -> list[list[tuple[Question, bool]]]:
        rows = zip(self.pairs["instruction"], self.pairs["output_1"], self.pairs["output_2"])
        return [
            [] if a == b else [self._question(text, a, b, turn) for turn in self._orders(text)] for text, a, b in rows
        ]

    def _orders(self, instruction: str) -> tuple[bool, ...]:
        return (False, True) if self.both else (is_switched(instruction),)

    def _question(self, instruction: str, first: str, second: str, switched: bool) -> tuple[Question, bool]:
        shown = (second, first) if switched else (first, second)
        body = {"messages": self.protocol.messages(instruction, *shown)} | dict(self.protocol.body) | dict(self.more)
        body = {name: value for name, value in body.items() if value is not None}
        told = json.dumps([self.model, self.protocol.reader, self.protocol.again, body], sort_keys=True)
        return Question(hashlib.sha256(told.encode()).hexdigest()[:32], body), switched

    def todo(self, known: Iterable[str]) -> list[Question]:
        """The questions whose key is not `known`."""
        there = set(known)
        return [question for key, question in self.questions.items() if key not in there]

    def cost(self, todo: Sequence[Question], price: tuple[float, float] | None = None) -> Cost:
        """What they cost."""
        read = sum(math.ceil(question.characters / LETTERS) for question in todo)
        longest = max((int(question.body.get("max_tokens") or 0) for question in todo), default=0)
        return Cost(len(todo), read, longest * len(todo), price)

    def ask(self, todo: Sequence[Question], ask: Ask, journal: Journal, heard: Callable[[], None]) -> None:
        """Asks, once more where an answer cannot be read, and keeps every answer; `heard()` after each that is final.

        Raises UserError: the server's, or where of the first answers none can be read and none could before.
        """
        reading = _Reading(self.protocol, journal, heard)
        for number in range(TRIES):
            bodies = [(question.key, reading.body(question, number)) for question in todo]
            ask(bodies, lambda key, answer: reading.take(key, answer, number + 1 == TRIES))
            todo = [question for question in todo if question.key in reading.unread]
            if not todo:
                return

    def judged(self, said: Mapping[str, Said], price: tuple[float, float] | None = None) -> pd.DataFrame:
        """The pairs with `preference` (NaN where there is none), `reason`, what each order gave (`as_it_is`, `switched`, NaN
        where it was not asked), the answers as they came and what they took.

        A pair that is asked in both orders has the mean of the two, and none where one of them is missing.
        """
        rows = [self._row([(said[key], turn) for key, turn in asked], price) for asked in self.asked]
        found = dict(zip(rows[0], zip(*(row.values() for row in rows)))) if rows else {}
        return self.pairs.assign(**{name: list(values) for name, values in found.items()})

    def _row(self, told: list[tuple[Said, bool]], price: tuple[float, float] | None) -> dict:
        if not told:
            return _cells(1.5, SAME, {}, [], price)
        known = [(3 - s.preference if turn else s.preference, turn) for s, turn in told if s.preference is not None]
        value = math.fsum(v for v, _ in known) / len(told) if len(known) == len(told) else math.nan
        reason = next((s.reason for s, _ in told if s.preference is None), "")
        return _cells(value, reason, {turn: v for v, turn in known}, [s for s, _ in told], price)


def _cells(value: float, reason: str, orders: Mapping[bool, float], told: list[Said], price) -> dict:
    """The cells of a pair. orders: whether the system's answer was shown first → the preference."""
    read, written = sum(s.prompt_tokens for s in told), sum(s.completion_tokens for s in told)
    return {
        "preference": value,
        "reason": reason,
        "as_it_is": orders.get(False, math.nan),
        "switched": orders.get(True, math.nan),
        "raw_completion": json.dumps([s.answer for s in told]) if len(told) != 1 else told[0].answer,
        "prompt_tokens": read,
        "completion_tokens": written,
        "time_per_example": math.fsum(s.seconds for s in told),
        "price_per_example": math.nan if price is None else _dollars(price, read, written),
    }


class _Reading:
    """Answers as they come: those that can be read are kept at once, others once they were asked for again."""

    def __init__(self, protocol: Protocol, journal: Journal, heard: Callable[[], None]):
        self.protocol, self.journal, self.heard = protocol, journal, heard
        self.unread: dict[str, Answer] = {}  # key → the answer that could not be read
        self.any = any(said.preference is not None for said in journal.said.values())
        self.failures = 0

    def body(self, question: Question, number: int) -> dict:
        """The request's body at the try of this number; the second says what was wrong, where the protocol has words."""
        body = question.body | {"seed": number}
        if number == 0 or not self.protocol.again:
            return body
        more = [{"role": "assistant", "content": text_of(self.unread[question.key].choice) or "…"}]
        return body | {"messages": [*body["messages"], *more, {"role": "user", "content": self.protocol.again}]}

    def take(self, key: str, answer: Answer, last: bool) -> None:
        """Reads an answer; `last`: it is kept even if it cannot be read. Raises UserError: see `Plan.ask`."""
        value = None if answer.refused else self.protocol.read(answer.choice)
        if value is None and not answer.refused and not last:
            self.unread[key] = answer
            return
        reason = f"{REFUSED}: {answer.refused}" if answer.refused else "" if value is not None else UNREADABLE
        raw = json.dumps(answer.choice)
        both = [one for one in (self.unread.pop(key, None), answer) if one]
        told = [sum(one.prompt_tokens for one in both), sum(one.completion_tokens for one in both)]
        told.append(round(math.fsum(one.seconds for one in both), 3))
        self.journal.add(key, Said(value, reason, raw, *told))
        self.any, self.failures = self.any or value is not None, self.failures + (value is None)
        self.heard()
        if not self.any and self.failures >= FIRST:
            raise UserError(
                f"the judge gave {self.failures} answers and none can be read as {self.protocol.name} has it: "
                f"{(answer.refused or text_of(answer.choice) or raw)[:120]!r}"
            )


# -- by a reranker -------------------------------------------------------------------------------------------------


def run_of(pairs: pd.DataFrame, relative: bool) -> tuple[pd.DataFrame, np.ndarray]:
    """(a run of all answers, the [n, 2] rows of it that each pair's answers are).

    A text is scored once for its instruction; where scores hold within one list only, each pair is a list of its own.
    """
    import numpy as np
    import pandas as pd

    from irlens import tables

    rows, places, at = [], {}, []
    sides = zip(pairs["instruction"], pairs["generator_2"], pairs["output_1"], pairs["output_2"])
    for instruction, system, *texts in sides:
        query_id, tag = tables.query_id_of(instruction), system if relative else "answers"
        for text in texts:
            key = (query_id, tag, text)
            if key not in places:
                digest = hashlib.sha256(repr(key).encode("utf-8", "backslashreplace")).hexdigest()[:16]
                places[key] = len(rows)
                rows.append((query_id, f"{query_id}/{digest}", instruction, text, tag))
        at.append([places[query_id, tag, text] for text in texts])
    run = pd.DataFrame(rows, columns=["query_id", "doc_id", "query", "text", "tag"])
    rank = run.groupby(["query_id", "tag"], sort=False).cumcount()
    return run.assign(score=-rank.astype("float32"), rank=rank), np.array(at, dtype=int).reshape(-1, 2)


def by_scores(pairs: pd.DataFrame, scoring: Scoring) -> pd.DataFrame:
    """The pairs with the `preference` of a reranker: for the answer with the higher score, 1.5 for equal ones; and
    `reward_1`, `reward_2`. Raises UserError: see `Scoring`."""
    import numpy as np

    run, at = run_of(pairs, scoring.relative)
    scores = np.asarray(scoring.scores(run).scores, dtype=float)[at]
    value = 1.5 + 0.5 * np.sign(scores[:, 1] - scores[:, 0])
    reason = np.where(pairs["output_1"].to_numpy() == pairs["output_2"].to_numpy(), SAME, "")
    return pairs.assign(preference=value, reason=reason, reward_1=scores[:, 0], reward_2=scores[:, 1])
