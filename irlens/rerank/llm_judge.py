"""A language model as a judge: it compares responses in pairs, both ways round, or grades each one alone.

An answer that cannot be read is asked for once more; if the second cannot be read either it is kept, counted, and says
nothing: a pair is a tie, a single response gets the mean grade of its list. A question that a server refuses is not
judged: the pair is left out of what both have won, a single response gets the mean. What asks is handed in as a callable.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.rerank.scoring import REFUSED, as_text, lists


@dataclass(frozen=True)
class Refusal:
    """What a server said that will not answer a question."""

    why: str


Ask = Callable[
    [Sequence[list[dict]], int], "list[str | Refusal]"
]  # conversations, number of the try → an answer to each

PAIR = """Two assistants have answered the same request. Which answer is better: more correct, more helpful, clearer? \
Length and order must not count.

[Request]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

Reply with nothing but one letter: A if answer A is better, B if answer B is better, C if they are equally good."""
POINT = """An assistant has answered a request. How good is the answer: how correct, how helpful, how clear? Length must \
not count.

[Request]
{prompt}

[Answer]
{response}

Reply with nothing but a whole number from 1 (useless) to 10 (perfect)."""
AGAIN = {
    "pairwise": "That cannot be read. Reply with nothing but one letter: A, B or C.",
    "pointwise": "That cannot be read. Reply with nothing but a whole number from 1 to 10.",
}
THINKING = re.compile(r"^.*</think>", re.DOTALL)
EDGE = r"[\s*_`\"'.\[\](){}:#]*"
LETTER = re.compile(rf"{EDGE}(?:(?:the )?(?:better )?(?:answer|verdict|winner)(?: is)?{EDGE})?\b([ABC])\b{EDGE}", re.I)
NUMBER = re.compile(
    rf"{EDGE}(?:(?:my |the )?(?:score|rating|grade)(?: is)?{EDGE})?(10|[1-9])(?:\.0)?(?: ?/ ?10| out of 10)?{EDGE}",
    re.I,
)
VALUE = {"A": 1.0, "B": 0.0, "C": 0.5}


def read_pair(answer: str) -> float | None:
    """1 if the first is better, 0 if the second is, 0.5 for a tie; None for an answer that says neither."""
    found = _read(LETTER, answer)
    return None if found is None else VALUE[found.upper()]


def read_point(answer: str) -> float | None:
    """The grade from 1 to 10; None for an answer that is none."""
    found = _read(NUMBER, answer)
    return None if found is None else float(found)


def _read(form: re.Pattern, answer: str) -> str | None:
    """What the whole answer says, else what its last line does; a model's thinking aloud does not count."""
    answer = THINKING.sub("", answer).strip()
    for part in (answer, answer.rpartition("\n")[2]):
        if match := form.fullmatch(part):
            return match[1]
    return None


class Judge:
    """A scorer (see `scoring.Scorer`): rows → `score`, and what was asked for it.

    pairwise: `score` is the share of the comparisons with others of its list that a response wins, a tie counting
    one half. Each pair is asked both ways round: a response wins if both answers say so; where they disagree it is a tie.
    `opponents` limits the comparisons to that many others per response, chosen by a hash (None: all). pointwise: `score`
    is a grade from 1 to 10. More columns: `asked` and `nonsense` (answers to questions about this row, and how many
    stayed unreadable), `answers` (JSON: the unreadable ones as they came), `refused` (what the server said that refused
    a question about this row, "" where none was).
    """

    def __init__(
        self,
        ask: Ask,
        conversations: dict[str, list[dict]],
        mode: str = "pairwise",
        opponents: int | None = None,
        close: Callable[[], None] = lambda: None,
    ):
        self.close = close  # called when nothing more is asked
        self.ask, self.conversations, self.mode, self.opponents = ask, conversations, mode, opponents
        self.read = read_pair if mode == "pairwise" else read_point

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        """See the class."""
        plan = self._pairs(rows) if self.mode == "pairwise" else self._points(rows)
        questions, answers = [question for question, _ in plan], []
        if questions:
            answers = self._asked(questions)
        out = pd.DataFrame({"score": np.zeros(len(rows)), "asked": 0, "nonsense": 0, "answers": "[]", REFUSED: ""})
        kept: dict[int, list[str]] = {}
        for (_, about), (answer, value) in zip(plan, answers):
            if isinstance(answer, Refusal):
                out.loc[about, REFUSED] = answer.why
                continue
            for row in about:
                out.loc[row, "asked"] += 1
                if value is None:
                    kept.setdefault(row, []).append(answer)
        for row, some in kept.items():
            out.loc[row, ["nonsense", "answers"]] = [len(some), json.dumps(some, ensure_ascii=False)]
        values = [value for _, value in answers]
        score = self._won(rows, plan, values) if self.mode == "pairwise" else self._graded(rows, plan, values)
        return out.assign(score=score)

    def _said(self, answer: str | Refusal) -> float | None:
        """What an answer says: None where it cannot be read, NaN where there is none."""
        return math.nan if isinstance(answer, Refusal) else self.read(answer)

    def _asked(self, questions: Sequence[str]) -> list[tuple[str | Refusal, float | None]]:
        """The answer to each question and what it says, after a second try where the first cannot be read."""
        talks = [[{"role": "user", "content": question}] for question in questions]
        answers = self.ask(talks, 0)
        values = [self._said(answer) for answer in answers]
        again = [i for i, value in enumerate(values) if value is None]
        if again:
            more = {"role": "user", "content": AGAIN[self.mode]}
            second = self.ask(
                [[*talks[i], {"role": "assistant", "content": answers[i] or "…"}, more] for i in again], 1
            )
            for i, answer in zip(again, second):
                answers[i], values[i] = answer, self._said(answer)
        return list(zip(answers, values))

    def _prompt(self, rows: pd.DataFrame, row: int) -> str:
        return as_text(self.conversations[rows["query_id"].iloc[row]])

    def _points(self, rows: pd.DataFrame) -> list[tuple[str, list[int]]]:
        """(question, rows it is about): one for each distinct response of a list."""
        texts, plan = rows["text"].tolist(), []
        for at in lists(rows):
            for text, same in _distinct(texts, at).items():
                plan.append((POINT.format(prompt=self._prompt(rows, at[0]), response=text), same))
        return plan

    def _pairs(self, rows: pd.DataFrame) -> list[tuple[str, list[int]]]:
        """(question, rows it is about): two for each pair of distinct responses, the second with the order turned."""
        texts, plan = rows["text"].tolist(), []
        for at in lists(rows):
            prompt, groups = self._prompt(rows, at[0]), list(_distinct(texts, at).items())
            for i, j in pairings([text for text, _ in groups], self.opponents):
                for (a, mine), (b, other) in ((groups[i], groups[j]), (groups[j], groups[i])):
                    plan.append((PAIR.format(prompt=prompt, first=a, second=b), [mine[0], other[0]]))
        return plan

    def _won(self, rows: pd.DataFrame, plan, values: Sequence[float | None]) -> np.ndarray:
        won, played = np.zeros(len(rows)), np.zeros(len(rows))
        for k in range(0, len(plan), 2):
            i, j = plan[k][1]
            there, back = (0.5 if value is None else value for value in values[k : k + 2])
            if math.isnan(there + back):
                continue
            agreed = 0.5 + 0.5 * np.sign(there - 0.5) if there == 1 - back else 0.5
            won[i], won[j] = won[i] + agreed, won[j] + 1 - agreed
            played[i], played[j] = played[i] + 1, played[j] + 1
        score = np.where(played > 0, won / np.maximum(played, 1), 0.5)
        return self._spread(rows, score)

    def _graded(self, rows: pd.DataFrame, plan, values: Sequence[float | None]) -> np.ndarray:
        score = np.full(len(rows), np.nan)
        for (_, about), value in zip(plan, values):
            score[about] = np.nan if value is None else value
        for at in lists(rows):
            known = score[at][~np.isnan(score[at])]
            score[at] = np.where(np.isnan(score[at]), known.mean() if len(known) else 0.0, score[at])
        return score

    @staticmethod
    def _spread(rows: pd.DataFrame, score: np.ndarray) -> np.ndarray:
        """The score of the first of equal responses for all of them."""
        texts = rows["text"].tolist()
        for at in lists(rows):
            for same in _distinct(texts, at).values():
                score[same] = score[same[0]]
        return score


def _distinct(texts: Sequence[str], at: Sequence[int]) -> dict[str, list[int]]:
    """text → the rows of a list that hold it, in the list's order."""
    out: dict[str, list[int]] = {}
    for row in at:
        out.setdefault(texts[row], []).append(int(row))
    return out


def pairings(texts: Sequence[str], opponents: int | None) -> list[tuple[int, int]]:
    """Pairs of positions: all of them, or neighbours in a circle in the order of the texts' hashes.

    With `opponents` k (even) everyone meets the k/2 before and the k/2 behind, so that all meet equally many. Raises
    UserError for an odd or smaller number.
    """
    count = len(texts)
    if opponents is None or opponents >= count - 1:
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    if opponents < 2 or opponents % 2:
        raise UserError(f"--judge-opponents must be an even number from 2 on, got {opponents}")
    circle = sorted(range(count), key=lambda i: hashlib.blake2b(texts[i].encode(), digest_size=8).digest())
    steps = range(1, opponents // 2 + 1)
    return sorted({tuple(sorted((circle[i], circle[(i + s) % count]))) for i in range(count) for s in steps})
