"""How drawing and encoding are run: the options that every command with an engine or an encoder shares."""

from __future__ import annotations

from dataclasses import dataclass

from irlens.base.options import option


def devices():
    """The option --devices of every command that draws, scores or trains."""
    return option(
        None,
        "Devices that work: a number, 0 (this process), ray or ray:N. Default: every GPU here.",
        panel="Engine",
        free=True,
    )


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Which engine draws and how it is run: the options that every sampling stage shares.

    `engine`, `chat`, `messages_as`, `served_model` and `engine_args` say what the draws are; the others
    only how fast.
    """

    engine: str | None = option(
        None, "transformers, vllm, openai or module:load. Default: by what is there.", panel="Engine"
    )
    batch_size: int | None = option(
        None, "Sequences at once; speed and memory only.", panel="Engine", free=True, least=1
    )
    devices: str | None = devices()
    tensor_parallel: int = option(1, "GPUs per copy of the model (vllm).", panel="Engine", free=True)
    base_url: str | None = option(
        None, "openai's servers: http://host:8000/v1,…", panel="Engine", free=True, secret=True
    )
    served_model: str | None = option(None, "What the server calls the model.", panel="Engine")
    api_key_env: str = option("OPENAI_API_KEY", "Variable with the server's key.", panel="Engine", free=True)
    concurrency: int = option(64, "Requests in flight, over all servers.", panel="Engine", free=True)
    timeout: float = option(600.0, "Seconds that a request may take.", panel="Engine", free=True)
    chat: bool = option(False, "Let the server apply its own template.", panel="Engine")
    messages_as: str | None = option(
        None, "Where a template refuses roles: user (system goes into it) or text (one turn).", panel="Engine"
    )
    engine_args: str | None = option(None, "JSON for vllm's LLM(…) or every request.", panel="Engine", secret=True)


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """How a corpus is encoded and indexed: what `index` and `recall` share."""

    index: str | None = option(None, "Flat, HNSW32, IVF4096,PQ64, … (FAISS). Default: by corpus size.", panel="Index")
    train_size: int | None = option(None, "Vectors that train it. Default: 50 per cell.", panel="Index")
    query_prompt: str | None = option(None, "Before every question. Default: the model's.", panel="Index")
    passage_prompt: str | None = option(None, "Before every passage. Default: the model's.", panel="Index")
    vector_dtype: str = option("float32", "Of the vectors on disk; or float16.", panel="Index")
    dtype: str = option("float32", "Of the encoder; or float16, bfloat16.", panel="Engine")
    shard_size: int = option(4096, "Passages per file: what a kill can cost.", panel="Engine", free=True, least=1)
    processes: int = option(1, "On the CPU; several GPUs are used anyway.", panel="Engine", free=True)
    batch_size: int | None = option(None, "Texts at once; speed and memory only.", panel="Engine", free=True, least=1)
