"""A language model as MixEval's judge: it grades a free-form response against the gold answers, or reads off the letter
that a response to a multiple-choice question chooses.

What cannot be read is asked again; what stays unreadable is counted as unjudged, never drawn at random. The messages are
the authors', from their file, or the project's own (`OWN`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from irlens.base.errors import UserError
from irlens.rerank.judge_server import Answer
from irlens.rerank.llm_judge import THINKING
from irlens.rerank.pair_protocols import text_of
from irlens.rerank.questions import Question, Questions, Said
from irlens.tasks.mixeval import CHOICE, FREE, Item, lettered, read_templates

Messages = list[dict[str, str]]

OWN_FREE = """A question was answered without its context being shown to you. Grade the answer against the accepted \
answers: each of them is right by itself, in any wording, and more than is asked for does no harm as long as it does not \
contradict them.

[Question]
{prompt}

[Accepted answers]
{gold_ans}

[Answer to be graded]
{response}

Say in a sentence what agrees or differs. Then end with a grade in double brackets: a number from 0 (wrong) over steps of \
0.1 to 1 (right), such as [[0.4]]."""
OWN_CHOICE = """Somebody answered a multiple-choice question. Which option does the answer choose? Do not solve the question: \
whether the choice is right is of no concern.

[Question]
{prompt}

[Options]
{options}

[Answer]
{response}

Say in a sentence where it chooses. Then end with the letter of the option in double brackets, such as [[A]]."""
PLACES = re.compile(r"\{(prompt|gold_ans|options|response)\}")
SCORE = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))
LETTER = (re.compile(r"\[\[([A-Z])\]\]"), re.compile(r"\[([A-Z])\]"))


@dataclass(frozen=True)
class Wording:
    """What a judge is told, by kind of question: messages with {prompt}, {gold_ans}, {options} and {response} in them."""

    name: str
    free: Messages
    choice: Messages

    def __post_init__(self):
        for messages, wanted in ((self.free, {"gold_ans", "response"}), (self.choice, {"options", "response"})):
            good = isinstance(messages, list) and all(
                isinstance(one, dict) and all(isinstance(one.get(key), str) for key in ("role", "content"))
                for one in messages
            )
            if not good:
                raise UserError(f"{self.name}: messages must be a list of objects with role and content, both texts")
            if lacking := wanted - set(PLACES.findall(" ".join(one["content"] for one in messages))):
                raise UserError(f"{self.name}: the messages to a judge have no place {{{min(lacking)}}}")

    def asked(self, item: Item, response: str) -> Messages:
        """The messages about a response. What is put in is put in once, braces of its own and all."""
        golds = "; ".join(f"<answer {i}> {gold}" for i, gold in enumerate(item.answers, 1))
        values = {"prompt": item.record["prompt"], "response": response, "gold_ans": golds}
        values["options"] = lettered(item.options)
        messages = self.choice if item.kind == CHOICE else self.free
        return [one | {"content": PLACES.sub(lambda found: values[found[1]], one["content"])} for one in messages]


OWN = Wording("own", [{"role": "user", "content": OWN_FREE}], [{"role": "user", "content": OWN_CHOICE}])


def of_file(path: Path | None) -> Wording:
    """The authors' messages: `judge_freeform` and `judge_multichoice` of a file. Raises UserError for another file."""
    names = ("judge_freeform", "judge_multichoice")
    found = read_templates(path, names)
    return Wording("authors", found[names[0]], found[names[1]])


def read_score(answer: str) -> float | None:
    """The grade, 0 to 1, in the first double brackets, else in the first single ones; None of another answer."""
    found = _first(SCORE, answer)
    return float(found) if found is not None and 0 <= float(found) <= 1 else None


def read_letter(answer: str) -> str | None:
    """The capital letter in the first double brackets, else in the first single ones; None without one."""
    return _first(LETTER, answer)


def _first(forms: Sequence[re.Pattern], answer: str) -> str | None:
    answer = THINKING.sub("", answer)
    return next((found[1] for form in forms if (found := form.search(answer))), None)


def worth(item: Item, answer: str) -> float | None:
    """What a judge's answer says that a response is worth, 0 to 1; None where it says nothing."""
    if item.kind == FREE:
        return read_score(answer)
    letter = read_letter(answer)
    return None if letter is None else float(letter in item.answers)


@dataclass
class Verdicts(Questions):
    """The questions about responses. texts: `query_id, text`, whatever else; tokens: the longest answer; tries: how often
    what cannot be read is asked for; more: settings of every request of the user's own.

    The first answer is at `temperature`; a second one at 0 would be the same again, so that from then on it is 1 there.
    """

    wording: Wording
    items: Mapping[str, Item]
    texts: pd.DataFrame
    model: str
    tokens: int = 512
    tries: int = 3
    temperature: float = 0.0
    seed: int = 0
    more: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Whose wording it is."""
        return f"--judge {self.wording.name}"

    @cached_property
    def questions(self) -> dict[str, Question]:
        """See `Questions`."""
        return {question.key: question for question, _ in self._each.values()}

    @cached_property
    def _each(self) -> dict[tuple[str, str], tuple[Question, Item]]:
        return {pair: self._question(*pair) for pair in zip(self.texts["query_id"], self.texts["text"])}

    @cached_property
    def _about(self) -> dict[str, Item]:
        return {question.key: item for question, item in self._each.values()}

    def _question(self, query_id: str, text: str) -> tuple[Question, Item]:
        item = self.items[query_id]
        body = {"temperature": self.temperature, "top_p": 1.0, "max_tokens": self.tokens, "seed": self.seed}
        body = {"messages": self.wording.asked(item, text)} | body | dict(self.more)
        return Question.of(body, self.model, "mixeval", item.kind, list(item.answers), self.tries), item

    def read(self, key: str, choice: dict) -> float | None:
        """What the response is worth, 0 to 1."""
        return worth(self._about[key], text_of(choice))

    def body(self, question: Question, number: int, unread: Answer | None) -> dict:
        """See `Questions`."""
        body = dict(question.body)
        if number and "seed" in body:
            body["seed"] = (self.seed + number) % 2**31
        if number and "temperature" in body:
            body["temperature"] = self.temperature or 1.0
        return body

    def judged(self, rows: pd.DataFrame, said: Mapping[str, Said]) -> pd.DataFrame:
        """rows → `score` (0 where there is none), `read`, and `reason` (why there is none)."""
        found = [said[self._each[pair][0].key] for pair in zip(rows["query_id"], rows["text"])]
        score = [one.preference or 0.0 for one in found]
        read = [one.preference is not None for one in found]
        return pd.DataFrame({"score": score, "read": read, "reason": [one.reason for one in found]})
