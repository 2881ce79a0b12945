"""`irlens train` as a whole: what it remembers, when it stops, what it chooses by, and what it refuses."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from irlens import tasks
from irlens.base.devices import HERE
from irlens.base.errors import NothingToRank, UserError
from irlens.commands import train as training
from irlens.commands import validation as held_out
from irlens.commands.drawing import load_policy, train_split
from irlens.commands.evaluate import in_words
from irlens.commands.passk import passk as run_passk
from irlens.commands.settings import PassK, Train
from irlens.commands.train import train as run_train
from irlens.models import catalog
from irlens.models.chat import prompts
from irlens.retrieve.engines import token_ids
from irlens.train import larpo
from irlens.train import losses as objectives

SMALL = {"prompts": 24, "n": 4, "iterations": 2, "epochs": 1, "batch_lists": 8, "eval_limit": 8, "eval_n": 2}


def train(out, **more):
    said = []
    folder, results, tests = run_train(Train(out=str(out), **{**SMALL, "test_limit": 0, **more}), said.append)
    return folder, results, tests, said


@pytest.mark.slow
def test_memory_merges_the_draws_of_earlier_iterations(tmp_path):
    folder, *_ = train(
        tmp_path / "a", same_prompts=True, memory="all", iterations=3, list_size=12, objective="contrastive"
    )
    lists = pd.read_parquet(folder / "iteration-3" / "lists.parquet")
    assert {d.rpartition("@")[2] for d in lists["doc_id"]} == {"1", "2", "3"}
    assert set(lists["query_id"]) <= set(pd.read_parquet(folder / "iteration-3" / "run.parquet")["query_id"])
    previous, *_ = train(tmp_path / "b", same_prompts=True, memory="previous", iterations=3, list_size=12)
    lists = pd.read_parquet(previous / "iteration-3" / "lists.parquet")
    assert {d.rpartition("@")[2] for d in lists["doc_id"]} == {"2", "3"}
    with pytest.raises(UserError, match="no prompt comes twice"):
        train(tmp_path / "c", memory="all")


def test_validation_chooses_and_test_problems_only_measure(tmp_path):
    folder, results, tests, said = train(tmp_path / "a", test_limit=10, eval_temperature=(1.0, 0.7))
    value = results[results["curve"] == "Pass@1, T = 1"].set_index("x")["value"]
    chosen = json.loads((folder / "chosen.json").read_text())["iteration"]
    assert chosen == value.idxmax() and any(f"chosen: iteration {chosen}" in line for line in said)
    tested = pd.read_csv(folder / "test.csv")
    assert set(tested["iteration"]) == {0, chosen} and (tested["n"] == 10).all()
    assert tests["n"].unique().tolist() == [10] and len(tests) == 4
    for name in ("diagnostics", "training"):
        assert (folder / f"{name}.png").stat().st_size > 5000
    watched = set(pd.read_csv(folder / "diagnostics.csv")["curve"])
    assert {"positives", "negatives", "KL to the reference (nats)", "gradient norm"} <= watched


def test_patience_stops_and_the_same_command_says_the_same(tmp_path, monkeypatch):
    made, values = [], iter([0.5, 0.4, 0.3, 0.6])
    kept: dict[int, float] = {}
    monkeypatch.setattr(
        held_out, "value", lambda job, weights, s: kept[s] if s in kept else kept.setdefault(s, next(values))
    )
    folder = lambda start, s: start.__class__(start.job, tmp_path / f"iteration-{s}" / "model", s + 1)  # noqa: E731

    def iterate(start, task, options, *steps):
        for s in range(1, options.iterations + 1):
            made.append(s)
            yield folder(start, s)

    monkeypatch.setattr(larpo, "iterate", iterate)
    settings, said = Train(iterations=5, patience=1), []
    policy = SimpleNamespace(name="tiny", folder=tmp_path / "start", task=None, devices=HERE)
    job = held_out.Job(settings, policy, SimpleNamespace(), None, None, None, tmp_path, said.append)
    policies = training._policies(job)
    assert [p.parent.name for p in policies[1:]] == ["iteration-1", "iteration-2"] and made == [1, 2]
    assert "stopped after iteration 2" in said[-1]
    assert training._policies(job) == policies and next(values) == 0.6  # values were read, not measured again


def test_a_data_set_without_validation_lends_the_end_of_its_training_problems(tmp_path):
    rows = [
        {"question": f"What is {i}+1?", "answer": f"It is <<{i}+1={i + 1}>>{i + 1}.\n#### {i + 1}"} for i in range(40)
    ]
    (tmp_path / "data").mkdir()
    for split, part in (("train", rows[:30]), ("test", rows[30:])):
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)))
    folder, _, tests, _ = train(
        tmp_path / "a", dataset=str(tmp_path / "data"), prompts=20, iterations=1, positives_from="both", test_limit=5
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"]["eval_split"] == "train[22:]" and manifest["settings"]["test_split"] == "test"
    assert tests["n"].unique().tolist() == [5]
    with pytest.raises(UserError, match="has only 22"):
        train(tmp_path / "b", dataset=str(tmp_path / "data"), prompts=25)


def only_training_problems(tmp_path, count=40) -> str:
    """A data set with the split train alone; its problems 30 and 39 ask the same."""
    numbers = [i if i != 39 else 30 for i in range(count)]
    rows = [
        {"question": f"What is {i}+1?", "answer": f"It is <<{i}+1={i + 1}>>{i + 1}.\n#### {i + 1}"} for i in numbers
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(tmp_path / "data")


def prepared(**more):
    """(problems between iterations, at the end, policy) and what was said."""
    said, settings = [], Train(**{**SMALL, **more})
    policy = load_policy(settings, train_split(settings), None, said.append)
    return *held_out.problems(policy, settings, said.append), said


def test_without_a_test_split_what_is_reported_has_chosen_nothing(tmp_path):
    """Of 40 problems, two of them the same: the last 6 distinct to report on, 8 others to choose by, 25 for training."""
    data = only_training_problems(tmp_path)
    between, end, policy, said = prepared(dataset=data, eval_limit=8, test_limit=6)
    parts = [set(task.topics["query"]) for task in (policy.task, between, end)]
    assert [len(task.topics) for task in (policy.task, between, end)] == [25, 8, 6]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert (between.split, end.split) == ("train[25:34]", "train[34:]")
    assert any("left out of training: 1 prompts that are word for word held-out ones" in line for line in said)
    folder, results, tests, _ = train(
        tmp_path / "a", dataset=data, prompts=20, iterations=1, positives_from="both", eval_limit=8, test_limit=6
    )
    assert tests["n"].unique().tolist() == [6] and results["n"].unique().tolist() == [8]
    seen = pd.concat(pd.read_parquet(folder / "iteration-1" / name) for name in ("run.parquet", "lists.parquet"))
    for where, task in (("evaluation", between), ("test", end)):
        measured = pd.read_parquet(folder / where / "0" / "run.parquet")["query_id"]
        assert set(measured) == set(task.topics["query_id"]) and not set(measured) & set(seen["query_id"])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"]["test_split"] == "train[34:]"
    assert {o["same_text"] for o in manifest["contamination"].values()} == {0} and len(manifest["contamination"]) == 2


def test_eval_split_test_chooses_nothing_where_there_is_no_test_split(tmp_path):
    data = only_training_problems(tmp_path)
    between, end, policy, _ = prepared(dataset=data, eval_split="test", eval_limit=8)
    assert end is None and len(between.topics) == 8 and len(policy.task.topics) == 31
    settings = Train(dataset=data, eval_split="test")
    assert held_out.chosen([0, 1, 2], settings, tmp_path) == 2 and "nothing is chosen" in held_out.why(
        between, settings
    )


def test_a_validation_split_alone_has_its_test_problems_out_of_training(tmp_path):
    data = only_training_problems(tmp_path)
    rows = [{"question": f"What is {i}+9?", "answer": f"#### {i + 9}"} for i in range(9)]
    (tmp_path / "data" / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    between, end, policy, _ = prepared(dataset=data, eval_limit=8, test_limit=6)
    assert (between.split, len(between.topics)) == ("validation", 8)
    assert (end.split, len(policy.task.topics)) == ("train[34:]", 33)


def test_validation_and_test_may_not_share_problems(tmp_path):
    data = only_training_problems(tmp_path)
    row = json.dumps({"question": "What is 5+9?", "answer": "#### 14"})
    for split in ("validation", "test"):
        (tmp_path / "data" / f"{split}.jsonl").write_text(row)
    with pytest.raises(UserError, match=r"1 of 1 held-out problems \(test\) are validation problems \(validation\)"):
        prepared(dataset=data)


def test_all_that_does_not_fit_is_said_at_once(tmp_path):
    data = only_training_problems(tmp_path)
    for sizes, left in (({"eval_limit": 200}, 0), ({"eval_limit": 8, "prompts": 30}, 25)):
        with pytest.raises(
            UserError, match=rf"has only {left} of 40 left once --eval-limit \d+ and --test-limit 6 are held"
        ):
            prepared(dataset=data, test_limit=6, **sizes)


def test_what_has_chosen_is_not_reported(tmp_path):
    """Without test problems there is no test of the chosen policy."""
    folder, _, tests, said = train(tmp_path / "a", iterations=1)
    assert tests.empty and list(pd.read_csv(folder / "tests.csv").columns) == list(tests.columns)
    assert any("no test of the chosen policy" in line for line in said)


@torch.no_grad()
def scores_of(lists, folder):
    """What a policy says about lists, every response in a pass of its own: (Scores without a reference, their grades)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    topics = lists.drop_duplicates("query_id")[["query_id", "query"]]
    prompt = dict(zip(topics["query_id"], token_ids(tokenizer, prompts(topics, tokenizer))))
    size = lists.groupby(["query_id", "list"]).size().max()
    rows = []
    for (query_id, _), some in lists.groupby(["query_id", "list"]):
        given = some["tokens"] if "tokens" in some else [None] * len(some)
        cells = []
        for text, ids, grade in zip(some["text"], given, some["grade"]):
            ids = tokenizer(text).input_ids + [tokenizer.eos_token_id] if ids is None else list(ids)
            whole = torch.tensor([prompt[query_id] + ids])
            each = model(input_ids=whole).logits[0, -len(ids) - 1 : -1].log_softmax(-1)
            cells.append((each.gather(1, whole[0, -len(ids) :, None]).sum().item(), len(ids), grade, 1.0))
        rows.append(cells + [(0.0, 1.0, 0.0, 0.0)] * (size - len(cells)))
    logprob, length, grade, mask = torch.tensor(rows).unbind(2)
    return objectives.Scores(logprob, torch.zeros_like(logprob), length, grade, mask.bool())


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"objective": "kto"}, {"objective": "spin"}, {"objective": "sft"}, {"objective": "rrhf", "nll": 0.1},
                                  {"objective": "simpo", "length_normalised": True}, {"tier": "easy", "positives_from": "both", "objective": "pairwise"},
                                  {"objective": "lambdarank", "objective_args": '{"weighted": 1}'}])  # fmt: skip
def test_what_is_asked_for_is_what_is_trained(tmp_path, more):
    """The loss of the first step, with all lists in it, is the objective's of the lists that are kept; then it falls."""
    folder, _, _, said = train(tmp_path / "a", iterations=1, batch_lists=64, epochs=4, **more)
    lists = pd.read_parquet(folder / "iteration-1" / "lists.parquet")
    objective = objectives.get(more["objective"])
    options = {k: v for k, v in more.items() if k in ("nll", "length_normalised")}
    options |= json.loads(more.get("objective_args", "{}"))
    before = scores_of(lists, catalog.fetch(catalog.model("tiny")))
    after = scores_of(lists, folder / "iteration-1" / "model")
    if "beta" in objective.parameters and objective.model_beta:
        options["beta"] = catalog.model("tiny").beta
    none = torch.zeros(len(lists)) if objective.mismatched else None  # what another prompt's response gains: nothing
    start, end = (
        objective(replace(now, reference=before.logprob, mismatched=none, mismatched_reference=none), **options).item()
        for now in (before, after)
    )
    first = pd.read_csv(folder / "iteration-1" / "log.csv")["loss"][0]
    if "weighted" in options:  # at the start all gammas are equal but for rounding, which then ranks them
        flat = objective(replace(before, reference=before.logprob), beta=options["beta"]).item()
        assert 0 < first < 0.5 * flat
    else:
        assert first == pytest.approx(start, rel=1e-3)
    assert end < start
    drawn = set(pd.read_csv(folder / "diagnostics.csv")["curve"])
    compares = objective.uses_reference
    assert ("KL to the reference (nats)" in drawn) == ("implicit-reward accuracy" in drawn) == compares
    assert compares or not any("displacement" in line for line in said)
    good, bad = (lists[(lists["tier"] == "positive") == side] for side in (True, False))
    if more["objective"] == "spin":
        assert good["doc_id"].str.endswith("/gold").all() and not bad["doc_id"].str.endswith("/gold").any()
    from_others = [doc.rpartition("/T")[0] != query for doc, query in zip(bad["doc_id"], bad["query_id"])]
    assert all(from_others) if "tier" in more else not any(from_others)


def test_long_lists_are_left_out_whole_and_counted(tmp_path):
    folder, _, _, said = train(tmp_path / "a", iterations=1, max_length=95)
    account = json.loads((folder / "iteration-1" / "account.json").read_text())
    assert account["too_long"] > 0 and any(f"left out {account['too_long']} of" in line for line in said)
    assert json.loads((folder / "manifest.json").read_text())["lists_too_long"] == account["too_long"]


@pytest.mark.slow
def test_the_switch_on_packing_reaches_every_pass_and_changes_no_result(tmp_path, monkeypatch):
    from irlens.train import data

    passes, logs, pack = [], [], data.pack
    monkeypatch.setattr(data, "pack", lambda *args: passes.append(pack(*args)) or passes[-1])
    for switch in (0, 10_000):
        passes.clear()
        folder, _, _, said = train(tmp_path / str(switch), iterations=1, pack_up_to=switch, list_size=3)
        assert passes and {batch.shared for batch in passes} == {switch > 0}
        lines = [line for line in said if "go one row per response" in line]
        assert len(lines) == (switch == 0) and all("more than --pack-up-to 0 tokens" in line for line in lines)
        assert "pack_up_to" not in json.loads((folder / "manifest.json").read_text())["settings"]
        logs.append(pd.read_csv(folder / "iteration-1" / "log.csv")["loss"].tolist())
    assert logs[0] == pytest.approx(logs[1], abs=1e-3)


def test_prompts_without_a_list_are_counted_by_their_reasons(tmp_path):
    with pytest.raises(NothingToRank, match="none of 24 prompts .*: 24 too few finished draws .a larger --max-tokens"):
        train(tmp_path / "a", max_tokens=4)
    skipped = pd.read_csv(tmp_path / "a" / "iteration-1" / "skipped.csv")
    assert len(skipped) == 24 and set(skipped["why"]) == {"unfinished"}
    folder, _, _, said = train(tmp_path / "b", iterations=1, max_length=95, temperature=(0.7,))
    skipped = pd.read_csv(folder / "iteration-1" / "skipped.csv")
    account = json.loads((folder / "iteration-1" / "account.json").read_text())
    counted = account["prompts_without_list"]
    assert counted == skipped["why"].value_counts().to_dict() and skipped["query_id"].is_unique
    assert {"none right", "too long"} <= set(counted) and account["prompts"] == 24
    assert json.loads((folder / "manifest.json").read_text())["prompts_without_list"] == counted
    lists = pd.read_parquet(folder / "iteration-1" / "lists.parquet")
    of_length = set(skipped[skipped["why"] == "too long"]["query_id"])
    assert of_length <= set(lists["query_id"]) and lists["query_id"].nunique() + len(skipped) - len(of_length) == 24
    assert any(f"{counted['none right']} no draw right" in line for line in said)


@pytest.mark.parametrize("by_reward, expected", [(True, ["d1"]), (False, [])])
def test_sft_takes_the_best_by_reward_and_the_right_ones_by_a_verifier(by_reward, expected):
    part = tasks.load("sums", "train", 1)
    draws = {"query_id": part.topics["query_id"][0], "doc_id": ["d0", "d1"], "text": ["a", "b"]}
    run = pd.DataFrame(draws).assign(reward=[-2.0, -1.0] if by_reward else [0, 0])
    lists, skipped = larpo.cut_from(run, part, Train(objective="sft"), 1, by_reward)
    assert lists["doc_id"].tolist() == expected and skipped["why"].tolist() == ([] if by_reward else ["none right"])


def long_and_short(folder):
    """GSM8K's form: 20 training problems of which the third is too long for the model, 6 test problems, the last too."""
    rows = [
        {"question": f"What is {i}+1?", "answer": f"It is <<{i}+1={i + 1}>>{i + 1}.\n#### {i + 1}"} for i in range(26)
    ]
    for i in (2, 25):
        rows[i]["question"] = f"{'Many words go before it. ' * 300} {rows[i]['question']}"
    folder.mkdir()
    for split, part in (("train", rows[:20]), ("test", rows[20:])):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)))
    return str(folder)


def test_prompts_that_are_too_long_are_left_out_and_counted(tmp_path):
    data = long_and_short(tmp_path / "data")
    more = {"dataset": data, "prompts": 20, "iterations": 1, "positives_from": "both", "eval_split": "test", "eval_limit": 6}  # fmt: skip
    folder, results, _, said = train(tmp_path / "a", **more)
    assert len(pd.read_parquet(folder / "iteration-1" / "run.parquet")["query_id"].unique()) == 19
    assert (results["n"] == 5).all()  # of the six that are measured on
    assert any("left out 1 of 20 prompts of data (train): longer than " in line for line in said)
    assert any("left out 1 of 6 prompts of data (test): longer than " in line for line in said)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["prompts_left_out"] == {"data train": 1, "data test": 1}
    with pytest.raises(UserError, match="has only 19"):
        train(tmp_path / "b", **more | {"prompts": 22})
    with pytest.raises(UserError, match="exceeds the model's 1024 positions"):
        train(tmp_path / "c", **more, max_prompt_length=0)
    with pytest.raises(
        UserError, match="none of 20 prompts of data .train. has at most 3 tokens .--max-prompt-length."
    ):
        train(tmp_path / "d", **more, max_prompt_length=3)


def test_pass_at_n_is_over_the_prompts_that_fit(tmp_path):
    data, said = long_and_short(tmp_path / "data"), []
    settings = PassK(dataset=data, n=2, at=(1,), temperature=(1.0,), out=str(tmp_path / "a"))
    folder, results = run_passk(settings, said.append)
    assert (results["n"] == 5).all() and any("left out 1 of 6 prompts" in line for line in said)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["prompts"] == 5 and manifest["prompts_left_out"] == {"data test": 1}
    with pytest.raises(UserError, match="exceeds the model's"):
        run_passk(replace(settings, max_prompt_length=0, out=str(tmp_path / "b")), str)
    with pytest.raises(UserError, match="--max-prompt-length must be at least 0"):
        run_passk(replace(settings, max_prompt_length=-1, out=str(tmp_path / "c")), str)


def test_prompts_of_chats_have_the_papers_limit(tmp_path):
    rows = [{"prompt": "Say it again. " * count} for count in (3, 300)]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task, said = tasks.load(str(tmp_path / "chat.jsonl")), []
    kept = load_policy(Train(dataset=str(tmp_path / "chat.jsonl"), max_tokens=8), None, None, said.append, False)
    assert (
        task.max_prompt_length == 1000 and kept.task.topics["query_id"].tolist() == task.topics["query_id"].tolist()[:1]
    )
    assert any(
        "left out 1 of 2 prompts" in line and "longer than 1,000 tokens (--max-prompt-length)" in line for line in said
    )
    more = Train(dataset=str(tmp_path / "chat.jsonl"), max_tokens=8, max_prompt_length=5000)
    assert any("longer than 1,016 tokens (8 new ones fill" in line for line in _said(more))


def _said(settings):
    said = []
    load_policy(settings, None, None, said.append, False)
    return said


@pytest.mark.parametrize("more, message", [
    ({"pack_up_to": -1}, "pack-up-to"),
    ({"memory": "some"}, "--memory 'some'; known: all, current, previous"),
    ({"positives_from": "silver"}, "--positives-from 'silver'"),
    ({"tier": "hrad"}, "--tier 'hrad'"),
    ({"list_size": 4, "negatives": 3}, "say the same twice"),
    ({"objective": "pairwise", "negatives": 0}, "needs a negative"),
    ({"objective": "sft", "beta": 0.1}, "no parameter 'beta'"),
    ({"objective_args": '{"bta": 1}'}, "did you mean 'beta'"),
    ({"objective_args": "[1]"}, "expected a JSON object"),
    ({"beta": 0.1, "objective_args": '{"beta": 1}'}, "given twice"),
    ({"trainer_args": '{"no_such": 1}'}, "unknown argument 'no_such'"),
    ({"nll": -1.0}, "nll must be 0 or more"),
    ({"objective": "lambdarank", "reward": "pairrm", "objective_args": '{"weighted": 1}'}, 'add "gains": "normalised"'),
    ({"objective": "lambdarank", "objective_args": '{"weighted": 1, "gains": "norm"}'}, "gains is one of grades"),
    ({"n": 1}, "nothing to rank"),
    ({"quantize": "8bit", "lora_rank": 4}, "known: 4bit"),
    ({"max_length": 3}, "no list fits"),
])  # fmt: skip
def test_wrong_settings_are_named(tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        train(tmp_path / "a", **more)
    if message != "no list fits":
        assert not (tmp_path / "a").exists()  # refused before anything is made


def test_a_reward_is_said_in_its_own_units_and_a_rate_in_points():
    """A reward model's score is no share of a hundred."""
    same = {"low": -0.25, "high": 1.5, "p_holm": 0.01, "effect": 0.3, "n": 40}
    names = {"reward": 0.625, "reward, T = 0.7": -12.5, "Reward@4": 0.0, "Pass@1": 0.625, "win rate": -0.125}
    tests = pd.DataFrame([{"measure": name, "difference": by, **same} for name, by in names.items()])
    told = [line.split(" over 40")[0] for line in in_words(tests)]
    assert told == [
        "reward rose by 0.625 [-0.25, +1.5] of the reward's own units",
        "reward, T = 0.7 fell by 12.5 [-0.25, +1.5] of the reward's own units",
        "Reward@4 did not change",
        "Pass@1 rose by 62.5 points [-25.0, +150.0]",
        "win rate fell by 12.5 points [-25.0, +150.0]",
    ]


@pytest.mark.slow
def test_every_so_many_iterations_are_measured_and_the_last(tmp_path):
    """Of three iterations the second and the third: one of these or the start is chosen, and figures know no others."""
    folder, results, *_ = train(tmp_path / "a", iterations=3, eval_every=2, prompts=12)
    assert results["x"].unique().tolist() == [0, 2, 3]
    assert sorted(path.name for path in (folder / "evaluation").iterdir()) == ["0", "2", "3"]
    assert json.loads((folder / "chosen.json").read_text())["iteration"] in (0, 2, 3)
    assert held_out.measured(Train(iterations=5), 5) == [0, 1, 2, 3, 4, 5]
    assert held_out.measured(Train(iterations=5, eval_every=10), 3) == [0]  # not yet the last
