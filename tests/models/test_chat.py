"""Chat templates and response ids: what is trained and scored is what was drawn, in every family's way to end a turn."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from irlens.base.errors import UserError
from irlens.commands.mine_negatives import mine_negatives as run_mine_negatives
from irlens.commands.passk import passk as run_passk
from irlens.commands.settings import Mine, PassK, Train
from irlens.commands.train import train as run_train
from irlens.models import chat, stand_in_families
from irlens.models.chat import prompts
from irlens.models.likelihood import Likelihood
from irlens.models.stand_in_families import ALTERNATE, GEMMA_TURN
from irlens.negatives.lists import Cut, cut_lists
from irlens.retrieve.engines import Prompt
from irlens.retrieve.engines.transformers import TransformersEngine
from irlens.retrieve.sample import Draws, sample_run
from irlens.train import adapters
from irlens.train.data import tokenise, with_reference
from irlens.train.options import TrainOptions
from irlens.train.trainer import train

TEXT = ["the answer is seven, for two and five make seven", "Seven. #### 7", "what is two and five? system user model"]
TEMPLATES = {  # the structure of the published ones
    "gemma3": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{% set messages = [{'role': 'user', 'content': messages[0]['content'] + '\n\n' + messages[1]['content']}] "
        "+ messages[2:] %}{% endif %}{% for message in messages %}" + ALTERNATE + GEMMA_TURN
    ),
    "phi3": (
        "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    **stand_in_families.TEMPLATES,
}
# family: (BOS, EOS, what ends a turn, other special tokens, configuration, other fields of it)
FAMILIES = {
    "gemma2": ("<bos>", "<eos>", "<end_of_turn>", ["<start_of_turn>"], "Gemma2", {"query_pre_attn_scalar": 16}),
    "gemma3": ("<bos>", "<eos>", "<end_of_turn>", ["<start_of_turn>"], "Gemma3", {"query_pre_attn_scalar": 16}),
    "phi3": ("<s>", "<|endoftext|>", "<|end|>", ["<|user|>", "<|assistant|>", "<|system|>"], "Phi3", {}),
    "llama": ("<|begin|>", "<|end_of_text|>", "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>"], "Llama", {}),
    "mistral": ("<s>", "</s>", "</s>", ["[INST]", "[/INST]"], "Mistral", {}),
}


def tokenizer_of(family):
    """A tokenizer learnt on the spot: byte-level for Llama-3, else SentencePiece's way with spaces."""
    bos, eos, end, others, _, _ = FAMILIES[family]
    special = list(dict.fromkeys(["<pad>", bos, eos, end, *others]))
    inner = Tokenizer(models.BPE())
    if family == "llama":
        inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        inner.normalizer = normalizers.Replace(" ", "▁")
        inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
        alphabet = sorted(set("".join(TEXT)) - {" "} | {"▁", "\n"})
    inner.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=360, special_tokens=special, initial_alphabet=alphabet)
    )
    number = inner.token_to_id(bos)
    inner.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, number)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos, eos_token=eos, pad_token="<pad>")
    made.chat_template = TEMPLATES[family]
    return made


def save_model(family, path):
    """A random model of the family whose generation config stops at EOS and at the end of a turn."""
    tokenizer = tokenizer_of(family)
    _, eos, end, _, kind, more = FAMILIES[family]
    config = getattr(transformers, f"{kind}TextConfig" if family == "gemma3" else f"{kind}Config")(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, intermediate_size=64, max_position_embeddings=256, sliding_window=None if family == "llama" else 16,
        initializer_range=0.1, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    stops = tokenizer.convert_tokens_to_ids(list(dict.fromkeys([eos, end])))
    model.generation_config.eos_token_id = [*stops, tokenizer.pad_token_id] if end != eos else stops[0]
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return save_model(family, tmp_path_factory.mktemp(family) / "start")


TOPICS = pd.DataFrame({"query_id": ["a", "b", "c"], "query": ["two and five?", "what is seven?", "five?"]})


def draws(path, n=24):
    """(engine, prompts, a run of n draws for each)."""
    engine = TransformersEngine.load(path)
    asked = prompts(TOPICS, engine.tokenizer)
    run = sample_run(lambda: engine, asked, Draws(n, (1.0,), 0, 40), path.parent / f"{path.name}-shards", "m", str)
    return engine, asked, run


def judged_lists(run):
    """Lists of a run whose draws are right every other time."""
    qrels = run[["query_id", "doc_id"]].assign(relevance=run["draw"] % 2)
    return cut_lists(run, qrels, TOPICS, Cut(2, 3, lists=2))


def check_one_logprob(path):
    """Sampler, likelihood reranker and training agree on the draws of the model in `path`; returns the lists."""
    engine, asked, run = draws(path)
    ids = dict(zip(TOPICS["query_id"], chat.token_ids(engine.tokenizer, asked)))
    assert set(run["finish_reason"]) == {"stop", "length"}
    found = Likelihood(engine.model, engine.tokenizer, ids)(run)
    assert found["as_drawn"].all() and found["n_tokens"].tolist() == run["n_tokens"].tolist()
    assert found["score"].tolist() == pytest.approx(run["logprob"].tolist(), abs=1e-4)

    lists = judged_lists(run)
    model, tokenizer = adapters.load(path)
    examples = tokenise(lists, ids, tokenizer, model=model)
    trained = [value for e in with_reference(model, examples, 0, 4) for value in e.reference]
    of = dict(zip(run["doc_id"], run["logprob"]))
    assert len(trained) == len(lists) > 6
    assert trained == pytest.approx([of[doc_id] for doc_id in lists["doc_id"]], abs=1e-4)
    return lists, examples


def test_a_draw_has_one_log_probability_before_and_after_a_save(folder, family, tmp_path):
    _, examples = check_one_logprob(folder)
    model, tokenizer = adapters.load(folder)
    before = chat.stop_tokens(model, tokenizer)
    how = TrainOptions(learning_rate=1e-3, epochs=1, batch_lists=4, lists_at_once=4)
    trainer = train(model, tokenizer, examples, how, tmp_path / "checkpoints")
    adapters.save(trainer, folder, tokenizer, "tiny", tmp_path / "trained")
    saved, again = adapters.load(tmp_path / "trained")
    assert chat.stop_tokens(saved, again) == before and len(before) == (1 if family == "mistral" else 3)
    assert not torch.equal(saved.get_input_embeddings().weight, adapters.load(folder)[0].get_input_embeddings().weight)
    check_one_logprob(tmp_path / "trained")


def test_text_ends_with_what_the_template_ends_a_turn_with(folder, family):
    model, tokenizer = adapters.load(folder)
    end = tokenizer.convert_tokens_to_ids(FAMILIES[family][2])
    assert chat.end_token(model, tokenizer) == end in chat.stop_tokens(model, tokenizer)
    rows = pd.DataFrame({"text": ["seven", "seven and"], "finish_reason": ["stop", "length"]})
    done, cut = chat.response_ids(rows, model, tokenizer).ids
    plain = tokenizer(["seven", "seven and"], add_special_tokens=False)["input_ids"]
    assert done == [*plain[0], end] and cut == plain[1]


def test_drawn_ids_that_the_text_would_not_give_are_read_and_counted(folder):
    engine, _, run = draws(folder)
    drawn = [list(ids) for ids in run["tokens"]]
    found = chat.response_ids(run, engine.model, engine.tokenizer)
    text = chat.response_ids(run.drop(columns="tokens"), engine.model, engine.tokenizer)
    assert found.ids == drawn and all(found.drawn) and not any(text.drawn)
    other = sum(one != two for one, two in zip(drawn, text.ids))
    assert other > len(run) / 2  # a random model hardly ever draws the tokens that its text would become
    told = chat.origins(run, engine.model, engine.tokenizer)
    assert told == {
        "responses_as_drawn": len(run),
        "responses_tokenised": 0,
        "drawn_that_retokenise_otherwise": other,
    }


def test_ids_of_another_tokenizer_or_of_another_text_are_not_read(tmp_path):
    engine, _, run = draws(save_model("llama", tmp_path / "llama"))
    other, tokenizer = adapters.load(save_model("gemma2", tmp_path / "gemma2"))
    run = run[(run["finish_reason"] == "stop") & (run["n_tokens"] > 4)]
    assert len(run) > 5 and not any(chat.response_ids(run, other, tokenizer).drawn)
    edited = run.assign(text=run["text"] + " indeed")
    assert not any(chat.response_ids(edited, engine.model, engine.tokenizer).drawn)
    unended = run.assign(tokens=[ids[:-1] for ids in run["tokens"]])
    assert not any(chat.response_ids(unended, engine.model, engine.tokenizer).drawn)


def test_what_is_no_draw_of_the_prompt_is_text(tmp_path):
    engine, _, run = draws(save_model("phi3", tmp_path / "m"))
    gold = TOPICS.assign(solution="seven")
    qrels = run[["query_id", "doc_id"]].assign(relevance=run["draw"] % 2)
    lists = cut_lists(run, qrels, gold, Cut(1, 2, positives_from="gold"))
    of = dict(zip(run["doc_id"], run["tokens"]))
    assert [ids is None for ids in lists["tokens"]] == lists["doc_id"].str.endswith("/gold").tolist()
    assert all(ids is None or list(ids) == list(of[doc_id]) for doc_id, ids in zip(lists["doc_id"], lists["tokens"]))
    lists.to_parquet(tmp_path / "lists.parquet")
    kept = pd.read_parquet(tmp_path / "lists.parquet")
    ids = chat.response_ids(kept, engine.model, engine.tokenizer)
    assert ids.drawn == [not doc_id.endswith("/gold") for doc_id in kept["doc_id"]]


def test_a_run_that_knows_no_ids_is_read_by_its_texts(tmp_path):
    engine, asked, run = draws(save_model("gemma3", tmp_path / "m"), n=4)
    ids = dict(zip(TOPICS["query_id"], chat.token_ids(engine.tokenizer, asked)))
    end = engine.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    for unknown in (run.drop(columns="tokens"), run.assign(tokens=None), run.assign(tokens=[[]] * len(run))):
        found = Likelihood(engine.model, engine.tokenizer, ids)(unknown)
        assert not found["as_drawn"].any() and np.isfinite(found["score"]).all()
        examples = tokenise(judged_lists(unknown), ids, engine.tokenizer, model=engine.model)
        assert {response[-1] for e in examples for response in e.responses} == {end}


# -- commands ------------------------------------------------------------------------------------------------------


def test_training_and_mining_carry_the_ids_and_say_how_many(tmp_path):
    small = {"prompts": 24, "n": 4, "iterations": 1, "epochs": 1, "eval_limit": 2, "eval_n": 2, "test_limit": 0}
    folder, _, _ = run_train(Train(out=str(tmp_path / "t"), positives_from="both", **small), str)
    manifest = json.loads((folder / "manifest.json").read_text())
    lists = pd.read_parquet(folder / "iteration-1" / "lists.parquet")
    gold = int(lists["doc_id"].str.endswith("/gold").sum())
    assert 0 < gold == manifest["responses_tokenised"] == int(lists["tokens"].isna().sum())
    assert manifest["responses_as_drawn"] == len(lists) - gold
    assert 0 <= manifest["drawn_that_retokenise_otherwise"] < len(lists)
    mined, lists, _ = run_mine_negatives(Mine(limit=8, n=4, tier="easy,hard", out=str(tmp_path / "m")), str)
    assert lists["tokens"].isna().tolist() == (lists["tier"] == "positive").tolist()
    run = pd.read_parquet(mined / "run.parquet")
    assert [len(ids) for ids in run["tokens"]] == run["n_tokens"].tolist()


def test_greedy_is_the_likeliest_token_in_every_command(tmp_path):
    folder, results = run_passk(PassK(limit=4, n=3, temperature=(0.0, 1.0), at=(1, 3), out=str(tmp_path / "p")), str)
    run = pd.read_parquet(folder / "run.parquet")
    cold = run[run["temperature"] == 0]
    assert cold["doc_id"].str.contains("/T0/").all() and len(cold) == 12
    assert (cold.groupby("query_id")["text"].nunique() == 1).all()
    passed = results[results["run"].str.endswith("T=0")].set_index("cutoff")["value"]
    assert passed[1] == passed[3]
    small = {"prompts": 16, "n": 4, "iterations": 1, "epochs": 1, "eval_limit": 3, "eval_n": 2, "test_limit": 0}
    _, results, _ = run_train(Train(out=str(tmp_path / "t"), eval_temperature=(0.0,), **small), str)
    wide = results.pivot(index="x", columns="curve", values="value")
    assert (wide["Pass@1"] == wide["Pass@2"]).all()
    _, lists, _ = run_mine_negatives(
        Mine(limit=12, n=4, tier="hardest", temperature=(1.0, 0.0), out=str(tmp_path / "m")), str
    )
    assert lists[lists["tier"] == "hardest"]["doc_id"].str.contains("/T0/").all()


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_what_is_no_temperature_is_refused(tmp_path, value):
    out = str(tmp_path / "out")
    for stage, settings in (
        (run_passk, PassK(temperature=(value,), out=out)),
        (run_train, Train(temperature=(value,), out=out)),
        (run_train, Train(eval_temperature=(value,), out=out)),
        (run_mine_negatives, Mine(temperature=(value, 0.1), out=out)),
    ):
        with pytest.raises(UserError, match=r"temperature must be 0 \(greedy\) or a number above"):
            stage(settings, str)
    with pytest.raises(UserError, match=r"temperature 0 \(greedy\) gives one candidate"):
        run_train(Train(temperature=(0.0,), out=out), str)


# -- messages ------------------------------------------------------------------------------------------------------

SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "two and five?"}]
HISTORY = [
    {"role": "user", "content": "five?"},
    {"role": "assistant", "content": "seven"},
    {"role": "user", "content": "two and five?"},
]


def topics(messages):
    return pd.DataFrame({"query_id": ["a"], "query": [messages[-1]["content"]], "messages": [messages]})


@pytest.mark.parametrize("messages, roles", [(SYSTEM, "system, user"), (HISTORY, "user, assistant, user")])
def test_a_model_without_a_template_does_not_drop_messages(messages, roles):
    plain = tokenizer_of("llama")
    plain.chat_template = None
    with pytest.raises(
        UserError, match=rf"^a, read by m: .*no chat template.*\({roles}\).*--messages-as user"
    ) as error:
        prompts(topics(messages), plain, model="m")
    assert "\n" not in str(error.value)
    (text,) = prompts(topics(messages), plain, messages_as="text")
    assert all(f"{m['role']}: {m['content']}" in text.text for m in messages)
    if messages is SYSTEM:
        (merged,) = prompts(topics(messages), plain, messages_as="user")
        assert merged.text == "Question: Be brief.\n\ntwo and five?\nAnswer:\n"


@pytest.mark.parametrize("family", ["gemma2", "mistral"])
def test_a_template_that_refuses_a_system_prompt_is_one_line(family):
    tokenizer = tokenizer_of(family)
    with pytest.raises(
        UserError, match="^a, read by m: the model's chat template refuses.*--messages-as user"
    ) as error:
        prompts(topics(SYSTEM), tokenizer, model="m")
    assert "\n" not in str(error.value)
    (prompt,) = prompts(topics(SYSTEM), tokenizer, messages_as="user")
    assert prompt.messages == ({"role": "user", "content": "Be brief.\n\ntwo and five?"},)
    assert prompt.text == prompts(topics(list(prompt.messages)), tokenizer)[0].text
    assert SYSTEM[1]["content"] == "two and five?"  # what was given is not changed


def test_a_command_refuses_lost_messages_before_work_and_the_option_is_part_of_what_it_is(tmp_path, refused):
    rows = [
        {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{i}+1?"}]} for i in (1, 2)
    ]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ("train", "--dataset", tmp_path / "chats.jsonl", "--reward", "x/y", "--out", tmp_path / "o")
    assert "--messages-as user" in refused(*command) and not (tmp_path / "o").exists()
    assert "did you mean 'user'" in refused(*command, "--messages-as", "usr")
    from irlens.commands.drawing import identity, load_policy
    from irlens.retrieve.engines import choose

    settings = Train(dataset=str(tmp_path / "chats.jsonl"), messages_as="user")
    policy = load_policy(settings, None, None, str, verified=False)
    assert [p.text for p in policy.prompts(policy.task)] == [
        f"Question: Be brief.\n\n{i}+1?\nAnswer:\n" for i in (1, 2)
    ]
    assert identity(settings, policy)["messages_as"] == "user" and choose(settings)[0].messages_as == "user"
    assert identity(Train(), load_policy(Train(), None, 2, str))["messages_as"] is None


def test_a_servers_chat_gets_the_messages():
    (as_they_are,) = prompts(topics(SYSTEM), None)
    assert as_they_are.messages == tuple(SYSTEM)
    assert prompts(topics(SYSTEM), None, messages_as="user")[0].messages[0]["content"] == "Be brief.\n\ntwo and five?"
    assert isinstance(as_they_are, Prompt)
