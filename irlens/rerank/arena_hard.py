"""Arena-Hard's judge: two games a question, the order swapped, each ended by one of five labels.

What the judge is told is the authors', read from a checkout of their repository, or the project's own (`OWN`).
Source: lmarena/arena-hard-auto, gen_judgment.py and utils/judge_utils.py, which is read as text and never run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.rerank.judgements import SAME, Plan
from irlens.rerank.llm_judge import THINKING
from irlens.rerank.pair_protocols import Protocol, text_of
from irlens.rerank.questions import Question, Said
from irlens.tables.formats.arena_hard import BASELINES, LABELS

if TYPE_CHECKING:
    import pandas as pd

OWN_SYSTEM = """You compare two assistants' answers to one request. First work out what a good answer must hold, and solve \
the request yourself where it has a solution. Then say what in each answer is wrong, missing or beside the point. What \
counts is whether the answer is right, helps with what was asked and says no more than that takes; the order in which the \
answers stand, and how they are laid out, do not count.

End with one of these labels:
[[A>>B]] answer A is much better
[[A>B]] answer A is a little better
[[A=B]] they are about equally good
[[B>A]] answer B is a little better
[[B>>A]] answer B is much better"""
OWN_TEMPLATE = """[Request]
{QUESTION}

[Answer A]
{ANSWER_A}

[Answer B]
{ANSWER_B}"""
AGAIN = "No label can be read. End with one of [[A>>B]], [[A>B]], [[A=B]], [[B>A]], [[B>>A]]."
PLACES = re.compile(r"\{(QUESTION|ANSWER_A|ANSWER_B)\}")
FORMS = (re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]"))
JUDGE_FILES = ("utils/judge_utils.py", "src/arenahard/utils/judge_utils.py")
CONFIG_FILES = ("config/arena-hard-v2.0.yaml", "src/arenahard/config/arena-hard-v2.0.yaml")
TOKENS = 4096  # longest answer of a judge whose settings say nothing


def read_label(answer: str) -> float | None:
    """The last label in double brackets, else in single ones, from 1 (A is much better) to 2; None without one.

    Of a judge that thinks aloud what follows its thought counts.
    """
    told = THINKING.sub("", answer).upper()
    found = next((labels for form in FORMS if (labels := form.findall(told))), [])
    return LABELS.get(found[-1]) if found else None


@dataclass(frozen=True)
class Wording:
    """What a judge is told, by category (`default` for one that is not named), and the settings of its requests."""

    name: str
    system: Mapping[str, str]
    template: str
    baselines: Mapping[str, str]
    default: str | None = None
    temperature: float = 0.0
    tokens: int = TOKENS

    def messages(self, category: str, prompt: str, first: str, second: str) -> list[dict]:
        """The conversation about two answers. What is put in is put in once, braces of its own and all.

        Raises UserError for a category that has no instruction.
        """
        system = self.system.get(category, self.default)
        if system is None:
            raise UserError(
                f"--judge {self.name}: says nothing of category {category!r}; it has {', '.join(self.system)}"
            )
        told = {"QUESTION": prompt, "ANSWER_A": first, "ANSWER_B": second}
        text = PLACES.sub(lambda found: told[found[1]], self.template)
        return [{"role": "system", "content": system}, {"role": "user", "content": text}]


OWN = Wording("own", {}, OWN_TEMPLATE, BASELINES, OWN_SYSTEM)


@dataclass
class Games(Plan):
    """The questions about pairs with a `category`: two games each, none where the answers are the same."""

    wording: Wording = OWN

    @classmethod
    def of(cls, pairs: pd.DataFrame, wording: Wording, model: str, more: Mapping[str, object]) -> Games:
        """The games of some pairs. model: who is asked; more: settings of every request of the user's own."""
        return cls(pairs, Protocol("arena-hard", "", {}, "letter", again=AGAIN), model, True, more, wording=wording)

    @property
    def name(self) -> str:
        """Whose wording it is."""
        return f"--judge {self.wording.name}"

    @cached_property
    def _each(self) -> list[list[tuple[Question, bool]]]:
        rows = zip(*(self.pairs[name] for name in ("category", "instruction", "output_1", "output_2")))
        return [[] if a == b else [self._game(c, text, a, b, t) for t in (False, True)] for c, text, a, b in rows]

    def _game(self, category: str, text: str, first: str, second: str, switched: bool) -> tuple[Question, bool]:
        shown = (second, first) if switched else (first, second)
        body = {"temperature": self.wording.temperature, "max_tokens": self.wording.tokens}
        body = {"messages": self.wording.messages(category, text, *shown)} | body | dict(self.more)
        return Question.of(body, self.model, "arena-hard"), switched

    def read(self, key: str, choice: dict) -> float | None:
        """The label as a preference, in the order shown."""
        return read_label(text_of(choice))

    def judged(self, said: Mapping[str, Said], price: tuple[float, float] | None = None) -> pd.DataFrame:
        """See `Plan.judged`; both games of answers that are the same are ties."""
        found = super().judged(said, price)
        same = found["reason"] == SAME
        return found.assign(**{name: found[name].mask(same, 1.5) for name in ("as_it_is", "switched")})


# -- the authors' --------------------------------------------------------------------------------------------------


def of_checkout(folder: Path) -> Wording:
    """The authors' instructions, template and settings out of a checkout of their repository.

    Raises UserError: a file that is missing or is not theirs, a template that lacks a place.
    """
    import yaml

    where = _inside(folder, CONFIG_FILES)
    try:
        config = yaml.safe_load(where.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{where}: not a readable YAML file ({str(error).splitlines()[0]})") from error
    template = config.get("prompt_template") if isinstance(config, dict) else None
    if not isinstance(template, str) or {*PLACES.findall(template)} != {"QUESTION", "ANSWER_A", "ANSWER_B"}:
        raise UserError(f"{where}: prompt_template must be a text with {{QUESTION}}, {{ANSWER_A}} and {{ANSWER_B}}")
    judge = _inside(folder, JUDGE_FILES)
    told = _settings(judge)
    wording = Wording(
        "authors", {name: one["system_prompt"] for name, one in told.items()}, template,
        {name: one["baseline"] for name, one in told.items()},
    )  # fmt: skip
    heat, tokens = config.get("temperature", 0.0), config.get("max_tokens", TOKENS)
    if type(heat) not in (int, float) or not 0 <= heat <= 2 or type(tokens) is not int or tokens < 1:
        raise UserError(f"{where}: temperature and max_tokens must be numbers, got {heat!r:.40} and {tokens!r:.40}")
    return replace(wording, temperature=float(heat), tokens=tokens)


def _inside(folder: Path, names: tuple[str, ...]) -> Path:
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise UserError(f"{folder}: no checkout of lmarena/arena-hard-auto: it has no {names[0]}")
    return found


def _settings(path: Path) -> dict[str, dict[str, str]]:
    """JUDGE_SETTINGS of a file of Python that assigns texts and dictionaries of texts: read, never run."""
    try:
        lines = ast.parse(path.read_text(encoding="utf-8")).body
        given = {
            line.targets[0].id: line.value
            for line in lines
            if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
        }
        found = _value(given["JUDGE_SETTINGS"], given) if "JUDGE_SETTINGS" in given else None
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(f"{path}: cannot be read as assignments of texts ({str(error).splitlines()[:1]})") from error
    good = isinstance(found, dict) and all(
        isinstance(one, dict) and all(isinstance(one.get(key), str) for key in ("baseline", "system_prompt"))
        for one in found.values()
    )
    if not good or not found:
        raise UserError(f"{path}: no JUDGE_SETTINGS of category to baseline and system_prompt, texts")
    return found  # type: ignore[return-value]


def _value(node: ast.expr, given: Mapping[str, ast.expr]) -> object:
    """A text, a name that is given one, a dictionary of these. Raises ValueError for anything else."""
    if isinstance(node, ast.Name) and node.id in given:
        return _value(given[node.id], given)
    if isinstance(node, ast.Dict):
        return {str(ast.literal_eval(key)): _value(value, given) for key, value in zip(node.keys, node.values) if key}
    return ast.literal_eval(node)
