"""`countdown`: make a target of some numbers, each used once, with +, - and *; many expressions may be right.

A problem is its numbers and its target. A hash of both decides its split, so no two splits share a problem. `pretrain` is
the split that the model `tiny-countdown` was trained on; the others hold problems that it has never seen. A solution
calculates from left to right, a line for each step, and ends with `#### expression`. Any expression is right that uses
each number once and has the target as its value.
"""

from __future__ import annotations

import ast
import operator
import random
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from irlens.tasks import generated

if TYPE_CHECKING:
    from irlens.tasks.contract import Task

SPLITS = generated.SPLITS
SIZES = {"pretrain": 12000, "train": 4000, "validation": 500, "test": 1000}
COUNTS = (3,)  # how many numbers a problem has
LARGEST_NUMBER, LARGEST = 30, 100  # of a problem's numbers, and of what is calculated
TRIES = generated.TRIES
LONGEST = 200  # letters of an expression that is read

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
READ = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
NUMBERS = re.compile(r"\d+")
MARKED = re.compile(r"####[ \t]*([^\n]*)")
SIGNS = str.maketrans({"×": "*", "·": "*", "−": "-", "–": "-", "÷": "/", ":": "/", "x": "*", "X": "*"})


# -- problems ------------------------------------------------------------------------------------------------------


def split_of(numbers: tuple[int, ...], target: int) -> str:
    """The split that a problem belongs to, whatever the order of its numbers."""
    return generated.split_of(f"countdown:{sorted(numbers)}={target}")


def _chain(rng: random.Random, numbers: list[int]) -> tuple[list[str], str, int] | None:
    """(steps, expression, value) of numbers put together from left to right by random signs; None where something that is
    calculated is not in 1 … LARGEST."""
    value, expression, steps, last = numbers[0], str(numbers[0]), [], ""
    for number in numbers[1:]:
        sign = rng.choice("+-*")
        found = OPERATORS[sign](value, number)
        if not 1 <= found <= LARGEST:
            return None
        if sign == "*" and last in ("+", "-"):
            expression = f"({expression})"
        steps.append(f"{value}{sign}{number}={found}")
        value, expression, last = found, f"{expression}{sign}{number}", sign
    return steps, expression, value


def problems(split: str, seed: int = 0) -> Iterator[dict]:
    """A stream of problems of `split` (repeats possible): `key, query, solution, answer`."""
    rng = random.Random(f"countdown:{split}:{seed}")
    while True:
        numbers = [rng.randint(1, LARGEST_NUMBER) for _ in range(rng.choice(COUNTS))]
        chain = _chain(rng, numbers)
        if chain is None or chain[2] in numbers or split_of(tuple(numbers), chain[2]) != split:
            continue
        steps, expression, target = chain
        given = sorted(numbers)
        yield {
            "key": (tuple(given), target),
            "query": f"Use {', '.join(map(str, given))} to make {target}.",
            "solution": "\n".join([*steps, f"#### {expression}"]),
            "answer": f"{' '.join(map(str, given))} = {target}",
        }


def distinct_problems(split: str, seed: int = 0) -> Iterator[dict]:
    """`problems` without repeats. Raises UserError once TRIES in a row were no new ones: there are only so many."""
    return generated.distinct(problems(split, seed), f"countdown: the split {split!r}", TRIES)


def take(split: str, limit: int | None = None) -> list[dict]:
    """The first `limit` distinct problems of a split (default and most: `SIZES[split]`)."""
    return generated.take(distinct_problems, split, limit, SIZES)


def load(split: str | None = None, limit: int | None = None) -> Task:
    """The first `limit` problems of a split as a `Task`."""
    from irlens.tasks.contract import Task

    split, topics = generated.topics("countdown", split, limit, SIZES, distinct_problems)
    return Task("countdown", split, topics, INSTRUCTION, is_correct, extract, revision="generated, seed 0")


# -- answers -------------------------------------------------------------------------------------------------------

INSTRUCTION = "Use each number once. End with `#### expression`."


def extract(response: str) -> str | None:
    """The expression that a response gives, without spaces and with the operands of sums and products in one order, so that
    the same answer is the same text; None where it gives none that can be read."""
    tree = _read(response)
    return None if tree is None else _normal(tree)


def is_correct(response: str, answer: str) -> bool:
    """Whether the last expression after `####` uses each number of the answer (`3 5 7 = 44`) once and has its value."""
    tree = _read(response)
    given, _, target = answer.partition("=")
    if tree is None:
        return False
    used = sorted(node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return used == sorted(map(int, NUMBERS.findall(given))) and _value(tree) == int(target)


def _read(response: str) -> ast.expr | None:
    """What the last `####` says, of whole numbers, signs and brackets alone; what follows a `=` does not count."""
    found = MARKED.findall(response)
    text = found[-1].translate(SIGNS).partition("=")[0].strip().strip("$.") if found else ""
    if not text or len(text) > LONGEST or not re.fullmatch(r"[0-9+\-*/() ]+", text) or "**" in text or "//" in text:
        return None
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return tree if _value(tree) is not None else None


def _value(tree: ast.expr) -> Fraction | None:
    """The value of an expression; None of one that has none, or holds anything but whole numbers and READ."""
    if isinstance(tree, ast.Constant):
        return Fraction(tree.value) if type(tree.value) is int else None
    if not isinstance(tree, ast.BinOp) or type(tree.op) not in READ:
        return None
    left, right = _value(tree.left), _value(tree.right)
    if left is None or right is None or (isinstance(tree.op, ast.Div) and right == 0):
        return None
    return READ[type(tree.op)](left, right)


def _normal(tree: ast.expr) -> str:
    """An expression as text: a sum or product with its parts in order, whatever brackets it was written with."""
    if isinstance(tree, ast.Constant):
        return str(tree.value)
    assert isinstance(tree, ast.BinOp)
    groups = ((ast.Add, ast.Sub), "+", "-"), ((ast.Mult, ast.Div), "*", "/")
    kinds, sign, inverse = next(group for group in groups if isinstance(tree.op, group[0]))
    parts = sorted(_parts(tree, kinds, False))
    return "(" + "".join((inverse if turned else sign) + text for turned, text in parts) + ")"


def _parts(tree: ast.expr, kinds: tuple, turned: bool) -> Iterator[tuple[bool, str]]:
    """(whether it is subtracted, or divided by; its text) of every part of a chain of sums, or of products."""
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, kinds):
        yield from _parts(tree.left, kinds, turned)
        yield from _parts(tree.right, kinds, turned ^ isinstance(tree.op, kinds[1]))
    else:
        yield turned, _normal(tree)
