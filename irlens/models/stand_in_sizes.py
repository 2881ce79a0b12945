"""Any transformers configuration made small: width, depth, heads and vocabulary cut, every rule that holds among them kept."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping

HIDDEN, HEADS, WIDE = (
    64,
    2,
    20_000,
)  # width; a vocabulary above WIDE gets a quarter of it, as its embedding is most of the model
LAYERS, INTERMEDIATE, WINDOW = 2, 128, 32
AT_MOST = {  # field of mixtures of experts and of other kinds of attention → what remains of it
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "intermediate_size_mlp": INTERMEDIATE,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "state_size": 8,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": None,  # the vocabulary's
}


def shrunk(real, vocabulary: int | None = None):
    """A copy of a configuration with a few hundred thousand parameters. vocabulary: its new size; None keeps the real one.

    Kept: the class, tied embeddings, whether query heads share a key, whether heads × head size is the width, the kinds of
    layers in their order, rope's kind, end tokens, positions, labels. A sliding window becomes WINDOW tokens, so that
    short texts leave it. A quantised model's stand-in is not quantised.
    """
    config = copy.deepcopy(real)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    text = config.get_text_config()
    size = vocabulary or text.vocab_size
    hidden = HIDDEN if size <= WIDE else HIDDEN // 4
    head = _head(text, hidden)
    _set(text, _sizes(text, hidden, head) | {"vocab_size": size})
    if vocabulary:  # a tokenizer learnt here has other ids, which its caller names
        _set(text, {"pad_token_id": 0})
    for name, most in AT_MOST.items():
        if isinstance(found := getattr(text, name, None), int):
            setattr(text, name, size if most is None else min(found, most))
    _layers(text)
    _rope(text, head or hidden // HEADS)
    for name in getattr(config, "sub_configs", {}):  # a picture's or a sound's encoder, which no text goes through
        other = getattr(config, name, None)
        if other is not None and other is not text:
            _set(other, _sizes(other, hidden, None))
    return config


def _head(text, hidden: int) -> int | None:
    """The new size of a head where the configuration names it: half of its share where heads × head size is no width."""
    found, heads = getattr(text, "head_dim", None), getattr(text, "num_attention_heads", None)
    if getattr(text, "qk_rope_head_dim", None):  # multi-head latent attention: what rope turns
        return AT_MOST["qk_rope_head_dim"]
    if not found or not heads:
        return None
    return hidden // HEADS if found * heads == getattr(text, "hidden_size", None) else hidden // HEADS // 2


def _sizes(text, hidden: int, head: int | None) -> dict:
    """The new widths, depths and heads, under the names that configurations have for them."""
    heads, keys = (getattr(text, f"num_{name}_heads", None) or 1 for name in ("attention", "key_value"))
    return {
        "hidden_size": hidden,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1 if keys < heads else HEADS,
        "intermediate_size": INTERMEDIATE,
        "ffn_dim": INTERMEDIATE,
        "embedding_size": hidden,
        "word_embed_proj_dim": hidden,
        "head_dim": head,
        "query_pre_attn_scalar": head or hidden // HEADS,
        "sliding_window": min(getattr(text, "sliding_window", None) or WINDOW, WINDOW),
    }


def _set(config, new: Mapping) -> None:
    """Sets what the configuration has a value for; what it computes from other fields has no setter."""
    for name, value in new.items():
        if value is not None and getattr(config, name, None) is not None:
            with contextlib.suppress(AttributeError):
                setattr(config, name, value)


def _layers(config) -> None:
    """As many layers as there are kinds, in the order of their first; LAYERS where all are of one kind."""
    kinds = list(dict.fromkeys(getattr(config, "layer_types", None) or ()))
    if len(kinds) > 1:
        config.num_hidden_layers = len(kinds)
    if kinds:
        _set(config, {"layer_types": kinds if len(kinds) > 1 else kinds * config.num_hidden_layers})
    for name in ("mlp_layer_types", "no_rope_layers", "block_types"):
        if isinstance(found := getattr(config, name, None), list):
            setattr(config, name, found[: config.num_hidden_layers])


def _rope(config, head: int) -> None:
    """Factors per frequency (longrope) for the new head size; of several kinds of layers each its own."""

    def cut(parts: Mapping) -> dict:
        share = parts.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
        count, out = int(head * share) // 2, {}
        for name, value in parts.items():
            out[name] = cut(value) if isinstance(value, Mapping) else value
            if name in ("short_factor", "long_factor") and isinstance(value, (list, tuple)):
                out[name] = list(value)[:count]
        return out

    if isinstance(found := getattr(config, "rope_parameters", None), Mapping):
        config.rope_parameters = cut(found)
