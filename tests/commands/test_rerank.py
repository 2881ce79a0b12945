"""The commands rerank, verify and best-of-n on a run of the embedded model: what they write, keep and refuse."""

import json

import numpy as np
import pandas as pd
import pytest

from irlens import tables
from irlens.base import files
from irlens.base.errors import UserError
from irlens.commands import settings
from irlens.commands.best_of_n import best_of_n as run_best_of_n
from irlens.commands.passk import passk as run_passk
from irlens.commands.rerank import rerank as run_rerank
from irlens.commands.rerank import verify as run_verify
from irlens.reproduce import recipe, run

CHANCE = ("random", "random per text")  # of every best-of-n


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of a small passk at two temperatures."""
    out = tmp_path_factory.mktemp("drawn") / "p"
    run_passk(settings.PassK(limit=8, n=6, temperature=(0.5, 1.0), out=str(out)), str)
    return out


def read(folder):
    return tables.read_run(folder), json.loads((folder / "manifest.json").read_text())


def test_the_default_is_a_majority_vote_on_what_passk_left(drawn, tmp_path):
    folder, results = run_rerank(settings.Rerank(run=str(drawn), out=str(tmp_path / "r")), str)
    run, manifest = read(folder)
    before = tables.read_run(drawn)
    assert sorted(run["doc_id"]) == sorted(before["doc_id"]) and set(run["tag"]) == {
        "tiny T=0.5, majority",
        "tiny T=1, majority",
    }
    assert run.groupby(["query_id", "tag"])["score"].apply(lambda s: s.is_monotonic_decreasing and s.is_unique).all()
    assert results["run"].tolist()[:2] == ["tiny T=0.5, majority", "tiny T=0.5, random"] and (results["n"] == 8).all()
    assert manifest["status"] == "complete" and manifest["candidates"] == 96 and manifest["data"]["dataset"] == "sums"
    assert len(list((folder / "trec").iterdir())) == 2 and (folder / "qrels.parquet").exists()


def test_likelihood_recorded_and_computed_anew_agree(drawn, tmp_path):
    runs = {}
    for name, policy in (("recorded", None), ("anew", "tiny")):
        asked = settings.Rerank(run=str(drawn), reranker="likelihood", policy=policy, out=str(tmp_path / name))
        runs[name] = read(run_rerank(asked, str)[0])[0].set_index("doc_id")["reward"]
    close = (runs["recorded"] - runs["anew"]).abs() < 1e-3  # but for texts that other tokens spell
    assert close.mean() > 0.9
    assert len(list((tmp_path / "anew" / "shards" / "likelihood").glob("000000-*.parquet"))) == 1


def test_a_reranked_run_is_input_again(drawn, tmp_path):
    first, _ = run_rerank(settings.Rerank(run=str(drawn), reranker="length", out=str(tmp_path / "a")), str)
    asked = settings.BestOfN(run=str(first), reranker="score,majority", out=str(tmp_path / "b"))
    _, results = run_best_of_n(asked, str)
    own = run_best_of_n(settings.BestOfN(run=str(drawn), reranker="length", out=str(tmp_path / "c")), str)[1]
    values = [
        r[r["run"] == n].sort_values(["tag", "cutoff"])["value"].tolist()
        for r, n in ((results, "score"), (own, "length"))
    ]
    assert values[0] == pytest.approx(values[1])


def test_best_of_n_writes_what_it_says(drawn, tmp_path):
    asked = settings.BestOfN(run=str(drawn), qrels=str(drawn), at=(1, 3, 6), out=str(tmp_path / "b"))
    folder, results = run_best_of_n(asked, str)
    assert set(results["run"]) == {"oracle", "majority", "likelihood", "mean-likelihood", "length", *CHANCE}
    passed = pd.read_csv(drawn / "results.csv").set_index(["run", "cutoff"])["value"]
    for row in results[results["run"] == "oracle"].itertuples():
        assert row.value == pytest.approx(passed[row.tag, row.cutoff])  # the oracle is Pass@N
    chance = results[results["run"] == "random"].groupby("tag")["value"]
    assert (chance.nunique() == 1).all()
    one = results[results["cutoff"] == 1].groupby("tag")["value"]
    assert (one.max() - one.min() < 1e-12).all()  # of one draw nobody has a choice
    for name in ("best-of-n-T0.5", "best-of-n-T1"):
        assert {p.suffix for p in folder.glob(f"{name}.*")} == {".png", ".pdf", ".csv"}
    tests = pd.read_csv(folder / "tests.csv")
    assert set(tests["before"]) == {*CHANCE, "majority"} and not set(tests["after"]) & {"oracle", *CHANCE}
    assert (tests["p_holm"] >= tests["p"]).all()
    assert len(pd.read_csv(folder / "quality.csv")) == 2 * 6 * 4
    only = run_best_of_n(
        settings.BestOfN(run=str(drawn), temperature=(1.0,), reranker="vote:likelihood", out=str(tmp_path / "c")), str
    )[1]
    assert set(only["tag"]) == {"tiny T=1"} and set(only["run"]) == {"oracle", "vote:likelihood", *CHANCE}


def test_verify_judges_as_passk_did_or_by_ones_own_rule(drawn, tmp_path):
    folder, results = run_verify(settings.Verify(run=str(drawn), out=str(tmp_path / "own")), str)
    ours, theirs = tables.read_qrels(folder), tables.read_qrels(drawn)
    assert ours.equals(theirs) and results["measure"].unique().tolist() == ["share right"]
    said = []
    asked = settings.Verify(run=str(drawn), verifier=r"regex:#### (\d+)", out=str(tmp_path / "regex"))
    folder, _ = run_verify(asked, said.append)
    assert (tables.read_qrels(folder)["relevance"] == theirs["relevance"]).mean() > 0.9
    assert json.loads((folder / "manifest.json").read_text())["unfinished_are"] == "wrong"
    assert run_best_of_n(settings.BestOfN(run=str(folder), out=str(tmp_path / "b")), str)[0].exists()


def test_unfinished_responses_are_counted_and_wrong_by_default(drawn, tmp_path):
    run = tables.read_run(drawn)
    files.write_parquet(run.assign(finish_reason="length"), tmp_path / "run.parquet")
    said = []
    asked = {"run": str(tmp_path / "run.parquet"), "dataset": "sums"}
    folder, results = run_verify(settings.Verify(**asked, out=str(tmp_path / "a")), said.append)
    assert said == ["96 of 96 responses never finished: counted as wrong"] and (results["value"] == 0).all()
    folder, results = run_verify(settings.Verify(**asked, judge_unfinished=True, out=str(tmp_path / "b")), said.append)
    assert tables.read_qrels(folder)["relevance"].tolist() == tables.read_qrels(drawn)["relevance"].tolist()


def test_a_judge_at_a_server(drawn, tmp_path, serve):
    url = serve(reply="longer")
    asked = settings.Rerank(run=str(drawn), reranker="judge", base_url=url, out=str(tmp_path / "j"))
    run, manifest = read(run_rerank(asked, str)[0])
    text = run.sort_values(["query_id", "tag", "rank"])
    longest = run.groupby(["query_id", "tag"])["text"].transform(lambda t: t.str.len().max())
    assert (run["text"].str.len() == longest)[run["rank"] == 0].all()
    assert manifest["asked"] > 100 and manifest["nonsense"] == 0 and text["reward"].between(0, 1).all()


def test_a_judge_that_answers_nonsense_is_counted_and_said(drawn, tmp_path, serve):
    said = []
    asked = settings.Rerank(
        run=str(drawn), reranker="judge:pointwise", base_url=serve(reply="banana"), out=str(tmp_path / "j")
    )
    run, manifest = read(run_rerank(asked, said.append)[0])
    assert manifest["nonsense"] == manifest["asked"] == 96 and (run["reward"] == 0).all()
    assert "96 of 96 answers could not be read, asked twice: kept as ties" in said


def test_graded_lists_are_a_run_with_its_qrels(tmp_path):
    rows = [
        {"prompt_id": f"p{i}", "prompt": "?", "candidates": [
            {"system": s, "response": "x" * (k + 1), "win_probability": (k + i) % 3 / 2} for k, s in enumerate("abc")
        ]}
        for i in range(3)
    ]  # fmt: skip
    (tmp_path / "lists.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = []
    folder, results = run_best_of_n(
        settings.BestOfN(run=str(tmp_path / "lists.jsonl"), out=str(tmp_path / "b")), said.append
    )
    value = results.set_index(["run", "cutoff"])["value"]
    assert value["length", 3] == pytest.approx(np.mean([2 % 3 / 2, 3 % 3 / 2, 4 % 3 / 2])) and value["oracle", 3] == 1.0
    assert [line.split(":")[0] for line in said] == [
        "left out majority",
        "left out likelihood",
        "left out mean-likelihood",
    ]
    assert "expected grade" not in said and (folder / "best-of-n.png").exists()


def test_a_recipe_names_the_folder_of_an_earlier_step(tmp_path):
    (tmp_path / "r.toml").write_text(
        '[[preset.tiny]]\nstage = "passk"\nlimit = 4\nn = 3\ntemperature = [1.0]\n'
        '[[preset.tiny]]\nstage = "rerank"\nrun = "@passk"\nreranker = "likelihood"\n'
        '[[preset.tiny]]\nstage = "best-of-n"\nrun = "@rerank"\nreranker = "score"\n'
    )
    out = run.run(recipe.load(str(tmp_path / "r.toml"), "tiny"), tmp_path / "out", str)
    assert (out / "3-best-of-n" / "results.csv").exists()


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args, message", [
    (("rerank", "nowhere"), "nowhere: no such run"),
    (("rerank",), "`irlens passk` makes that one"),
    (("rerank", "RUN", "--reranker", "fsfair"), "did you mean 'fsfairx'"),
    (("rerank", "RUN", "--reranker", "vote:"), "what follows the colon is missing"),
    (("rerank", "RUN", "--reranker", "vote:lenght"), "did you mean 'length'"),
    (("rerank", "RUN", "--reranker", "./nowhere"), "no such folder"),
    (("rerank", "RUN", "--reranker", "reward:x"), "is no folder and no hub id"),
    (("rerank", "RUN", "--reranker", "fsfairx"), "--reranker majority needs no download"),
    (("rerank", "RUN", "--reranker", "judge"), "needs --base-url"),
    (("rerank", "RUN", "--reranker", "judge:pairwize", "--base-url", "http://127.0.0.1:9/v1"), "did you mean 'pairwise'"),
    (("rerank", "RUN", "--reranker", "judge", "--base-url", "http://127.0.0.1:9/v1"), "no server answers there"),
    (("rerank", "RUN", "--dataset", "facts"), "are not in the data set facts"),
    (("rerank", "RUN", "--reranker", "likelihood", "--policy", "tny"), "did you mean 'tiny'"),
    (("rerank", "RUN", "--batch-size", "0"), "--batch-size must be at least 1"),
    (("verify", "RUN", "--verifier", "gsm9k"), "did you mean 'gsm8k'"),
    (("verify", "RUN", "--verifier", "regex:("), "not a regular expression"),
    (("verify", "RUN", "--verifier", "nothing_here:f"), "No module named 'nothing_here'"),
    (("best-of-n", "RUN", "--reranker", "majority,majority"), "each once"),
    (("best-of-n", "RUN", "--at", "7"), "smaller than the largest N"),
    (("best-of-n", "RUN", "--temperature", "0.7"), "the run has 0.5, 1"),
    (("best-of-n", "RUN", "nowhere.parquet"), "no such file"),
])  # fmt: skip
def test_wrong_input_is_one_line_and_leaves_nothing(drawn, tmp_path, refused, args, message):
    assert message in refused(*(drawn if arg == "RUN" else arg for arg in args))
    assert list(tmp_path.iterdir()) == []


def test_a_reward_model_with_two_labels(drawn, tmp_path, refused):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "two")
    line = refused("rerank", drawn, "--reranker", tmp_path / "two")
    assert "the model has 2 labels; a scalar reward model has exactly one" in line
    assert [p.name for p in tmp_path.iterdir()] == ["two"]


def test_scores_that_are_not_finite_lose_nothing(drawn, tmp_path, monkeypatch):
    from irlens.rerank import by_name as rerankers
    from irlens.rerank import scoring

    broken = tables.read_run(drawn)["doc_id"].iloc[-1]

    def load(*_):
        return lambda rows: np.where(rows["doc_id"] == broken, np.inf, 1.0)

    monkeypatch.setattr(rerankers, "_policy_scorer", load)
    monkeypatch.setattr(scoring.score_in_shards, "__defaults__", (12,))
    asked = settings.Rerank(run=str(drawn), reranker="likelihood", policy="tiny", out=str(tmp_path / "r"))
    with pytest.raises(UserError, match=f"score not finite for query_id=.*, doc_id={broken}"):
        run_rerank(asked, str)
    kept = list((tmp_path / "r" / "shards" / "likelihood").iterdir())
    assert len(kept) == 7 and json.loads((tmp_path / "r" / "manifest.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize("grade, message", [(0, "no candidate is right"), (1, "no candidate is wrong")])
def test_draws_that_are_all_right_or_all_wrong(drawn, tmp_path, refused, grade, message):
    qrels = tables.read_qrels(drawn).assign(relevance=grade)
    files.write_parquet(qrels, tmp_path / "q.parquet")
    assert message in refused("best-of-n", drawn, "q.parquet")


def test_qrels_that_miss_queries_or_draws_and_a_run_without_texts(drawn, tmp_path, refused):
    run, qrels = tables.read_run(drawn), tables.read_qrels(drawn)
    files.write_parquet(qrels[qrels["query_id"] != qrels["query_id"].iloc[0]], tmp_path / "fewer.parquet")
    assert "do not judge 1 of the run's queries" in refused("best-of-n", drawn, "fewer.parquet")
    files.write_parquet(qrels.iloc[1:], tmp_path / "draws.parquet")
    assert "do not judge 1 draws of the run" in refused("best-of-n", drawn, "draws.parquet")
    files.write_parquet(run.drop(columns="text"), tmp_path / "bare.parquet")
    assert "no column text" in refused("rerank", "bare.parquet", "--dataset", "sums")
    assert "no column text" in refused("verify", "bare.parquet", "--dataset", "sums")
    files.write_parquet(run, tmp_path / "alone.parquet")
    assert "give --dataset" in refused("rerank", "alone.parquet")
    assert "no qrels beside it" in refused("best-of-n", "alone.parquet")
    files.write_parquet(run.drop(columns="logprob"), tmp_path / "silent.parquet")
    assert "name its model with --policy" in refused("rerank", "silent.parquet", "--reranker", "likelihood")


def test_the_same_folder_takes_no_other_input(drawn, tmp_path):
    run_rerank(settings.Rerank(run=str(drawn), out=str(tmp_path / "r")), str)
    run_rerank(settings.Rerank(run=str(drawn), out=str(tmp_path / "r")), str)
    with pytest.raises(UserError, match="was made with reranker = 'majority', now 'length'"):
        run_rerank(settings.Rerank(run=str(drawn), reranker="length", out=str(tmp_path / "r")), str)


def test_a_run_of_another_process_and_the_examples_in_help(drawn, tmp_path, irlens):
    shown = irlens("best-of-n", drawn, "--temperature", "1.0", cwd=tmp_path).stdout
    assert "oracle" in shown and "tau-b" in shown
    assert (
        "seed = 0, now 1"
        in irlens("best-of-n", drawn, "--temperature", "1.0", "--seed", "1", cwd=tmp_path, code=2).stderr
    )
