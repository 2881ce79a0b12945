"""The tables of `compare` as others print them: Markdown and LaTeX, every name in them as it is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from irlens.base.untrusted import escaped, tex

if TYPE_CHECKING:
    import pandas as pd

HEAD = ("measure", "system", "value", "s.e.", "95 % interval", "n", "group")
TESTS = ("measure", "before", "after", "difference", "95 % interval", "p (Holm)", "d", "detectable", "n")
TOLD = "Systems that share a letter cannot be told apart (paired randomisation test, Holm over all rows, 0.05)."
STARRED = "A star marks a system that differs from {} (paired randomisation test, Holm over all rows, 0.05)."
SEEN = (
    "Difference: after less before; of a win rate, after's less one half. Detectable: the smallest difference that the test "
    "would find four times in five at the level that Holm leaves it; none: with so few prompts no difference could be "
    "found; –: the differences are all alike and do not say."
)

NOT_JUDGED = "{:,} of {:,} comparisons are not judged, as the judge's server refused a question about them: left out."


def markdown(
    values: pd.DataFrame, tests: pd.DataFrame, baseline: str | None = None, refused: Sequence[str] = ()
) -> str:
    """Both tables, with what they mean. refused: of each comparison of a judge what its server said that refused it, or ""."""
    said = STARRED.format(marked(baseline)) if baseline else TOLD
    cells = [
        (
            *map(marked, (row.measure, row.before, row.after)),
            f"{row.difference:+.3f}",
            interval(row.low, row.high, "+.3f"),
            f"{row.p_holm:.4f}",
            number(row.effect, "+.2f"),
            seen(row.detectable),
            f"{row.n:,}",
        )
        for row in tests.itertuples()
    ]
    rows = [(*map(marked, row[:2]), *row[2:-1], row[-1].replace("*", r"\*")) for row in _cells(values)]
    count = sum(map(bool, refused))
    lacking = [NOT_JUDGED.format(count, len(refused))] if count else []
    return "\n\n".join([table(HEAD, rows), said, *lacking, table(TESTS, cells), SEEN]) + "\n"


def latex(values: pd.DataFrame) -> str:
    """The values as a LaTeX table (package booktabs), groups as superscripts."""
    rows = [
        " & ".join((tex(m), tex(s), f"${v}^{{{g}}}$" if g else f"${v}$", *(x.replace("–", "--") for x in (e, i)), n))
        + r" \\"
        for m, s, v, e, i, n, g in _cells(values)
    ]
    head = " & ".join(tex(name) for name in HEAD[:-1]) + r" \\"
    return "\n".join(
        [r"\begin{tabular}{llrrrr}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", ""]
    )


def _cells(values: pd.DataFrame) -> Iterable[tuple[str, ...]]:
    for row in values.itertuples():
        told = (f"{row.value:.3f}", number(row.se, ".3f"), interval(row.low, row.high))
        yield (row.measure, system(row), *told, f"{row.n:,}", row.group)


def system(row) -> str:
    """What a row of values is about: a system, or one against another."""
    return f"{row.run} against {row.against}" if row.against else row.run


def number(value: float, form: str) -> str:
    """A number, a dash for one that is not known."""
    return "–" if math.isnan(value) else format(value, form).replace("inf", "∞")


def interval(low: float, high: float, form: str = ".3f") -> str:
    """`[low, high]`, a dash for one that is not known."""
    return "–" if math.isnan(low) or math.isnan(high) else f"[{low:{form}}, {high:{form}}]"


def seen(value: float) -> str:
    """The smallest difference that could be seen."""
    return "none" if math.isinf(value) else number(value, ".3f")


MARKS = {ord(c): "\\" + c for c in "\\`*_[]<>|~$&#"} | {ord("\n"): " ", ord("\r"): " "}


def marked(text: str) -> str:
    """Text as Markdown prints it, in a table's cell too."""
    return escaped(str(text)).translate(MARKS)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])
