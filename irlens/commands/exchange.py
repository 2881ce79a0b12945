"""What the commands that exchange draws with other tools, and compare systems, can be told."""

from __future__ import annotations

from dataclasses import dataclass

from irlens.base.options import argument, option
from irlens.commands.settings import (
    PASSK_OUT,
    Seeded,
    _draws,
    _limit,
    _max_prompt_length,
    _max_tokens,
    _out,
    _reward,
    _seed,
    _store,
)
from irlens.rerank.options import VERIFIERS, JudgeOptions, _max_calls, _price, _thought, _yes, columns
from irlens.retrieve.options import EngineOptions


@dataclass(frozen=True)
class Import:
    """Another tool's draws."""

    file: str | None = argument(
        None, "samples_*.jsonl of lm-eval, a log of inspect_ai, a batch's output, TRL's completions, …"
    )
    format: str | None = option(
        None, "inspect, lm-eval, batch, alpaca-eval, mixeval, trl or plain. Default: as its keys tell.", panel="Data"
    )
    requests: str | None = option(None, "The input of a batch, whose output holds no prompts.", panel="Data")
    dataset: str | None = option(
        None, "The data set of the prompts, for its answers and its identifiers.", panel="Data"
    )
    split: str | None = option(None, "Of this data set. Default: test.", panel="Data")
    model: str | None = option(None, "The model that drew. Default: as the file tells.", panel="Data")
    temperature: float | None = option(None, "At which it drew, where the file does not tell.", panel="Draws")
    judged_by: str | None = option(
        None, "One of its judgements: a metric, a scorer, a reward function. Default: the first.", panel="Judging"
    )
    out: str | None = _out()


@dataclass(frozen=True)
class Export:
    """A run as other tools read it."""

    run: str = argument(PASSK_OUT, "A run, or the folder of a passk, an import, a mine-negatives, …")
    to: str = option(
        "trl",
        "trl, kto, sentence-transformers (of lists); lm-eval, every-eval-ever, alpaca-eval, mixeval, jsonl, trec (of draws).",
        panel="Output",
    )
    qrels: str | None = option(
        None, "Its judgements. Default: those beside the run, else its rewards.", panel="Judging"
    )
    positives: int = option(1, "At most so many in a list that is cut from draws.", panel="Lists")
    negatives: int = option(3, "At most so many.", panel="Lists")
    organization: str | None = option(None, "Who evaluated, for Every Eval Ever.", panel="Output")
    out: str | None = _out()


@dataclass(frozen=True)
class Compare(Seeded, EngineOptions):
    """Several systems over the same prompts."""

    runs: list[str] | None = argument(  # noqa: RUF009 - a field, and never changed
        None, "Two or more: runs, folders with a run, of recall, evaluate or best-of-n, and models, which draw first."
    )
    baseline: str | None = option(None, "Compare the others with this one alone, by its name.", panel="Measuring")
    measures: str | None = option(
        None, "Such as 'Pass@1 Pass@8'. Default: Pass@1 and Pass@N of draws, nDCG@10 RR Success@10.", panel="Measuring"
    )
    qrels: str | None = option(None, "Judgements for all. Default: those beside each run.", panel="Judging")
    verifier: str | None = option(None, f"{VERIFIERS}.", panel="Judging")
    reward: str | None = _reward("Scores all: ", "Win rates too.")
    judge: str | None = option(
        None,
        "Prefers one of two texts: pairwise (at --base-url), pairrm, or a chat model of this machine. Win rates.",
        panel="Judging",
    )
    judge_tokens: int = option(64, "Longest answer of the judge.", panel="Judging")
    pairs: int = option(1, "Pairs of responses per prompt that it sees.", panel="Judging")
    dataset: str | None = option(None, "Of the prompts and gold answers. Default: as the folders say.", panel="Data")
    columns: str | None = columns()
    split: str | None = option(None, "Default: as the folders say; test for models.", panel="Data")
    limit: int | None = _limit()
    n: int = _draws(16)
    temperature: tuple[float, ...] = option((1.0,), "Of models' draws, by commas; 0 is greedy.", panel="Draws")
    seed: int = _seed()
    max_tokens: int | None = _max_tokens()
    thought: str | None = _thought()
    max_prompt_length: int | None = _max_prompt_length()
    out: str | None = _out()
    store: str | None = _store()


@dataclass(frozen=True)
class MixEval(Seeded, JudgeOptions):
    """Responses to MixEval's prompts, and who judges them."""

    runs: list[str] | None = argument(  # noqa: RUF009 - a field, and never changed
        None, "Runs, their folders, or MixEval's response files or folders of these; a system each."
    )
    dataset: str | None = option(
        None, "A version of MixEval, or a checkout with one. Default: as the first run's folder says.", panel="Data"
    )
    split: str | None = option(None, "mixeval or mixeval-hard alone. Default: those that a run answers.", panel="Data")
    thought: str | None = _thought()
    allow_missing: bool = option(False, "Measure the items that have a response.", panel="Measuring")
    parity: bool = option(False, "Round, combine and read gold texts as the authors do.", panel="Measuring")
    judge: str = option(
        "rules", "rules, or a model told by authors (templates.json) or own (our wording).", panel="Judging"
    )
    templates: str | None = option(None, "The authors' messages. Default: those in the folder.", panel="Judging")
    judge_tokens: int = option(512, "Longest answer of the judge.", panel="Judging")
    judge_rounds: int = option(3, "Times that an unreadable verdict is asked for; then unjudged.", panel="Judging")
    judge_temperature: float = option(0.0, "Of its first answers; of later ones 1.", panel="Judging")
    max_calls: int = _max_calls()
    yes: bool = _yes()
    price: tuple[float, ...] | None = _price()
    seed: int = _seed()
    out: str | None = _out()
    store: str | None = _store()
