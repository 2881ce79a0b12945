"""Between trainings: the learning rate's course over the iterations, and an optimiser that is kept, or lost, or begins anew."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from random_lists import examples

import irlens
from irlens.base.errors import UserError
from irlens.models import catalog
from irlens.train import adapters, trainer
from irlens.train import losses as objectives
from irlens.train.course import State, factor
from irlens.train.data import collate, shuffled, with_reference
from irlens.train.losses import Scores
from irlens.train.options import LarpoOptions, TrainOptions

SMALL = {"prompts": 12, "n": 6, "epochs": 1, "batch_lists": 4, "learning_rate": 1e-3, "iterations": 2}


def rates(schedule, keep, iterations, steps, warm):
    options = LarpoOptions(schedule=schedule, keep_optimiser=keep, iterations=iterations)
    return [[factor(options, s, steps, warm, step) for step in range(steps)] for s in range(1, iterations + 1)]


def test_a_constant_rate_by_hand():
    """A warm-up of one step: half the rate, then all of it; in every iteration, or where the optimiser is kept once."""
    assert rates("constant", False, 2, 3, 1) == [[0.5, 1, 1], [0.5, 1, 1]]
    assert rates("constant", True, 2, 3, 1) == [[0.5, 1, 1], [1, 1, 1]]
    assert rates("constant", True, 4, 1, 3) == [[0.25], [0.5], [0.75], [1]]  # fresh draws at every step


def test_one_cosine_over_all_iterations_by_hand():
    """Of four steps in two iterations: 1, cos^2(pi / 8), 1/2, sin^2(pi / 8), as one training of four steps has them."""
    found = rates("cosine-over-all", False, 2, 2, 0)
    whole = rates("cosine-over-all", False, 1, 4, 0)
    assert found[0] + found[1] == pytest.approx(whole[0])
    assert whole[0] == pytest.approx([1, 0.8535534, 0.5, 0.1464466])


@pytest.fixture(scope="module")
def policy():
    return catalog.fetch(catalog.model("tiny"))


def fit(policy, folder, count=16, state=None, iteration=1, **how):
    model, tokenizer = adapters.load(policy)
    options = LarpoOptions(**{"learning_rate": 1e-3, "epochs": 1, "batch_lists": 4, "trainer_args": {"logging_steps": 1}, **how})  # fmt: skip
    return trainer.train(model, tokenizer, examples(count), options, folder, iteration, state or State())


def logged(done):
    return [entry["learning_rate"] for entry in done.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    "given, schedule, keeps",
    [
        ({}, "constant", True),
        ({"schedule": "constant"}, "constant", False),
        ({"schedule": "cosine", "keep_optimiser": True}, "cosine", True),
        ({"iterations": 1}, "cosine", False),
        ({"lora_rank": 4}, "constant", False),
        ({"trainer_args": '{"lr_scheduler_type": "linear"}'}, "cosine", False),
    ],
)
def test_what_nobody_gives_is_the_models_over_several_iterations(given, schedule, keeps):
    """Its course is taken whole or not at all, and is the paper's where there is one iteration."""
    found = LarpoOptions(**given).of_model(catalog.Model("own", "", schedule="constant", keep_optimiser=True))
    assert (found.schedule, found.keep_optimiser) == (schedule, keeps)
    plain = LarpoOptions(**given).of_model(catalog.MODELS["mathstral"])
    assert plain.schedule == given.get("schedule", "cosine") and plain.keep_optimiser == ("keep_optimiser" in given)


def test_the_trainer_follows_the_schedule(policy, tmp_path):
    """Four steps an iteration, of which transformers' cosine spends none on a warm-up; the rate of a step is logged after it."""
    cosine = logged(fit(policy, tmp_path / "a"))
    constant = logged(fit(policy, tmp_path / "b", schedule="constant", iterations=2))
    over_all = logged(fit(policy, tmp_path / "c", schedule="cosine-over-all", iterations=2, iteration=2))
    assert constant == [1e-3] * 4
    assert cosine == pytest.approx([1e-3, 8.535534e-4, 5e-4, 1.464466e-4])
    assert over_all == pytest.approx([5e-4, 3.086583e-4, 1.464466e-4, 3.806023e-5])


def test_a_kept_optimiser_goes_on_and_its_file_is_the_same_every_time(policy, tmp_path):
    for name in ("a", "b"):
        fit(policy, tmp_path / name, state=State(None, tmp_path / f"{name}.pt"))
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    kept = torch.load(tmp_path / "a.pt", weights_only=True)
    assert {int(state["step"]) for state in kept.values()} == {4}
    fit(policy, tmp_path / "c", state=State(tmp_path / "a.pt", tmp_path / "c.pt"), schedule="constant")
    after = torch.load(tmp_path / "c.pt", weights_only=True)
    assert {int(state["step"]) for state in after.values()} == {
        8
    }  # and the rate is this training's, not the last one's
    (tmp_path / "other.pt").write_bytes(b"no state")
    for name in ("missing.pt", "other.pt"):
        with pytest.raises(UserError, match=f"{name}: not the state of this optimiser"):
            State(tmp_path / name).take(torch.optim.AdamW([torch.zeros(2, requires_grad=True)]))


def weights(folder):
    return [(folder / f"iteration-{s}" / "model" / "model.safetensors").read_bytes() for s in (1, 2)]


@pytest.mark.slow
def test_a_loop_with_a_kept_optimiser_continues_to_the_byte(tmp_path, monkeypatch):
    """Killed after the first iteration; then its state is lost, and the first iteration is trained again for it."""

    def run(out, **more):
        return irlens.larpo("tiny", irlens.load("sums", "train", 12), out=out, objective="pairwise", **SMALL, **more)

    run(tmp_path / "kept", keep_optimiser=True, schedule="constant")
    run(tmp_path / "constant", schedule="constant")
    whole, constant = weights(tmp_path / "kept"), weights(tmp_path / "constant")
    assert whole[0] == constant[0] and whole[1] != constant[1]  # one iteration knows of no state
    assert not list(tmp_path.rglob("optimiser.pt"))

    real = trainer.train
    monkeypatch.setattr(trainer, "train", lambda *a, **k: real(*a, **k) if a[5] == 1 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "broken", keep_optimiser=True, schedule="constant")
    monkeypatch.setattr(trainer, "train", real)
    state = tmp_path / "broken" / "iteration-1" / "optimiser.pt"
    assert state.is_file()
    state.write_bytes(state.read_bytes()[:-1])  # damaged: deleted, and made again
    run(tmp_path / "broken", keep_optimiser=True, schedule="constant")
    assert weights(tmp_path / "broken") == whole and not state.exists()
    with pytest.raises(UserError, match="schedule = 'constant', now 'cosine'"):
        run(tmp_path / "broken", keep_optimiser=True, schedule="cosine")


@pytest.mark.slow
def test_without_a_folder_the_optimiser_is_kept_too(monkeypatch):
    seen, real = [], State.take

    def take(self, optimiser):
        real(self, optimiser)
        seen.append(len(optimiser.state))

    monkeypatch.setattr(State, "take", take)
    irlens.larpo("tiny", irlens.load("sums", "train", 12), objective="pairwise", keep_optimiser=True, **SMALL)
    assert len(seen) == 2 and seen[0] == 0 < seen[1]


@pytest.mark.parametrize(
    "more, message",
    [
        ({"schedule": "linear"}, "--schedule 'linear'.*cosine-over-all"),
        ({"schedule": "constant", "trainer_args": '{"lr_scheduler_type": "linear"}'}, "say the same twice"),
        ({"keep_optimiser": True, "lora_rank": 4}, "--keep-optimiser and --lora-rank: every iteration has adapters"),
        ({"keep_optimiser": True, "trainer_args": '{"deepspeed": "x.json"}'}, "no process holds the whole state"),
        ({"objective": "sft", "shuffle_grades": True}, "--shuffle-grades: objective 'sft' compares no grades"),
        ({"objective": "grpo", "positives": 2, "lists": 3}, "'grpo' takes all draws.*leave out --positives, --lists-per-prompt"),
        ({"objective": "rloo", "positives_from": "both", "tier": "easy", "memory": "all"}, "--positives-from, --tier, --memory"),
        ({"objective": "pkpo", "n": 3}, "'pkpo': k = 4 is more than the 3 draws of a prompt"),
        ({"all_draws": True, "list_size": 4}, "--all-draws, .*leave out --list-size"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(more, message, monkeypatch):
    monkeypatch.setattr(adapters, "check_adapters", lambda *args: None)
    with pytest.raises(UserError, match=message):
        LarpoOptions(**more).check()


# -- placebo, tokens -----------------------------------------------------------------------------------------------


def test_shuffled_grades_are_the_same_grades_elsewhere():
    some = [replace(e, grades=[3.0, 2.0, 1.0]) for e in examples(40)]
    found = shuffled(some, 7)
    assert all(sorted(e.grades) == [1, 2, 3] for e in found)
    assert [replace(e, grades=[]) for e in found] == [replace(e, grades=[]) for e in some]
    assert len({tuple(e.grades) for e in found}) == 6  # every order
    assert found == shuffled(some, 7) != shuffled(some, 8)
    assert shuffled(some[5:6], 7) == found[5:6]  # whatever lies beside it


@pytest.mark.parametrize("name", ["pairwise", "grpo"])
def test_a_training_on_shuffled_grades_is_another_one(policy, tmp_path, name):
    how = {"objective": name, "trainer_args": {"logging_steps": 1, "save_strategy": "no"}}
    plain, placebo, again = (
        fit(policy, tmp_path / str(i), shuffle_grades=on, **how).state.log_history for i, on in enumerate((0, 1, 1))
    )
    assert plain[0]["grad_norm"] != placebo[0]["grad_norm"] == again[0]["grad_norm"]


@pytest.mark.parametrize("pack_up_to", [0, None])
def test_a_token_has_the_reference_of_its_place(policy, pack_up_to):
    """Sums over a response's tokens are the response's, however lists lie in rows; at the start all ratios are 1."""
    model, _ = adapters.load(policy)
    known = with_reference(model, examples(5, 4), 0, 2, pack_up_to=pack_up_to, by_token=True)
    for example in known:
        assert [len(tokens) for tokens in example.token_reference] == [len(r) for r in example.responses]
        assert [sum(tokens) for tokens in example.token_reference] == pytest.approx(example.reference, abs=1e-4)
    from irlens.models.logprobs import layout
    from irlens.train.data import read_scores

    batch = collate([*known, known[0].blank()], 0, layout(model, pack_up_to))
    read = [batch[name] for name in ("reference", "length", "grade", "mask")]
    scores = read_scores(model, batch["packed"], read, batch["token_reference"], squared=True)
    assert isinstance(scores, Scores) and scores.by_token.log_ratio.abs().max() < 1e-4
    assert (scores.squared[scores.mask] < 0).all() and objectives.get("grpo")(scores).abs() < 1e-4
    alone = collate([known[0].blank()], 0, layout(model, pack_up_to))
    assert not alone["mask"].any()


def test_log_squares_are_those_of_the_whole_distribution(policy):
    """Through the fused head, and through a head that can only be called."""
    from irlens.models.logprobs import layout, pack, token_logprobs

    model, _ = adapters.load(policy)
    packed = pack([[5, 6, 7]], [[[8, 9, 1], [10, 1]]], layout(model, 0))
    with torch.no_grad():
        found = token_logprobs(model, packed, squared=True)
        logits = model(packed.input_ids, attention_mask=packed.branch >= 0).logits.flatten(0, 1)[packed.source]
    expected = logits.log_softmax(-1).exp().square().sum(-1).log()
    assert found[:, 1].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert found[:, 0].tolist() == pytest.approx(token_logprobs(model, packed).tolist(), abs=1e-6)
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda *args: None)
    head.forward = head.forward  # a head with a forward of its own
    called = token_logprobs(model, packed, squared=True)
    assert called[:, 1].tolist() == pytest.approx(expected.tolist(), abs=1e-4)


# -- the loop ------------------------------------------------------------------------------------------------------


def test_the_objective_is_all_that_changes(tmp_path):
    """The same draws and lists for every policy gradient, all draws of a prompt; another policy."""
    seen = {}
    for name in ("grpo", "pkpo"):
        irlens.larpo("tiny", irlens.load("sums", "train", 12), out=tmp_path / name, objective=name, **{**SMALL, "iterations": 1})  # fmt: skip
        seen[name] = [
            pd.read_parquet(tmp_path / name / "iteration-1" / f"{table}.parquet") for table in ("run", "lists")
        ]
    for ours, theirs in zip(*seen.values()):
        pd.testing.assert_frame_equal(ours, theirs)
    run, lists = seen["grpo"]
    finished = run[run["finish_reason"] == "stop"].groupby("query_id").size()
    sizes = lists.groupby("query_id").size()
    assert len(sizes) and (sizes == finished[sizes.index]).all()
    assert lists.duplicated(["query_id", "text"]).any()  # as often as they were drawn
    assert (lists.groupby("query_id")["grade"].nunique() == 2).all()
    models = [(tmp_path / name / "iteration-1" / "model" / "model.safetensors").read_bytes() for name in seen]
    assert models[0] != models[1]


def test_fit_takes_policy_gradients_and_wpos_weights():
    rows = [{"prompt": f"{i}+1", "completions": [f"{i + 1}", "0", "0"], "scores": [1.0, 0.0, 0.0]} for i in range(4)]
    start = irlens.Policy("tiny")
    before = {name: value.clone() for name, value in start.model.state_dict().items()}
    done = irlens.train.fit(start.model, start.tokenizer, rows, "rloo", learning_rate=1e-3, wpo=True, epochs=1)
    assert any(not torch.equal(before[name], value) for name, value in done.model.state_dict().items())
    assert TrainOptions.of("grpo", clip_high=0.28).parameters["clip_high"] == 0.28
