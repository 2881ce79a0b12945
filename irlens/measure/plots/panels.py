"""Several plots in one figure, such as Figure 2: panels of curves or of bars beside each other, each on its own."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.measure.plots import curves as plots
from irlens.measure.plots import style as figure_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """One of several plots in a figure: the curves (or bars), the words around them, and the paper's points.

    log_x: None is the figure's. right: curves on an axis of their own at the right, whose words are `right_label`."""

    table: "pd.DataFrame"
    title: str
    x_label: str
    y_label: str
    paper: "pd.DataFrame | None" = None
    log_x: bool | None = None
    right: tuple[str, ...] = ()
    right_label: str = ""


def panels(
    parts: Sequence[Panel], path: Path, *, log_x: bool = False, style: str = "screen", share_y: bool = True
) -> list[Path]:
    """Draws panels beside each other, on one y axis if `share_y`; writes `path` + .png, .pdf and .csv.

    A table with the column `bar` is drawn as lying bars, else as curves (`plots.bars`, `plots.curves`).

    The CSV has a column `panel` (a, b, …); `irlens plot` draws each panel's rows alone.
    """
    import pandas as pd

    drawn = [
        plots.bar_table(part.table, f"panel {chr(97 + i)}")
        if "bar" in part.table.columns
        else plots.curve_table(part.table, part.paper, f"panel {chr(97 + i)}")
        for i, part in enumerate(parts)
    ]
    table = pd.concat([t.assign(panel=chr(97 + i)) for i, t in enumerate(drawn)], ignore_index=True)
    return figure_style.write(panels_figure(drawn, parts, log_x, style, share_y), table, path, style)


def panels_figure(
    tables: "Sequence[pd.DataFrame]", parts: Sequence[Panel], log_x: bool, style: str, share_y: bool = True
) -> "Figure":
    """The Figure that `panels` writes, each table as `curve_table` returns it; every panel has its legend below it."""
    from matplotlib.figure import Figure

    with figure_style.drawing(style) as form:
        height = max(form.height * 1.35, *(0.03 * form.points * len(t) + 1.5 for t in tables if "bar" in t.columns), 0)
        figure = Figure(figsize=(form.width * 0.78 * len(parts), height), layout="constrained")
        everyone = figure.subplots(1, len(parts), sharey=share_y, squeeze=False)[0]
        for letter, (axes, table, part) in enumerate(zip(everyone, tables, parts)):
            lines, labels = _draw_panel(axes, table, part, log_x if part.log_x is None else part.log_x, form)
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "frameon": False, "handlelength": 3.0}
            room = form.letters(0.68 * form.width)
            axes.set_title(textwrap.fill(f"({chr(97 + letter)}) {part.title}", room), fontsize=form.points)
            axes.set_xlabel(textwrap.fill(part.x_label, room))
            axes.set_ylabel(textwrap.fill(part.y_label, form.letters(0.6 * height)))
            axes.tick_params(labelleft=True)
            axes.legend(lines, labels, ncols=2, **below)
    return figure


def _draw_panel(
    axes, table: "pd.DataFrame", part: Panel, log_x: bool, form: figure_style.Style
) -> tuple[list, list[str]]:
    """The curves, or the bars, of a table on `axes`; returns what a legend needs: handles and labels."""
    if "bar" in table.columns:
        handles = plots.draw_bars(axes, table, True, form, label_inches=0.2 * form.width)
        return handles, list(dict.fromkeys(table["bar"]))
    origins = table["origin"] if "origin" in table.columns else table["curve"].map(lambda _: "measured")
    groups = list(table.groupby([origins.rename("from"), "curve"], sort=False))
    styles = plots.looks(*([curve for (o, curve), _ in groups if o == origin] for origin in ("measured", "paper")))
    values = sorted(set(table["x"]))
    ticks = plots.log_ticks(values, form) if log_x else plots.even_ticks(values, form)
    if log_x:
        axes.set_xscale("log")
        axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    elif ticks:
        axes.set_xticks(ticks)
    other = _right_axis(axes, part) if part.right else axes
    on = dict.fromkeys(part.right, other)
    lines = [
        plots.draw_curve(on.get(curve, axes), points, origin, styles[curve], ticks, form)
        for (origin, curve), points in groups
    ]
    return lines, [f"paper: {curve}" if origin == "paper" else curve for (origin, curve), _ in groups]


def _right_axis(axes, part: Panel):
    """A second y axis at the right, without a grid of its own."""
    other = axes.twinx()
    other.grid(visible=False)
    other.set_ylabel(part.right_label)
    other.spines["right"].set_visible(True)
    return other
