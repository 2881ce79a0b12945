"""What a reranker may need to know: the options that `rerank` and `best-of-n` share."""

from __future__ import annotations

from dataclasses import dataclass

from irlens.base.options import option
from irlens.retrieve.options import devices


def _thought():
    return option(None, "Tags of thoughts: `<think>,</think>`, or none. Default: the tokenizer's.", panel="Data")


def columns(text: str = "Of --dataset, as it was read: prompt=instruction,answer=output. Default: as that says."):
    """The option --columns of every command that reads a data set."""
    return option(None, text, panel="Data")


def _max_calls():
    return option(1000, "Refuse to ask more questions than that without --yes.", panel="Judging", free=True)


def _yes():
    return option(False, "Ask however many questions it takes.", panel="Judging", free=True)


def _price():
    return option(None, "Dollars for a million tokens read, and written: 10,30.", panel="Judging", free=True)


VERIFIERS = "gsm8k, math, nq-exact, nq-has-answer, choice, regex:PATTERN, or module:function (runs its code)"


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Where a judge is, and how it is asked."""

    served_model: str | None = option(None, "What the judge's server calls it. Default: its only one.", panel="Engine")
    base_url: str | None = option(
        None, "The judge's servers: http://host:8000/v1,…", panel="Engine", free=True, secret=True
    )
    api_key_env: str = option("OPENAI_API_KEY", "Variable with the server's key.", panel="Engine", free=True)
    concurrency: int = option(64, "Requests in flight.", panel="Engine", free=True)
    timeout: float = option(600.0, "Seconds that a request may take.", panel="Engine", free=True)
    engine_args: str | None = option(None, "JSON for every request; null leaves one out.", panel="Engine", secret=True)


@dataclass(frozen=True, kw_only=True)
class ScoringOptions(JudgeOptions):
    """What a reranker may need to know: the options that `rerank` and `best-of-n` share."""

    dataset: str | None = option(
        None, "Where the run's prompts come from. Default: what the run's folder says.", panel="Data"
    )
    columns: str | None = columns()
    split: str | None = option(None, "Default: what the run's folder says.", panel="Data")
    verifier: str | None = option(
        None, f"Whose answers are voted on: {VERIFIERS}. Default: the data set's.", panel="Judging"
    )
    thought: str | None = _thought()
    policy: str | None = option(None, "Model whose likelihood is meant. Default: the run's.", panel="Judging")
    devices: str | None = devices()
    batch_size: int | None = option(None, "Texts at once; speed and memory only.", panel="Engine", free=True)
    judge_opponents: int | None = option(
        None, "Others that a pairwise judge sees per response. Default: all.", panel="Judging"
    )
    judge_tokens: int = option(64, "Longest answer of the judge.", panel="Judging")
