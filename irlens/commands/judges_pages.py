"""What `judges` shows: its tables as a page in Markdown, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.untrusted import file_names, markdown_table
from irlens.commands.compare_pages import interval, number
from irlens.measure.plots.style import SUFFIXES

if TYPE_CHECKING:
    import pandas as pd

TITLES = {
    "agreement": "Agreement of judges",
    "bias": "What else sways a judge",
    "rankings": "As rankings of the answers",
}
NOTES = {
    "agreement": "κ and nominal α: over win, tie and loss; interval α: over the preferences as they are; τ: Kendall's τ-b "
    "between the systems' mean preferences.",
    "bias": "Slope of length: the log-odds that a far longer answer gains, a constant for each system beside it. A tie is half.",
    "rankings": "The judge's preference is an answer's relevance; for RR and its like, right is what beats the baseline. "
    "oracle: the judge's own order.",
}


def cell(row) -> str:
    """A value with its interval, dashes for what is not known."""
    return f"{number(row.value, '.3f')} {interval(row.low, row.high)}"


def wide(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of a table by its measures, a row per judge (and other judge), the counts behind."""
    keys = [name for name in ("run", "judge", "against") if name in table.columns]
    measures, rows = list(dict.fromkeys(table["measure"])), []
    for who, part in table.fillna(dict.fromkeys(keys, "")).groupby(keys, sort=False):
        cells = {row.measure: cell(row) for row in part.itertuples()}
        rows.append([*map(str, who), *(cells.get(name, "") for name in measures), f"{part['n'].max():,}"])
    heads = {"run": "ranking", "judge": "graded by" if "run" in keys else "judge"}
    return [*(heads.get(name, name) for name in keys), *measures, "n"], rows


def markdown(tables: Mapping[str, pd.DataFrame]) -> str:
    """All tables, with what they mean."""
    counts = tables["judges"]
    parts = ["## Who judged what", markdown_table(counts.columns, counts.astype(str).to_numpy().tolist())]
    for name, title in TITLES.items():
        if name in tables:
            parts += [f"## {title}", markdown_table(*wide(tables[name])), NOTES[name]]
    return "\n\n".join([*parts, "95 % intervals over prompts."]) + "\n"


# -- figures -------------------------------------------------------------------------------------------------------


def draw(tables: Mapping[str, pd.DataFrame], out: Path) -> None:
    """figure-agreement, -bias, -length and, for each judge who grades, -rankings: PNG, PDF, and the CSV of what is drawn."""
    from irlens.measure.plots import curves as plots

    agreement, bias, lengths = (tables[name] for name in ("agreement", "bias", "lengths"))
    names = [f"{row.judge}, {row.against}" if row.against else row.judge for row in agreement.itertuples()]
    _dots(agreement.assign(bar=names), out / "figure-agreement", "Agreement of judges")
    _dots(bias.assign(bar=bias["judge"]), out / "figure-bias", TITLES["bias"])
    if "rankings" in tables:
        ranked = tables["rankings"]
        for judge, mark in file_names(ranked["judge"].unique()).items():
            part = ranked[ranked["judge"] == judge]
            mark += "-" * mark.endswith(SUFFIXES)  # which a figure's name would lose
            _dots(part.assign(bar=part["run"]), out / f"figure-rankings-{mark}", f"Answers ranked, graded by {judge}")
    if lengths["longer"].nunique() > 1:
        table = lengths.assign(curve=lengths["judge"], x=lengths["longer"])[["curve", "x", "value", "low", "high", "n"]]
        labels = {"x_label": "characters more than the baseline's answer (median of a tenth)", "y_label": "win rate"}
        plots.curves(table, out / "figure-length", title="Win rate by length", **labels)


def _dots(table: pd.DataFrame, path: Path, title: str) -> None:
    """A panel per measure, a row per judge; what is not known is left out."""
    import pandas as pd

    from irlens.measure.plots.dots import dots

    drawn = pd.DataFrame(table).assign(group=table["measure"]).dropna(subset="value")
    if len(drawn):
        dots(drawn[["group", "bar", "value", "low", "high", "n"]], path, columns=3, title=title)
