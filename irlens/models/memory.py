"""What a phase needs of one device's memory, in bytes by what holds them: arithmetic on a model's size, from above.

A token's activations in a layer were measured on Llama and Gemma 2 (tests/models/test_memory.py compares them with peaks).
"""

from __future__ import annotations

from dataclasses import dataclass

from irlens.models.sizes import Size

GIB = 2**30
VLLM = 0.9  # the share of a device that vLLM takes, all at once
STARTED = 1.5 * GIB  # what an engine keeps beside weights and cache
CONTEXT = 1.0 * GIB  # what CUDA and its libraries keep
WIDE, INNER = 32, 8  # bytes of activations per token and layer for each number of its width, and of its inner width
PLAIN, SCORES = 2, 8  # bytes of a masked layer per pair of tokens; per head where attention scores are held whole
TILE = 3 * 4 * 2**25  # bytes of the tiles of logits that the fused head works on
READ = 16_384  # tokens that a scorer reads at once
CHECKPOINTED = 500_000_000  # parameters above which the trainer keeps a layer's input only


@dataclass(frozen=True)
class Training:
    """How a model is trained, as far as memory goes. rows, length: of one pass. devices: that share it, or, with `shard`,
    among which it is divided. tile: of the head, in bytes."""

    rows: int
    length: int
    devices: int = 1
    shard: bool = False
    lora_rank: int | None = None
    quantize: str | None = None
    checkpointing: bool | None = None
    tile: float = TILE


def training(size: Size, how: Training) -> dict[str, float]:
    """Bytes on each device: weights, gradients, moments (AdamW), what else stands beside them, and activations."""
    trained = size.adapters(how.lora_rank) if how.lora_rank else size.parameters
    weights = 4.0 * trained
    if how.lora_rank:
        base = 2.0 * size.parameters
        if how.quantize:
            base = 0.56 * (size.parameters - size.embeddings) + 2 * size.embeddings
        weights += base
    parts = how.devices if how.shard else 1
    found = {"weights": weights / parts, "gradients": 4 * trained / parts, "AdamW": 8 * trained / parts}
    if how.shard and how.devices > 1:
        found["gathered layers"] = _gathered(size, bool(how.lora_rank))
    else:
        found["half-precision copies"] = 0.0 if how.lora_rank else 2.0 * size.parameters
        found["DDP's buckets"] = 4.0 * trained if how.devices > 1 else 0.0
    return found | {"activations": activations(size, how)}


def _gathered(size: Size, frozen: bool) -> float:
    """Two layers at once in half precision, and one's gradient in both; the embedding and the head, which stay gathered."""
    if frozen:
        return 2 * 2 * size.layer + 2 * size.embeddings
    return (2 * 2 + 2 + 4) * size.layer + (4 + 4 + 2) * size.embeddings


def activations(size: Size, how: Training) -> float:
    """Bytes that one pass keeps for its backward pass, with what the layer at work and the head need."""
    tokens = how.rows * how.length
    layer = tokens * (WIDE * size.width + INNER * size.inner) + pairs(size, how.rows, how.length)
    kept = how.checkpointing if how.checkpointing is not None else size.parameters > CHECKPOINTED
    held = size.layers * tokens * 4 * size.width + layer if kept else size.layers * layer
    return held + min(how.tile, 3 * 4 * tokens * size.vocabulary) + how.rows * how.length**2


def pairs(size: Size, rows: int, length: int) -> float:
    """Bytes of a layer's attention that grow with the square of a row's length."""
    return rows * length**2 * (SCORES * size.heads if size.scores else PLAIN)


def cache(size: Size) -> int:
    """Bytes of keys and values per token, in half precision."""
    return 2 * 2 * size.layers * size.keys


def drawing(size: Size, tokens: int, vllm: bool = True, parallel: int = 1) -> dict[str, float]:
    """Bytes on each of `parallel` devices that hold a copy: weights, and the cache of the longest text that the engine
    insists on: vLLM on the model's positions, which it then keeps room for. `tokens`: of a prompt and its response."""
    longest = (size.positions or tokens) if vllm else tokens
    found = {"weights": 2 * size.parameters / parallel, "cache of one text": cache(size) * longest / parallel}
    if vllm:
        found["vLLM"] = STARTED
        found["what vLLM leaves"] = sum(found.values()) * (1 / VLLM - 1)
    return found


def at_once(size: Size, tokens: int, memory: float, parallel: int = 1) -> int:
    """How many texts of so many tokens vLLM's cache holds at once on devices of `memory` bytes."""
    return max(0, int((VLLM * memory - STARTED - 2 * size.parameters / parallel) // (cache(size) * tokens / parallel)))


def scoring(size: Size) -> dict[str, float]:
    """Bytes of a scorer in half precision that reads READ tokens at once; of attention, rows as long as they get."""
    length = min(size.positions or 2048, 2048)
    layer = READ * (WIDE * size.width + INNER * size.inner) / 2
    return {"weights": 2.0 * size.parameters, "activations": layer + pairs(size, READ // length, length)}
