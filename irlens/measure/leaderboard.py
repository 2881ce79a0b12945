"""Judged pairs to win rates per system: a results table, AlpacaEval's leaderboard, and systems against each other.

`irlens.winrate` is this module's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.measure import winrate as rates
from irlens.measure.results import Results, results_of
from irlens.tables import query_id_of
from irlens.tables.formats import alpaca_annotations as layout
from irlens.tables.formats import alpaca_lengths as lengths

if TYPE_CHECKING:
    from irlens.rerank.reranker import Scoring

WIN, DISCRETE, CONTROLLED = "WinRate", "DiscreteWinRate", "LCWinRate"
Difficulty = Mapping[str, float] | Sequence[float]
Fits = dict[tuple[str, ...], rates.LengthControlled]  # of (system, judge, baseline), the values of `systems`


def winrate(
    pairs: pd.DataFrame | Sequence[dict],
    judge: Scoring | Callable[[pd.DataFrame], Sequence[float]] | None = None,
    *,
    difficulty: Difficulty | str | Path | None = None,
    gamed: rates.Gamed | str | Path | None = None,
    resamples: int = rates.RESAMPLES,
    seed: int = 0,
) -> Results:
    """Win rates of systems against a baseline by a judge: `run, judge, baseline, measure, value, standard_error, low, high,
    n, missing`, a row per system (and judge) and measure: WinRate, DiscreteWinRate and LCWinRate, shares from 0 to 1.

    pairs: rows as an annotations.json of AlpacaEval has them: `instruction, output_1` (the baseline's), `output_2`,
    `preference`, and `generator_1`, `generator_2`, `annotator` where known. judge: in the place of these preferences a
    reranker, such as `irlens.reranker("fsfairx")`, whose higher score wins, or a function of the pairs that gives a
    preference per row. difficulty: instruction → number, or a number per row position, as published before prompts were
    joined by their text, or AlpacaEval's file, whose positions are those of the system with the most prompts; gamed:
    AlpacaEval's gamed rows, or their file. What the length control is without them:
    `irlens.measure.winrate.length_controlled`. LCWinRate's standard_error is the bootstrap's, as is its interval.

    Raises UserError: a column that is missing, a pair that occurs twice, a preference out of range, a prompt without a
    difficulty, a system without any preference.
    """
    frame = judged(checked(pairs, judge is None), judge)
    if isinstance(difficulty, (str, Path)):
        longest = frame["generator_2"] == frame["generator_2"].value_counts().idxmax()
        prompts = frame["instruction"][longest].drop_duplicates().tolist()
        difficulty = lengths.read_difficulty(Path(difficulty), prompts, "difficulty")
    if isinstance(gamed, (str, Path)):
        gamed = rates.Gamed(**lengths.read_gamed(Path(gamed), "gamed"))
    return table(frame, fitted(frame, difficulty, gamed, resamples=resamples, seed=seed), seed)


def fitted(
    frame: pd.DataFrame,
    difficulty: Difficulty | None = None,
    gamed: rates.Gamed | None = None,
    *,
    resamples: int = rates.RESAMPLES,
    seed: int = 0,
    done: Callable[[], None] = lambda: None,
) -> Fits:
    """(system, judge, baseline) → its length control, of checked pairs; `done()` after each. Raises UserError: see `winrate`."""
    found = {}
    for about, part in systems(frame):
        hard = None if difficulty is None else difficulties(part, difficulty)
        delta = part["output_1"].str.len().to_numpy(dtype=float) - part["output_2"].str.len().to_numpy(dtype=float)
        values = part["preference"].to_numpy()
        found[*about.values()] = rates.length_controlled(values, delta, hard, gamed, resamples=resamples, seed=seed)
        done()
    return found


def table(frame: pd.DataFrame, fits: Fits, seed: int = 0) -> Results:
    """What `winrate` gives, of checked pairs and their fits."""
    rows, each = [], []
    for about, part in systems(frame):
        values, lc = part["preference"].to_numpy(), fits[*about.values()]
        plain = {WIN: rates.win_rate(values), DISCRETE: rates.discrete_win_rate(values)}
        rows += [about | {"measure": name, **vars(found)} for name, found in plain.items()]
        told = {"value": lc.value, "standard_error": lc.fit_error, "low": lc.low, "high": lc.high, "n": lc.n}
        rows.append(about | {"measure": CONTROLLED} | told | {"missing": plain[WIN].missing})
        each.append(_per_query(part, about["run"], lc.values))
    return results_of(pd.DataFrame(rows), pd.concat(each, ignore_index=True), seed)


def checked(pairs: pd.DataFrame | Sequence[dict], preferred: bool = True, once: bool = True) -> pd.DataFrame:
    """`pairs` as a frame with all columns of an annotation. preferred: they must hold preferences, each in range; once:
    a judge says no more than one thing of a pair.

    Raises UserError: see `winrate`.
    """
    frame = pd.DataFrame(pairs)
    wanted = [*layout.PAIR, "preference"] if preferred else list(layout.PAIR)
    if missing := [name for name in wanted if name not in frame.columns]:
        raise UserError(f"pairs need the columns {', '.join(wanted)}; missing: {', '.join(missing)}")
    if frame.empty:
        raise UserError("win rates need at least one pair of answers")
    for name in layout.PAIR:
        if not frame[name].map(lambda text: isinstance(text, str)).all():
            raise UserError(f"pairs: {name} must be a text in every row")
    for name, otherwise in layout.NAMES.items():
        values = frame[name] if name in frame.columns else pd.Series(None, index=frame.index, dtype=object)
        frame[name] = values.where(values.notna(), otherwise).astype(str)
    frame = frame.reset_index(drop=True)
    keys = ["generator_1", "generator_2", "annotator", "instruction"]
    twice = frame.duplicated(keys)
    if once and twice.any():
        row = frame[twice].iloc[0]
        raise UserError(
            f"{row['generator_2']}: {int(twice.sum()):,} prompts are judged twice, the first: {row['instruction']!r:.80}"
        )
    if preferred:
        for about, part in systems(frame):
            try:
                known = rates.read_preferences(part["preference"].to_numpy())
            except UserError as error:
                raise UserError(f"{about['run']}: {error}") from error
            if np.isnan(known).all():
                raise UserError(
                    f"{about['run']}: none of its {len(part):,} prompts has a preference by {about['judge']}"
                )
    return frame


def judged(pairs: pd.DataFrame, judge: Scoring | Callable | None) -> pd.DataFrame:
    """Checked pairs with the preferences of a judge, who is named in `annotator`; themselves without one."""
    if judge is None:
        return pairs
    from irlens.rerank import judgements
    from irlens.rerank.reranker import Scoring, called

    if isinstance(judge, Scoring):
        return judgements.by_scores(pairs, judge).assign(annotator=judge.name)
    found = np.asarray(judge(pairs.copy()), dtype=float)
    if found.shape != (len(pairs),):
        raise UserError(f"judge {called(judge)}: it gave {found.shape} preferences for {len(pairs):,} pairs")
    return checked(pairs.assign(preference=found, annotator=called(judge)))


def systems(pairs: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """({run, judge, baseline}, rows) of each system of checked pairs, in their order."""
    for (system, judge, baseline), part in pairs.groupby(["generator_2", "annotator", "generator_1"], sort=False):
        yield {"run": system, "judge": judge, "baseline": baseline}, part


def difficulties(part: pd.DataFrame, difficulty: Difficulty) -> np.ndarray:
    """[n] by the text of each prompt, or by its position. Raises UserError for prompts that have none."""
    if not isinstance(difficulty, Mapping):
        if len(difficulty) < len(part):
            raise UserError(f"difficulty: {len(difficulty):,} values by position for {len(part):,} prompts")
        return np.asarray(difficulty, dtype=float)[: len(part)]
    unknown = [text for text in part["instruction"] if text not in difficulty]
    if unknown:
        raise UserError(
            f"{len(unknown):,} of {len(part):,} prompts have no difficulty, the first: {unknown[0]!r:.80}; leave out "
            f"--difficulty and --gamed to control the length without them"
        )
    return part["instruction"].map(difficulty).to_numpy(dtype=float)


def _per_query(part: pd.DataFrame, run: str, controlled: np.ndarray) -> pd.DataFrame:
    """run, query_id, measure, value: of the prompts that have a preference its value, plain and discrete; of every prompt
    what it adds to the length-controlled win rate (`LengthControlled.values`), which may lie outside 0 to 1."""
    wins = rates.read_preferences(part["preference"].to_numpy()) - 1
    known, names = ~np.isnan(wins), np.array([query_id_of(text) for text in part["instruction"]], dtype=object)
    values = {
        WIN: (names[known], wins[known]),
        DISCRETE: (names[known], 0.5 + 0.5 * np.sign(wins[known] - 0.5)),
        CONTROLLED: (names, controlled),
    }
    tables = [
        pd.DataFrame({"run": run, "query_id": ids, "measure": name, "value": found})
        for name, (ids, found) in values.items()
    ]
    return pd.concat(tables, ignore_index=True)


# -- as published --------------------------------------------------------------------------------------------------


def published(pairs: pd.DataFrame, fits: Fits) -> pd.DataFrame:
    """AlpacaEval's leaderboard, with its names and in points of 100, and the judge beside them; the best first.

    `lc_standard_error` is as published: as if the fit were known.
    """
    rows = []
    for about, part in systems(pairs):
        values = rates.read_preferences(part["preference"].to_numpy())
        values, found, lc = values[~np.isnan(values)], rates.win_rate(values), fits[*about.values()]
        rows.append(
            {
                "": about["run"],
                "win_rate": 100 * found.value,
                "standard_error": 100 * found.standard_error,
                "n_wins": int((values > 1.5).sum()),
                "n_wins_base": int((values < 1.5).sum()),
                "n_draws": int((values == 1.5).sum()),
                "n_total": len(values),
                "discrete_win_rate": 100 * rates.discrete_win_rate(values).value,
                "avg_length": int(part["output_2"].str.len().mean()),
                "length_controlled_winrate": 100 * lc.value,
                "lc_standard_error": 100 * lc.standard_error,
                "judge": about["judge"],
                "baseline": about["baseline"],
            }
        )
    return pd.DataFrame(rows).sort_values("length_controlled_winrate", ascending=False, kind="stable")


def against(pairs: pd.DataFrame, fits: Fits, difficulty: Difficulty | None, seed: int = 0) -> pd.DataFrame:
    """`run, against, judge, measure, value, low, high, n` of every two systems: the length-controlled win rate of one over
    the other, from their fits against one baseline. No interval where they have other numbers of prompts."""
    parts = [(about, part) for about, part in systems(pairs)]
    rows = []
    for i, (one, part) in enumerate(parts):
        hard = np.zeros(len(part)) if difficulty is None else difficulties(part, difficulty)
        first = fits[*one.values()]
        for other, _ in parts[i + 1 :]:
            if (other["judge"], other["baseline"]) != (one["judge"], one["baseline"]):
                continue
            second, low, high = fits[*other.values()], float("nan"), float("nan")
            if first.n == second.n and first.resampled:
                _, low, high = rates.between_interval(first, second, hard, seed=seed)
            value = rates.between(first.weights, second.weights, hard)
            about = {"run": one["run"], "against": other["run"], "judge": one["judge"], "measure": CONTROLLED}
            rows.append(about | {"value": value, "low": low, "high": high, "n": len(part)})
    return pd.DataFrame(rows, columns=["run", "against", "judge", "measure", "value", "low", "high", "n"])
