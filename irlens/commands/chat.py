"""What the commands of chat evaluation can be told."""

from __future__ import annotations

from dataclasses import dataclass

from irlens.base.options import argument, option
from irlens.commands.settings import Seeded, _out, _seed, _store
from irlens.rerank.options import JudgeOptions, ScoringOptions, _max_calls, _price, _thought, _yes
from irlens.retrieve.options import devices


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
        "Its outputs: such a file, the name of a system in the outputs, or alpacaeval (as published). Default: the annotations'.",
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
    repeats: int | None = option(
        None,
        "Ask so many times, with other seeds, and take the mean: `irlens judges` says how consistent.",
        panel="Judging",
        least=2,
    )
    max_calls: int = _max_calls()
    yes: bool = _yes()
    price: tuple[float, ...] | None = _price()
    difficulty: str | None = option(
        None,
        "instruction_difficulty.csv of tatsu-lab/alpaca_eval, or alpacaeval, for the length control.",
        panel="Measuring",
    )
    gamed: str | None = option(None, "df_gamed.csv of the same, or alpacaeval, for the same.", panel="Measuring")
    by_row: bool = option(
        False, "Take the difficulty by row, not by prompt: as published for systems that lack some.", panel="Measuring"
    )
    resamples: int = option(1000, "Of the bootstrap behind its intervals; 0: none.", panel="Measuring")
    seed: int = _seed()
    out: str | None = _out()
    store: str | None = _store()


@dataclass(frozen=True)
class ArenaHard(Seeded, JudgeOptions):
    """Systems on Arena-Hard, judged already or by a judge."""

    systems: list[str] | None = argument(  # noqa: RUF009 - a field, and never changed
        None,
        "Files or folders of Arena-Hard's model_judgment (judged already) or model_answer, runs, or model_outputs.json.",
    )
    dataset: str | None = option(
        None,
        "Arena-Hard's folder, with question.jsonl and model_answer/. Default: the one that the systems lie in.",
        panel="Data",
    )
    baseline: str | None = option(
        None, "Who all are compared with: a name in model_answer/, or its outputs. Default: by category.", panel="Data"
    )
    thought: str | None = _thought()
    allow_missing: bool = option(False, "Measure systems that lack some questions, over those they have.", panel="Data")
    judge: str | None = option(
        None, "Asks about answers: own (our wording) or authors (theirs, of --checkout).", panel="Judging", first=True
    )
    checkout: str | None = option(
        None, "A checkout of lmarena/arena-hard-auto, for its judge's words.", panel="Judging"
    )
    judge_tokens: int | None = option(
        None, "Longest answer of the judge. Default: the checkout's, else 4096.", panel="Judging"
    )
    judge_temperature: float | None = option(None, "Default: the checkout's, else 0.", panel="Judging")
    max_calls: int = _max_calls()
    yes: bool = _yes()
    price: tuple[float, ...] | None = _price()
    resamples: int = option(100, "Of the bootstrap behind the intervals of style control; 0: none.", panel="Measuring")
    parity: bool = option(
        False, "Values and intervals from resampled games, as the authors have them.", panel="Measuring"
    )
    seed: int = _seed()
    out: str | None = _out()
    store: str | None = _store()


@dataclass(frozen=True)
class MtBench(JudgeOptions):
    """Systems on MT-Bench, graded already or by a judge."""

    systems: list[str] | None = argument(  # noqa: RUF009 - a field, and never changed
        None,
        "Files or folders of MT-Bench's model_judgment (graded already) or model_answer, or runs of its second turns.",
    )
    dataset: str | None = option(
        None, "MT-Bench's folder, with question.jsonl. Default: the one that the systems lie in.", panel="Data"
    )
    second_turn: bool = option(
        False, "Write the prompts of the second turns, which hold a run's answers to the first, and stop.", panel="Data"
    )
    references: str | None = option(
        None,
        "Reference answers for math, reasoning and coding. Default: reference_answer/ of the folder.",
        panel="Data",
    )
    thought: str | None = _thought()
    allow_missing: bool = option(False, "Measure systems that lack some questions, over those they have.", panel="Data")
    judge: str | None = option(
        None, "Grades answers: own (our wording) or authors (theirs, of --templates).", panel="Judging", first=True
    )
    templates: str | None = option(None, "FastChat's judge_prompts.jsonl, for its judge's words.", panel="Judging")
    judge_tokens: int = option(2048, "Longest answer of the judge.", panel="Judging")
    judge_temperature: float = option(0.0, "Of the judge's answers.", panel="Judging")
    max_calls: int = _max_calls()
    yes: bool = _yes()
    price: tuple[float, ...] | None = _price()
    out: str | None = _out()
    store: str | None = _store()


@dataclass(frozen=True)
class Judges(Seeded):
    """Judgements of the same answers by several judges."""

    sets: list[str] | None = argument(  # noqa: RUF009 - a field, and never changed
        None,
        "Judgements: folders of winrate, AlpacaEval's annotations.json or folders of these, lists with a baseline.",
    )
    judge: str | None = option(
        None,
        "More judges, by commas: rerankers such as length, random, fsfairx, module:function.",
        panel="Judging",
        first=True,
    )
    order: str = option(
        "alpaca-eval",
        "How a pair was shown where a file does not tell: by alpaca-eval's coin, or none: not known.",
        panel="Judging",
    )
    policy: str | None = option(None, "Model whose likelihood is meant.", panel="Judging")
    measures: str = option("nDCG@3 nDCG RR", "Of the answers' order by each judge.", panel="Measuring")
    resamples: int = option(1000, "Of the prompts, behind the intervals; 0: none.", panel="Measuring")
    devices: str | None = devices()
    batch_size: int | None = option(None, "Texts at once; speed and memory only.", panel="Engine", free=True)
    seed: int = _seed()
    out: str | None = _out()
    store: str | None = _store()
