"""Coefficients of agreement: by hand, against scikit-learn and scipy, on Krippendorff's example, and their intervals."""

import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.metrics import cohen_kappa_score

from irlens.base.errors import UserError
from irlens.measure import coefficients as agree

N = np.nan
KRIPPENDORFF = np.array(  # 2011, example C: four observers, twelve units
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
        [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
    ]
).T


def test_a_preference_is_a_loss_a_tie_or_a_win():
    """A mean over orders that rounding moved off the middle is still a tie."""
    assert agree.categories([1, 1.49, 1.5, 1.5 + 1e-12, 1.51, 2, np.nan]).tolist() == [0, 0, 1, 1, 2, 2, -1]


def test_kappa_by_hand():
    """Of ten things eight alike; chance alone: .6 · .6 + .4 · .4."""
    first, second = [0] * 5 + [0] + [1] + [1] * 3, [0] * 5 + [1] + [0] + [1] * 3
    assert agree.kappa(first, second) == pytest.approx((0.8 - 0.52) / (1 - 0.52))
    assert np.isnan(agree.kappa([1, 1], [1, 1]))
    with pytest.raises(UserError, match="two raters of the same things"):
        agree.kappa([1], [1, 2])


def test_kappa_is_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a = rng.integers(0, 3, 50)
        b = np.where(rng.random(50) < 0.5, a, rng.integers(0, 3, 50))
        assert agree.kappa(a, b) == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


def test_alpha_is_krippendorffs():
    """His worked example, of more than two raters and with values missing: .743 nominal, .849 interval."""
    assert agree.alpha(KRIPPENDORFF, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert agree.alpha(KRIPPENDORFF, "interval") == pytest.approx(0.849, abs=5e-4)


def test_alpha_by_hand():
    """Two raters of three units: 1 1, 2 2, 1 2. One of three units differs; of the six values' 15 pairs 9 differ."""
    values = np.array([[1, 1], [2, 2], [1, 2.0]])
    assert agree.alpha(values, "nominal") == pytest.approx(1 - (1 / 3) / (9 / 15))
    assert agree.alpha(values, "interval") == pytest.approx(1 - (1 / 3) / (9 / 15))
    assert agree.alpha(np.array([[1, 1], [2, 2], [5, np.nan]])) == 1.0  # a value that stands alone says nothing
    assert np.isnan(agree.alpha(np.array([[1, 1], [1, 1.0]]))) and np.isnan(agree.alpha(np.array([[1, np.nan]])))
    with pytest.raises(UserError, match="interval or nominal"):
        agree.alpha(values, "ordinal")


def contest(prompts=40, systems=5, seed=0):
    """(preferences of two judges who agree in part, prompt, system) of systems of other strengths."""
    rng = np.random.default_rng(seed)
    prompt, system = (x.ravel() for x in np.meshgrid(np.arange(prompts), np.arange(systems), indexing="ij"))
    strength = 1.2 + 0.6 * system[:, None] / systems + 0.4 * rng.standard_normal((len(prompt), 1))
    values = np.clip(strength + 0.2 * rng.standard_normal((len(prompt), 2)), 1, 2).round(1)
    return values, prompt, system


def test_tau_over_systems_is_scipys():
    values, _, system = contest()
    found = agree.kendall(values, np.arange(len(values)) // 5, system, 0, 0)
    means = [np.bincount(system, of) / np.bincount(system) for of in values.T]
    assert found.value == pytest.approx(kendalltau(*np.round(means, 9)).statistic) and found.n == len(values)


def test_an_interval_is_over_prompts_and_not_over_rows():
    """Rows of a prompt that are copies of one another add nothing to what is known."""
    values, prompt, _ = contest(systems=1)
    copied = np.repeat(values, 30, axis=0)
    for once, often in (
        (agree.cohen(values, prompt, 400, 1), agree.cohen(copied, np.repeat(prompt, 30), 400, 1)),
        (agree.krippendorff(values, prompt, "interval", 400, 1), agree.krippendorff(copied, np.repeat(prompt, 30), "interval", 400, 1)),
    ):  # fmt: skip
        assert often.prompts == once.prompts == 40 and often.n == 30 * once.n
        assert often.high - often.low > 0.9 * (once.high - once.low)
        assert once.low < once.value < once.high
    alone, copies = agree.share(values[:, 0] - 1, prompt), agree.share(copied[:, 0] - 1, np.repeat(prompt, 30))
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high)) and alone.value == pytest.approx(
        copies.value
    )


def test_resamples_are_of_whole_prompts():
    """Their spread is that of a bootstrap done by hand."""
    values, prompt, _ = contest()
    found = agree.cohen(values, prompt, 1000, 3)
    rng, by_hand = np.random.default_rng(7), []
    for _ in range(300):
        rows = np.concatenate([np.flatnonzero(prompt == p) for p in rng.integers(0, 40, 40)])
        by_hand.append(cohen_kappa_score(*agree.categories(values[rows]).T))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(by_hand, [0.025, 0.975])), abs=0.03)


def test_fewer_prompts_make_the_interval_wider_than_their_resamples():
    """Of five prompts the plain percentiles of resamples leave out too much; of many they are what is told."""
    sums = np.c_[np.array([0.1, 0.3, 0.5, 0.6, 0.9]), np.ones(5)]
    mean = lambda some: some[:, 0] / some[:, 1]  # noqa: E731
    found = agree.estimate(sums, mean, 5, 4000, 0)
    plain = np.quantile(agree.resampled(sums, mean, 4000, 0), [0.025, 0.975])
    assert found.low < plain[0] - 0.05 and found.high > plain[1] + 0.05
    many = agree.estimate(np.tile(sums, (200, 1)), mean, 5, 1000, 0)
    plain = np.quantile(agree.resampled(np.tile(sums, (200, 1)), mean, 1000, 0), [0.025, 0.975])
    assert (many.low, many.high) == pytest.approx(tuple(plain), abs=1e-3)


def test_what_resamples_cannot_tell_is_not_told():
    """No resamples, one prompt, or resamples that are all alike: no interval; a share of one prompt has none either."""
    same = np.array([[1, 1], [2, 2], [1, 1], [2, 2.0]])
    prompt = np.array([0, 0, 1, 1])
    for found in (
        agree.cohen(same, prompt, 100, 0),
        agree.cohen(contest()[0], contest()[1], 0, 0),
        agree.share(np.ones(3), np.zeros(3)),
    ):
        assert np.isnan(found.low) and np.isnan(found.high) and not np.isnan(found.value)
    empty = agree.share(np.empty(0), np.empty(0))
    assert np.isnan(empty.value) and empty.n == 0
    all_alike = agree.share(np.ones(50), np.arange(50))
    assert all_alike.value == 1 and 0.9 < all_alike.low < 1  # what 50 prompts did not show may still be there
