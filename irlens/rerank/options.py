"""What a reranker may need to know: the options that `rerank` and `best-of-n` share."""

from __future__ import annotations

from dataclasses import dataclass

from irlens.base.options import option


def _thought():
    return option(
        None,
        "Tags around a thought, such as '<think>,</think>'; verifiers read what follows it. none: there are no thoughts. "
        "Default: the tokenizer's, or what the run's folder says.",
        panel="Data",
    )


VERIFIERS = "gsm8k, math, nq-exact, nq-has-answer, choice, regex:PATTERN, or module:function (runs its code)"


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """What a reranker may need to know: the options that `rerank` and `best-of-n` share."""

    dataset: str | None = option(
        None, "Where the run's prompts come from. Default: what the run's folder says.", panel="Data"
    )
    split: str | None = option(None, "The split of the data set. Default: what the run's folder says.", panel="Data")
    verifier: str | None = option(
        None, f"Whose answers are voted on: {VERIFIERS}. Default: the data set's.", panel="Data"
    )
    thought: str | None = _thought()
    policy: str | None = option(
        None, "Model whose likelihood is meant. Default: the run's own, as it records or names it.", panel="Judging"
    )
    scoring_batch: int | None = option(
        None, "Texts read at once by a scoring model; changes speed and memory only.", panel="Engine", free=True
    )
    judge_model: str | None = option(
        None, "What the judge's server calls it. Default: the only one that it serves.", panel="Judging"
    )
    judge_opponents: int | None = option(
        None, "Others that a pairwise judge sees per response. Default: all.", panel="Judging"
    )
    judge_tokens: int = option(64, "Longest answer of the judge; more for one that thinks aloud.", panel="Judging")
    base_url: str | None = option(
        None, "Servers of the judge, such as http://host:8000/v1, comma-separated.", panel="Engine", free=True
    )
    api_key_env: str = option(
        "OPENAI_API_KEY",
        "Environment variable that holds the server's key, if it wants one.",
        panel="Engine",
        free=True,
    )
    concurrency: int = option(64, "Requests to the judge in flight.", panel="Engine", free=True)
    timeout: float = option(600.0, "Seconds that one request may take.", panel="Engine", free=True)
    engine_args: str | None = option(
        None, "JSON object passed into every request, such as a top_k; null leaves out.", panel="Engine"
    )
