"""Training in Python: `fit` on lists of any origin, and batches and scores for a loop of one's own."""

import copy

import datasets
import pandas as pd
import pytest
import torch

import irlens
from irlens.base.errors import UserError
from irlens.models import load
from irlens.models.catalog import fetch, model
from irlens.retrieve.policy import Policy
from irlens.train.preferences import as_lists

QUICK = {"epochs": 1, "batch_lists": 4, "learning_rate": 1e-3}
ROWS = [
    {"prompt": f"Question: What is {i} + 1?\nAnswer:\n", "completions": [f"#### {i + 1}", f"#### {i}", "#### -1"],
     "scores": [2.0, 1.0, 0.0]} for i in range(6)
]  # fmt: skip
PAIRS = [{"prompt": row["prompt"], "chosen": row["completions"][0], "rejected": row["completions"][1]} for row in ROWS]
CHATS = [
    {"prompt": [{"role": "user", "content": f"{i} + 1?"}], "chosen": [{"role": "assistant", "content": f"{i + 1}"}],
     "rejected": [{"role": "assistant", "content": f"{i}"}]} for i in range(6)
]  # fmt: skip


@pytest.fixture(scope="module")
def start():
    folder = fetch(model("tiny"))
    return load.causal_lm(folder, device="cpu"), load.tokenizer(folder)


@pytest.fixture
def pair(start):
    return copy.deepcopy(start[0]), start[1]


def weights(some):
    return torch.cat([p.detach().flatten() for p in some.parameters()])


@pytest.mark.parametrize(
    "data", [datasets.Dataset.from_list(ROWS), pd.DataFrame(ROWS), ROWS], ids=["Dataset", "frame", "rows"]
)
def test_what_holds_the_same_rows_trains_to_the_same_weights(pair, start, data):
    policy = irlens.train.fit(*pair, data, objective="listmle", beta=1.0, **QUICK)
    assert isinstance(policy, Policy) and policy.model is pair[0] and not pair[0].training  # in place
    again = copy.deepcopy(start[0])
    irlens.train.fit(again, start[1], as_lists(ROWS), objective="listmle", beta=1.0, **QUICK)
    assert torch.equal(weights(pair[0]), weights(again)) and not torch.equal(weights(again), weights(start[0]))


def test_training_on_pairs_prefers_what_was_chosen(pair):
    batch = irlens.train.batches(*pair, PAIRS, batch_size=6)[0]
    irlens.train.fit(*pair, PAIRS, objective="pairwise", beta=0.5, epochs=4, batch_lists=2, learning_rate=1e-3)
    ratio = irlens.train.scores(pair[0], batch).log_ratio
    assert batch.grade.tolist() == [[1.0, 0.0]] * 6 and (ratio[:, 0] - ratio[:, 1]).mean() > 0.1


def test_a_text_is_read_as_it_stands_and_a_chat_through_the_template(start):
    from irlens.train.in_memory import prompt_ids

    tokenizer = copy.deepcopy(start[1])
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}"
    for data, text in ((PAIRS, PAIRS[2]["prompt"]), (CHATS, "<user> 2 + 1?\n")):
        lists = as_lists(data)
        found = prompt_ids(lists, tokenizer)[lists["query_id"].unique()[2]]
        assert found == tokenizer(text)["input_ids"]
    assert as_lists(CHATS)["text"].tolist()[:2] == ["1", "0"] and as_lists(CHATS)["query"][0] == "0 + 1?"


def test_rows_of_one_prompt_are_lists_of_their_own():
    lists = as_lists([PAIRS[0], PAIRS[1], PAIRS[0] | {"rejected": "#### 9"}])
    assert lists["query_id"].nunique() == 2 and lists["list"].tolist() == [0, 0, 0, 0, 1, 1]
    assert lists["doc_id"].is_unique


def test_the_reference_is_the_model_when_the_batches_were_made(pair, start):
    """log-ratios are 0 before training, and so they are against another reference only where that is the same."""
    batches = irlens.train.batches(*pair, ROWS, batch_size=4)
    assert [batch.grade.shape for batch in batches] == [(4, 3), (2, 3)]
    for batch in batches:
        assert irlens.train.scores(pair[0], batch).log_ratio.abs().max() < 1e-4
    with torch.no_grad():
        pair[0].lm_head.weight.mul_(1.5)
    assert irlens.train.scores(pair[0], batches[0]).log_ratio.abs().max() > 0.1
    other = irlens.train.batches(*pair, ROWS, batch_size=4, reference=start[0])[0]
    assert torch.allclose(other.reference, batches[0].reference, atol=1e-4)


def test_a_loop_of_ones_own_learns(pair):
    optimizer, batches = torch.optim.AdamW(pair[0].parameters(), 1e-3), irlens.train.batches(*pair, ROWS, batch_size=6)
    losses = []
    for _ in range(4):
        gamma = irlens.train.scores(pair[0], batches[0]).log_ratio
        loss = irlens.losses.listmle(gamma, batches[0].grade, batches[0].mask)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("data, more, message", [
    ([{"prompt": "a", "chosen": "b"}], {}, "no column rejected"),
    ([{"prompt": "a", "completions": ["b", "c"]}], {}, "no column scores"),
    ([{"prompt": "a", "completions": ["b", "c"], "scores": [1.0]}], {}, "row 0: 2 completions and 1 scores"),
    ([{"prompt": "a", "completions": ["b", " "], "scores": [1, 0]}], {}, "row 0: a completion must be"),
    ([{"prompt": "a", "completions": "bc", "scores": [1, 0]}], {}, "row 0: completions must be a list"),
    ([{"prompt": "a", "completions": ["b", "c"], "scores": [1, float("nan")]}], {}, "row 0: scores must be finite"),
    ([{"prompt": 3, "chosen": "b", "rejected": "c"}], {}, "row 0: prompt must be"),
    ([], {}, "no column prompt"),
    (7, {}, "int is no table of lists"),
    (datasets.DatasetDict(train=datasets.Dataset.from_list(PAIRS)), {}, "several splits"),
    ([{"prompt": "a", "completions": ["b", "c"], "scores": [1, 1]}], {}, "no list has two different grades"),
    (PAIRS, {"learning_rat": 1e-3}, "did you mean 'learning_rate'"),
    (PAIRS, {"objective": "listmel"}, "did you mean 'listmle'"),
    (PAIRS, {"beta": 0}, "beta must be above 0"),
    (PAIRS, {"max_length": 2}, "no list fits"),
    (PAIRS, {"trainer_args": {"max_steps": 1}}, "set by irlens"),
])  # fmt: skip
def test_wrong_input_is_one_line(start, data, more, message):
    before = weights(start[0]).clone()
    with pytest.raises(UserError, match=message) as error:
        irlens.train.fit(*start, data, **{"objective": "pairwise", **more})
    assert "\n" not in str(error.value) and torch.equal(weights(start[0]), before)
