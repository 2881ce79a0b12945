"""Learning rates tuned before a recipe's arms are trained: every arm with the same grid, chosen on validation problems.

Each rate is tried once, with the arm's own settings and a seed that no arm is trained with afterwards; what counts is what
decides the study, of the last policy. Test problems take no part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.seeds import check as check_seed
from irlens.commands.settings import Train
from irlens.reproduce import arms
from irlens.reproduce.records import Done, Recipe, Step, Tune

if TYPE_CHECKING:
    import pandas as pd

TABLE = "tuned.csv"
FOLDER = "tuned"
RunAll = Callable[[Recipe, Path], dict[str, Done]]


def check(tune: Tune, steps: Sequence[Step], measured: bool, where: str) -> None:
    """Raises UserError: no rates or one that is none, no stage that trains, no study that says what decides (`measured`), or
    arms that a reward model judges."""
    if not tune.learning_rate or not all(0 < rate < math.inf for rate in tune.learning_rate):
        raise UserError(f"{where}: learning_rate must be a list of rates above 0, got {list(tune.learning_rate)}")
    if len(set(tune.learning_rate)) < len(tune.learning_rate):
        raise UserError(f"{where}: learning_rate {list(tune.learning_rate)} names a rate twice")
    if min(tune.limit, tune.n) < 1:
        raise UserError(f"{where}: limit and n count problems and draws, from 1 on, got {tune.limit} and {tune.n}")
    check_seed(tune.seed, f"{where}: seed")
    trained = _trained(steps)
    if not trained or not measured:
        raise UserError(f"{where}: rates are chosen for stages that train, by what decides a [study]")
    if any(step.settings.reward or step.settings.eval_reward for step in trained):
        raise UserError(f"{where}: rates are chosen by right answers, but a reward model judges the arms")


def _trained(steps: Sequence[Step]) -> list[Step]:
    return [step for step in steps if step.stage == "train"]


def trials(recipe: Recipe) -> Recipe:
    """A recipe of one training for each arm and rate, measured on validation problems."""
    tune, made = recipe.tune, []
    for step in _trained(recipe.steps):
        plain = replace(step.settings, eval_split=None, eval_limit=tune.limit, eval_n=tune.n, test_limit=0)
        plain = replace(
            plain, eval_every=plain.iterations, eval_temperature=(recipe.study.temperature,), seed=tune.seed
        )
        for rate in tune.learning_rate:
            made.append(Step("train", _name(step.name, rate), replace(plain, learning_rate=rate)))
    return replace(recipe, steps=tuple(made), tune=None, study=None, claim=None, figure=None)


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """The trials, none without a grid."""
    return trials(recipe).steps if recipe.tune else ()


def plan(recipe: Recipe) -> str:
    """What is tried, in words."""
    rates = ", ".join(f"{rate:g}" for rate in recipe.tune.learning_rate)
    return (
        f"every arm is trained once with each learning rate of {rates} (seed {recipe.tune.seed}); the best on "
        f"{recipe.tune.limit:,} validation problems is the arm's"
    )


def _name(arm: str, rate: float) -> str:
    return f"{arm} at {rate:g}"


def tuned(recipe: Recipe, out: Path, run_all: RunAll, say: Callable[[str], None]) -> Recipe:
    """The recipe with the best rate in every arm, once `run_all` has run the trials in `out/tuned`; which they are is said
    and written to tuned.csv. A recipe without a grid is as it was."""
    if recipe.tune is None:
        return recipe
    tries = trials(recipe)
    say(f"{len(tries.steps)} trainings before: {plan(recipe)}")
    table = read(recipe, run_all(tries, out / FOLDER))
    files.write_csv(table, out / TABLE)
    best = table[table["chosen"]].set_index("arm")["learning_rate"]
    for sentence in in_words(table):
        say(sentence)

    def with_rate(step: Step) -> Step:
        return replace(step, settings=replace(step.settings, learning_rate=float(best[step.name])))

    return replace(recipe, steps=tuple(with_rate(s) if s.name in best else s for s in recipe.steps), tune=None)


def read(recipe: Recipe, found: dict[str, Done]) -> pd.DataFrame:
    """`arm, learning_rate, measure, temperature, value, low, high, n, chosen` of all trials; the smaller of equally good
    rates is chosen, and none in an arm all of whose trials ended."""
    import pandas as pd

    from irlens.measure import stats

    key, rows = (recipe.study.measure, recipe.study.temperature), []
    for step in _trained(recipe.steps):
        for rate in sorted(recipe.tune.learning_rate):
            done = found[_name(step.name, rate)]
            row = {"arm": step.name, "learning_rate": rate, "measure": key[0], "temperature": key[1]}
            if not done.ended:
                values = _last(done.folder, step.settings, key)
                low, high = stats.mean_interval(values)
                row |= {"value": values.mean(), "low": low, "high": high, "n": len(values)}
            rows.append(row)
    table = pd.DataFrame(rows, columns=["arm", "learning_rate", "measure", "temperature", "value", "low", "high", "n"])
    best = table.dropna(subset="value").groupby("arm", sort=False)["value"].idxmax()
    return table.assign(chosen=table.index.isin(best))


def _last(folder: Path, settings: Train, key: tuple[str, float]):
    """Values per validation problem of the last policy."""
    path = folder / "evaluation" / str(settings.iterations) / "per_query.parquet"
    return arms.values_of(path, key[1])[key][0]


def in_words(table: pd.DataFrame) -> list[str]:
    """What was chosen, and of which arms the best rate is the grid's first or last, so that a wider one may be better."""
    chosen, grid = table[table["chosen"]], sorted(set(table["learning_rate"]))
    said = [f"{row.arm} {row.learning_rate:g} ({row.value:.3f})" for row in chosen.itertuples()]
    lines = [f"learning rates chosen on validation problems: {', '.join(said)}."] if said else []
    edge = chosen[chosen["learning_rate"].isin([grid[0], grid[-1]])]
    if len(grid) > 1 and len(edge):
        lines.append(f"the best rate is at the edge of the grid {grid[0]:g} … {grid[-1]:g}: {', '.join(edge['arm'])}.")
    return lines


def identity(tune: Tune | None) -> dict:
    """What a folder's manifest keeps of it."""
    return {} if tune is None else {"tune": asdict(tune)}
