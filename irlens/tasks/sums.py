"""`sums`, the embedded default: generated two- to four-step word problems with solutions in GSM8K's own format.

A problem is a family (a story and its steps) and the numbers in it. A hash of both alone decides its split, so
no two splits share a problem whatever names dress it up. `pretrain` is the split that the model `tiny` was trained on;
`train`, `validation` and `test` hold problems that it has never seen.
"""

import operator
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from irlens.tasks import generated

SPLITS = generated.SPLITS
SIZES = {"pretrain": 8000, "train": 4000, "validation": 500, "test": 1000}
LARGEST = 100  # no number in a solution is larger

NAMES = ("Mia", "Tom", "Ana", "Ben", "Eva", "Leo", "Zoe", "Max", "Ivy", "Sam", "Kim", "Dan")
ITEMS = ("apples", "books", "cards", "coins", "eggs", "pens", "shells", "stamps", "toys", "cups")
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
STEP = re.compile(r"\[(\w)=(\w+)([-+*/])(\w+)\]")


@dataclass(frozen=True)
class Family:
    """One kind of problem: ranges of its numbers, wordings of its story, and its steps.

    `[d=a+b]` in a step is the calculation d = a + b; it is printed as GSM8K prints it, `<<3+4=7>>7`.
    """

    name: str
    ranges: dict[str, tuple[int, int]]
    stories: tuple[str, ...]
    steps: tuple[str, ...]


FAMILIES = (
    Family(
        "gain-lose",
        {"a": (10, 60), "b": (5, 40), "c": (3, 50)},
        (
            "{who} has {a} {item}. {who} buys {b} more and then gives {c} to {other}. How many {item} does {who} have now?",
            "There are {a} {item} in a box. {who} puts in {b} {item} and {other} takes out {c}. How many {item} are left?",
        ),
        ("After adding there are [d=a+b] {item}.", "Then [e=d-c] {item} are left."),
    ),
    Family(
        "packs",
        {"a": (2, 12), "b": (2, 12), "c": (3, 60)},
        (
            "{who} buys {a} packs of {b} {item} and already had {c} {item}. How many {item} does {who} have?",
            "{a} bags hold {b} {item} each, and {c} {item} lie on the table. How many {item} are there?",
        ),
        ("The packs hold [d=a*b] {item}.", "In all there are [e=d+c] {item}."),
    ),
    Family(
        "sell-the-rest",
        {"a": (8, 40), "b": (2, 35), "c": (2, 12)},
        (
            "{who} has {a} {item}, keeps {b} and sells the rest for {c} dollars each. How many dollars does {who} get?",
            "Of {a} {item}, {b} are broken. {who} sells the others at {c} dollars each. How much money is that?",
        ),
        ("To sell there are [d=a-b] {item}.", "They bring [e=d*c] dollars."),
    ),
    Family(
        "share",
        {"a": (2, 12), "b": (2, 12), "c": (2, 9), "f": (2, 20)},
        (
            "{who} has {a} boxes of {b} {item} and shares them equally among {c} friends. {other}, one of them, already "
            "had {f}. How many {item} does {other} have?",
            "{a} boxes with {b} {item} each are split evenly among {c} children. One child, {other}, had {f} {item} "
            "before. How many has {other} now?",
        ),
        ("The boxes hold [d=a*b] {item}.", "Each gets [e=d/c] {item}.", "{other} has [g=e+f] {item}."),
    ),
    Family(
        "compare",
        {"a": (5, 40), "b": (3, 30), "c": (2, 30)},
        (
            "{who} has {a} {item}. {other} has {b} more than {who}. {third} has {c} fewer than {other}. How many {item} "
            "do {other} and {third} have together?",
            "{who} found {a} {item}, {other} found {b} more than that, and {third} found {c} fewer than {other}. How many "
            "{item} did {other} and {third} find?",
        ),
        ("{other} has [d=a+b] {item}.", "{third} has [e=d-c] {item}.", "Together that is [f=d+e] {item}."),
    ),
    Family(
        "wages",
        {"a": (2, 9), "b": (3, 12), "c": (4, 60), "f": (2, 30)},
        (
            "{who} works {a} days and earns {b} dollars a day. {who} pays {c} dollars for {item} and gets {f} dollars "
            "from {other}. How many dollars does {who} have?",
            "For {a} days {who} saves {b} dollars a day, then spends {c} dollars on {item} and is given {f} dollars. How "
            "much money does {who} have?",
        ),
        ("The pay is [d=a*b] dollars.", "After paying [e=d-c] dollars are left.", "Now it is [g=e+f] dollars."),
    ),
    Family(
        "two-prices",
        {"a": (2, 9), "b": (2, 9), "c": (2, 9), "f": (2, 9)},
        (
            "{who} buys {a} {item} at {b} dollars each and {c} tickets at {f} dollars each. How many dollars does {who} pay?",
            "{item} cost {b} dollars each and tickets {f} dollars each. {who} takes {a} {item} and {c} tickets. What does "
            "{who} pay?",
        ),
        ("The {item} cost [d=a*b] dollars.", "The tickets cost [e=c*f] dollars.", "In all it is [g=d+e] dollars."),
    ),
    Family(
        "rows",
        {"a": (3, 12), "b": (2, 12), "c": (2, 30), "f": (2, 40)},
        (
            "{who} sets {a} rows of {b} {item}. {c} {item} fall over, and {other} takes {f} away. How many {item} still "
            "stand?",
            "A shop has {a} shelves with {b} {item} each. It sells {c} {item} to {who} and {f} to {other}. How many "
            "{item} are left?",
        ),
        ("At first there are [d=a*b] {item}.", "After that [e=d-c] {item}.", "Then [g=e-f] {item} are left."),
    ),
)


def _solve(steps: tuple[str, ...], numbers: dict[str, int]) -> dict[str, int] | None:
    """All numbers of a problem, given and computed; None unless each is a whole number in 1 … LARGEST."""
    known = dict(numbers)
    for step in steps:
        name, left, sign, right = STEP.search(step).groups()
        if sign == "/" and known[left] % known[right]:
            return None
        known[name] = OPERATORS[sign](known[left], known[right])
        if not 1 <= known[name] <= LARGEST:
            return None
    return known


def split_of(family: str, numbers: dict[str, int]) -> str:
    """The split that a problem belongs to: a function of its family and numbers only."""
    return generated.split_of(f"{family}:{sorted(numbers.items())}")


def problems(split: str, seed: int = 0) -> Iterator[dict]:
    """An endless stream of problems of `split` (repeats possible): `key, query, solution, answer`."""
    rng = random.Random(f"sums:{split}:{seed}")
    while True:
        family = rng.choice(FAMILIES)
        numbers = {name: rng.randint(*span) for name, span in family.ranges.items()}
        known = _solve(family.steps, numbers)
        if known is None or split_of(family.name, numbers) != split:
            continue
        who, other, third = rng.sample(NAMES, 3)
        words = {"who": who, "other": other, "third": third, "item": rng.choice(ITEMS)}
        lines = [
            STEP.sub(lambda m: f"<<{known[m[2]]}{m[3]}{known[m[4]]}={known[m[1]]}>>{known[m[1]]}", step).format(**words)
            for step in family.steps
        ]
        answer = known[STEP.search(family.steps[-1])[1]]
        yield {
            "key": (family.name, tuple(sorted(numbers.items()))),
            "query": rng.choice(family.stories).format(**words, **numbers),
            "solution": "\n".join([*lines, f"#### {answer}"]),
            "answer": str(answer),
        }


def distinct_problems(split: str, seed: int = 0) -> Iterator[dict]:
    """`problems` without repeats of the same family and numbers."""
    return generated.distinct(problems(split, seed), f"sums: the split {split!r}")


def take(split: str, limit: int | None = None) -> list[dict]:
    """The first `limit` distinct problems of a split (default and most: `SIZES[split]`)."""
    return generated.take(distinct_problems, split, limit, SIZES)


def load(split: str | None = None, limit: int | None = None):
    """The first `limit` problems of a split as a `Task`, judged like GSM8K's."""
    from irlens.tasks import gsm8k
    from irlens.tasks.contract import Task

    split, topics = generated.topics("sums", split, limit, SIZES, distinct_problems)
    return Task("sums", split, topics, gsm8k.INSTRUCTION, gsm8k.is_correct, gsm8k.extract, revision="generated, seed 0")
