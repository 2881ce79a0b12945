"""What a recipe's arms show: a table over seeds, a figure, and the paper's claim tested and judged in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError, did_you_mean
from irlens.base.untrusted import markdown
from irlens.reproduce import arms as of_arms
from irlens.reproduce import chat
from irlens.reproduce.records import OVER, Recipe, Step, Study

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ALPHA = 0.05
DOMINANT = 0.5  # the share of a mean's variance from which on seeds are said to dominate
KINDS = ("bars", "gains", "axis", "iterations", "budget", OVER)


def check_study(study: Study, steps: Sequence[Step], where: str) -> None:
    """Raises UserError for an unknown kind, arm, figure or measure, a pair that is not "better > worse", or an arm that
    is chosen by the very problems that it is reported on."""
    from irlens.commands.validation import chooses
    from irlens.reproduce import paper

    arms = of_arms.arms(steps)
    if study.kind not in KINDS:
        raise UserError(f"{where}: kind {study.kind!r}; {did_you_mean(study.kind, KINDS)}")
    for pair in study.better:
        if pair.count(">") != 1:
            raise UserError(f'{where}: better = {pair!r} must be "better > worse"')
    for arm in [*study.order, *(arm for pair in study.pairs for arm in pair)]:
        if arm not in arms:
            raise UserError(f"{where}: no arm {arm!r} is tested; {did_you_mean(arm, arms)}")
    if (study.x is None) != (study.kind != "axis"):
        raise UserError(f'{where}: x and kind = "axis" need each other')
    if study.beside and study.kind == "gains":
        raise UserError(f'{where}: beside: the paper has no gains of its own; kind "gains" stands alone')
    if study.x is not None and len(study.x) != len(arms) - 1:
        raise UserError(f"{where}: x has {len(study.x)} places for {len(arms) - 1} arms")
    tested = any(step.name.startswith("test ") for step in steps)
    for step in steps:
        if step.stage == "train" and not tested and chooses(step.settings) and step.settings.test_limit == 0:
            raise UserError(
                f'{where}: {step.name} would be reported on what chose it; set test_limit or eval_split = "test"'
            )
    measured = _measured(steps)
    for measure in (study.measure, *study.also):
        if (measure, study.temperature) not in measured:
            known = ", ".join(f"{m} at T = {t:g}" for m, t in measured)
            wanted = f"{measure} at T = {study.temperature:g}"
            raise UserError(f"{where}: the arms are not measured by {wanted}; they are by {known}")
    if study.beside:
        try:
            paper.beside(study.beside, study.column)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


def _measured(steps: Sequence[Step]) -> list[tuple[str, float]]:
    """(measure, temperature) of everything that the arms are measured by."""
    from irlens.commands.validation import measures_of

    judged = chat.measured(steps)
    tests = [step.settings for step in steps if step.name.startswith("test ")]
    if tests:
        found = dict.fromkeys((f"Pass@{N}", t) for s in tests for t in s.temperature for N in s.at or (1, s.n))
        return [*found, *judged]
    trained = [step.settings for step in steps if step.stage == "train"]
    return list(dict.fromkeys((m, t) for s in trained for t in s.eval_temperature for m in measures_of(s))) + judged


def report(
    recipe: Recipe, kept: pd.DataFrame, out: Path, say: Callable[[str], None], style: str = "screen"
) -> list[str]:
    """Writes `<recipe>.{png,pdf,csv}`, arms.csv, tests.csv and conclusions.md into `out`; returns the conclusions.

    kept: a value per problem, as `kept.collect` has it; nothing else of the run is read. Arms that ended in one of the
    seeds are left out, and named. Raises UserError if no other arm remains.
    """
    from irlens.reproduce import figures as study_figures
    from irlens.reproduce import judged
    from irlens.reproduce import kept as of_kept

    recipe, without = _without_ended(recipe, of_kept.ended(kept))
    study, values, judges = recipe.study, of_kept.finals(kept), of_kept.judges(kept)
    shown = judged.table(recipe, values, judges)
    table = judged.into(arms_table(values), shown)
    if judges:
        table.insert(3, "judge", table["measure"].map(judges).fillna(""))
    label, cell = _by(study.label, judges.get(study.measure)), _cell(values, study.measure, study.temperature)
    curves, first = None, []
    if study.kind in ("iterations", "budget"):
        along, spent, places = of_kept.along(kept)
        if study.kind == "budget":
            places = spent
            budget = min(tokens[:, -1].min() for tokens in spent.values())
            cell = {arm: of_arms.at_budget(along[arm], spent[arm], budget) for arm in along} | {"start": cell["start"]}
            label += f" after {budget:,.0f} generated tokens"
            first = [_ahead({arm: cell[arm] for arm in along}, label)] if len(along) > 1 else []
        curves = study_figures.curves_along(along, places)
    tests, sentences = judge(study, cell, label)
    every = {label: tests}
    for measure in study.also:
        more, said = judge(replace(study, gain=None), _cell(values, measure, study.temperature), measure)
        files.write_csv(more, out / f"tests-{measure}.csv")
        sentences += said
        every[measure] = more
    gains = {arm: values - cell["start"] for arm, values in cell.items() if arm != "start"}
    files.write_csv(table, out / "arms.csv")
    files.write_csv(tests.assign(**_told(study.measure, judges)), out / "tests.csv")
    if not shown.empty:
        judged.write(recipe, shown, out, say)
        _tests_by_others(study, values, judges, out)
    without += [
        f"{measure}: {count:,} prompts are left out of all arms, since the judge has no answer about one of them."
        for measure, count in of_kept.without(kept).items()
    ]
    study_figures.draw(recipe, table, curves, every, out / recipe.name, style)
    seen, few = [smallest(some, name) for name, some in every.items()], few_seeds(gains)
    return conclude(recipe, study.claim, [*first, *sentences, *without, *seen, *few], cell["start"].shape, out, say)


def _tests_by_others(study: Study, values: dict, judges: Mapping[str, str], out: Path) -> None:
    """The same tests by each measure of a judge that does not decide, in `tests-MEASURE.csv`."""
    for measure, temperature in next(iter(values.values())):
        if measure in chat.MEASURES and measure != study.measure:
            tests, _ = judge(study, _cell(values, measure, temperature), measure)
            files.write_csv(tests.assign(**_told(measure, judges)), out / f"tests-{measure}.csv")


def _cell(values: dict, measure: str, temperature: float) -> dict[str, np.ndarray]:
    return {arm: cells[measure, temperature] for arm, cells in values.items()}


def _told(measure: str, judges: Mapping[str, str]) -> dict[str, str]:
    """What a table of tests says of them, where a judge is a part of it."""
    return {"measure": measure, "judge": judges[measure]} if judges.get(measure) else {}


def _by(label: str, judge: str | None) -> str:
    return f"{label}, judged by {judge}" if judge else label


def _without_ended(recipe: Recipe, gone: dict[str, str]) -> tuple[Recipe, list[str]]:
    """The recipe without the arms that ended (and why), and sentences that name those and what can not be tested."""
    if not gone:
        return recipe, []
    arms = of_arms.arms(recipe.steps)[1:]
    if len(gone) == len(arms):
        raise UserError(
            f"every arm ended, so there is nothing to report: {'; '.join(f'{a}: {w}' for a, w in gone.items())}"
        )
    study = recipe.study
    pairs = dict(zip(study.better, study.pairs))
    lost = [text for text, pair in pairs.items() if set(pair) & set(gone)]
    left = replace(
        study,
        order=tuple(arm for arm in study.order if arm not in gone),
        better=tuple(text for text in study.better if text not in lost),
        x=study.x and tuple(x for arm, x in zip(arms, study.x) if arm not in gone),
    )
    steps = tuple(step for step in recipe.steps if step.name not in gone)
    sentences = [f"{arm} is left out, for it ended: {why}." for arm, why in gone.items()]
    sentences += [
        f"{text}: not tested, since {' and '.join(a for a in pairs[text] if a in gone)} ended." for text in lost
    ]
    return replace(recipe, steps=steps, study=left), sentences


def conclude(
    recipe: Recipe, claim: str, sentences: list[str], shape: tuple[int, int], out: Path, say: Callable[[str], None]
) -> list[str]:
    """Says the sentences and writes them to conclusions.md, below the claim and the (seeds, problems) they rest on."""

    seeds, problems = shape
    basis = f"Preset {recipe.preset}: {seeds} seed{'s' * (seeds > 1)}, {problems:,} problems; intervals are 95 %."
    said = [f"- {markdown(sentence)}" for sentence in sentences]
    text = [f"# {markdown(recipe.title)}", "", f"Claim: {markdown(claim)}", "", basis, "", *said, ""]
    files.write_text("\n".join(text), out / "conclusions.md")
    for sentence in sentences:
        say(sentence)
    return sentences


def arms_table(values: dict) -> pd.DataFrame:
    """A row per arm, measure and temperature: the mean over seeds, its interval over seeds and problems, every seed."""
    import pandas as pd

    from irlens.measure import stats

    rows = []
    for arm, cells in values.items():
        for (measure, temperature), array in cells.items():
            low, high = stats.crossed_interval(array)
            each = array.mean(axis=1)
            rows.append(
                {
                    "arm": arm,
                    "measure": measure,
                    "temperature": temperature,
                    "value": array.mean(),
                    "low": low,
                    "high": high,
                    "n": array.shape[1],
                    "seeds": array.shape[0],
                    "per_seed": " ".join(f"{v:.4f}" for v in each),
                }
            )
    return pd.DataFrame(rows)


def judge(study: Study, cell: dict[str, np.ndarray], label: str) -> tuple[pd.DataFrame, list[str]]:
    """The tests (one row each, Holm's correction over the paired ones) and a sentence for each part of the claim.

    cell: arm → values[seeds, problems] of what decides, called `label`.
    """
    import pandas as pd

    from irlens.measure import power, stats

    pairs = [("start", arm) for arm in cell if arm != "start"]
    claimed = [(worse, better) for better, worse in study.pairs]
    rows = [paired(cell[before], cell[after], before, after) for before, after in [*pairs, *claimed]]
    tests = pd.DataFrame(rows)
    tests["p_holm"] = stats.holm(tests["p"])
    levels = power.holm_levels(tests["p"])
    named = zip([*pairs, *claimed], levels)
    tests["detectable"] = [power.detectable_crossed(cell[b] - cell[a], level) for (a, b), level in named]
    sentences = [_against_start(row, label, study.gain) for row in tests.head(len(pairs)).itertuples()]
    sentences += [against_claim(row, label) for row in tests.tail(len(claimed)).itertuples() if claimed]
    if study.order:
        means = [cell[arm].mean(axis=1) for arm in study.order]
        sentences.append(_trend(study.order, means, label))
    return tests, sentences


def smallest(tests: pd.DataFrame, label: str) -> str:
    """What the design could see, in words: the range of the tests' smallest differences. tests: of `judge`."""
    found = 100 * tests["detectable"].dropna()
    ends = " to ".join(dict.fromkeys(f"{end:.1f}" for end in (found.min(), found.max())))
    said = f"{ends} points" if len(found) else "not known, as all problems differ by the same"
    return f"The smallest differences that this design finds with probability .8, {label}: {said}."


def paired(before: np.ndarray, after: np.ndarray, name: str, other: str) -> dict:
    """A row of tests.csv for values[seeds, problems] of two arms: seeds averaged within a problem, problems paired; the
    interval over seeds and problems."""
    from irlens.measure import stats

    test = stats.paired_test(before.mean(axis=0), after.mean(axis=0))
    low, high = stats.crossed_difference(after - before, bounds=stats.difference_bounds(before, after))
    return {
        "before": name,
        "after": other,
        "difference": test.difference,
        "low": low,
        "high": high,
        "p": test.p,
        "effect": test.effect,
        "n": test.n,
        "seeds": len(before),
        "seeds_up": int(((after - before).mean(axis=1) > 0).sum()),
    }


def few_seeds(cell: Mapping[object, np.ndarray]) -> list[str]:
    """What so few seeds cannot say, in words; nothing where there are enough. cell: differences[seeds, problems]."""
    from irlens.measure import stats

    seeds = min(len(values) for values in cell.values())
    if seeds == 1:
        return ["One seed: the intervals are over problems alone; whether another training run agrees is not known."]
    shares = [stats.seed_share(values) for values in cell.values() if values.shape[1] > 1]
    most = max(shares, default=0.0)
    if seeds > 3:
        if most <= DOMINANT or seeds > 10:
            return []
        return [
            f"Seeds seem to make up to {100 * most:.0f} % of a difference's variance: its interval rests on {seeds} numbers, "
            "and covers less than it says if these are skewed."
        ]
    words = {2: "Two", 3: "Three"}[seeds]
    said = f"{words} seeds hardly tell how far seeds differ: the intervals allow for that and are wide"
    if most > DOMINANT:
        said += (
            f"; here seeds seem to make up to {100 * most:.0f} % of a difference's variance, and no method can know that of "
            f"{words.lower()}: more seeds are needed"
        )
    return [said + "."]


def _numbers(row) -> str:
    return (
        f"{100 * row.difference:+.1f} points [{100 * row.low:+.1f}, {100 * row.high:+.1f}], {row.seeds_up} of {row.seeds} "
        f"seeds up, paired randomisation test over {row.n:,} problems p = {row.p_holm:.4f} after Holm, d = {row.effect:+.2f}"
    )


def holds(p: float, low: float, high: float) -> bool:
    """Whether a difference stands on new problems (the test, over problems) and on new seeds too (the interval)."""
    return p < ALPHA and not low <= 0 <= high


def _against_start(row, label: str, gain: float | None) -> str:
    stands = holds(row.p_holm, row.low, row.high)
    verdict = "significant" if stands else "not significant"
    if gain is not None:
        reached = 100 * row.difference >= gain and stands
        verdict += f"; a gain of {gain:g} points is {'reached' if reached else 'not reached'}"
    return f"{row.after}, {label}, against the start: {_numbers(row)}: {verdict}."


def against_claim(row, label: str) -> str:
    """A claimed difference in words: confirmed, contradicted or not confirmed. row: of tests.csv; label: what decides."""
    if holds(row.p_holm, row.low, row.high):
        verdict = "confirmed" if row.difference > 0 else "contradicted"
    else:
        verdict = "not confirmed: no difference that can be told from chance"
        if row.p_holm < ALPHA:
            verdict += " over other seeds, though it can over these problems"
            if row.seeds in (2, 3):
                verdict += f"; {row.seeds} seeds hardly tell how far seeds differ"
    return f"{row.after} above {row.before}, {label}: {verdict} ({_numbers(row)})."


def _trend(order: Sequence[str], means: list, label: str) -> str:
    import numpy as np

    from irlens.measure import stats

    rising = " < ".join(order)
    if len(means[0]) < 2 or len(order) < 3:
        return f"{label} rises as {rising}: not tested, which takes two seeds and three arms or more."
    up, down = stats.trend_test(np.stack(means, 1)), stats.trend_test(np.stack(means[::-1], 1))
    verdict = "confirmed" if up.p < ALPHA else "contradicted" if down.p < ALPHA else "not confirmed"
    return (
        f"{label} rises as {rising}: {verdict} (Page's trend test over {up.blocks} seeds, L = {up.statistic:g}, "
        f"p = {up.p:.4f}, mean Spearman ρ = {up.rho:+.2f})."
    )


def _ahead(cell: dict[str, np.ndarray], label: str) -> str:
    """Which arm has the highest value, tested against the runner-up."""
    first, second = sorted(cell, key=lambda arm: -cell[arm].mean())[:2]
    row = paired(cell[second], cell[first], second, first)
    verdict = "ahead" if holds(row["p"], row["low"], row["high"]) else "ahead by no more than chance"
    return (
        f"{first} is {verdict}, {label}: {cell[first].mean():.3f} against {second}'s {cell[second].mean():.3f}, "
        f"{100 * row['difference']:+.1f} points [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}], paired "
        f"randomisation test over {row['n']:,} problems p = {row['p']:.4f}, d = {row['effect']:+.2f}."
    )
