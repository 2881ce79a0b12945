"""The policy's likelihood, recomputed: what the sampler recorded, one response at a time, and the token that ends one."""

import pandas as pd
import pytest
import torch

from irlens.chat import end_token
from irlens.errors import UserError
from irlens.rerank.likelihood import Likelihood
from irlens.retrieve.engines import Sampling, token_ids
from irlens.train import logprobs


@pytest.fixture(scope="module")
def drawn(tiny_engine, sums_prompts):
    """Three prompts' draws, among them ones cut short."""
    draws = tiny_engine.sample(sums_prompts[:3], range(4), Sampling(1.0, 0, 40))
    return pd.DataFrame([vars(d) for d in draws]).assign(doc_id=lambda f: f.index.astype(str))


def scorer(engine, asked, **more):
    prompt_ids = dict(zip((p.query_id for p in asked), token_ids(engine.tokenizer, asked)))
    return Likelihood(engine.model, engine.tokenizer, prompt_ids, logprobs, **more)


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
