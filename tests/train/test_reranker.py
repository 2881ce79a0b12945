"""What trains a reranker: its losses by hand, the policy's over its scores, what it reads, and what it may start from."""

import json
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

from irlens.base.errors import UserError
from irlens.models import catalog, load
from irlens.rerank import reward
from irlens.train import losses
from irlens.train.reranker import base, in_folder, objectives, texts, trainer
from irlens.train.reranker.options import RATES, RerankerOptions

TINY = catalog.fetch(catalog.model("tiny"))


def judged(scores, grades, margin=None):
    """Lists of equal length, all of it real."""
    scores, grades = torch.tensor(scores, requires_grad=True), torch.tensor(grades)
    given = None if margin is None else torch.tensor(margin)
    return scores, objectives.Judged.of(scores, grades, torch.ones_like(grades).bool(), given)


def nls(x):
    return math.log1p(math.exp(-x))  # -log sigma(x)


def test_bradley_terry_is_the_mean_over_a_lists_pairs_and_then_over_lists():
    loss = objectives.get("bradley-terry")
    _, three = judged([[2.0, 0.5, 1.0]], [[2.0, 1.0, 0.0]])
    assert loss(three).item() == pytest.approx((nls(1.5) + nls(1.0) + nls(-0.5)) / 3)
    _, two = judged([[2.0, 0.5, 1.0], [1.0, 1.0, 0.0]], [[2.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    mean = ((nls(1.5) + nls(1.0) + nls(-0.5)) / 3 + (nls(0.0) + nls(1.0)) / 2) / 2
    assert loss(two).item() == pytest.approx(mean)


def test_a_margin_is_that_of_the_grades_unless_the_list_has_its_own():
    loss = objectives.get("bradley-terry")
    nan = float("nan")
    _, given = judged([[1.0, 0.0], [1.0, 0.0]], [[3.0, 1.0], [3.0, 1.0]], [nan, 0.25])
    assert loss(given, margin=0.5).item() == pytest.approx((nls(1.0 - 0.5 * 2) + nls(1.0 - 0.25)) / 2)
    assert loss(given).item() == pytest.approx((nls(1.0) + nls(0.75)) / 2)


def test_pointwise_losses_read_lists_of_one_grade_too():
    scores, given = judged([[1.0, -2.0], [0.5, 0.0]], [[1.0, 0.0], [0.0, 0.0]])
    bce = ((nls(1.0) + nls(2.0)) / 2 + (nls(-0.5) + nls(0.0)) / 2) / 2
    assert objectives.get("bce")(given).item() == pytest.approx(bce)
    squares = ((0.0 + 4.0) / 2 + (0.25 + 0.0) / 2) / 2
    assert objectives.get("regression")(given).item() == pytest.approx(squares)
    objectives.get("bce")(given).backward()
    sigma = 1 / (1 + math.exp(-1.0))
    assert scores.grad[0, 0].item() == pytest.approx((sigma - 1) / 4)


@pytest.mark.parametrize("name", objectives.RANKING)
def test_the_ranking_losses_are_the_policys_with_the_score_for_gamma(name):
    generator = torch.Generator().manual_seed(0)
    gamma = torch.randn(3, 4, generator=generator)
    _, given = judged(gamma.tolist(), [[3.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0], [0.0, 2.0, 1.0, 4.0]])
    options = RerankerOptions(objective=name).check()
    assert options.parameters["beta"] == 1.0
    own = options.loss(given, **options.parameters)
    assert own.item() == pytest.approx(getattr(losses, name)(gamma, given.grade, given.mask).item())
    half = RerankerOptions(objective=name, beta=0.5).check()
    assert half.loss(given, **half.parameters).item() == pytest.approx(
        getattr(losses, name)(0.5 * gamma, given.grade, given.mask).item()
    )


def test_the_outcome_at_every_token_is_a_mean_over_tokens_candidates_and_lists():
    """The third list has one grade: an objective that compares does not count it."""
    scores, tokens = torch.zeros(3, 2), torch.tensor([1.0, -1.0, 0.5, 2.0, 0.0, 3.0], requires_grad=True)
    grade, mask = (
        torch.tensor([[1.0, 0.0], [1.0, 0.25], [1.0, 7.0]]),
        torch.tensor([[True, True], [True, True], [True, False]]),
    )
    owner = torch.tensor([0, 0, 1, 2, 3, 4])
    given = objectives.Judged.of(scores, grade, mask, every=objectives.Every(tokens, owner))
    first = ((nls(1.0) + nls(-1.0)) / 2 + nls(-0.5)) / 2
    second = (nls(2.0) + math.log(2)) / 2
    loss = objectives.at_every_token(given, objectives.get("bradley-terry").counts(grade, mask))
    assert loss.item() == pytest.approx((first + second) / 2)
    every = objectives.at_every_token(given, objectives.get("bce").counts(grade, mask))
    assert every.item() == pytest.approx((first + second + nls(3.0)) / 3)
    every.backward()
    assert tokens.grad[3].item() == pytest.approx(-(1 - 1 / (1 + math.exp(-2.0))) / 6)


def test_padding_adds_nothing_whatever_the_objective():
    grade, mask = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[True, True, False]])
    for name in objectives.names():
        found = [
            objectives.get(name)(objectives.Judged.of(torch.tensor([[0.3, 0.1, odd]]), grade, mask)).item()
            for odd in (0.0, 50.0, float("nan"))
        ]
        assert found[0] == found[1] == found[2] and math.isfinite(found[0])


@pytest.mark.parametrize(
    "given, word",
    [
        ({"objective": "listmel"}, "listmle"),
        ({"objective": "sft"}, "no objective 'sft'"),
        ({"objective": "bce", "margin": 1.0}, "margin"),
        ({"objective": "listmle", "objective_args": '{"nll": 1}'}, "nll"),
        ({"objective_args": '{"margin": 1}', "margin": 1.0}, "twice"),
        ({"held_out": 1.0}, "--held-out"),
        ({"list_size": 1}, "--list-size"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"trainer_args": '{"fsdp": true}'}, "fsdp"),
        ({"every_token": -0.5}, "--every-token must be at least 0"),
        ({"optimiser": "moun"}, "muon"),
        ({"optimiser": "muon", "trainer_args": '{"optim": "sgd"}'}, "--optimiser muon and --trainer-args optim"),
    ],
)
def test_options_that_cannot_be_meant_are_one_line(given, word):
    with pytest.raises(UserError, match=word):
        RerankerOptions(**given).check()


def test_the_learning_rate_is_the_models_size_unless_it_is_given():
    assert [RerankerOptions().training(count).learning_rate for count in (10**6, 10**9)] == list(RATES)
    assert RerankerOptions(learning_rate=0.5).training(10**9).learning_rate == 0.5
    assert RerankerOptions(optimiser="muon").training(10**6).learning_rate == pytest.approx(10 * RATES[0])


LISTS = pd.DataFrame(
    {
        "query_id": ["a", "a", "b"],
        "doc_id": ["0", "1", "2"],
        "text": ["#### 3", "#### 44", "#### 5"],
        "grade": [1.0, 0.0, 1.0],
        "tier": ["positive", "own", "positive"],
        "list": [0, 0, 0],
    }
)
TALKS = {q: [{"role": "user", "content": f"{q} = ?"}] for q in "ab"}


def test_a_language_model_without_a_template_reads_question_answer_and_the_end():
    tokenizer = base.tokenizer(TINY)
    found = texts.read(LISTS, base.reader(TINY, tokenizer, TALKS))
    assert tokenizer.decode(found[0].texts[1]["input_ids"]) == "Question: a = ?\nAnswer:\n#### 44<|end|>"
    assert [one.query_id for one in found] == ["a", "b"] and found[0].grades == [1.0, 0.0]
    batch = texts.collate([*found, found[0].blank()], tokenizer.pad_token_id)
    assert batch["mask"].tolist() == [[True, True], [True, False]] and "margin" not in batch
    assert batch["texts"]["attention_mask"].sum(1).tolist() == [len(t["input_ids"]) for f in found for t in f.texts]
    alone = texts.collate([found[0].blank()], 0)
    assert alone["mask"].tolist() == [[False]] and alone["texts"]["input_ids"].shape == (1, 1)


@pytest.mark.parametrize("instruction", ["Say it briefly.", 'End with \\boxed{}, "so" {{ it }} is\nseen.'])
def test_a_language_model_without_a_template_is_not_told_what_a_data_set_adds(instruction):
    """As its policy never is: the template that is saved with it takes that off, whoever applies it."""
    tokenizer = base.tokenizer(TINY, instruction=instruction)
    told = {q: [{**turn, "content": f"{turn['content']}\n\n{instruction}"} for turn in TALKS[q]] for q in "ab"}
    found = [base.reader(TINY, tokenizer, talks).encode(LISTS) for talks in (TALKS, told)]
    plain = base.reader(TINY, base.tokenizer(TINY), TALKS).encode(LISTS)
    assert found[0] == found[1] == plain
    other = {q: [{"role": "user", "content": f"{instruction} {q}"}] for q in "ab"}
    assert base.reader(TINY, tokenizer, other).encode(LISTS) == base.reader(TINY, base.tokenizer(TINY), other).encode(
        LISTS
    )


def test_a_model_with_a_chat_template_is_told_it(tmp_path):
    assert base.unread(TINY, "Say it briefly.") == "Say it briefly."
    folder = save(tmp_path / "m")
    (folder / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    assert base.unread(folder, "Say it briefly.") == ""
    assert base.tokenizer(folder, instruction="x").chat_template == "{{ messages[-1]['content'] }}"


def test_a_response_begins_where_its_text_leaves_that_of_an_empty_one():
    tokenizer = base.tokenizer(TINY)
    found = texts.read(LISTS, base.reader(TINY, tokenizer, TALKS), starts=True)
    own = [tokenizer.decode(one["input_ids"][at:]) for each in found for one, at in zip(each.texts, each.starts)]
    assert own == ["#### 3<|end|>", "#### 44<|end|>", "#### 5<|end|>"]
    batch = texts.collate([*found, found[0].blank()], tokenizer.pad_token_id)
    assert batch["starts"].tolist() == [at for each in found for at in each.starts]


def test_the_score_at_a_token_is_that_of_the_text_which_ends_there(tmp_path):
    tokenizer = base.tokenizer(TINY)
    model, found = base.model(TINY, tokenizer, 0), texts.read(LISTS, base.reader(TINY, tokenizer, TALKS), starts=True)
    options = RerankerOptions(every_token=1.0, epochs=1, batch_lists=2).check()
    made = trainer.train(model, tokenizer.pad_token_id, found, replace(options, learning_rate=1e-3), tmp_path)
    batch = texts.collate(found, tokenizer.pad_token_id)
    with torch.no_grad():
        scores = made._scores(made.model.eval(), batch)
        each = [(f.texts[i]["input_ids"], f.starts[i]) for f in found for i in range(len(f.texts))]
        ends = [
            (ids[: end + 1], place) for place, (ids, start) in zip((0, 1, 2), each) for end in range(start, len(ids))
        ]
        alone = [made.model(input_ids=torch.tensor([ids])).logits.item() for ids, _ in ends]
    assert scores.every.score.tolist() == pytest.approx(alone, abs=1e-5)
    assert scores.every.owner.tolist() == [place for _, place in ends] and len(ends) > 9
    assert not made.model.score._forward_hooks


def test_the_head_is_a_function_of_the_seed():
    tokenizer = base.tokenizer(TINY)
    heads = [base.model(TINY, tokenizer, seed).score.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def save(folder, labels=1, kind="causal"):
    """A random model of 32 dimensions with the words of `tiny`."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig

    tokenizer = load.tokenizer(TINY)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=32, max_position_embeddings=128, num_labels=labels,
                         eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    made = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    torch.manual_seed(0)
    made.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def told(folder, name, **more):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def test_a_base_with_several_labels_is_one_line(tmp_path):
    with pytest.raises(UserError, match="has a head of 3 labels"):
        base.tokenizer(save(tmp_path / "m", 3, "classifier"))


def test_a_base_that_cannot_pad_is_one_line_until_a_token_is_named(tmp_path):
    folder = save(tmp_path / "m")
    told(folder, "tokenizer_config.json", pad_token=None)
    with pytest.raises(UserError, match="no pad token.*--pad-token TOKEN"):
        base.tokenizer(folder)
    with pytest.raises(UserError, match="no token of the tokenizer"):
        base.tokenizer(folder, "<none>")
    with pytest.raises(UserError, match="also ends texts"):
        base.tokenizer(folder, "<|end|>")
    assert base.tokenizer(folder, "<|pad|>").pad_token_id == 0


def test_what_is_no_model_or_lacks_weights_is_one_line(tmp_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(UserError, match="not a saved model"):
        base.tokenizer(tmp_path)
    folder = save(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "q_proj" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"not the weights of a LlamaForSequenceClassification: .*q_proj"):
        base.model(folder, base.tokenizer(folder), 0)


def test_an_encoder_reads_prompt_and_response_as_a_pair(tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(catalog.fetch(catalog.encoder("tiny-e5")))
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=64)  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    own = base.tokenizer(tmp_path)
    reader = base.reader(tmp_path, own, TALKS)
    assert not reader.causal and reader.limit == 64 and not own.chat_template
    one = texts.read(LISTS, reader)[0].texts[0]
    assert one == dict(tokenizer("a = ?", "#### 3", return_attention_mask=False))
    made = base.model(tmp_path, own, 0)
    assert made.num_labels == 1 and not any(m.p for m in made.modules() if isinstance(m, torch.nn.Dropout))
    lists = LISTS.assign(messages=LISTS["query_id"].map(TALKS))
    with pytest.raises(UserError, match="--every-token.* is an encoder"):
        in_folder.fitting(lists, tmp_path, own, RerankerOptions(every_token=1.0).training())


def test_a_text_that_ends_with_what_pads_is_one_line():
    reader = base.reader(TINY, base.tokenizer(TINY), TALKS)
    reader.tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(UserError, match="ends with the token that pads"):
        texts.read(LISTS.assign(text="x<|pad|>"), reader)
    assert isinstance(reader, reward.Reader)
