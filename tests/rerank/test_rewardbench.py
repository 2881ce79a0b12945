"""RewardBench 2 by rerankers of every kind, scored a shard at a time: a kill costs one shard, and no score is made twice."""

import json

import pandas as pd
import pytest

from irlens import tables
from irlens.base.errors import UserError
from irlens.rerank import reward, scoring

OWN = "def score(run):\n    return [float('right' in text) for text in run['text']]\n"


@pytest.fixture
def bench(rewardbench_rows, tmp_path):
    """The folder in which rb.jsonl lies, and a reranker of one's own."""
    (tmp_path / "rb.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rewardbench_rows(4)))
    (tmp_path / "my_reward.py").write_text(OWN)
    return tmp_path


def scores(folder):
    return pd.read_csv(folder / "results.csv").set_index("measure")["value"]


@pytest.mark.slow
def test_a_classifier_a_cross_encoder_a_policy_and_ones_own(bench, classifier, irlens, monkeypatch):
    monkeypatch.syspath_prepend(str(bench))
    for name, more in ((classifier, ()), (f"cross-encoder:{classifier}", ()), ("likelihood", ("--policy", "tiny")), ("my_reward:score", ())):  # fmt: skip
        out = bench / f"out-{tables.query_id_of(str(name))}"
        irlens("rewardbench", "--data", "rb.jsonl", "--reranker", name, *more, "--out", out, cwd=bench)
        found = scores(out)
        assert len(found) == 7 and found.between(-0.01, 1.01).all()
        run = tables.read_run(out / "completions")
        assert run["reward"].notna().all() and len(run) == 5 * 4 * 4 + 4 * (3 + 4)
        assert bool(list(out.glob("shards/rewardbench/*/*.parquet"))) == (name != "my_reward:score")
    assert found.drop(["Ties", "RewardBench 2"]).eq(1).all() and found["Ties"] == pytest.approx(1.01)


@pytest.mark.slow
def test_a_judge_at_a_server_is_no_other(bench, irlens, serve):
    """Pointwise and pairwise; each score holds within a list only if the judge compares, and the page says so."""
    likes = serve(reply="longer")
    irlens("rewardbench", "--data", "rb.jsonl", "--reranker", "judge", "--base-url", likes, "--out", "pairs", cwd=bench)
    irlens("rewardbench", "--data", "rb.jsonl", "--reranker", "length", "--out", "length", cwd=bench)
    pairs, length = (scores(bench / name) for name in ("pairs", "length"))
    assert pairs.drop(["Ties", "RewardBench 2"]).tolist() == length.drop(["Ties", "RewardBench 2"]).tolist()
    grades = serve(reply="7")
    told = ("--reranker", "judge:pointwise", "--base-url", grades, "--out", "grades")
    irlens("rewardbench", "--data", "rb.jsonl", *told, cwd=bench)
    assert scores(bench / "grades")["Math"] == 1 / 4 and scores(bench / "grades")["Ties"] == 0  # all are equal
    said = {name: "hold within one list" in (bench / name / "audit.md").read_text() for name in ("pairs", "grades")}
    assert said == {"pairs": True, "grades": False}


def test_a_stopped_command_goes_on_where_it_was(bench, classifier, irlens, monkeypatch):
    monkeypatch.setattr(scoring, "CHARACTERS", 200)  # so that there are several shards
    asked, whole = [], reward.RewardModel.__call__

    def call(self, rows):
        asked.append(len(rows))
        if len(asked) == 3:
            raise UserError("stopped")
        return whole(self, rows)

    monkeypatch.setattr(reward.RewardModel, "__call__", call)
    line = ("rewardbench", "--data", "rb.jsonl", "--reranker", classifier)
    irlens(*line, "--out", "out", cwd=bench, code=2)
    made = list((bench / "out").glob("shards/**/*.parquet"))
    irlens(*line, "--out", "out", cwd=bench)
    assert len(made) == 2 and sum(asked) - asked[2] == 5 * 4 * 4 + 4 * (3 + 4)
    monkeypatch.setattr(reward.RewardModel, "__call__", whole)
    irlens(*line, "--out", "again", cwd=bench)
    for name in ("results.csv", "audit.csv", "reliability.csv", "audit.md", "completions/run.parquet"):
        assert (bench / "out" / name).read_bytes() == (bench / "again" / name).read_bytes()
    told = irlens(*line, "--out", "out", cwd=bench).stdout
    assert "finished by this command before" in told and "RewardBench 2" in told
