"""`math`: competition problems in LaTeX (Hendrycks et al. 2021), judged by math-verify (extra `math`)."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from irlens.base import limits
from irlens.base.errors import UserError

if TYPE_CHECKING:
    from irlens.tasks.contract import Task

REPO = "EleutherAI/hendrycks_math"  # a folder per subject
SPLITS = ("train", "test")
INSTRUCTION = "Solve the problem step by step. Put the final answer into \\boxed{}."

# -- judging -------------------------------------------------------------------------------------------------------


def need_math_verify() -> None:
    """Raises UserError, naming the extra, where math-verify is absent."""
    try:
        import math_verify
    except ImportError as error:
        raise UserError("the verifier math needs math-verify: pip install 'irlens[math]'") from error
    logging.getLogger(math_verify.__name__).setLevel(logging.CRITICAL)  # a formula that takes too long is only wrong


def is_correct(text: str, gold: str) -> bool:
    """Whether math-verify finds the answer of a response equivalent to `gold` (LaTeX, a number, or a whole solution).

    Raises UserError for a gold answer in which nothing is found, and where math-verify is absent.
    """
    need_math_verify()
    from math_verify import verify

    if not (wanted := _gold_formula(gold)):
        raise UserError(f"gold answer {gold[:80]!r}: math-verify finds no formula in it")
    return bool(verify(list(wanted), list(_formula(text)), timeout_seconds=_seconds()))


def _seconds() -> int | None:
    """math-verify's own limit, a signal that only the main thread may set; before it `irlens.base.limits` has its own."""
    return math.ceil(limits.seconds()) + 1 if threading.current_thread() is threading.main_thread() else None


@lru_cache(maxsize=10_000)
def _formula(text: str) -> tuple:
    from math_verify import parse

    return tuple(parse(text, parsing_timeout=_seconds()))


@lru_cache(maxsize=10_000)
def _gold_formula(gold: str) -> tuple:
    """What the gold answer says; one without any delimiter is read as LaTeX."""
    bare = not re.search(r"\\boxed|\$|\\\(|\\\[", gold)
    return (_formula(f"\\boxed{{{gold}}}") if bare else ()) or _formula(gold)


@limits.linear
def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` without white space, to vote on; None without one."""
    found = _last_box(text)
    return found and (re.sub(r"\s+|\\[!,;]", "", found).replace("dfrac", "frac").replace("tfrac", "frac") or None)


def _last_box(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for i in range(begin - 1, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if not depth:
            return text[begin:i].strip()
    return None


# -- loading -------------------------------------------------------------------------------------------------------


def load(split: str | None = None, limit: int | None = None) -> Task:
    """The hub's copy, all subjects. Raises UserError where it is neither cached nor to be had."""
    from irlens.tasks.contract import hub_rows, pick_split

    split = pick_split(split, SPLITS, "math")
    instead = "instead: --dataset FOLDER with test.jsonl of problem and solution, or --dataset sums"
    rows, revision = hub_rows(REPO, f"*/{split}-*.parquet", instead)
    return from_rows(rows, "math", split, limit, revision, REPO)


def from_rows(
    rows: Iterable[tuple[str, dict]], name: str, split: str, limit: int | None, revision: str, source: str
) -> Task:
    r"""The task of rows of `problem`, and `solution` (its answer in `\boxed{…}`) or `answer` (MATH-500, AIME) or both.

    math-verify is needed once something is judged. Raises UserError for another row.
    """
    import pandas as pd

    from irlens.tables import check
    from irlens.tasks.contract import Task, query_id

    topics = []
    for i, (where, row) in enumerate(islice(rows, limit)):
        known = [field for field in ("solution", "answer") if row.get(field) is not None] or ["solution"]
        if type(row.get("answer")) is int:
            row = row | {"answer": str(row["answer"])}
        for field in ("problem", *known):
            if not isinstance(row.get(field), str) or not row[field].strip():
                raise UserError(f"{where}: {field} must be a non-empty string, got {row.get(field)!r:.80}")
        solution = row.get("solution")
        # a few solutions box nothing: math-verify reads them whole
        answer = row["answer"] if "answer" in known else _last_box(solution) or solution
        topics.append((query_id(name, split, i), row["problem"], [answer], solution))
    if not topics:
        raise UserError(f"{source}: no rows")
    frame = check(pd.DataFrame(topics, columns=["query_id", "query", "answers", "solution"]), "topics", source)
    if not frame["solution"].notna().all():
        frame = frame.drop(columns="solution")
    return Task(name, split, frame, INSTRUCTION, is_correct, boxed, revision=revision)
