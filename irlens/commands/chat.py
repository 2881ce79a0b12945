"""What the commands of chat evaluation can be told."""

from __future__ import annotations

from dataclasses import dataclass

from irlens.base.options import argument, option
from irlens.commands.settings import Seeded, _out, _seed, _store
from irlens.rerank.options import ScoringOptions, _max_calls, _price, _yes


@dataclass(frozen=True)
class WinRate(Seeded, ScoringOptions):
    """Systems against a baseline, by a judge."""

    outputs: str | None = argument(
        None,
        "A run or its folder, AlpacaEval's model_outputs.json or annotations.json, or lists with a baseline.",
    )
    judge: str | None = option(
        None,
        "pairwise, weighted_alpaca_eval_gpt4_turbo, alpaca_eval_gpt4_turbo_fn, … (at --base-url), a reward model or another "
        "reranker, or a file of annotations. Default: the annotations of the outputs.",
        panel="Judging",
        first=True,
    )
    baseline: str | None = option(
        None,
        "Its outputs: such a file, or the name of a system in the outputs. Default: the annotations'.",
        panel="Data",
    )
    prompts: str | None = option(
        None, "A file with the prompts that count, in their order. Default: the baseline's.", panel="Data"
    )
    allow_missing: bool = option(False, "Measure systems that lack some prompts, over those they have.", panel="Data")
    template: str | None = option(
        None, "The judge's template. Default: as alpaca-eval's files have it.", panel="Judging"
    )
    both_orders: bool = option(False, "Ask in both orders and take the mean.", panel="Judging")
    max_calls: int = _max_calls()
    yes: bool = _yes()
    price: tuple[float, ...] | None = _price()
    difficulty: str | None = option(
        None, "instruction_difficulty.csv of tatsu-lab/alpaca_eval, for the length control.", panel="Measuring"
    )
    gamed: str | None = option(None, "df_gamed.csv of the same, for the same.", panel="Measuring")
    by_row: bool = option(
        False, "Take the difficulty by row, not by prompt: as published for systems that lack some.", panel="Measuring"
    )
    resamples: int = option(1000, "Of the bootstrap behind its intervals; 0: none.", panel="Measuring")
    seed: int = _seed()
    out: str | None = _out()
    store: str | None = _store()
