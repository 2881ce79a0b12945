"""What the commands that measure reward models can be told."""

from __future__ import annotations

from dataclasses import dataclass

from irlens.base.options import option
from irlens.commands.settings import Seeded, _out, _seed, _store
from irlens.rerank.options import ScoringOptions


@dataclass(frozen=True)
class RewardBench(Seeded, ScoringOptions):
    """A reranker, and what it is measured on."""

    reranker: str | None = option(
        None, "A reward model or another reranker: see `irlens rerank --help`.", panel="Judging", first=True
    )
    data: str | None = option(
        None,
        "RewardBench 2: a hub id, a file or a folder. Default: allenai/reward-bench-2, or nothing where --run is given.",
        panel="Data",
    )
    run: str | None = option(
        None, "Judged draws, such as a passk's folder: how it picks among them, up to large N.", panel="Data"
    )
    qrels: str | None = option(None, "Of the draws. Default: the run's own.", panel="Data")
    temperature: float | None = option(None, "Only the draws at this temperature.", panel="Draws")
    at: tuple[int, ...] | None = option(None, "The N. Default: 1,3,5,10,… up to the draws.", panel="Measuring")
    right_from: float | None = option(
        None, "Least grade that is right. Default: 1; of fractions, above one half.", panel="Measuring"
    )
    resamples: int = option(2000, "Of the bootstrap behind the scores' intervals; 0: none.", panel="Measuring")
    seed: int = _seed()
    out: str | None = _out()
    store: str | None = _store()
