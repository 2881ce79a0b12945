"""How a figure looks and how it is written: sizes, fonts, where the legend goes, files without dates."""

import textwrap
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError, did_you_mean
from irlens.base.untrusted import escaped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf", ".csv")


@dataclass(frozen=True)
class Style:
    """Size in inches, letters in points."""

    width: float
    height: float
    points: float
    family: str

    def letters(self, inches: float) -> int:
        """How many letters of the body size fit into `inches`."""
        return max(1, int(inches * 72 / (0.56 * self.points)))


STYLES = {"screen": Style(7.0, 4.5, 10, "sans-serif"), "paper": Style(3.3, 2.4, 8, "serif")}


def checked_style(style: str) -> "Style":
    """The Style of this name. Raises UserError for an unknown one."""
    if style not in STYLES:
        raise UserError(f"unknown figure style {style!r}: {did_you_mean(str(style), STYLES)}")
    return STYLES[style]


@contextmanager
def drawing(style: str):
    """matplotlib as this module wants it, whatever the user's settings; gives the Style."""
    import matplotlib

    form = checked_style(style)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": form.family,
                "font.size": form.points,
                "axes.titlesize": 1.1 * form.points,
                "legend.fontsize": 0.9 * form.points,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "axes.axisbelow": True,
                "grid.color": "0.88",
                "grid.linewidth": 0.6,
                "lines.linewidth": 1.4 if style == "screen" else 1.1,
                "hatch.linewidth": 0.7,
                "text.parse_math": False,  # a name with two dollar signs is a name
                "pdf.fonttype": 42,
            }
        )
        yield form


def canvas(form: Style, labels: list[str], title: str | None, x_label: str, y_label: str, height: float | None = None):
    """A Figure, its Axes, and where its legend goes: beside the axes if the labels are short, else below, as more height."""
    from matplotlib.figure import Figure

    height = height or form.height
    labels = [escaped(label) for label in labels]
    title, x_label, y_label = (text and escaped(text) for text in (title, x_label, y_label))
    longest = max(map(len, labels))
    legend = {"labels": labels, "frameon": False, "handlelength": 3.0, "borderaxespad": 0.5}
    if form.width > 5 and longest <= 24 and 0.022 * form.points * len(labels) < height:
        legend["loc"] = "outside right upper"
        beside = form.width * longest / form.letters(form.width) + 0.6
    else:
        beside = 0.0
        fit = form.letters(form.width / 0.9)
        columns = max(1, min(fit // (longest + 8), 4, len(labels)))
        legend["labels"] = [textwrap.fill(label, fit - 8) for label in labels]
        height += 0.02 * form.points * sum(label.count("\n") + 1 for label in legend["labels"]) / columns
        legend |= {"loc": "outside lower center", "ncols": columns, "columnspacing": 1.2}
    figure = Figure(figsize=(form.width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(textwrap.fill(x_label, form.letters(0.8 * form.width)))
    axes.set_ylabel(textwrap.fill(y_label, form.letters(0.8 * form.height)))
    if title:
        axes.set_title(textwrap.fill(title, form.letters((form.width - beside - 0.6) / 1.1)))
    return figure, axes, legend


def write(figure: "Figure", table: "pd.DataFrame", path: Path, style: str) -> list[Path]:
    """`path` (less .png, .pdf or .csv) with each of these suffixes; no dates inside."""

    path = Path(path)
    stem = path.with_suffix("") if path.suffix in SUFFIXES else path
    if stem.name in ("", ".."):
        raise UserError(f"{path}: not a file name for a figure; give one such as figures/pass-at-n")
    png, pdf, csv = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
    with drawing(style):
        files.write_atomically(png, lambda to: figure.savefig(to, format="png", dpi=200, metadata={"Software": None}))
        dates = {"CreationDate": None, "Creator": None, "Producer": None}
        files.write_atomically(pdf, lambda to: figure.savefig(to, format="pdf", metadata=dates))
    files.write_csv(table, csv)
    return [png, pdf, csv]
