"""The figure of dots in panels: what is drawn, and what is refused."""

import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.measure.plots import curves as plots
from irlens.measure.plots import dots, panels

TABLE = pd.DataFrame(
    [
        ("gap (nats)", "easy", -90.0, -100.0, -80.0),
        ("gap (nats)", "hard", -0.5, -0.7, 0.1),
        ("share", "easy", 0.0, None, None),
        ("share", "hard", 0.25, 0.1, 0.4),
        ("tokens", "hard", 50.0, 48.0, 52.0),
    ],
    columns=["group", "bar", "value", "low", "high"],
)


def test_a_panel_per_group_with_a_row_per_bar(tmp_path):
    figure = dots.dots_figure(plots.bar_table(TABLE), 2, "title", "screen")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["gap (nats)", "share", "tokens"]
    assert [axes.get_xscale() for axes in panels] == ["symlog", "linear", "linear"]
    assert [len(axes.lines) for axes in panels] == [4, 3, 2]  # dots, and the intervals that are known
    assert panels[0].get_ylim() == (1.5, -0.5)
    png, pdf, csv = dots.dots(TABLE, tmp_path / "x", columns=2)
    first = png.read_bytes(), pdf.read_bytes()
    assert dots.dots(plots.read_results(csv), tmp_path / "x", columns=2)
    assert (png.read_bytes(), pdf.read_bytes()) == first


def test_gains_have_a_line_at_nothing_on_an_even_axis():
    figure = dots.dots_figure(plots.bar_table(TABLE), 2, "title", "screen", zero=True)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_xscale() for axes in panels] == ["linear"] * 3
    assert [sum(list(line.get_xdata()) == [0, 0] for line in axes.lines) for axes in panels] == [1, 1, 1]


def test_names_take_the_room_that_their_letters_need():
    """Forty letters are three inches or so, not three times the panels."""
    long = TABLE.assign(bar=TABLE["bar"] + "x" * 36)
    widths = [dots.dots_figure(plots.bar_table(t), 3, None, "screen").get_figwidth() for t in (TABLE, long)]
    assert 2.5 < widths[1] - widths[0] < 4 and widths[0] < 8


def test_what_cannot_be_drawn():
    with pytest.raises(UserError, match="columns must be at least 1"):
        dots.dots_figure(plots.bar_table(TABLE), 0, None, "screen")
    with pytest.raises(UserError, match="occurs more than once"):
        dots.dots(pd.concat([TABLE, TABLE]), "x")


def test_long_words_below_a_panel_are_broken_into_lines():
    bars = pd.DataFrame({"group": ["a"], "bar": ["b"], "value": [1.0]})
    below = "a length-controlled win rate (%) over all of the prompts, judge: a_judge_with_a_name_of_its_own"
    part = panels.Panel(bars, "title", below, "")
    (axes,) = panels.panels_figure([plots.bar_table(bars)], [part], False, "screen").axes
    lines = axes.get_xlabel().split("\n")
    assert len(lines) == 2 and " ".join(lines) == below
