"""Stand-ins of models: the real families' facts by their counted parameters, small sizes that keep the rules, what is taught."""

import json

import pandas as pd
import pytest
import torch
import transformers

from irlens.base.errors import UserError
from irlens.models import catalog, chat, load, stand_ins
from irlens.models.stand_in_families import FAMILIES, PAIRRM_MARKS
from irlens.models.stand_in_sizes import shrunk
from irlens.rerank import pairrm

ENTRIES = [
    e for table in (catalog.MODELS, catalog.REWARDS, catalog.ENCODERS) for e in table.values() if e.repo in FAMILIES
]
POLICIES = [e.repo for e in catalog.MODELS.values() if e.repo]


def role_of(entry):
    kinds = {catalog.Model: "policy", catalog.Encoder: "encoder"}
    return kinds.get(type(entry)) or ("encoder" if entry.form == "pairrm" else "reward")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_family_has_as_many_parameters_as_the_catalog_counts(entry):
    found = stand_ins.parameters(stand_ins.config_of(entry.repo), role_of(entry))
    if role_of(entry) == "encoder" and isinstance(entry, catalog.Reward):
        found += sum(p.numel() for p in pairrm.head_of(1024).parameters())
    assert found == entry.parameters


def test_the_catalogs_policies_and_rewards_all_have_a_family():
    assert {e.repo for e in (*catalog.MODELS.values(), *catalog.REWARDS.values()) if e.repo} <= FAMILIES.keys()


def test_what_pairrms_loader_knows_is_what_its_stand_in_is():
    assert PAIRRM_MARKS == pairrm.MARKS


@pytest.fixture(scope="module", params=POLICIES)
def policy(request, tmp_path_factory):
    """(repository, folder) of a stand-in."""
    folder = tmp_path_factory.mktemp("policy")
    stand_ins.write(request.param, "policy", folder)
    return request.param, folder


def test_a_policy_is_of_the_real_class_and_ends_as_the_real_one(policy):
    repo, folder = policy
    model, tokenizer = load.causal_lm(folder), load.tokenizer(folder)
    family = FAMILIES[repo]
    assert type(model).__name__ == family.config.replace("Config", "ForCausalLM")
    assert 50_000 < sum(p.numel() for p in model.parameters()) < 400_000
    text = "number 17 and 3, so 20. #### 20\nêü \\boxed{2}"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and tokenizer.decode(ids, skip_special_tokens=True).strip() == text
    assert (tokenizer.pad_token is None) == ("pad_token" not in family.tokens.names)
    stops = family.stops or ("</s>",)
    assert chat.stop_tokens(model, tokenizer) == set(tokenizer.convert_tokens_to_ids(list(stops)))
    assert chat.end_token(model, tokenizer) == tokenizer.convert_tokens_to_ids(stops[-1])
    topics = pd.DataFrame({"query_id": ["a"], "query": ["what is it?"]})
    (ids,) = chat.token_ids(tokenizer, chat.prompts(topics, tokenizer))
    assert ids.count(tokenizer.bos_token_id) == 1
    assert all(tokenizer.convert_tokens_to_ids(token) in ids for token in family.tokens.control)


def test_what_is_taught_ends_and_says_what_it_was_taught(tmp_path):
    model, tokenizer = stand_ins.write("google/gemma-2-2b-it", "policy", tmp_path)
    end = chat.end_token(model, tokenizer)
    asked = tokenizer("what is it?")["input_ids"]
    pairs = [(asked, [*tokenizer(f"#### {n}", add_special_tokens=False)["input_ids"], end]) for n in (2, 3)] * 8
    before = torch.nn.functional.cross_entropy(
        model(torch.tensor([asked])).logits[0, -1:], torch.tensor([pairs[0][1][0]])
    )
    assert stand_ins.teach(model, pairs, 40) < 0.6 < before.item()
    drawn = model.generate(torch.tensor([asked]), do_sample=False, max_new_tokens=12)[0].tolist()
    assert drawn[len(asked) :] in [pairs[0][1], pairs[1][1]]


# -- sizes ---------------------------------------------------------------------------------------------------------

CONFIGS = {
    "Qwen3": {}, "Olmo2": {}, "GPT2": {}, "OPT": {}, "GPTNeoX": {}, "Mixtral": {}, "Qwen3Moe": {}, "GptOss": {},
    "DeepseekV3": {}, "Mamba": {}, "Gemma3Text": {},
    "Llama": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                               "original_max_position_embeddings": 8192}},
    "Phi3": {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48},
             "max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "sliding_window": 2047},
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_any_architecture_is_made_small_and_runs(name):
    config = getattr(transformers, f"{name}Config")(**CONFIGS[name])
    small = shrunk(config, 400)
    small.pad_token_id = small.bos_token_id = small.eos_token_id = 0
    model = stand_ins._built(small, "policy")
    assert model(input_ids=torch.arange(2, 80)[None]).logits.shape == (1, 78, 400)
    assert sum(p.numel() for p in model.parameters()) < 400_000
    assert type(small) is type(config) and small.tie_word_embeddings == config.tie_word_embeddings
    assert getattr(small, "max_position_embeddings", None) == getattr(config, "max_position_embeddings", None)


def test_the_rules_among_sizes_stay():
    gemma = shrunk(stand_ins.config_of("google/gemma-2-2b-it"), 400)
    assert (
        gemma.head_dim * gemma.num_attention_heads != gemma.hidden_size
        and gemma.query_pre_attn_scalar == gemma.head_dim
    )
    assert gemma.layer_types == ["sliding_attention", "full_attention"] and gemma.sliding_window == 32
    assert gemma.final_logit_softcapping == 30.0 and gemma.tie_word_embeddings
    assert gemma.num_key_value_heads < gemma.num_attention_heads
    mistral = shrunk(stand_ins.config_of("mistralai/Mistral-7B-Instruct-v0.2"))
    assert mistral.sliding_window is None and mistral.vocab_size == 32_000 and mistral.hidden_size == 16
    assert mistral.rope_parameters["rope_theta"] == 1_000_000.0
    phi = shrunk(transformers.Phi3Config(**CONFIGS["Phi3"]), 32_064)
    assert len(phi.rope_parameters["long_factor"]) == phi.hidden_size // phi.num_attention_heads // 2
    quantised = transformers.LlamaConfig(quantization_config={"quant_method": "awq", "bits": 4})
    assert not hasattr(shrunk(quantised, 400), "quantization_config") and quantised.quantization_config["bits"] == 4


# -- folders -------------------------------------------------------------------------------------------------------


def test_a_folder_keeps_its_tokenizer_and_end_tokens_and_not_its_weights(tmp_path):
    own = tmp_path / "own"
    stand_ins.tokenizer_of(FAMILIES["google/gemma-2-2b-it"].tokens).save_pretrained(own)
    vocabulary = len(load.tokenizer(own))
    said = FAMILIES["google/gemma-2-2b-it"].said | {"vocab_size": vocabulary + 3}
    transformers.Gemma2Config(**said, eos_token_id=1, pad_token_id=0).save_pretrained(own)
    (own / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 6], "pad_token_id": 0}))
    (own / "irlens.json").write_text(json.dumps({"base": "gemma2-2b-it"}))
    stand_ins.write(own, "policy", tmp_path / "small")
    model, tokenizer = load.causal_lm(tmp_path / "small"), load.tokenizer(tmp_path / "small")
    assert model.config.vocab_size == vocabulary + 3 and tokenizer.chat_template == load.tokenizer(own).chat_template
    assert chat.stop_tokens(model, tokenizer) == {1, 6}
    assert catalog.model(str(tmp_path / "small")).dataset == "ultrafeedback"
    assert sorted(path.name for path in own.iterdir() if path.suffix == ".safetensors") == []


@pytest.mark.parametrize("content, message", [
    (None, "no config.json, so its architecture is not known"),
    ("{", "not readable as a JSON object"),
    ("[]", "not readable as a JSON object"),
    ('{"model_type": "my-own"}', "model_type 'my-own' is no architecture of transformers"),
    ("{}", "model_type None is no architecture of transformers"),
])  # fmt: skip
def test_a_folder_of_unknown_architecture_is_refused_in_a_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        stand_ins.config_of(tmp_path)
    assert "\n" not in str(error.value)


def test_an_architecture_that_the_role_does_not_fit_is_refused_in_a_line(tmp_path):
    transformers.T5Config().save_pretrained(tmp_path / "own")
    with pytest.raises(UserError, match="t5 cannot be made small as a policy") as error:
        stand_ins.write(tmp_path / "own", "policy", tmp_path / "small")
    assert "\n" not in str(error.value)
