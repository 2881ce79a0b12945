"""The sampler's key-value cache: the draws of passes without one, and no copy of what did not move."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from irlens.retrieve.engines import Prompt, Sampling, draw_key, uniforms
from irlens.retrieve.engines import transformers as engine_module
from irlens.retrieve.engines.prefix_cache import CHUNK, RowLayer, WindowLayer, new_cache
from irlens.retrieve.engines.transformers import TransformersEngine, _invert

SMALL = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "max_position_embeddings": 512,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 4}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
SHARED = {  # the last layers borrow keys and values
    "num_hidden_layers": 4,
    "layer_types": MIXED["layer_types"] * 2,
    "num_kv_shared_layers": 2,
    "vocab_size_per_layer_input": 40,
    "hidden_size_per_layer_input": 8,
    "global_head_dim": 8,
}
WINDOWS = (2, 5, 12, 13, 14, 40, 100, 400)  # the longest prompt has 13 tokens; 400 no draw fills
ARCHITECTURES = {
    "mistral": {},
    "phi3": {},
    "gemma2": {},
    "gemma3_text": MIXED,
    "gemma4_text": SHARED,
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1},
}
LENGTHS = {"short": 3, "long": 13, "middle": 8}  # left-padded beside each other
PROMPTS = [Prompt(name, " ".join(str(2 + (7 * i + n) % 38) for i in range(n))) for name, n in LENGTHS.items()]


class Numbers:
    """A tokenizer whose words are their own ids."""

    bos_token = None
    pad_token_id = 0
    eos_token_id = 1

    def __call__(self, text, add_special_tokens=False):
        read = [[int(word) for word in one.split()] for one in ([text] if isinstance(text, str) else text)]
        return {"input_ids": read[0] if isinstance(text, str) else read}

    def batch_decode(self, rows, **_):
        return [" ".join(map(str, row)) for row in rows]


def engine(name, dtype=torch.float64, **own):
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **(SMALL | ARCHITECTURES.get(name, {}) | own))
    return TransformersEngine(AutoModelForCausalLM.from_config(config).to(dtype), Numbers(), batch_size=64)


@torch.no_grad()
def without_cache(model, prompt, draw, temperature):
    """(tokens, their log-probability): what the draw's random numbers choose, one pass over everything a token."""
    ids = Numbers()(prompt.text)["input_ids"]
    chance, tokens, total = uniforms([draw_key(0, prompt.query_id, temperature, draw.draw)], draw.n_tokens)[0], [], 0.0
    for u in chance:
        logits = model(input_ids=torch.tensor([ids + tokens]), use_cache=False).logits[:, -1].float()
        token = _invert(logits, temperature, torch.zeros(1, dtype=torch.long), torch.tensor([u], dtype=torch.float64))
        total += logits.log_softmax(-1)[0, token].item()
        tokens.append(int(token))
    return tokens, total


def check_against_passes_without(sampler, draws=range(3), tokens=30):
    for draw in sampler.sample(PROMPTS, draws, Sampling(1.0, 0, tokens)):
        prompt = next(p for p in PROMPTS if p.query_id == draw.query_id)
        expected, logprob = without_cache(sampler.model, prompt, draw, 1.0)
        assert list(draw.tokens) == expected
        assert draw.logprob == pytest.approx(logprob, abs=1e-4)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_of_any_size_draws_what_passes_without_a_cache_choose(window):
    check_against_passes_without(engine("mistral", sliding_window=window))


@pytest.mark.parametrize("name", list(ARCHITECTURES)[1:])
@pytest.mark.parametrize("window", [5, 13])
def test_every_kind_of_layers_draws_what_passes_without_a_cache_choose(name, window):
    """Full and sliding layers in turn, and layers that borrow the keys of others."""
    check_against_passes_without(engine(name, torch.float32, sliding_window=window), range(2), 20)


@pytest.mark.parametrize("name, own", [("falcon_h1", MAMBA | {"mamba_d_ssm": 64}), ("qwen3_5_text", LINEAR)])
def test_recurrent_states_go_where_their_rows_go(name, own):
    """A layer may hold them beside keys, or alone."""
    check_against_passes_without(engine(name, torch.float32, **own), range(4), 12)


@pytest.mark.parametrize("window", [5, 14, 40, 400])
@pytest.mark.parametrize("name", ["mistral", "gemma2"])
def test_draws_are_to_the_bit_those_of_transformers_own_cache(name, window, monkeypatch):
    """Rows split, end and move meanwhile."""
    sampler, sampling = engine(name, torch.float32, sliding_window=window), Sampling(1.0, 0, CHUNK + 26)
    ours = sampler.sample(PROMPTS, range(24), sampling)
    assert {d.finish_reason for d in ours} == {"stop", "length"}

    def select(cache, parents):
        for layer in cache.layers:
            layer.reorder_cache(parents)

    monkeypatch.setattr(engine_module, "new_cache", lambda config: DynamicCache(config=config))
    monkeypatch.setattr(engine_module, "rearrange", select)
    assert ours == sampler.sample(PROMPTS, range(24), sampling)


def test_a_layer_is_of_the_kind_that_its_attention_has():
    kinds = {name: [type(layer) for layer in new_cache(engine(name).model.config).layers] for name in ARCHITECTURES}
    assert kinds["mistral"] == [WindowLayer] * 2 and kinds["gemma2"] == [WindowLayer, RowLayer]
    assert kinds["gemma4_text"][:2] == [WindowLayer, RowLayer]


class Written(TorchDispatchMode):
    """Counts the numbers that operations write into storage of their own, views left out."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if not function.is_view and "empty" not in function.__name__:
            written = args[2] if function is torch.ops.aten.index_put_.default else out
            self.numbers += sum(x.numel() for x in tree_leaves(written) if isinstance(x, torch.Tensor))
        return out


@pytest.mark.parametrize("window", [200, 10_000])
def test_a_token_writes_itself_and_not_what_is_held(window):
    """Over many tokens: its own keys and values, and every held one once in CHUNK tokens."""
    rows, heads, size, count = 4, 2, 8, 4 * CHUNK
    layer, token = WindowLayer(window), torch.ones(rows, heads, 1, size)
    layer.update(*[torch.ones(rows, heads, 300, size)] * 2)
    with Written() as seen:
        for _ in range(count):
            layer.update(token, token)
    held = min(window, 300 + count) * token.numel()
    assert seen.numbers <= 2 * (count * token.numel() + (count // CHUNK + 1) * held)


def test_rows_that_stay_are_not_written_when_others_end():
    layer = WindowLayer(50)
    layer.update(*[torch.arange(6.0)[:, None, None, None].expand(6, 1, 70, 2).contiguous()] * 2)
    parents, moved = torch.tensor([0, 4, 2]), torch.tensor([1])
    with Written() as seen:
        layer.rearrange(parents, moved)
    assert layer.keys[:, 0, 0, 0].tolist() == [0.0, 4.0, 2.0] and layer.keys.shape == (3, 1, 49, 2)
    assert seen.numbers == 2 * (2 * 49 * 2 + 1), "the row that moved is read and written, with its number"
