"""The policy's likelihood, recomputed: what the sampler recorded, one response at a time, and the token that ends one."""

import pandas as pd
import pytest
import torch

from irlens.base.errors import UserError
from irlens.models.chat import end_token
from irlens.models.likelihood import Likelihood
from irlens.retrieve.engines import Sampling, token_ids


@pytest.fixture(scope="module")
def drawn(tiny_engine, sums_prompts):
    """Three prompts' draws, among them ones cut short."""
    draws = tiny_engine.sample(sums_prompts[:3], range(4), Sampling(1.0, 0, 40))
    return pd.DataFrame([vars(d) for d in draws]).assign(doc_id=lambda f: f.index.astype(str))


def scorer(engine, asked, **more):
    prompt_ids = dict(zip((p.query_id for p in asked), token_ids(engine.tokenizer, asked)))
    return Likelihood(engine.model, engine.tokenizer, prompt_ids, **more)


def test_it_is_what_the_sampler_recorded(tiny_engine, sums_prompts, drawn):
    found = scorer(tiny_engine, sums_prompts)(drawn)
    encoded = tiny_engine.tokenizer(drawn["text"].tolist(), add_special_tokens=False)["input_ids"]
    same = [len(ids) + (r == "stop") == n for ids, r, n in zip(encoded, drawn["finish_reason"], drawn["n_tokens"])]
    assert sum(same) >= 8 and found["n_tokens"][same].tolist() == drawn["n_tokens"][same].tolist()
    assert found["score"][same].tolist() == pytest.approx(drawn["logprob"][same].tolist(), abs=1e-3)
    assert set(drawn["finish_reason"]) == {"stop", "length"}


def test_the_batch_changes_nothing_and_equal_draws_score_alike(tiny_engine, sums_prompts, drawn):
    rows = pd.concat([drawn, drawn.iloc[:2]], ignore_index=True)
    whole = scorer(tiny_engine, sums_prompts)(rows)["score"]
    one = scorer(tiny_engine, sums_prompts, batch_size=1)(rows)["score"]
    assert whole.tolist() == pytest.approx(one.tolist(), abs=1e-3)
    assert whole[:2].tolist() == whole[-2:].tolist()


def test_a_response_that_does_not_fit_is_named(tiny_engine, sums_prompts, drawn):
    rows = drawn.assign(text=["1 " * 2000] + drawn["text"].tolist()[1:])
    with pytest.raises(UserError, match=r"doc_id=0: prompt and response have \d+ tokens, the model reads at most 1024"):
        scorer(tiny_engine, sums_prompts)(rows)


def test_the_end_token_is_the_one_that_the_template_writes(tiny_engine):
    tokenizer = tiny_engine.tokenizer
    assert end_token(tiny_engine.model, tokenizer) == tokenizer.eos_token_id

    class Chat:
        chat_template, eos_token_id = "some", 7

        def apply_chat_template(self, turns, tokenize):
            return "".join(f"{t['content']}!" for t in turns)

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [{"!": 9}.get(c, 1) for c in text]}

    class Model:
        generation_config = type("C", (), {"eos_token_id": [7, 9]})

    assert end_token(Model, Chat()) == 9
    with torch.no_grad(), pytest.raises(UserError, match="no end-of-sequence token"):
        end_token(Model, type("T", (), {"chat_template": None, "eos_token_id": None}))


class Words:
    """A tokenizer of numbers."""

    pad_token_id, eos_token_id, chat_template = 0, 2, None

    def __call__(self, texts, add_special_tokens):
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}


SMALL = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "initializer_range": 0.2,
}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [9.0] * 8}
MODELS = {
    "mpt": ("mpt", {"d_model": 32, "n_heads": 2, "n_layers": 2, "expansion_ratio": 2, "max_seq_len": 64}),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 2}),
    "falcon, alibi": ("falcon", {"alibi": True}),
    "mamba": ("mamba", {"state_size": 4}),
    "phi3, longrope": ("phi3", {
        "pad_token_id": 0,
        "max_position_embeddings": 64,
        "original_max_position_embeddings": 12,
        "rope_parameters": LONGROPE | {"original_max_position_embeddings": 12},
    }),
}  # fmt: skip


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("batch_size", [None, 1])
def test_any_architecture_gives_the_values_of_responses_alone(case, batch_size):
    """Several responses of unequal length to one prompt: models that cannot share it get a row for each."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    name, own = MODELS[case]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **SMALL | own)).eval()
    prompts = {"a": [5, 6, 7, 8, 9], "b": [11, 12]}
    sizes = [("a", 3), ("a", 7), ("a", 8), ("a", 20), ("b", 4), ("b", 30)]
    texts = [" ".join(str(20 + 7 * i + k) for k in range(n)) for i, (_, n) in enumerate(sizes)]
    rows = pd.DataFrame({"query_id": [q for q, _ in sizes], "text": texts}).assign(doc_id=lambda f: f.index.astype(str))
    found = Likelihood(model, Words(), prompts, batch_size)(rows)
    for (query_id, _), text, value in zip(sizes, texts, found["score"]):
        response = [int(word) for word in text.split()] + [2]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompts[query_id] + response[:-1]])).logits[0]
        told = logits[len(prompts[query_id]) - 1 :].log_softmax(-1).gather(-1, torch.tensor(response)[:, None])
        assert value == pytest.approx(told.sum().item(), abs=1e-4)
