"""What a training by a learned reward is truly worth, where a verifier can tell: said beside the reward, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.measure import overoptimisation as over
from irlens.retrieve.policy import Say

if TYPE_CHECKING:
    import pandas as pd

    from irlens.rerank.judges import Judge
    from irlens.tasks.contract import Task

TRUTH = "Pass@1"  # what a verifier says beside a reward model's judgement


@dataclass(frozen=True)
class Measured:
    """What a training measured between iterations: the folder, and the curves' temperatures, the first of which counts."""

    out: Path
    temperatures: Sequence[float]
    say: Say

    def column(self, measure: str) -> str:
        """The curve of a measure at the first temperature (see `validation.measure`)."""
        return measure if len(self.temperatures) == 1 else f"{measure}, T = {self.temperatures[0]:g}"

    def values(self, s: int) -> pd.DataFrame:
        """Values per problem of policy number s, a column per curve."""
        import pandas as pd

        return pd.read_parquet(self.out / "evaluation" / str(s) / "per_query.parquet").set_index("query_id")


def judge(task: Task, held_out: Sequence[Task | None], by: Judge | None, say: Say) -> Judge | None:
    """The task's verifier, where a reward model judges the held-out draws in its place and all their problems have
    answers; else None. Where the verifier's extra is missing, that is said."""
    from irlens.rerank import judges as judging
    from irlens.rerank import verifiers

    if (
        by is None
        or not by.is_reward
        or task.verifier is None
        or not all(_answered(part) for part in held_out if part is not None)
    ):
        return None
    try:
        verifiers.ready(task.verifier)
    except UserError as error:
        say(f"the true {TRUTH} is not measured beside the reward: {error}")
        return None
    return judging.of_task(task, say)


def _answered(task: Task) -> bool:
    return "answers" in task.topics.columns and bool(task.topics["answers"].map(len).all())


def say_of(found: Measured, s: int) -> None:
    """Says what proxy and truth of policy number s changed by against the start, and warns where they part company."""
    proxy, changes = _changes(found, s)
    line = f"iteration {s}, against the start: {_in_words(proxy, changes[0])}, true {_in_words(TRUTH, changes[1])}"
    if over.parts_company(*changes):
        line += f"; the {proxy} rises and the truth falls: over-optimisation"
    found.say(line)


def conclude(found: Measured, policies: list[int], chosen: int, chooses: bool) -> dict:
    """Says which of the measured policies the truth would choose, if its problems choose; what the manifest holds of it:
    proxy, the first policy at which it rose and the truth fell, and the policy of the best truth (the earlier of equals)."""
    values = {s: float(found.values(s)[found.column(TRUTH)].mean()) for s in policies}
    best = max(values, key=lambda s: (round(values[s], 9), -s))
    known = f"iteration {best}, true {TRUTH} {values[best]:.3f}"
    if not chooses:
        found.say(f"the truth is best at {known}; at iteration {chosen} it is {values[chosen]:.3f}")
    elif best != chosen:
        found.say(f"the truth would choose {known}; iteration {chosen} has {values[chosen]:.3f}")
    else:
        found.say(f"the truth would choose the same: {known}")
    parted = [s for s in policies if s and over.parts_company(*_changes(found, s)[1])]
    told = {"proxy": _changes(found, policies[-1])[0], "measure": TRUTH, "best_iteration": best}
    return {"truth": told | {"over_optimised_from": parted[0] if parted else None}}


def _changes(found: Measured, s: int) -> tuple[str, tuple[over.Change, over.Change]]:
    """(the proxy's name, what proxy and truth changed by): the mean reward, or the win rate where rewards hold within a list
    only."""
    start, now = found.values(0), found.values(s)
    proxy = next(name for name in ("reward", "win rate") if found.column(name) in now.columns)
    one, other = (over.change(start[column], now[column]) for column in (found.column(proxy), found.column(TRUTH)))
    return proxy, (one, other)


def _in_words(measure: str, found: over.Change) -> str:
    """`reward +0.52 [+0.41, +0.63]`; rates in points."""
    points = measure != "reward"
    scale, digits = (100, ".1f") if points else (1, ".3g")
    value, low, high = (f"{scale * number:+{digits}}" for number in (found.value, found.low, found.high))
    return f"{measure} {value}{' points' if points else ''} [{low}, {high}]"
