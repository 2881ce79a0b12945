"""The trainer: what it logs and refuses, and that accumulation, processes and kills do not change the trajectory."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from random_lists import examples
from transformers import AutoTokenizer

from irlens.base.errors import UserError
from irlens.models import catalog
from irlens.models.logprobs import layout
from irlens.train import adapters
from irlens.train import losses as objectives
from irlens.train.data import check_vocabulary, collate, fitting, tokenise, with_reference
from irlens.train.in_folder import displaced, log_of
from irlens.train.options import TrainOptions
from irlens.train.trainer import Steps, train, training_arguments


def options(objective, learning_rate, epochs, batch_lists, at_once, **more):
    return TrainOptions(objective=objective, learning_rate=learning_rate, epochs=epochs, batch_lists=batch_lists, lists_at_once=at_once, **more)  # fmt: skip


def trained(model, tokenizer, some, how, folder):
    """The log of a training, an entry per step that was logged."""
    history = train(model, tokenizer, some, how, folder).state.log_history
    return [entry for entry in history if "loss" in entry]


@pytest.fixture(scope="module")
def policy():
    return catalog.fetch(catalog.model("tiny"))


def uneven(count, mismatched):
    """Lists of which the third says nothing: all its grades are equal."""
    some = examples(count)
    some[2] = replace(some[2], grades=[0.0] * 3)
    if mismatched:
        some = [replace(e, mismatched=some[(i + 1) % count].responses[0]) for i, e in enumerate(some)]
    return some


# objective, lists, lists per step: none of them divides well. KTO's z is of a whole step
UNEVEN = [("contrastive", 6, 4), ("kto", 7, 5), ("sft", 3, 2), ("grpo", 6, 4)]


def steps(policy, folder, at_once):
    """What the log says of every step of UNEVEN, two epochs each; with SGD, which does not amplify rounding."""
    found = []
    for number, (name, count, size) in enumerate(UNEVEN):
        objective = objectives.get(name)
        model, tokenizer = adapters.load(policy)
        how = options(name, 0.01, 2, size, at_once, trainer_args={"logging_steps": 1, "optim": "sgd"})
        log = trained(model, tokenizer, uneven(count, objective.mismatched), how, folder / str(number))
        names = ("loss", "grad_norm", "logp_positive", "list_size")
        found += [[entry[name] for name in names] for entry in log]
    return list(zip(*found))


def losses(policy, folder, *, at_once=4, name="contrastive", epochs=1, count=16, arguments=None, **more):
    """The loss of every step of a small training."""
    model, tokenizer = adapters.load(policy)
    how = options(name, 1e-3, epochs, 8, at_once, trainer_args={"logging_steps": 1, **(arguments or {})}, **more)
    return trained(model, tokenizer, examples(count), how, folder)


def test_accumulation_does_not_change_the_trajectory(policy, tmp_path):
    whole = losses(policy, tmp_path / "a", at_once=8)
    parts = losses(policy, tmp_path / "b", at_once=2)
    assert len(whole) == 2
    for a, b in zip(whole, parts):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


def test_the_log_says_what_happens_to_positives_and_negatives(policy, tmp_path):
    log = losses(policy, tmp_path / "a", epochs=8)
    first, last = log[0], log[-1]
    assert first["reward_margin"] == pytest.approx(0, abs=1e-3) and first["kl"] == pytest.approx(0, abs=1e-3)
    assert last["reward_margin"] > 0.5 and last["reward_accuracy"] > 0.8 and last["loss"] < first["loss"]
    assert last["logratio_positive"] > last["logratio_negative"] and last["logp_positive"] < 0
    assert first["list_size"] == 3 and first["share_positive"] == pytest.approx(1 / 3) and first["response_tokens"] > 2


class Killed(BaseException):
    """A death in the middle of a step."""


@pytest.mark.parametrize(
    "arguments, dies",
    [
        ({}, 8),
        pytest.param({"save_steps": 3, "logging_steps": 4}, 8, marks=pytest.mark.slow),
        pytest.param({"save_strategy": "epoch"}, 7, marks=pytest.mark.slow),
    ],
)
def test_a_training_that_continues_has_the_log_of_an_unbroken_one(policy, tmp_path, monkeypatch, arguments, dies):
    """What was watched between a line of the log and the checkpoint is in it too, and every column in its place."""
    objective, steps = objectives.get("pairwise"), [0]

    def loss(scores, beta=0.1):
        steps[0] += 1
        if steps[0] == dies:
            raise Killed
        return objective.loss(scores, beta)

    monkeypatch.setitem(objectives.OBJECTIVES, "pairwise", replace(objective, loss=loss))
    how = options("pairwise", 1e-3, 5, 8, 8, trainer_args=arguments)
    with pytest.raises(Killed):
        train(*adapters.load(policy), examples(16), how, tmp_path / "a")
    logs = [log_of(train(*adapters.load(policy), examples(16), how, tmp_path / name)).to_csv() for name in "ab"]
    assert steps[0] < dies + 20 and logs[0] == logs[1] and logs[0].startswith(",loss,grad_norm,learning_rate,kl,")


def test_checkpoints_come_with_lines_of_the_log(tmp_path):
    """Else there would be a line more for each of them."""
    for steps in range(1, 200):
        told = training_arguments(tmp_path, options("pairwise", 1e-3, 1, 1, 1), steps, 1000)
        assert told.save_steps % told.logging_steps == 0 and 3 <= max(3, steps) // told.save_steps <= 8


@pytest.mark.parametrize("name", [name for name, o in objectives.OBJECTIVES.items() if not o.uses_reference])
def test_without_a_reference_there_are_no_log_ratios(policy, tmp_path, name):
    """Zeros in the reference's place would make every log-ratio a log-probability, and every run displaced."""
    log = losses(policy, tmp_path / "a", name=name, count=8)
    of_reference = {"kl", "logratio_positive", "logratio_negative", "reward_margin", "reward_accuracy"}
    assert log[0]["logp_positive"] < -1 and not of_reference & set(log[0])
    assert displaced(pd.DataFrame(log)) == []


def test_a_loss_that_is_not_finite_names_the_list_and_keeps_the_checkpoint(policy, tmp_path):
    model, tokenizer = adapters.load(policy)
    some = examples(16)
    some[11] = replace(some[11], name="the bad one")
    how = options("sft", 1e-3, 4, 4, 4, trainer_args={"save_steps": 1})
    broken = []

    class Fails(type(model)):
        def forward(self, input_ids=None, **kwargs):
            if broken and any(row[: len(some[11].prompt)].tolist() == some[11].prompt for row in input_ids):
                kwargs["inputs_embeds"] = self.get_input_embeddings()(input_ids) * float("nan")
                input_ids = None
            broken.extend([1] * (len(list((tmp_path / "c").glob("checkpoint-*/complete"))) > 0))
            return super().forward(input_ids=input_ids, **kwargs)

    model.__class__ = Fails
    with pytest.raises(FloatingPointError, match="the list of "):
        train(model, tokenizer, some, how, tmp_path / "c")
    assert list((tmp_path / "c").glob("checkpoint-*/complete"))


def test_a_log_is_the_same_after_a_checkpoint_which_sorts_it():
    entries = [{"loss": 2.0 - s, "grad_norm": 1.0, "epoch": s / 2, "step": s} for s in (1, 2)]
    kept = json.loads(json.dumps([*entries, {"train_runtime": 3.0}], sort_keys=True))
    whole, again = (log_of(SimpleNamespace(state=SimpleNamespace(log_history=some))) for some in (entries, kept))
    assert list(whole) == ["loss", "grad_norm", "epoch", "step"]
    pd.testing.assert_frame_equal(again, whole)


def test_what_is_said_of_a_failure_has_a_line_of_its_own(policy, tmp_path, capsys):
    """The bar ends its line when the training does, however that is."""
    model, tokenizer = adapters.load(policy)

    def fail(*_, **__):
        raise OSError("no room")

    model.save_pretrained = fail
    with pytest.raises(OSError) as failed:
        train(model, tokenizer, examples(8), options("sft", 1e-3, 1, 4, 4), tmp_path / "c")
    assert failed.tb and "loss" in (said := capsys.readouterr().err) and said[-1] == "\n"


def test_lists_that_are_too_long_go_whole():
    some = examples(10)
    limit = sorted(e.longest for e in some)[5]
    kept = fitting(some, limit)
    assert 0 < len(kept) < 10 and all(e in some for e in kept) and max(e.longest for e in kept) <= limit
    assert fitting(some, None) == some


def test_a_tokenizer_of_another_model_is_refused(policy):
    model, _ = adapters.load(policy)
    bad = [replace(examples(1)[0], prompt=[5000])]
    with pytest.raises(UserError, match="token id 5000, the model knows 585"):
        check_vocabulary(model, bad, lambda: "tiny")


def test_weights_of_another_architecture_are_refused(policy, tmp_path):
    import shutil

    shutil.copytree(policy, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 9}))
    with pytest.raises(UserError, match=r"layers\.\d.* is missing"):
        adapters.load(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"model_type": "nosuch"}))
    with pytest.raises(UserError, match="cannot be loaded as a causal language model"):
        adapters.load(tmp_path / "m")


def test_an_empty_response_of_a_given_list_is_refused(policy):
    tokenizer = AutoTokenizer.from_pretrained(policy)
    rows = [("q", "1+1?", "a", "two", 1.0, "positive", 0, 0), ("q", "1+1?", "b", "", 0.0, "own", 0, 0)]
    columns = ["query_id", "query", "doc_id", "text", "grade", "tier", "iteration", "list"]
    with pytest.raises(UserError, match="response b is empty"):
        tokenise(pd.DataFrame(rows, columns=columns), {"q": [5]}, tokenizer)


def test_mismatched_responses_come_from_other_prompts(policy):
    tokenizer = AutoTokenizer.from_pretrained(policy)
    rows = []
    for q in ("q", "p"):
        for number in (0, 1):
            rows += [(q, q, f"{q}{number}a", f"yes {q}", 1.0, "positive", 0, number)]
            rows += [(q, q, f"{q}{number}b", f"no {number}", 0.0, "own", 0, number)]
    lists = pd.DataFrame(rows, columns=["query_id", "query", "doc_id", "text", "grade", "tier", "iteration", "list"])
    out = tokenise(lists, {"q": [5], "p": [6]}, tokenizer, mismatched=True)
    text = [tokenizer.decode(e.mismatched[:-1]) for e in out]
    assert text == ["yes p", "yes p", "yes q", "yes q"]
    with pytest.raises(UserError, match="two prompts or more"):
        tokenise(lists[lists["query_id"] == "q"], {"q": [5]}, tokenizer, mismatched=True)
    model, _ = adapters.load(policy)
    known = with_reference(model, out, 0, 2)
    alone = replace(out[0], responses=[out[0].mismatched], grades=[1.0], tiers=["x"], reference=[0.0], mismatched=None)
    assert known[0].mismatched_reference == pytest.approx(
        with_reference(model, [alone], 0, 1)[0].reference[0], abs=1e-4
    )
    assert collate(known, 0, layout(model))["mismatched_reference"].shape == (4,)


KINDS = (*objectives.names()[:14:2], "grpo")  # the others differ in their formula alone


@pytest.mark.parametrize(
    "name", [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in objectives.names()]
)
def test_every_objective_trains(policy, tmp_path, name):
    objective = objectives.get(name)
    model, tokenizer = adapters.load(policy)
    some = examples(8, 1 if not objective.needs_negative else 3)
    if objective.mismatched:
        some = [replace(e, mismatched=some[(i + 1) % 8].responses[0]) for i, e in enumerate(some)]
    how = options(name, 1e-3, 3, 8, 8, trainer_args={"logging_steps": 1})
    values = [entry["loss"] for entry in trained(model, tokenizer, some, how, tmp_path / "c")]
    assert len(values) == 3 and values[-1] < values[0]


def test_trainer_arguments_are_checked(tmp_path):
    how = options("pairwise", 1e-3, 1, 8, 4)
    assert training_arguments(tmp_path, how, 100, 10).gradient_accumulation_steps == 2
    with pytest.raises(UserError, match="did you mean 'optim'"):
        training_arguments(tmp_path, replace(how, trainer_args={"optimm": "sgd"}), 100, 10)
    with pytest.raises(UserError, match="set by irlens"):
        training_arguments(tmp_path, replace(how, trainer_args={"max_steps": 3}), 100, 10)
    kept = training_arguments(tmp_path, replace(how, trainer_args={"gradient_checkpointing": True}), 100, 10)
    assert kept.gradient_checkpointing is True


def test_likelihood_displacement_is_said_in_words():
    rows = [{"logratio_positive": 0.1 - i, "logratio_negative": -2.0 * i} for i in range(8)]
    (warning,) = displaced(pd.DataFrame(rows))
    assert "fell by 6.40 nats" in warning and "13.00" in warning and "--nll" in warning
    fell = pd.DataFrame([{"logratio_positive": -9.0, "logratio_negative": -9.0}])
    assert displaced(fell) and displaced(fell.drop(columns="logratio_positive")) == []
    assert displaced(pd.DataFrame([{"logratio_positive": 0.5, "logratio_negative": -1.0}])) == []


def test_lora_saves_whole_weights(policy, tmp_path):
    pytest.importorskip("peft")
    model, tokenizer = adapters.load(policy, lora_rank=4)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert frozen > 300_000
    trainer = train(model, tokenizer, examples(8, 2), options("pairwise", 1e-2, 4, 8, 8), tmp_path / "c")
    adapters.save(trainer, policy, tokenizer, "tiny", tmp_path / "m")
    merged, start = adapters.load(tmp_path / "m")[0], adapters.load(policy)[0]
    moved = {n for (n, a), (_, b) in zip(merged.named_parameters(), start.named_parameters()) if not torch.equal(a, b)}
    assert moved and all("proj" in name for name in moved)


@pytest.mark.parametrize("rank", [None, 4])
def test_a_policy_in_bfloat16_is_the_trained_one_rounded_and_says_so(policy, tmp_path, rank):
    """Half the bytes, in plain transformers and by its own config; what it trained stays float32 in the checkpoints."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    if rank:
        pytest.importorskip("peft")
    model, tokenizer = adapters.load(policy, lora_rank=rank)
    trainer = train(model, tokenizer, examples(8, 2), options("pairwise", 1e-2, 2, 8, 8), tmp_path / "c")
    for dtype in ("float32", "bfloat16"):
        adapters.save(trainer, policy, tokenizer, "tiny", tmp_path / dtype, dtype)
    whole, half = (load_file(tmp_path / dtype / "model.safetensors") for dtype in ("float32", "bfloat16"))
    assert whole.keys() == half.keys() and {value.dtype for value in half.values()} == {torch.bfloat16}
    assert all(torch.equal(whole[name].to(torch.bfloat16), half[name]) for name in whole)
    assert any(not torch.equal(whole[name], half[name].float()) for name in whole)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "bfloat16", dtype="auto").dtype == torch.bfloat16
    (checkpoint,) = (tmp_path / "c").glob("checkpoint-*")
    assert {value.dtype for value in load_file(next(checkpoint.glob("*.safetensors"))).values()} == {torch.float32}


def test_one_whole_checkpoint_remains_and_is_marked_before_the_one_before_it_goes(policy, tmp_path, monkeypatch):
    import shutil

    seen, remove = [], shutil.rmtree

    def removes(path, *args, **kwargs):
        seen.append((Path(path).name, sorted(p.parent.name for p in tmp_path.glob("checkpoint-*/complete"))))
        remove(path, *args, **kwargs)

    monkeypatch.setattr("irlens.train.trainer.shutil.rmtree", removes)
    model, tokenizer = adapters.load(policy)
    how = options("pairwise", 1e-3, 3, 8, 8, trainer_args={"save_steps": 1})
    train(model, tokenizer, examples(8, 2), how, tmp_path)
    assert seen == [(f"checkpoint-{i}", [f"checkpoint-{i}", f"checkpoint-{i + 1}"]) for i in (1, 2)]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]


class Trap:
    """What runs where it is unpickled."""

    def __init__(self, to):
        self.to = str(to)

    def __reduce__(self):
        return open, (self.to, "w")


def test_a_pickle_that_was_planted_in_a_checkpoint_is_not_run(policy, tmp_path):
    import shutil

    model, tokenizer = adapters.load(policy)
    train(model, tokenizer, examples(8, 2), options("pairwise", 1e-3, 1, 8, 8), tmp_path / "c")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (checkpoint,) = shutil.copytree(tmp_path / "c", tmp_path / name).glob("checkpoint-*")
        assert (checkpoint / name).is_file()
        torch.save(Trap(tmp_path / "sprung"), checkpoint / name)
        (checkpoint / "checksums.txt").unlink()  # which would have it made again
        with pytest.raises(UserError, match="not a readable checkpoint"):
            train(model, tokenizer, examples(8, 2), options("pairwise", 1e-3, 2, 8, 8), tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def run_workers(count, kind, policy, out):
    """`python this file` in `count` processes under torch's launcher; the losses that the first one wrote."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    done = subprocess.run(
        [*command, __file__, kind, str(policy), str(out)], env=env, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((out / "losses.json").read_text())


@pytest.mark.slow  # tests/train/test_phase.py has it as it is started
def test_two_processes_under_ddp_train_as_one(policy, tmp_path):
    two = run_workers(2, "trainer", policy, tmp_path / "two")
    one = run_workers(1, "trainer", policy, tmp_path / "one")
    assert len(one) == len(two) == 4
    assert two == pytest.approx(one, rel=2e-4)


@pytest.mark.slow
def test_a_step_is_the_same_however_its_lists_are_cut(policy, tmp_path):
    """Any number of lists, passes of any size, one process or two: a mean over the lists that say something."""
    whole = steps(policy, tmp_path / "whole", 8)
    assert len(whole[0]) == 2 * (2 + 2 + 2 + 2)
    others = [steps(policy, tmp_path / str(at_once), at_once) for at_once in (1, 3)]
    others += [run_workers(2, "uneven", policy, tmp_path / "two")]
    for losses, *watched in others:
        assert losses == pytest.approx(whole[0], rel=1e-6, abs=1e-6)  # of policy gradients 0 to begin with
        for values, expected in zip(watched, whole[1:]):
            assert values == pytest.approx(expected, rel=1e-5)


def test_every_list_comes_once_an_epoch_in_steps_of_the_size_asked_for():
    for lists, size, at_once, processes in ((6, 4, 4, 2), (7, 5, 2, 2), (33, 32, 1, 4), (1, 8, 3, 2), (10, 10, 16, 1)):
        epoch = [0]
        sampler = Steps(lists, size, at_once, processes, 5, lambda: epoch[0])
        order = list(sampler)
        assert len(order) == len(sampler) and len(order) % (at_once * processes) == 0
        assert sorted(i for i in order if i < lists) == list(range(lists)) and set(order) <= set(range(lists + 1))
        passes = -(-size // (at_once * processes)) * processes * at_once
        first = [i for i in order[:passes] if i < lists]
        assert len(first) == min(size, lists)
        shares = [len([i for i in order[k : k + at_once] if i < lists]) for k in range(0, passes, at_once)]
        assert lists < size or max(shares) - min(shares) <= 1
        epoch[0] = 1
        assert lists == 1 or [i for i in sampler if i < lists] != [i for i in order if i < lists]


def test_kto_z_is_of_the_whole_step(policy, tmp_path, monkeypatch):
    """The loss reads as many mismatched responses as the step has lists, though it sees one list at a time."""
    objective, seen = objectives.get("kto"), []

    def loss(scores, beta=0.1):
        seen.append((len(scores.mask), len(scores.mismatched)))
        return objective.loss(scores, beta)

    model, tokenizer = adapters.load(policy)
    monkeypatch.setitem(objectives.OBJECTIVES, "kto", replace(objective, loss=loss))
    train(model, tokenizer, uneven(8, True), options("kto", 1e-3, 1, 6, 1), tmp_path / "c")
    assert {lists for lists, _ in seen} == {1} and {mismatched for _, mismatched in seen} == {6, 2}


@pytest.mark.slow
def test_the_whole_command_under_a_launcher_is_that_of_one_process(tmp_path, irlens):
    args = ["train", "--prompts", "24", "-n", "6", "--iterations", "1", "--epochs", "1", "--batch-lists", "4"]
    args += ["--eval-limit", "6", "--eval-n", "2", "--test-limit", "0", "--out"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "irlens"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, *args, str(tmp_path / "two")], env=env, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert done.stdout.count("written to") == 1 and done.stdout.count("engine: ") == 1
    irlens(*args, tmp_path / "one")
    two, one = (
        pd.read_csv(tmp_path / name / "iteration-1" / "log.csv")["grad_norm"].tolist() for name in ("two", "one")
    )
    assert len(one) == len(two) > 3
    assert two == pytest.approx(one, rel=0.02)


def worker(kind, policy, out):
    """One process of `run_workers`."""
    rank, out = int(os.environ["RANK"]), Path(out)
    if kind == "trainer":
        values = [entry["loss"] for entry in losses(policy, out / "c", at_once=4, epochs=2)]
    else:
        values = steps(policy, out, 2)
    if rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        (out / "losses.json").write_text(json.dumps(values))


if __name__ == "__main__":
    worker(*sys.argv[1:])
