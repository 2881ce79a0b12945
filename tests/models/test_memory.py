"""Sizes against built models, and the plan of memory against what training really takes."""

import dataclasses
import json

import pytest
import torch

from irlens.models import catalog, memory, sizes
from irlens.models.logprobs import layout, pack, response_logprobs
from irlens.models.memory import Training

SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 896,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 1024,
}
CAUSAL = SHAPE | {
    "num_key_value_heads": 2,
    "head_dim": 64,
    "tie_word_embeddings": False,
    "max_position_embeddings": 4096,
}
BUILT = [
    ("mistral", CAUSAL, sizes.LANGUAGE),
    ("llama", CAUSAL, sizes.LANGUAGE),
    ("llama", CAUSAL | {"num_labels": 1}, sizes.CLASSIFIER),
    ("gemma2", CAUSAL | {"tie_word_embeddings": True}, sizes.LANGUAGE),
    ("deberta-v2", SHAPE, sizes.ENCODER),
    ("bert", SHAPE, sizes.ENCODER),
]


def built(kind, shape, what):
    import transformers

    config = transformers.AutoConfig.for_model(kind, **shape)
    names = {sizes.LANGUAGE: "AutoModelForCausalLM", sizes.CLASSIFIER: "AutoModelForSequenceClassification"}
    return getattr(transformers, names.get(what, "AutoModel")).from_config(config)


@pytest.mark.parametrize("kind, shape, what", BUILT)
def test_parameters_are_counted_without_weights(kind, shape, what):
    model = built(kind, shape, what)
    size = sizes.of_config({"model_type": kind, **shape}, kind=what)
    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert size.positions == model.config.max_position_embeddings or what == sizes.ENCODER


@pytest.mark.parametrize("name", [name for name in sizes.KNOWN if name != "pairrm"])  # whose head is its own
def test_the_shapes_of_known_models_give_their_parameters(name):
    known = catalog.MODELS.get(name) or catalog.REWARDS[name]
    kind = sizes.CLASSIFIER if name in catalog.REWARDS else sizes.LANGUAGE
    assert sizes.count(json.dumps(sizes.KNOWN[name]), kind) == known.parameters


def test_adapters_are_counted_as_peft_makes_them():
    pytest.importorskip("peft")
    from irlens.train import adapters

    model = adapters.adapted(built("llama", CAUSAL, sizes.LANGUAGE), 8)
    made = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sizes.of_config({"model_type": "llama", **CAUSAL}).adapters(8) == made


def test_what_adamw_remembers_is_eight_bytes_a_parameter():
    model = built("llama", CAUSAL, sizes.LANGUAGE)
    size, optimizer = sizes.of_config({"model_type": "llama", **CAUSAL}), torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = [v for some in optimizer.state.values() for v in some.values() if v.dim()]
    found = memory.training(size, Training(1, 8))
    assert sum(v.numel() * v.element_size() for v in state) == found["AdamW"]
    assert sum(p.numel() * p.element_size() for p in model.parameters()) == found["weights"]
    assert sum(p.grad.numel() * p.grad.element_size() for p in model.parameters()) == found["gradients"]


def peak(work) -> int:
    """Bytes that torch had taken at most while `work` ran, as its profiler saw them taken and given back."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = sorted((e.start_ns(), e.nbytes()) for e in seen.profiler.kineto_results.events() if e.name() == "[memory]")
    now = high = 0
    for _, taken in events:
        now += taken
        high = max(high, now)
    return high


@pytest.mark.parametrize("kind, packed", [("llama", True), ("llama", False), ("gemma2", True)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_pass_takes_what_is_planned(kind, packed, checkpointing):
    """Gradients, half-precision copies and activations under autocast: planned from above, less than twice the peak."""
    model = built(kind, CAUSAL, sizes.LANGUAGE).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    batch = pack(
        [[5] * 40], [[[6 + i] * 120 for i in range(4)]], layout(model, None if packed is None else 10**6 * packed)
    )
    rows, length = batch.input_ids.shape

    def work():
        with torch.autocast("cpu", torch.bfloat16):
            loss = response_logprobs(model, batch).sum()
        loss.backward()

    measured = peak(work)
    size = sizes.of_config({"model_type": kind, **CAUSAL})
    planned = memory.training(size, Training(rows, length, checkpointing=checkpointing, tile=3 * 4 * 2**20))
    planned = sum(planned[name] for name in ("gradients", "half-precision copies", "activations"))
    assert rows == (1 if packed else 4) and 1 <= planned / measured < 2, planned / measured


def test_a_7b_model_by_hand():
    size = sizes.of_config(sizes.KNOWN["mistral-7b"], 7_241_732_096)
    one = memory.training(size, Training(1, 1000))
    n = 7_241_732_096
    assert {name: one[name] for name in list(one)[:4]} == {
        "weights": 4 * n, "gradients": 4 * n, "AdamW": 8 * n, "half-precision copies": 2 * n,
    }  # fmt: skip
    layer = 1000 * (32 * 4096 + 8 * 14336) + 2 * 1000**2
    logits = 3 * 4 * 1000 * 32000
    assert one["activations"] == 32 * 1000 * 4 * 4096 + layer + logits + 1000**2
    eight = memory.training(size, Training(1, 1000, devices=8, shard=True))
    assert eight["AdamW"] == n and "DDP's buckets" not in eight and sum(eight.values()) < 25 * memory.GIB
    assert memory.training(size, Training(1, 1000, devices=8))["DDP's buckets"] == 4 * n
    adapters = memory.training(size, Training(1, 1000, lora_rank=16))
    assert size.adapters(16) == 41_943_040 and adapters["weights"] == 2 * n + 4 * 41_943_040
    assert memory.cache(size) == 2 * 32 * 8 * 128 * 2
    least = 2 * n + 131_072 * 32768 + 1.5 * 2**30
    assert sum(memory.drawing(size, 1300).values()) == pytest.approx(least / 0.9)
    assert memory.at_once(size, 1000, 80 * 2**30) == (0.9 * 80 * 2**30 - 1.5 * 2**30 - 2 * n) // 131_072_000
    assert dataclasses.replace(size, tied=True).embeddings * 2 == size.embeddings
