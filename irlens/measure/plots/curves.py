"""Figures from tidy tables: curves with interval bands and grouped bars, each written with the table it was drawn from.

Readable in grey and by the colour-blind: curves differ in marker and dash, bars in hatch, and the colours are Okabe and
Ito's. Curves that are named by temperature get shades in its order. The same table gives the same bytes.
"""

import itertools
import math
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import checksums
from irlens.base.errors import UserError
from irlens.measure.plots.style import Style, canvas, drawing, write

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, less yellow
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1.2, 1.5)), (0, (2, 1)), (0, (4, 1.2, 1.2, 1.2, 1.2, 1.2)))
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "---", "ooo", "+++")
CURVE_KEYS, BAR_KEYS = ("curve", "x"), ("group", "bar")
TEMPERATURE = re.compile(r"^(.*?)\b(?:T|temp|temperature)\s*=?\s*(\d+(?:\.\d+)?)$", re.IGNORECASE)


# -- what a caller uses --------------------------------------------------------------------------------------------


def curves(
    results: "pd.DataFrame",
    path: Path,
    *,
    x_label: str,
    y_label: str,
    title: str | None = None,
    log_x: bool = False,
    paper: "pd.DataFrame | None" = None,
    style: str = "screen",
) -> list[Path]:
    """Draws `curve, x, value` (and the band `low, high`) as lines; writes `path` + .png, .pdf and .csv.

    `paper` (`curve, x, value`) is drawn as hollow marks. The CSV holds all that was drawn: where there are paper points,
    a column `origin` (measured, paper) tells them apart, and a table with that column is drawn again the same.
    """
    table = curve_table(results, paper)
    figure = curves_figure(table, x_label=x_label, y_label=y_label, title=title, log_x=log_x, style=style)
    return write(figure, table, path, style)


def bars(
    table: "pd.DataFrame",
    path: Path,
    *,
    value_label: str,
    group_label: str | None = None,
    title: str | None = None,
    horizontal: bool | None = None,
    style: str = "screen",
) -> list[Path]:
    """Draws `group, bar, value` (and the interval `low, high`) as grouped bars; writes `path` + .png, .pdf and .csv.

    `horizontal` None decides by the length of the group names.
    """
    table = bar_table(table)
    figure = bars_figure(
        table, value_label=value_label, group_label=group_label, title=title, horizontal=horizontal, style=style
    )
    return write(figure, table, path, style)


def read_results(path: Path) -> "pd.DataFrame":
    """The CSV beside a figure, ready for `curves` (it has a column `curve`) or `bars`. Raises UserError naming `path`."""
    import pandas as pd

    try:
        frame = pd.read_csv(checksums.trusted(path), dtype=str, keep_default_na=False)  # a curve may be called NA
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # pandas' own parsing errors and UnicodeDecodeError among them
        raise UserError(f"{path}: not a CSV table ({str(error).strip().splitlines()[0]})") from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas took the surplus for an index
        raise UserError(f"{path}: rows have more fields than the header")
    if not {"curve", "bar"} & set(frame.columns):
        raise UserError(
            f"{path}: needs the columns curve, x, value or group, bar, value (and low, high for intervals); "
            f"found: {', '.join(frame.columns)}"
        )
    for column in frame.columns.difference(["curve", "group", "bar", "origin"]):
        values = [_number(text) for text in frame[column]]
        whole = all(value is None or isinstance(value, int) for value in values)
        frame[column] = pd.Series(values, dtype="Int64" if whole else None)
    return curve_table(frame, source=str(path)) if "curve" in frame.columns else bar_table(frame, source=str(path))


def _number(text: str) -> int | float | str | None:
    """The exact number that a CSV field holds; the text if it holds none, None if it is empty or not there."""
    if not isinstance(text, str) or text == "":
        return None
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


# -- tables --------------------------------------------------------------------------------------------------------


def curve_table(results: "pd.DataFrame", paper: "pd.DataFrame | None" = None, source: str = "curves") -> "pd.DataFrame":
    """What `curves` draws: checked, measured points before the paper's, curves as they first occur (or by
    temperature), x rising."""
    import pandas as pd

    table = _checked(results, CURVE_KEYS, source)
    if paper is not None:
        points = _checked(paper, CURVE_KEYS, f"{source}: paper points")[["curve", "x", "value"]]
        whole = {c: "Int64" for c in table.columns[3:] if pd.api.types.is_integer_dtype(table[c])}
        table = pd.concat(
            [table.astype(whole).assign(origin="measured"), points.assign(origin="paper")], ignore_index=True
        )
    if "origin" in table.columns:
        unknown = ~table["origin"].isin(("measured", "paper"))
        if unknown.any():
            raise UserError(f"{source}: origin must be measured or paper, got {table['origin'][unknown].iloc[0]!r}")
    origin = table["origin"] if "origin" in table.columns else pd.Series("measured", index=table.index)
    _refuse_repeats(table.assign(origin=origin), ("origin", *CURVE_KEYS), source)
    place = {}
    for which in ("measured", "paper"):
        names = list(dict.fromkeys(table["curve"][origin == which]))
        heat = _temperatures(names)
        place |= {(which, name): heat.get(name, i) for i, name in enumerate(names)}
    places = pd.Series([place[key] for key in zip(origin, table["curve"])])
    return _sorted(table, [origin == "paper", places, table["x"]])


def bar_table(table: "pd.DataFrame", source: str = "bars") -> "pd.DataFrame":
    """What `bars` draws: checked, groups and the bars in them as they first occur."""
    table = _checked(table, BAR_KEYS, source)
    _refuse_repeats(table, BAR_KEYS, source)
    return _sorted(table, [table[c].map(list(dict.fromkeys(table[c])).index) for c in BAR_KEYS])


def _checked(frame: "pd.DataFrame", keys: tuple[str, str], source: str) -> "pd.DataFrame":
    """A copy with names as strings, numbers as numbers, and the drawn columns first; UserError for what cannot be drawn."""
    needed = [*keys, "value"]
    missing = [c for c in needed if c not in frame.columns]
    if not missing and ("low" in frame.columns) != ("high" in frame.columns):
        missing = ["high" if "low" in frame.columns else "low"]
    if missing:
        raise UserError(
            f"{source}: needs the columns {', '.join(needed)} (and low, high for intervals); missing: "
            f"{', '.join(missing)} (found: {', '.join(map(str, frame.columns)) or 'none'})"
        )
    if frame.empty:
        raise UserError(f"{source}: the table is empty; there is nothing to draw")
    drawn = [*needed, "low", "high"] if "low" in frame.columns else needed
    out = frame[drawn + [c for c in frame.columns if c not in drawn]].reset_index(drop=True)
    for column in drawn:
        if column in ("curve", "group", "bar"):
            _refuse(out, column, out[column].isna() | (out[column].astype(str).str.strip() == ""), "a name", source)
            out[column] = out[column].astype(str)
        else:
            out[column] = _numbers(out, column, source)
    if "low" in drawn:
        _refuse(out, "low", out["low"].isna() & out["high"].notna(), "a number where high is one", source)
        _refuse(out, "high", out["high"].isna() & out["low"].notna(), "a number where low is one", source)
        _refuse(out, "high", out["high"] < out["low"], "at least low", source)
    return out


def _numbers(frame: "pd.DataFrame", column: str, source: str) -> "pd.Series":
    """The column as finite numbers; an interval may be absent."""
    import numpy as np
    import pandas as pd

    numbers = pd.to_numeric(frame[column], errors="coerce")
    values = numbers.to_numpy(dtype=float, na_value=np.nan)
    bad = ~np.isfinite(values)
    if column in ("low", "high"):
        bad &= frame[column].notna().to_numpy()
    _refuse(frame, column, pd.Series(bad, index=frame.index), "a finite number", source)
    return numbers.astype("int64" if column == "x" and pd.api.types.is_integer_dtype(numbers) else "float64")


def _refuse(frame: "pd.DataFrame", column: str, bad: "pd.Series", right: str, source: str) -> None:
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise UserError(f"{source}: row {row}: {column} must be {right}, got {frame[column].tolist()[row]!r}")


def _refuse_repeats(table: "pd.DataFrame", keys: tuple[str, ...], source: str) -> None:
    twice = table.duplicated(list(keys))
    if twice.any():
        first = table[twice].iloc[0]
        raise UserError(f"{source}: {', '.join(f'{key}={first[key]}' for key in keys)} occurs more than once")


def _sorted(table: "pd.DataFrame", columns: list["pd.Series"]) -> "pd.DataFrame":
    import numpy as np

    return table.iloc[np.lexsort([c.to_numpy() for c in reversed(columns)])].reset_index(drop=True)


# -- pictures ------------------------------------------------------------------------------------------------------


def curves_figure(
    table: "pd.DataFrame",
    *,
    x_label: str,
    y_label: str,
    title: str | None = None,
    log_x: bool = False,
    style: str = "screen",
) -> "Figure":
    """The Figure that `curves` writes; `table` as `curve_table` returns it."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    if log_x and not (table["x"] > 0).all():
        raise UserError(f"curves: x must be above 0 on a logarithmic axis, got {table['x'].min().item()}")
    origins = table["origin"] if "origin" in table.columns else table["curve"].map(lambda _: "measured")
    groups = list(table.groupby([origins.rename("from"), "curve"], sort=False))
    labels = [f"paper: {curve}" if origin == "paper" else curve for (origin, curve), _ in groups]
    styles = looks(*([curve for (o, curve), _ in groups if o == origin] for origin in ("measured", "paper")))
    values = sorted(set(table["x"]))
    with drawing(style) as form:
        figure, axes, legend = canvas(form, labels, title, x_label, y_label)
        ticks = log_ticks(values, form) if log_x else even_ticks(values, form)
        if log_x:
            axes.set_xscale("log")
        lines = [draw_curve(axes, points, origin, styles[curve], ticks, form) for (origin, curve), points in groups]
        if log_x:
            axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
            axes.set_xticks([], minor=True)
        elif ticks:
            axes.set_xticks(ticks)
        elif all(x % 1 == 0 for x in values):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=min(8, _room(values, form))))
        elif values[-1] >= 10_000:
            axes.xaxis.set_major_formatter(EngFormatter())
        figure.legend(handles=lines, **legend)
    return figure


def draw_curve(axes, points: "pd.DataFrame", origin: str, look: tuple, ticks: list[float], form: Style):
    """One curve on `axes`, its band below it. Returns the line. Of many points those at `ticks` are marked."""
    colour, marker, dash = look
    x, value = points["x"].to_numpy(), points["value"].to_numpy()
    size = 0.5 * form.points
    if origin == "paper":
        hollow = {"marker": marker, "markersize": size + 1, "markerfacecolor": "none", "markeredgewidth": 0.9}
        return axes.plot(x, value, color=colour, linestyle=":", linewidth=0.9, zorder=2.5, **hollow)[0]
    if "low" in points.columns:
        there = points["low"].notna()
        axes.fill_between(
            x, points["low"], points["high"], where=there, color=colour, alpha=0.16, linewidth=0, zorder=1.5
        )
        alone = points[there & ~there.shift(1, fill_value=False) & ~there.shift(-1, fill_value=False)]
        axes.vlines(alone["x"], alone["low"], alone["high"], color=colour, linewidth=1.2)  # a band needs two neighbours
    every = None if len(x) <= 12 else [i for i, at in enumerate(x) if at in ticks] or 0.09  # of the axes' diagonal
    return axes.plot(x, value, color=colour, linestyle=dash, marker=marker, markersize=size, markevery=every)[0]


def bars_figure(
    table: "pd.DataFrame",
    *,
    value_label: str,
    group_label: str | None = None,
    title: str | None = None,
    horizontal: bool | None = None,
    style: str = "screen",
) -> "Figure":
    """The Figure that `bars` writes; `table` as `bar_table` returns it."""
    groups, names = (list(dict.fromkeys(table[c])) for c in BAR_KEYS)
    with drawing(style) as form:
        if horizontal is None:
            horizontal = max(map(len, groups)) > form.letters(0.75 * form.width / len(groups))
        height = max(form.height, 0.022 * form.points * len(table) + 1.0) if horizontal else form.height
        labels = (value_label, group_label or "") if horizontal else (group_label or "", value_label)
        figure, axes, legend = canvas(form, names, title, *labels, height=height)
        handles = draw_bars(axes, table, horizontal, form)
        figure.legend(handles=handles, **legend)
    return figure


def draw_bars(axes, table: "pd.DataFrame", horizontal: bool, form: Style, label_inches: float | None = None) -> list:
    """Grouped bars on `axes`, lying if `horizontal`; returns a handle per name, for a legend."""
    groups, names = (list(dict.fromkeys(table[c])) for c in BAR_KEYS)
    thick, handles = 0.8 / len(names), []
    for i, name in enumerate(names):
        own = table[table["bar"] == name]
        where = own["group"].map(groups.index) + (i - (len(names) - 1) / 2) * thick
        face = {"facecolor": COLOURS[i % len(COLOURS)], "hatch": HATCHES[i % len(HATCHES)], "edgecolor": "white"}
        draw = axes.barh if horizontal else axes.bar
        handles.append(draw(where, own["value"], thick, linewidth=0.5, zorder=2, **face))
        if "low" in own.columns:
            _draw_intervals(axes, where, own, horizontal, form)
    if horizontal:
        room = form.letters(label_inches or 0.35 * form.width)
        axes.set_yticks(range(len(groups)), labels=[textwrap.fill(g, room) for g in groups])
        axes.invert_yaxis()
    else:
        axes.set_xticks(range(len(groups)), labels=groups)
    axes.grid(visible=False, axis="y" if horizontal else "x")
    if (table["value"] < 0).any():
        (axes.axvline if horizontal else axes.axhline)(0, color="black", linewidth=0.8)
    return handles


def _draw_intervals(axes, where: "pd.Series", own: "pd.DataFrame", horizontal: bool, form: Style) -> None:
    """Whiskers from low to high, which need not hold the value; with a white edge, as a bar may be black."""
    from matplotlib.patheffects import withStroke

    there = own["low"].notna()
    middle, half = (own["high"] + own["low"])[there] / 2, (own["high"] - own["low"])[there] / 2
    place, error = ((middle, where[there]), "xerr") if horizontal else ((where[there], middle), "yerr")
    edge = {"path_effects": [withStroke(linewidth=2.2, foreground="white")]}
    drawn = axes.errorbar(
        *place, **{error: half}, fmt="none", ecolor="0.1", elinewidth=1, capsize=0.25 * form.points, zorder=3
    )
    for line in (*drawn.lines[1], *drawn.lines[2]):
        line.set(**edge)


def _temperatures(names: list[str]) -> dict[str, float]:
    """The temperature of every name, if a temperature is all that tells the names apart; otherwise empty."""
    found = [TEMPERATURE.match(name) for name in names]
    if not all(found) or len({match[1] for match in found}) > 1:
        return {}
    heat = {name: float(match[2]) for name, match in zip(names, found)}
    return heat if len(set(heat.values())) == len(names) else {}


def looks(measured: list[str], paper: list[str]) -> dict[str, tuple]:
    """Colour, marker and dash by name. One name looks the same in both lists, and so does one temperature."""
    heat = _temperatures(measured) | _temperatures(paper)
    steps = sorted(set(heat.values()))
    if len(steps) < 2:
        heat, shades = {}, COLOURS
    else:
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        shades = [to_hex(colormaps["plasma"](0.8 * i / (len(steps) - 1))) for i in range(len(steps))]
    names = list(dict.fromkeys([*measured, *paper]))
    plain = [name for name in names if name not in heat]
    found = {}
    for name in names:
        i, colours = (steps.index(heat[name]), shades) if name in heat else (plain.index(name), COLOURS)
        found[name] = (colours[i % len(colours)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
    return found


def _room(values: list[float], form: Style) -> int:
    """How many tick labels fit on the x axis."""
    return max(2, form.letters(0.75 * form.width) // (1 + max(len(f"{value:g}") for value in values)))


def even_ticks(values: list[float], form: Style) -> list[float]:
    """The measured values themselves, if a linear axis has room for a label at each; otherwise empty."""
    gaps = [right - left for left, right in itertools.pairwise(values)]
    fit = not gaps or min(gaps) >= (values[-1] - values[0]) / min(10, _room(values, form))
    return values if fit else []


def log_ticks(values: list[float], form: Style) -> list[float]:
    """The values to print on a logarithmic axis: measured ones (of very many: 1, 2, 5, 10 …) that do not collide.

    The first and the last are always among them.
    """
    if len(values) > 20:
        decades = range(math.floor(math.log10(values[0])), math.ceil(math.log10(values[-1])) + 1)
        kept = {m * 10.0**e for e in decades for m in (1, 2, 5)} | {values[0], values[-1]}
        values = [value for value in values if value in kept]
    ticks, last = values[:1], values[-1]
    gap = math.log(last / values[0]) / _room(values, form) * (1 - 1e-9)
    for value in values[1:]:
        if math.log(value / ticks[-1]) >= gap and (value == last or math.log(last / value) >= gap):
            ticks.append(value)
    return ticks
