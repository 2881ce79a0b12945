"""What several judges said of the same pairs of answers: one value per judge and pair, and every verdict behind it.

A pair is a prompt, a system's answer and the baseline's. A verdict is one answer of a judge to one showing of a pair: in
which order it was shown, and the how-manieth showing in that order it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.measure import leaderboard
from irlens.measure import winrate as rates
from irlens.rerank.pair_protocols import is_switched
from irlens.tables.formats.alpaca_annotations import NAMES

KEY = ["instruction", "generator_2", "output_1", "output_2"]
NUMBERS = ("preference", "as_it_is", "switched", "reward_1", "reward_2")  # columns of a set
ORDERS = ("alpaca-eval", "none")  # what is believed of a verdict that does not say how its pair was shown
Pairs: TypeAlias = pd.DataFrame | Sequence[dict]


@dataclass(frozen=True)
class Verdicts:
    """judges: their names. pairs: `KEY`, and `prompt` (a number from 0 on), `system` (the same), `longer` (characters of
    the system's answer less the baseline's). values [pairs, judges]: preferences from 1 (the baseline wins) to 2, NaN
    where there is none. margins [pairs, judges]: how far a reranker has the system's answer above the baseline's; NaN of
    a judge without scores. each: `judge, pair, switched, repeat, preference` (whole numbers but for the last; switched:
    1 where the system's answer was shown first, 0 where the baseline's was, -1 where that is not known).
    missing: judge → pairs that it has no preference for, of those it was given."""

    judges: list[str]
    pairs: pd.DataFrame
    values: np.ndarray
    margins: np.ndarray
    each: pd.DataFrame
    missing: dict[str, int]

    @property
    def prompts(self) -> int:
        """How many there are."""
        return int(self.pairs["prompt"].nunique())


def gathered(sets: Mapping[str, Pairs], order: str = "alpaca-eval") -> Verdicts:
    """The verdicts of some sets: name → rows as an annotations.json has them (`irlens.winrate`), or as `irlens winrate`
    keeps them, with the order of each question. A set may hold several judges, and a pair several times: a repeat.

    A judge is called by its `annotator`, else as its set is; two of one name in two sets get their set's. order: of
    verdicts that do not say it: `alpaca-eval`, by the coin that the instruction throws, or none. Raises UserError: what
    `irlens.winrate` refuses, a judge without any preference.
    """
    if order not in ORDERS:
        raise UserError(f"order must be {' or '.join(ORDERS)}, got {order!r}")
    frames = {name: _checked(rows, name) for name, rows in sets.items()}
    frame = pd.concat([_called(found, name, frames) for name, found in frames.items()], ignore_index=True)
    frame["preference"] = rates.read_preferences(frame["preference"].to_numpy())
    at, pairs = _pairs(frame)
    frame = frame.assign(pair=at)
    judges = list(dict.fromkeys(frame["judge"]))
    means = frame.groupby(["pair", "judge"], sort=False)["preference"].mean()  # of those that are known
    values = _matrix(means, len(pairs), judges)
    margins = np.full(values.shape, np.nan)
    if {"reward_1", "reward_2"} <= set(frame.columns):
        some = frame.assign(margin=frame["reward_2"] - frame["reward_1"])
        margins = _matrix(some.groupby(["pair", "judge"], sort=False)["margin"].mean(), len(pairs), judges)
    missing = {name: int(part.isna().sum()) for name, part in means.groupby("judge", sort=False)}
    for name in judges:
        if np.isnan(values[:, judges.index(name)]).all():
            raise UserError(f"{name}: none of its {missing[name]:,} pairs has a preference")
    return Verdicts(judges, pairs, values, margins, _each(frame, judges, order), missing)


def _checked(rows: Pairs, name: str) -> pd.DataFrame:
    """A set as pairs. Raises UserError, naming the set."""
    frame = _numbers(rows, name)
    try:
        return leaderboard.checked(frame, once=False)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _numbers(rows: Pairs, name: str) -> pd.DataFrame:
    """A set with its numbers as numbers. Raises UserError, naming the row, for what is none."""
    frame = pd.DataFrame(rows)
    for column in (c for c in NUMBERS if c in frame.columns):
        numbers = pd.to_numeric(frame[column], errors="coerce")
        wrong = numbers.isna() & frame[column].notna()
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise UserError(f"{name}: row {row}: {column} must be a number, got {frame[column].tolist()[row]!r:.60}")
        frame[column] = numbers.astype(float)
    return frame


def scored(found: Verdicts, name: str, margins: np.ndarray) -> Verdicts:
    """`found` with one more judge, a reranker that has the system's answer so far [pairs] above the baseline's."""
    name = _free(name, found.judges)
    values = (1.5 + 0.5 * np.sign(margins))[:, None]
    each = pd.DataFrame({"judge": len(found.judges), "pair": np.arange(len(found.pairs)), "switched": -1, "repeat": 0,
                         "preference": values[:, 0]})  # fmt: skip
    return Verdicts(
        [*found.judges, name],
        found.pairs,
        np.c_[found.values, values],
        np.c_[found.margins, margins],
        pd.concat([found.each, each], ignore_index=True),
        found.missing | {name: 0},
    )


def _free(name: str, taken: Iterable[str]) -> str:
    """`name`, or with a number behind it where another judge is called so."""
    names, number = set(taken), 2
    if name not in names:
        return name
    while f"{name} ({number})" in names:
        number += 1
    return f"{name} ({number})"


def _called(frame: pd.DataFrame, name: str, frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A set with the names of its judges in the column `judge`."""
    unknown = NAMES["annotator"]
    others = {who for other, found in frames.items() if other != name for who in found["annotator"].unique()}
    names = {}
    for who in frame["annotator"].unique():
        plain = name if who in (unknown, "") else who
        names[who] = f"{plain} ({name})" if who in others and plain != name else plain
    return frame.assign(judge=frame["annotator"].map(names))


def _pairs(frame: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """(the pair of each row, the pairs as they first occur)."""
    at = frame.groupby(KEY, sort=False).ngroup().to_numpy()
    pairs = frame.drop_duplicates(KEY)[KEY].reset_index(drop=True)
    longer = pairs["output_2"].str.len() - pairs["output_1"].str.len()
    prompt, system = (pd.factorize(pairs[name])[0] for name in ("instruction", "generator_2"))
    return at, pairs.assign(prompt=prompt, system=system, longer=longer.astype(float))


def _matrix(values: pd.Series, pairs: int, judges: Sequence[str]) -> np.ndarray:
    """[pairs, judges] of a series by (pair, judge); NaN where there is none."""
    place = {name: i for i, name in enumerate(judges)}
    out = np.full((pairs, len(judges)), np.nan)
    at = values.index
    out[at.get_level_values(0), at.get_level_values(1).map(place)] = values.to_numpy(dtype=float)
    return out


# -- every verdict -------------------------------------------------------------------------------------------------


def _each(frame: pd.DataFrame, judges: Sequence[str], order: str) -> pd.DataFrame:
    """Every verdict: those that a row tells of, else the row's own preference in the order that is believed of it."""
    believed = _coin if order == ORDERS[0] else lambda _: -1
    place = {name: i for i, name in enumerate(judges)}
    told = frame["verdicts"] if "verdicts" in frame.columns else pd.Series(None, index=frame.index, dtype=object)
    sides = [frame[c] if c in frame.columns else pd.Series(np.nan, index=frame.index) for c in ("as_it_is", "switched")]
    by_scores = frame["reward_2"].notna() if "reward_2" in frame.columns else pd.Series(False, index=frame.index)
    rows = []
    columns = (frame[name] for name in ("judge", "pair", "instruction", "preference", "output_1", "output_2"))
    for judge, pair, text, value, one, other, verdicts, first, second, scores in zip(*columns, told, *sides, by_scores):
        found = _told(verdicts, first, second)
        if not found:
            unshown = scores or one == other  # a reranker is shown one answer at a time, and equal ones nobody
            found = [(-1 if unshown else believed(text), value)]
        rows += [(place[judge], pair, int(shown), preference) for shown, preference in found]
    each = pd.DataFrame(rows, columns=["judge", "pair", "switched", "preference"]).astype({"preference": float})
    each["preference"] = rates.read_preferences(each["preference"].to_numpy())
    repeat = each.groupby(["judge", "pair", "switched"], sort=False).cumcount()
    return each.assign(repeat=repeat)[["judge", "pair", "switched", "repeat", "preference"]]


_coins: dict[str, int] = {}


def _coin(instruction: str) -> int:
    """1 where AlpacaEval shows the system's answer first."""
    if instruction not in _coins:
        _coins[instruction] = int(is_switched(instruction))
    return _coins[instruction]


def _told(verdicts: object, as_it_is: float, switched: float) -> list[tuple[int, float]]:
    """(switched, preference) of the verdicts that a row of `irlens winrate` tells of. Raises UserError for others' words."""
    if isinstance(verdicts, str) and verdicts:
        try:
            found = [
                (int(turn), float("nan") if value is None else float(value)) for turn, value in json.loads(verdicts)
            ]
            if {turn for turn, _ in found} - {0, 1}:
                raise ValueError("an order that is none")
        except (ValueError, TypeError) as error:
            raise UserError(f"verdicts {verdicts!r:.60}: not a list of [switched, preference]") from error
        return found
    return [(turn, value) for turn, value in enumerate((as_it_is, switched)) if value == value]


# -- what is common ------------------------------------------------------------------------------------------------


def check(found: Verdicts, say: Callable[[str], None], more: int = 0) -> None:
    """Raises UserError for one judge alone, and for two that share fewer than two prompts; what one lacks is said.

    more: judges that are to come, of all pairs.
    """
    if len(found.judges) + more < 2:
        raise UserError(
            f"judges: agreement needs two judges, and there is {found.judges[0]}; name another set, or a reranker to "
            "compare with: --judge length,random"
        )
    known = ~np.isnan(found.values)
    prompt = found.pairs["prompt"].to_numpy()
    if min(both := [len(set(prompt[some])) for some in known.T]) < 2:
        raise UserError(
            f"judges: {found.judges[int(np.argmin(both))]} has preferences for one prompt; intervals need two"
        )
    for i, j in combinations(range(len(found.judges)), 2):
        common = len(set(prompt[known[:, i] & known[:, j]]))
        if common < 2:
            raise UserError(_apart(found, i, j, common))
    there = np.array([np.bincount(prompt[some], minlength=found.prompts) > 0 for some in known.T])
    for name, some in zip(found.judges, there):
        if lacking := int((~some).sum()):
            first = found.pairs["instruction"][np.isin(prompt, np.flatnonzero(~some))].iloc[0]
            say(f"{name}: has nothing for {lacking:,} of {found.prompts:,} prompts (the first: {first!r:.60})")
    for name, count in found.missing.items():
        if count:
            say(f"{name}: {count:,} pairs have no preference: left out, and counted")


def _apart(found: Verdicts, i: int, j: int, both: int) -> str:
    """Why two judges cannot be compared."""
    known = ~np.isnan(found.values)
    sides = [found.pairs[known[:, place]] for place in (i, j)]
    prompts, systems = (set(sides[0][column]) & set(sides[1][column]) for column in ("instruction", "generator_2"))
    where = f"judges: {found.judges[i]} and {found.judges[j]} share {both} prompts with the same two answers"
    if len(prompts) < 2:
        return f"{where}: of {sides[0]['prompt'].nunique():,} and {sides[1]['prompt'].nunique():,} prompts {len(prompts)} are the same; prompts are joined by their text"
    if not systems:
        names = [sorted(set(side["generator_2"]))[0] for side in sides]
        return f"{where}: their systems have other names, such as {names[0]!r} and {names[1]!r}"
    return f"{where}: of the same prompts and systems they judged other answers"
