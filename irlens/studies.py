"""What a recipe's arms show: a table over seeds, a figure, and the paper's claim tested and judged in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.recipe import Recipe

ALPHA = 0.05


@dataclass(frozen=True)
class Study:
    """What the arms (the names of a recipe's train stages) are to show.

    claim: the paper's words. order: arms from worst to best as claimed, for a trend test. better: pairs
    "better > worse", each a paired test. measure and temperature: what decides. x, x_label: the arms' places on the
    figure's axis, in their order; without, a bar per arm. gain: points that every arm is to gain over the start.
    """

    claim: str
    measure: str = "Pass@1"
    temperature: float = 1.0
    order: tuple[str, ...] = ()
    better: tuple[str, ...] = ()
    x: tuple[float, ...] | None = None
    x_label: str = ""
    gain: float | None = None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(better, worse) of each pair."""
        return [tuple(part.strip() for part in pair.split(">")) for pair in self.better]


@dataclass(frozen=True)
class Done:
    """A finished step: its folder and its results."""

    folder: Path
    results: pd.DataFrame


def check_study(study: Study, steps: Sequence[str], where: str) -> None:
    """Raises UserError for an arm that no step tests, or a pair that is not "better > worse"."""
    arms = _arms(steps)
    for pair in study.better:
        if pair.count(">") != 1:
            raise UserError(f'{where}: better = {pair!r} must be "better > worse"')
    for arm in [*study.order, *(arm for pair in study.pairs for arm in pair)]:
        if arm not in arms:
            raise UserError(f"{where}: no arm {arm!r} is tested; {did_you_mean(arm, arms)}")
    if study.x is not None and len(study.x) != len(arms) - 1:
        raise UserError(f"{where}: x has {len(study.x)} places for {len(arms) - 1} arms")


def report(
    recipe: Recipe, found: Sequence[dict[str, Done]], out: Path, say: Callable[[str], None], style: str = "screen"
) -> list[str]:
    """Writes `<recipe>.{png,pdf,csv}`, arms.csv, tests.csv and conclusions.md into `out`; returns the conclusions."""
    from irlens import tables

    values = {arm: _values(found, arm) for arm in _arms(found[0])}
    table = _table(values)
    tests, sentences = _judge(recipe.study, values)
    tables.write_csv(table, out / "arms.csv")
    tables.write_csv(tests, out / "tests.csv")
    _draw(recipe, table, out / recipe.name, style)
    text = [f"# {recipe.title}", "", f"Claim: {recipe.study.claim}", "", *(f"- {s}" for s in sentences), ""]
    tables.write_text("\n".join(text), out / "conclusions.md")
    for sentence in sentences:
        say(sentence)
    return sentences


def _arms(steps: Iterable[str]) -> list[str]:
    """The tested arms, the start first: steps `test ARM`, of which `test ARM 2` tests the same once more."""
    names = [name.removeprefix("test ") for name in steps if name.startswith("test ")]
    return [name for name in names if name.rpartition(" ")[0] not in names]


def _values(found: Sequence[dict[str, Done]], arm: str) -> dict[tuple[str, float], np.ndarray]:
    """(measure, temperature) → values[seeds, problems] of one arm, problems in one order for all arms."""
    import numpy as np
    import pandas as pd

    parts = []
    for steps in found:
        own = [done for name, done in steps.items() if re.fullmatch(rf"test {re.escape(arm)}( \d+)?", name)]
        each = pd.concat([pd.read_parquet(done.folder / "per_query.parquet") for done in own], ignore_index=True)
        each["temperature"] = each["run"].str.replace(r".*\bT=", "", regex=True).astype(float)
        parts.append(each.sort_values("query_id"))
    keys = parts[0][["measure", "temperature"]].drop_duplicates().itertuples(index=False)
    return {
        (m, t): np.stack([p[(p["measure"] == m) & (p["temperature"] == t)]["value"].to_numpy() for p in parts])
        for m, t in keys
    }


def _table(values: dict) -> pd.DataFrame:
    """A row per arm, measure and temperature: the mean over seeds, its interval over seeds and problems, every seed."""
    import pandas as pd

    from irlens import stats

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


def _judge(study: Study, values: dict) -> tuple[pd.DataFrame, list[str]]:
    """The tests (one row each, Holm's correction over the paired ones) and a sentence for each part of the claim."""
    import pandas as pd

    from irlens import stats

    key = (study.measure, study.temperature)
    cell = {arm: cells[key] for arm, cells in values.items()}
    label = f"{study.measure} at T = {study.temperature:g}"
    pairs = [("start", arm) for arm in cell if arm != "start"]
    claimed = [(worse, better) for better, worse in study.pairs]
    rows = [_paired(cell[before], cell[after], before, after) for before, after in [*pairs, *claimed]]
    tests = pd.DataFrame(rows)
    tests["p_holm"] = stats.holm(tests["p"])
    sentences = [_against_start(row, label, study.gain) for row in tests.head(len(pairs)).itertuples()]
    sentences += [_against_claim(row, label) for row in tests.tail(len(claimed)).itertuples() if claimed]
    if study.order:
        means = [cell[arm].mean(axis=1) for arm in study.order]
        sentences.append(_trend(study.order, means, label))
    return tests, sentences


def _paired(before: np.ndarray, after: np.ndarray, name: str, other: str) -> dict:
    """Seeds averaged within a problem, problems paired; the interval over seeds and problems."""
    from irlens import stats

    test = stats.paired_test(before.mean(axis=0), after.mean(axis=0))
    low, high = stats.crossed_interval(after - before)
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


def _numbers(row) -> str:
    return (
        f"{100 * row.difference:+.1f} points [{100 * row.low:+.1f}, {100 * row.high:+.1f}], {row.seeds_up} of {row.seeds} "
        f"seeds up, paired randomisation test over {row.n:,} problems p = {row.p_holm:.4f} after Holm, d = {row.effect:+.2f}"
    )


def _against_start(row, label: str, gain: float | None) -> str:
    verdict = "significant" if row.p_holm < ALPHA else "not significant"
    if gain is not None:
        reached = 100 * row.difference >= gain and row.p_holm < ALPHA
        verdict += f"; a gain of {gain:g} points is {'reached' if reached else 'not reached'}"
    return f"{row.after}, {label}, against the start: {_numbers(row)}: {verdict}."


def _against_claim(row, label: str) -> str:
    if row.p_holm >= ALPHA:
        verdict = "not confirmed: no difference that can be told from chance"
    else:
        verdict = "confirmed" if row.difference > 0 else "contradicted"
    return f"{row.after} above {row.before}, {label}: {verdict} ({_numbers(row)})."


def _trend(order: Sequence[str], means: list, label: str) -> str:
    import numpy as np

    from irlens import stats

    rising = " < ".join(order)
    if len(means[0]) < 2 or len(order) < 3:
        return f"{label} rises as {rising}: not tested, which takes two seeds and three arms or more."
    up, down = stats.trend_test(np.stack(means, 1)), stats.trend_test(np.stack(means[::-1], 1))
    verdict = "confirmed" if up.p < ALPHA else "contradicted" if down.p < ALPHA else "not confirmed"
    return (
        f"{label} rises as {rising}: {verdict} (Page's trend test over {up.blocks} seeds, L = {up.statistic:g}, "
        f"p = {up.p:.4f}, mean Spearman ρ = {up.rho:+.2f})."
    )


def _draw(recipe: Recipe, table: pd.DataFrame, path: Path, style: str) -> None:
    """Arms on an axis where the study has places for them, else a bar per arm, beside the paper's points if it has any."""
    from irlens import plots

    study = recipe.study
    chosen = table[table["measure"] == study.measure]
    label = f"{study.measure} on test problems"
    if study.x is None:
        bars = chosen.assign(group=[f"T = {t:g}" for t in chosen["temperature"]], bar=chosen["arm"])
        plots.bars(
            bars[["group", "bar", "value", "low", "high", "n"]],
            path,
            title=recipe.title,
            value_label=label,
            style=style,
        )
        return
    arms = [arm for arm in dict.fromkeys(chosen["arm"]) if arm != "start"]
    placed = chosen[chosen["arm"] != "start"]
    curves = placed.assign(
        curve=[f"T = {t:g}" for t in placed["temperature"]], x=placed["arm"].map(dict(zip(arms, study.x)))
    )
    plots.curves(
        curves[["curve", "x", "value", "low", "high", "n"]],
        path,
        title=recipe.title,
        x_label=study.x_label,
        y_label=label,
        style=style,
    )
