"""TRL's completions, as `log_completions` writes them: completions_STEP.parquet, or the folder of all steps.

Columns: `step, prompt, completion`, one per reward function, `advantage`. Prompts and completions are texts or messages.
Source: TRL's GRPOTrainer.
"""

from __future__ import annotations

from collections.abc import Iterable

from irlens.base.errors import UserError
from irlens.tables.formats.draws import About, Draw, Log, number, prompt, response

KEYS = "prompt, completion, advantage (and step, reward columns)"
FIELDS = {"step", "prompt", "completion", "advantage", "images"}


def fits(row: dict) -> bool:
    """Whether a row is one of TRL's completions."""
    return row.keys() >= {"prompt", "completion"} and bool({"advantage", "step"} & row.keys())


def read(rows: Iterable[tuple[str, dict]], about: About) -> Log:
    """The judgements are the columns of numbers: the reward functions, then `advantage`."""
    log, steps = Log([]), set()
    for where, row in rows:
        if not fits(row):
            raise UserError(f"{where}: TRL's completions need {KEYS}; found: {', '.join(row)}")
        query, messages = prompt(row["prompt"], where)
        names = [*(name for name in row if name not in FIELDS), "advantage"]
        found = {name: number(row.get(name)) for name in names}
        judged = {name: value for name, value in found.items() if value is not None}
        step = number(row.get("step"))
        steps.add(step)
        step = None if step is None else int(step)
        log.draws.append(
            Draw(where, response(row["completion"], where), query, messages=messages, verdicts=judged, step=step)
        )
    if len(steps) > 1:
        log.notes.append(f"draws of {len(steps):,} steps of a training (column step), and so of as many policies")
    return log
