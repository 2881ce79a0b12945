"""What each stage can be told: frozen settings with their defaults, shared by commands, recipes and the demo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from irlens.errors import UserError, did_you_mean


def _option(default, text: str):
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Which engine draws and how it is run: the options that every sampling stage shares.

    `engine`, `inner_engine`, `chat`, `served_model` and `engine_args` say what the draws are; the others only how fast.
    """

    engine: str | None = _option(None, "transformers, vllm, openai or ray. Default: chosen by what is there, and said.")
    batch_size: int | None = _option(None, "Sequences in flight; changes speed and memory, not the draws.")
    num_workers: int | None = _option(None, "Workers of the ray engine. Default: one per GPU, without GPUs per core.")
    inner_engine: str | None = _option(None, "The engine inside each ray worker: transformers or vllm.")
    base_url: str | None = _option(None, "Servers of the openai engine, such as http://host:8000/v1, comma-separated.")
    api_key_env: str = _option("OPENAI_API_KEY", "Environment variable that holds the server's key, if it wants one.")
    concurrency: int = _option(64, "Requests in flight of the openai engine, over all servers.")
    timeout: float = _option(600.0, "Seconds that one request of the openai engine may take.")
    chat: bool = _option(False, "Chat completions: the server applies its own template.")
    served_model: str | None = _option(None, "What the server calls the model. Default: the only one that it serves.")
    tensor_parallel: int = _option(1, "GPUs per copy of the model (vllm).")
    data_parallel: int = _option(1, "Copies of the model that one vllm engine spreads its prompts over.")
    engine_args: str | None = _option(
        None, "JSON object passed through: to vllm's LLM(...), or into every request of the openai engine."
    )


@dataclass(frozen=True)
class PassK(EngineOptions):
    """Pass@N of a model's draws, per temperature."""

    model: str = "tiny"
    dataset: str | None = None
    split: str | None = None
    limit: int | None = None
    n: int = 100
    temperature: tuple[float, ...] = (0.1, 0.2, 0.5, 0.7, 1.0)
    at: tuple[int, ...] | None = None
    seed: int = 0
    max_tokens: int | None = None
    out: str | None = None


@dataclass(frozen=True)
class Index:
    """A corpus encoded and indexed."""

    retriever: str = "tiny-e5"
    dataset: str = "facts"
    index: str | None = None
    train_size: int | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    dtype: str = "float32"
    store: str = "float32"
    shard_size: int = 4096
    processes: int = 1
    batch_size: int | None = None
    seed: int = 0
    out: str | None = None


@dataclass(frozen=True)
class Recall:
    """Recall@N of one or more retrievers on a corpus."""

    retriever: str = "bm25,tiny-e5"
    dataset: str = "facts"
    split: str | None = None
    limit: int | None = None
    at: tuple[int, ...] = (1, 5, 10, 20, 50, 100)
    index: str | None = None
    nprobe: int | None = None
    ef_search: int | None = None
    refine: int | None = None
    rerank: str | None = None
    rerank_depth: int = 100
    train_size: int | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    dtype: str = "float32"
    store: str = "float32"
    shard_size: int = 4096
    processes: int = 1
    batch_size: int | None = None
    seed: int = 0
    index_folder: str | None = None
    out: str | None = None


@dataclass(frozen=True)
class Mine(EngineOptions):
    """Lists with negatives in tiers of hardness."""

    model: str = "tiny"
    dataset: str | None = None
    split: str | None = None
    limit: int | None = 500
    tiers: str = "easiest,easy,hard,hardest"
    positives: str = "gold"
    per_tier: int = 1
    n: int = 8
    hard_temperature: float = 1.0
    hardest_temperature: float = 0.7
    unrelated: str | None = None
    seed: int = 0
    max_tokens: int | None = None
    out: str | None = None


@dataclass(frozen=True)
class Train(EngineOptions):
    """LarPO iterations, and Pass@1 and Pass@N on held-out problems before, between and after."""

    objective: str = "contrastive"
    model: str = "tiny"
    dataset: str | None = None
    split: str | None = None
    iterations: int = 3
    prompts: int = 500
    n: int = 8
    temperature: float = 1.0
    positives: int | None = None
    negatives: int | None = None
    lists: int = 1
    beta: float | None = None
    learning_rate: float | None = None
    epochs: int = 2
    batch_lists: int = 32
    lists_at_once: int | None = None
    eval_split: str | None = None
    eval_limit: int = 200
    eval_n: int = 16
    eval_temperature: float = 1.0
    seed: int = 0
    max_tokens: int | None = None
    out: str | None = None


def settings_from(kind: type, values: dict, where: str):
    """A settings object of class `kind` from plain values (a recipe's). Raises UserError for an unknown key or type."""
    known = {f.name: f for f in fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{where}: unknown setting {key!r}; {did_you_mean(key, known)}")
        if not _fits(value, str(known[key].type)):
            raise UserError(f"{where}: {key} = {value!r} is not of type {known[key].type}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _fits(value, annotation: str) -> bool:
    allowed = [part.strip() for part in annotation.split("|")]
    if isinstance(value, bool):
        return "bool" in allowed
    if isinstance(value, (list, tuple)):
        inner = next((part[len("tuple[") :].split(",")[0] for part in allowed if part.startswith("tuple[")), None)
        return inner is not None and len(value) > 0 and all(_fits(v, inner) for v in value)
    if isinstance(value, int) and "float" in allowed:
        return True
    return type(value).__name__ in allowed


# -- checks --------------------------------------------------------------------------------------------------------


def at_least(least: int, **values: int | None) -> None:
    """Raises UserError, naming the option, for a value below `least`; None is one that was not given."""
    for name, value in values.items():
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")


def positive(**values: float | None) -> None:
    """Raises UserError for a value that is not a number above 0; None is one that was not given."""
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} must be a number above 0, got {value:g}")


def cutoffs(n: int, at: Sequence[int] | None) -> list[int]:
    """The N of Pass@N: `at`, checked against n, or the paper's 1, 3, 5, 10, 20, 50, 100 as far as n goes, and n."""
    if at is None:
        return sorted({N for N in (1, 3, 5, 10, 20, 50, 100, 200, 500, 1000) if n >= N} | {n})
    if not at or min(at) < 1:
        raise UserError(f"--at: every N must be at least 1, got {', '.join(map(str, at)) or 'none'}")
    if max(at) > n:
        raise UserError(f"-n {n} is smaller than the largest N asked for, {max(at)}; draw at least -n {max(at)}")
    return sorted(set(at))
