"""The transformers engine: its random numbers, its draws, and that neither depends on the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from irlens.base.errors import UserError
from irlens.retrieve.engines import Prompt, Sampling, draw_key, token_ids, uniforms
from irlens.retrieve.engines.prefix_cache import place
from irlens.retrieve.engines.transformers import TransformersEngine, _invert


def same(a, b) -> float:
    """Share of identical draws."""
    assert [(d.query_id, d.draw) for d in a] == [(d.query_id, d.draw) for d in b]
    return float(np.mean([x.text == y.text and x.finish_reason == y.finish_reason for x, y in zip(a, b)]))


def with_batch(engine, size):
    return TransformersEngine(engine.model, engine.tokenizer, batch_size=size)


def test_uniforms_are_splitmix64():
    # the generator's published first outputs for the seed 1234567
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert (uniforms([1234567], 5)[0] * 2**53).astype(np.uint64).tolist() == [k >> 11 for k in known]


def test_a_stream_does_not_depend_on_its_length_or_neighbours():
    assert np.array_equal(uniforms([5, 6, 7], 9)[1, :4], uniforms([6], 4)[0])


def test_every_part_of_a_draws_name_changes_its_key():
    names = [
        (0, "q", 0.7, 0),
        (1, "q", 0.7, 0),
        (0, "r", 0.7, 0),
        (0, "q", 0.5, 0),
        (0, "q", 0.7, 1),
        (0, "q1", 0.7, 1),
    ]
    assert len({draw_key(*name) for name in names}) == len(names)
    assert draw_key(0, "q", 1, 0) == draw_key(0, "q", 1.0, 0)


def test_uniforms_are_uniform_over_draws():
    first = uniforms([draw_key(0, "q", 1.0, d) for d in range(5000)], 2)
    for column in first.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first.T)[0, 1]) < 0.05


def test_inversion_follows_the_distribution_and_never_takes_an_impossible_token():
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0], [3.0, -torch.inf, 0.0, -torch.inf]])
    node = torch.tensor([0, 1]).repeat(20000)
    chance = torch.from_numpy(uniforms([1], 40000)[0])
    token = _invert(logits, 0.5, node, chance)
    for row in (0, 1):
        expected = torch.softmax(logits[row].double() / 0.5, -1)
        counts = torch.bincount(token[node == row], minlength=4)
        assert (counts[expected == 0] == 0).all()
        keep = expected > 0
        assert stats.chisquare(counts[keep].numpy(), expected[keep].numpy() * counts.sum().item()).pvalue > 1e-3


def test_inversion_at_the_ends_of_the_unit_interval():
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    chance = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert _invert(logits, 1.0, torch.zeros(2, dtype=torch.long), chance).tolist() == [1, 2]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=20))
def test_place_is_a_permutation_that_keeps_first_children(parents):
    parents = torch.tensor(sorted(parents))
    row = place(parents)
    assert sorted(row.tolist()) == list(range(len(parents)))
    for i, parent in enumerate(parents.tolist()):
        first = i == 0 or parents[i - 1] != parent
        if first and parent < len(parents):
            assert row[i] == parent


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_draws_do_not_depend_on_the_batch(tiny_engine, sums_prompts, temperature):
    sampling = Sampling(temperature, seed=3, max_tokens=96)
    large = with_batch(tiny_engine, 256).sample(sums_prompts[:16], range(10), sampling)
    for size in (24, 100):
        assert same(large, with_batch(tiny_engine, size).sample(sums_prompts[:16], range(10), sampling)) >= 0.999
    some = with_batch(tiny_engine, 256).sample(sums_prompts[5:9], range(2, 6), sampling)
    picked = [d for d in large if d.query_id in {p.query_id for p in sums_prompts[5:9]} and 2 <= d.draw < 6]
    assert same(some, picked) >= 0.999


def test_draws_one_at_a_time_are_those_of_a_batch(tiny_engine, sums_prompts):
    sampling = Sampling(1.0, seed=1, max_tokens=96)
    one = with_batch(tiny_engine, 1).sample(sums_prompts[:6], range(5), sampling)
    assert same(one, with_batch(tiny_engine, 256).sample(sums_prompts[:6], range(5), sampling)) >= 0.999


@pytest.mark.slow
def test_batch_sizes_1_and_256_agree_on_4000_draws(tiny_engine):
    from irlens import tasks
    from irlens.models.chat import prompts

    asked = prompts(tasks.load("sums", "test", 200).topics, tiny_engine.tokenizer)
    sampling = Sampling(1.0, seed=0, max_tokens=96)
    one = with_batch(tiny_engine, 1).sample(asked, range(20), sampling)
    share = same(one, with_batch(tiny_engine, 256).sample(asked, range(20), sampling))
    print(f"identical draws: {share:.5f}")
    assert share >= 0.999


@pytest.mark.parametrize("temperature", [0.0, 1e-4])
def test_no_temperature_is_greedy_decoding(tiny_engine, sums_prompts, temperature):
    calls = []
    sampling = Sampling(temperature, seed=0, max_tokens=96)
    drawn = tiny_engine.sample(sums_prompts[:10], range(3), sampling, lambda *made: calls.append(made))
    assert [d.draw for d in drawn] == [0, 1, 2] * 10
    assert sum(n for n, _ in calls) == 30 and sum(n for _, n in calls) == sum(d.n_tokens for d in drawn)
    for prompt, three in zip(sums_prompts, zip(*[iter(drawn)] * 3)):
        ids = torch.tensor([tiny_engine.tokenizer(prompt.text)["input_ids"]])
        out = tiny_engine.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=96)
        text = tiny_engine.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert {d.text for d in three} == {text}


def test_greedy_takes_the_first_of_equal_tokens_whatever_the_seed():
    logits = torch.tensor([[0.0, 2.0, 2.0], [3.0, -torch.inf, 3.0]])
    for chance in (0.0, 0.999):
        token = _invert(logits, 0, torch.tensor([1, 0, 1]), torch.full((3,), chance, dtype=torch.float64))
        assert token.tolist() == [0, 1, 0]


def test_a_draw_keeps_its_tokens(tiny_engine, sums_prompts):
    ends = set(tiny_engine.ends.tolist())
    for draw in tiny_engine.sample(sums_prompts[:6], range(3), Sampling(1.0, seed=0, max_tokens=30)):
        assert len(draw.tokens) == draw.n_tokens
        assert (draw.tokens[-1] in ends) == (draw.finish_reason == "stop") and not ends & set(draw.tokens[:-1])
        prompt = next(p for p in sums_prompts if p.query_id == draw.query_id)
        ids = tiny_engine.tokenizer(prompt.text)["input_ids"]
        assert draw.logprob == pytest.approx(plain_logprob(tiny_engine.model, ids, list(draw.tokens)), abs=1e-3)


@torch.no_grad()
def plain_logprob(model, prompt_ids, response_ids):
    logits = model(input_ids=torch.tensor([prompt_ids + response_ids])).logits[0].float().log_softmax(-1)
    at = range(len(prompt_ids) - 1, len(prompt_ids) + len(response_ids) - 1)
    return sum(logits[i, t].item() for i, t in zip(at, response_ids))


def test_logprob_is_the_policys_own_at_temperature_one(tiny_engine, sums_prompts):
    for draw in tiny_engine.sample(sums_prompts[:6], range(3), Sampling(0.6, seed=0, max_tokens=96)):
        prompt = next(p for p in sums_prompts if p.query_id == draw.query_id)
        tokens = tiny_engine.tokenizer(draw.text)["input_ids"] + [tiny_engine.tokenizer.eos_token_id]
        if draw.finish_reason == "stop" and len(tokens) == draw.n_tokens:  # the text may tokenise in another way
            expected = plain_logprob(tiny_engine.model, tiny_engine.tokenizer(prompt.text)["input_ids"], tokens)
            assert draw.logprob == pytest.approx(expected, abs=1e-3)


def test_a_draw_that_is_cut_off_says_so(tiny_engine, sums_prompts):
    drawn = tiny_engine.sample(sums_prompts[:4], range(2), Sampling(1.0, seed=0, max_tokens=3))
    assert {(d.n_tokens, d.finish_reason) for d in drawn} == {(3, "length")}


def test_a_sliding_window_model_draws_what_a_plain_forward_pass_expects(tiny_engine):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tiny_engine.tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=64,
            sliding_window=8,
            initializer_range=0.3,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
    engine = TransformersEngine(model, tiny_engine.tokenizer)
    asked = [Prompt("a", "Question: one two three four five six?"), Prompt("b", "Question: 1?")]
    by_id = {p.query_id: engine.tokenizer(p.text)["input_ids"] for p in asked}
    for draw in engine.sample(asked, range(6), Sampling(1.0, seed=0, max_tokens=20)):
        tokens = replay(model, by_id[draw.query_id], draw)
        assert len(tokens) == draw.n_tokens
        assert draw.logprob == pytest.approx(plain_logprob(model, by_id[draw.query_id], tokens), abs=1e-3)


@torch.no_grad()
def replay(model, prompt_ids, draw):
    """The tokens that the draw's random numbers choose, one full forward pass a token."""
    chance = uniforms([draw_key(0, draw.query_id, 1.0, draw.draw)], 20)[0]
    tokens = []
    for u in chance[: draw.n_tokens]:
        logits = model(input_ids=torch.tensor([prompt_ids + tokens])).logits[:, -1].float()
        token = _invert(logits, 1.0, torch.zeros(1, dtype=torch.long), torch.tensor([u], dtype=torch.float64))
        tokens.append(int(token))
    return tokens


def test_a_prompt_that_leaves_no_room_is_refused_by_name(tiny_engine):
    with pytest.raises(UserError, match=r"long: prompt of \d+ tokens \+ 96 new ones exceeds the model's 1024"):
        tiny_engine.sample([Prompt("long", "7 " * 1000)], range(1), Sampling(1.0, 0, 96))


def test_bos_is_written_once():
    class Tokenizer:
        bos_token = "<s>"

        def __call__(self, text, add_special_tokens):
            return {"input_ids": ["<s>"] * add_special_tokens + ["<s>"] * text.startswith("<s>")}

    ids = token_ids(Tokenizer(), [Prompt("a", "<s>[INST]"), Prompt("b", "plain")])
    assert ids == [["<s>"], ["<s>"]]


def test_draws_are_told_as_they_end(tiny_engine, sums_prompts):
    calls, sampling = [], Sampling(1.0, seed=0, max_tokens=60)
    drawn = with_batch(tiny_engine, 40).sample(sums_prompts[:8], range(5), sampling, lambda *made: calls.append(made))
    assert len(calls) > 5 and all(draws > 0 for draws, _ in calls)
    lengths = sorted(d.n_tokens for d in drawn)
    assert sorted(n for draws, tokens in calls for n in [tokens // draws] * draws) == lengths
    calls.clear()
    cut = tiny_engine.sample(sums_prompts[:8], range(5), Sampling(1.0, 0, 3), lambda *made: calls.append(made))
    assert calls == [(len(cut), 3 * len(cut))], "those that are cut off end together"


@pytest.mark.parametrize("own_step", [False, True])
def test_vllms_engine_tells_of_each_request_as_it_ends(own_step):
    """By its steps, which are given back as they were."""
    from types import SimpleNamespace

    from irlens.retrieve.engines.vllm import _told

    def request(finished, *lengths):
        return SimpleNamespace(finished=finished, outputs=[SimpleNamespace(token_ids=[7] * n) for n in lengths])

    class Core:
        def __init__(self):
            self.left = [[request(True, 3, 5)], [], [request(False, 2), request(True, 4)]]

        def step(self):
            return self.left.pop(0)

    core, calls = Core(), []
    if own_step:
        core.step = core.step
    before = vars(core).get("step")
    with _told(core, lambda *made: calls.append(made)):
        assert [len(core.step()) for _ in range(3)] == [1, 0, 2]
    assert calls == [(2, 8), (1, 4)] and vars(core).get("step") is before
    with pytest.raises(IndexError), _told(core, calls.append):
        core.step()
    assert vars(core).get("step") is before
    with _told(core, None):
        assert vars(core).get("step") is before
