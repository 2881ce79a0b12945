"""Verifiers by name: is a response right, given the topic's answer? And, where it can be told, which answer it gives.

| name             | right when                                                                                         |
|------------------|----------------------------------------------------------------------------------------------------|
| gsm8k            | its last answer marker gives the gold number exactly                                               |
| math             | math-verify finds its answer equivalent to the gold one (extra `math`)                             |
| nq-exact         | it is a gold answer, both normalised as SQuAD does                                                 |
| nq-has-answer    | it contains a gold answer, token for token (DPR's rule)                                            |
| choice           | it chooses the gold letter                                                                         |
| regex:PATTERN    | the pattern is found; with a group, if the group of its last occurrence is a gold answer           |
| module:function  | function(response, gold answer) says so: True, False or a number. THIS RUNS THE CODE OF THE MODULE |
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from irlens.base import plugins
from irlens.base.errors import UserError, did_you_mean
from irlens.base.limits import linear

NAMES = ("gsm8k", "math", "nq-exact", "nq-has-answer", "choice", "regex:PATTERN", "module:function")


@dataclass(frozen=True)
class Verifier:
    """`judge(response, gold answer)` → right?; `extract(response)` → a hashable answer to vote on, where there is one."""

    name: str
    judge: Callable[[str, str | None], bool | float]
    extract: Callable[[str], Hashable | None] | None = None
    needs_answers: bool = True


def get(name: str) -> Verifier:
    """The verifier of this name. Raises UserError: an unknown name, a bad pattern, no such module or function, no extra."""
    if name.startswith("regex:"):
        return _regex(name, name.removeprefix("regex:"))
    if name in MAKERS:
        return MAKERS[name]()
    if plugins.named(name):
        function = plugins.function(name, "--verifier")
        return Verifier(name, Guarded(function, f"--verifier {name}"), needs_answers=False)
    raise UserError(f"unknown verifier {name!r}; {did_you_mean(name, NAMES)}")


@linear
def gives_answer(extract: Callable[[str], Hashable | None], text: str) -> bool:
    """Whether `extract` finds an answer in a response: a worker has less to send than with the answer."""
    return extract(text) is not None


# -- numbers and formulas ------------------------------------------------------------------------------------------


def _gsm8k() -> Verifier:
    from irlens.tasks import gsm8k

    return Verifier("gsm8k", gsm8k.is_correct, gsm8k.extract)


def _math() -> Verifier:
    from irlens.tasks import math

    math.need_math_verify()
    return Verifier("math", math.is_correct, math.boxed)


def ready(judge: Callable[[str, str], bool]) -> None:
    """Raises UserError, naming the extra, where what a task's verifier needs is absent: before anything is drawn for it."""
    from irlens.tasks import math

    if judge is math.is_correct:
        math.need_math_verify()


# -- answers in words ----------------------------------------------------------------------------------------------

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_normal(text: str) -> str:
    """SQuAD's form of an answer: lower case, no ASCII punctuation, no articles, single spaces (Rajpurkar et al. 2016)."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


@linear
def nq_exact(text: str, gold: str) -> bool:
    """Whether a response is a gold answer, both in SQuAD's form; a gold answer without any letter is none."""
    return bool(wanted := squad_normal(gold)) and squad_normal(text) == wanted


@linear
def nq_answer(text: str) -> str | None:
    """A response in SQuAD's form, to vote on; None if nothing is left."""
    return squad_normal(text) or None


@linear
def nq_has_answer(text: str, gold: str) -> bool:
    """Whether a response contains the gold answer, by DPR's rule."""
    from irlens.tasks.beir import has_answer

    return has_answer([gold], text)


def _nq_exact() -> Verifier:
    return Verifier("nq-exact", nq_exact, nq_answer)


def _nq_has_answer() -> Verifier:
    return Verifier("nq-has-answer", nq_has_answer)


# -- multiple choice -----------------------------------------------------------------------------------------------

LETTER = r"[\s*_`$({\[\"']{0,8}([A-J])(?![A-Za-z0-9'’])"
MARKED = re.compile(
    r"(?:(?i:\banswer)(?i:\s+(?:is|would\s+be|must\s+be))?[\s*_]{0,4}[:=]?"
    r"|(?i:\b(?:choice|option))(?:(?i:\s+(?:is|would\s+be|must\s+be))[\s*_]{0,4}:?|[\s*_]{0,4}[:=])"
    r"|####|\\boxed\{(?:\\text\{)?)" + LETTER
)
ALONE = re.compile(r"[\s*_`$({\[\"']{0,8}([A-J])[\s*_`$)}\]\"']{0,8}(?:[.):]|$)")


@linear
def choice(text: str) -> str | None:
    """The letter, A to J, that a response chooses: after its last answer marker, else of a line that is a choice.

    Markers are "answer", "choice is", "option:" and the like, `####` and `\\boxed{}`. Without one,
    the first and the last line are read if they begin with a letter of their own, such as `B`, `(B)` or `B. Paris`.
    """
    if marked := list(MARKED.finditer(text)):
        return marked[-1][1]
    lines = [line for line in text.strip().splitlines() if line.strip()]
    for line in dict.fromkeys(lines[-1:] + lines[:1]):
        if found := ALONE.match(line):
            return found[1]
    return None


@linear
def chooses(text: str, gold: str) -> bool:
    """Whether a response chooses the gold letter. Raises UserError for a gold answer that is none."""
    wanted = choice(gold)
    if wanted is None:
        raise UserError(f"gold answer {gold[:80]!r} is no letter from A to J, as the verifier choice wants it")
    return choice(text) == wanted


def _choice() -> Verifier:
    return Verifier("choice", chooses, choice)


# -- one's own -----------------------------------------------------------------------------------------------------


def _regex(name: str, pattern: str) -> Verifier:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--verifier {name}: not a regular expression ({error})") from error
    if not pattern:
        raise UserError("--verifier regex: give a pattern, such as 'regex:Answer: (\\w+)'")

    pattern = Pattern(compiled)
    return Verifier(name, pattern.judge, pattern.extract, needs_answers=bool(compiled.groups))


@dataclass(frozen=True)
class Pattern:
    """A regular expression as a verifier; it may be catastrophic, so it is called within limits (`irlens.base.limits`)."""

    compiled: re.Pattern

    def extract(self, text: str) -> str | None:
        """The group of its last occurrence, or that whole where it has no group; None where it is not found."""
        if not (found := list(self.compiled.finditer(text))):
            return None
        return (found[-1][1] or "").strip() if self.compiled.groups else found[-1][0]

    def judge(self, text: str, gold: str | None) -> bool:
        """Whether it is found; with a group, whether that is the gold answer."""
        if not self.compiled.groups:
            return self.compiled.search(text) is not None
        found = self.extract(text)
        return found is not None and found == gold.strip()


@dataclass(frozen=True)
class Guarded:
    """One's own function, its mistakes turned into one line that begins with `what`."""

    function: Callable
    what: str
    foreign = True  # see `irlens.base.limits`

    def __call__(self, text: str, gold: str | None):
        try:
            return self.function(text, gold)
        except Exception as error:
            said = f"{type(error).__name__}: {error} (gold answer {gold!r:.60}, response {text!r:.60})"
            raise UserError(f"{self.what}: it failed: {said}") from error


MAKERS = {
    "gsm8k": _gsm8k,
    "math": _math,
    "nq-exact": _nq_exact,
    "nq-has-answer": _nq_has_answer,
    "choice": _choice,
}
