"""plots: what is drawn (lines, bands, ticks, legend, not pixels), what is written beside it, and what is refused."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.measure.plots import curves as plots
from irlens.measure.plots import style as figure_style
from irlens.reproduce import paper

LABELS = {"x_label": "N", "y_label": "Pass@N"}


def pass_at_n(temperatures=(0.1, 0.5, 1.0), counts=(1, 2, 5, 10, 20, 50, 100)) -> pd.DataFrame:
    rows = [(f"T = {t}", n, 1 - 0.5 / n ** (0.2 + t / 10)) for t in temperatures for n in counts]
    table = pd.DataFrame(rows, columns=["curve", "x", "value"])
    return table.assign(low=table["value"] - 0.01, high=table["value"] + 0.02)


def bar_table() -> pd.DataFrame:
    rows = [(g, b, i / 10 + j / 5) for i, g in enumerate(("MixEval", "MATH")) for j, b in enumerate(("SFT", "DPO"))]
    table = pd.DataFrame(rows, columns=["group", "bar", "value"])
    return table.assign(low=table["value"] - 0.05, high=table["value"] + 0.1)


def figure_of(results, points=None, **options):
    return plots.curves_figure(plots.curve_table(results, points), **LABELS | options)


def legend_of(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def tick_labels(axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


# -- what is drawn -------------------------------------------------------------------------------------------------


def test_each_curve_is_a_line_through_its_points():
    table = pass_at_n()
    figure = figure_of(table.sample(frac=1, random_state=0))
    lines = figure.axes[0].get_lines()
    assert legend_of(figure) == ["T = 0.1", "T = 0.5", "T = 1.0"]
    for line, (_, points) in zip(lines, table.groupby("curve"), strict=True):
        assert list(line.get_xdata()) == list(points["x"])
        assert list(line.get_ydata()) == list(points["value"])
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("N", "Pass@N")


def test_bands_reach_from_low_to_high():
    figure = figure_of(pass_at_n(temperatures=(0.5,), counts=(1, 2)))
    (band,) = [c for c in figure.axes[0].collections if len(c.get_paths()) and c.get_alpha()]
    corners = {(x, round(y, 9)) for x, y in band.get_paths()[0].vertices}
    assert {(1, 0.49), (1, 0.52)} <= corners
    assert not [c for c in figure_of(pass_at_n().drop(columns=["low", "high"])).axes[0].collections if c.get_alpha()]


def test_an_interval_without_neighbours_is_still_drawn():
    table = pass_at_n(temperatures=(0.5,), counts=(1, 2, 5))
    table.loc[table["x"] != 2, ["low", "high"]] = np.nan
    figure = figure_of(table)
    segments = [s for c in figure.axes[0].collections if hasattr(c, "get_segments") for s in c.get_segments()]
    assert [s.tolist() for s in segments] == [[[2, table["low"][1]], [2, table["high"][1]]]]


def test_curves_differ_without_colour_and_shades_follow_the_temperature():
    lines = figure_of(pass_at_n((1.0, 0.1, 0.5, 0.7, 0.2))).axes[0].get_lines()
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 5
    assert len({line.get_marker() for line in lines}) == 5
    from matplotlib.colors import to_rgb

    light = [np.dot(to_rgb(line.get_color()), (0.2126, 0.7152, 0.0722)) for line in lines]
    assert light == sorted(light)
    assert light[-1] > light[0] + 0.3


def test_other_names_get_the_colour_blind_safe_palette_in_the_order_of_the_table():
    table = pd.DataFrame({"curve": ["zeta", "T = 1.0", "alpha"], "x": [0, 0, 0], "value": [1, 2, 3]})
    figure = figure_of(table)
    assert legend_of(figure) == ["zeta", "T = 1.0", "alpha"]
    assert [line.get_color() for line in figure.axes[0].get_lines()] == list(plots.COLOURS[:3])


def test_two_families_of_temperatures_are_not_confused():
    names = ["base, T = 0.1", "base, T = 1.0", "tuned, T = 0.1", "tuned, T = 1.0"]
    table = pd.DataFrame({"curve": names, "x": 1, "value": 0.5})
    lines = figure_of(table).axes[0].get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 4


def test_paper_points_are_hollow_and_look_like_the_curve_of_their_temperature():
    points = paper.points("2b").rename(columns={"y": "value"})
    figure = figure_of(pass_at_n((0.1, 0.2, 0.5, 0.7, 1.0)), points)
    lines = figure.axes[0].get_lines()
    assert len(lines) == 10
    for ours, theirs in zip(lines[:5], lines[5:], strict=True):
        assert (ours.get_color(), ours.get_marker()) == (theirs.get_color(), theirs.get_marker())
        assert theirs.get_markerfacecolor() == "none"
        assert theirs.get_linestyle() == ":"
        assert ours.get_linestyle() != ":"
    assert list(lines[9].get_ydata()) == list(points[points["curve"].str.endswith("1.0")]["value"])
    assert legend_of(figure)[5] == "paper: Mathstral-7b-it on GSM8K, temperature=0.1"


def test_a_logarithmic_axis_shows_the_values_themselves():
    axes = figure_of(pass_at_n(counts=range(1, 101)), log_x=True).axes[0]
    assert axes.get_xscale() == "log"
    assert tick_labels(axes) == ["1", "2", "5", "10", "20", "50", "100"]
    assert list(axes.get_xticks(minor=True)) == []
    few = figure_of(pass_at_n(counts=(1, 3, 8, 1000)), log_x=True).axes[0]
    assert tick_labels(few) == ["1", "3", "8", "1000"]


@pytest.mark.parametrize("style", figure_style.STYLES)
@pytest.mark.parametrize("counts", [(1, 5, 10, 20, 30, 40, 50, 100, 150, 300), tuple(range(11, 60)), (7,)])
def test_logarithmic_ticks_do_not_collide(style, counts):
    figure = figure_of(pass_at_n(counts=counts), log_x=True, style=style)
    figure.draw_without_rendering()
    ticks = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    labels = tick_labels(figure.axes[0])
    assert (labels[0], labels[-1]) == (str(counts[0]), str(counts[-1]))
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(ticks))


def test_a_linear_axis_with_few_values_has_them_as_ticks():
    iterations = pd.DataFrame({"curve": "a", "x": [0, 1, 2, 3], "value": [1.0, 2, 3, 4]})
    assert list(figure_of(iterations).axes[0].get_xticks()) == [0, 1, 2, 3]
    steps = pd.DataFrame({"curve": "a", "x": range(0, 900, 7), "value": 1.0})
    assert all(tick % 1 == 0 for tick in figure_of(steps).axes[0].get_xticks())
    tokens = pd.DataFrame({"curve": "a", "x": [0, 248_029.4, 248_288.6, 746_567.4], "value": 1.0})
    shown = figure_of(tokens)
    shown.draw_without_rendering()
    assert "200 k" in [label.get_text() for label in shown.axes[0].get_xticklabels()]


def test_many_points_are_marked_at_the_ticks():
    line = figure_of(pass_at_n((0.5,), range(1, 101)), log_x=True).axes[0].get_lines()[0]
    assert [line.get_xdata()[i] for i in line.get_markevery()] == [1, 2, 5, 10, 20, 50, 100]


NAMES = ["a", "a curve with a rather long name, " * 4]


@pytest.mark.parametrize("style", figure_style.STYLES)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_off_or_overlaps(style, name):
    table = pd.DataFrame({"curve": [name, "_b $5 and $6"], "x": [1, 2], "value": [1, 2]})
    figure = figure_of(table, title="A title that goes on for much longer than the picture is wide, " * 2, style=style)
    figure.draw_without_rendering()
    axes, legend, whole = figure.axes[0], figure.legends[0].get_window_extent(), figure.bbox
    title = axes.title.get_window_extent()
    assert not legend.overlaps(axes.get_tightbbox())
    assert not legend.overlaps(title)
    for box in (legend, title, axes.xaxis.label.get_window_extent(), axes.yaxis.label.get_window_extent()):
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= whole.x1 + 1
        assert box.y1 <= whole.y1 + 1
    assert axes.bbox.height > 0.3 * figure.bbox.height
    assert legend_of(figure)[1] == "_b $5 and $6"


def test_the_paper_style_is_one_column_wide():
    figure = figure_of(pass_at_n(), style="paper")
    assert figure.get_figwidth() == 3.3
    assert figure.axes[0].xaxis.label.get_size() == 8
    assert figure.axes[0].xaxis.label.get_fontfamily() == ["serif"]


@pytest.mark.parametrize("horizontal", [False, True])
def test_bars_and_their_whiskers(horizontal):
    table = bar_table()
    figure = plots.bars_figure(plots.bar_table(table), value_label="accuracy", horizontal=horizontal)
    axes = figure.axes[0]
    lengths = [p.get_width() if horizontal else p.get_height() for c in axes.containers[::2] for p in c]
    assert lengths == pytest.approx([0.0, 0.1, 0.2, 0.3])  # SFT on MixEval and MATH, then DPO
    ends = [s[:, 0 if horizontal else 1] for c in axes.collections for s in c.get_segments()]
    assert np.sort(np.array(ends), axis=0) == pytest.approx(np.array([[v - 0.05, v + 0.1] for v in (0, 0.1, 0.2, 0.3)]))
    patches = [container[0] for container in axes.containers[::2]]
    assert len({patch.get_hatch() for patch in patches}) == 2
    assert legend_of(figure) == ["SFT", "DPO"]
    names = axes.get_yticklabels() if horizontal else axes.get_xticklabels()
    assert [name.get_text() for name in names] == ["MixEval", "MATH"]


def test_bars_lie_down_for_long_group_names():
    long = bar_table().replace({"MATH": "wrong answers to the same question, sampled at a low temperature"})
    for table, label in ((bar_table(), "get_ylabel"), (long, "get_xlabel")):
        figure = plots.bars_figure(plots.bar_table(table), value_label="accuracy")
        assert getattr(figure.axes[0], label)() == "accuracy"


# -- what is written -----------------------------------------------------------------------------------------------


def test_three_files_are_written_with_fonts_and_without_dates(tmp_path):
    paths = plots.curves(pass_at_n(), tmp_path / "new" / "fig.2b", **LABELS, log_x=True)
    assert [path.name for path in paths] == ["fig.2b.png", "fig.2b.pdf", "fig.2b.csv"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    png, pdf = paths[0].read_bytes(), paths[1].read_bytes()
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20], "big") == 1400  # 7 in at 200 dpi
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


@pytest.mark.parametrize("suffix", figure_style.SUFFIXES)
def test_a_suffix_of_the_path_is_not_doubled(suffix, tmp_path):
    paths = plots.bars(bar_table(), tmp_path / f"fig{suffix}", value_label="v", style="paper")
    assert [path.name for path in paths] == ["fig.png", "fig.pdf", "fig.csv"]


def test_the_same_table_gives_the_same_bytes_whatever_the_settings(tmp_path):
    import matplotlib

    points = pd.DataFrame({"curve": ["T = 0.5"], "x": [10], "value": [0.8]})
    first = plots.curves(pass_at_n(), tmp_path / "a", **LABELS, paper=points)
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.grid": False, "pdf.fonttype": 3}):
        second = plots.curves(pass_at_n().sample(frac=1, random_state=0), tmp_path / "b", **LABELS, paper=points)
        assert matplotlib.rcParams["lines.linewidth"] == 9
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_points_without_any_interval_come_back(tmp_path):
    table = pass_at_n((0.5,), (1, 2)).assign(low=np.nan, high=np.nan, note=["", "7"])
    csv = plots.curves(table, tmp_path / "a", **LABELS)[2]
    back = plots.read_results(csv)
    assert back["low"].isna().all()
    assert list(back["value"]) == list(table["value"])
    assert figure_of(back).axes[0].get_lines()[0].get_xdata().tolist() == [1, 2]


def test_the_csv_holds_what_was_drawn_and_is_drawn_again_the_same(tmp_path):
    table = pass_at_n((1.0, 0.1), (1, 3)).assign(n=1319)
    points = pd.DataFrame({"curve": ["NA", "NA"], "x": [3, 1], "value": [1 / 3, 0.25]})
    _, pdf, csv = plots.curves(table, tmp_path / "a", **LABELS, paper=points)
    back = plots.read_results(csv)
    assert list(back.columns) == ["curve", "x", "value", "low", "high", "n", "origin"]
    assert list(back["curve"]) == ["T = 0.1", "T = 0.1", "T = 1.0", "T = 1.0", "NA", "NA"]
    assert list(back["x"]) == [1, 3, 1, 3, 1, 3]
    ours = back[back["origin"] == "measured"]
    assert list(ours["value"]) == list(table.sort_values(["curve", "x"])["value"])
    assert set(ours["n"]) == {1319}
    assert list(back["value"])[-1] == 1 / 3
    before = csv.read_bytes(), pdf.read_bytes()
    plots.curves(back, csv, **LABELS)
    assert (csv.read_bytes(), pdf.read_bytes()) == before


def test_a_bar_csv_is_drawn_again_the_same(tmp_path):
    _, pdf, csv = plots.bars(bar_table(), tmp_path / "a", value_label="v")
    before = csv.read_bytes(), pdf.read_bytes()
    plots.bars(plots.read_results(csv), csv, value_label="v")
    assert (csv.read_bytes(), pdf.read_bytes()) == before
    pd.testing.assert_frame_equal(plots.read_results(csv), bar_table(), check_exact=True)


def test_the_table_of_the_caller_is_left_alone(tmp_path):
    table = pass_at_n().sample(frac=1, random_state=0)
    before = table.copy()
    figure_of(table, table)
    pd.testing.assert_frame_equal(table, before)


# -- what is refused -----------------------------------------------------------------------------------------------


BAD_CURVES = [
    (lambda t: t.iloc[:0], "the table is empty"),
    (lambda t: t.drop(columns=["curve", "value"]), "missing: curve, value (found: x, low, high)"),
    (lambda t: t.drop(columns="high"), "missing: high"),
    (lambda t: t.assign(value=[0.5, np.nan]), "row 1: value must be a finite number, got nan"),
    (lambda t: t.assign(value=[0.5, np.inf]), "row 1: value must be a finite number, got inf"),
    (lambda t: t.assign(x=["1", "many"]), "row 1: x must be a finite number, got 'many'"),
    (lambda t: t.assign(curve=["a", None]), "row 1: curve must be a name"),
    (lambda t: t.assign(low=[0.1, np.nan]), "row 1: low must be a number where high is one"),
    (lambda t: t.assign(high=[0.1, 0.9]), "row 0: high must be at least low"),
    (lambda t: t.assign(low=["?", 0.1]), "row 0: low must be a finite number, got '?'"),
    (lambda t: t.assign(x=1), "origin=measured, curve=T = 0.5, x=1 occurs more than once"),
    (lambda t: t.assign(origin="a book"), "origin must be measured or paper, got 'a book'"),
    (lambda t: t.assign(x=[0, 1]), "x must be above 0 on a logarithmic axis, got 0"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_CURVES)
def test_bad_curves_are_refused_before_a_file_is_written(spoil, message, tmp_path):
    with pytest.raises(UserError) as error:
        plots.curves(spoil(pass_at_n((0.5,), (1, 2))), tmp_path / "a", **LABELS, log_x=True)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_bad_paper_points_bars_and_styles_are_refused(tmp_path):
    with pytest.raises(UserError, match="paper points: needs the columns curve, x, value"):
        plots.curves(pass_at_n(), tmp_path / "a", **LABELS, paper=paper.points("2b"))
    with pytest.raises(UserError, match="missing: group, bar"):
        plots.bars(pass_at_n(), tmp_path / "a", value_label="v")
    with pytest.raises(UserError, match="group=MixEval, bar=SFT occurs more than once"):
        plots.bars(pd.concat([bar_table(), bar_table()]), tmp_path / "a", value_label="v")
    with pytest.raises(UserError, match="did you mean 'paper'"):
        plots.curves(pass_at_n(), tmp_path / "a", **LABELS, style="papper")
    with pytest.raises(UserError, match="not a file name for a figure"):
        plots.bars(bar_table(), Path("."), value_label="v")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a CSV table"),
        (b"curve,x,value\n", "the table is empty"),
        (b"a,b\n1,2\n", "needs the columns curve, x, value or group, bar, value"),
        (b"curve,x\na,1\n", "missing: value"),
        (b"curve,x,value\na,1,high\n", "row 0: value must be a finite number, got 'high'"),
        (b"curve,x,value\na,1\n", "row 0: value must be a finite number, got"),
        (b"curve,x,value\n,1,2\n", "row 0: curve must be a name, got ''"),
        (b"curve,x,value\na,1,2\na,1,2,3\n", "not a CSV table"),
        (b"curve,x,value\na,1,2,3\nb,1,2,3\n", "more fields than the header"),
        (b"curve,x,value\n\xff,1,2\n", "not a CSV table"),
        (b"group,bar,value\na,b,\n", "row 0: value must be a finite number"),
    ],
)
def test_a_malformed_results_file_is_refused_by_name(content, message, tmp_path):
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        plots.read_results(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_results_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: cannot be read"):
        plots.read_results(tmp_path / "none.csv")


# -- the paper's points, and imports -------------------------------------------------------------------------------


def test_the_paper_has_the_points_of_its_figures():
    points = paper.points("2b")
    assert list(points.columns) == ["figure", "curve", "x_name", "x", "y_name", "y"]
    assert points["curve"].nunique() == 5
    assert sorted(set(points["x"])) == [1, 3, 5, 10, 20, 50, 100]
    best = points[points["curve"].str.endswith("temperature=1.0")].set_index("x")["y"]
    assert (best[1], best[100]) == (0.5125, 0.9909)  # 1.0 is worst for one response and best for a hundred
    assert set(paper.points("4")["curve"]) == {"LC win rate", "win rate"}
    for figure in ("2a", "3a", "3b", "3c"):
        assert set(paper.points(figure)["figure"]) == {figure}


def test_an_unknown_figure_of_the_paper_is_refused():
    with pytest.raises(UserError, match=r"unknown figure of the paper '2c': .*known: 2a, 2b, 3a, 3b, 3c, 4"):
        paper.points("2c")


def test_importing_plots_is_cheap_and_pyplot_is_never_imported(tmp_path):
    code = (
        "import sys, irlens.measure.plots.curves, irlens.reproduce.paper; print({'matplotlib', 'pandas', 'numpy'} & set(sys.modules))\n"
        "import pandas as pd\n"
        "t = pd.DataFrame({'curve': ['a', 'b'], 'x': [1, 1], 'value': [1, 2]})\n"
        f"irlens.measure.plots.curves.curves(t, {str(tmp_path / 'a')!r}, x_label='x', y_label='y')\n"
        "print({'matplotlib', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set()", "{'matplotlib'}"]
