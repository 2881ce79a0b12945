"""Over-optimisation as a study: best of N by a reranker and training on it by iteration, proxy beside truth, and verdicts.

A study of the kind OVER: a stage `rewardbench` on draws of one temperature (left panel), and one `train` with a reward
whose task has a verifier (right panel). Values per problem and seed lie in the run's per_problem.parquet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.reproduce import kept as of_kept
from irlens.reproduce import study as studies
from irlens.reproduce.records import OVER, Recipe, Step, Study

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.measure.plots.panels import Panel

TRUTH, PROXY = "truth", "reward"
FALL = "the truth's fall"
FIRST, BEST, NULL = "the first", "the best before", "the null"


def check(study: Study, steps: Sequence[Step], where: str) -> None:
    """Raises UserError for a recipe without just one audit of draws and one training on a reward, or a task without a verifier."""
    stages = {name: [step for step in steps if step.stage == name] for name in ("rewardbench", "train")}
    for name, found in stages.items():
        if len(found) != 1:
            raise UserError(f'{where}: kind "{OVER}" needs one stage {name}, and there are {len(found)}')
    (audit,), (trained,) = stages.values()
    if not audit.settings.run or audit.settings.data:
        raise UserError(f"{where}: {audit.name} needs run, judged draws, and no data")
    if not trained.settings.reward:
        raise UserError(f"{where}: {trained.name} needs a reward, beside which the truth is measured")
    if study.temperature not in trained.settings.eval_temperature:
        raise UserError(f"{where}: T = {study.temperature:g} is not one of {trained.name}'s eval_temperature")
    if study.order or study.better or study.beside or study.also:
        raise UserError(f'{where}: kind "{OVER}" has one policy: no order, better, also or beside')


@dataclass(frozen=True)
class Course:
    """A proxy and the truth along x, in places from 0 on: values[seeds, problems] at each. null: what a reranker that knows
    nothing is truly worth there."""

    name: str
    at: str  # "N = " or "iteration "
    x: list[int]
    proxy: list[np.ndarray]
    truth: list[np.ndarray]
    null: list[np.ndarray] | None = None

    @property
    def peak(self) -> int:
        """The place where the mean truth is highest, the earlier of equals."""
        means = [round(float(values.mean()), 9) for values in self.truth]
        return means.index(max(means))

    def tests(self) -> list[dict]:
        """A row per place after the first and quantity: against the first place; beyond the peak also against the place
        before where the truth is best on other problems, and there the truth's fall less the null's."""
        from irlens.measure.overoptimisation import at_places, best_places

        rows = []
        for i in range(1, len(self.x)):
            best = best_places(self.truth[:i])
            for quantity, values in ((TRUTH, self.truth), (PROXY, self.proxy)):
                rows.append(self._row(i, quantity, FIRST, values[0], values[i]))
                if i > self.peak:
                    rows.append(self._row(i, quantity, BEST, at_places(values[:i], best), values[i]))
            if self.null is not None:
                rows.append(self._row(i, TRUTH, NULL, self.null[i], self.truth[i]))
                if i > self.peak:
                    fall = self.truth[i] - at_places(self.truth[:i], best)
                    rows.append(self._row(i, FALL, NULL, self.null[i] - at_places(self.null[:i], best), fall))
        return rows

    def _row(self, i: int, quantity: str, against: str, before: np.ndarray, after: np.ndarray) -> dict:
        about = {"course": self.name, "x": self.x[i], "quantity": quantity, "against": against}
        found = studies.paired(before, after, against, f"{self.at}{self.x[i]:,}")
        return about | {name: value for name, value in found.items() if name not in ("before", "after")}


# -- the report ----------------------------------------------------------------------------------------------------


def report(
    recipe: Recipe, kept: pd.DataFrame, out: Path, say: Callable[[str], None], style: str = "screen"
) -> list[str]:
    """Writes `<recipe>.{png,pdf,csv}`, tests.csv and conclusions.md into `out`; returns the conclusions.

    kept: a value per problem, as `kept.collect` has it. Raises UserError if the training ended.
    """
    if gone := of_kept.ended(kept):
        raise UserError(f"the training ended, so there is nothing to report: {'; '.join(gone.values())}")
    courses = (_picking(recipe, kept), _training(recipe, kept))
    tests = judged(courses)
    files.write_csv(tests, out / "tests.csv")
    sentences = [line for course in courses for line in verdicts(course, tests[tests["course"] == course.name])]
    sentences += studies.few_seeds({course.name: course.truth[-1] - course.truth[0] for course in courses})
    _draw(recipe, kept, courses, out / recipe.name, style)
    shapes = [course.truth[0].shape for course in courses]
    return studies.conclude(recipe, recipe.study.claim, sentences, min(shapes, key=lambda shape: shape[1]), out, say)


def judged(courses: Sequence[Course]) -> pd.DataFrame:
    """The tests of all courses, with Holm's correction over the places of each question (course, quantity, against)."""
    import pandas as pd

    from irlens.measure import stats

    tests = pd.DataFrame([row for course in courses for row in course.tests()])
    question = tests.groupby(["course", "quantity", "against"], sort=False)["p"]
    return tests.assign(p_holm=question.transform(lambda p: stats.holm(p.to_numpy())))


def _picking(recipe: Recipe, kept: pd.DataFrame) -> Course:
    """Best of N by the reranker."""
    from irlens.measure.best_of_n import ALWAYS, PER_TEXT
    from irlens.measure.overoptimisation import PROXY as OWN

    step = next(step for step in recipe.steps if step.stage == "rewardbench")
    found: dict[str, dict[int, np.ndarray]] = {}
    for (who, measure), values in of_kept.curves(kept, step.name).items():
        found.setdefault(who, {})[int(measure.rpartition("@")[2])] = values
    name = next(who for who in found if who not in (*ALWAYS, OWN))
    x = sorted(found[name])
    proxy, truth, null = ([found[who][N] for N in x] for who in (OWN, name, PER_TEXT))
    return Course(f"Best of N by {name}", "N = ", x, proxy, truth, null)


def _training(recipe: Recipe, kept: pd.DataFrame) -> Course:
    """The policies of the training, the start first. Raises UserError for a task without a verifier."""
    from irlens.commands.truth import TRUTH as MEASURE

    step = next(step for step in recipe.steps if step.stage == "train")
    own = kept[kept["temperature"] == recipe.study.temperature]
    found = {
        measure: of_kept.along(own[own["measure"] == measure])[0].get(step.name) for measure in ("reward", MEASURE)
    }
    if found[MEASURE] is None:
        raise UserError(f"{step.name}: the truth was not measured, as its task has no verifier")
    if found["reward"] is None:
        raise UserError(f"{step.name}: {step.settings.reward} gives scores within a list only, and no reward to follow")
    name = f"Training by {step.settings.reward}"
    x = sorted(int(part) for part in own[own["measure"] == MEASURE]["part"].unique() if part.isdigit())
    return Course(name, "iteration ", x, found["reward"], found[MEASURE])


# -- in words ------------------------------------------------------------------------------------------------------


def verdicts(course: Course, tests: pd.DataFrame) -> list[str]:
    """A sentence for each part of the claim; tests: those of this course."""
    known = {(row.x, row.quantity, row.against): row for row in tests.itertuples()}
    x, peak, last = course.x, course.peak, course.x[-1]
    where = f"{course.name}: the truth is highest at {course.at}{x[peak]:,} ({course.truth[peak].mean():.3f}"
    where += (
        f"; {course.truth[0].mean():.3f} at {course.at}{x[0]:,}, {course.truth[-1].mean():.3f} at {course.at}{last:,})."
    )
    return [where, _since_best(course, known), _below_first(course, known), *_beyond_null(course, known)]


def _since_best(course: Course, known: dict) -> str:
    """Whether the truth falls from its best while the reward goes on rising, and from where on."""
    claim = f"{course.name}, the truth falls from its best while the reward rises"
    beyond = course.x[course.peak + 1 :]
    if not beyond:
        return f"{claim}: not confirmed: the truth is highest at the last {course.at.split()[0]}."
    pairs = {x: (known[x, TRUTH, BEST], known[x, PROXY, BEST]) for x in beyond}
    start = _from({x: _down(truth) and _up(proxy) for x, (truth, proxy) in pairs.items()})
    truth, proxy = pairs[beyond[-1]]
    return f"{claim}: {_verdict(course, start)} (at {course.at}{beyond[-1]:,}, against what is best on other problems: {_both(truth, proxy)})."


def _below_first(course: Course, known: dict) -> str:
    """Whether the truth ends below where it began while the reward ends above, and from where on."""
    began = "one draw" if course.null is not None else "the start"
    claim = f"{course.name}, the truth falls below {began} while the reward rises"
    pairs = {x: (known[x, TRUTH, FIRST], known[x, PROXY, FIRST]) for x in course.x[1:]}
    start = _from({x: _down(truth) and _up(proxy) for x, (truth, proxy) in pairs.items()})
    truth, proxy = pairs[course.x[-1]]
    verdict = "contradicted" if start is None and _up(truth) else _verdict(course, start)
    return f"{claim}: {verdict} (at {course.at}{course.x[-1]:,}, against {began}: {_both(truth, proxy)})."


def _beyond_null(course: Course, known: dict) -> list[str]:
    """Whether that fall is more than a reranker's that knows nothing, and what the pick is worth beside it."""
    if course.null is None:
        return []
    last = course.x[-1]
    null = known[last, TRUTH, NULL]
    better = "better" if _up(null) else "worse" if _down(null) else "no better than chance allows"
    said = [f"{course.name}, at N = {last:,} against a random number per text: {better} ({_points(null)})."]
    if (fall := known.get((last, FALL, NULL))) is not None:
        verdict = "confirmed" if _down(fall) else "contradicted" if _up(fall) else "not confirmed"
        said.insert(
            0, f"{course.name}, the truth falls further than by a random number per text: {verdict} ({_points(fall)})."
        )
    return said


def _from(holds: dict[int, bool]) -> int | None:
    """The first x from which on all hold; None if the last does not."""
    start = None
    for x in reversed(holds):
        if not holds[x]:
            break
        start = x
    return start


def _verdict(course: Course, start: int | None) -> str:
    return "not confirmed" if start is None else f"confirmed from {course.at}{start:,} on"


def _up(row) -> bool:
    return studies.holds(row.p_holm, row.low, row.high) and row.difference > 0


def _down(row) -> bool:
    return studies.holds(row.p_holm, row.low, row.high) and row.difference < 0


def _both(truth, proxy) -> str:
    reward = f"the reward {proxy.difference:+.3g} [{proxy.low:+.3g}, {proxy.high:+.3g}], p = {proxy.p_holm:.4f}"
    return f"the truth {_points(truth)}; {reward}"


def _points(row) -> str:
    return (
        f"{100 * row.difference:+.1f} points [{100 * row.low:+.1f}, {100 * row.high:+.1f}], {row.n:,} problems, paired "
        f"randomisation test p = {row.p_holm:.4f} after Holm"
    )


# -- the figure ----------------------------------------------------------------------------------------------------


def _draw(recipe: Recipe, kept: pd.DataFrame, courses: Sequence[Course], path: Path, style: str) -> list[Path]:
    """Two panels, the truth on the left axis and the reward on the right: `path` + .png, .pdf and .csv."""
    from irlens.measure.plots import panels

    picking, training = courses
    trained = next(step.settings for step in recipe.steps if step.stage == "train")
    left = _panel(picking, picking.name, "N (draws per problem)", {"true value of the pick": picking.truth}, True)
    right = _panel(training, f"{training.name} ({trained.objective})", "LarPO iteration", {"true Pass@1": training.truth}, False)  # fmt: skip
    return panels.panels([left, right], path, style=style)


def _panel(course: Course, title: str, x_label: str, truth: dict[str, list[np.ndarray]], log_x: bool) -> Panel:
    import numpy as np

    from irlens.measure.plots.panels import Panel
    from irlens.reproduce.figures import curves_along

    reward = f"{PROXY} (right axis)"
    null = {"random number per text (null)": course.null} if course.null is not None else {}
    values = truth | {reward: course.proxy} | null
    table = curves_along(values, dict.fromkeys(values, np.array([course.x])))
    return Panel(
        table, title, x_label, "share of problems solved", log_x=log_x, right=(reward,), right_label="mean reward"
    )
