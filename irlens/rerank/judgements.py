"""Preferences between two answers: by a judge who is asked about each pair, or by a reranker's scores.

A pair is a row `instruction, output_1, output_2` (the baseline's answer first); a preference is 1 where the first is
better, 2 where the second is, or between.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from irlens.rerank.judge_server import Answer
from irlens.rerank.pair_protocols import Protocol, is_switched
from irlens.rerank.questions import REFUSED, Question, Questions, Said, dollars, once_more

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.rerank.reranker import Scoring

SAME = "same answers"  # why a pair has no question


@dataclass
class Plan(Questions):
    """The questions about some pairs. both: each is asked in both orders, else in the one that `is_switched` throws; and
    `repeats` times, every time with a seed of its own.

    more: settings of every request of the user's own; model: who is asked.
    """

    pairs: pd.DataFrame
    protocol: Protocol
    model: str
    both: bool = False
    more: Mapping[str, object] = field(default_factory=dict)
    tries: int = 2
    repeats: int = 1

    @property
    def name(self) -> str:
        """The protocol's."""
        return self.protocol.name

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
        asked = [(repeat, turn) for repeat in range(self.repeats) for turn in (False, True)]
        return [
            [] if a == b else [self._question(text, a, b, *one) for one in asked if one[1] in self._orders(text)]
            for text, a, b in rows
        ]

    def _orders(self, instruction: str) -> tuple[bool, ...]:
        return (False, True) if self.both else (is_switched(instruction),)

    def _question(
        self, instruction: str, first: str, second: str, repeat: int, switched: bool
    ) -> tuple[Question, bool]:
        shown = (second, first) if switched else (first, second)
        body = {"messages": self.protocol.messages(instruction, *shown)} | dict(self.protocol.body) | dict(self.more)
        body |= {"seed": repeat * self.tries} if repeat else {}
        return Question.of(body, self.model, self.protocol.reader, self.protocol.again), switched

    def read(self, key: str, choice: dict) -> float | None:
        """The preference, in the order shown."""
        return self.protocol.read(choice)

    def body(self, question: Question, number: int, unread: Answer | None) -> dict:
        """See `Questions`; the second says what was wrong, where the protocol has words."""
        return once_more(question, number, unread, self.protocol.again)

    def judged(self, said: Mapping[str, Said], price: tuple[float, float] | None = None) -> pd.DataFrame:
        """The pairs with `preference` (NaN where there is none), `reason`, what each order gave (`as_it_is`, `switched`, NaN
        where it was not asked), every verdict ([switched, preference], JSON), the answers as they came and what they took.

        A pair that is asked several times has the mean, and no preference where one of them is missing.
        """
        rows = [self._row([(said[key], turn) for key, turn in asked], price) for asked in self.asked]
        found = dict(zip(rows[0], zip(*(row.values() for row in rows)))) if rows else {}
        return self.pairs.assign(**{name: list(values) for name, values in found.items()})

    def _row(self, told: list[tuple[Said, bool]], price: tuple[float, float] | None) -> dict:
        if not told:
            return _cells(1.5, SAME, [], [], price)
        each = [
            (turn, None if s.preference is None else 3 - s.preference if turn else s.preference) for s, turn in told
        ]
        value = _mean(v for _, v in each) if all(v is not None for _, v in each) else math.nan
        reason = next((s.reason for s, _ in told if s.preference is None), "")
        return _cells(value, reason, each, [s for s, _ in told], price)


def _mean(values: Iterable[float | None]) -> float:
    """Of those that are known; NaN without any."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else math.nan


def _cells(value: float, reason: str, each: list[tuple[bool, float | None]], told: list[Said], price) -> dict:
    """The cells of a pair. each: whether the system's answer was shown first, and the preference."""
    read, written = sum(s.prompt_tokens for s in told), sum(s.completion_tokens for s in told)
    return {
        "preference": value,
        "reason": reason,
        "as_it_is": _mean(v for turn, v in each if not turn),
        "switched": _mean(v for turn, v in each if turn),
        "verdicts": json.dumps([[int(turn), v] for turn, v in each]) if each else "",
        "raw_completion": json.dumps([s.answer for s in told]) if len(told) != 1 else told[0].answer,
        "prompt_tokens": read,
        "completion_tokens": written,
        "time_per_example": math.fsum(s.seconds for s in told),
        "price_per_example": math.nan if price is None else dollars(price, read, written),
    }


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
    """The pairs with the `preference` of a reranker: for the answer with the higher score, 1.5 for equal ones, NaN where a
    judge's server refused a question about either; and `reward_1`, `reward_2`. Raises UserError: see `Scoring`."""
    import numpy as np

    run, at = run_of(pairs, scoring.relative)
    found = scoring.scores(run)
    scores = np.asarray(found.scores, dtype=float)[at]
    value = 1.5 + 0.5 * np.sign(scores[:, 1] - scores[:, 0])
    same = pairs["output_1"].to_numpy() == pairs["output_2"].to_numpy()
    reason = np.where(same, SAME, "").astype(object)
    if found.refused is not None:
        words = found.refused[at]
        not_judged = (words != "").any(axis=1) & ~same
        reason[not_judged] = [f"{REFUSED}: {max(some)}" for some in words[not_judged]]
        value[not_judged] = np.nan
    return pairs.assign(preference=value, reason=reason, reward_1=scores[:, 0], reward_2=scores[:, 1])
