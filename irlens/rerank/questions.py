"""What a judge is asked: what is still to be asked, what it costs, and every answer kept as it comes.

Each answer is a line of a journal as soon as it has come, named by the digest of all that it depends on, so that a killed
command asks nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from irlens.base import jsons
from irlens.base.errors import UserError
from irlens.rerank.judge_server import Answer
from irlens.rerank.pair_protocols import text_of

LETTERS = 4  # characters of a token, about
FIRST = 8  # questions after which a judge of whom nothing can be read is given up
REFUSED, UNREADABLE = "refused", "unreadable"  # why an answer has no value

Ask = Callable[[Sequence[tuple[str, dict]], Callable[[str, Answer], None]], None]  # `JudgeServer.ask`


@dataclass(frozen=True)
class Said:
    """What a judge said of one question: the preference (in the order shown) or the grade, None where there is none, and why."""

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
        return None if self.price is None else dollars(self.price, self.prompt_tokens, self.completion_tokens)

    def in_words(self) -> str:
        """One line of it."""
        money = "" if self.dollars is None else f", at most about ${self.dollars:,.2f}"
        return (
            f"{self.calls:,} questions to the judge, about {self.prompt_tokens:,} tokens to read and at most "
            f"{self.completion_tokens:,} to write{money}"
        )


def dollars(price: tuple[float, float], read: float, written: float) -> float:
    return (read * price[0] + written * price[1]) / 1e6


# -- the journal ---------------------------------------------------------------------------------------------------


class Journal:
    """Answers by key in a file of JSON lines, each with a checksum; a line that is not whole is left out, and counted.
    Without a file they are kept as long as this object."""

    def __init__(self, path: Path | None):
        self.path, self.said, self.damaged = path, {}, 0
        if path and path.is_file():
            self._read(path)

    def _read(self, path: Path) -> None:
        whole = []
        for line in path.read_bytes().splitlines():
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

            write_text("".join(line.decode() + "\n" for line in whole), path)

    def add(self, key: str, said: Said) -> None:
        """Keeps an answer, on the disk when this returns."""
        self.said[key] = said
        if self.path is None:
            return
        text = json.dumps({"key": key} | vars(said))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{text}\t{zlib.crc32(text.encode()):08x}\n")


# -- questions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """The body of a request, and the digest of all that an answer depends on."""

    key: str
    body: dict

    @property
    def characters(self) -> int:
        return sum(len(message["content"]) for message in self.body["messages"])

    @classmethod
    def of(cls, body: Mapping[str, object], *about: object) -> Question:
        """A question of this body, without what is None in it. about: what else an answer depends on."""
        body = {name: value for name, value in body.items() if value is not None}
        told = json.dumps([*about, body], sort_keys=True)
        return cls(hashlib.sha256(told.encode()).hexdigest()[:32], body)


def once_more(question: Question, number: int, unread: Answer | None, words: str | None) -> dict:
    """The body of a request at the try of this number, after an answer that could not be read with `words` of what was
    wrong."""
    begun = question.body.get("seed", 0)
    body = question.body | {"seed": begun + number if isinstance(begun, int) else number}
    if unread is None or not words:
        return body
    more = [{"role": "assistant", "content": text_of(unread.choice) or "…"}, {"role": "user", "content": words}]
    return body | {"messages": [*body["messages"], *more]}


class Questions(ABC):
    """Questions to one judge. model: who is asked; name: how the judge is called; tries: of a question whose answer cannot be
    read."""

    model: str
    tries: int

    @property
    @abstractmethod
    def name(self) -> str:
        """How the judge is called in a message."""

    @property
    @abstractmethod
    def questions(self) -> Mapping[str, Question]:
        """Key → question; equal ones are one."""

    @abstractmethod
    def read(self, key: str, choice: dict) -> float | None:
        """What a choice of the server says; None for what cannot be read."""

    @abstractmethod
    def body(self, question: Question, number: int, unread: Answer | None) -> dict:
        """The request's body at the try of this number, from 0 on. unread: the answer before, which could not be read."""

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
        """Asks, again where an answer cannot be read, and keeps every answer; `heard()` after each that is final.

        Raises UserError: the server's, or where of the first answers none can be read and none could before.
        """
        reading = _Reading(self, journal, heard)
        for number in range(self.tries):
            bodies = [(one.key, self.body(one, number, reading.last(one.key))) for one in todo]
            ask(bodies, lambda key, answer: reading.take(key, answer, number + 1 == self.tries))
            todo = [question for question in todo if question.key in reading.unread]
            if not todo:
                return


class _Reading:
    """Answers as they come: those that can be read are kept at once, others once they were asked for again."""

    def __init__(self, asked: Questions, journal: Journal, heard: Callable[[], None]):
        self.asked, self.journal, self.heard = asked, journal, heard
        self.unread: dict[str, list[Answer]] = {}  # key → the answers that could not be read
        self.any = any(said.preference is not None for said in journal.said.values())
        self.failures = 0

    def last(self, key: str) -> Answer | None:
        """The last answer to a question, where it could not be read."""
        return self.unread[key][-1] if key in self.unread else None

    def take(self, key: str, answer: Answer, last: bool) -> None:
        """Reads an answer; `last`: it is kept even if it cannot be read. Raises UserError: see `Questions.ask`."""
        value = None if answer.refused else self.asked.read(key, answer.choice)
        if value is None and not answer.refused and not last:
            self.unread.setdefault(key, []).append(answer)
            return
        reason = f"{REFUSED}: {answer.refused}" if answer.refused else "" if value is not None else UNREADABLE
        raw = json.dumps(answer.choice)
        every = [*self.unread.pop(key, ()), answer]
        told = [sum(one.prompt_tokens for one in every), sum(one.completion_tokens for one in every)]
        told.append(round(math.fsum(one.seconds for one in every), 3))
        self.journal.add(key, Said(value, reason, raw, *told))
        self.any, self.failures = self.any or value is not None, self.failures + (value is None)
        self.heard()
        if not self.any and self.failures >= FIRST:
            raise UserError(
                f"the judge gave {self.failures} answers and none can be read as {self.asked.name} has it: "
                f"{(answer.refused or text_of(answer.choice) or raw)[:120]!r}"
            )
