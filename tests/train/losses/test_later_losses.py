"""The preference losses that came later, and WPO's weights: numbers worked out by hand."""

from dataclasses import replace
from functools import partial
from math import exp, log

import pytest
import torch
from scored import PAIR, every, gradient, lists, random_scores, sigma, softplus

from irlens.base.errors import UserError
from irlens.train.losses import get


def test_apo_by_hand():
    scores = lists(PAIR)
    assert get("apo-zero")(scores, beta=1).item() == pytest.approx(1 - sigma(1) + sigma(-3))
    assert get("apo-down")(scores, beta=1).item() == pytest.approx(sigma(1) + 1 - sigma(4))


def test_sppo_by_hand():
    """With beta = 1 the winner's log-ratio, 1, aims at 1/2, and the loser's, -3, at -1/2."""
    assert get("sppo")(lists(PAIR), beta=1).item() == pytest.approx(0.5**2 + 2.5**2)


def test_rebel_by_hand():
    """beta 4 - (1 - 0) = 1. With a third candidate of grade 0 and r = 0: 1^2, (1/2 - 1)^2 and, equal in grade, (3/2)^2."""
    assert get("rebel")(lists(PAIR), beta=0.5).item() == pytest.approx(1)
    three = lists([*PAIR, (-5, -5, 1, 0)])
    assert get("rebel")(three, beta=0.5).item() == pytest.approx((1 + 0.25 + 2.25) / 3)


def test_infonca_and_nca_by_hand():
    """Targets softmax(1, 0) = sigma(1) and sigma(-1); gamma 1 and -3."""
    scores, up, down = lists(PAIR), sigma(1), sigma(-1)
    loss = get("infonca")(scores, beta=1, alpha=1).item()
    assert loss == pytest.approx(up * softplus(-4) + down * softplus(4))
    loss = get("nca")(scores, beta=1, alpha=1).item()
    assert loss == pytest.approx(up * softplus(-1) + down * softplus(3) + (softplus(1) + softplus(-3)) / 2)


def test_infonca_of_one_best_is_dpo_where_alpha_is_small():
    assert get("infonca")(lists(PAIR), beta=1, alpha=0.01).item() == pytest.approx(softplus(-4))


def test_swepo_by_hand():
    """Grades 1, 0, 0: the mean is 1/3, the gaps 2/3, 1/3, 1/3; with alpha = 3 the exponents are 1 + 2, -3 + 1, 0 + 1."""
    three = lists([*PAIR, (-5, -5, 1, 0)])
    loss = get("swepo")(three, beta=1, alpha=3).item()
    assert loss == pytest.approx(log(exp(3) + exp(-2) + exp(1)) - 3)


def test_orpo_by_hand():
    """s' = -2 and -3 over one token each: odds e^-2 / (1 - e^-2) and e^-3 / (1 - e^-3); the NLL is 2."""
    scores = lists([(-2, 0, 1, 1), (-3, 0, 1, 0)])
    gap = log((exp(-2) / (1 - exp(-2))) / (exp(-3) / (1 - exp(-3))))
    assert get("orpo")(scores, beta=0.5).item() == pytest.approx(0.5 * softplus(-gap) + 2)
    assert get("orpo")(scores, beta=0.5, nll=0).item() == pytest.approx(0.5 * softplus(-gap))


def test_names_of_the_same_loss_by_hand():
    """S-DPO: log(1 + e^-4 + e^-1). DPO-PL of grades 2, 1, 0 and gamma 1, -3, 0: that, and log(1 + e^3)."""
    three = lists([*PAIR, (-5, -5, 1, 0)])
    first = log(1 + exp(-4) + exp(-1))
    assert get("s-dpo")(three, beta=1).item() == pytest.approx(first)
    ranked = replace(three, grade=torch.tensor([[2.0, 1.0, 0.0]]))
    assert get("dpo-pl")(ranked, beta=1).item() == pytest.approx(first + softplus(3))


def test_lipo_lambda_by_hand():
    """Grades 7 and -5 are 1 and 0 within their list: gains 1 and 0, ranks 1 and 2, so 1 / log 2 - 1 / log 3 of DPO."""
    scores = replace(lists(PAIR), grade=torch.tensor([[7.0, -5.0]]))
    weight = 1 / log(2) - 1 / log(3)
    assert get("lipo-lambda")(scores, beta=1).item() == pytest.approx(weight * softplus(-4))


@pytest.mark.parametrize("name", ["infonca", "nca"])
def test_a_temperature_of_rewards_is_above_zero(name):
    with pytest.raises(UserError, match=f"objective '{name}': alpha must be above 0"):
        get(name)(lists(PAIR), alpha=0)


def test_wpos_weights_by_hand():
    """Means of log p - log sum p^2: -2 + 1 and -2 + 3/2, so the pair weighs e^-1.5; one where both are 0 weighs 1."""
    squared = torch.tensor([[-3.0, -6.0], [-6.0, -8.0]])
    scores = replace(lists(PAIR, PAIR), squared=squared)
    assert scores.likely.tolist() == pytest.approx([exp(-1.5), 1])
    loss = get("pairwise")(scores, beta=1, wpo=True).item()
    assert loss == pytest.approx((exp(-1.5) + 1) / 2 * softplus(-4))
    with_nll = get("pairwise")(scores, beta=1, wpo=True, nll=0.5).item()
    assert with_nll == pytest.approx(loss + 0.5 * 2)  # which is not weighed
    with pytest.raises(UserError, match="squared"):
        get("pairwise")(lists(PAIR), wpo=True)


@every
def test_wpos_weights_have_no_gradient_and_leave_silent_lists_out(name):
    """With weights of 1 in every list, the loss and its gradient are what they are without."""
    scores = random_scores()
    even = replace(scores, squared=scores.policy.detach())
    loss = partial(get(name), wpo=True)
    assert torch.allclose(loss(even), get(name)(scores))
    assert torch.allclose(gradient(loss, even), gradient(get(name), scores))
