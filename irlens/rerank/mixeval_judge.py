"""A language model as MixEval's judge: it grades a free-form response against the gold answers, or reads off the letter
that a response to a multiple-choice question chooses.

What cannot be read is asked again; what stays unreadable is counted as unjudged, never drawn at random. The messages are
the authors', from their file, or the project's own (`OWN`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd

from irlens.base.errors import UserError
from irlens.rerank.llm_judge import THINKING, Ask
from irlens.retrieve.engines import Engine, Prompt, Sampling
from irlens.retrieve.options import EngineOptions
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


class Judge:
    """A scorer (see `scoring.Scorer`): rows → `score` (0 where `read` is false), `read`, `asked`, and `answers` (JSON: what
    could not be read, as it came)."""

    def __init__(
        self,
        ask: Ask,
        wording: Wording,
        items: Mapping[str, Item],
        rounds: int,
        close: Callable[[], None] = lambda: None,
    ):
        self.ask, self.wording, self.items, self.rounds, self.close = ask, wording, items, rounds, close

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        """See the class."""
        items = [self.items[query_id] for query_id in rows["query_id"]]
        talks = [self.wording.asked(item, text) for item, text in zip(items, rows["text"])]
        found: list[float | None] = [None] * len(rows)
        unread: list[list[str]] = [[] for _ in found]
        for number in range(self.rounds):
            left = [i for i, value in enumerate(found) if value is None]
            if not left:
                break
            for i, answer in zip(left, self.ask([talks[i] for i in left], number)):
                found[i] = worth(items[i], answer)
                unread[i] += [answer] if found[i] is None else []
        return pd.DataFrame(
            {
                "score": [value or 0.0 for value in found],
                "read": [value is not None for value in found],
                "asked": [len(some) + (value is not None) for some, value in zip(unread, found)],
                "answers": [json.dumps(some, ensure_ascii=False) for some in unread],
            }
        )


# -- a server ------------------------------------------------------------------------------------------------------


class Served(Protocol):
    """Settings that say where a judge is."""

    base_url: str | None
    served_model: str | None
    api_key_env: str
    concurrency: int
    timeout: float
    engine_args: str | None


def server(settings: Served) -> EngineOptions:
    """The judge's server, reached. Raises UserError: no --base-url, no answer there, a model that it does not serve."""
    from irlens.models import catalog
    from irlens.retrieve.engines import openai

    if not settings.base_url:
        raise UserError("--judge needs --base-url, such as http://localhost:8000/v1, or is rules")
    given = {name: getattr(settings, name) for name in Served.__annotations__}
    return openai.prepare(
        EngineOptions(engine="openai", chat=True, **given), catalog.served(settings.served_model or "judge")
    )


def asker(engine: Engine, seed: int, tokens: int, temperature: float) -> Ask:
    """Conversations and the number of the try → answers; every try of a question has a seed of its own. An answer at
    temperature 0 would be the same again, so that from the second try on it is 1."""

    def ask(talks: Sequence[list[dict]], number: int) -> list[str]:
        asked = [Prompt(f"question {i}", "", tuple(talk)) for i, talk in enumerate(talks)]
        sampling = Sampling(temperature or float(number > 0), seed, tokens)
        return [draw.text for draw in engine.sample(asked, range(number, number + 1), sampling)]

    return ask
