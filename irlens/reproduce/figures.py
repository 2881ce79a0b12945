"""The figure of a study: its arms as bars, on an axis, by iteration or by budget, and the paper's beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.reproduce import chat
from irlens.reproduce.records import Recipe

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.measure.plots.panels import Panel

LABELS = {"iterations": "LarPO iteration", "budget": "tokens generated for training"}


def curves_along(values: dict[str, list[np.ndarray]], places: dict[str, np.ndarray]) -> pd.DataFrame:
    """`curve, x, value, low, high, n`: a curve per arm of values[iterations][seeds, problems], with intervals over both.

    places: arm → x[seeds, iterations], whose mean over seeds is drawn.
    """
    import pandas as pd

    from irlens.measure import stats

    rows = []
    for arm, arrays in values.items():
        spent = places[arm].mean(axis=0)
        for x, array in zip(spent, arrays):
            low, high = stats.crossed_interval(array)
            rows.append((arm, x, array.mean(), low, high, array.shape[1]))
    return pd.DataFrame(rows, columns=["curve", "x", "value", "low", "high", "n"])


def draw(
    recipe: Recipe,
    table: pd.DataFrame,
    along: pd.DataFrame | None,
    tests: Mapping[str, pd.DataFrame],
    path: Path,
    style: str,
) -> list[Path]:
    """Draws the arms' `table` (or the curves `along` iterations or tokens, or gains by the `tests` of each label); the
    paper's, where the study names them, in a panel of their own, since their units differ. Writes `path` + .png, .pdf and
    .csv."""
    from irlens.measure.plots import curves as plots
    from irlens.measure.plots import panels
    from irlens.reproduce import paper

    study = recipe.study
    if study.kind == "gains":
        return _gains(recipe, tests, path, style)
    ours = _ours(recipe, table, along)
    if study.beside:
        there = paper.beside(study.beside, study.column)
        left = replace(ours, table=ours.table.assign(origin="measured"), title=f"ours, {ours.title}")
        both = [left, _theirs(recipe, there, ours)]
        return panels.panels(both, path, style=style, share_y=False)
    title = f"{recipe.title} ({ours.title})"
    if study.also and study.kind == "bars":
        others = [_ours(replace(recipe, study=replace(study, measure=m)), table, None) for m in study.also]
        return panels.panels([ours, *others], path, style=style, share_y=False)
    if "bar" in ours.table.columns:
        return plots.bars(ours.table, path, title=title, value_label=ours.x_label, style=style)
    labels = {"x_label": ours.x_label, "y_label": ours.y_label}
    return plots.curves(ours.table, path, title=title, style=style, **labels)


def _gains(recipe: Recipe, tests: Mapping[str, pd.DataFrame], path: Path, style: str) -> list[Path]:
    """What each arm gains over the start, in points, with the intervals of the paired tests (a label → the table that
    `study.judge` gives), a panel per label."""
    import pandas as pd

    from irlens.measure.plots import dots

    parts = []
    for label, table in tests.items():
        own = table[table["before"] == "start"]
        points = 100 * own[["difference", "low", "high"]].set_axis(["value", "low", "high"], axis=1)
        parts.append(points.assign(group=f"{label}, points above the start", bar=own["after"], n=own["n"]))
    shown = pd.concat(parts, ignore_index=True)[["group", "bar", "value", "low", "high", "n"]]
    title = f"{recipe.title} ({_trained(recipe)})"
    return dots.dots(shown, path, columns=2, title=title, style=style, zero=True)


def _trained(recipe: Recipe) -> str:
    """Which model was trained on what."""
    from irlens.models import catalog

    trained = next(step.settings for step in recipe.steps if step.stage == "train")
    return f"{trained.model} on {trained.dataset or catalog.model(trained.model).dataset}"


def _ours(recipe: Recipe, table: pd.DataFrame, along: pd.DataFrame | None) -> Panel:
    """Our panel; its title says which model was trained on what."""
    from irlens.measure.plots.panels import Panel

    study = recipe.study
    chosen = table[table["measure"] == study.measure]
    heat = [f"T = {t:g}" for t in chosen["temperature"]]
    title = _trained(recipe)
    if study.measure in chat.MEASURES:
        return _judged(recipe, table, title)
    judge = "".join(chosen["judge"].unique()) if "judge" in chosen.columns else ""
    words = f"{study.measure} on held-out problems" + (f", judge: {judge}" if judge else "")
    if along is not None:
        return Panel(along, title, LABELS[study.kind], f"{study.label} on held-out problems")
    if study.kind == "bars":
        bars = chosen.assign(group=heat, bar=chosen["arm"])[["group", "bar", "value", "low", "high", "n"]]
        return Panel(bars, title, words, "")
    arms = [arm for arm in dict.fromkeys(chosen["arm"]) if arm != "start"]
    curves = chosen.assign(curve=heat, x=chosen["arm"].map(dict(zip(arms, study.x))))
    placed = curves[curves["arm"] != "start"][["curve", "x", "value", "low", "high", "n"]]
    return Panel(placed, title, study.x_label, words)


def _judged(recipe: Recipe, table: pd.DataFrame, title: str) -> Panel:
    """What a judge says, in points of 100 as the paper has it, and who that is: bars of what decides; on an axis win rates
    plain and length-controlled."""
    from irlens.measure.plots.panels import Panel

    study = recipe.study
    shown = [study.measure] if study.kind == "bars" else [m for m in chat.MEASURES if m.endswith("WinRate")]
    chosen = table[table["measure"].isin(shown)].copy()
    chosen[["value", "low", "high"]] *= 100
    judge = chosen[chosen["measure"] == study.measure]["judge"].iloc[0]
    words = chosen["measure"].map(chat.MEASURES)
    if study.kind == "bars":
        bars = chosen.assign(group=[f"T = {t:g}" for t in chosen["temperature"]], bar=chosen["arm"])
        label = f"{chat.MEASURES[study.measure]} (%), judge: {judge}"
        return Panel(bars[["group", "bar", "value", "low", "high", "n"]], title, label, "")
    arms = [arm for arm in dict.fromkeys(chosen["arm"]) if arm != "start"]
    curves = chosen.assign(curve=words, x=chosen["arm"].map(dict(zip(arms, study.x or ()))))
    curves = curves.sort_values("curve", key=lambda some: some.map(list(chat.MEASURES.values()).index), kind="stable")
    placed = curves[curves["arm"] != "start"][["curve", "x", "value", "low", "high", "n"]]
    return Panel(placed, title, study.x_label, f"win rate (%), judge: {judge}")


def _theirs(recipe: Recipe, there: pd.DataFrame, ours: Panel) -> Panel:
    """The paper's panel; a curve that names an arm of ours in its first word, or a bar of ours, looks as ours does."""
    from irlens.measure.plots.panels import Panel

    if "bar" in there.columns:
        shown = list(dict.fromkeys(ours.table["bar"]))
        order = {name: shown.index(name) if name in shown else len(shown) for name in there["bar"]}
        there = there.sort_values("bar", key=lambda bars: bars.map(order), kind="stable", ignore_index=True)
        label = recipe.study.column.replace("_lc_wr", ", length-controlled win rate (%)").replace(
            "_wr", ", win rate (%)"
        )
        label = label.replace("alpacaeval2", "AlpacaEval2").replace("_", " ")
        label += _judge_of(recipe)
        return Panel(there.assign(origin="paper"), "the paper", label, "")
    shown = list(dict.fromkeys(ours.table["curve"]))
    names = there["curve"].map(lambda name: name.split()[0] if name.split()[0] in shown else name)
    points = there.assign(curve=names, origin="paper")[["curve", "x", "value", "origin"]]
    order = {name: shown.index(name) if name in shown else len(shown) for name in names}
    points = points.sort_values("curve", key=lambda curves: curves.map(order), kind="stable", ignore_index=True)
    units = min(there["y_name"].unique(), key=len)  # of "LC win rate" and "win rate" what they share: curves have names
    return Panel(points, "the paper" + _judge_of(recipe), there["x_name"].iloc[0], units)


def _judge_of(recipe: Recipe) -> str:
    """Who judged the paper's numbers, where ours are a judge's too."""
    from irlens.reproduce import paper

    study = recipe.study
    named = paper.judge(study, study.measure) if study.measure in chat.MEASURES else ""
    return f", judge: {named}" if named else ""
