"""How drawing and encoding are run: the options that every command with an engine or an encoder shares."""

from __future__ import annotations

from dataclasses import dataclass

from irlens.base.options import option


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Which engine draws and how it is run: the options that every sampling stage shares.

    `engine`, `inner_engine`, `chat`, `messages_as`, `served_model` and `engine_args` say what the draws are; the others
    only how fast.
    """

    engine: str | None = option(
        None,
        "transformers, vllm, openai, ray or module:load. Default: chosen by what is there, and said.",
        panel="Engine",
    )
    batch_size: int | None = option(
        None, "Sequences in flight; changes speed and memory, not the draws.", panel="Engine", free=True
    )
    num_workers: int | None = option(
        None, "Workers of the ray engine. Default: one per GPU, without GPUs per core.", panel="Engine", free=True
    )
    inner_engine: str | None = option(None, "The engine inside each ray worker: transformers or vllm.", panel="Engine")
    base_url: str | None = option(
        None, "Servers of the openai engine, such as http://host:8000/v1, comma-separated.", panel="Engine", free=True
    )
    api_key_env: str = option(
        "OPENAI_API_KEY",
        "Environment variable that holds the server's key, if it wants one.",
        panel="Engine",
        free=True,
    )
    concurrency: int = option(
        64, "Requests in flight of the openai engine, over all servers.", panel="Engine", free=True
    )
    timeout: float = option(600.0, "Seconds that one request of the openai engine may take.", panel="Engine", free=True)
    chat: bool = option(False, "Chat completions: the server applies its own template.", panel="Engine")
    messages_as: str | None = option(
        None,
        "Where a chat template refuses them: user (system prompt before the user's) or text (all as one turn).",
        panel="Engine",
    )
    served_model: str | None = option(
        None, "What the server calls the model. Default: the only one that it serves.", panel="Engine"
    )
    tensor_parallel: int = option(1, "GPUs per copy of the model (vllm).", panel="Engine", free=True)
    data_parallel: int = option(
        1, "Copies of the model that one vllm engine spreads its prompts over.", panel="Engine", free=True
    )
    engine_args: str | None = option(
        None,
        "JSON object passed through: to vllm's LLM(...), or into every request of the openai engine.",
        panel="Engine",
    )


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """How a corpus is encoded and indexed: what `index` and `recall` share."""

    index: str | None = option(
        None, "FAISS factory string: Flat, HNSW32, IVF4096,PQ64 … Default: by corpus size.", panel="Index"
    )
    train_size: int | None = option(None, "Vectors that train the index. Default: 50 per cell.", panel="Index")
    query_prompt: str | None = option(None, "Text before every question. Default: the model's.", panel="Index")
    passage_prompt: str | None = option(None, "Text before every passage. Default: the model's.", panel="Index")
    dtype: str = option("float32", "Precision of the encoder: float32, float16 or bfloat16.", panel="Index")
    store: str = option("float32", "Precision of the vectors on disk: float32 or float16.", panel="Index")
    shard_size: int = option(4096, "Passages in a file of vectors: what a kill can cost.", panel="Index", free=True)
    processes: int = option(
        1, "Encoding processes on the CPU; several GPUs are used by themselves.", panel="Index", free=True
    )
    batch_size: int | None = option(
        None, "Texts encoded at once; changes speed and memory, not the vectors.", panel="Engine", free=True
    )
