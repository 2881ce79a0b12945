"""Packed log-probabilities equal those of separate sequences, in value and gradient."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from irlens.train.logprobs import TESTED, explain, fuses_head, pack, response_logprobs, shares_prefix

SMALL = {
    "vocab_size": 300,  # more than the least tile
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = {"sliding_window": 3}  # shorter than the longest prompt
OWN = {
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, **WINDOW},  # full and sliding layers in turn, capped logits
    "gemma3_text": {"head_dim": 16, **WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "granite": {"logits_scaling": 3.0},
    "mistral": {"sliding_window": None},
    "qwen3": {"head_dim": 16},
}
CASES = {name: (name, OWN.get(name, {})) for name in TESTED} | {
    "llama, eager": ("llama", {"attn_implementation": "eager"}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "mistral, window": ("mistral", WINDOW),
    "mistral, window, eager": ("mistral", WINDOW | {"attn_implementation": "eager"}),
    "qwen2, window": ("qwen2", WINDOW | {"use_sliding_window": True, "max_window_layers": 1}),
    "qwen3, window": ("qwen3", WINDOW | {"use_sliding_window": True, "max_window_layers": 1, "head_dim": 16}),
    "gemma2, no window": ("gemma2", {"head_dim": 16, "sliding_window": 4096}),
    "gemma2, hard cap": ("gemma2", {"head_dim": 16, **WINDOW, "final_logit_softcapping": 1.5}),
}
PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [20, 21, 22]]
RESPONSES = [[[30, 31, 32], [40, 41, 42, 43, 44, 45, 46], [50]], [[33, 1], [34, 35, 1]], [[36, 37, 38, 39]]]
WEIGHTS = torch.tensor([[1.0, -2.0, 0.5], [1.5, -1.0, 0.0], [0.7, 0.0, 0.0]])


def small(case):
    torch.manual_seed(0)
    name, own = CASES.get(case, (case, {}))
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **SMALL | own)).eval()


def gradients(model, values):
    """The values, and the gradients of their weighted sum."""
    model.zero_grad()
    (values * WEIGHTS.to(values)).sum().backward()
    return values.detach(), [p.grad.clone() for p in model.parameters()]


def same(found, expected, atol=2e-5, rtol=1e-3):
    torch.testing.assert_close(found[0], expected[0], atol=atol, rtol=rtol / 100)
    for a, b in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=rtol)


def one_by_one(model):
    """[B, L] by one forward pass per response."""
    rows = []
    for prompt, responses in zip(PROMPTS, RESPONSES):
        row = []
        for response in responses:
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0].float().log_softmax(-1)
            row.append(sum(logits[len(prompt) - 1 + i, token] for i, token in enumerate(response)))
        rows.append(torch.stack(row + [torch.zeros(())] * (3 - len(row))))
    return torch.stack(rows)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("share", [True, False])
def test_packed_equals_one_by_one(case, share):
    model = small(case)
    assert shares_prefix(model) == fuses_head(model) == (True, "")
    found = gradients(model, response_logprobs(model, pack(PROMPTS, RESPONSES, share=share)))
    same(found, gradients(model, one_by_one(model)))


@pytest.mark.parametrize("case", ["llama", "mistral, window", "gemma2", "qwen3, window"])
def test_gradient_checkpointing_changes_nothing(case):
    model = small(case).train()
    packed = pack(PROMPTS, RESPONSES)
    expected = gradients(model, response_logprobs(model, packed))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    same(gradients(model, response_logprobs(model, packed)), expected, atol=1e-6)


@pytest.mark.parametrize("case", ["llama", "mistral, window", "gemma2", "qwen3, window"])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_as_close_as_the_plain_way(case, autocast):
    exact = response_logprobs(small(case), pack(PROMPTS, RESPONSES))
    model = small(case) if autocast else small(case).bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found, grads = gradients(model, response_logprobs(model, pack(PROMPTS, RESPONSES)))
        plain, _ = gradients(model, one_by_one(model))
    assert found.dtype == torch.float32 and all(g.isfinite().all() for g in grads)
    error = (found - exact).abs().max()
    assert error < max(0.15, 2 * (plain - exact).abs().max())


class Adapter(nn.Module):
    """A head with a low-rank addition: not a stock linear layer."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(2, base.in_features) * 0.2)
        self.up = nn.Parameter(torch.randn(base.out_features, 2) * 0.2)

    def forward(self, hidden):
        return self.base(hidden) + hidden @ self.down.T @ self.up.T


def test_a_head_with_an_adapter_is_used_as_it_is():
    model = small("gemma2, hard cap")
    model.lm_head = Adapter(model.lm_head)
    found = gradients(model, response_logprobs(model, pack(PROMPTS, RESPONSES)))
    same(found, gradients(model, one_by_one(model)))
    assert model.lm_head.up.grad.abs().sum() > 0


def test_an_untested_architecture_goes_the_plain_way_and_says_so():
    model = small("gpt_neox")
    said = []
    explain(model, said.append)
    assert len(said) == 1 and said[0].startswith("gpt_neox: ") and "not tested" in said[0]
    assert not shares_prefix(model)[0] and not fuses_head(model)[0]
    found = gradients(model, response_logprobs(model, pack(PROMPTS, RESPONSES, share=False)))
    same(found, gradients(model, one_by_one(model)))
    explain(small("llama"), said.append)
    assert len(said) == 1, "nothing to say of a supported one"


def test_attention_that_takes_no_mask_gets_a_row_per_response_and_says_so():
    model = small("llama")
    model.config._attn_implementation = "flash_attention_2"
    said = []
    explain(model, said.append)
    assert "flash_attention_2" in said[0] and "all logits" not in said[0]
    assert fuses_head(model)[0]


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "s"), 1), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("case", ["llama", "gemma2"])
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_hooks_of_a_distributed_model_run(one_process, case, kind):
    expected = gradients(m := small(case), response_logprobs(m, pack(PROMPTS, RESPONSES)))
    model = small(case)
    if kind == "ddp":
        wrapped = nn.parallel.DistributedDataParallel(model)
        seen = []
        wrapped.register_comm_hook(seen, lambda state, bucket: _noted(state, bucket))
    else:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (1,))
        for layer in (*model.model.layers, model.lm_head) if case == "llama" else model.model.layers:
            fully_shard(layer, mesh=mesh)
        wrapped = fully_shard(model, mesh=mesh)
    assert shares_prefix(wrapped)[0]
    values = response_logprobs(wrapped, pack(PROMPTS, RESPONSES))
    (values * WEIGHTS).sum().backward()
    found = [p.grad.full_tensor() if kind == "fsdp" else p.grad for p in model.parameters()]
    same((values.detach(), found), expected)
    if kind == "ddp":
        assert sum(seen) == sum(p.numel() for p in model.parameters())


def _noted(state, bucket):
    state.append(bucket.buffer().numel())
    done = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def test_a_prompt_is_packed_once_and_last_tokens_are_not_fed():
    packed = pack(PROMPTS, RESPONSES)
    assert packed.input_ids.shape == (3, 5 + 2 + 6 + 0)
    assert packed.input_ids[0].tolist() == [5, 6, 7, 8, 9, 30, 31, 40, 41, 42, 43, 44, 45]
    assert packed.position_ids[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9, 10]


def test_responses_do_not_see_each_other():
    model = small("llama")
    with torch.no_grad():
        both = response_logprobs(model, pack([PROMPTS[0]], [RESPONSES[0][:2]]))
        other = response_logprobs(model, pack([PROMPTS[0]], [[RESPONSES[0][0], [7, 7, 7, 7]]]))
    assert both[0, 0].item() == pytest.approx(other[0, 0].item(), abs=1e-5)
    assert both[0, 1].item() != pytest.approx(other[0, 1].item(), abs=1e-2)


def test_lengths_count_every_token_and_one_token_is_enough():
    packed = pack([[5, 6], [7]], [[[2]], [[8, 2], [2]]])
    assert packed.length.tolist() == [[1, 0], [2, 1]]
    assert packed.shape == (2, 2)
    values = response_logprobs(small("llama"), packed)
    assert values[0, 0] < 0 and values[0, 1] == 0
    alone = response_logprobs(small("llama"), pack([[7]], [[[2]]]))
    assert values[1, 1].item() == pytest.approx(alone.item(), abs=1e-5)


def test_a_prompt_without_tokens_is_refused():
    with pytest.raises(ValueError, match="no tokens"):
        pack([[]], [[[3]]])
