"""RFT: one turn worked out by hand, what its reward learns from and goes on from, and what it refuses in one line."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import irlens
from irlens.base.errors import NothingToRank, UserError
from irlens.models import catalog
from irlens.negatives.lists import Cut, cut_lists
from irlens.rerank import judges
from irlens.tasks.contract import Task
from irlens.train import rft
from irlens.train.losses import Scores, Tokens, get
from irlens.train.options import LarpoOptions
from irlens.train.reranker.objectives import Judged
from irlens.train.reranker.objectives import get as objective

QUICK = {"prompts": 6, "n": 4, "iterations": 2, "epochs": 1, "batch_lists": 4}
TOPICS = pd.DataFrame({"query_id": ["q"], "query": ["1+1?"], "solution": ["It is\n2."]})
TEXTS = ["It is 3.", "It is 3.", "It is  2.", "2", "It is"]  # two alike, the demonstration but for a space, one cut off


def drawn(texts=TEXTS, query="q"):
    """A run of one prompt; its last draw never finished."""
    rows = [(query, f"{query}/{d}", text, -float(d), d) for d, text in enumerate(texts)]
    run = pd.DataFrame(rows, columns=["query_id", "doc_id", "text", "score", "rank"])
    return run.assign(finish_reason=["stop"] * (len(run) - 1) + ["length"])


def nls(x):
    return math.log1p(math.exp(-x))  # -log sigma(x)


def sigma(x):
    return 1 / (1 + math.exp(-x))


# -- one turn by hand ----------------------------------------------------------------------------------------------


def test_the_reward_learns_that_the_demonstration_is_above_each_other_finished_draw():
    """Both of the two equal draws count; what repeats the demonstration and what was cut off do not."""
    lists = rft.demonstrated(drawn(), TOPICS)
    assert lists["text"].tolist() == ["It is\n2.", "It is 3.", "It is 3.", "2"]
    assert lists["grade"].tolist() == [1.0, 0.0, 0.0, 0.0] and lists["messages"].iloc[0][0]["content"] == "1+1?"
    scores = torch.tensor([[2.0, 0.5, 0.5, 1.0]], requires_grad=True)
    grade = torch.tensor([lists["grade"].tolist()], dtype=torch.float32)
    loss = objective("bradley-terry")(Judged.of(scores, grade, torch.ones(1, 4).bool()))
    loss.backward()
    assert loss.item() == pytest.approx((2 * nls(1.5) + nls(1.0)) / 3)
    pushed = [-(2 * sigma(-1.5) + sigma(-1.0)) / 3, sigma(-1.5) / 3, sigma(-1.5) / 3, sigma(-1.0) / 3]
    assert scores.grad[0].tolist() == pytest.approx(pushed)


@pytest.fixture
def turn(monkeypatch, tmp_path):
    """`turn(s)`: the run of turn s, by a reward model that gives 0.5, 0.5, 2, 1 and 0, where the policy has moved by
    the log-ratios 1, 1, -2, 0 and 0 since the start."""

    def go(s, **more):
        learned, moved = [0.5, 0.5, 2.0, 1.0, 0.0], np.array([1.0, 1.0, -2.0, 0.0, 0.0])

        def grade(run, topics, folder):
            return run[["query_id", "doc_id"]].assign(relevance=learned, truncated=False)

        monkeypatch.setattr(judges, "of_reward", lambda *a, **k: judges.Judge("r", grade, is_reward=True))
        monkeypatch.setattr(rft.in_folder, "fit", lambda phase, *_: phase.out / "model")
        (tmp_path / f"iteration-{s}" / "reward").mkdir(parents=True)
        (tmp_path / f"iteration-{s}" / "reward" / "account.json").write_text('{"lists": 1, "responses": 4}')
        folder = catalog.fetch(catalog.model("tiny"))
        base, asked = rft.Base("tiny", folder), []
        ratio = lambda run, s: (asked.append(s), moved)[1]  # noqa: E731
        options = LarpoOptions(objective="rft", **more)
        place = lambda s: tmp_path / f"iteration-{s}"  # noqa: E731
        task = Task("one", "train", TOPICS)
        reward = rft.LearnedReward(options, task, base, ratio, place, say=lambda line: None)
        return SimpleNamespace(run=reward(drawn(), s), asked=asked)

    return go


def test_the_policys_grades_are_the_reward_less_the_penalty_for_leaving_the_start(turn):
    first, second = turn(1), turn(2, reward_args={"kl_coef": 0.1})
    assert first.asked == [] and first.run["reward"].tolist() == [0.5, 0.5, 2.0, 1.0, 0.0]
    assert second.asked == [2] and second.run["reward"].tolist() == pytest.approx([0.4, 0.4, 2.2, 1.0, 0.0])
    assert second.run["learned_reward"].tolist() == [0.5, 0.5, 2.0, 1.0, 0.0]
    assert second.run["log_ratio"].tolist() == [1.0, 1.0, -2.0, 0.0, 0.0]


def test_the_policys_step_by_hand(turn):
    """Grades 0.4, 0.4, 2.2 and 1 of the finished draws: less the mean of the others (1.2, 1.2, 0.6, 1) they are -0.8, -0.8,
    1.6 and 0. Of the ratios 1, 0.5, 1.1 and 1 the second is clipped to 0.8 and pushes no more."""
    run = turn(2, reward_args={"kl_coef": 0.1}).run
    lists = cut_lists(run, None, TOPICS, Cut(iteration=2, by_reward=True, all_draws=True))
    assert lists["grade"].tolist() == pytest.approx([0.4, 0.4, 2.2, 1.0])
    ratios = torch.tensor([1.0, 0.5, 1.1, 1.0])
    leaf = ratios.log().requires_grad_(True)  # a token each, of log-probability 0 under the policy that drew
    grade, ones = torch.tensor([lists["grade"].tolist()]), torch.ones(1, 4)
    tokens = Tokens(leaf, torch.zeros(4), torch.arange(4))
    loss = get("rft")(Scores(leaf.view(1, 4), 0 * ones, ones, grade, ones.bool(), by_token=tokens))
    loss.backward()
    assert loss.item() == pytest.approx(-(1.0 * -0.8 + 0.8 * -0.8 + 1.1 * 1.6 + 0.0) / 4)
    assert leaf.grad.tolist() == pytest.approx([0.8 / 4, 0.0, -1.1 * 1.6 / 4, 0.0], abs=1e-6)


def test_a_policy_that_says_what_the_demonstrations_say_leaves_nothing_to_learn(tmp_path):
    run = drawn(["It is 2."] * 3)
    assert rft.demonstrated(run, TOPICS).empty and rft.demonstrated(drawn(), TOPICS.assign(solution="")).empty
    told = LarpoOptions(objective="rft"), Task("one", "train", TOPICS)
    reward = rft.LearnedReward(*told, None, None, lambda s: tmp_path / str(s))
    with pytest.raises(NothingToRank, match="every finished draw says what its demonstration says"):
        reward.learn(run, 1)


# -- the loop ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def looped(tmp_path_factory):
    """Two turns in a folder, the reward learning next to nothing after the first: (folder, policies, task)."""
    task, out = irlens.load("sums", "train", 6), tmp_path_factory.mktemp("rft") / "out"
    kept = task.topics.drop(columns="answers")  # demonstrations, and no verifier
    task = Task(task.name, task.split, kept, instruction="Say it briefly.")
    told = {"objective": "rft", "learning_rate": 1e-3, "reward_args": {"learning_rate": 1e-12}}
    return out, irlens.larpo("tiny", task, out=out, **told, **QUICK), task


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_the_reward_of_a_turn_goes_on_from_that_of_the_turn_before(looped):
    """At a rate of next to nothing even the new head, which is random, stays that of the first turn."""
    first, second = (weights(looped[0] / f"iteration-{s}" / "reward" / "model") for s in (1, 2))
    assert first["score.weight"].abs().max() > 0.01
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_the_reward_reads_what_the_policy_reads_in_every_turn(looped):
    """`tiny` was never told the data set's instruction, so the models made of it, by which turns go on, are not either."""
    from irlens.models import load

    for s in (1, 2):
        reads = load.tokenizer(looped[0] / f"iteration-{s}" / "reward" / "model")
        asked = [{"role": "user", "content": f"1+1?\n\n{looped[2].instruction}"}]
        assert looped[2].instruction and reads.apply_chat_template(asked, tokenize=False) == "Question: 1+1?\nAnswer:\n"


def test_what_a_turn_keeps_is_what_can_be_computed_anew(looped):
    """The rewards by the reward model of the turn, the log-ratios by the two policies, the lists by the draws."""
    out, policies, task = looped
    assert len(policies) == 3
    run = pd.read_parquet(out / "iteration-2" / "run.parquet")
    found = irlens.reranker(str(out / "iteration-2" / "reward"))(run.drop(columns="reward").assign(
        query=run["query_id"].map(task.topics.set_index("query_id")["query"])))  # fmt: skip
    found = found.set_index("doc_id")["reward"][run["doc_id"]]
    assert np.allclose(found, run["learned_reward"], atol=1e-5) and run["learned_reward"].std() > 0
    now, start = (p.logprobs(run, task)["logprob"] for p in (policies[1], policies[0]))
    assert np.allclose(run["log_ratio"], now - start, atol=1e-4) and run["log_ratio"].abs().max() > 1e-3
    assert np.allclose(run["reward"], run["learned_reward"] - 0.05 * run["log_ratio"], atol=1e-6)
    lists = pd.read_parquet(out / "iteration-2" / "reward" / "lists.parquet")
    pd.testing.assert_frame_equal(lists.drop(columns="messages"), rft.demonstrated(run, task.topics).drop(columns="messages"))  # fmt: skip
    assert json.loads((out / "larpo.json").read_text())["judge"].startswith("learned from demonstrations")


@pytest.mark.slow
def test_in_memory_and_from_a_reward_model_of_ones_own(tmp_path):
    """A model in this process has no folder, and nothing is kept; a classifier is a start too."""
    start = irlens.Policy("tiny")
    start = irlens.Policy((start.model, start.tokenizer))
    task = irlens.load("sums", "train", 4)
    more = {**QUICK, "prompts": 4, "iterations": 1}
    policies = irlens.larpo(start, task, objective="rft", **more)
    other = irlens.larpo("tiny", task, objective="rft", reward_args={"model": "tiny-rm"}, out=tmp_path / "rm", **more)
    assert len(policies) == len(other) == 2
    assert json.loads((tmp_path / "rm" / "iteration-1" / "reward" / "model" / "irlens.json").read_text())["base"] == "tiny-rm"  # fmt: skip


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more, message", [
    ({"objective": "rloo", "reward_args": "{}"}, "--reward-args: of objective 'rft', which learns a reward; 'rloo' learns none"),
    ({"objective": "rft", "reward_args": '{"kl_coef": -1}'}, "--reward-args: kl_coef must be at least 0"),
    ({"objective": "rft", "reward_args": '{"epochs": 0}'}, "--reward-args: epochs must be at least 1"),
    ({"objective": "rft", "reward_args": '{"learning_rate": 0.0}'}, "--reward-args: learning_rate must be above 0"),
    ({"objective": "rft", "reward_args": '{"epoch": 2}'}, "--reward-args: .*did you mean 'epochs'"),
    ({"objective": "rft", "reward_args": '{"epochs": "two"}'}, "--reward-args: .*epochs"),
    ({"objective": "rft", "reward_args": "[1]"}, "--reward-args"),
    ({"objective": "rft", "shard": True}, "--shard: objective 'rft' trains a reward model too"),
    ({"objective": "rft", "positives_from": "gold"}, "leave out --positives-from"),
    ({"objective": "rft", "memory": "all"}, "leave out --memory"),
])  # fmt: skip
def test_options_that_do_not_fit(more, message):
    with pytest.raises(UserError, match=message):
        LarpoOptions(**more).check()


def test_a_task_without_demonstrations_a_judge_and_lists_that_are_given():
    task = irlens.load("sums", "train", 4)
    bare = Task("bare", "train", task.topics.drop(columns="solution"), verifier=task.verifier)
    with pytest.raises(UserError, match="bare .train. has no solutions, and a reward is learned from demonstrations"):
        irlens.larpo("tiny", bare, objective="rft", **QUICK)
    with pytest.raises(UserError, match="learns its own reward from demonstrations; give no judge"):
        irlens.larpo("tiny", task, "length", objective="rft", **QUICK)
    with pytest.raises(UserError, match="fit: objective 'rft' learns a reward as it draws"):
        irlens.train.fit("tiny", None, pd.DataFrame(), "rft")


def test_prompts_without_a_demonstration_are_left_out_with_a_line():
    topics = pd.DataFrame({"query_id": list("ab"), "query": "?", "solution": ["yes", None]})
    said = []
    task = rft.demonstrations(Task("some", "train", topics), said.append)
    assert task.topics["query_id"].tolist() == ["a"]
    assert said == ["left out 1 of 2 prompts of some (train): not demonstrated"]
