"""How good judges of answers are: how far they agree, and what else than the answers decides what they say.

Agreement of every two judges, the advantage of being shown first, the advantage of being longer, and whether a judge says
the same again. `irlens.judges` is this module's function; what each number is: docs/howto/judges.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.base.progress import silent
from irlens.base.seeds import derive
from irlens.measure import coefficients as agree
from irlens.measure import length_bias, rankings
from irlens.measure import verdicts as table
from irlens.measure.coefficients import Estimate
from irlens.measure.results import Results
from irlens.measure.verdicts import Pairs, Verdicts

if TYPE_CHECKING:
    from irlens.rerank.reranker import Scoring

RESAMPLES = 1000
ALL = "all judges"
AGREEMENT = ("agreement", "kappa", "alpha, nominal", "alpha, interval", "tau over systems")
BIAS = (
    "ties",
    "first shown preferred",
    "win rate if shown first",
    "win rate if shown second",
    "gain of the first place",
    "same winner in both orders",
    "first place in both orders",
    "second place in both orders",
    "longer preferred",
    "slope of length",
    "same again",
    "alpha of repeats",
)


@dataclass(frozen=True)
class JudgeQuality:
    """What `irlens.judges` finds, a frame each.

    judges: who judged what. agreement: `judge, against, measure, value, low, high, n, prompts`, of every two, and of all
    where there are more. bias: the same of each alone, without `against`. lengths: the systems' win rate by how much
    longer their answer is. rankings: what each judge and reranker is worth as a ranking of the systems' answers where
    another judge grades them (`.per_query` knows it by prompt); None where no prompt has two systems.
    """

    judges: pd.DataFrame
    agreement: pd.DataFrame
    bias: pd.DataFrame
    lengths: pd.DataFrame
    rankings: Results | None


def judges(
    sets: Mapping[str, Pairs],
    rerankers: Sequence[str | Scoring | Callable] = (),
    *,
    measures: str = rankings.MEASURES,
    order: str = "alpaca-eval",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> JudgeQuality:
    """How far judges of the same pairs of answers agree, how biased and how consistent each is.

    sets: name → rows as `irlens.winrate` takes them, of one judge or several; a pair that a judge is asked about again is
    a repeat. rerankers: judges too, which score every answer (names, such as length, random, fsfairx, or `irlens.reranker`s).
    measures: ir_measures' of the rankings of the systems' answers. order: how a pair was shown where the rows do not tell:
    alpaca-eval, by the coin that the instruction throws, or none. Intervals are over prompts, by `resamples` of them.

    Raises UserError: what `irlens.winrate` refuses; one judge alone; two judges with fewer than two prompts in common.
    """
    found, measured = table.gathered(sets, order), rankings.parsed(measures)
    graders = list(found.judges)
    for one in rerankers:
        found = with_reranker(found, _scoring(one, seed))
    table.check(found, silent)
    return quality(found, graders, measured, resamples, seed)


def _scoring(one: str | Scoring | Callable, seed: int) -> Scoring:
    from irlens.rerank.by_name import reranker
    from irlens.rerank.reranker import as_scoring

    return reranker(one, seed=seed) if isinstance(one, str) else as_scoring(one)


def with_reranker(found: Verdicts, scoring: Scoring) -> Verdicts:
    """`found` with a reranker as one more judge, which scores all answers. Raises UserError: see `Scoring`; one that says
    nothing about two answers."""
    from irlens.rerank import judgements

    refuse(scoring.name)
    some = judgements.by_scores(found.pairs, scoring)
    return table.scored(found, scoring.name, (some["reward_2"] - some["reward_1"]).to_numpy(dtype=float))


def refuse(name: str) -> None:
    """Raises UserError for a reranker that says nothing about two answers; random ones are what others are compared with."""
    from irlens.rerank.judge_names import SAYS_NOTHING

    if name in SAYS_NOTHING and name != "random":
        raise UserError(f"--judge {name}: says nothing about two answers to one prompt")


def quality(
    found: Verdicts, graders: Sequence[str], measures: rankings.Measures, resamples: int = RESAMPLES, seed: int = 0
) -> JudgeQuality:
    """All tables of checked verdicts. graders: the judges whose preferences the rankings are measured by."""
    number = derive(seed, 0, "bootstrap")
    return JudgeQuality(
        _counts(found),
        pd.DataFrame(_agreement(found, resamples, number)),
        pd.DataFrame(_bias(found, resamples, number)),
        length_bias.by_length(found),
        rankings.ranked(found, graders, measures, seed),
    )


def _counts(found: Verdicts) -> pd.DataFrame:
    """Who judged what: judge, pairs, prompts, systems, missing, wins, ties, losses, shown (verdicts whose order is known),
    both_orders (pairs), repeated (pairs)."""
    rows = []
    for i, name in enumerate(found.judges):
        known = ~np.isnan(found.values[:, i])
        kinds = np.bincount(agree.categories(found.values[known, i]), minlength=3)
        own = found.each[(found.each["judge"] == i) & found.each["preference"].notna()]
        turns = own[own["switched"] >= 0].groupby("pair")["switched"].nunique()
        rows.append(
            {
                "judge": name,
                "pairs": int(known.sum()),
                "prompts": found.pairs["prompt"][known].nunique(),
                "systems": found.pairs["system"][known].nunique(),
                "missing": found.missing[name],
                "wins": int(kinds[2]),
                "ties": int(kinds[1]),
                "losses": int(kinds[0]),
                "shown": int((own["switched"] >= 0).sum()),
                "both_orders": int((turns == 2).sum()),
                "repeated": own.loc[own.duplicated(["pair", "switched"]), "pair"].nunique(),
            }
        )
    return pd.DataFrame(rows)


# -- agreement -----------------------------------------------------------------------------------------------------


def _agreement(found: Verdicts, resamples: int, seed: int) -> Iterator[dict]:
    """The rows of every two judges, over the pairs that both judged; of more than two α of all of them too."""
    prompt, system = (found.pairs[name].to_numpy() for name in ("prompt", "system"))
    for i, j in combinations(range(len(found.judges)), 2):
        both = ~np.isnan(found.values[:, [i, j]]).any(axis=1)
        values, at = found.values[both][:, [i, j]], prompt[both]
        same = np.equal(*agree.categories(values).T).astype(float)
        told = [agree.share(same, at), agree.cohen(values, at, resamples, seed)]
        told += [agree.krippendorff(values, at, level, resamples, seed) for level in ("nominal", "interval")]
        if len(set(system[both])) > 1:
            told.append(agree.kendall(values, at, system[both], resamples, seed))
        for measure, one in zip(AGREEMENT, told):
            yield {"judge": found.judges[i], "against": found.judges[j], "measure": measure, **vars(one)}
    if len(found.judges) > 2:
        for level in ("nominal", "interval"):
            one = agree.krippendorff(found.values, prompt, level, resamples, seed)
            yield {"judge": ALL, "against": "", "measure": f"alpha, {level}", **vars(one)}


# -- of one judge --------------------------------------------------------------------------------------------------


def _bias(found: Verdicts, resamples: int, seed: int) -> Iterator[dict]:
    """What each judge is swayed by: a row per judge and measure that its verdicts tell."""
    prompt = found.pairs["prompt"].to_numpy()
    for i, name in enumerate(found.judges):
        known = ~np.isnan(found.values[:, i])
        values, at = found.values[known, i], prompt[known]
        told = {"ties": agree.share((agree.categories(values) == 1) * 1.0, at)}
        own = found.each[(found.each["judge"] == i) & found.each["preference"].notna()]
        own = own.assign(prompt=prompt[own["pair"]], kind=agree.categories(own["preference"].to_numpy()))
        told |= _of_place(own[own["switched"] >= 0], found.prompts, resamples, seed)
        told |= length_bias.of_judge(values, found.pairs[known])
        told |= _of_repeats(own, resamples, seed)
        for measure, one in told.items():
            yield {"judge": name, "measure": measure, **vars(one)}


def _of_place(own: pd.DataFrame, prompts: int, resamples: int, seed: int) -> dict[str, Estimate]:
    """Position bias, of the verdicts that say in which order the answers were shown; nothing where none does."""
    if own.empty:
        return {}
    turned, wins, prompt = (own[c].to_numpy() for c in ("switched", "preference", "prompt"))
    wins = wins - 1
    first = np.where(turned == 1, own["kind"], 2 - own["kind"]) / 2  # a tie is half
    told = {"first shown preferred": agree.share(first, prompt)}
    if len(set(turned)) == 2:
        for turn, place in ((1, "first"), (0, "second")):
            some = turned == turn
            told[f"win rate if shown {place}"] = agree.share(wins[some], prompt[some])
        sums = np.c_[turned * wins, turned, (1 - turned) * wins, 1 - turned]
        sums = agree.summed(sums, prompt, prompts)
        told["gain of the first place"] = agree.estimate(sums, _gain, len(own), resamples, seed)
    keys = ["prompt", "pair", "repeat"]
    both = own.pivot(index=keys, columns="switched", values="kind").dropna()
    if len(both) and both.shape[1] == 2:
        at, kept = both.index.get_level_values("prompt").to_numpy(), both.to_numpy()
        named = zip(BIAS[5:8], (kept[:, 0] == kept[:, 1], (kept == (0, 2)).all(axis=1), (kept == (2, 0)).all(axis=1)))
        told |= {name: agree.share(some * 1.0, at) for name, some in named}
    return told


def _gain(sums: np.ndarray) -> np.ndarray:
    """[m]: the win rate where the system is shown first less that where it is shown second."""
    counts = np.where(sums[:, [1, 3]] > 0, sums[:, [1, 3]], np.nan)
    return sums[:, 0] / counts[:, 0] - sums[:, 2] / counts[:, 1]


def _of_repeats(own: pd.DataFrame, resamples: int, seed: int) -> dict[str, Estimate]:
    """Self-consistency: how often two verdicts on the same showing of a pair are the same, and α of the repeats."""
    if not own["repeat"].any():
        return {}
    wide = own.pivot(index=["prompt", "pair", "switched"], columns="repeat", values="preference")
    wide = wide[wide.notna().sum(axis=1) > 1]
    if wide.empty:
        return {}
    at, values = wide.index.get_level_values("prompt").to_numpy(), wide.to_numpy()
    kinds = agree.categories(values)
    counts = np.stack([(kinds == kind).sum(axis=1) for kind in range(3)], axis=1)
    total = counts.sum(axis=1)
    same = (counts * (counts - 1)).sum(axis=1) / (total * (total - 1))
    return {
        "same again": agree.share(same, at),
        "alpha of repeats": agree.krippendorff(values, at, "nominal", resamples, seed),
    }
