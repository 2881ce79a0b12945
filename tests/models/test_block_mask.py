"""Masks of blocks say what the dense ones say, and a model gives the same values and gradients by them."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask
from transformers import AutoConfig, AutoModelForCausalLM

from irlens.models import block_mask, logprobs
from irlens.models.block_mask import BLOCK
from irlens.models.logprobs import explain, layout, pack, response_logprobs

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
CASES = {
    "llama": {},
    "llama, three heads": {"hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 1},
    "mistral": {"sliding_window": 150},
    "gemma2": {"sliding_window": 40, "attn_logit_softcapping": 2.0},  # eager: scores are capped
    "gemma3_text": {"sliding_window": 40, **MIXED},
    "phi3": {"sliding_window": None},
    "qwen3": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "cohere2": {"sliding_window": 40, **MIXED},
}
LISTS = {  # tokens of the prompt, of each response; rows of one, three and eight blocks
    "short": (9, [5, 1, 12]),
    "within blocks": (140, [90, 61, 100]),
    "over blocks": (300, [260, 129, 1, 300]),
    "a prompt of blocks": (2 * BLOCK, [BLOCK + 1, BLOCK + 1]),
}


def small(case, **more):
    torch.manual_seed(0)
    name = case.split(",")[0]
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **(SMALL | CASES[case] | more))).eval()


def batch(model, names, blocks=True):
    generator = torch.Generator().manual_seed(2)
    some = lambda n: torch.randint(3, 60, (n,), generator=generator).tolist()  # noqa: E731
    prompts, responses = zip(*((some(p), [some(n) for n in several]) for p, several in (LISTS[name] for name in names)))
    return pack(list(prompts), list(responses), replace(layout(model, 10**6), blocks=blocks))


@pytest.fixture
def gradients_on_cpu(monkeypatch):
    """FlexAttention refuses them there, and computes them all the same, densely."""
    monkeypatch.setattr(torch.nn.attention.flex_attention, "_validate_device", lambda *states: None)


@pytest.mark.parametrize("names", [*([name] for name in LISTS), list(LISTS)], ids=" and ".join)
@pytest.mark.parametrize("window", [None, 1, 40, 150, 10_000])
def test_blocks_hold_every_pair_that_meets_and_whole_ones_no_other(names, window):
    model = small("mistral", sliding_window=window)
    rows, dense = batch(model, names), logprobs._masks(model, batch(model, names, blocks=False))
    found = block_mask.block_mask(rows.branch, rows.position_ids, window)
    size, count = rows.branch.shape[1], rows.branch.shape[1] // BLOCK
    assert size % BLOCK == 0 and rows.branch.shape[0] == len(names)
    exact = create_mask(found.mask_mod, len(names), 1, size, size, device="cpu")
    real = torch.nn.functional.pad(rows.branch >= 0, (0, dense.shape[-1] - size))[:, None, :, None]
    short = dense.shape[-1]
    assert torch.equal(exact[..., :short, :short] & real[:, :, :short], dense & real[:, :, :short])
    grid = exact.view(len(names), 1, count, BLOCK, count, BLOCK)
    partly, whole = (_table(found, kind, count) for kind in ("", "full_"))
    assert (partly | whole)[grid.any(3).any(-1)].all(), "a block that is left out has nothing"
    assert grid.all(3).all(-1)[whole].all() and not (partly & whole).any()
    assert exact.any(-1).all(), "every token looks at something"


def _table(found, kind, count):
    """[R, 1, Q, K]: whether a block is listed."""
    number, which = getattr(found, f"{kind}kv_num_blocks"), getattr(found, f"{kind}kv_indices")
    listed = torch.arange(count) < number[..., None]
    return torch.zeros_like(listed).scatter(-1, which.long(), listed)


def test_blocks_that_do_not_meet_are_left_out():
    """Two responses of ten blocks after a prompt of two: each looks at the prompt and at itself."""
    branch = torch.tensor([[0] * 2 * BLOCK + [1] * 10 * BLOCK + [2] * 10 * BLOCK + [-1] * 2 * BLOCK])
    position = torch.cat([torch.arange(12 * BLOCK), torch.arange(2 * BLOCK, 12 * BLOCK), torch.zeros(2 * BLOCK)]).long()
    full = block_mask.block_mask(branch, position[None])
    # diagonals are partly; whole: one of the prompt's, then for each response its 20 of the prompt and 45 of its own
    assert full.kv_num_blocks.sum() == 24 and full.full_kv_num_blocks.sum() == 1 + 2 * (20 + 45)
    near = block_mask.block_mask(branch, position[None], BLOCK)
    assert near.full_kv_num_blocks.sum() == 0 and near.kv_num_blocks.sum() <= 24 + 23, "neighbours only"


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_by_blocks_are_those_by_a_dense_mask(case, gradients_on_cpu):
    found = []
    for blocks in (True, False):
        model = small(case)
        rows = batch(model, ["short", "within blocks"], blocks)
        assert rows.blocks == blocks and rows.shared
        values = response_logprobs(model, rows)
        (values * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
        found.append((values.detach(), [p.grad for p in model.parameters() if p.grad is not None]))
        assert model.config.get_text_config()._attn_implementation.startswith(block_mask.PREFIX) == blocks
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-5)
    for a, b in zip(*(grads for _, grads in found), strict=True):
        torch.testing.assert_close(a, b, atol=max(1e-5, 1e-5 * b.abs().max().item()), rtol=1e-4)


@pytest.mark.parametrize("case", ["llama", "gemma2"])
def test_a_checkpointed_layer_is_computed_again_by_blocks(case, gradients_on_cpu):
    model = small(case).train()
    rows = batch(model, ["within blocks"])
    response_logprobs(model, rows).sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    response_logprobs(model, rows).sum().backward()
    for a, b in zip((p.grad for p in model.parameters()), expected):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("case", ["llama", "gemma2", "mistral"])
def test_a_model_that_took_blocks_reads_other_masks_as_before(case):
    model = small(case)
    plain, dense = batch(model, ["within blocks"], False), batch(model, ["within blocks"], False)
    plain = pack([[5, 6]], [[[7, 8, 9], [3]]], layout(model, 0))
    with torch.no_grad():
        before = [response_logprobs(model, rows) for rows in (plain, dense)]
        response_logprobs(model, batch(model, ["within blocks"]))
        after = [response_logprobs(model, rows) for rows in (plain, dense)]
        generated = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False)
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert torch.equal(generated, small(case).generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False))
    assert "irlens" not in str(model.config.to_dict()), "nothing of it is saved"
    assert layout(model, 4096).refusal == ""


def test_autocast_reaches_blocks(gradients_on_cpu):
    model = small("llama")
    exact = response_logprobs(model, batch(model, ["within blocks"], False)).detach()
    with torch.autocast("cpu", torch.bfloat16):
        found = response_logprobs(model, batch(model, ["within blocks"]))
    found.sum().backward()
    assert (found - exact).abs().max() < 0.02 * exact.abs().max() and found.dtype == torch.float32


def test_with_blocks_every_list_shares_a_row_unless_a_switch_says_otherwise():
    long = (500, [8000] * 4)
    rows = logprobs.Layout("", None, 4096)
    assert rows.objection(*long) and not replace(rows, blocks=True).objection(*long)
    assert replace(rows, blocks=True, pack_up_to=1000).objection(*long)


def test_where_blocks_are_not_for_a_model_a_line_says_why(monkeypatch):
    model, said = small("llama"), []
    assert block_mask.objection(model) == "not on a GPU" and not layout(model).blocks
    explain(model, said.append)
    assert not said, "on a CPU there is nothing to say"
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    monkeypatch.setattr(block_mask, "_tried", lambda *how: "FlexAttention fails here: no kernel")
    explain(model, said.append)
    assert said == [
        "llama: masks of packed rows are dense, as blocks are not for it (FlexAttention fails here: no kernel)"
    ]
    monkeypatch.setattr(block_mask, "_tried", lambda *how: "")
    assert block_mask.objection(model) == "" and layout(model).blocks and not layout(model, 0).blocks
    model.config.attention_dropout = 0.1
    assert block_mask.objection(model) == "dropout in its attention"
    model.config.attention_dropout, model.model.layers[0].self_attn.sinks = 0.0, torch.nn.Parameter(torch.zeros(4))
    assert block_mask.objection(model) == "attention sinks"
