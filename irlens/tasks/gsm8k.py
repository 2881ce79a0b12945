"""`gsm8k`: grade-school math word problems; finding the answer in a response, and judging it exactly.

`extract` looks for answer markers (`#### 18`, `Final answer: 18`, `The answer is 18`, `\\boxed{18}`); the last one
decides, with a number or without. Only a text without any marker is judged by its last number. A number is read as a
person reads it (`20 000`, `1.5e3`, `3½`); what says no single number for sure (`18 or 20`, `6 * 3`,
`1.000`, `2 hours 30 minutes`) gives no answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.base.limits import linear

if TYPE_CHECKING:
    from irlens.tasks.contract import Task

REPO = "openai/gsm8k"
SPLITS = ("train", "test")
INSTRUCTION = "Solve the problem step by step. End with a line `#### N`, where N is the answer as a plain number."

# -- numbers -------------------------------------------------------------------------------------------------------

LONGEST = 300  # digits; longer than that is nobody's answer
WINDOW = 400  # characters after a marker that are looked at
SPACES = "\u00a0\u2007\u2008\u2009\u202f"  # as thousands separators
DECIMAL = rf"(?:[0-9][0-9,{SPACES}]*(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
POWER = r"(?:[eE]([-+]?[0-9]{1,2})(?![\w.]))?"
NUMBER = re.compile(
    rf"(?:([0-9]+)[ ](?=[1-9][0-9]* ?/ ?[0-9]))?({DECIMAL}){POWER}(?: ?/ ?({DECIMAL}))?"
)  # 18, 3/4, 1 3/4
GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}(?:\.[0-9]*)?")
MINUS = re.compile(r"(?<![\w)\]}])[-−–‐‑](?:[$€£¥₹] ?)?$")  # not the minus of 16-5 or 16 - 5
EITHER = re.compile(r"[1-9][0-9]{0,2}\.[0-9]{2}0")  # 1.000: one, or a thousand as half of Europe writes it
SCALED = re.compile(
    r"(?<![0-9,.])([0-9][0-9,]{0,30}(?:\.[0-9]{1,30})?)[ \u00a0]?"
    r"((?ai:hundred|thousand|million|billion|trillion))\b(?!-)"  # a: no mıllion, whose lower case is another word
)
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
UNIT = r"(?:hours?|hrs?|h|minutes?|mins?|feet|foot|ft|pounds?|lbs?|years?|months?|weeks?|days?|dollars?)"
UNFINISHED = re.compile(
    r"\s*(?:[-−–+*/×÷·^xX]\s*[$({]*[0-9]|:(?!00)[0-9])"  # a sum left to the reader, or 7:30
    r"|[ \t]+[0-9]+(?!-?[0-9]|-[A-Za-z])|,[ \t]+[0-9]|\.[0-9]|[eE][-+]?[0-9]|\([0-9]|[kKM](?![A-Za-z0-9])|[²³⁴-⁹]"  # 1 2, 18.5.2, 5(3), 5k, 5²
    r"|\s*(?:π|√|\\?(?:pi|sqrt)\b)"
    r"|\s+(?:or|to|and|&)\s+[$€£]?[0-9]|\s+[a-z]+\s+and\s+[$€£]?[0-9]"  # 18 or 20, 18 dollars and 50 cents
    r"|\s+([a-z]+)\s+(?:or|to)\s+[0-9.,]+\s+\1\b"  # 18 apples or 20 apples
    rf"|\s*{UNIT},?\s+[0-9]"  # 2 hours 30 minutes
    r"|\s*%?\s+(?:of|times|plus|minus|(?:divided|multiplied)\s+by|(?:more|less)\s+than)\s+[$€£]?[0-9]"
    r"|\s*(?:r|R|remainder)\s*[0-9]"
)
OPERAND = re.compile(r"(?:√|\\?sqrt\s*|\bbetween\s)[\s$({]*$")  # before a number: it is no result
ALONE = r"(?<![0-9A-Za-z.,])"
APART = re.compile(
    rf"{ALONE}[0-9]{{1,3}}([ '’_])[0-9]{{3}}(?:\1[0-9]{{3}})*(?![0-9]| ?/|-[A-Za-z]|\1[0-9])"
)  # 20 000, 20'000
DOTTED = re.compile(rf"{ALONE}[1-9][0-9]{{0,2}}(?:\.[0-9]{{3}}){{2,}}(?![0-9.])")  # 1.234.567
EUROPEAN = re.compile(rf"{ALONE}([1-9][0-9]{{0,2}}(?:\.[0-9]{{3}})+),([0-9]{{1,2}})(?![0-9]|[,.][0-9])")  # 1.234,50
GROUP = re.compile(r"[0-9][ '’_.][0-9]{3}")  # what each of the three above holds
TIMES_TEN = re.compile(r"(?<=[0-9]) ?[*×xX·] ?10 ?\^ ?\{?([-+]?[0-9]{1,2})(?![0-9])\}?")  # 1.5 × 10^3
LATEX = (
    (re.compile(r"\\(?:text[a-z]*|math[a-z]+|mbox|left|right|[,;!$%&])|\{(?=,\})|(?<=\{,)\}"), ""),
    (re.compile(r"\\(?:times|cdot|div)\b"), "*"),
    (re.compile(r"\\approx\b|≈"), "="),
    (re.compile(r"(?<=[0-9])\\[dt]?frac"), r" \\frac"),
    (re.compile(r"\\[dt]?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\[dt]?frac\s?([0-9])([0-9])"), r"\1/\2"),
)


PLAIN = str.maketrans("，．－＋／％＄：＝（）＃⁄", ",.-+/%$:=()#/")
PLAIN |= {ord(c): " " + unicodedata.normalize("NFKC", c).replace("⁄", "/") for c in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
DIGIT = re.compile(r"(?![0-9])\d")  # of another script, or full-width


def _ascii(text: str) -> str:
    """`text` with every digit, and the signs of full-width type, as ASCII has them; ½ becomes 1/2."""
    if text.isascii():
        return text
    return DIGIT.sub(lambda digit: str(unicodedata.digit(digit[0])), text.translate(PLAIN))


def _clean(text: str) -> str:
    """`text` without the LaTeX that can stand inside a number, thousands set apart by commas only."""
    if "\\" in text or "{" in text or "≈" in text:
        for pattern, plain in LATEX:
            text = pattern.sub(plain, text)
    if GROUP.search(text):
        text = APART.sub(lambda found: found[0].replace(found[1], ","), text)
        text = EUROPEAN.sub(lambda found: f"{found[1].replace('.', '')}.{found[2]}", text)
        text = DOTTED.sub(lambda found: found[0].replace(".", ""), text)
    return TIMES_TEN.sub(r"e\1", text) if "^" in text else text


def _decimal(digits: str) -> Fraction | None:
    if len(digits) > LONGEST:
        return None
    if digits.isdigit():
        return Fraction(int(digits))
    for space in SPACES:
        digits = digits.replace(space, ",")
    digits = digits.rstrip(",")
    if "," in digits and not GROUPED.fullmatch(digits):
        return None
    whole, _, rest = digits.replace(",", "").partition(".")
    return Fraction(int(whole + rest), 10 ** len(rest)) if rest else Fraction(int(whole))


def _value(match: re.Match) -> Fraction | None:
    """The number of a NUMBER match, with the minus before it; None of one that can be two."""
    mixed, digits, power, divisor = match.groups()
    value = None if EITHER.fullmatch(digits) and not power else _decimal(digits)
    if value is not None and power:
        value *= Fraction(10) ** int(power)
    if value is not None and divisor:
        below = _decimal(divisor)
        value = value / below if below else None
    if value is not None and mixed:
        whole = _decimal(mixed)
        value = None if whole is None else whole + value
    return -value if value and MINUS.search(match.string, max(match.start() - 3, 0), match.start()) else value


def _last_number(text: str) -> Fraction | None:
    last = max(map(text.rfind, "0123456789"))
    matches = []
    for width in (WINDOW // 8, WINDOW):  # the narrow look is enough unless it may have cut the number
        matches = list(NUMBER.finditer(_clean(text[max(last - width, 0) : last + 20])))
        if last < width or matches[-1].start() > width // 2:
            break
    return _value(matches[-1]) if matches else None


# -- answer markers ------------------------------------------------------------------------------------------------

MARKERS = ("####", "\\boxed", "nswer", "NSWER")  # found by str.rfind, ten times faster than a regular expression
DECORATION = r"[\s*_`$€£¥₹:=\\(\[{~>\"'-]"
BODY = re.compile(rf"{DECORATION}{{0,40}}[^\n]{{0,{WINDOW}}}[0-9.,]*")  # rest of the line, or the next if that is bare
SENTENCE = re.compile(r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<![.\s])[.!?;](?=\s|$)")
CLAUSE = re.compile(r",\s|(?<=[\w%}.])\s+\(|\b(?:because|since|as|so)\b")
IS = re.compile(
    r"nswer(?:\s+(?:to|for)\s[^.:=\n]{1,60}?)?[\s*_]{1,9}(?:is|was|are|would be|will be|equals)\b"
    r"(?![\s*_]{0,9}(?:,|not\b|correct\b|right\b|wrong\b|reasonable\b))",
    re.IGNORECASE,
)
COLON = re.compile(r"nswer[\s*_]{0,9}(?:[:=]|(?<=\n))", re.IGNORECASE)
FINAL = re.compile(r"final[\s*_]{1,5}\w$", re.IGNORECASE)
STEP = re.compile(r"\W{0,9}step\b", re.IGNORECASE)
LEFT_SIDE = re.compile(r"\W*\w{0,10}\s*|[^A-WYZa-wyz]*")  # x =, 3 x 6 =
BARE = re.compile(rf"(?:{DECORATION}|[−–+])*{NUMBER.pattern}(?![.):]\s+\w)[^0-9\n(]{{0,80}}(?:\([^\n]*)?")
APART_MINUS = re.compile(r"^[ \t]*[-−–] (?=[$€£]?[0-9.])")
BRACE = re.compile(r"[{}]")
NONBLANK = re.compile(r"\s*\S")


def _stated(text: str) -> Fraction | None:
    """The number that the words after a marker state: in their first sentence, after the last `=`, else the first."""
    text = _clean(text)
    if end := SENTENCE.search(text):
        text = text[: end.start()]
    if "=" in text:
        text = next((clause for clause in CLAUSE.split(text) if NUMBER.search(clause)), "")
    for side in reversed(text.split("=")):
        if match := NUMBER.search(side):
            part = UNFINISHED.match(side, match.end()) or OPERAND.search(
                side, max(match.start() - 20, 0), match.start()
            )
            return None if part else _value(match)
    return None


def _bare(line: str) -> Fraction | None:
    """The number of a line that holds nothing else but its unit, an `x =` or the sum that it results from."""
    left, equals, right = _clean(line).rpartition("=")
    if equals and not LEFT_SIDE.fullmatch(left):
        return None
    return _stated(right) if BARE.fullmatch(right.rstrip()) else None


def _after_hashes(text: str, start: int) -> tuple[bool, Fraction | None]:
    """`####` marks an answer, or a markdown heading if more lines follow and this one is no bare number."""
    body = BODY.match(text, start + len("####"))
    line = APART_MINUS.sub("-", body[0])
    if STEP.match(line):
        return False, None
    if not NONBLANK.match(text, body.end()):
        return True, _stated(line)
    value = _bare(line)
    return value is not None, value


def _after_boxed(text: str, start: int) -> tuple[bool, Fraction | None]:
    """`\\boxed{…}`, braces balanced; an unclosed one ends with its line."""
    begin = start + len("\\boxed")
    depth = 0
    for brace in BRACE.finditer(text, begin, begin + 2 * WINDOW) if text.startswith("{", begin) else ():
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return True, _stated(text[begin + 1 : brace.start()])
    return text.startswith("{", begin), _stated(BODY.match(text, begin)[0])


def _after_answer(text: str, start: int) -> tuple[bool, Fraction | None]:
    """`answer is …` and `final answer: …` always mark an answer; a mere `answer:` only a bare number, or a last line
    without any (a solution may begin with that word)."""
    if match := IS.match(text, start):
        return True, _stated(BODY.match(text, match.end())[0])
    if not (match := COLON.match(text, start)):
        return False, None
    body = BODY.match(text, match.end())
    value, inline = _bare(body[0]), match[0][-1] in ":="
    if inline and FINAL.search(text, max(start - 16, 0), start):
        return True, _stated(body[0])
    empty = inline and body[0].strip() and not NUMBER.search(body[0]) and not NONBLANK.match(text, body.end())
    return value is not None or bool(empty), value


AFTER = dict(zip(MARKERS, (_after_hashes, _after_boxed, _after_answer, _after_answer)))


@linear
def extract(text: str) -> Fraction | None:
    """The answer that a response gives: what its last marker says, or without a marker its last number."""
    text = _ascii(text)
    at = {marker: text.rfind(marker) for marker in MARKERS}
    while (start := max(at.values())) >= 0:
        marker = max(at, key=at.get)
        found, value = AFTER[marker](text, start)
        if found:
            return value
        while start and text[start - 1] == "#":  # past all of a longer run
            start -= 1
        at[marker] = text.rfind(marker, 0, start)
    return _last_number(text)


@lru_cache(maxsize=100_000)
def _gold(gold: str) -> Fraction:
    value = extract(gold)
    if value is None:
        raise UserError(f"gold answer {gold[:80]!r} has no number")
    return value


@linear
def is_correct(text: str, gold: str) -> bool:
    """Whether the answer of a response equals `gold` ("18", or a solution that ends with it) as a number.

    "4 million" is 4 where the problem asks for millions, as GSM8K's gold answers have it, and 4,000,000 where it does not.
    """
    wanted = _gold(gold)
    return extract(text) == wanted or (_scaled(text) and extract(SCALED.sub(_in_full, text)) == wanted)


def _scaled(text: str) -> bool:
    """Whether there is a SCALED number; most texts have none of its words, which is seen ten times faster."""
    lower = text.lower()
    held = "illion" in lower or "hundred" in lower or "thousand" in lower
    return held and SCALED.search(text) is not None


def _in_full(scaled: re.Match) -> str:
    """A SCALED match as one number: 4,000,000."""
    value = _decimal(scaled[1])
    if value is None:
        return scaled[0]
    value *= SCALES[scaled[2].lower()]
    return str(value) if value.denominator == 1 else f"{float(value)!r}"


# -- loading -------------------------------------------------------------------------------------------------------


def load(split: str | None = None, limit: int | None = None) -> Task:
    """The hub's copy. Raises UserError where it is neither cached nor to be had."""
    from irlens.tasks.contract import hub_rows, pick_split

    split = pick_split(split, SPLITS, "gsm8k")
    instead = "instead: --dataset FOLDER with test.jsonl of question and answer, or --dataset sums"
    rows, revision = hub_rows(REPO, f"main/{split}-*.parquet", instead)
    return from_rows(rows, "gsm8k", split, limit, revision, REPO)


def from_rows(
    rows: Iterable[tuple[str, dict]], name: str, split: str, limit: int | None, revision: str, source: str
) -> Task:
    """The task of rows of `question` and `answer`, the latter ending with `#### number`. Raises UserError for another."""
    import pandas as pd

    from irlens.tables import check
    from irlens.tasks.contract import Task, query_id

    topics = []
    for i, (where, row) in enumerate(islice(rows, limit)):
        for field in ("question", "answer"):
            if not isinstance(row.get(field), str) or not row[field].strip():
                raise UserError(f"{where}: {field} must be a non-empty string, got {row.get(field)!r}")
        _, marker, number = row["answer"].rpartition("####")
        gold = _bare(number.strip()) if marker else None
        if gold is None:
            raise UserError(f"{where}: answer must end with `#### number`, ends with {row['answer'][-40:]!r}")
        topics.append((query_id(name, split, i), row["question"], [str(gold)], row["answer"]))
    if not topics:
        raise UserError(f"{source}: no rows")
    frame = check(pd.DataFrame(topics, columns=["query_id", "query", "answers", "solution"]), "topics", source)
    unrelated = "ultrafeedback" if source == REPO else "facts"  # whoever has the problems in a file may have no network
    return Task(name, split, frame, INSTRUCTION, is_correct, extract, unrelated=unrelated, revision=revision)
