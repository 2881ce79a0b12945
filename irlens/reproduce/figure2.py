"""Figure 2 and its halves from a recipe's steps: Recall@N of retrievers, Pass@N of a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError, did_you_mean
from irlens.base.options import cutoffs
from irlens.reproduce import study as studies
from irlens.reproduce.records import PAIR, Claim, Recipe, Step

if TYPE_CHECKING:
    import pandas as pd

    from irlens.measure.plots.panels import Panel

FIGURES = {"2a": ("recall",), "2b": ("passk",), "2": ("recall", "passk")}  # the stages that each is drawn from


def check(figure: str, steps: Sequence[Step], where: str) -> None:
    """Raises UserError for another figure, or one whose stages the recipe does not have."""
    if figure not in FIGURES:
        raise UserError(f"{where}: unknown figure {figure!r}; {did_you_mean(str(figure), FIGURES)}")
    for stage in FIGURES[figure]:
        if stage not in {step.stage for step in steps}:
            raise UserError(f"{where} {figure} needs a stage {stage}")


def check_claim(claim: Claim, steps: Sequence[Step], where: str) -> None:
    """Raises UserError for a pair of another form, or of temperatures or an N that the recipe does not measure."""
    settings = next((step.settings for step in steps if step.stage == "passk"), None)
    if settings is None:
        raise UserError(f"{where} needs a stage passk")
    for pair in claim.better:
        if not PAIR.fullmatch(pair):
            raise UserError(f'{where}: better = {pair!r} must be "T = 0.1 > T = 1 at N = 1"')
    for *heats, N in claim.pairs:
        for heat in heats:
            if heat not in settings.temperature:
                raise UserError(f"{where}: T = {heat:g} is not drawn at; {list(settings.temperature)} are")
        if N not in (known := cutoffs(settings.n, settings.at)):
            raise UserError(f"{where}: N = {N} is not measured; {known} are")


def report(recipe: Recipe, claim: Claim, kept: pd.DataFrame, out: Path, say: Callable[[str], None]) -> list[str]:
    """Tests a claim over seeds and problems, with Holm's correction: tests.csv, conclusions.md; returns the sentences.

    kept: a value per problem, as `kept.collect` has it.
    """
    import pandas as pd

    from irlens.measure import stats
    from irlens.reproduce import kept as of_kept

    step = next(step for step in recipe.steps if step.stage == "passk")
    cells = {
        (float(run.rpartition("T=")[2]), int(measure.partition("@")[2])): cell
        for (run, measure), cell in of_kept.curves(kept, step.name).items()
    }
    rows = [
        studies.paired(cells[worse, N], cells[better, N], f"T = {worse:g}", f"T = {better:g}")
        | {"measure": f"Pass@{N}"}
        for better, worse, N in claim.pairs
    ]
    tests = pd.DataFrame(rows)
    tests["p_holm"] = stats.holm(tests["p"])
    files.write_csv(tests, out / "tests.csv")
    sentences = [studies.against_claim(row, row.measure) for row in tests.itertuples()]
    sentences += studies.few_seeds({N: cells[better, N] - cells[worse, N] for better, worse, N in claim.pairs})
    return studies.conclude(recipe, claim.text, sentences, next(iter(cells.values())).shape, out, say)


def draw(recipe: Recipe, kept: pd.DataFrame, path: Path, style: str) -> list[Path]:
    """The panels of `recipe.figure` beside each other, with the paper's points: `path` + .png, .pdf and .csv.

    kept: a value per problem, as `kept.collect` has it. The curves are means over seeds, their intervals over seeds and
    queries.
    """
    from irlens.measure.plots import curves as plots
    from irlens.measure.plots import panels

    parts = [PANELS[stage](recipe, kept) for stage in FIGURES[recipe.figure]]
    if len(parts) > 1:
        return panels.panels(parts, path, log_x=True, style=style)
    (p,) = parts
    labels = {"x_label": p.x_label, "y_label": p.y_label}
    return plots.curves(p.table, path, title=p.title, log_x=True, paper=p.paper, style=style, **labels)


def over_seeds(kept: pd.DataFrame, step: str) -> pd.DataFrame:
    """The results of one step over seeds: means, with 95 % intervals over seeds and queries; of one seed over queries.

    Seeds of a retriever that draws nothing agree, so that its intervals are over queries alone.
    """
    import pandas as pd

    from irlens.measure import stats
    from irlens.reproduce import kept as of_kept

    rows = []
    for (run, measure), values in of_kept.curves(kept, step).items():
        agree = (values == values[0]).all()
        low, high = stats.mean_interval(values[0]) if agree else stats.crossed_interval(values)
        cutoff = int(measure.partition("@")[2])
        rows.append((run, measure, cutoff, values.mean(), low, high, values.shape[1]))
    return pd.DataFrame(rows, columns=["run", "measure", "cutoff", "value", "low", "high", "n"])


def _recall(recipe: Recipe, kept: pd.DataFrame) -> Panel:
    """Figure 2a: our Recall@N curves with the paper's e5 points as hollow marks."""
    from irlens.commands import evaluate as measuring
    from irlens.measure.plots.panels import Panel
    from irlens.reproduce import paper

    points = paper.points("2a").rename(columns={"y": "value"})
    step = next(step for step in recipe.steps if step.stage == "recall")
    curves = measuring.recall_curves(over_seeds(kept, step.name))
    title = f"Recall@N on {step.settings.dataset} (lines); e5 on NQ (paper)"
    return Panel(curves, title, "N (passages per question)", "Recall@N", points)


def _passk(recipe: Recipe, kept: pd.DataFrame) -> Panel:
    """Figure 2b: our Pass@N curves with the paper's Mathstral points as hollow marks."""
    from irlens.commands import evaluate as measuring
    from irlens.measure.plots.panels import Panel
    from irlens.reproduce import paper

    points = paper.points("2b").rename(columns={"y": "value"})
    points["curve"] = points["curve"].str.replace(r".*?([\d.]+)\D*$", r"T = \1", regex=True)
    step = next(step for step in recipe.steps if step.stage == "passk")
    found = over_seeds(kept, step.name)
    found["temperature"] = [float(run.rpartition("T=")[2]) for run in found["run"]]
    curves = measuring.passk_curves(found)
    title = f"Pass@N of {step.settings.model} (lines) and of Mathstral on GSM8K (paper)"
    return Panel(curves, title, "N (draws per problem)", "Pass@N", points)


PANELS: dict[str, Callable[..., Panel]] = {"recall": _recall, "passk": _passk}
