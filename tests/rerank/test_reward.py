"""Scalar reward models: the text that they read, one BOS, padding that changes nothing, and what is refused."""

import json

import pandas as pd
import pytest
import torch

from irlens.base.errors import UserError
from irlens.models import catalog
from irlens.rerank import reward

TEMPLATE = (  # the form of Llama 3's
    "{% for m in messages %}{{ (bos_token if loop.first else '') + '<|h|>' + m['role'] + '<|/h|>' + m['content'] | trim"
    " + '<|eot|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|h|>assistant<|/h|>' }}{% endif %}"
)
TALK = {"q": [{"role": "user", "content": "how many"}], "p": [{"role": "user", "content": "who"}]}
ROWS = pd.DataFrame(
    {
        "query_id": ["q", "q", "p", "q"],
        "doc_id": list("abcd"),
        "text": ["two", "three or four or even five", "she was", "two <|bos|> more"],
    }
)


def llama_tokenizer():
    """Words as tokens, and a BOS that the tokenizer itself writes, as Llama 3's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<|bos|>", "<|eot|>", "<|h|>", "<|/h|>"]
    words = [
        "user",
        "assistant",
        "how",
        "many",
        "who",
        "two",
        "three",
        "or",
        "four",
        "even",
        "five",
        "she",
        "was",
        "more",
    ]
    vocabulary = {token: i for i, token in enumerate([*special, "<unk>", *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.add_special_tokens(special)
    raw.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<|bos|>", eos_token="<|eot|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def save_llama(folder, labels=1):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    tokenizer = llama_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                         intermediate_size=32, max_position_embeddings=64, num_labels=labels, initializer_range=0.5,
                         bos_token_id=0, eos_token_id=1)  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("llama"))


def test_a_chat_model_reads_the_template_with_one_bos_and_no_generation_prompt(llama):
    model = reward.load(llama, TALK)
    assert model.text("q", " two ") == "<|bos|><|h|>user<|/h|>how many<|eot|><|h|>assistant<|/h|>two<|eot|>"
    ids = [some["input_ids"] for some in model.encode(ROWS)]
    tokens = model.tokenizer.convert_ids_to_tokens(ids[0])
    assert tokens == [
        "<|bos|>",
        "<|h|>",
        "user",
        "<|/h|>",
        "how",
        "many",
        "<|eot|>",
        "<|h|>",
        "assistant",
        "<|/h|>",
        "two",
        "<|eot|>",
    ]
    assert all(some.count(0) == 1 and some[0] == 0 for some in ids)  # also where a response writes one


def test_scores_are_plain_logits_whatever_the_batch(llama):
    model = reward.load(llama, TALK)
    together = model(ROWS)
    alone = []
    for i in range(len(ROWS)):  # one at a time, nothing padded, straight from the model
        ids = torch.tensor([model.encode(ROWS.iloc[[i]])[0]["input_ids"]])
        with torch.no_grad():
            states = model.model.model(input_ids=ids).last_hidden_state
            alone.append(float(model.model.score(states)[0, -1, 0]))
    assert together["score"].tolist() == pytest.approx(alone, abs=1e-5)
    assert reward.RewardModel(model.model, model.tokenizer, TALK, 1)(ROWS)["score"].tolist() == pytest.approx(
        alone, abs=1e-5
    )
    assert len(set(together["score"].round(4))) == 4 and not together["truncated"].any()


def test_padding_is_right_even_where_the_padding_token_ends_the_text(llama):
    model = reward.load(llama, TALK)
    expected = model(ROWS)["score"].tolist()
    model.model.config.pad_token_id = 1  # <|eot|>, which ends every text
    assert model(ROWS)["score"].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_long_text_loses_its_beginning_and_is_counted(llama):
    model = reward.load(llama, TALK)
    model.limit = 8
    rows = ROWS.assign(text=["two", "three or four or even five", "she", "two"])
    found = model(rows)
    assert found["truncated"].tolist() == [True, True, True, True]
    whole = model.encode(rows)[1]["input_ids"]
    assert model._cut({"input_ids": whole})["input_ids"] == [whole[0], *whole[-7:]]


def test_a_model_without_a_template_reads_a_pair(classifier):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    found = reward.load(classifier, TALK)(ROWS)["score"].tolist()
    tokenizer, plain = (
        AutoTokenizer.from_pretrained(classifier),
        AutoModelForSequenceClassification.from_pretrained(classifier).eval(),
    )
    for value, query_id, text in zip(found, ROWS["query_id"], ROWS["text"]):
        with torch.no_grad():
            logits = plain(**tokenizer(TALK[query_id][0]["content"], text, return_tensors="pt")).logits
        assert value == pytest.approx(float(logits[0, 0]), abs=1e-5)


def test_two_labels_an_untrained_head_and_a_language_model_are_refused(tmp_path, llama):
    save_llama(tmp_path / "two", labels=2)
    with pytest.raises(UserError, match="reranker x: the model has 2 labels; a scalar reward model has exactly one"):
        reward.check(tmp_path / "two", "x")
    with pytest.raises(UserError, match="is no sequence classifier"):
        reward.check(catalog.fetch(catalog.model("tiny")), "x")
    with pytest.raises(UserError, match="not a saved model"):
        reward.check(tmp_path, "x")
    from safetensors.torch import load_file, save_file

    save_llama(tmp_path / "headless")
    weights = load_file(tmp_path / "headless" / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, tmp_path / "headless" / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"have no score\.weight"):
        reward.load(tmp_path / "headless", TALK)


def test_the_catalog_knows_what_the_paper_used():
    assert catalog.reward("fsfairx").repo == "sfairXC/FsfairX-LLaMA3-RM-v0.1"
    pairrm = catalog.reward("pairrm")
    assert (pairrm.name, pairrm.repo, pairrm.form) == ("pairrm", "llm-blender/PairRM", "pairrm")
    assert catalog.reward("llm-blender/PairRM").form == "pairrm" and catalog.reward("someone/rm").form == "scalar"
    assert catalog.reward("fairx") is None
    with pytest.raises(UserError, match="no such folder"):
        catalog.reward("./nowhere")


def test_one_label_by_config_alone(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "id2label": {"0": "LABEL_0"}}))
    assert reward.labels(tmp_path) == 1


def test_a_text_that_was_drawn_often_is_read_once(llama, monkeypatch):
    model, read = reward.load(llama, TALK), []
    whole = model(ROWS)
    monkeypatch.setattr(model, "encode", lambda rows: (read.append(len(rows)), reward.Reader.encode(model, rows))[1])
    often = pd.concat([ROWS, ROWS.iloc[::-1], ROWS.assign(query_id="p")], ignore_index=True)
    found = model(often)
    assert read == [7] and len(found) == 12  # of the second prompt one is there already
    assert found["score"].to_numpy()[:8] == pytest.approx(whole["score"].to_numpy()[[0, 1, 2, 3, 3, 2, 1, 0]], abs=1e-5)
    alone = [float(model(often.iloc[[i]])["score"].iloc[0]) for i in range(8, 12)]
    assert found["score"].to_numpy()[8:] == pytest.approx(alone, abs=1e-5)
    assert found["truncated"].dtype == whole["truncated"].dtype
