"""Data of one's own through the commands: prompts without answers, a verifier or reward by name, sizes that fit."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irlens import tables, tasks
from irlens.base.errors import UserError
from irlens.commands import runs, sizes
from irlens.commands import train as training
from irlens.commands.best_of_n import best_of_n as run_best_of_n
from irlens.commands.mine_negatives import mine_negatives as run_mine_negatives
from irlens.commands.passk import passk as run_passk
from irlens.commands.rerank import rerank as run_rerank
from irlens.commands.rerank import verify as run_verify
from irlens.commands.sample import sample as run_sample
from irlens.commands.settings import BestOfN, Mine, PassK, Rerank, Sample, Train, Verify

SUMS = tasks.load("sums", "train", 24).topics
COLUMNS = "prompt=instruction"


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    """A file of prompts alone in the working folder, and a reward of one's own that likes short responses."""
    rows = [{"instruction": query, "gold": some[0]} for query, some in zip(SUMS["query"], SUMS["answers"])]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "short_is_good.py").write_text(
        "def score(run):\n    assert run['query'].str.len().all()\n    return -run['text'].str.len()\n"
        "def right(response, gold):\n    return response.endswith('4')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "short_is_good", raising=False)
    return "prompts.jsonl"


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


# -- prompts without answers ---------------------------------------------------------------------------------------


def test_any_prompts_are_drawn_and_more_draws_keep_the_first(prompts):
    asked = Sample(dataset=prompts, columns=COLUMNS, limit=5, n=3, temperature=(0.5, 1.0), out="draws")
    folder, found = run_sample(asked, str)
    run = tables.read_run(folder)
    assert found["draws"].tolist() == [15, 15] and set(run["query"]) == set(SUMS["query"][:5])
    assert run["messages"].iloc[0][0]["content"] == run["query"].iloc[0]
    data = manifest(folder)["data"]
    assert data["columns"] == COLUMNS and data["split"] == "prompts" and manifest(folder)["draws"] == 30
    run_sample(replace(asked, n=4), str)
    more = tables.read_run(folder)
    assert len(more) == 40 and set(run["text"]) <= set(more["text"])
    with pytest.raises(UserError, match="n = 4, now 3; n can only grow"):
        run_sample(asked, str)
    # the draws are those that passk would judge
    judged, _ = run_passk(PassK(dataset=prompts, columns=f"{COLUMNS},answer=gold", verifier="gsm8k", limit=5, n=3,
                                temperature=(0.5, 1.0), at=(1,), out="judged"), str)  # fmt: skip
    assert tables.read_run(judged)["text"].tolist() == run["text"].tolist()


def test_a_reward_model_goes_on_from_draws(prompts):
    run_sample(Sample(dataset=prompts, columns=COLUMNS, n=4, out="draws"), str)
    folder, _ = run_rerank(Rerank(run="draws", reranker="short_is_good:score", out="scored"), str)
    scored = tables.read_run(folder)
    assert (scored["reward"] == -scored["text"].str.len()).all() and manifest(folder)["data"]["columns"] == COLUMNS
    _, picked = run_best_of_n(BestOfN(run="scored", reranker="length", at=(1, 4), out="best"), str)
    assert {"oracle", "length", "random"} <= set(picked["run"])
    told = {"positives_from": "own", "tier": "near-miss", "temperature": (1.0,), "hardness": False}
    _, lists, _ = run_mine_negatives(Mine(run="scored", **told, out="mined"), str)
    _shortest_first(lists)


def test_draws_say_what_was_asked_once_their_prompts_are_elsewhere(prompts, tmp_path):
    run_sample(Sample(dataset=prompts, columns=COLUMNS, limit=4, n=2, out="draws"), str)
    (tmp_path / prompts).rename(tmp_path / "moved.jsonl")
    folder, _ = run_rerank(Rerank(run="draws", reranker="short_is_good:score", out="scored"), str)
    assert manifest(folder)["data"]["dataset"] is None
    source = runs.read("draws")
    assert set(source.task.topics["query"]) == set(SUMS["query"][:4]) and "messages" in source.task.topics.columns
    found = runs.read("draws", dataset="moved.jsonl", columns=COLUMNS).task  # by the text: its query_ids may be others
    assert set(found.topics["query"]) == set(SUMS["query"][:4])


def _shortest_first(lists):
    assert lists["query_id"].nunique() > 3
    for _, rows in lists.groupby("query_id"):
        positive = rows[rows["tier"] == "positive"]["text"].str.len()
        assert len(positive) == 1 and (rows[rows["tier"] != "positive"]["text"].str.len() >= positive.iloc[0]).all()


def test_mining_asks_a_reward_of_its_own(prompts):
    asked = Mine(dataset=prompts, columns=COLUMNS, reward="short_is_good:score", n=4, tier="near-miss,margin",
                 positives_from="own", temperature=(1.0,), hardness=False, out="mined")  # fmt: skip
    folder, lists, _ = run_mine_negatives(asked, str)
    _shortest_first(lists)
    assert manifest(folder)["settings"]["reward_files"].startswith("short_is_good:score ")
    with pytest.raises(UserError, match="--reward and --reward-run: give one of them"):
        run_mine_negatives(replace(asked, reward_run="x"), str)
    with pytest.raises(UserError, match=r"near-miss needs rewards: --reward MODEL, or --reward-run FILE"):
        run_mine_negatives(replace(asked, reward=None, verifier="short_is_good:right"), str)
    with pytest.raises(UserError, match="give --verifier .* or give --reward, for a reward model to judge"):
        run_mine_negatives(replace(asked, reward=None, tier="hard"), str)


def test_a_reward_reads_the_gold_solutions_that_are_positives(prompts):
    """A gold solution is no draw, so nothing scored it; the tier margin needs to know."""
    asked = Mine(limit=6, n=4, reward="short_is_good:score", tier="margin", temperature=(1.0,), hardness=False, out="m")
    _, lists, _ = run_mine_negatives(asked, str)
    _shortest_first(lists)
    assert lists[lists["tier"] == "positive"]["doc_id"].str.endswith("/gold").all()


def test_other_code_of_a_reward_is_another_result(prompts, tmp_path):
    from irlens.rerank import judges

    before = judges.of_reward("short_is_good:score", "").identity
    (tmp_path / "short_is_good.py").write_text((tmp_path / "short_is_good.py").read_text() + "# changed\n")
    assert judges.of_reward("short_is_good:score", "").identity != before
    with pytest.raises(
        UserError,
        match="'nobody': no such reward model; known: tiny-rm, fsfairx, pairrm, a hub id owner/name, a folder, or",
    ):
        judges.of_reward("nobody", "")


# -- a verifier by name --------------------------------------------------------------------------------------------


def test_answers_are_judged_by_the_verifier_asked_for(prompts):
    """Pass@1 is that of the data set whose own verifier it is; what follows knows columns and verifier by the folder."""
    asked = PassK(dataset=prompts, columns=f"{COLUMNS},answer=gold", verifier="gsm8k", limit=12, n=4,
                  temperature=(1.0,), out="own")  # fmt: skip
    folder, own = run_passk(asked, str)
    qrels = tables.read_qrels(folder)
    task = tasks.load(prompts, columns=asked.columns)
    golds = dict(zip(task.topics["query_id"], task.topics["answers"]))
    from irlens.tasks import gsm8k

    run = tables.read_run(folder)
    right = [gsm8k.is_correct(text, golds[key][0]) for key, text in zip(run["query_id"], run["text"])]
    assert qrels["relevance"].tolist() == [int(r) for r in right] and 0 < np.mean(right) < 1
    assert own.loc[own["cutoff"] == 1, "value"].iloc[0] == pytest.approx(np.mean(right))
    assert manifest(folder)["data"]["verifier"] == "gsm8k"
    _, verified = run_verify(Verify(run="own", out="verified"), str)
    assert verified["value"].iloc[0] == pytest.approx(np.mean(right))
    run_rerank(Rerank(run="own", reranker="majority", out="voted"), str)  # the votes are read by that verifier too


def test_without_a_verifier_the_message_says_both_ways(prompts):
    for columns in (COLUMNS, f"{COLUMNS},answer=gold"):
        with pytest.raises(UserError, match="has no verifier.*give --verifier .* or draw with `irlens sample`"):
            run_passk(PassK(dataset=prompts, columns=columns, n=2), str)
    with pytest.raises(
        UserError, match="--verifier gsm8k compares with gold answers, and .* has none; --columns answer"
    ):
        run_passk(PassK(dataset=prompts, columns=COLUMNS, verifier="gsm8k", n=2), str)


def test_a_verifier_that_needs_no_answers_judges_prompts_alone(prompts):
    asked = PassK(dataset=prompts, columns=COLUMNS, verifier="short_is_good:right", limit=6, n=3, temperature=(1.0,), out="p")  # fmt: skip
    folder, _ = run_passk(asked, str)
    run, qrels = tables.read_run(folder), tables.read_qrels(folder)
    assert qrels["relevance"].tolist() == [int(text.endswith("4")) for text in run["text"]]
    # a folder may be another's: the function that its manifest names is not run unless it is asked for
    assert runs.read("p").verifier_name is None
    assert runs.read("p", verifier="short_is_good:right").verifier_name == "short_is_good:right"
    with pytest.raises(UserError, match="give --verifier"):
        run_verify(Verify(run="p", out="v"), str)


def test_training_by_a_verifier_asked_for_judges_every_split(prompts, tmp_path):
    rows = (tmp_path / prompts).read_text().splitlines()
    (tmp_path / "data").mkdir()
    for split, some in (("train", rows[:16]), ("test", rows[16:])):
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(some))
    asked = Train(dataset="data", columns=f"{COLUMNS},answer=gold", verifier="gsm8k", out="t")
    job = training._prepare(asked, str)
    assert len(job.policy.task.topics) == 12 and job.test.split == "test"
    for task in (job.policy.task, job.held_out, job.test):
        assert task.verifier("#### 7", "7") and not task.verifier("#### 8", "7")
    with pytest.raises(UserError, match="--verifier and --reward: one of them judges"):
        training.train(replace(asked, reward="short_is_good:score"), str)


# -- pairs ---------------------------------------------------------------------------------------------------------


def test_pairs_are_never_ignored_without_a_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Say {i // 2}.", "chosen": "a", "rejected": "b"} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = []
    _, found = run_sample(Sample(dataset="pairs.jsonl", n=1, max_tokens=4, out="draws"), said.append)
    assert found["prompts"].tolist() == [4]
    assert any("8 preference pairs, which `sample` does not use: it draws its own" in line for line in said)


# -- sizes ---------------------------------------------------------------------------------------------------------


def test_sizes_left_alone_shrink_to_what_is_there(tmp_path):
    """60 prompts and no other split: none of the defaults fits, and one line says what became of all of them."""
    rows = [{"question": f"What is {i}+1?", "answer": f"#### {i + 1}"} for i in range(60)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = []
    job = training._prepare(Train(dataset=str(tmp_path)), said.append)
    assert [len(task.topics) for task in (job.policy.task, job.held_out, job.test)] == [45, 8, 7]
    (line,) = [line for line in said if "trained on" in line]
    assert "trained on 45, held out 15 (8 in between and 7 at the end); --prompts 500, --eval-limit 200" in line
    kept = training._identity(job)
    assert (kept["prompts"], kept["eval_limit"], kept["test_limit"]) == (45, 8, 7)
    # what was asked for stays, and what then cannot be is refused with all of it named
    job = training._prepare(Train(dataset=str(tmp_path), prompts=50, test_limit=0), said.append)
    assert [len(task.topics) for task in (job.policy.task, job.held_out)] == [50, 10] and job.test is None
    with pytest.raises(UserError, match="only .* of 60 left once --eval-limit 30 and --test-limit 20 are held out"):
        training._prepare(Train(dataset=str(tmp_path), prompts=40, eval_limit=30, test_limit=20), said.append)
    with pytest.raises(
        UserError, match="--prompts 500: .* of 60 left .* sizes that nobody gives shrink to what is there"
    ):
        training._prepare(Train(dataset=str(tmp_path), prompts=500), said.append)


def test_a_size_that_is_typed_is_no_default_even_if_it_is_equal(tmp_path, refused):
    (tmp_path / "t.jsonl").write_text(
        "".join(f'{{"question": "{i}+1?", "answer": "#### {i + 1}"}}\n' for i in range(60))
    )
    data = ("--dataset", tmp_path / "t.jsonl", "--out", tmp_path / "o")
    assert "--prompts 500: the split" in refused("train", "--prompts", "500", *data)
    assert "--eval-limit 200" in refused("train", "--eval-limit", "200", *data)
    assert not (tmp_path / "o").exists()


def test_what_the_prompts_do_not_allow_is_refused_together():
    asked = Train(dataset="sums", prompts=5000, positives_from="gold", memory="all", same_prompts=False, iterations=1)
    from irlens.commands.drawing import load_policy

    policy = load_policy(replace(asked, prompts=5), "train", 9, str)
    policy = policy.for_task(replace(policy.task, topics=policy.task.topics.drop(columns="solution")))
    with pytest.raises(UserError) as error:
        training._check_prompts(replace(asked, prompts=4), policy)
    assert "has no solutions" in str(error.value) and "--memory all" in str(error.value)
    with pytest.raises(UserError, match="has no solutions; use own; and --prompts 5000: .* has only 9"):
        training._check_prompts(asked, policy)


OPTIONS = {"prompts": 500, "eval_limit": 200, "test_limit": 500}


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 2000), st.sets(st.sampled_from(["eval_limit", "test_limit"])),
       st.dictionaries(st.sampled_from(sorted(OPTIONS)), st.integers(1, 900) | st.sampled_from([*OPTIONS.values()])))  # fmt: skip
def test_shrunk_sizes_fit_and_what_was_asked_for_stays(distinct, lent, given_sizes):
    lent, said = sorted(lent), []
    before = Train(**given_sizes)
    after = sizes.shrunk(before, distinct, lent, "data", said.append)
    used = ["prompts", *lent]
    for size in OPTIONS:
        value = getattr(after, size)
        assert 1 <= value <= getattr(before, size)
        if size in given_sizes or size not in used:
            assert value == getattr(before, size)
    assert bool(said) == (after != before) and len(said) <= 1
    if after != before:
        assert sum(getattr(after, size) for size in used) <= distinct
    elif sum(getattr(before, size) for size in used) > distinct:  # nothing could be done: others refuse it
        fixed = sum(getattr(before, size) for size in used if size in given_sizes)
        assert distinct - fixed < len({*used} - {*given_sizes}) or {*used} <= {*given_sizes}


def test_a_table_of_own_prompts_is_the_same_in_python(prompts):
    task = tasks.load(prompts, columns={"prompt": "instruction", "answer": "gold"})
    pd.testing.assert_frame_equal(task.topics, tasks.load(prompts, columns="prompt=instruction, answer=gold").topics)
