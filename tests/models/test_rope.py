"""RoPE that depends on length: a draw's values are its own, whatever is drawn beside it."""

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from irlens.retrieve.engines import Prompt, Sampling, token_ids
from irlens.retrieve.engines.transformers import TransformersEngine

EDGE = 24
SHORT, LONG = Prompt("short", "12+3"), Prompt("long", "12+3" * 9)
FACTORS = {"short_factor": [1.0] * 8, "long_factor": [3.0 + i for i in range(8)]}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": EDGE, **FACTORS}


def engine(tokenizer):
    """A random model whose frequencies change beyond EDGE tokens."""
    import torch

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "phi3",
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        max_position_embeddings=256,
        original_max_position_embeddings=EDGE,
        rope_parameters=LONGROPE,
    )
    return TransformersEngine(AutoModelForCausalLM.from_config(config), tokenizer)


def test_draws_below_the_edge_are_those_of_the_prompt_alone(tiny_engine):
    some = engine(tiny_engine.tokenizer)
    short, long = map(len, token_ids(tiny_engine.tokenizer, [SHORT, LONG]))
    assert short + 8 < EDGE < long
    sampling = Sampling(1.0, 0, 8)
    alone = engine(tiny_engine.tokenizer).sample([SHORT], range(6), sampling)
    beside = [draw for draw in some.sample([SHORT, LONG], range(6), sampling) if draw.query_id == "short"]
    after = some.sample([SHORT], range(6), sampling)
    for found in (beside, after):
        assert [d.text for d in found] == [d.text for d in alone]
        assert [d.logprob for d in found] == pytest.approx([d.logprob for d in alone], abs=1e-4)
