"""`irlens train --lists`: training on what exists, and `--export`: what a training leaves for others."""

import json
from dataclasses import replace

import datasets
import pandas as pd
import pytest
from safetensors.torch import load_file

import irlens
from irlens.base.errors import UserError
from irlens.commands import off_policy
from irlens.commands.settings import Train
from irlens.commands.train import train as run_train
from irlens.models import catalog
from irlens.train import list_files

ROWS = [
    {"prompt": f"Question: What is {i} + {j}?\nAnswer:\n", "completions": [f"#### {i + j}", f"#### {i}", "#### -1"],
     "scores": [2.0, 1.0, 0.0]} for i in range(3, 9) for j in range(4)
]  # fmt: skip
PAIRS = [{"prompt": row["prompt"], "chosen": row["completions"][0], "rejected": row["completions"][1]} for row in ROWS]
CHATS = [
    {side: [{"role": "user", "content": f"What is {i} + 1?"}, {"role": "assistant", "content": f"#### {i + wrong}"}]
     for side, wrong in (("chosen", 1), ("rejected", 2))} for i in range(9)
]  # fmt: skip
QUICK = {"epochs": 1, "batch_lists": 8, "learning_rate": 1e-3}


@pytest.fixture
def file(tmp_path):
    """A file of pairs, or of other rows."""

    def write(rows=PAIRS, name="pairs.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def train(out, lists, **more):
    said = []
    folder, results, tests = run_train(Train(out=str(out), list_file=lists, **{**QUICK, **more}), said.append)
    return folder, results, tests, said


@pytest.mark.parametrize(
    "objective, rows",
    [("pairwise", PAIRS), *(pytest.param(*more, marks=pytest.mark.slow) for more in
     [("listmle", ROWS), ("ipo", CHATS), ("lambdarank", ROWS), ("kto", PAIRS), ("simpo", PAIRS), ("sft", PAIRS), ("contrastive", ROWS)])],
)  # fmt: skip
def test_the_command_and_fit_make_the_same_weights(tmp_path, file, objective, rows):
    lists = file(rows)
    folder, results, tests, said = train(tmp_path / "a", lists, objective=objective, save_dtype="float32")
    made = load_file(folder / "iteration-1" / "model" / "model.safetensors")
    for given in (lists, rows):
        policy = irlens.train.fit("tiny", None, given, objective=objective, **QUICK)
        state = policy.model.state_dict()
        assert all(made[name].equal(state[name].float()) for name in made) and len(made) > 5
    assert results.empty and tests.empty and any("measured on nothing" in line for line in said)
    start = load_file(catalog.fetch(catalog.model("tiny")) / "model.safetensors")
    assert not all(made[name].equal(start[name].float()) for name in made)


@pytest.mark.slow
def test_lists_of_an_iteration_train_as_they_did_there(tmp_path):
    """An iteration's lists with the same seed give its model, byte for byte: nothing but the lists and the start decides."""
    small = {"prompts": 24, "n": 6, "iterations": 1, "eval_limit": 8, "eval_n": 2, "test_limit": 0, **QUICK}
    first, *_ = run_train(Train(out=str(tmp_path / "a"), **small), lambda line: None)
    again, *_ = train(tmp_path / "b", str(first / "iteration-1"))
    model = "iteration-1/model/model.safetensors"
    assert (first / model).read_bytes() == (again / model).read_bytes()
    assert not (again / "iteration-1" / "run.parquet").exists() and not (again / "iteration-1" / "draws").exists()


def test_what_is_held_out_is_never_what_the_lists_ask(tmp_path, file):
    rows = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(30)]
    problems = file(rows, "problems.jsonl")
    asked = [{**PAIRS[0], "prompt": f"Question: What is {i} + 1?\nAnswer:\n", "query": f"What is {i} + 1?"} for i in range(20, 26)]  # fmt: skip
    more = {"dataset": problems, "eval_limit": 4, "eval_n": 2, "test_limit": 4, "objective": "pairwise"}
    folder, results, tests, _ = train(tmp_path / "a", file(asked), **more)
    assert set(results["x"]) == {0, 1} and (results["n"] == 4).all() and tests["n"].unique().tolist() == [4]
    for part in ("evaluation", "test"):
        drawn = set(pd.read_parquet(folder / part / "0" / "run.parquet")["query_id"])
        assert len(drawn) == 4 and not drawn & {f"problems-{i:05d}" for i in range(20, 26)}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert all(found["same_text"] == 0 for found in manifest["contamination"].values())
    assert {found["training_prompts"] for found in manifest["contamination"].values()} == {6}
    assert manifest["lists_trained"] == 6 and manifest["tokens_generated"] == 0
    with pytest.raises(UserError, match="none can be held out"):
        every = [{**PAIRS[0], "prompt": row["question"]} for row in rows]
        train(tmp_path / "b", file(every), **more)


@pytest.mark.parametrize("of_data", ["prompt", "asked"])
def test_columns_are_named_of_the_lists_and_of_the_data_set_at_once(tmp_path, file, of_data):
    """`--columns` is of whichever has the column, be it both; and changes nothing but the names."""
    lists = [{"asked": r["prompt"], "best": r["chosen"], "rejected": r["rejected"]} for r in PAIRS]
    problems = file([{of_data: f"What is {i} + 1?", "gold": f"{i + 1}"} for i in range(90, 99)], "data.jsonl")
    settings = Train(list_file=file(lists), dataset=problems, columns="prompt=asked,chosen=best,answer=gold", verifier="gsm8k",
                     objective="pairwise", eval_limit=3, eval_n=2, test_limit=2, out=str(tmp_path / "a"), **QUICK)  # fmt: skip
    job = off_policy.prepare(settings, str)
    assert list_files.digest(job.lists) == list_files.digest(list_files.read(file(PAIRS, "same.jsonl")))
    assert job.held_out.topics["answers"].tolist() == [["95"], ["96"], ["97"]]
    for wrong in ("prompt=nothing", "completions=gold", "answer=best"):
        with pytest.raises(
            UserError, match=f"--columns {wrong}: no such column .*asked, best, rejected; .*data.jsonl: "
        ):
            off_policy.prepare(replace(settings, columns=wrong), str)
    alone = replace(settings, dataset=None, verifier=None, columns="prompt=asked,chosen=best")
    assert off_policy.prepare(alone, str).lists.equals(job.lists)


def test_a_folder_goes_on_with_the_same_lists_only(tmp_path, file):
    lists = file()
    folder, *_ = train(tmp_path / "a", lists, objective="pairwise")
    pd.DataFrame(PAIRS).to_parquet(tmp_path / "same.parquet")
    before = (folder / "iteration-1" / "model" / "model.safetensors").stat().st_mtime_ns
    *_, said = train(tmp_path / "a", lists, objective="pairwise")
    assert any("nothing is made again" in line for line in said)
    train(tmp_path / "a", str(tmp_path / "same.parquet"), objective="pairwise")
    assert (folder / "iteration-1" / "model" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="was made with list_file"):
        train(tmp_path / "a", file(PAIRS[:-1]), objective="pairwise")


@pytest.mark.parametrize(
    "rows, more, message",
    [
        (PAIRS, ("--iterations", "2"), "leave out --iterations"),
        (PAIRS, ("-n", "4", "--memory", "all"), "leave out -n, --memory"),
        (PAIRS, ("--lists-per-prompt", "2"), "leave out --lists-per-prompt"),
        (PAIRS, ("--columns", "answer=prompt"), "--columns answer=…: known: chosen, completion"),
        (PAIRS, ("--reward", "fsfairx"), "measures nothing: leave out --reward, or add --dataset"),
        (PAIRS, ("--max-length", "5"), "none of 24 lists fits into --max-length 5; the shortest has"),
        (PAIRS, ("--export", "trl,csv"), "--export 'csv'"),
        (PAIRS[:1], ("--objective", "kto"), "one prompt gives lists"),
        ([{**ROWS[0], "scores": [1, 1, 1]}], (), "no list has two different grades, and contrastive compares"),
        (
            [{**ROWS[0], "scores": [1, 0, -1]}],
            ("--objective", "lambdarank", "--objective-args", '{"weighted": 1}'),
            "below 0",
        ),
        ([{**PAIRS[0], "rejected": ""}], (), ":1: a completion must be a non-empty text"),
        ([{"prompt": "a", "chosen": "b"}], (), "no column rejected (found: prompt, chosen); lists need"),
        ([], (), "no column prompt (found: none)"),
        (PAIRS, ("--dataset", "sums", "--eval-split", "none"), "no split 'none'"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(tmp_path, file, refused, rows, more, message):
    assert message in refused("train", "--lists", file(rows), *more, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_half_way_it_ends_as_unbroken(tmp_path, file, irlens, files, kill_and_continue):
    args = ("train", "--lists", file(ROWS * 2), "--objective", "contrastive", "--epochs", "3", "--batch-lists", "4",
            "--learning-rate", "1e-4", "--export", "trl")  # fmt: skip
    kill_and_continue(args, tmp_path / "a", lambda f: any(f.glob("iteration-1/checkpoints/checkpoint-*/complete")))
    irlens(*args, "--out", tmp_path / "b")
    ours, theirs = files(tmp_path / "a"), files(tmp_path / "b")
    assert ours == theirs and {"iteration-1/lists.parquet", "iteration-1/log.csv", "diagnostics.csv"} <= ours.keys()
    model = "iteration-1/model/model.safetensors"
    assert (tmp_path / "a" / model).read_bytes() == (tmp_path / "b" / model).read_bytes()


# -- what a training leaves for others -------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_iteration_leaves_its_lists_and_runs_for_other_trainers(tmp_path):
    small = {"prompts": 24, "n": 6, "iterations": 2, "eval_limit": 8, "eval_n": 2, "test_limit": 0, **QUICK}
    asked = Train(out=str(tmp_path / "a"), export="trl,kto,sentence-transformers", **small)
    folder, *_ = run_train(asked, lambda line: None)
    for s in (1, 2):
        here = folder / f"iteration-{s}"
        found = {path.stem: datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "hf"))
                 for path in (here / "export").iterdir()}  # fmt: skip
        lists, run = pd.read_parquet(here / "lists.parquet"), pd.read_parquet(here / "run.parquet")
        assert set(found) == {
            f"{form}{part}" for form in ("trl", "kto", "sentence-transformers") for part in ("", "-run")
        }
        assert {"prompt", "chosen", "rejected"} <= set(found["trl"].column_names)
        assert set(found["trl"]["chosen_id"]) == set(lists["doc_id"][lists["tier"] == "positive"])
        assert set(found["kto"].column_names) == set(found["kto-run"].column_names) == {"prompt", "completion", "label"}
        assert found["kto-run"]["label"][:] == (run["reward"] > 0).tolist() and len(run) == 24 * 6
        assert found["trl-run"]["completion"][:] == run["text"].tolist()
        assert found["trl-run"]["reward"][:] == run["reward"].tolist()
        assert found["sentence-transformers"].column_names[:3] == ["anchor", "positive", "negative_1"]
        assert found["sentence-transformers-run"]["score"][:] == run["reward"].tolist()
        assert all(prompt.startswith("Question: ") for prompt in found["trl"]["prompt"])
    pairs = list_files.read(folder / "iteration-2" / "export" / "trl.jsonl")
    assert len(pairs) == 2 * len(found["trl"]) and set(pairs["query"]) == set(lists["query"])


def test_a_reward_models_draws_have_no_labels_and_contradictions_are_counted(tmp_path):
    from types import SimpleNamespace

    from irlens.commands import exported
    from irlens.models.chat import Prompt

    def row(text, tier, number):
        return {"query_id": "a", "query": "q", "doc_id": f"a/{text}{number}", "text": text, "grade": 0.0, "tier": tier,
                "iteration": 1, "list": number}  # fmt: skip

    rows = [row("x", "positive", 0), row("y", "own", 0), row("y", "positive", 1), row("z", "own", 1)]
    (tmp_path / "iteration-1").mkdir()
    run = pd.DataFrame({"query_id": ["a"], "text": ["x"], "reward": [-0.5]})
    run.to_parquet(tmp_path / "iteration-1" / "run.parquet")
    said, task = [], SimpleNamespace(topics=pd.DataFrame({"query_id": ["a"], "query": ["q"]}))
    policy = SimpleNamespace(tokenizer=SimpleNamespace(chat_template=None), task=task)
    job = SimpleNamespace(out=tmp_path, policy=policy, judge=SimpleNamespace(is_reward=True), say=said.append,
                          settings=Train(export="kto,trl"))  # fmt: skip
    exported.write(job, 1, pd.DataFrame(rows), [Prompt("a", "Question: q")])
    assert {p.name for p in (tmp_path / "iteration-1" / "export").iterdir()} == {
        "kto.jsonl",
        "trl.jsonl",
        "trl-run.jsonl",
    }
    kto = [json.loads(line) for line in (tmp_path / "iteration-1" / "export" / "kto.jsonl").read_text().splitlines()]
    assert [(r["completion"], r["label"]) for r in kto] == [("x", True), ("z", False)]
    assert said == [
        "iteration 1: kto.jsonl leaves out 1 responses that are a positive in one list and a negative in another"
    ]
