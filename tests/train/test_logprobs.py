"""Packed log-probabilities equal those of separate sequences, in value and gradient."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from irlens.train.logprobs import pack, response_logprobs, shares_prefix

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "llama-eager": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, attn_implementation="eager")),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=None)),
    "mistral-sliding": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=5)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=16, sliding_window=5)),
}
PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [20, 21, 22]]
RESPONSES = [[[30, 31, 32], [40, 41, 42, 43, 44, 45, 46], [50]], [[33, 1], [34, 35, 1]], [[36, 37, 38, 39]]]


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


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("share", [True, False])
def test_packed_equals_one_by_one(name, share):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    if share and not shares_prefix(model):
        assert name in ("mistral-sliding", "gemma2")
        share = False
    weights = torch.tensor([[1.0, -2.0, 0.5], [1.5, -1.0, 0.0], [0.7, 0.0, 0.0]])
    results = []
    for values in (response_logprobs(model, pack(PROMPTS, RESPONSES, share=share)), one_by_one(model)):
        model.zero_grad()
        (values * weights).sum().backward()
        results.append((values.detach(), [p.grad.clone() for p in model.parameters()]))
    (packed, packed_gradients), (plain, plain_gradients) = results
    torch.testing.assert_close(packed, plain, atol=2e-5, rtol=1e-5)
    for a, b in zip(packed_gradients, plain_gradients):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-3)


def test_a_prompt_is_packed_once_and_last_tokens_are_not_fed():
    packed = pack(PROMPTS, RESPONSES)
    assert packed.input_ids.shape == (3, 5 + 2 + 6 + 0)
    assert packed.input_ids[0].tolist() == [5, 6, 7, 8, 9, 30, 31, 40, 41, 42, 43, 44, 45]
    assert packed.position_ids[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9, 10]


def test_responses_do_not_see_each_other():
    model = MODELS["llama"]().eval()
    with torch.no_grad():
        both = response_logprobs(model, pack([PROMPTS[0]], [RESPONSES[0][:2]]))
        other = response_logprobs(model, pack([PROMPTS[0]], [[RESPONSES[0][0], [7, 7, 7, 7]]]))
    assert both[0, 0].item() == pytest.approx(other[0, 0].item(), abs=1e-5)
    assert both[0, 1].item() != pytest.approx(other[0, 1].item(), abs=1e-2)
