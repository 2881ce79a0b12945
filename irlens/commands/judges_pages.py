"""What `judges` shows: its tables as a page in Markdown, and its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.untrusted import escaped, file_names, markdown_table
from irlens.commands.compare_pages import interval, number
from irlens.measure.plots.style import SUFFIXES

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 40  # letters of a judge's name in a figure
MOST = 60  # rows of a figure; the table has all
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

    called = _short(tables["judges"]["judge"])
    agreement, bias, lengths = (_renamed(tables[name], called) for name in ("agreement", "bias", "lengths"))
    names = [f"{row.judge}, {row.against}" if row.against else row.judge for row in agreement.itertuples()]
    _dots(agreement.assign(bar=names), out / "figure-agreement", TITLES["agreement"])
    _dots(_swayed(bias), out / "figure-bias", TITLES["bias"])
    if "rankings" in tables:
        ranked = tables["rankings"]
        for judge, mark in file_names(ranked["judge"].unique()).items():
            part = _renamed(ranked[ranked["judge"] == judge], called)
            mark += "-" * mark.endswith(SUFFIXES)  # which a figure's name would lose
            title = f"Answers ranked, graded by {called[judge]}"
            _dots(part.assign(bar=part["run"]), out / f"figure-rankings-{mark}", title)
    if lengths["longer"].nunique() > 1:
        table = lengths.assign(curve=lengths["judge"], x=lengths["longer"])[["curve", "x", "value", "low", "high", "n"]]
        labels = {"x_label": "characters more than the baseline's answer (median of a tenth)", "y_label": "win rate"}
        plots.curves(table, out / "figure-length", title="Win rate by length", **labels)


def _short(judges: Iterable[str]) -> dict[str, str]:
    """What each judge is called in a figure: its name, of a long one its beginning and its number."""
    names = [(name, escaped(" ".join(name.split()))) for name in judges]
    return {
        name: text if 0 < len(text) <= LONGEST else f"{text[: LONGEST - 6]}… ({i})"
        for i, (name, text) in enumerate(names, start=1)
    }


def _renamed(table: pd.DataFrame, called: Mapping[str, str]) -> pd.DataFrame:
    """A table with its judges as figures call them."""
    import pandas as pd

    some = [name for name in ("run", "judge", "against") if name in table.columns]
    return pd.DataFrame(table).assign(**{name: [called.get(who, who) for who in table[name]] for name in some})


NOT_DRAWN = ("ties", "win rate if shown first", "win rate if shown second")
SLOPE = "slope of length"


def _swayed(bias: pd.DataFrame) -> pd.DataFrame:
    """The biases that are drawn; of the slope of length the chance it gives a far longer answer, one half without bias."""
    from scipy.special import expit

    drawn, slope = bias[~bias["measure"].isin(NOT_DRAWN)], bias["measure"] == SLOPE
    ends = {name: bias[name].where(~slope, expit(bias[name].astype(float))) for name in ("value", "low", "high")}
    names = bias["measure"].where(~slope, "chance of a far longer answer")
    return bias.assign(bar=bias["judge"], measure=names, **ends).loc[drawn.index]


def _dots(table: pd.DataFrame, path: Path, title: str) -> None:
    """A panel per measure, a row per judge; what is not known is left out."""
    import pandas as pd

    from irlens.measure.plots.dots import dots

    kept = list(dict.fromkeys(table["bar"]))[:MOST]
    title += f" (the first {MOST} of {table['bar'].nunique():,})" * (len(kept) < table["bar"].nunique())
    drawn = pd.DataFrame(table).assign(group=table["measure"]).dropna(subset="value")
    drawn = drawn[drawn["bar"].isin(kept)]
    if len(drawn):
        dots(drawn[["group", "bar", "value", "low", "high", "n"]], path, columns=3, title=title)
