"""Scores of given texts equal those of one forward pass each, whatever shares a batch."""

import pytest
import torch

from irlens import catalog
from irlens.train import score


@pytest.fixture(scope="module")
def tiny():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = catalog.fetch(catalog.model("tiny"))
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def test_scores_are_those_of_separate_passes(tiny, monkeypatch):
    model, tokenizer = tiny
    prompts = {"a": tokenizer("Question: 1+1?\nAnswer:\n")["input_ids"], "b": tokenizer("What?")["input_ids"]}
    rows = [("a", "#### 2"), ("b", "After adding there are <<1+2=3>>3 pens."), ("a", ""), ("a", "no"), ("b", "#### 2")]
    expected = []
    for query_id, text in rows:
        ids = prompts[query_id] + tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(prompts[query_id])
        expected.append(sum(logits[i - 1, ids[i]].item() for i in range(start, len(ids))))
    for at_once, tokens in ((16, 8192), (1, 1), (2, 40)):
        monkeypatch.setattr(score, "AT_ONCE", at_once)
        monkeypatch.setattr(score, "TOKENS", tokens)
        told = []
        found = score.score_texts(model, tokenizer, prompts, *zip(*rows), on_batch=told.append)
        assert found["logprob"].tolist() == pytest.approx(expected, abs=1e-4)
        assert found["n_tokens"].tolist()[2] == 1 and sum(told) == 5
    assert score.score_texts(model, tokenizer, prompts, [], []).empty


def test_a_draw_scores_what_the_engine_said(tiny, tiny_engine, sums_prompts):
    from irlens.retrieve.engines import Sampling, token_ids

    model, tokenizer = tiny
    some = sums_prompts[:3]
    drawn = [d for d in tiny_engine.sample(some, range(2), Sampling(1.0, 0, 96)) if d.finish_reason == "stop"]
    ids = dict(zip([p.query_id for p in some], token_ids(tokenizer, some)))
    found = score.score_texts(model, tokenizer, ids, [d.query_id for d in drawn], [d.text for d in drawn])
    same = [n == d.n_tokens for n, d in zip(found["n_tokens"], drawn)]  # other encodings of the same text differ
    assert sum(same) >= 4
    for value, d, equal in zip(found["logprob"], drawn, same):
        assert not equal or value == pytest.approx(d.logprob, abs=1e-2)
