"""The baselines and the options common to all objectives: numbers worked out by hand, what must say nothing, numerical limits."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from scored import NAMES, PAIR, every, gradient, lists, random_scores, sigma, softplus

from irlens.base.errors import UserError
from irlens.train.losses import OBJECTIVES, Scores, contrastive, get, lambdarank, listmle, pairwise
from irlens.train.losses.preference import cpo, ipo, irft, kto, r_dpo, rrhf, sft, simpo, slic_hf, spin
from irlens.train.losses.scores import nll_of_best

BASELINES = [name for name in NAMES if name not in ("pairwise", "contrastive", "lambdarank", "listmle")]
baseline = pytest.mark.parametrize("name", BASELINES)
comparing = pytest.mark.parametrize("name", [name for name in NAMES if OBJECTIVES[name].needs_negative])


# -- by hand -------------------------------------------------------------------------------------------------------
# The pair: the winner has log-probability -6 (reference -7) over 3 tokens, the loser -8 (reference -5) over 4.
# So s_w = -6, s_l = -8, s'_w = -2, s'_l = -2, r_w = 1, r_l = -3, r'_w = 1/3, r'_l = -3/4.


def test_sft_by_hand():
    """6 / 3 = 2: the loser is not imitated."""
    assert sft(lists(PAIR)).item() == pytest.approx(2)


def test_sft_means_over_the_best_and_over_lists():
    """First list: best are 6/3 = 2 and 10/2 = 5, mean 3.5. Second: one candidate, 4/4 = 1. Mean 2.25."""
    scores = lists([(-6, 0, 3, 1), (-10, 0, 2, 1), (-9, 0, 1, 0)], [(-4, 0, 4, 1)])
    assert sft(scores).item() == pytest.approx(2.25)


def test_rrhf_by_hand():
    """s' = -2, -1.5, -3 of grades 2, 1, 0: the first pair costs 0.5, the others nothing (sums: -4, -4.5, -6, none would).

    The best's NLL is 2 per token, 4 in all.
    """
    scores = lists([(-4, 0, 2, 2), (-4.5, 0, 3, 1), (-6, 0, 2, 0)])
    assert rrhf(scores).item() == pytest.approx(0.5 + 2)
    assert rrhf(scores, nll=0).item() == pytest.approx(0.5)
    assert rrhf(scores, nll=0.5, nll_per_token=False).item() == pytest.approx(0.5 + 0.5 * 4)


def test_rrhf_sums_over_pairs():
    """s' = -3, -2, -1 of grades 2, 1, 0, all in the wrong order: 1 + 2 + 1, and no mean."""
    scores = lists([(-3, 0, 1, 2), (-2, 0, 1, 1), (-1, 0, 1, 0)])
    assert rrhf(scores, nll=0).item() == pytest.approx(4)


def test_slic_hf_by_hand():
    """Gap s_w - s_l = 2. With delta 1: max(0, -1) = 0, with 5: 3. The NLL of w: 6, or 2 per token."""
    assert slic_hf(lists(PAIR)).item() == pytest.approx(0.1 * 6)
    assert slic_hf(lists(PAIR), delta=5).item() == pytest.approx(3 + 0.1 * 6)
    assert slic_hf(lists(PAIR), delta=5, nll=1, nll_per_token=True).item() == pytest.approx(3 + 2)


def test_ipo_by_hand():
    """Target 1 / (2 * 0.1) = 5. Per token 1/3 + 3/4 = 13/12; sums 1 + 3 = 4."""
    assert ipo(lists(PAIR)).item() == pytest.approx((13 / 12 - 5) ** 2)
    assert ipo(lists(PAIR), per_token=False).item() == pytest.approx(1)
    assert ipo(lists(PAIR), beta=0.125, per_token=False).item() == pytest.approx(0, abs=1e-12)  # target 4


def test_cpo_by_hand():
    """-log sigma(0.1 * 2) + 6 / 3."""
    assert cpo(lists(PAIR)).item() == pytest.approx(softplus(-0.2) + 2)
    assert cpo(lists(PAIR), beta=1, nll=0).item() == pytest.approx(softplus(-2))


def test_kto_by_hand():
    """Drifts 3 and 1: z = 2, r_w - z = -1, z - r_l = 5. With beta 0.1: 1 - sigma(-0.1) and 1 - sigma(0.5), halved."""
    scores = lists(PAIR, PAIR, mismatched=[(-4, -7), (-6, -7)])
    assert kto(scores).item() == pytest.approx((sigma(0.1) + sigma(-0.5)) / 2)
    weighed = kto(scores, beta=1, desirable=2, undesirable=3).item()
    assert weighed == pytest.approx((2 * sigma(1) + 3 * sigma(-5)) / 2)
    zero = (sigma(-0.1) + sigma(-0.3)) / 2  # z = 0: 1 - sigma(0.1 * 1) and 1 - sigma(0.1 * 3)
    assert kto(lists(PAIR, PAIR, mismatched=[(-4, -6), (-9, -7)])).item() == pytest.approx(zero)
    assert kto(lists(PAIR, PAIR, mismatched=[(-9, -6), (-9, -7)])).item() == pytest.approx(zero)  # a mean of -2.5


def test_kto_z_has_no_gradient_and_may_be_of_more_lists_than_the_batch():
    other = torch.tensor([3.0, 9.0], requires_grad=True)
    scores = replace(lists(PAIR), mismatched=other, mismatched_reference=torch.tensor([1.0, 7.0]))
    logprob = scores.logprob.clone().requires_grad_()
    loss = kto(replace(scores, logprob=logprob))
    loss.backward()
    assert other.grad is None
    assert loss.item() == pytest.approx((sigma(0.1) + sigma(-0.5)) / 2)  # z = 2


def test_kto_says_what_it_lacks():
    with pytest.raises(UserError, match="mismatched"):
        kto(replace(lists(PAIR), mismatched=None))


def test_r_dpo_by_hand():
    """-log sigma(0.1 * 4 + 0.05 * 3 - 0.05 * 4) = log(1 + e^-0.35): the winner is shorter, so less is explained."""
    assert r_dpo(lists(PAIR)).item() == pytest.approx(softplus(-0.35))
    assert r_dpo(lists(PAIR), alpha=0).item() == pytest.approx(softplus(-0.4))


def test_r_dpo_pushes_a_longer_winner_less():
    """The policy at the reference: the gradient on the winner is -beta sigma(-alpha (|y_w| - |y_l|))."""
    for longer, shorter, expected in ((10, 4, sigma(-6)), (4, 10, sigma(6)), (4, 4, 0.5)):
        scores = lists([(0, 0, longer, 1), (0, 0, shorter, 0)])
        winner, loser = gradient(lambda s: r_dpo(s, beta=1, alpha=1), scores)[0].tolist()
        assert winner == pytest.approx(-expected) and loser == pytest.approx(expected)


def test_r_dpo_follows_from_the_penalised_reward():
    """Three responses with rewards v: the maximiser of E[v - alpha |y|] - beta KL(pi, ref) recovers v's preferences."""
    alpha, beta = 0.3, 0.7
    v, tokens = torch.tensor([1.0, 0.2, -0.5]), torch.tensor([7.0, 2.0, 4.0])
    ref = torch.tensor([0.5, 0.3, 0.2])
    best = torch.softmax(ref.log() + (v - alpha * tokens) / beta, 0)  # the maximiser, in closed form
    scores = Scores(
        best.log()[None, :2], ref.log()[None, :2], tokens[None, :2], v[None, :2], torch.ones(1, 2, dtype=torch.bool)
    )
    assert r_dpo(scores, beta, alpha).item() == pytest.approx(softplus(-(1.0 - 0.2)), rel=1e-5)


def test_simpo_by_hand():
    """s' = -2 for both, so -log sigma(0 - gamma), gamma = 0.5 * 2; with s' = -2 and -3, -log sigma(2.5 - 0.3 * 2.5)."""
    assert simpo(lists(PAIR)).item() == pytest.approx(softplus(1))
    scores = lists([(-6, 0, 3, 1), (-12, 0, 4, 0)])
    assert simpo(scores, beta=2.5, gamma_beta_ratio=0.3).item() == pytest.approx(softplus(-2.5 + 0.75))


@pytest.mark.parametrize("loss", [spin, irft])
def test_spin_and_irft_by_hand(loss):
    """-log sigma(0.1 * (1 + 3))."""
    assert loss(lists(PAIR)).item() == pytest.approx(softplus(-0.4))


LATER = [OBJECTIVES[name].loss for name in ("apo-zero", "apo-down", "sppo")]


@pytest.mark.parametrize("loss", [slic_hf, ipo, cpo, kto, r_dpo, simpo, spin, *LATER])
def test_longer_lists_are_means_over_best_and_worst(loss):
    """Two best, one between, two worst: the mean of the four pairs' losses."""
    won, lost = [(-6, -7, 3, 2), (-5, -2, 4, 2)], [(-8, -5, 4, 0), (-1, -2, 2, 0)]
    pairs = [loss(lists([a, b], mismatched=[(3, 1)])).item() for a in won for b in lost]
    whole = loss(lists([won[0], lost[0], (-9, -9, 9, 1), lost[1], won[1]], mismatched=[(3, 1)])).item()
    assert whole == pytest.approx(sum(pairs) / 4)


# -- the common options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [pairwise, contrastive, lambdarank, listmle], ids=lambda f: f.__name__)
def test_larpo_objectives_see_beta_times_the_log_ratio(function):
    scores = random_scores()
    expected = function(0.3 * (scores.logprob - scores.reference), scores.grade, scores.mask)
    assert get(function.__name__)(scores, beta=0.3) == expected
    assert get(function.__name__)(scores) == get(function.__name__)(scores, beta=0.1, nll=0)


def test_weighted_is_a_parameter_of_lambdarank():
    scores = random_scores()
    gamma = 0.1 * (scores.logprob - scores.reference)
    assert get("lambdarank")(scores, weighted=1) == lambdarank(gamma, scores.grade, scores.mask, weighted=True)
    assert get("lambdarank")(scores, weighted=0) == lambdarank(gamma, scores.grade, scores.mask)


def test_nll_by_hand():
    """DPO's log(1 + e^-0.4) + 0.5 * 6/3."""
    assert get("pairwise")(lists(PAIR), nll=0.5).item() == pytest.approx(softplus(-0.4) + 0.5 * 2)


def test_nll_of_best_means_over_the_best_and_over_lists_that_say_something():
    """Best of the first list 6/3 and 10/2, of the second 6/3; the third says nothing. (3.5 + 2) / 2."""
    scores = lists([(-6, 0, 3, 1), (-10, 0, 2, 1), (-9, 0, 1, 0)], PAIR, [(-4, 0, 4, 1)])
    assert nll_of_best(scores).item() == pytest.approx(2.75)
    assert nll_of_best(scores, per_token=False).item() == pytest.approx((8 + 6) / 2)


@comparing
def test_nll_adds_to_any_objective(name):
    scores, loss = random_scores(), get(name)
    if "nll" in loss.parameters:  # a loss with such a term of its own: its weight
        per_token = loss.resolve().get("nll_per_token", True)
        expected = loss(scores, nll=0) + 0.7 * nll_of_best(scores, per_token)
    else:
        expected = loss(scores) + 0.7 * nll_of_best(scores)
    assert loss(scores, nll=0.7).item() == pytest.approx(expected.item())


def test_length_normalisation_by_hand():
    """r'_w - r'_l = 13/12: log(1 + e^(-2 * 13/12)). The NLL stays 6/3; sums of it stay 6; lengths stay 3 and 4."""
    scores = lists(PAIR)
    assert get("pairwise")(scores, beta=2, length_normalised=True).item() == pytest.approx(softplus(-13 / 6))
    both = get("pairwise")(scores, beta=2, nll=0.5, length_normalised=True).item()
    assert both == pytest.approx(softplus(-13 / 6) + 1)
    assert get("slic-hf")(scores, length_normalised=True).item() == pytest.approx(1 + 0.6)  # s' are equal: delta
    r = get("r-dpo")(scores, beta=2, alpha=0.5, length_normalised=True).item()
    assert r == pytest.approx(softplus(-(13 / 6 - 0.5)))


def test_length_normalised_kto_by_hand():
    """Mismatched over 2 tokens: z = (3 - 1) / 2 = 1; r' = 1/3 and -3/4."""
    expected = (sigma(1 - 1 / 3) + sigma(-3 / 4 - 1)) / 2
    scores = lists(PAIR, mismatched=[(3, 1)])
    assert get("kto")(scores, beta=1, length_normalised=True).item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="mismatched_length"):
        get("kto")(replace(scores, mismatched_length=None), length_normalised=True)


@pytest.mark.parametrize("name", ["sft", "rrhf", "ipo", "simpo"])
def test_losses_per_token_are_normalised_once(name):
    scores = random_scores()
    assert get(name)(scores, length_normalised=True).item() == pytest.approx(get(name)(scores).item())
    assert torch.allclose(scores.normalise().normalise().logprob, scores.normalise().logprob)


@every
def test_length_normalisation_of_single_tokens_changes_nothing(name):
    scores = random_scores()
    one = replace(scores, length=torch.ones_like(scores.length), mismatched_length=torch.ones(6))
    assert get(name)(one, length_normalised=True).item() == pytest.approx(get(name)(one).item())


# -- what they share -----------------------------------------------------------------------------------------------


@every
def test_the_reference_is_read_only_where_it_is_said_to_be(name):
    scores, loss = random_scores(), get(name)
    moved = replace(scores, reference=scores.reference + torch.randn(6, 5, generator=torch.Generator().manual_seed(3)))
    assert (loss(moved) != loss(scores)).item() == loss.uses_reference


@every
def test_no_gradient_reaches_the_reference(name):
    scores = random_scores()
    scores.reference.requires_grad_()
    scores.logprob.requires_grad_()
    get(name)(scores, length_normalised=True).backward()
    assert scores.reference.grad is None and scores.logprob.grad is not None


@comparing
def test_only_lists_that_say_something_count(name):
    """Two equal grades, a single candidate, no candidate: none adds to the loss, the NLL or the gradient."""
    silent = [(3.0, 1.0, 2, 1), (-2.0, 1.0, 3, 1)]
    scores = lists(PAIR, silent, [(0.7, 0.0, 1, 1)], PAIR, [])
    loss = partial(get(name), nll=0.5)
    assert loss(scores).item() == pytest.approx(loss(lists(PAIR)).item())
    moved = gradient(loss, scores)
    assert (moved[[1, 2, 4]] == 0).all() and (moved[[0, 3]] != 0).any()


@comparing
@pytest.mark.parametrize("row", [[(0.3, 0, 1, 1)], [(0.3, 0, 1, 1), (-5, 0, 2, 1)], []], ids=["one", "equal", "none"])
def test_a_batch_that_says_nothing_is_zero(name, row):
    scores, loss = lists(row, row, [(1, 0, 1, 0)]), partial(get(name), nll=0.5)
    assert loss(scores).item() == 0
    assert (gradient(loss, scores) == 0).all()


@every
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_an_empty_batch_is_zero(name, shape):
    empty = torch.zeros(shape, requires_grad=True)
    other = torch.zeros(shape[0])
    scores = Scores(empty, empty, empty, empty, empty.bool(), other, other, other)
    loss = get(name)(scores, length_normalised=True)
    loss.backward()
    assert loss.item() == 0


@every
@pytest.mark.parametrize("filler", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("length_normalised", [False, True])
def test_padding_adds_nothing(name, filler, length_normalised):
    scores = random_scores()
    scores = replace(scores, length=scores.length.double(), grade=scores.grade.double())
    wide_mask = torch.nn.functional.pad(scores.mask, (1, 2))
    wide = {
        part: torch.nn.functional.pad(getattr(scores, part), (1, 2)).masked_fill(~wide_mask, filler)
        for part in ("logprob", "reference", "length", "grade")
    }
    wide = replace(scores, mask=wide_mask, **wide)
    loss = partial(get(name), length_normalised=length_normalised)
    assert torch.allclose(loss(wide), loss(scores), rtol=1e-12)
    moved = gradient(loss, wide)
    assert (moved[~wide_mask] == 0).all()
    assert torch.allclose(moved[:, 1:-2], gradient(loss, scores), rtol=1e-12)


@every
def test_order_of_candidates_does_not_matter(name):
    scores = random_scores()
    shuffled = torch.argsort(torch.rand(scores.mask.shape, generator=torch.Generator().manual_seed(1)), dim=1)
    parts = ("logprob", "reference", "length", "grade", "mask")
    moved = replace(scores, **{part: getattr(scores, part).gather(1, shuffled) for part in parts})
    assert torch.allclose(get(name)(moved), get(name)(scores), rtol=1e-12)
    assert torch.allclose(gradient(get(name), moved), gradient(get(name), scores).gather(1, shuffled))


@comparing
def test_mean_over_lists_is_the_mean_of_single_lists(name):
    scores = random_scores(b=8)
    scores = replace(scores, mismatched=torch.full((8,), 3.0), mismatched_reference=torch.ones(8))  # one z for all
    parts = {k: v for k, v in vars(scores).items() if isinstance(v, torch.Tensor)}
    single = [replace(scores, **{k: v[i : i + 1] for k, v in parts.items()}) for i in range(8)]
    said = [get(name)(s) for s in single if s.above.any()]
    assert 1 < len(said) < 8
    assert torch.allclose(get(name)(scores), torch.stack(said).mean())


@every
@pytest.mark.parametrize("length_normalised", [False, True])
def test_gradient_matches_finite_differences(name, length_normalised):
    scores = random_scores(b=4)
    loss = partial(get(name), length_normalised=length_normalised)
    assert torch.autograd.gradcheck(lambda x: loss(replace(scores, logprob=x)), scores.logprob.requires_grad_())


@every
def test_the_gradient_lifts_the_best(name):
    best, worst = gradient(get(name), lists([(-6, -6, 3, 1), (-3, -3, 3, 0)]))[0].tolist()
    assert best < 0 <= worst or name == "apo-down"  # which, at the reference, lowers the worst alone
    assert worst > 0 or name == "sft"


@every
@pytest.mark.parametrize("seed", range(3))
def test_float32_is_stable_at_ten_thousand(name, seed):
    scores, loss = random_scores(b=32, dtype=torch.float32, scale=1e5, seed=seed), get(name)
    names = ("logprob", "reference", "mismatched", "mismatched_reference")
    exact = replace(scores, **{part: getattr(scores, part).double() for part in names})
    assert (scores.log_ratio * 0.1).abs().max() > 1e4
    assert loss(scores).dtype == torch.float32
    assert loss(scores).item() == pytest.approx(loss(exact).item(), rel=1e-5)
    moved, right = gradient(loss, scores), gradient(loss, exact)
    assert moved.isfinite().all() and torch.allclose(moved.double(), right, rtol=1e-5, atol=1e-6)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length_normalised", [False, True])
def test_half_precision_is_computed_in_float32(name, dtype, length_normalised):
    scores = random_scores(dtype=dtype)
    names = ("logprob", "reference", "mismatched", "mismatched_reference")
    full = replace(scores, **{part: getattr(scores, part).float() for part in names})
    loss = partial(get(name), length_normalised=length_normalised)
    assert loss(scores).dtype == torch.float32 and loss(scores) == loss(full)
    assert gradient(loss, scores).dtype == dtype
