"""Mining from draws to files, on the embedded default and on real problems; and everything that it refuses."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from irlens import tables, tasks
from irlens.base import files
from irlens.base.errors import UserError
from irlens.commands.hardness import temperatures as run_temperatures
from irlens.commands.mine_negatives import mine_negatives as run_mine_negatives
from irlens.commands.passk import passk as run_passk
from irlens.commands.rerank import rerank as run_rerank
from irlens.commands.settings import Mine, PassK, Rerank
from irlens.measure import measures
from irlens.rerank.verify import verify
from irlens.tasks import gsm8k

SMALL = Mine(limit=12, n=6, tier="easiest,easy,hard,hardest,top-ranked,margin")


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    out, said = tmp_path_factory.mktemp("mined") / "out", []
    folder, lists, report = run_mine_negatives(replace(SMALL, out=str(out)), said.append)
    return folder, lists, report, said


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A passk folder at three temperatures, and its draws scored by a made-up reward."""
    out = tmp_path_factory.mktemp("drawn")
    folder, _ = run_passk(PassK(limit=12, n=6, temperature=(0.7, 1.0, 2.0), at=(1, 6), out=str(out / "p")), str)
    run = tables.read_run(folder).merge(tables.read_qrels(folder), on=["query_id", "doc_id"])
    noise = np.random.default_rng(0).normal(size=len(run))
    files.write_parquet(
        tables.ranked(run.assign(score=run["relevance"] + noise, tag="made up")), out / "reward.parquet"
    )
    return folder, out / "reward.parquet"


def quick(drawn, out, **more):
    folder, reward = drawn
    given = {
        "run": str(folder),
        "split": "test",
        "limit": 12,
        "positives_from": "own",
        "tier": "hard",
        "hardness": False,
    }
    if more.pop("rewarded", False):
        given["reward_run"] = str(reward)
    return run_mine_negatives(Mine(**given | more, out=str(out)), str)


def test_every_tier_has_lists_and_no_negative_is_right_or_repeated(mined):
    folder, lists, report, said = mined
    task = tasks.load("sums", "train", 12)
    answers = dict(zip(task.topics["query_id"], task.topics["answers"]))
    negatives = lists[lists["grade"] == 0]
    assert set(negatives["tier"]) == set(SMALL.tier.split(","))
    assert not any(gsm8k.is_correct(t, answers[q][0]) for q, t in zip(negatives["query_id"], negatives["text"]))
    assert negatives["text"].is_unique
    assert report["negatives"].tolist() == [int((negatives["tier"] == tier).sum()) for tier in report["tier"]]
    own = negatives[~negatives["tier"].isin(("easiest", "easy"))]
    assert (own["doc_id"].str.rsplit("/", n=2).str[0] == own["query_id"]).all()
    foreign = negatives[negatives["tier"].isin(("easiest", "easy"))]
    assert (foreign["doc_id"].str.rsplit("/", n=2).str[0] != foreign["query_id"]).all()
    assert "false negatives left, by the verifier: 0 of" in "\n".join(said)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["false_negatives_left"] == 0 and manifest["negatives"] == len(negatives)


def test_the_files_tell_the_same_lists(mined):
    folder, lists, _, _ = mined
    written = tables.read_lists(folder)
    pd.testing.assert_frame_equal(written, lists, check_dtype=False)
    texts = lists.drop(columns="tokens")  # JSON lines hold texts, not the ids that were drawn
    pd.testing.assert_frame_equal(tables.read_lists(folder / "trl.jsonl"), texts, check_dtype=False)
    first = json.loads((folder / "trl.jsonl").read_text().splitlines()[0])
    assert first["prompt"] == f"Question: {lists['query'].iloc[0]}\nAnswer:\n"


def test_the_hardness_report_orders_the_tiers(mined):
    folder = mined[0]
    table = pd.read_csv(folder / "hardness.csv").set_index(["tier", "measure"])["value"]
    gap = table.xs("logprob_gap", level="measure")
    assert gap["easiest"] < gap["hard"] and gap["easy"] < gap["hard"] and gap["easy"] < gap["top-ranked"]
    assert gap["margin"] <= 0
    assert table["hard", "word_similarity"] > table["easy", "word_similarity"]
    assert {p.name for p in folder.glob("tiers.*")} == {"tiers.png", "tiers.pdf", "tiers.csv"}


def test_gold_solutions_are_positives_and_never_samples(mined, drawn, tmp_path):
    folder, lists, _, _ = mined
    run = tables.read_run(folder)
    assert len(run) == 12 * 6 * 2 and not run["doc_id"].str.endswith("/gold").any()
    gold = lists[lists["tier"] == "positive"]
    assert (gold["doc_id"] == gold["query_id"] + "/gold").all()
    passed = []
    for positives in ("gold", "own", "both"):
        out, lists, _ = quick(drawn, tmp_path / positives, positives_from=positives)
        again = tables.read_run(out)
        task = tasks.load("sums", "test", 12)
        passed.append(measures.evaluate(again, verify(again, task.topics, task.verifier), "Pass@1 Pass@6")[0])
        of_gold = lists["doc_id"].str.endswith("/gold")
        assert of_gold.any() == (positives != "own") and (lists[of_gold]["tier"] == "positive").all()
    pd.testing.assert_frame_equal(passed[0], passed[1])
    pd.testing.assert_frame_equal(passed[0], passed[2])
    both = lists[lists["tier"] == "positive"].groupby("query_id").size()
    assert set(both) == {1, 2}


def test_the_same_command_again_changes_nothing(mined, files):
    folder = mined[0]
    before = files(folder)
    said = []
    run_mine_negatives(replace(SMALL, out=str(folder)), said.append)
    assert files(folder) == before and any("finished by this command before" in line for line in said)
    with pytest.raises(UserError, match="per_tier = 1, now 2"):
        run_mine_negatives(replace(SMALL, per_tier=2, out=str(folder)), str)


def test_a_run_with_rewards_gives_near_misses(drawn, tmp_path):
    options = {"tier": "near-miss,margin", "margin": 0.5, "hardness": True}
    out, lists, _ = quick(drawn, tmp_path / "x", rewarded=True, **options)
    scores = tables.read_run(drawn[1]).set_index("doc_id")["score"].to_dict()
    run = tables.read_run(drawn[0]).merge(tables.read_qrels(drawn[0]), on=["query_id", "doc_id"])
    wrong = run[(run["temperature"] == 1.0) & (run["relevance"] == 0) & (run["finish_reason"] == "stop")]
    for query_id, rows in lists.groupby("query_id"):
        near = rows[rows["tier"] == "near-miss"]["doc_id"].item()
        assert scores[near] == max(scores[d] for d in wrong[wrong["query_id"] == query_id]["doc_id"])
        positive = scores[rows["doc_id"].iloc[0]]
        assert all(scores[d] <= positive - 0.5 for d in rows[rows["tier"] == "margin"]["doc_id"])
    table = pd.read_csv(out / "hardness.csv").set_index(["tier", "measure"])["value"]
    assert table["near-miss", "reward_gap"] > table["margin", "reward_gap"] < -0.5
    skipped = pd.read_csv(out / "skipped.csv")
    assert len(skipped) + lists["query_id"].nunique() == 12
    assert all(why == "no positive" or why.startswith("no negative: every response is ") for why in skipped["why"])


def test_what_irlens_rerank_writes_is_a_reward_run(drawn, tmp_path):
    scored, _ = run_rerank(Rerank(run=str(drawn[0]), reranker="length", out=str(tmp_path / "r")), str)
    _, lists, _ = quick(drawn, tmp_path / "x", tier="near-miss", reward_run=str(scored), positives_from="gold")
    run = tables.read_run(drawn[0]).merge(tables.read_qrels(drawn[0]), on=["query_id", "doc_id"])
    wrong = run[(run["temperature"] == 1.0) & (run["relevance"] == 0) & (run["finish_reason"] == "stop")]
    longest = wrong.groupby("query_id")["text"].agg(lambda texts: max(map(len, texts))).to_dict()
    near = lists[lists["tier"] == "near-miss"]
    assert len(near) >= 8 and all(len(text) == longest[q] for q, text in zip(near["query_id"], near["text"]))


def test_a_run_that_holds_its_rewards_needs_no_reward_run(drawn, tmp_path):
    scored = drawn[1]
    run = tables.read_run(scored).drop(columns="relevance")
    files.write_parquet(run.assign(reward=run["score"]), tmp_path / "scored.parquet")
    asked = {"tier": "near-miss,margin", "margin": 0.5, "dataset": "sums"}
    _, apart, _ = quick(drawn, tmp_path / "a", rewarded=True, **asked)
    _, inside, _ = quick(drawn, tmp_path / "b", run=str(tmp_path / "scored.parquet"), **asked)
    near = [lists[lists["tier"] == "near-miss"]["doc_id"].tolist() for lists in (apart, inside)]
    assert near[0] and near[0] == near[1]  # the first right draw may be another: a scored run has another order
    files.write_parquet(run.assign(reward=float("nan")), tmp_path / "unknown.parquet")
    with pytest.raises(UserError, match="reward of .* must be a finite number"):
        quick(drawn, tmp_path / "c", run=str(tmp_path / "unknown.parquet"), **asked)


def test_a_mined_folder_can_be_reranked(mined, tmp_path):
    folder, _ = run_rerank(Rerank(run=str(mined[0]), reranker="length", out=str(tmp_path / "r")), str)
    assert len(tables.read_run(folder)) == 144


def test_a_reward_alone_judges_where_there_is_no_verifier(drawn, tmp_path):
    ids = tasks.load("facts", "test", 12).topics["query_id"].tolist()
    rename = dict(zip(tables.read_run(drawn[1])["query_id"].unique(), ids))
    for path, name in ((drawn[0] / "run.parquet", "run"), (drawn[1], "reward")):
        frame = pd.read_parquet(path)
        frame["doc_id"] = frame["query_id"].map(rename) + "/" + frame["doc_id"].str.split("/", n=1).str[1]
        files.write_parquet(frame.assign(query_id=frame["query_id"].map(rename)), tmp_path / f"{name}.parquet")
    given = Mine(dataset="facts", split="test", limit=12, tier="hard,near-miss", positives_from="own", out=str(tmp_path / "x"))  # fmt: skip
    given = replace(given, run=str(tmp_path / "run.parquet"), reward_run=str(tmp_path / "reward.parquet"))
    given = replace(given, reward_margin=0.3)
    _, lists, report = run_mine_negatives(given, str)
    scores = pd.read_parquet(tmp_path / "reward.parquet").set_index("doc_id")["score"]
    assert len(lists) and report["near_reward"].sum() > 0
    for _, rows in lists.groupby("query_id"):
        values = scores[rows["doc_id"]].tolist()
        assert all(value < values[0] - 0.3 for value in values[1:])
    with pytest.raises(UserError, match="facts has no verifier: use --positives-from own"):
        run_mine_negatives(replace(given, positives_from="gold", out=str(tmp_path / "y")), str)
    with pytest.raises(UserError, match="no verifier, so right and wrong"):
        run_mine_negatives(replace(given, reward_run=None, tier="hard", reward_margin=None), str)


@pytest.mark.parametrize("related", ["bm25", "tiny-e5"])
def test_easy_negatives_of_related_prompts_are_nearer(drawn, tmp_path, related):
    _, lists, _ = quick(drawn, tmp_path / "x", tier="easy", related=related, positives_from="gold", encoder="tiny-e5")
    easy = lists[lists["tier"] == "easy"]
    assert len(easy) == 12 and (easy["doc_id"].str.rsplit("/", n=2).str[0] != easy["query_id"]).all()
    query = dict(zip(lists["query_id"], lists["query"]))
    shared = [
        len(set(query[q].lower().split()) & set(query[d.rsplit("/", 2)[0]].lower().split()))
        for q, d in zip(easy["query_id"], easy["doc_id"])
    ]
    anyone = [
        len(set(a.lower().split()) & set(b.lower().split())) for a in query.values() for b in query.values() if a != b
    ]
    assert np.mean(shared) > np.mean(anyone)


def test_an_encoder_removes_only_if_a_threshold_is_given(drawn, tmp_path):
    said = []
    settings = Mine(run=str(drawn[0]), limit=12, tier="hard", encoder="tiny-e5", hardness=False)
    _, _, report = run_mine_negatives(replace(settings, out=str(tmp_path / "a")), said.append)
    assert report["near_embedding"].item() == 0 and any("only reported" in line for line in said)
    _, _, report = run_mine_negatives(replace(settings, embedding_threshold=0.97, out=str(tmp_path / "b")), str)
    assert report["near_embedding"].item() > 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tier": "near-miss"}, "near-miss needs rewards: --reward MODEL, or --reward-run"),
        ({"reward_margin": 1.0}, "--reward-margin needs rewards"),
        ({"embedding_threshold": 0.9}, "--embedding-threshold needs an --encoder"),
        ({"text_threshold": 0.0}, "text threshold 0"),
        ({"encoder": "tiny-e6"}, "--encoder tiny-e6: unknown retriever 'tiny-e6'; did you mean 'tiny-e5'"),
        ({"tier": "easy", "related": "bm52"}, "--related bm52: unknown retriever 'bm52'; did you mean 'bm25'"),
        ({"tier": "margin", "percentage": 0.95}, "log-probabilities are negative"),
        ({"tier": "margin", "margin": -1.0}, "--margin -1"),
        ({"positives_from": "golt"}, "did you mean 'gold'"),
        ({"positives_from": "correct"}, "is now called 'own'"),
        ({"temperature": (0.7, 1.0)}, "the second must be below the first"),
        ({"temperature": (1.0, 0.7, 0.1)}, "give a high one and a low one"),
        ({"temperature": (1.0,), "tier": "hard,hardest"}, "needs a second, lower one"),
        ({"temperature": (0.9, 0.7)}, "no draws at T = 0.9; there are: 0.7, 1, 2"),
        ({"split": "train"}, "no draw for any of the 12 prompts of sums, split train"),
        ({"run": "nowhere"}, "nowhere: no such run"),
        (
            {"tier": "margin", "rewarded": True, "positives_from": "gold"},
            "no score for the positive sums-test-00000/gold",
        ),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_made(drawn, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        quick(drawn, tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_damaged_runs_and_rewards_are_refused(drawn, tmp_path):
    reward = pd.read_parquet(drawn[1])
    for frame, message in (
        (reward.assign(score=[np.nan, *reward["score"][1:]]), "row 0: score must be a finite number, got nan"),
        (
            reward[reward["doc_id"] != "sums-test-00001/T1/00002"],
            "no score for 1 of 72 candidates, the first sums-test-00001/T1/00002",
        ),
        (reward.assign(text="?"), "text of sums-test-00000/T1/00000 is not the one that is mined"),
    ):
        files.write_parquet(frame, tmp_path / "bad.parquet")
        with pytest.raises(UserError, match=message):
            quick(drawn, tmp_path / "x", reward_run=str(tmp_path / "bad.parquet"))
    files.write_parquet(reward.drop(columns="temperature"), tmp_path / "run.parquet")
    with pytest.raises(UserError, match="needs a model's draws; columns missing: temperature"):
        quick(drawn, tmp_path / "x", run=str(tmp_path / "run.parquet"))
    with pytest.raises(UserError, match="no score for 72 of 72 candidates"):  # refused before anything is drawn
        run_mine_negatives(Mine(limit=12, n=6, tier="hard", reward_run=str(drawn[1]), out=str(tmp_path / "x")), str)
    assert not (tmp_path / "x").exists()


def test_no_right_or_no_wrong_draw_at_all(drawn, tmp_path):
    run, qrels = tables.read_run(drawn[0]), tables.read_qrels(drawn[0])
    right = qrels[qrels["relevance"] > 0]["doc_id"]
    for name, rows, message in (
        ("wrong", run[~run["doc_id"].isin(right)], "prompts has a right draw, so there is no positive"),
        ("right", run[run["doc_id"].isin(right)], "prompts has a negative in any tier .hard: .* false negatives"),
    ):
        files.write_parquet(tables.ranked(rows), tmp_path / f"{name}.parquet")
        with pytest.raises(UserError, match=message):
            quick(drawn, tmp_path / name, run=str(tmp_path / f"{name}.parquet"))


def test_log_probabilities_that_sampling_did_not_tell_are_computed(drawn, tmp_path):
    run = tables.read_run(drawn[0])
    files.write_parquet(run.drop(columns="logprob"), tmp_path / "run.parquet")
    options = {"tier": "top-ranked,margin", "margin": 1.0}
    told = quick(drawn, tmp_path / "a", **options)[1]
    computed = quick(drawn, tmp_path / "b", run=str(tmp_path / "run.parquet"), **options)[1]
    same = told["doc_id"].to_numpy() == computed["doc_id"].to_numpy() if len(told) == len(computed) else np.zeros(1)
    assert np.mean(same) > 0.7  # a text with several encodings may score otherwise than when it was drawn


def test_temperatures_of_a_run(drawn, tmp_path):
    folder, table, sentences = run_temperatures(drawn[0], drawn[0], 0.5, str(tmp_path / "x"))
    assert table["temperature"].unique().tolist() == [0.7, 1.0, 2.0] and (table["n"] == 12).all()
    assert sentences[0].startswith("Lists of draws are usable")
    assert {p.name for p in folder.iterdir()} >= {"temperatures.csv", "usable.png", "usable.csv", "manifest.json"}
    with pytest.raises(UserError, match="--least 0"):
        run_temperatures(drawn[0], drawn[0], 0.0, str(tmp_path / "y"))
    assert not (tmp_path / "y").exists()


def test_real_gsm8k(tmp_path, real_data):
    given = Mine(dataset=str(real_data("gsm8k")), limit=8, n=2, tier="easiest,easy,hard", out=str(tmp_path / "x"))
    folder, lists, _ = run_mine_negatives(given, str)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["false_negatives_left"] == 0 < manifest["negatives"] and lists["query_id"].nunique() == 8
