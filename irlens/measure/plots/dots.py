"""Dots with whiskers in panels beside each other: the same few things measured on scales of their own."""

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.measure.plots import curves as plots
from irlens.measure.plots import style as figure_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PANEL = 2.3  # inches of one panel's width
WIDE = 20  # values further apart than this many times are drawn on a logarithmic axis, linear near 0


def dots(
    table: "pd.DataFrame",
    path: Path,
    *,
    columns: int = 4,
    title: str | None = None,
    style: str = "screen",
    zero: bool = False,
) -> list[Path]:
    """Draws `group, bar, value, low, high`: a panel per group, a row per bar, its interval a line through the dot.

    `columns` panels stand beside each other, each on its own axis, which is logarithmic (linear near 0) where the
    values differ much. zero: the axis is linear, with a line at 0, which else is drawn where values lie on both sides.
    Writes `path` + .png, .pdf and .csv; `irlens plot` draws the CSV as bars.
    """
    table = plots.bar_table(table)
    return figure_style.write(dots_figure(table, columns, title, style, zero), table, path, style)


def dots_figure(table: "pd.DataFrame", columns: int, title: str | None, style: str, zero: bool = False) -> "Figure":
    """The Figure that `dots` writes; `table` as `plots.bar_table` returns it."""
    from matplotlib.figure import Figure

    if columns < 1:
        raise UserError(f"dots: columns must be at least 1, got {columns}")
    groups, names = (list(dict.fromkeys(table[c])) for c in plots.BAR_KEYS)
    across = min(columns, len(groups))
    down = -(-len(groups) // across)
    with figure_style.drawing(style) as form:
        margin = max(map(len, names)) / form.letters(1)  # inches for the names, on the left
        height = down * (0.9 + 0.028 * form.points * len(names)) + (0.4 if title else 0)
        figure = Figure(figsize=(across * PANEL + margin, height), layout="constrained")
        everyone = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
        for axes, group in zip(everyone, groups):
            _draw(axes, table[table["group"] == group], names, form, zero)
            axes.set_title(textwrap.fill(group, form.letters(0.9 * PANEL)), fontsize=0.95 * form.points)
        for axes in everyone[len(groups) :]:
            axes.set_visible(False)
        if title:
            figure.suptitle(textwrap.fill(title, form.letters(across * PANEL)), fontsize=1.1 * form.points)
    return figure


def _draw(axes, rows: "pd.DataFrame", names: list[str], form: figure_style.Style, zero: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, SymmetricalLogLocator

    for row in rows.to_dict("records"):
        place = names.index(row["bar"])
        colour, marker = plots.COLOURS[place % len(plots.COLOURS)], plots.MARKERS[place % len(plots.MARKERS)]
        if row.get("low") is not None and row["low"] == row["low"]:
            axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
        axes.plot(row["value"], place, marker, color=colour, markersize=0.6 * form.points)
    axes.set_yticks(range(len(names)), labels=names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    sizes = [abs(v) for v in rows["value"] if v]
    if not zero and sizes and max(sizes) > WIDE * min(sizes) and max(sizes) > 1:
        axes.set_xscale("symlog", linthresh=10 ** math.floor(math.log10(min(sizes))))
        axes.xaxis.set_major_locator(SymmetricalLogLocator(axes.xaxis.get_transform()))
        axes.xaxis.get_major_locator().set_params(numticks=5)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}".replace("-", "−")))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.margins(x=0.12)
    if zero or ((rows["value"] < 0).any() and (rows["value"] >= 0).any()):
        axes.axvline(0, color="black", linewidth=0.8)
