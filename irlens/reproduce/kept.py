"""What a recipe's figure and verdicts are made of: one small table with a value per problem, kept beside them.

Columns: part ("curve", "final", "ended", "without" or the number of an iteration), name (of a step, or of an arm), run (of a
curve; of what a judge says, the judge), measure, temperature, seed (0, 1 …: the order of the run), query_id, value; of the
part "without" how many queries some arm has no value of. Tokens that an arm had generated are rows of the
measure TOKENS without a query. From this table alone `irlens reproduce NAME --redraw TABLE` draws everything again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import checksums
from irlens.base.errors import UserError
from irlens.reproduce import arms as of_arms
from irlens.reproduce import chat
from irlens.reproduce.arms import Values
from irlens.reproduce.records import OVER, Done, Recipe

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

COLUMNS = ["part", "name", "run", "measure", "temperature", "seed", "query_id", "value"]
TOKENS = "tokens generated"
CURVES = ("passk", "recall")  # the stages that Figure 2 is drawn from


def collect(recipe: Recipe, found: Sequence[dict[str, Done]]) -> pd.DataFrame:
    """The table of a recipe's finished steps, a dictionary of them per seed."""
    import pandas as pd

    gone = {arm: why for arm in of_arms.arms(recipe.steps)[1:] if (why := of_arms.ended(arm, found))}
    steps = tuple(step for step in recipe.steps if not any(seed[step.name].ended for seed in found))
    recipe, parts = replace(recipe, steps=steps), [_ended(gone)]
    if recipe.figure or recipe.claim:
        names = [step.name for step in recipe.steps if step.stage in CURVES]
        parts += [_curves(name, seed[name].folder, i) for i, seed in enumerate(found) for name in names]
    if recipe.study and any(step.stage == "train" for step in steps):
        judge = of_arms.held_out_judge(recipe.steps)
        for arm in of_arms.arms(recipe.steps):
            parts += _cells("final", arm, of_arms.final(recipe.steps, found, arm), judge)
        parts.append(chat.cells(recipe, found))
        if recipe.study.kind in ("iterations", "budget", OVER):
            parts += _along(recipe, found)
    if recipe.study and recipe.study.kind == OVER:
        names = [step.name for step in recipe.steps if step.stage == "rewardbench"]
        parts += [_picks(name, seed[name].folder, i) for i, seed in enumerate(found) for name in names]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)[COLUMNS]


def _ended(gone: dict[str, str]) -> pd.DataFrame:
    """A row for each arm that ended, its reason in the place of a run."""
    import pandas as pd

    about = {
        "part": "ended",
        "measure": "",
        "temperature": float("nan"),
        "seed": 0,
        "query_id": "",
        "value": float("nan"),
    }
    return pd.DataFrame({"name": list(gone), "run": list(gone.values())}, dtype=object).assign(**about)


def ended(table: pd.DataFrame) -> dict[str, str]:
    """Arm → why it ended, of those that did."""
    own = table[table["part"] == "ended"]
    return dict(zip(own["name"], own["run"]))


def _curves(name: str, folder: Path, seed: int) -> pd.DataFrame:
    import pandas as pd

    each = pd.read_parquet(folder / "per_query.parquet")[["run", "measure", "query_id", "value"]]
    return each.assign(part="curve", name=name, temperature=float("nan"), seed=seed)


def _picks(name: str, folder: Path, seed: int) -> pd.DataFrame:
    """What the pick among N draws is worth per problem, measure `best-of-N@N`."""
    import pandas as pd

    each = pd.read_parquet(folder / "picks.parquet")
    each = each.assign(measure="best-of-N@" + each["cutoff"].astype(str))[["run", "measure", "query_id", "value"]]
    return each.assign(part="curve", name=name, temperature=float("nan"), seed=seed)


def _along(recipe: Recipe, found: Sequence[dict[str, Done]]) -> list[pd.DataFrame]:
    """What decides, after every iteration of every arm, and the tokens generated until then; of OVER all that was measured."""
    import pandas as pd

    key, out = (recipe.study.measure, recipe.study.temperature), []
    for step in (step for step in recipe.steps if step.stage == "train"):
        values = of_arms.by_iteration(recipe.steps, found, step.name)[:-1]
        numbers = of_arms.measured(step, found)
        for s, cells in zip(numbers, values):
            out += _cells(str(s), step.name, cells if recipe.study.kind == OVER else {key: cells[key]})
        if recipe.study.kind == "budget":
            spent = of_arms.tokens(step, found, numbers)
            rows = [(str(s), seed, count) for seed, counts in enumerate(spent) for s, count in zip(numbers, counts)]
            table = pd.DataFrame(rows, columns=["part", "seed", "value"])
            named = {"name": step.name, "run": "", "measure": TOKENS, "temperature": float("nan"), "query_id": ""}
            out.append(table.assign(**named))
    return out


def _cells(part: str, arm: str, cells: Values, judge: str = "") -> list[pd.DataFrame]:
    """Rows of values[seeds, problems]; the problems, in the one order that `arms` gives them, are numbered."""
    import numpy as np
    import pandas as pd

    out = []
    for (measure, temperature), array in cells.items():
        seeds, problems = array.shape
        index = {"seed": np.repeat(np.arange(seeds), problems), "value": array.ravel()}
        numbers = [f"{i:05d}" for i in range(problems)] * seeds
        who = "" if measure.startswith("Pass@") else judge  # a verifier's word
        about = {"part": part, "name": arm, "run": who, "measure": measure, "temperature": temperature}
        out.append(pd.DataFrame(index | {"query_id": numbers}).assign(**about))
    return out


def read(path: Path, recipe: Recipe) -> pd.DataFrame:
    """The table of an earlier run. Raises UserError: no such file, another table, arms or steps of another recipe."""
    import pandas as pd

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        table = pd.read_parquet(checksums.trusted(path))
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"{path}: not a Parquet file ({error})") from error
    if missing := [column for column in COLUMNS if column not in table.columns]:
        raise UserError(f"{path}: not a table of values per problem; missing: {', '.join(missing)}")
    wanted = of_arms.arms(recipe.steps) if recipe.study else [s.name for s in recipe.steps if s.stage in CURVES]
    if missing := [name for name in wanted if name not in set(table["name"])]:
        raise UserError(f"{path}: made by another recipe than {recipe.name}: it has no {', '.join(missing)}")
    return table


def finals(table: pd.DataFrame) -> dict[str, Values]:
    """Arm → (measure, temperature) → values[seeds, problems] at the end."""
    own = table[table["part"] == "final"]
    return {
        arm: {key: _array(cell) for key, cell in rows.groupby(["measure", "temperature"], sort=False)}
        for arm, rows in own.groupby("name", sort=False)
    }


def judges(table: pd.DataFrame) -> dict[str, str]:
    """Measure → who judges it, of what a model judges."""
    own = table[(table["part"] == "final") & (table["run"] != "")]
    named = own.groupby("measure", sort=False)["run"].unique()
    return {measure: ", ".join(names) for measure, names in named.items()}


def without(table: pd.DataFrame) -> dict[str, int]:
    """Measure → how many queries were left out, since some arm has no value of them."""
    own = table[table["part"] == "without"]
    return {measure: int(count) for measure, count in zip(own["measure"], own["value"])}


def along(table: pd.DataFrame) -> tuple[dict[str, list[np.ndarray]], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(arm → values[iterations][seeds, problems], arm → tokens[seeds, iterations] where they are kept, arm → the
    iterations' numbers [1, iterations])."""
    import numpy as np

    own = table[~table["part"].isin(["final", "curve", "ended", "without"])]
    own = own.assign(part=own["part"].astype(int))
    values, tokens, numbers = {}, {}, {}
    for arm, rows in own.groupby("name", sort=False):
        spent = rows["measure"] == TOKENS
        values[arm] = [_array(cell) for _, cell in rows[~spent].groupby("part")]
        numbers[arm] = np.array([sorted(set(rows["part"]))], dtype=float)
        if spent.any():
            tokens[arm] = rows[spent].pivot(index="seed", columns="part", values="value").to_numpy()
    return values, tokens, numbers


def curves(table: pd.DataFrame, step: str) -> dict[tuple[str, str], np.ndarray]:
    """(run, measure) → values[seeds, queries] of a step, in the order in which the step measured them."""
    own = table[(table["part"] == "curve") & (table["name"] == step)]
    return {key: _array(cell) for key, cell in own.groupby(["run", "measure"], sort=False)}


def _array(rows: pd.DataFrame) -> np.ndarray:
    return rows.pivot(index="seed", columns="query_id", values="value").to_numpy()
