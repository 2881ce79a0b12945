"""Costs of a recipe: every number here is worked out by hand."""

import json
from dataclasses import replace

import pytest
from safetensors import safe_open

from irlens.commands.settings import PassK, Recall, Rerank, Train
from irlens.models import catalog
from irlens.reproduce import costs
from irlens.reproduce.costs import Cost

SMALL = Train(model="tiny", iterations=2, prompts=10, n=4, lists=3, epochs=2, eval_limit=5, eval_n=2, test_limit=0)


def test_training_tokens_by_hand():
    cost = costs.of_step(SMALL)  # contrastive: lists of 1 + 3; sums: a prompt of 37 tokens, responses of 49
    assert cost.prompts == 20 and cost.lists == 60
    assert cost.draws == 2 * 10 * 4 + 3 * 5 * 2  # two iterations, three policies measured
    assert cost.generated == 110 * 49
    assert cost.read == 60 * (37 + 4 * 49) and cost.trained == 2 * cost.read
    assert cost.cpu_minutes == pytest.approx((110 * 49 / 32_000 + 2 * 60 * (0.005 + 4 * 0.0075)) / 60)
    assert cost.gpu_hours == 0 and cost.gpu_gib == 0


def test_lists_that_are_given_are_counted_and_nothing_is_drawn_for_them(tmp_path):
    """Two prompts of 24 characters, three lists; held-out draws only with a data set: of the start and the trained one."""
    path = tmp_path / "lists.jsonl"
    rows = [
        ("a" * 24, ["b" * 12, "c" * 12]),
        ("a" * 24, ["d" * 24, "e" * 12, "f" * 12]),
        ("g" * 24, ["h" * 12, "i" * 12]),
    ]
    named = [{"asked": prompt, "completions": some, "scores": list(range(len(some)))} for prompt, some in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in named))
    asked = Train(list_file=str(path), columns="prompt=asked", epochs=3)
    cost = costs.of_step(asked)
    once = (3 * 24 + 6 * 12 + 24) / 2.4 + 7
    assert (cost.prompts, cost.lists, cost.draws, cost.generated) == (2, 3, 0, 0)
    assert cost.read == once == 77 and cost.trained == 3 * once
    assert cost.cpu_minutes == pytest.approx(3 * 3 * (0.005 + 7 / 3 * 0.0075) / 60)
    measured = costs.of_step(replace(asked, dataset="sums", eval_limit=5, eval_n=2, test_limit=4))
    assert measured.draws == 2 * (5 + 4) * 2 and measured.lists == 3
    gone = costs.of_step(replace(asked, list_file=str(tmp_path / "later.jsonl")))
    assert gone.lists == 0 and gone.cpu_minutes is None and gone.gpu_hours is None


def test_gpu_hours_by_hand():
    settings = PassK(model="mathstral", limit=100, n=10, temperature=(0.1, 1.0))
    cost = costs.of_step(settings)
    assert cost.draws == 2000 and cost.generated == 400_000
    assert cost.gpu_hours == pytest.approx(2 * 7_248_023_552 * 400_000 / 98.9e12 / 3600)
    cache = 2 * 2 * 32 * 8 * 128 * 32768  # keys and values of 32 layers at all positions
    assert cost.gpu_gib == pytest.approx((7_248_023_552 * 2 + cache + 1.5 * 2**30) / 0.9 / 2**30)
    trained = costs.of_step(Train(model="mathstral", iterations=1, prompts=100, n=2, epochs=1, objective="pairwise",
                                  eval_limit=10, eval_n=1, test_limit=0))  # fmt: skip
    generated, once = (200 + 20) * 200, 100 * (100 + 2 * 200)
    flop = 2 * 7_248_023_552 * generated / 0.1 + (6 + 2) * 7_248_023_552 * once / 0.4
    assert trained.gpu_hours == pytest.approx(flop / 989e12 / 3600)
    length, rows = 1000 + 512, 2  # the longest prompt and response; a row each
    layer = rows * length * (32 * 4096 + 8 * 14336) + rows * 2 * length**2
    activations = 32 * rows * length * 4 * 4096 + layer + 12 * 2**25 + rows * length**2
    assert trained.gpu_gib == pytest.approx(1 + (7_248_023_552 * 18 + activations) / 2**30)


@pytest.mark.parametrize("reward, each", [("fsfairx", 160 + 400), ("pairrm", None)])
def test_what_a_reward_model_reads(reward, each):
    """40 draws, and one for each of 2 × 5 problems in between and 2 × 3 at the end, which UltraFeedback's train split lends."""
    settings = Train(
        model="gemma2-2b-it",
        reward=reward,
        iterations=1,
        prompts=10,
        n=4,
        epochs=1,
        eval_limit=5,
        eval_n=1,
        test_limit=3,
    )
    cost = costs.of_step(settings)
    reference = 10 * (160 + 4 * 400)
    if each:
        assert cost.read == reference + (40 + 16) * each
    else:  # a response with each of the 3 (held out: 1) others of its list, prompt and both responses at once
        assert cost.read == reference + 40 * 3 * (160 + 800) + 16 * 1 * (160 + 800)


def test_one_after_the_other_adds_up_but_for_memory():
    both = costs.total([Cost(draws=1, gpu_gib=3.0, gpu_hours=1.0), Cost(draws=2, gpu_gib=2.0, gpu_hours=None)])
    assert both.draws == 3 and both.gpu_gib == 3.0 and both.gpu_hours is None


def test_what_is_not_known_is_not_guessed():
    assert costs.of_step(PassK(model="someone/else", dataset="gsm8k", limit=1)).gpu_hours is None
    assert costs.of_step(Recall(retriever="e5", dataset="mine")).gpu_hours is None
    assert costs.of_step(Rerank()) == Cost()


def test_encoding_a_corpus_by_hand():
    cost = costs.of_step(Recall(retriever="e5", dataset="nq"))
    assert cost.gpu_hours == pytest.approx(2 * 109_482_240 * 21_015_324 * 140 / 0.4 / 989e12 / 3600)


@pytest.mark.parametrize("found", [catalog.model("tiny"), catalog.encoder("tiny-e5")])
def test_the_embedded_models_are_counted(found):
    with safe_open(f"{found.repo}/model.safetensors", "pt") as weights:
        assert sum(weights.get_tensor(key).numel() for key in weights.keys()) == found.parameters  # noqa: SIM118
