"""MT-Bench's judge by single grading: each turn of an answer gets a grade from 1 to 10, with a reference answer where one
is needed.

The messages are the authors', from their file of prompts, or the project's own (`OWN`). What cannot be read is asked
again, and then counted, never drawn. Source: lm-sys/FastChat, fastchat/llm_judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.rerank.judge_server import Answer
from irlens.rerank.llm_judge import THINKING
from irlens.rerank.pair_protocols import text_of
from irlens.rerank.questions import Question, Questions, Said, once_more
from irlens.tables.formats.mt_bench import MOST, NEED_REFERENCE, TURNS
from irlens.tables.formats.rows import rows

if TYPE_CHECKING:
    import pandas as pd

OWN_SYSTEM = """You grade an assistant's answer. What counts is whether it is right, helps with what was asked, goes as deep \
as that needs and says no more than that. Where a reference answer is given, first compare the two and say what is wrong. \
Say in a few sentences what is good and what is not. Then end with a grade in double brackets: a number from 1 (useless) \
to 10 (perfect), such as [[4]]."""
OWN_FIRST = "[Question]\n{question}\n\n[Answer to be graded]\n{answer}"
OWN_SECOND = """[First question]
{question_1}

[First answer]
{answer_1}

[Second question]
{question_2}

[Second answer, the one to be graded]
{answer_2}"""
OWN_REFERENCE = "[Reference answer]\n{ref_answer_1}\n\n"
OWN_REFERENCES = "[Reference answer to the first question]\n{ref_answer_1}\n\n[Reference answer to the second question]\n{ref_answer_2}\n\n"
AGAIN = "No grade can be read. End with a number from 1 to 10 in double brackets, such as [[4]]."
PLACES = re.compile(r"\{(question|answer|question_1|question_2|answer_1|answer_2|ref_answer_1|ref_answer_2)\}")
SCORE = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))
NAMES = {
    (1, False): "single-v1", (1, True): "single-math-v1", (2, False): "single-v1-multi-turn",
    (2, True): "single-math-v1-multi-turn",
}  # of (turn, whether a reference answer is shown)  # fmt: skip
NEEDED = {1: {"question", "answer"}, 2: {"question_2", "answer_2"}}


def read_score(answer: str) -> float | None:
    """The first grade in double brackets, else in single ones, 0 to 10; None without one.

    Of a judge that thinks aloud what follows its thought counts.
    """
    answer = THINKING.sub("", answer)
    found = next((match for form in SCORE if (match := form.search(answer))), None)
    return float(found[1]) if found and len(found[1]) < 20 and float(found[1]) <= MOST else None


@dataclass(frozen=True)
class Wording:
    """What a judge is told, (system message, template) by turn and whether a reference answer is shown."""

    name: str
    prompts: Mapping[tuple[int, bool], tuple[str, str]]

    def __post_init__(self):
        for (turn, shown), (_, template) in self.prompts.items():
            wanted = NEEDED[turn] | ({"ref_answer_1"} if shown else set())
            if lacking := wanted - set(PLACES.findall(template)):
                raise UserError(f"{self.name}: the template of turn {turn} has no place {{{min(lacking)}}}")

    def messages(self, row: Mapping[str, str], turn: int) -> list[dict]:
        """The conversation about a turn of a row: `turn_1, turn_2, answer_1, answer_2`, and `reference_1`, `reference_2`,
        "" where there is none. What is put in is put in once, braces of its own and all."""
        shown = bool(row["reference_1"])
        system, template = self.prompts[turn, shown]
        told = {"question": row["turn_1"], "answer": row["answer_1"]}
        for number in TURNS:
            told |= {f"question_{number}": row[f"turn_{number}"], f"answer_{number}": row[f"answer_{number}"]}
            told |= {f"ref_answer_{number}": row[f"reference_{number}"]}
        text = PLACES.sub(lambda found: told[found[1]], template)
        return [{"role": "system", "content": system}, {"role": "user", "content": text}]


OWN = Wording("own", {
    (1, False): (OWN_SYSTEM, OWN_FIRST), (1, True): (OWN_SYSTEM, OWN_REFERENCE + OWN_FIRST),
    (2, False): (OWN_SYSTEM, OWN_SECOND), (2, True): (OWN_SYSTEM, OWN_REFERENCES + OWN_SECOND),
})  # fmt: skip


def of_file(path: Path) -> Wording:
    """The authors' prompts: the lines of judge_prompts.jsonl that are of single grading. Raises UserError for another file."""
    found = {row.get("name"): (where, row) for where, row in rows(path)}
    prompts = {}
    for key, name in NAMES.items():
        if name not in found:
            raise UserError(f"{path}: has no prompt {name}; it is FastChat's judge_prompts.jsonl that is wanted")
        where, row = found[name]
        parts = [row.get(part) for part in ("system_prompt", "prompt_template")]
        if not all(isinstance(part, str) for part in parts):
            raise UserError(f"{where}: {name} needs system_prompt and prompt_template, texts")
        prompts[key] = (str(parts[0]), str(parts[1]))
    return Wording("authors", prompts)


def needs_reference(category: str) -> bool:
    """Whether the authors' judge is shown a reference answer to questions of this category."""
    return category in NEED_REFERENCE


@dataclass
class Grades(Questions):
    """The questions about answers, one per turn. rows: `run, question_id`, turns, answers and references; tokens: the longest
    answer; tries: how often what cannot be read is asked for; more: settings of every request of the user's own."""

    wording: Wording
    rows: pd.DataFrame
    model: str
    tokens: int = 2048
    temperature: float = 0.0
    tries: int = 2
    more: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def questions(self) -> dict[str, Question]:
        """See `Questions`."""
        return {question.key: question for some in self._each for question in some}

    @property
    def name(self) -> str:
        """Whose wording it is."""
        return f"--judge {self.wording.name}"

    @cached_property
    def _each(self) -> list[list[Question]]:
        return [[self._question(row, turn) for turn in TURNS] for row in self.rows.to_dict("records")]

    def _question(self, row: Mapping[str, str], turn: int) -> Question:
        body = {"temperature": self.temperature, "max_tokens": self.tokens} | dict(self.more)
        return Question.of({"messages": self.wording.messages(row, turn)} | body, self.model, "mt-bench", self.tries)

    def read(self, key: str, choice: dict) -> float | None:
        """The grade."""
        return read_score(text_of(choice))

    def body(self, question: Question, number: int, unread: Answer | None) -> dict:
        """See `Questions`; a second time says what was wrong."""
        return once_more(question, number, unread, AGAIN)

    def judged(self, said: Mapping[str, Said]) -> pd.DataFrame:
        """A row per answer and turn: `run, question_id, turn, score` (NaN where there is none), `reason`."""
        import pandas as pd

        found = []
        for row, asked in zip(self.rows.to_dict("records"), self._each):
            for turn, question in zip(TURNS, asked):
                one = said[question.key]
                score = float("nan") if one.preference is None else one.preference
                found.append((row["run"], row["question_id"], turn, score, one.reason))
        return pd.DataFrame(found, columns=["run", "question_id", "turn", "score", "reason"])
