"""`irlens train --objective rft`: demonstrations are enough, a stop costs nothing, and what cannot be meant is one line."""

import json

import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.train.reranker.trainer import RerankerTrainer
from irlens.train.trainer import RankingTrainer

ROWS = [{"prompt": f"What is {i} + {i}?", "solution": f"{i} and {i} are {2 * i}.\n#### {2 * i}"} for i in range(8)]
QUICK = ["--objective", "rft", "--prompts", "4", "-n", "3", "--iterations", "2", "--epochs", "2", "--batch-lists", "2",
         "--max-tokens", "40", "--temperature", "0.7", "--schedule", "cosine", "--store", "none"]  # fmt: skip


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A file of demonstrations, which nothing verifies."""
    path = tmp_path_factory.mktemp("shown") / "shown.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(scope="module")
def unbroken(shown, irlens, tmp_path_factory):
    out = tmp_path_factory.mktemp("rft") / "out"
    told = irlens("train", "--dataset", shown, *QUICK, "--out", out).stdout
    assert "has no verifier: tiny is trained, measured on nothing (--eval-reward), and the last is taken" in told
    assert "iteration 2: a reward learned from 4 demonstrations against" in told
    return out


def test_demonstrations_are_enough_and_the_account_knows_the_reward_model(shown, unbroken, irlens, tmp_path):
    chosen = json.loads((unbroken / "chosen.json").read_text())
    assert chosen["iteration"] == 2 and (unbroken / "iteration-2" / "model").is_dir()
    told = json.loads((unbroken / "manifest.json").read_text())
    runs = [pd.read_parquet(unbroken / f"iteration-{s}" / "run.parquet") for s in (1, 2)]
    assert told["chosen_iteration"] == 2 and told["reward_calls"] == sum(map(len, runs)) == 24
    learnt = [pd.read_parquet(unbroken / f"iteration-{s}" / "reward" / "lists.parquet") for s in (1, 2)]
    assert told["lists_trained_reward"] == sum(some["query_id"].nunique() for some in learnt) > 0
    assert told["tokens_trained_reward"] > told["lists_trained_reward"]
    assert {"learned_reward", "log_ratio", "reward"} <= set(runs[0].columns) and (runs[0]["log_ratio"] == 0).all()
    assert set((unbroken / "iteration-2").glob("*")) >= {unbroken / "iteration-2" / "likelihood-now"}
    names = ("rerank", unbroken / "iteration-1", "--dataset", shown)
    again = irlens(
        *names, "--reranker", unbroken / "iteration-2" / "reward", "--store", "none", "--out", tmp_path / "r"
    )
    assert "written to" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize("trainer, last", [(RerankerTrainer, 3), (RankingTrainer, 5)])
def test_one_that_stops_half_way_continues_to_the_same_bytes(
    shown, unbroken, irlens, files, tmp_path, monkeypatch, trainer, last
):
    """It stops once among the steps of the first turn's reward model, once among those of the second turn's policy."""
    passes, diagnose = [], trainer.diagnose

    def breaks(self, scores):
        passes.append(type(self) is trainer)
        if sum(passes) == last:
            raise UserError("stopped here")
        return diagnose(self, scores)

    args = ["train", "--dataset", shown, *QUICK, "--out", tmp_path / "broken"]
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "diagnose", breaks)
        assert "stopped here" in irlens(*args, code=2).stderr
    irlens(*args)
    ours, theirs = files(tmp_path / "broken"), files(unbroken)
    assert ours == theirs and {"iteration-2/reward/log.csv", "iteration-2/log.csv"} <= ours.keys()
    for model in ("iteration-1/reward/model", "iteration-2/reward/model", "iteration-2/model"):
        name = f"{model}/model.safetensors"
        assert (tmp_path / "broken" / name).read_bytes() == (unbroken / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["iteration-1/reward/checkpoints/*/complete", "iteration-2/reward/model",
                                    "iteration-2/checkpoints/*/complete"])  # fmt: skip
def test_one_that_is_killed_ends_as_the_unbroken_one(shown, unbroken, kill_and_continue, files, tmp_path, moment):
    args = ["train", "--dataset", str(shown), *QUICK]
    kill_and_continue(args, tmp_path / "killed", lambda folder: any(folder.glob(moment)))
    assert files(tmp_path / "killed") == files(unbroken)
    for name in ("iteration-2/reward/model/model.safetensors", "iteration-2/model/model.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (unbroken / name).read_bytes()


def test_a_reward_model_that_is_lost_or_damaged_is_made_again(shown, unbroken, irlens):
    """That of the first turn, which the second's goes on from, to the byte; what else there is stays."""
    weights = unbroken / "iteration-1" / "reward" / "model" / "model.safetensors"
    whole, after = weights.read_bytes(), unbroken / "iteration-2" / "reward" / "model" / "model.safetensors"
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    made, then = after.stat().st_mtime_ns, (unbroken / "iteration-1" / "run.parquet").read_bytes()
    told = irlens("train", "--dataset", shown, *QUICK, "--out", unbroken).stdout
    assert "a checksum differs" in told and weights.read_bytes() == whole
    assert after.stat().st_mtime_ns == made and (unbroken / "iteration-1" / "run.parquet").read_bytes() == then


@pytest.mark.slow
def test_on_two_processes_it_ends_whole_and_says_so_when_asked_again(shown, irlens, tmp_path):
    args = ["train", "--dataset", shown, *QUICK, "--devices", "2", "--out", tmp_path / "out"]
    assert "iteration 2: a reward learned from" in irlens(*args, apart=True).stdout
    assert not list((tmp_path / "out" / "iteration-1" / "reward").glob("phase.*"))
    assert "finished by this command before" in irlens(*args, apart=True).stdout


@pytest.mark.slow
def test_where_a_verifier_judges_held_out_problems_the_truth_chooses(irlens, tmp_path):
    irlens("train", "--objective", "rft", "--prompts", "8", "-n", "3", "--iterations", "1", "--epochs", "1",
           "--eval-limit", "4", "--eval-n", "2", "--test-limit", "4", "--store", "none", "--out", tmp_path / "out")  # fmt: skip
    assert set(pd.read_csv(tmp_path / "out" / "results.csv")["curve"]) == {"Pass@1", "Pass@2"}
    assert not (tmp_path / "out" / "iteration-1" / "qrels.parquet").exists()


@pytest.mark.parametrize("more, words", [
    (["--reward", "tiny-rm"], "--reward: objective 'rft' learns its own; --reward-args says what from"),
    (["--patience", "1"], "--patience: shown0 has no verifier, so nothing is measured"),
    (["--quantize", "4bit", "--lora-rank", "4"], "needs|--quantize: objective 'rft' trains a reward model too"),
    (["--reward-args", '{"pad_token": "nothing"}'], "--pad-token 'nothing': no token of the tokenizer"),
    (["--reward-args", '{"pad_token": "<|end|>"}'], "which also ends texts"),
    (["--reward-args", '{"model": "nobody"}'], "unknown model 'nobody'"),
    (["--verifier", "gsm8k"], "--verifier gsm8k compares with gold answers, and shown0 has none"),
    (["--reward-args", '{"kl_coef": -1}'], "--reward-args: kl_coef must be at least 0"),
    (["--prompts", "50"], "--prompts 50: the split"),
])  # fmt: skip
def test_what_cannot_be_meant_is_one_line(shown, refused, more, words):
    import re

    line = refused("train", "--dataset", shown, *QUICK, *more, "--out", "none")
    assert re.search(words, line), line


def test_without_demonstrations_or_with_lists_it_is_one_line(refused, tmp_path):
    bare, lists = tmp_path / "bare.jsonl", tmp_path / "lists.jsonl"
    bare.write_text("".join(json.dumps({"prompt": row["prompt"], "answer": "1"}) + "\n" for row in ROWS))
    lists.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    line = refused("train", "--dataset", bare, *QUICK, "--out", "none")
    assert "(bare) has no solutions, and a reward is learned from demonstrations" in line
    line = refused("train", "--lists", lists, "--objective", "rft", "--out", "none")
    assert "--lists: objective 'rft' learns its reward from draws of its own; leave --lists out" in line


def test_the_plan_knows_the_reward_model():
    """Of a 7B policy: its training, and that of the reward model, of as many parameters; and their tokens and hours."""
    from irlens.commands import memory
    from irlens.commands.settings import Train
    from irlens.reproduce import costs

    told = {"model": "mistral-7b-it", "dataset": "gsm8k", "prompts": 100, "iterations": 2, "n": 4, "test_limit": 0}
    rft, rloo = (Train(objective=name, **told) for name in ("rft", "rloo"))
    needs = {need.phase: need for need in memory.needs(rft, ask=False)}
    assert set(needs) - {need.phase for need in memory.needs(rloo, ask=False)} == {memory.LEARNING, "scoring by"}
    assert needs[memory.LEARNING].parts["AdamW"] == pytest.approx(needs["training"].parts["AdamW"], rel=0.05)
    found = costs.of_step(rft).trained - costs.of_step(rloo).trained
    assert found == 200 * 5 * (100 + 200)  # lists of a demonstration and four draws, once
    assert costs.of_step(rft).gpu_hours > costs.of_step(rloo).gpu_hours
    with pytest.raises(UserError, match="--lora-rank 16") as refusal:
        memory.check(Train(objective="rft", device_memory="80GiB", engine="transformers", **told), print)
    assert "--shard" not in str(refusal.value) and "4bit" not in str(refusal.value)
