"""What a command takes as a run: a training's own folders and rewards, own draws that only their text joins to a task."""

import json

import numpy as np
import pandas as pd
import pytest

import irlens as package
from irlens import tables
from irlens.base import files
from irlens.base.errors import UserError
from irlens.commands import runs, settings
from irlens.commands.best_of_n import best_of_n
from irlens.commands.evaluate import evaluate
from irlens.commands.rerank import rerank, verify
from irlens.commands.train import train

SMALL = {"prompts": 12, "n": 4, "iterations": 1, "epochs": 1, "batch_lists": 4, "eval_limit": 6, "eval_n": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training of one iteration, its lists cut by the verifier."""
    out = tmp_path_factory.mktemp("trained") / "t"
    return train(settings.Train(test_limit=2, out=str(out), **SMALL), str)[0]


@pytest.fixture(scope="module")
def rewarded(trained):
    """Where a training by a reward model keeps a run: its grades are real numbers, some below 0."""
    here = trained / "iteration-1"
    judged = tables.read_qrels(here)
    rewards = np.linspace(-5, 2, len(judged))[np.random.default_rng(0).permutation(len(judged))]
    return here, judged.assign(relevance=rewards)


@pytest.mark.parametrize("part, split", [("iteration-1", "train"), ("evaluation/1", "validation"), ("test/0", "test")])
def test_a_run_of_a_training_knows_its_prompts(trained, part, split):
    source = runs.read(str(trained / part))
    assert (source.dataset, source.split) == ("sums", split)
    assert set(source.task.topics["query_id"]) == set(source.run["query_id"])
    model = str(trained.resolve() / "iteration-1" / "model")
    assert source.policy == (model if part == "evaluation/1" else "tiny")
    assert runs.read(str(trained / part / "run.parquet")).dataset == "sums"


def test_a_run_of_a_training_goes_into_every_command(trained, tmp_path):
    here = str(trained / "iteration-1")
    _, results = best_of_n(settings.BestOfN(run=here, out=str(tmp_path / "b")), str)
    assert {"oracle", "majority", "likelihood", "random"} <= set(results["run"])
    _, measured = evaluate(here, here, "Pass@1 Pass@4", str(tmp_path / "e"), say=str)
    oracle = results[(results["run"] == "oracle") & (results["cutoff"] == 4)]["value"].iloc[0]
    assert measured["value"].tolist()[1] == pytest.approx(oracle)
    folder, _ = verify(settings.Verify(run=here, out=str(tmp_path / "v")), str)
    assert tables.read_qrels(folder)["relevance"].tolist() == tables.read_qrels(here)["relevance"].tolist()
    folder, _ = rerank(settings.Rerank(run=here, out=str(tmp_path / "r")), str)
    assert "reward" in tables.read_run(folder).columns


def test_the_same_in_a_notebook(trained):
    """A command's numbers, from the public names."""
    here, task = trained / "iteration-1", package.load("sums", split="train", limit=12)
    run = tables.read_run(here)
    qrels = package.verify(run, task)
    assert qrels["relevance"].tolist() == tables.read_qrels(here)["relevance"].tolist()
    drawn = package.measure(run, qrels, ["Pass@1", "Success@1"])
    voted = package.reranker("majority", task=task)(run)
    tests = package.compare(drawn, package.measure(voted, qrels, ["Success@1"]), measures=["Success@1"])
    assert tests["n"].tolist() == [12] and tests["after"].tolist() == ["iteration 1 T=1, majority"]
    best = package.best_of_n(run, qrels, ["majority", "length"], task=task, at=[1, 4])
    command = best_of_n(
        settings.BestOfN(run=str(here), reranker="majority,length", at=(1, 4), out=str(trained.parent / "b")), str
    )[1]
    pd.testing.assert_frame_equal(pd.DataFrame(best), command)


@pytest.mark.parametrize("where", ["column", "qrels"])
def test_rewards_are_grades_where_nothing_else_judges(rewarded, tmp_path, where):
    """As real grades beside the run, or as the run's own column `reward` without any qrels."""
    here, rewards = rewarded
    run, folder = tables.read_run(here), tmp_path / "iteration-1"
    if where == "column":
        run = run.assign(reward=rewards.set_index("doc_id")["relevance"][run["doc_id"]].to_numpy())
    else:
        files.write_parquet(rewards, folder / "qrels.parquet")
    files.write_parquet(run, folder / "run.parquet")
    told = []
    out, results = best_of_n(settings.BestOfN(run=str(folder), reranker="length", out=str(tmp_path / "b")), told.append)
    assert any("from -5 to 2" in line for line in told)
    quality = pd.read_csv(out / "quality.csv").set_index(["run", "measure"])
    assert quality.loc[("oracle", "nDCG"), "n"] == 0 < quality.loc[("oracle", "tau-b"), "n"]
    assert json.loads((out / "manifest.json").read_text())["right_from"] is None
    _, measured = evaluate(folder, folder, "Reward@1 Reward@4", str(tmp_path / "e"), say=str)
    value = results.set_index(["run", "cutoff"])["value"]
    assert measured["value"].tolist() == pytest.approx([value["random", 4], value["oracle", 4]])
    best, _ = rerank(settings.Rerank(run=str(folder), reranker="oracle", out=str(tmp_path / "r")), str)
    assert tables.read_run(best).groupby("query_id")["reward"].apply(lambda r: r.is_monotonic_decreasing).all()
    with pytest.raises(UserError, match=r"must be a whole number for Success@1 \(Reward@N takes any\)"):
        evaluate(folder, folder, "Success@1", str(tmp_path / "s"), say=str)


def test_own_draws_are_joined_to_their_task_by_text(tmp_path):
    task = package.load("sums", split="test", limit=3)
    rows = [(q, f"#### {a}") for q, some in zip(task.topics["query"], task.topics["answers"]) for a in (some[0], "-1")]
    files.write_parquet(package.run(rows), tmp_path / "own.parquet")
    asked = {"run": str(tmp_path / "own.parquet"), "dataset": "sums", "split": "test"}
    folder, results = verify(settings.Verify(**asked, out=str(tmp_path / "v")), str)
    assert tables.read_qrels(folder)["relevance"].tolist() == [1, 0] * 3 and results["n"].iloc[0] == 3
    assert rerank(settings.Rerank(**asked, out=str(tmp_path / "r")), str)[0].exists()
    files.write_parquet(package.run([("Who?", "I")]), tmp_path / "own.parquet")
    with pytest.raises(
        UserError, match="1 queries of the run .* are not in the data set sums, split test; give the right"
    ):
        verify(settings.Verify(**asked, out=str(tmp_path / "w")), str)


def test_temperature_is_a_column_and_no_name_is_read_for_it(tmp_path):
    from irlens.commands.evaluate import passk_curves

    results = pd.DataFrame(
        {"run": ["my T=9 model", "other"], "cutoff": 1, "value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    )
    assert passk_curves(results.assign(temperature=[0.5, np.nan]))["curve"].tolist() == ["T = 0.5", "other"]
    assert passk_curves(results)["curve"].tolist() == ["my T=9 model", "other"]
