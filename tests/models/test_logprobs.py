"""Packed log-probabilities equal those of separate sequences, in value and gradient."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from irlens.models.logprobs import TESTED, Layout, explain, fuses_head, layout, pack, response_logprobs

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
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
NESTED = {  # matryoshka and per-layer embeddings, keys and values that the last layers borrow
    **WINDOW,
    "head_dim": 16,
    "num_hidden_layers": 4,
    "layer_types": MIXED["layer_types"] * 2,
    "num_kv_shared_layers": 2,
    "vocab_size_per_layer_input": 300,
    "hidden_size_per_layer_input": 8,
}
SEES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 8,
    "image_size": 28,
    "patch_size": 14,
}
OWN = {
    "cohere": {"logit_scale": 0.3},
    "cohere2": {"logit_scale": 0.3, "head_dim": 16, **WINDOW, **MIXED},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, **WINDOW},  # full and sliding layers in turn, capped logits
    "gemma3_text": {"head_dim": 16, **WINDOW, **MIXED},
    "gemma3": {"text_config": SMALL | {"head_dim": 16} | WINDOW | MIXED, "vision_config": SEES},
    "gemma3n_text": NESTED
    | {"intermediate_size": [48] * 4, "laurel_rank": 4, "activation_sparsity_pattern": [0.5] * 4},
    "gemma4": {"text_config": SMALL | NESTED | {"use_bidirectional_attention": "vision"}, "vision_config": SEES},
    "gemma4_text": NESTED | {"global_head_dim": 16},
    "glm4": {"head_dim": 16},
    "gpt_oss": EXPERTS | WINDOW | MIXED | {"head_dim": 16, "attn_implementation": "eager"},  # its sinks know no other
    "granite": {"logits_scaling": 3.0},
    "granitemoe": EXPERTS | {"logits_scaling": 3.0},
    "ministral3": {"head_dim": 16},
    "mistral": {"sliding_window": None},
    "mixtral": EXPERTS,
    "olmo3": WINDOW | MIXED,
    "olmoe": EXPERTS,
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 24},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": EXPERTS | {"head_dim": 16},
    "seed_oss": {"head_dim": 16},
}
CASES = {name: (name, OWN.get(name, {})) for name in TESTED} | {
    "llama, eager": ("llama", {"attn_implementation": "eager"}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "mistral, window": ("mistral", WINDOW),
    "mistral, window, eager": ("mistral", WINDOW | {"attn_implementation": "eager"}),
    "qwen2, window": ("qwen2", WINDOW | {"use_sliding_window": True, "max_window_layers": 1}),
    "qwen3, window": ("qwen3", WINDOW | {"use_sliding_window": True, "max_window_layers": 1, "head_dim": 16}),
    "gemma2, no window": ("gemma2", {"head_dim": 16, "sliding_window": 4096}),
    "mistral, wide window": ("mistral", {"sliding_window": 4096}),
    "gemma2, hard cap": ("gemma2", {"head_dim": 16, **WINDOW, "final_logit_softcapping": 1.5}),
}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 16,
}
MAMBA = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 4,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 4,  # shorter than a row
}
PLAIN = {  # recurrent, hybrid, with positions in the attention's bias, or merely not tested
    "bamba": MAMBA | {"attn_layer_indices": [1]},
    "bloom": {"n_layer": 2, "n_head": 2},
    "falcon": {"alibi": True},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64, "head_dim": 16},
    "gpt_neox": {},
    "granitemoehybrid": EXPERTS | MAMBA | {"layer_types": ["mamba", "attention"]},
    "jamba": EXPERTS | {"use_mamba_kernels": False, "mamba_d_state": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba": {"state_size": 4},
    "mamba2": {"state_size": 4, "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 4},
    "mpt": {"d_model": 32, "n_heads": 2, "n_layers": 2, "expansion_ratio": 2, "max_seq_len": 64},
    "nemotron_h": {
        "layers_block_type": ["mamba", "attention"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 4,
        "chunk_size": 4,
        "n_groups": 1,
    },
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR | EXPERTS | {"shared_expert_intermediate_size": 24},
    "recurrent_gemma": {
        "head_dim": 16,
        "lru_width": 32,
        "attention_window_size": 3,
        "block_types": ["recurrent", "attention"],
    },
}
CASES |= {name: (name, own) for name, own in PLAIN.items()}
PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [20, 21, 22]]
RESPONSES = [[[30, 31, 32], [40, 41, 42, 43, 44, 45, 46], [50]], [[33, 1], [34, 35, 1]], [[36, 37, 38, 39]]]
WEIGHTS = torch.tensor([[1.0, -2.0, 0.5], [1.5, -1.0, 0.0], [0.7, 0.0, 0.0]])


def small(case):
    torch.manual_seed(0)
    name, own = CASES.get(case, (case, {}))
    settings = own if "text_config" in own else SMALL | own
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **settings)).eval()


def packed(model, prompts=PROMPTS, responses=RESPONSES, share=True):
    """As the model's layout has it, or with a row per response."""
    return pack(prompts, responses, layout(model, 4096 if share else 0))


def gradients(model, values):
    """The values, and the gradients of their weighted sum."""
    model.zero_grad()
    (values * WEIGHTS.to(values)).sum().backward()
    return values.detach(), [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def same(found, expected, atol=2e-5, rtol=1e-3):
    torch.testing.assert_close(found[0], expected[0], atol=atol, rtol=rtol / 100)
    for a, b in zip(found[1], expected[1], strict=True):  # a tensor's small entries are differences of its large ones
        torch.testing.assert_close(a, b, atol=max(atol, 1e-4 * b.abs().max().item()), rtol=rtol)


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


@pytest.mark.parametrize("case", [case for case in CASES if case not in PLAIN])
@pytest.mark.parametrize("share", [True, False])
def test_packed_equals_one_by_one(case, share):
    model = small(case)
    assert layout(model).refusal == "" and fuses_head(model) == (True, "")
    batch = packed(model, share=share)
    assert batch.shared == share and len(batch.input_ids) == (3 if share else 6)
    same(gradients(model, response_logprobs(model, batch)), gradients(model, one_by_one(model)))


@pytest.mark.parametrize("case", PLAIN)
def test_a_row_per_response_equals_one_by_one(case):
    """Rows of unequal length, padded at the right: a recurrent layer must not carry padding into a token."""
    model = small(case)
    assert layout(model).refusal and not fuses_head(model)[0]
    batch = packed(model)
    assert not batch.shared and len(batch.input_ids) == 6
    same(gradients(model, response_logprobs(model, batch)), gradients(model, one_by_one(model)))


@pytest.mark.parametrize("case", ["mpt", "bloom", "falcon", "mamba", "qwen3_next", "nemotron_h"])
def test_rows_of_several_responses_are_refused_where_they_would_be_wrong(case):
    model = small(case)
    with pytest.raises(ValueError, match="rows of several responses, but sharing the prompt was not tested"):
        response_logprobs(model, pack(PROMPTS, RESPONSES, layout(small("llama"))))


@pytest.mark.parametrize("case", ["gemma3", "gemma4", "mixtral", "gpt_oss"])
def test_values_in_training_mode_are_those_of_evaluation(case):
    model = small(case)
    expected = response_logprobs(model, packed(model)).detach()
    torch.testing.assert_close(response_logprobs(model.train(), packed(model)).detach(), expected)


@pytest.mark.parametrize("share", [True, False])
def test_a_model_that_tells_its_routing_gives_the_same_values(share):
    """Its load-balancing loss reads a 2-D mask, and is no part of ours; the line says that it is left out."""
    model, said = small("mixtral"), []
    expected = response_logprobs(model, packed(model, share=share))
    model.config.output_router_logits = True
    torch.testing.assert_close(response_logprobs(model, packed(model, share=share)), expected)
    explain(model, said.append)
    assert len(said) == 1 and "load-balancing loss" in said[0]


@pytest.mark.parametrize("case", ["llama", "mistral, window", "gemma2", "qwen3, window"])
def test_gradient_checkpointing_changes_nothing(case):
    model = small(case).train()
    batch = packed(model)
    expected = gradients(model, response_logprobs(model, batch))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    same(gradients(model, response_logprobs(model, batch)), expected, atol=1e-6)


@pytest.mark.parametrize("case", ["llama", "mistral, window", "gemma2", "qwen3, window"])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_as_close_as_the_plain_way(case, autocast):
    model = small(case)
    exact = response_logprobs(model, packed(model))
    model = model if autocast else model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found, grads = gradients(model, response_logprobs(model, packed(model)))
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
    found = gradients(model, response_logprobs(model, packed(model)))
    same(found, gradients(model, one_by_one(model)))
    assert model.lm_head.up.grad.abs().sum() > 0


def test_an_untested_architecture_goes_the_plain_way_and_says_so():
    model = small("gpt_neox")
    said = []
    explain(model, said.append)
    assert len(said) == 1 and said[0].startswith("gpt_neox: ") and "not tested" in said[0]
    assert "all logits at once (what it does to its logits was not tested)" in said[0]
    explain(small("llama"), said.append)
    assert len(said) == 1, "nothing to say of a supported one"


def test_attention_that_takes_no_mask_gets_a_row_per_response_and_says_so():
    model = small("llama")
    model.config._attn_implementation = "flash_attention_2"
    said = []
    explain(model, said.append)
    assert "flash_attention_2" in said[0] and "all logits" not in said[0]
    assert fuses_head(model)[0]


def test_bidirectional_attention_gets_a_row_per_response():
    model = small("llama")
    model.config.use_bidirectional_attention = "all"
    assert layout(model).refusal == "its attention is bidirectional"
    model.config.use_bidirectional_attention = "vision"  # of images only
    assert layout(model).refusal == ""


def test_a_batch_goes_to_a_device_whole():
    batch = packed(small("llama"))
    there = batch.to("meta")
    tensors = {name for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    assert len(tensors) == 7 and all(getattr(there, name).device.type == "meta" for name in tensors)
    assert there.shared is batch.shared and there.shape == batch.shape


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
    model = small(case)
    batch = packed(model)
    expected = gradients(model, response_logprobs(model, batch))
    model.zero_grad()
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
    assert layout(wrapped) == layout(model) and batch.shared
    values = response_logprobs(wrapped, batch)
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
    batch = packed(small("llama"))
    assert batch.input_ids.shape == (3, 5 + 2 + 6 + 0)
    assert batch.input_ids[0].tolist() == [5, 6, 7, 8, 9, 30, 31, 40, 41, 42, 43, 44, 45]
    assert batch.position_ids[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9, 10]


def test_responses_do_not_see_each_other():
    model = small("llama")
    with torch.no_grad():
        both = response_logprobs(model, packed(model, [PROMPTS[0]], [RESPONSES[0][:2]]))
        other = response_logprobs(model, packed(model, [PROMPTS[0]], [[RESPONSES[0][0], [7, 7, 7, 7]]]))
    assert both[0, 0].item() == pytest.approx(other[0, 0].item(), abs=1e-5)
    assert both[0, 1].item() != pytest.approx(other[0, 1].item(), abs=1e-2)


def test_lengths_count_every_token_and_one_token_is_enough():
    model = small("llama")
    batch = packed(model, [[5, 6], [7]], [[[2]], [[8, 2], [2]]])
    assert batch.length.tolist() == [[1, 0], [2, 1]]
    assert batch.shape == (2, 2)
    values = response_logprobs(model, batch)
    assert values[0, 0] < 0 and values[0, 1] == 0
    alone = response_logprobs(model, packed(model, [[7]], [[[2]]]))
    assert values[1, 1].item() == pytest.approx(alone.item(), abs=1e-5)


@pytest.mark.parametrize("share", [True, False])
def test_equal_responses_of_a_list_are_computed_once_and_count_each(share):
    """[a, b, a] and [b], of which only the list's own equal ones share their place."""
    model, (a, b) = small("llama"), RESPONSES[0][:2]
    with torch.no_grad():
        once = packed(model, PROMPTS[:2], [[a, b], [b]], share)
        again = packed(model, PROMPTS[:2], [[a, b, a], [b]], share)
        values, found = response_logprobs(model, once), response_logprobs(model, again)
    assert again.input_ids.tolist() == once.input_ids.tolist()
    assert again.length.tolist() == [[len(a), len(b), len(a)], [len(b), 0, 0]]
    assert again.target.tolist() == [*a, *b, *a, *b]
    torch.testing.assert_close(found[0], values[0, [0, 1, 0]], rtol=0, atol=0)
    assert found[1, 0] == values[1, 0]

    def gradient(lists, weights):
        model.zero_grad()
        (response_logprobs(model, packed(model, PROMPTS[:2], lists, share)) * torch.tensor(weights)).sum().backward()
        return model.get_input_embeddings().weight.grad.clone()

    apart = gradient([[a, b], [b]], [[1.0 + 3.0, -2.0], [0.5, 0.0]])
    torch.testing.assert_close(gradient([[a, b, a], [b]], [[1.0, -2.0, 3.0], [0.5, 0.0, 0.0]]), apart)


def test_a_prompt_without_tokens_is_refused():
    with pytest.raises(ValueError, match="no tokens"):
        pack([[]], [[[3]]], Layout("", 100))


# -- lists longer than the switch ----------------------------------------------------------------------------------


def test_a_list_longer_than_the_switch_goes_one_row_per_response_and_its_batch_with_it():
    """The first list makes a row of 13 tokens, the others 5 and 6."""
    model = small("llama")
    at, below = pack(PROMPTS, RESPONSES, layout(model, 13)), pack(PROMPTS, RESPONSES, layout(model, 12))
    assert at.shared and not below.shared and below.input_ids.shape == (6, 11)
    torch.testing.assert_close(response_logprobs(model, below), response_logprobs(model, at))
    said = []
    lists = [(len(p), [len(r) for r in some]) for p, some in zip(PROMPTS, RESPONSES)]
    explain(model, said.append, 12, lists)
    assert said == [
        "llama: 1 of 3 lists, and those that share a pass, go one row per response "
        "(1: more than --pack-up-to 12 tokens in a row)"
    ]
    explain(model, said.append, 13, lists)
    assert len(said) == 1, "nothing falls back"


@pytest.mark.parametrize(("width", "prompt", "responses", "one_row"), [
    (100, 500, [250, 250, 250, 250], True),  # 1,496 + 1,496² / 1,000 = 3,734 against 4 · (749 + 749² / 1,000) = 5,240
    (100, 50, [250, 250, 250, 250], False),  # 1,046 + 1,094 = 2,140 against 4 · (299 + 89) = 1,554
    (100, 5, [250], True),  # one response is a row in either case
    (4096, 1_000, [1_000] * 10, True),
    (4096, 500, [8_000] * 4, False),
])  # fmt: skip
def test_without_a_switch_a_list_is_packed_where_that_is_estimated_to_be_faster(width, prompt, responses, one_row):
    rows = Layout("", None, width)
    assert (rows.objection(prompt, responses) == "") == one_row
    assert not Layout("", 10**6, width).objection(prompt, responses), "a switch decides alone"
    assert Layout("", 0, width).objection(prompt, responses)


class Largest(TorchDispatchMode):
    """Notes the most numbers that any result of any operation holds."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))])
        return out


def test_no_mask_of_row_by_row_is_made_above_the_switch():
    """Nor on the host for a packed list: the mask is made where the model is."""
    rows = [[[7] * 400, [8] * 500, [9] * 600]]
    with Largest() as seen:
        long = pack([[5] * 20], rows, Layout("", 1_000))
        assert not long.shared and seen.numbers < 3 * 620 * 2
        short = pack([[5] * 20], rows, Layout("", 2_000))
        assert short.shared and seen.numbers < 3 * 620 * 2
    model = small("llama")
    with torch.no_grad(), Largest() as seen:
        response_logprobs(model, long)
    assert seen.numbers < 1_517**2
    with torch.no_grad(), Largest() as seen:
        response_logprobs(model, short)
    assert seen.numbers >= 1_517**2, "a mask over the packed row would be noticed"


@pytest.mark.parametrize("case", ["llama", "mistral, wide window"])
def test_rows_of_a_response_make_no_mask_though_their_lengths_differ(case):
    """Causal attention never looks at padding that comes last; a mask would hold rows × tokens × tokens."""
    model = small(case)
    long = pack([[5] * 20], [[[7] * 1_500, [8] * 300]], layout(model, 0))
    assert long.input_ids.shape == (2, 1_519)
    with Largest() as seen:
        response_logprobs(model, long).sum().backward()
    assert seen.numbers < 1_519**2


# -- RoPE that depends on length -----------------------------------------------------------------------------------

EDGE = 12
LENGTHWISE = {
    "longrope": ("phi3", {
        "max_position_embeddings": 48,
        "original_max_position_embeddings": EDGE,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 8,
            "long_factor": [3.0 + i for i in range(8)],
            "original_max_position_embeddings": EDGE,
        },
    }),
    "dynamic": ("llama", {
        "max_position_embeddings": EDGE,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    }),
}  # fmt: skip
CASES |= LENGTHWISE


def some(count, first=20):
    return [first + i % 70 for i in range(count)]


LISTS = {  # tokens of the prompt, tokens of each response; a row has one token less than both
    "all short": (4, [3, 5, 9]),
    "responses cross": (6, [2, 5, 7, 8, 12]),
    "one crosses by a token": (6, [7, 8]),
    "prompt beyond": (15, [2, 6]),
    "prompt at the edge": (12, [1, 2, 9]),
    "beyond and alike": (9, [7, 7]),
}


def ids(prompt, responses):
    return some(prompt), [some(n, 30 + 7 * i) for i, n in enumerate(responses)]


def alone(case, prompt, response):
    """By a model that has seen nothing else; its last token predicts nothing, and is not fed to it."""
    fed = torch.tensor([prompt + response[:-1]])
    logits = small(case)(input_ids=fed).logits[0, len(prompt) - 1 :].log_softmax(-1)
    return logits.gather(-1, torch.tensor(response)[:, None]).sum()


@pytest.mark.parametrize("case", LENGTHWISE)
@pytest.mark.parametrize("together", [*([name] for name in LISTS), list(LISTS), list(LISTS)[::-1]], ids=" and ".join)
@pytest.mark.parametrize("switch", [4096, 0])
def test_a_value_beyond_the_edge_of_rope_is_that_of_the_response_alone(case, together, switch):
    model = small(case)
    prompts, responses = zip(*(ids(*LISTS[name]) for name in together))
    with torch.no_grad():
        response_logprobs(model, pack([some(20)], [[some(20)]], layout(model, 4096)))  # a long call leaves no mark
        found = response_logprobs(model, pack(list(prompts), list(responses), layout(model, switch)))
        for row, prompt, several in zip(found, prompts, responses):
            expected = torch.stack([alone(case, prompt, response) for response in several])
            torch.testing.assert_close(row[: len(several)], expected, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("case", LENGTHWISE)
def test_gradients_beyond_the_edge_of_rope_are_those_of_responses_alone(case):
    model = small(case)
    prompts, responses = zip(*(ids(*LISTS[name]) for name in LISTS))
    found = response_logprobs(model, pack(list(prompts), list(responses), layout(model, 4096)))
    found.sum().backward()
    ours = [p.grad.clone() for p in model.parameters()]
    other = small(case)
    for prompt, several in zip(prompts, responses):
        for response in several:
            short = some(1), some(1)
            response_logprobs(other, pack([short[0]], [[short[1]]], layout(other, 4096)))
            fed = torch.tensor([prompt + response[:-1]])
            logits = other(input_ids=fed).logits[0, len(prompt) - 1 :].log_softmax(-1)
            logits.gather(-1, torch.tensor(response)[:, None]).sum().backward()
    for a, b in zip(ours, (p.grad for p in other.parameters())):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


def test_only_lists_whose_lengths_are_on_both_sides_of_the_edge_go_alone():
    plain = {"longrope": {"responses cross", "one crosses by a token", "prompt at the edge"}}
    plain["dynamic"] = plain["longrope"] | {"prompt beyond"}
    for case, names in plain.items():
        rows = layout(small(case), 4096)
        assert {name for name, lengths in LISTS.items() if rows.objection(*lengths)} == names
        said = []
        explain(small(case), said.append, 4096, LISTS.values())
        assert len(said) == 1 and f"{len(names)} of 6 lists" in said[0] and "the 12 tokens up to which" in said[0]
    assert not layout(small("llama")).ropes


def test_the_rotary_embedding_is_left_as_it_was():
    model = small("longrope")
    response_logprobs(model, pack([some(20)], [[some(20)]], layout(model, 4096)))
    assert "forward" not in vars(model.model.rotary_emb)
