"""Panels beside each other: an axis of their own for curves at the right, and each panel's own kind of x axis."""

import pandas as pd

from irlens.measure.plots import curves as plots
from irlens.measure.plots import panels


def table(*names):
    rows = [(name, x, i + x / 10, i + x / 10 - 0.1, i + x / 10 + 0.1) for i, name in enumerate(names) for x in (1, 10)]
    return pd.DataFrame(rows, columns=["curve", "x", "value", "low", "high"])


def test_a_curve_at_the_right_has_an_axis_of_its_own():
    parts = [
        panels.Panel(
            table("truth", "reward"), "a", "N", "share", log_x=True, right=("reward",), right_label="mean reward"
        ),
        panels.Panel(table("truth"), "b", "s", "share"),
    ]
    figure = panels.panels_figure([plots.curve_table(part.table) for part in parts], parts, False, "screen")
    left, plain, right = figure.axes
    assert [len(axes.lines) for axes in (left, plain, right)] == [1, 1, 1]
    assert right.get_ylabel() == "mean reward" and left.get_ylabel() == plain.get_ylabel() == "share"
    assert right.lines[0].get_ydata().tolist() == [1.1, 2.0] and left.get_ylim()[1] < 1.5 < right.get_ylim()[1]
    assert [axes.get_xscale() for axes in (left, right, plain)] == ["log", "log", "linear"]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["truth", "reward"]
