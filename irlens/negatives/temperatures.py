"""At which temperatures draws make lists: too low and they collapse into one response, too high and all are wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.rerank.scoring import finished

COLLAPSED = 0.25  # fewer distinct responses per draw than this are called a collapse
SHARES = {
    "usable": "prompts with a right and a wrong draw: a list can be cut",
    "all right": "prompts whose finished draws are all right",
    "all wrong": "prompts without a right draw",
    "distinct": "distinct responses per draw",
}


def usable_temperatures(
    run: pd.DataFrame, qrels: pd.DataFrame, mean_intervals: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> pd.DataFrame:
    """temperature, measure (of SHARES, each a share of 0 … 1), value, low, high, n (prompts), and draws (per prompt).

    run: draws with a column temperature; qrels: their judgements (relevance above 0 is right); mean_intervals:
    `irlens.measure.stats.mean_intervals`, handed in, since measuring comes after the negatives. As in cutting lists, an
    unfinished draw is neither right nor wrong, and repeats of a text count once; a prompt whose draws are all
    unfinished is all wrong. Raises UserError: no temperatures, no draws, a draw that is not judged.
    """
    missing = [column for column in ("temperature", "text") if column not in run.columns]
    if run.empty:
        raise UserError("the run has no draws")
    if missing:
        raise UserError(f"the run needs draws with the columns temperature and text; missing: {', '.join(missing)}")
    judged = run.merge(qrels[["query_id", "doc_id", "relevance"]], on=["query_id", "doc_id"], how="left")
    if judged["relevance"].isna().any():
        count, first = int(judged["relevance"].isna().sum()), judged["doc_id"][judged["relevance"].isna()].iloc[0]
        raise UserError(f"the qrels do not judge {count:,} of {len(judged):,} draws, the first {first}")
    ended = finished(judged)
    judged = judged.assign(right=(judged["relevance"] > 0) & ended, wrong=(judged["relevance"] <= 0) & ended)
    out = []
    for temperature, draws in judged.groupby("temperature"):
        prompts = draws.groupby("query_id")
        right, wrong = prompts["right"].any(), prompts["wrong"].any()
        values = np.stack(
            [right & wrong, right & ~wrong, ~right, prompts["text"].nunique() / prompts.size()], axis=1
        ).astype(float)
        low, high = mean_intervals(values)
        for i, measure in enumerate(SHARES):
            row = {"temperature": temperature, "measure": measure, "value": values[:, i].mean()}
            out.append({**row, "low": low[i], "high": high[i], "n": len(values), "draws": prompts.size().mean()})
    return pd.DataFrame(out)


def in_words(table: pd.DataFrame, least: float = 0.5) -> list[str]:
    """Sentences: from which to which temperature at least a share `least` of the prompts give a list, and what fails
    at the others; also where draws collapse. table: what `usable_temperatures` returns.

    Raises UserError for a share outside 0 … 1.
    """
    if not 0 < least <= 1:
        raise UserError(f"--least {least:g}: a share must be above 0 and at most 1")
    wide = table.pivot(index="temperature", columns="measure", values="value").sort_index()
    draws = table.groupby("temperature")["draws"].max()
    good = wide.index[wide["usable"] >= least]
    best = wide["usable"].idxmax()
    share = f"at least {100 * least:.0f} % of the prompts have a right and a wrong draw"
    most = f"{100 * wide['usable'][best]:.0f} % at T = {best:g}"
    if len(good):
        gaps = "" if (wide.loc[good.min() : good.max()]["usable"] >= least).all() else ", with gaps"
        span = f"from T = {good.min():g} to {good.max():g}{gaps}" if len(good) > 1 else f"at T = {best:g} only"
        out = [f"Lists of draws are usable ({share}) {span}; most: {most}."]
    else:
        out = [f"Lists of draws are usable ({share}) at no temperature; most: {most}."]
    for temperature, row in wide.iterrows():
        collapsed = row["distinct"] < COLLAPSED
        if row["usable"] >= least and not collapsed:
            continue
        n = draws[temperature]
        held = f"{n:.0f} draws hold {n * row['distinct']:.1f} distinct responses"
        rest = f"{100 * row['all right']:.0f} % of the prompts are all right, {100 * row['all wrong']:.0f} % all wrong"
        out.append(f"At T = {temperature:g} {'draws collapse: ' if collapsed else ''}{held}; {rest}.")
    return out
