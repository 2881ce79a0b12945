"""MixEval's parsers by rule: the letter that a response chooses, and whether it says a gold text.

They decide as the authors' do, but for two things. Of a response in which no choice is found theirs draws a letter at
random, and `chosen` says None. And of a response that is a gold text, such as `U.S.` or `It is the mark of`, theirs may
see a part only; for `says` it is right, unless `parity` is asked for. Every step takes time in proportion to the length
of the response.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from irlens.tasks.mixeval import LETTERS

# -- multiple choice -----------------------------------------------------------------------------------------------

ENDS = ",.!?;:'"  # stripped off both ends, one after the other in this order
STANDS = re.compile(r"(?=[ \n]([A-Z])\.?[ \n]|\(([A-Z])\)|\*\*([A-Z])\.? | ([A-Z])\.?\*\*)")  # where a letter counts
WORDS = 5  # a response of more may choose by an option's text


def chosen(response: str, options: Sequence[str]) -> str | None:
    """The letter of the option that a response chooses; None where none is found.

    The first letter that stands alone: between spaces or line breaks (`A`, `A.`), in brackets (`(A)`), or at one edge of
    bold type (`**A `, `**A. `, ` A**`, ` A.**`). Without one, in a response of more than five words, the option whose
    text comes first, whatever its case.
    """
    for mark in ENDS:
        response = response.strip(mark)
    response = f" {response} "
    known = LETTERS[: len(options)]
    for found in STANDS.finditer(response):
        if (letter := next(filter(None, found.groups()))) in known:
            return letter
    if len(response.split()) <= WORDS:
        return None
    lower = response.lower()
    places = [(lower.find(option.lower()), letter) for letter, option in zip(known, options)]
    return min((place for place in places if place[0] >= 0), default=(0, None))[1]


# -- free form -----------------------------------------------------------------------------------------------------

TELLING = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
TRIVIAL = set(":,.!?;'")
NUMBERS = (  # a run of digits is tried from its first digit only, and never given back
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # grouped thousands
    re.compile(r"-?(?<!\d)\d++(?:\.\d++)?[eE][+-]?\d++"),  # scientific
    re.compile(r"-?(?:(?<!\d)\d++\.\d++|\.\d++|(?<!\d)\d++\b)(?![eE][+-]?\d)(?![,\d])"),  # plain
)


def says(response: str, golds: Sequence[str], parity: bool = False) -> bool:
    """Whether a free-form response says one of the gold texts: it lies in one of its telling parts, or a number of theirs
    equals it to two decimals; or it is the response, but for case and full stops at its ends (not with `parity`)."""
    if not parity and (bare := _bare(response)) and bare in map(_bare, golds):
        return True
    found = [value for part in parts(response) for value in (part, *numbers_in(part))]
    said = {value for one in found for value in _normal(one)}
    texts = [value for value in said if isinstance(value, str)]
    for gold in (value for one in golds for value in _normal(one)):
        if gold in said if isinstance(gold, float) else any(gold in text for text in texts):
            return True
    return False


def _bare(text: str) -> str:
    return text.strip().strip(".").strip().lower()


def parts(response: str) -> list[str]:
    """Of each line the shortest tail after a telling word (in the last line also after `=`), in lower case; the whole
    response where no line has one."""
    whole = response.strip().strip(".").lower()
    lines, found = whole.split("\n"), []
    for i, line in enumerate(lines):
        words = (*TELLING, "=") if i == len(lines) - 1 else TELLING
        tail = ""
        for new in (line.rpartition(word)[2].strip() for word in words if word in line):
            tail = new if not tail or len(new) < len(tail) else tail
        if tail and tail not in TRIVIAL:
            found.append(tail)
    return found or [whole]


def numbers_in(text: str) -> list[str]:
    """The numbers in a text as they stand there: with grouped thousands, scientific, plain."""
    return [number for form in NUMBERS for number in form.findall(text)]


def _normal(text: str) -> list[str | float]:
    """A number as a float of two decimals; a text in lower case, and of a single letter what it must stand beside."""
    text = text.strip()
    try:
        value = round(float(text.replace(",", "")), 2)
    except ValueError:
        value = math.nan
    if not math.isnan(value):
        return [value]
    text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]
