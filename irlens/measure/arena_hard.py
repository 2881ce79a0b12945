"""Arena-Hard-Auto's scores: win rates over a category's baseline, plain and with style controlled, with intervals.

A question is two games; a verdict of `>>` counts as three games, a tie as half a win. Style control is a Bradley–Terry
fit over all systems of a judge at once, with differences of length and of Markdown beside the systems' strengths.
Source: Li et al. 2024, "From Crowdsourced Data to High-Quality Benchmarks: Arena-Hard and BenchBuilder Pipeline", and
lmarena/arena-hard-auto, show_result.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.measure import winrate as rates
from irlens.measure.repeats import linearised, repeated_interval
from irlens.measure.results import Results, results_of
from irlens.tables.formats import arena_hard as layout

MUCH = 3  # games that a verdict of `>>` counts for
RESAMPLES = 100
LEVELS = (0.05, 0.95)  # of the authors' interval
LOOSE = 1e-6  # precision of the prior: it keeps a system that always wins finite
WIN, CONTROLLED, EQUAL = "WinRate", "SCWinRate", "EqualStyleWinRate"
COLUMNS = ["run", "judge", "baseline", "category", "measure", "value", "low", "high", "n", "missing"]
STYLES = [f"{name}_{side}" for name in layout.STYLE for side in (1, 2)]
PARTS = ["annotator", "generator_1", "category"]
FENCED = re.compile(r"```[^`]*```")
MARKS = {
    "headers": (re.compile(r"^#{1,6}\s", re.M),),
    "lists": (re.compile(r"^[^\S\n]*\d+\.\s", re.M), re.compile(r"^[^\S\n]*[-*+]\s", re.M)),
    "bolds": (re.compile(r"\*\*[^*\n]+\*\*"), re.compile(r"__[^_\n]+__")),
}


def arena_hard(
    judgements: pd.DataFrame | str | os.PathLike | Sequence[str | os.PathLike],
    answers: str | os.PathLike | None = None,
    *,
    baseline: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    parity: bool = False,
) -> Results:
    """Win rates of systems on Arena-Hard: `run, judge, baseline, category, measure, value, low, high, n, missing`.

    judgements: files or folders in the authors' layout, or their rows (`tables.formats.arena_hard.judgements`). answers:
    a file or folder of all systems' and baselines' answers; with it style is controlled too: SCWinRate as published, at
    the average style of all systems here, and EqualStyleWinRate, at the baseline's own. baseline: whom rows that do not
    say it are compared with. `missing`: questions without two verdicts. parity: values and intervals from resampled
    games, as the authors have them; else the intervals resample questions. Raises UserError: see
    `tables.formats.arena_hard`; a question that a system has twice; no verdict at all.
    """
    if not isinstance(judgements, pd.DataFrame):
        some = [judgements] if isinstance(judgements, (str, os.PathLike)) else list(judgements)
        read = [layout.judgements(Path(path).expanduser(), baseline) for path in some]
        judgements = pd.concat(read, ignore_index=True) if read else pd.DataFrame(columns=list(layout.GAMES))
    pairs = checked(judgements)
    if answers is not None:
        pairs = styled(pairs, layout.answers(Path(answers).expanduser()))
    return scores(pairs, resamples=resamples, seed=seed, parity=parity)[0]


def checked(pairs: pd.DataFrame) -> pd.DataFrame:
    """`pairs` itself. Raises UserError: no rows, a column that is missing, a game that is no label's value, a question twice."""
    if missing := [name for name in layout.GAMES if name not in pairs.columns]:
        raise UserError(f"judgements need the columns {', '.join(layout.GAMES)}; missing: {', '.join(missing)}")
    if pairs.empty:
        raise UserError("judgements: no rows")
    games = pairs[["as_it_is", "switched"]].to_numpy(dtype=float)
    if (wrong := ~np.isnan(games) & ~np.isin(games, list(layout.TOLD))).any():
        raise UserError(f"a game must be one of {', '.join(map(str, layout.TOLD))}, or NaN, got {games[wrong][0]:g}")
    if (twice := pairs.duplicated(["annotator", "generator_2", "uid"])).any():
        row = pairs[twice].iloc[0]
        raise UserError(f"{row['generator_2']}: question {row['uid']} is judged twice ({int(twice.sum()):,} such rows)")
    return pairs.reset_index(drop=True)


# -- style ---------------------------------------------------------------------------------------------------------


def marks(text: str) -> dict[str, float]:
    """STYLE of a text: its characters, and headers, list items and bold words outside of fenced code."""
    plain = FENCED.sub("", text)
    return {"length": float(len(text))} | {n: float(sum(len(f.findall(plain)) for f in fs)) for n, fs in MARKS.items()}


def styled(pairs: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """The pairs with the style of both answers (STYLES): as metadata counts it where all answers of a judge, baseline and
    category have metadata, else counted from the texts; NaN for an answer that is not there."""
    known = answers.set_index(["model", "uid"])
    whole = pd.Series(known[list(layout.STYLE)].notna().all(axis=1))
    parts = []
    for _, part in pairs.groupby(PARTS, sort=False):
        sides = [list(zip(part[f"generator_{side}"], part["uid"])) for side in (1, 2)]
        there = [key for keys in sides for key in keys if key in known.index]
        told = bool(there) and bool(whole.loc[there].all())
        for side, keys in zip((1, 2), sides):
            found = known.reindex(pd.MultiIndex.from_tuples(keys))
            style = found[list(layout.STYLE)] if told else _counted(found["output"])
            part = part.assign(**{f"{name}_{side}": style[name].to_numpy(dtype=float) for name in layout.STYLE})
        parts.append(part.assign(style="tokens" if told else "characters"))
    return pd.concat(parts).sort_index()


def _counted(texts: pd.Series) -> pd.DataFrame:
    none = dict.fromkeys(layout.STYLE, np.nan)
    return pd.DataFrame([marks(text) if isinstance(text, str) else none for text in texts], columns=list(layout.STYLE))


def features(pairs: pd.DataFrame) -> np.ndarray:
    """[n, 4]: the system's style less the baseline's: lengths over their sum, densities of marks over their sum and 1."""
    one, two = (pairs[[f"{name}_{side}" for name in layout.STYLE]].to_numpy(dtype=float) for side in (1, 2))
    long = [np.maximum(side[:, :1], 1) for side in (one, two)]
    dense = [side[:, 1:] / length for side, length in zip((one, two), long)]
    longer = (two[:, :1] - one[:, :1]) / np.maximum(two[:, :1] + one[:, :1], 1)
    return np.c_[longer, (dense[1] - dense[0]) / (dense[1] + dense[0] + 1)]


# -- scores --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class How:
    """How intervals are made. parity: as the authors do."""

    resamples: int = RESAMPLES
    seed: int = 0
    parity: bool = False


def scores(
    pairs: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0, parity: bool = False
) -> tuple[Results, pd.DataFrame]:
    """(results, the style's coefficients) of checked pairs, with their style (`styled`) or without. Raises UserError: see
    `arena_hard`."""
    for run, part in pairs.groupby("generator_2", sort=False):
        if part[["as_it_is", "switched"]].isna().any(axis=1).all():
            raise UserError(f"{run}: none of {len(part):,} questions has two verdicts")
    how, each = How(resamples, seed, parity), []
    rows: list[dict] = []
    weights: list[dict] = []
    for key, part in pairs.groupby(PARTS, sort=False):
        about = dict(zip(("judge", "baseline", "category"), key))
        known = part[part["as_it_is"].notna() & part["switched"].notna()]
        for run, some in part.groupby("generator_2", sort=False):
            here, told = known[known["generator_2"] == run], about | {"run": run}
            row, values = _plain(here, how)
            rows.append(told | {"measure": _called(WIN, about)} | row | {"missing": len(some) - len(here)})
            if len(here):
                told = {"run": run, "measure": _called(WIN, about)}
                each.append(pd.DataFrame(told | {"query_id": here["uid"], "value": values}))
        if len(known) and set(STYLES) <= set(pairs.columns):
            more, coefficients = _controlled(part, known, about, how)
            rows, weights = rows + more, weights + coefficients
    table = pd.DataFrame(rows)[COLUMNS]
    per_query = pd.concat(each, ignore_index=True)[["run", "query_id", "measure", "value"]]
    return results_of(table, per_query, seed), pd.DataFrame(
        weights, columns=[*_KEYS, "style", "feature", "coefficient"]
    )


_KEYS = ["judge", "baseline", "category"]


def _called(measure: str, about: dict[str, str]) -> str:
    return f"{measure}:{about['category']}"


def outcomes(pairs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(wins, games), each [n, 2]: what the system wins in a game, 0 to 1, and how many games that counts for."""
    verdicts = pairs[["as_it_is", "switched"]].to_numpy(dtype=float) - 1.5
    return 0.5 + 0.5 * np.sign(verdicts), np.where(np.abs(verdicts) == 0.5, MUCH, 1)


def _plain(pairs: pd.DataFrame, how: How) -> tuple[dict, np.ndarray]:
    """(value, interval and n of one system, [n] what each question adds); NaN of no question."""
    if pairs.empty:
        return dict.fromkeys(("value", "low", "high"), float("nan")) | {"n": 0}, np.zeros(0)
    wins, games = outcomes(pairs)
    total, won = games.sum(axis=1), (wins * games).sum(axis=1)
    value, n = float(won.sum() / total.sum()), len(pairs)
    each = linearised(won / total, total)
    if not how.parity:
        low, high = repeated_interval(won / total, total)
        return {"value": value, "low": low, "high": high, "n": n}, each
    drawn = np.array([(counts * wins).sum() / counts.sum() for counts in _games_drawn(games, how)] or [value])
    return {"value": float(drawn.mean()), **_ends(drawn), "n": n}, each


def _games_drawn(games: np.ndarray, how: How) -> Iterator[np.ndarray]:
    """How often each game [n, 2] is drawn, as many draws as there are games, a verdict of `>>` being three of them."""
    rng, chances = np.random.default_rng(how.seed), games.ravel() / games.sum()
    for _ in range(how.resamples):
        yield rng.multinomial(int(games.sum()), chances).reshape(games.shape)


def _ends(values: np.ndarray) -> dict[str, float]:
    return dict(zip(("low", "high"), map(float, np.quantile(values, LEVELS))))


# -- Bradley–Terry -------------------------------------------------------------------------------------------------


def _controlled(part: pd.DataFrame, known: pd.DataFrame, about: dict, how: How) -> tuple[list[dict], list[dict]]:
    """(rows of both style-controlled rates of each system, the style's coefficients), of the pairs whose style is known."""
    here = known[known[STYLES].notna().all(axis=1)]
    if here.empty:
        return [], []
    fit = _Fit.of(here)
    strengths, slopes = fit.solve(fit.games)
    whole = _rates(strengths, slopes, fit.equal)
    drawn = np.array([_rates(*fit.solve(games), fit.equal) for games in fit.resampled(how)]).reshape(-1, *whole.shape)
    rows = []
    for i, run in enumerate(fit.runs):
        mine = fit.system == i
        told = about | {"run": run, "n": int(mine.sum())}
        told["missing"] = int((part["generator_2"] == run).sum()) - told["n"]
        share = fit.won[mine].sum(axis=1) / fit.games[mine].sum(axis=1)
        for j, measure in enumerate((CONTROLLED, EQUAL)):
            found = _spread(drawn[:, j, i], float(whole[j, i]), share, how)
            rows.append(told | {"measure": _called(measure, about)} | found)
    style = str(here["style"].iloc[0])
    return rows, [about | {"style": style, "feature": f, "coefficient": float(s)} for f, s in zip(layout.STYLE, slopes)]


def _spread(drawn: np.ndarray, value: float, share: np.ndarray, how: How) -> dict[str, float]:
    """A rate and its interval, of its resamples; as the authors do, the median of these and their quantiles."""
    if how.parity and len(drawn):
        return {"value": float(np.median(drawn)), **_ends(drawn)}
    _, low, high = rates.interval(drawn, value, share)
    return {"value": value, "low": low, "high": high}


def _rates(strengths: np.ndarray, slopes: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """[2, systems]: the chances of a win at the average style, and at the baseline's."""
    return _logistic(np.stack([strengths, strengths + slopes @ equal]))


@dataclass(frozen=True)
class _Fit:
    """What is fitted: each question's system [n], won and all games [n, 2], features [n, 4] with mean 0 and deviation 1 over
    all games, and these of an answer in the baseline's style [4]."""

    runs: list[str]
    questions: np.ndarray
    system: np.ndarray
    won: np.ndarray
    games: np.ndarray
    features: np.ndarray
    equal: np.ndarray

    @classmethod
    def of(cls, pairs: pd.DataFrame) -> _Fit:
        wins, games = outcomes(pairs)
        raw, count = features(pairs), games.sum(axis=1)[:, None]
        mean = (raw * count).sum(axis=0) / count.sum()
        spread = np.sqrt((count * (raw - mean) ** 2).sum(axis=0) / max(count.sum() - 1, 1))
        scale = np.where(spread > 0, spread, 1.0)
        system, runs = pd.factorize(pairs["generator_2"])
        questions, _ = pd.factorize(pairs["uid"])
        return cls(list(runs), questions, system, wins * games, games, (raw - mean) / scale, -mean / scale)

    def resampled(self, how: How) -> Iterator[np.ndarray]:
        """The games [n, 2] of each resample: of questions, or as the authors have it of games."""
        if how.parity:
            yield from _games_drawn(self.games, how)
            return
        n = int(self.questions.max()) + 1
        for rows in rates.resampled_rows(n, how.resamples, how.seed):
            yield self.games * np.bincount(rows, minlength=n)[self.questions][:, None]

    def solve(self, games: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(strength of each system, slope of each feature): the maximum likelihood, by Newton's method."""
        weight, share = games.sum(axis=1), self.won / self.games
        won, z, s = (games * share).sum(axis=1), self.features, self.system
        strengths, slopes = np.zeros(len(self.runs)), np.zeros(z.shape[1])
        for _ in range(100):
            p = _logistic(strengths[s] + z @ slopes)
            off, curve = weight * p - won, weight * p * (1 - p)
            diagonal = np.bincount(s, curve, len(strengths)) + LOOSE
            cross = np.stack([np.bincount(s, curve * column, len(strengths)) for column in z.T], axis=1)
            down = np.bincount(s, off, len(strengths)) + LOOSE * strengths
            inner = (z * curve[:, None]).T @ z + LOOSE * np.eye(len(slopes)) - cross.T @ (cross / diagonal[:, None])
            step = np.linalg.solve(inner, z.T @ off + LOOSE * slopes - cross.T @ (down / diagonal))
            moves = (down - cross @ step) / diagonal
            most = max(np.abs(moves).max(), np.abs(step).max())
            scale = min(1.0, 1 / max(most, 1e-300))
            strengths, slopes = strengths - scale * moves, slopes - scale * step
            if most < 1e-9:
                break
        return strengths, slopes


def _logistic(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))
