"""A training by reward says the truth beside it: constructed values in both directions, and a training as a whole."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from irlens import tasks
from irlens.base.errors import UserError
from irlens.commands import truth
from irlens.commands.settings import Train
from irlens.commands.train import train
from irlens.rerank import judges, verifiers

RNG = np.random.default_rng(1)
START = RNG.random(60) / 2 + 0.25
NOISE = RNG.normal(0, 0.04, 60)


@pytest.fixture
def measured(tmp_path):
    """What a training left of policies whose proxy and truth changed by so much."""

    def make(*changes, proxy="reward", suffix="", temperatures=(1.0,)):
        said = []
        for s, (up, true) in enumerate([(0.0, 0.0), *changes]):
            noise = NOISE * (s > 0)
            table = {"query_id": [f"q{i:02d}" for i in range(60)], "win rate" + suffix: 0.5}
            table |= {proxy + suffix: START + up + noise, "Pass@1" + suffix: START + true - noise}
            (tmp_path / "evaluation" / str(s)).mkdir(parents=True)
            pd.DataFrame(table).to_parquet(tmp_path / "evaluation" / str(s) / "per_query.parquet")
        return truth.Measured(tmp_path, temperatures, said.append), said

    return make


def test_a_line_warns_where_the_reward_rises_and_the_truth_falls(measured):
    found, said = measured((0.2, 0.1), (0.3, -0.1), (-0.3, 0.1), (0.4, 0.0))
    for s in range(1, 5):
        truth.say_of(found, s)
    assert said[0].startswith("iteration 1, against the start: reward +0.197 [+0.176, +0.206], true Pass@1 +10.3")
    warned = [line.endswith("; the reward rises and the truth falls: over-optimisation") for line in said]
    assert warned == [False, True, False, False]


def test_what_the_truth_would_choose_is_said_and_kept(measured):
    found, said = measured((0.2, 0.1), (0.3, -0.1), (0.4, -0.2))
    told = truth.conclude(found, [0, 1, 2, 3], 3, True)["truth"]
    assert told == {"proxy": "reward", "measure": "Pass@1", "best_iteration": 1, "over_optimised_from": 2}
    values = [found.values(s)["Pass@1"].mean() for s in range(4)]
    assert said == [f"the truth would choose iteration 1, true Pass@1 {values[1]:.3f}; iteration 3 has {values[3]:.3f}"]
    truth.conclude(found, [0, 1, 2, 3], 1, True)
    truth.conclude(found, [0, 1, 2, 3], 3, False)
    assert said[1].startswith("the truth would choose the same: iteration 1")
    assert said[2].startswith("the truth is best at iteration 1") and "choose" not in said[2]


def test_the_first_temperature_and_the_win_rate_of_scores_within_a_list(measured):
    found, said = measured((0.2, -0.2), proxy="win rate", suffix=", T = 1", temperatures=(1.0, 0.7))
    truth.say_of(found, 1)
    assert said[0].startswith("iteration 1, against the start: win rate +19.7 points [+17.6, ")
    assert said[0].endswith("the win rate rises and the truth falls: over-optimisation")
    assert truth.conclude(found, [0, 1], 1, True)["truth"]["over_optimised_from"] == 1


def test_only_what_has_a_verifier_and_answers_has_a_truth(monkeypatch):
    task, by, said = tasks.load("sums", "test", 4), judges.Judge("r", None, is_reward=True), []
    assert truth.judge(task, (task, None), by, said.append).name == "the verifier"
    assert truth.judge(task, (task, None), replace(by, is_reward=False), said.append) is None
    assert truth.judge(replace(task, verifier=None), (task,), by, said.append) is None
    assert truth.judge(task, (None, None), None, said.append) is None  # nothing is measured
    without = replace(task, topics=task.topics.drop(columns="answers"))
    assert truth.judge(task, (task, without), by, said.append) is None and said == []

    def lacking(verifier):
        raise UserError("math-verify is not installed")

    monkeypatch.setattr(verifiers, "ready", lacking)
    assert truth.judge(task, (task,), by, said.append) is None
    assert said == ["the true Pass@1 is not measured beside the reward: math-verify is not installed"]


def test_a_training_by_reward_measures_what_it_is_truly_worth(tmp_path):
    said, few = [], {"prompts": 12, "n": 4, "iterations": 1, "epochs": 1, "eval_limit": 6, "eval_n": 3, "test_limit": 0}
    settings = Train(model="tiny-countdown", reward="tiny-rm", out=str(tmp_path / "t"), store="none", **few)
    folder, results, _ = train(settings, said.append)
    assert results.groupby("x", sort=False)["curve"].agg(list).tolist() == 2 * [["win rate", "reward", "Pass@1"]]
    for s in range(2):
        here = folder / "evaluation" / str(s)
        run, each = pd.read_parquet(here / "run.parquet"), pd.read_parquet(here / "per_query.parquet")
        topics = tasks.load("countdown", "validation").topics
        graded = judges.of_task(tasks.load("countdown", "validation")).grade(run, topics, here)
        pd.testing.assert_frame_equal(pd.read_parquet(here / "qrels.parquet"), graded)
        assert each["Pass@1"].to_numpy() == pytest.approx(graded.groupby("query_id")["relevance"].mean().to_numpy())
        chosen_by = json.loads((folder / f"iteration-{s}" / "validation.json").read_text())["value"]
        assert chosen_by == pytest.approx(each["win rate"].mean())  # what was asked for
    assert sum(line.startswith("iteration 1, against the start: reward") for line in said) == 1
    assert any(line.startswith("the truth would choose") for line in said)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["truth"]["proxy"] == "reward" and manifest["truth"]["best_iteration"] in (0, 1)
    drawn = pd.read_csv(folder / "training.csv")
    assert set(drawn["curve"]) == {"win rate", "Pass@1"}
