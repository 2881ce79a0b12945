"""The arms of a study, read from the folders of their steps: values per seed and problem, at the end and by iteration."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.reproduce.records import Done, Step

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Values = dict[
    tuple[str, float], "np.ndarray"
]  # (measure, temperature) → values[seeds, problems], problems in one order
SUFFIX = re.compile(r"^(.*?)(?:, T = ([\d.]+))?$")  # of a column of a train step's per_query.parquet


def arms(steps: Sequence[Step]) -> list[str]:
    """The start and every train stage."""
    return ["start", *(step.name for step in steps if step.stage == "train")]


def held_out_judge(steps: Sequence[Step]) -> str:
    """The reward model that judges held-out draws; "" where a verifier does, or a test of its own."""
    tested = any(step.name.startswith("test ") for step in steps)
    named = [step.settings.eval_reward or step.settings.reward for step in steps if step.stage == "train"]
    return "" if tested else next(iter(named), None) or ""


def final(steps: Sequence[Step], found: Sequence[dict[str, Done]], arm: str) -> Values:
    """What the chosen policy of an arm is worth: by the steps `test ARM` (`test ARM 2` …) where the recipe has them, else
    by the problems that its train stage tested, else by those that it was measured on between the iterations."""
    if any(step.name.startswith("test ") for step in steps):
        return _stacked([_tested(seed, arm) for seed in found])
    return by_iteration(steps, found, arm)[-1]


def by_iteration(steps: Sequence[Step], found: Sequence[dict[str, Done]], arm: str) -> list[Values]:
    """The held-out values of a train stage's policies, the start first, as far as every seed went; of `start` those of
    the first stage. The last entry is the chosen policy's, on test problems where the stage has measured those."""
    step = next(step for step in steps if step.stage == "train" and arm in ("start", step.name))
    folders = [seed[step.name].folder for seed in found]
    chosen = [_chosen(folder) for folder in folders]
    temperature = step.settings.eval_temperature[0]
    tested = all((f / "test" / str(s) / "per_query.parquet").is_file() for f, s in zip(folders, chosen))

    def at(where: str, iterations: Sequence[int]) -> Values:
        paths = [f / where / str(s) / "per_query.parquet" for f, s in zip(folders, iterations)]
        return _stacked([_long(path, temperature) for path in paths])

    between = [at("evaluation", [s] * len(folders)) for s in measured(step, found)]
    return [*between, at("test" if tested else "evaluation", [0] * len(chosen) if arm == "start" else chosen)]


def measured(step: Step, found: Sequence[dict[str, Done]]) -> list[int]:
    """The iterations, the start's 0 among them, after which a train stage's policy was measured in every seed."""
    each = [
        {int(p.parent.name) for p in seed[step.name].folder.glob("evaluation/*/per_query.parquet")} for seed in found
    ]
    return sorted(set.intersection(*each))


def tokens(step: Step, found: Sequence[dict[str, Done]], iterations: Sequence[int]) -> np.ndarray:
    """[seeds, iterations]: tokens that a train stage had generated for training after each of these iterations."""
    import numpy as np
    import pandas as pd

    rows = []
    for seed in found:
        runs = [seed[step.name].folder / f"iteration-{s}" / "run.parquet" for s in range(1, max(iterations) + 1)]
        rows.append([0, *(int(pd.read_parquet(run, columns=["n_tokens"])["n_tokens"].sum()) for run in runs)])
    return np.cumsum(np.array(rows, dtype=float), axis=1)[:, list(iterations)]


def at_budget(values: Sequence[np.ndarray], spent: np.ndarray, budget: float) -> np.ndarray:
    """[seeds, problems]: values[iterations][seeds, problems] at `budget` tokens, linear between iterations.

    spent[seeds, iterations] rises; a budget beyond an arm's last iteration gets that iteration's value.
    """
    import numpy as np

    out = []
    for seed, row in enumerate(spent):
        right = int(np.clip(np.searchsorted(row, budget), 1, len(row) - 1))
        share = float(np.clip((budget - row[right - 1]) / (row[right] - row[right - 1]), 0, 1))
        out.append((1 - share) * values[right - 1][seed] + share * values[right][seed])
    return np.stack(out)


def _chosen(folder: Path) -> int:
    return json.loads((folder / "chosen.json").read_text(encoding="utf-8"))["iteration"]


def _tested(steps: dict[str, Done], arm: str) -> pd.DataFrame:
    """query_id, measure, temperature, value of all test steps of an arm."""
    import pandas as pd

    own = [done for name, done in steps.items() if re.fullmatch(rf"test {re.escape(arm)}( \d+)?", name)]
    each = pd.concat([pd.read_parquet(done.folder / "per_query.parquet") for done in own], ignore_index=True)
    return each.assign(temperature=each["run"].str.replace(r".*\bT=", "", regex=True).astype(float))


def _long(path: Path, temperature: float) -> pd.DataFrame:
    """query_id, measure, temperature, value of a train stage's per_query.parquet, which has a column per measure."""
    import pandas as pd

    each = pd.read_parquet(path).melt("query_id", var_name="column")
    parts = each["column"].str.extract(SUFFIX)
    return each.assign(measure=parts[0], temperature=parts[1].astype(float).fillna(temperature))


def values_of(path: Path, temperature: float) -> Values:
    """The values[1, problems] of a train stage's per_query.parquet; temperature: of columns that name none."""
    return _stacked([_long(path, temperature)])


def _stacked(parts: Sequence[pd.DataFrame]) -> Values:
    import numpy as np

    parts = [part.sort_values("query_id") for part in parts]
    keys = parts[0][["measure", "temperature"]].drop_duplicates().itertuples(index=False)
    return {
        (m, t): np.stack([p[(p["measure"] == m) & (p["temperature"] == t)]["value"].to_numpy() for p in parts])
        for m, t in keys
    }


def ended(arm: str, found: Sequence[dict[str, Done]]) -> str | None:
    """Why an arm ended, and in how many of several seeds; None if it ended in none."""
    reasons = [seed[arm].ended for seed in found if seed[arm].ended]
    if not reasons:
        return None
    return reasons[0] if len(found) == 1 else f"in {len(reasons)} of {len(found)} seeds: {reasons[0]}"
