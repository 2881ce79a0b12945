"""PairRM's layout on a small random DeBERTa: input, antisymmetry, list scores, truncation; the published value."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from irlens.base.errors import UserError
from irlens.rerank import pairrm

WORDS = ["hello", "hi", "there", "what", "is", "it", "two", "three", "four", "cat", "dog", "yes", "no"]


def tokenizer():
    """Words as tokens between [CLS] and [SEP], with PairRM's marks."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    raw = Tokenizer(models.WordLevel({t: i for i, t in enumerate([*special, *WORDS])}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    out = PreTrainedTokenizerFast(tokenizer_object=raw, **names)
    out.add_special_tokens({"additional_special_tokens": list(pairrm.MARKS)})
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random weights under the names of the published ones."""
    from safetensors.torch import save_file
    from transformers import DebertaV2Config, DebertaV2Model

    path, tokens = tmp_path_factory.mktemp("pairrm"), tokenizer()
    torch.manual_seed(0)
    sizes = pairrm.DEBERTA_LARGE | {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    config = DebertaV2Config(vocab_size=len(tokens), initializer_range=0.5, **sizes)
    encoder, head = DebertaV2Model(config), pairrm.head_of(32)
    weights = {f"pretrained_model.{k}": v for k, v in encoder.state_dict().items()}
    weights |= {f"head_layer.{k}": v for k, v in head.state_dict().items()}
    save_file({k: v.contiguous() for k, v in weights.items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({**sizes, "initializer_range": 0.5, "model_type": "deberta-v2"}))
    tokens.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return pairrm.load(folder, {"q": [{"role": "user", "content": "what is it"}]})


def by_hand(model, source, a, b):
    """The logit from the method's own words, one unpadded row."""
    tokens = model.tokenizer
    parts = [f"<|source|>{source}", f"<|candidate1|>{a}", f"<|candidate2|>{b}"]
    ids = torch.tensor([[i for part in parts for i in tokens(part)["input_ids"]]])
    with torch.no_grad():
        states = model.encoder(input_ids=ids).last_hidden_state[0]
        s, one, two = (states[ids[0].tolist().index(tokens.convert_tokens_to_ids(m))] for m in pairrm.MARKS[:3])
        first, second = (model.head(torch.cat([s, c])) for c in (one, two))
    return float(first - second)


def test_a_pair_is_read_as_the_method_says(model):
    start = model._encode("<|source|>", ["what is it"], 1224)[0]
    assert model.tokenizer.convert_ids_to_tokens(start) == ["[CLS]", "<|source|>", "what", "is", "it", "[SEP]"]
    for a, b in (("hi", "no"), ("two three four cat dog", "hello"), ("yes", "cat dog")):
        assert model.compare("what is it", a, b) == pytest.approx(by_hand(model, "what is it", a, b), abs=1e-5)


def test_margins_do_not_depend_on_the_batch_and_a_separator_in_a_text_ends_nothing(model):
    texts = ["hi", "two three four cat dog yes", "no it is", "hello"]
    whole = model.margins("what is it", texts)
    assert np.diag(whole).tolist() == [0.0] * 4
    one = pairrm.PairRM(model.encoder, model.head, model.tokenizer, batch_size=1)
    assert one.margins("what is it", texts) == pytest.approx(whole, abs=1e-5)
    assert model.compare("it", "yes [SEP] no", "hi") == pytest.approx(model.compare("it", "yes no", "hi"), abs=1e-6)


def test_list_scores_by_hand():
    margin = np.array([[0.0, 1.0, 3.0], [-2.0, 0.0, 0.5], [-1.0, -1.5, 0.0]])
    # S = M − Mᵀ: 0→1: 1+2 = 3, 0→2: 3+1 = 4, 1→2: 0.5+1.5 = 2
    assert pairrm.list_scores(margin) == pytest.approx([7 / 3, (-3 + 2) / 3, (-4 - 2) / 3])
    assert pairrm.list_scores(np.zeros((1, 1))).tolist() == [0.0]


def test_scores_of_a_list_are_antisymmetric_sum_to_zero_and_equal_texts_share(model):
    rows = pd.DataFrame({"query_id": "q", "doc_id": list("abcd"), "text": ["hi", "no it is", "hi", "cat dog"]})
    found = model(rows)
    texts = rows["text"].tolist()
    full = np.array([[0.0 if i == j else by_hand(model, "what is it", a, b) for j, b in enumerate(texts)]
                     for i, a in enumerate(texts)])  # fmt: skip
    assert found["score"].tolist() == pytest.approx((full - full.T).sum(1) / 4, abs=1e-4)
    assert found["score"].sum() == pytest.approx(0, abs=1e-5)
    assert found["score"][0] == found["score"][2] and found["comparisons"].tolist() == [4] * 4
    two = model(rows.iloc[[1, 3]])["score"]
    assert two[0] == pytest.approx(-two[1], abs=1e-7)
    turned = model(rows.iloc[[3, 1]])["score"]
    assert turned.tolist() == pytest.approx(two.tolist()[::-1], abs=1e-5)


def test_lists_of_other_tags_do_not_compete(model):
    rows = pd.DataFrame({"query_id": "q", "doc_id": list("abcd"), "text": ["hi", "no", "cat", "dog"]})
    apart = model(rows.assign(tag=["s", "s", "t", "t"]))["score"]
    assert apart[:2].tolist() == pytest.approx(model(rows[:2])["score"].tolist())
    assert apart[2:].tolist() == pytest.approx(model(rows[2:])["score"].tolist())


def test_it_prefers_one_of_two_systems_texts_by_both_orders(model, folder):
    import irlens

    runs = {
        "a": irlens.run([("what is it", "hi"), ("what is it", "no")]),
        "b": irlens.run([("what is it", "cat dog"), ("what is it", "no")]),
    }
    found = irlens.preferences(runs, irlens.reranker(f"reward:{folder}"), pairs=2)
    margin = by_hand(model, "what is it", "cat dog", "hi") - by_hand(model, "what is it", "hi", "cat dog")
    assert found["preference"].tolist() == [(float(margin > 0) + 0.5) / 2]  # the second responses are equal texts
    assert found["length_before"].tolist() == [2.0] and found["length_after"].tolist() == [4.5]


def test_source_and_candidates_are_cut(model):
    assert model.lengths == (1224, 412)
    source, candidate = "it " * 2000, "cat " * 1000
    (start,) = model._encode("<|source|>", [source], 1224)
    (one,) = model._encode("<|candidate1|>", [candidate], 412)
    assert len(start) == 1224 and len(one) == 412 and start[-1] == one[-1] == model.tokenizer.sep_token_id
    short = pairrm.PairRM(model.encoder, model.head, model.tokenizer, lengths=(6, 5))
    assert short.compare("what is it two three", "hi hi hi hi", "no no no no") == pytest.approx(
        model.compare("what is it", "hi hi", "no no"), abs=1e-5
    )


def test_what_is_read_cut_is_counted(model):
    rows = pd.DataFrame({"query_id": "q", "doc_id": list("abcd"), "text": ["hi", "cat " * 410, "cat " * 409, "hi"]})
    found = model(rows)
    assert found["truncated"].tolist() == [False, True, False, False]  # 412 tokens with [CLS], mark and [SEP]
    short = pairrm.PairRM(model.encoder, model.head, model.tokenizer, model.conversations, lengths=(5, 412))
    assert short(rows.iloc[[0, 2]])["truncated"].tolist() == [True, True]  # the question is longer
    assert short(rows.iloc[[0, 3]])["truncated"].tolist() == [False, False]  # equal texts: nothing was read


def test_other_weights_are_refused(tmp_path, folder):
    from safetensors.torch import load_file, save_file

    assert pairrm.is_layout(folder) and not pairrm.is_layout(tmp_path)
    with pytest.raises(UserError, match="no PairRM"):
        pairrm.load(tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["head_layer.4.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="the weights do not fit"):
        pairrm.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not readable as weights"):
        pairrm.load(tmp_path)


def test_the_published_value():
    """("hello!", "hi!", "f**k off!") → 1.9003, where the published weights are in the local cache."""
    from huggingface_hub import snapshot_download

    try:
        path = Path(snapshot_download("llm-blender/PairRM", local_files_only=True))
    except Exception:
        pytest.skip("llm-blender/PairRM is not in the local cache")
    assert pairrm.load(path).compare("hello!", "hi!", "f**k off!") == pytest.approx(1.9003, abs=0.02)
