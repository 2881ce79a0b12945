"""Figure 2 and its halves from a recipe's steps: Recall@N of retrievers, Pass@N of a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.arms import Done
from irlens.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from irlens.panels import Panel
    from irlens.recipe import Recipe, Step

FIGURES = {"2a": ("recall",), "2b": ("passk",), "2": ("recall", "passk")}  # the stages that each is drawn from


def check(figure: str, steps: Sequence[Step], where: str) -> None:
    """Raises UserError for another figure, or one whose stages the recipe does not have."""
    if figure not in FIGURES:
        raise UserError(f"{where}: unknown figure {figure!r}; {did_you_mean(str(figure), FIGURES)}")
    for stage in FIGURES[figure]:
        if stage not in {step.stage for step in steps}:
            raise UserError(f"{where} {figure} needs a stage {stage}")


def draw(recipe: Recipe, found: Sequence[dict[str, Done]], path: Path, style: str) -> list[Path]:
    """The panels of `recipe.figure` beside each other, with the paper's points: `path` + .png, .pdf and .csv.

    found: a dictionary per seed. The curves are means over seeds, their intervals over seeds and queries.
    """
    from irlens import panels, plots

    parts = [PANELS[stage](recipe, found) for stage in FIGURES[recipe.figure]]
    if len(parts) > 1:
        return panels.panels(parts, path, log_x=True, style=style)
    (p,) = parts
    labels = {"x_label": p.x_label, "y_label": p.y_label}
    return plots.curves(p.table, path, title=p.title, log_x=True, paper=p.paper, style=style, **labels)


def over_seeds(found: Sequence[Done]) -> pd.DataFrame:
    """The results of one step over seeds: means, with 95 % intervals over seeds and queries; of one seed its own.

    Seeds of a retriever that draws nothing agree, so that its intervals are over queries alone.
    """
    import pandas as pd

    from irlens import stats

    results = found[0].results.copy()
    if len(found) == 1:
        return results
    each = pd.concat(
        [pd.read_parquet(done.folder / "per_query.parquet").assign(seed=i) for i, done in enumerate(found)]
    )
    values = each.pivot(index=["run", "measure", "seed"], columns="query_id", values="value")
    for i, row in zip(results.index, results.itertuples()):
        of_cell = values.loc[row.run, row.measure].to_numpy()
        results.loc[i, ["value", "low", "high"]] = [of_cell.mean(), *stats.crossed_interval(of_cell)]
    return results


def _recall(recipe: Recipe, found: Sequence[dict[str, Done]]) -> Panel:
    """Figure 2a: our Recall@N curves with the paper's e5 points as hollow marks."""
    from irlens import paper
    from irlens.panels import Panel
    from irlens.stages import measuring

    points = paper.points("2a").rename(columns={"y": "value"})
    step = next(step for step in recipe.steps if step.stage == "recall")
    curves = measuring.recall_curves(over_seeds([seed[step.name] for seed in found]))
    title = f"Recall@N on {step.settings.dataset} (lines); e5 on NQ (paper)"
    return Panel(curves, title, "N (passages per question)", "Recall@N", points)


def _passk(recipe: Recipe, found: Sequence[dict[str, Done]]) -> Panel:
    """Figure 2b: our Pass@N curves with the paper's Mathstral points as hollow marks."""
    from irlens import paper
    from irlens.panels import Panel
    from irlens.stages import measuring

    points = paper.points("2b").rename(columns={"y": "value"})
    points["curve"] = points["curve"].str.replace(r".*?([\d.]+)\D*$", r"T = \1", regex=True)
    step = next(step for step in recipe.steps if step.stage == "passk")
    curves = measuring.passk_curves(over_seeds([seed[step.name] for seed in found]))
    title = f"Pass@N of {step.settings.model} (lines) and of Mathstral on GSM8K (paper)"
    return Panel(curves, title, "N (draws per problem)", "Pass@N", points)


PANELS: dict[str, Callable[..., Panel]] = {"recall": _recall, "passk": _passk}
