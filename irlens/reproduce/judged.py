"""What a recipe's judges say of every policy, as a table beside the paper's own numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.untrusted import markdown, markdown_table
from irlens.reproduce import paper
from irlens.reproduce.chat import MEASURES
from irlens.reproduce.records import Recipe, Study

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.reproduce.arms import Values

NAME = "judged"


def table(recipe: Recipe, values: Mapping[str, Values], judges: Mapping[str, str]) -> pd.DataFrame:
    """`arm, measure, temperature, judge, value, standard_error, low, high, n, seeds, per_seed, paper, paper_judge`, shares from
    0 to 1: a row per arm and measure that a judge gives. values: arm → (measure, temperature) → [seeds, prompts]."""
    import pandas as pd

    from irlens.measure import stats

    rows = []
    for arm, found in values.items():
        order = [key for measure in MEASURES for key in found if key[0] == measure]
        for measure, temperature in order:
            array = found[measure, temperature]
            low, high = _interval(array, found.get(("WinRate", temperature)) if measure == "LCWinRate" else None)
            about = {"arm": arm, "measure": measure, "temperature": temperature, "judge": judges.get(measure, "")}
            about |= {"value": array.mean(), "standard_error": stats.crossed_error(array), "low": low, "high": high}
            about |= {"n": array.shape[1], "seeds": len(array)}
            about["per_seed"] = " ".join(f"{mean:.4f}" for mean in array.mean(axis=1))
            there = theirs(recipe, measure, arm) if recipe.study else float("nan")
            rows.append(about | {"paper": there, "paper_judge": paper.judge(recipe.study, measure)})
    return pd.DataFrame(rows)


def _interval(array: np.ndarray, plain: np.ndarray | None) -> tuple[float, float]:
    """Of the mean of values[seeds, prompts]. plain: the wins behind a length-controlled rate, whose interval it has at the
    least where so few prompts were won, or lost, that the fit hardly moves (as `measure.winrate` has it)."""
    import numpy as np

    from irlens.measure import stats

    low, high = stats.crossed_interval(array)
    if plain is not None and min(plain.sum(), (1 - plain).sum()) < stats.EVENTS * len(plain):
        wide = stats.crossed_interval(plain)
        low, high = np.fmin(low, wide[0]), np.fmax(high, wide[1])
    return float(low), float(high)


def into(arms: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """The table of arms with the intervals that `table` gives."""
    if found.empty:
        return arms
    keys = ["arm", "measure", "temperature"]
    known = found.set_index(keys)
    at = [tuple(row) for row in arms[keys].itertuples(index=False)]
    new = {name: [known.at[key, name] if key in known.index else old for key, old in zip(at, arms[name])]
           for name in ("low", "high")}  # fmt: skip
    return arms.assign(**new)


def theirs(recipe: Recipe, measure: str, arm: str) -> float:
    """The paper's number for an arm, a share; NaN where it has none."""
    study, arms = recipe.study, [step.name for step in recipe.steps if step.stage == "train"]
    if not study.beside:
        return float("nan")
    if study.beside.startswith("table"):
        return _of_table(study, measure, arm)
    points = paper.points(study.beside)
    at = dict(zip(arms, study.x or ())).get(arm)
    own = points[(points["curve"] == MEASURES[measure]) & (points["x"] == at)]
    return float("nan") if own.empty else float(own["y"].iloc[0]) / 100


def _of_table(study: Study, measure: str, arm: str) -> float:
    try:
        there = paper.table(study.beside, paper.column(study.column, measure))
    except UserError:  # a table without this column
        return float("nan")
    group = study.group.partition(",")[0] if arm == "start" else study.group  # what is not trained has no reward model
    own = there[(there["bar"] == arm) & (there["group"] == group)]["value"]
    return float("nan") if own.empty else float(own.iloc[0]) / (100 if measure.endswith("WinRate") else 1)


def write(recipe: Recipe, found: pd.DataFrame, out: Path, say: Callable[[str], None]) -> None:
    """Writes judged.csv and judged.md into `out`, and says every arm's numbers, in points of 100."""
    files.write_csv(found, out / f"{NAME}.csv")
    measures = list(dict.fromkeys(found["measure"]))
    named = {m: found[found["measure"] == m].iloc[0] for m in measures}
    who = [f"{MEASURES[m]}: {named[m]['n']:,} prompts, judged by {named[m]['judge']}" + _by(named[m]) for m in measures]
    for line in who:
        say(line)
    heads = [f"{MEASURES[m]} (judge: {named[m]['judge']})" for m in measures]
    heads += [f"the paper's {MEASURES[m]}" for m in measures]
    rows = []
    for arm, some in found.groupby("arm", sort=False):
        own = {row.measure: row for row in some.itertuples()}
        ours = [_ours(own[m]) for m in measures]
        rows.append((arm, *ours, *(_points(own[m].paper) for m in measures)))
        told = (f"{MEASURES[m]} {cell}" + _beside(own[m].paper) for m, cell in zip(measures, ours))
        say(f"{arm}: {', '.join(told)}")
    title = f"# {markdown(recipe.title)}: what judges say (preset {recipe.preset})"
    note = "Points of 100 ± standard error, and 95 % intervals over prompts, and over seeds where there are several."
    parts = [title, markdown_table(("arm", *heads), rows), note, "\n".join(f"- {markdown(line)}" for line in who)]
    files.write_text("\n\n".join(parts) + "\n", out / f"{NAME}.md")


def _ours(row) -> str:
    return f"{100 * row.value:.1f} ± {100 * row.standard_error:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"


def _points(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f}"


def _beside(share: float) -> str:
    return "" if share != share else f" (the paper's {100 * share:.1f})"


def _by(row) -> str:
    return f"; the paper's judge: {row['paper_judge']}" if row["paper_judge"] else ""
