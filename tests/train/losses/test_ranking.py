"""The ranking objectives: numbers worked out by hand, what must say nothing, numerical limits; and the registry."""

from functools import partial
from math import exp, log, log2, sqrt

import pytest
import torch

from irlens.base.errors import UserError
from irlens.train.losses import OBJECTIVES, Scores, contrastive, get, lambdarank, listmle, names, pairwise

WEIGHTED = partial(lambdarank, weighted=True)
UNWEIGHTED = {f.__name__: f for f in (pairwise, contrastive, lambdarank, listmle)}
ALL = {**UNWEIGHTED, "weighted": WEIGHTED}
each = pytest.mark.parametrize("objective", ALL.values(), ids=ALL)


def softplus(x: float) -> float:
    """-log sigma(-x) = log(1 + e^x)."""
    return log(1 + exp(x))


def lists(*rows, dtype=torch.float64):
    """(gamma, grade, mask) of lists of (gamma, grade) pairs, padded at the end."""
    length = max(map(len, rows))
    gamma, grade = torch.zeros(len(rows), length, dtype=dtype), torch.zeros(len(rows), length)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for b, row in enumerate(rows):
        for i, (g, r) in enumerate(row):
            gamma[b, i], grade[b, i], mask[b, i] = g, r, True
    return gamma, grade, mask


def random_lists(b=6, n=5, dtype=torch.float64, seed=0, scale=1.0):
    """Lists of 1 to n real candidates with grades 0 to 2, ties among them."""
    rng = torch.Generator().manual_seed(seed)
    gamma = (torch.randn(b, n, generator=rng) * scale).to(dtype)
    grade = torch.randint(0, 3, (b, n), generator=rng)
    mask = torch.arange(n) < torch.randint(1, n + 1, (b, 1), generator=rng)
    mask[0], grade[0, :3] = True, torch.tensor([2, 0, 1])  # at least one list that says something
    return gamma, grade, mask


def gradient(objective, gamma, grade, mask):
    gamma = gamma.clone().requires_grad_()
    objective(gamma, grade, mask).backward()
    return gamma.grad


# -- by hand -------------------------------------------------------------------------------------------------------

HAND = [(0.5, 2), (0.2, 1), (-0.3, 0)]  # gamma, grade


def test_pairwise_by_hand():
    """Top 0.5 against bottom -0.3: log(1 + e^-0.8); the middle one is not used."""
    assert pairwise(*lists(HAND)).item() == pytest.approx(softplus(-0.8))


def test_pairwise_means_over_pairs_of_extremes():
    """Top 1 and 0, bottom -1: the mean of log(1 + e^-2) and log(1 + e^-1)."""
    assert pairwise(*lists([(1, 3), (0, 3), (-1, 0)])).item() == pytest.approx((softplus(-2) + softplus(-1)) / 2)


def test_contrastive_by_hand():
    """-log(e^0.5 / (e^0.5 + e^0.2 + e^-0.3))."""
    expected = -log(exp(0.5) / (exp(0.5) + exp(0.2) + exp(-0.3)))
    assert contrastive(*lists(HAND)).item() == pytest.approx(expected)


def test_contrastive_leaves_other_tops_out():
    """Top 1 and 0, others -1 and -2: each top competes with the two others alone; the mean of both."""
    below = exp(-1) + exp(-2)
    expected = (log((exp(1) + below) / exp(1)) + log((1 + below) / 1)) / 2
    assert contrastive(*lists([(1, 1), (-1, 0), (0, 1), (-2, 0.5)])).item() == pytest.approx(expected)


def test_lambdarank_by_hand():
    """Pairs (0.5, 0.2), (0.5, -0.3), (0.2, -0.3): log(1 + e^-0.3) + log(1 + e^-0.8) + log(1 + e^-0.5), a sum."""
    assert lambdarank(*lists(HAND)).item() == pytest.approx(softplus(-0.3) + softplus(-0.8) + softplus(-0.5))


def test_weighted_lambdarank_by_hand():
    """Gammas 0.2, 0.5, -0.3 with grades 2, 1, 0: ranks 2, 1, 3 and gains 3, 1, 0.

    Discounts 1/log2(1 + rank): a = 1/log2(3), 1, 1/2. Ideal DCG 3 + a. Swapping the first two changes DCG by
    |3 - 1| |a - 1|, first and third by 3 |a - 1/2|, second and third by 1 |1 - 1/2|.
    """
    a = 1 / log2(3)
    expected = (2 * (1 - a) * softplus(0.3) + 3 * (a - 0.5) * softplus(-0.5) + 0.5 * softplus(-0.8)) / (3 + a)
    assert WEIGHTED(*lists([(0.2, 2), (0.5, 1), (-0.3, 0)])).item() == pytest.approx(expected)


def test_weighted_lambdarank_ranks_ties_of_gamma_worst_first():
    """Both gammas 0, grades 1 and 0: the better one is at rank 2, so the swap is worth 1 - 1/log2(3) of an ideal 1."""
    gamma, grade, mask = lists([(0, 1), (0, 0)])
    weight = 1 - 1 / log2(3)
    assert WEIGHTED(gamma, grade, mask).item() == pytest.approx(weight * log(2))
    assert gradient(WEIGHTED, gamma, grade, mask).tolist()[0] == pytest.approx([-weight / 2, weight / 2])


def test_weighted_lambdarank_shares_the_rank_of_twins():
    """Gammas 0, 0, -1 with grades 0, 0, 1: the twins share rank 1.5, the better one has rank 3. Gains 0, 0, 1."""
    gamma, grade, mask = lists([(0, 0), (0, 0), (-1, 1)])
    weight = 1 / log2(2.5) - 1 / 2
    assert WEIGHTED(gamma, grade, mask).item() == pytest.approx(2 * weight * softplus(1))
    first, second, _ = gradient(WEIGHTED, gamma, grade, mask)[0].tolist()
    assert first == pytest.approx(second)


def test_weighted_lambdarank_takes_large_grades():
    """Gains of 2^1000 and 2^999: the weights are those of gains 1 and 1/2."""
    a = 1 / log2(3)
    loss = WEIGHTED(*lists([(0, 1000), (1, 999)], dtype=torch.float32)).item()
    assert loss == pytest.approx(0.5 * (1 - a) / (1 + 0.5 * a) * softplus(1), rel=1e-5)


LIPO = partial(lambdarank, weighted=True, gains="normalised")
RANKED = partial(lambdarank, weighted=True, gains="ranked")


def test_lipo_weights_by_hand():
    """Grades -1, 3, 1 are psi 0, 1, 1/2, so gains 0, 1, sqrt(2) - 1; gammas 0.5, 0.2, -0.3 give ranks 1, 2, 3.

    D is log 2, log 3, log 4. The pairs with psi_i > psi_j are (2nd, 1st), (2nd, 3rd) and (3rd, 1st).
    """
    g, d = (0, 1, sqrt(2) - 1), (log(2), log(3), log(4))
    weights = {(i, j): abs(g[i] - g[j]) * abs(1 / d[i] - 1 / d[j]) for i, j in ((1, 0), (1, 2), (2, 0))}
    assert weights[1, 0] == pytest.approx(0.532456, abs=1e-6)  # 1 / 0.693147 - 1 / 1.098612
    expected = weights[1, 0] * softplus(0.3) + weights[1, 2] * softplus(-0.5) + weights[2, 0] * softplus(0.8)
    assert LIPO(*lists([(0.5, -1), (0.2, 3), (-0.3, 1)])).item() == pytest.approx(expected)


def test_ranked_gains_read_the_order_alone():
    """Grades in the order 0, 1, 1/2 of [0, 1], whatever they are; ties share their place: 0, 1, 1 and 0, 0, 1."""
    expected = LIPO(*lists([(0.5, 0), (0.2, 1), (-0.3, 0.5)])).item()
    for grades in ((-7, 900, -6.9), (1, 3, 2), (-3, -1, -2)):
        assert RANKED(*lists([*zip((0.5, 0.2, -0.3), grades)])).item() == pytest.approx(expected)
    for grades, psi in (((-2, 5, 5), (0, 1, 1)), ((4, 4, 4.5), (0, 0, 1)), ((1, 2, 2, 3), (0, 0.5, 0.5, 1))):
        gammas = (0.5, 0.2, -0.3, 0.1)[: len(psi)]
        assert RANKED(*lists([*zip(gammas, grades)])).item() == pytest.approx(LIPO(*lists([*zip(gammas, psi)])).item())


@pytest.mark.parametrize("loss", [LIPO, RANKED])
def test_gains_within_a_list_need_no_scale(loss):
    """The same for a shift, a positive factor, and padding; all equal says nothing; whole grades too are normalised."""
    gamma, grade, mask = lists([(0.5, -1), (0.2, 3), (-0.3, 1)], [(0.1, 2), (0.4, -2)], [(0.3, -4), (0.1, -4)])
    value = loss(gamma, grade, mask)
    assert value > 0
    assert loss(gamma, 5 * grade - 100, mask).item() == pytest.approx(value.item())
    padded = grade.masked_fill(~mask, 1e6)
    assert loss(gamma, padded, mask) == value and gradient(loss, gamma, padded, mask).isfinite().all()
    assert loss(*lists([(0.3, -4), (0.1, -4)])) == 0
    assert loss(gamma.float(), grade.long(), mask).item() == pytest.approx(value.item(), rel=1e-6)


def test_gains_are_named_and_weigh():
    scores = lists(HAND)
    with pytest.raises(UserError, match='add "weighted": 1'):
        lambdarank(*scores, gains="ranked")
    assert get("lambdarank").resolve()["gains"] == "grades"
    assert get("lambdarank").resolve(weighted=1, gains="ranked")["gains"] == "ranked"
    for wrong in ("normalized", 1, 0.5):
        with pytest.raises(UserError, match=f"gains is one of grades, normalised, ranked, got {wrong!r}"):
            get("lambdarank").resolve(gains=wrong)


def test_weighted_lambdarank_refuses_negative_grades():
    gamma, grade, mask = lists([(0, 1), (0, -1)])
    with pytest.raises(UserError, match='0 or more, or .* "gains": "normalised" or "ranked"'):
        WEIGHTED(gamma, grade, mask)
    mask[0, 1] = False
    assert WEIGHTED(gamma, grade, mask) == 0


def test_listmle_by_hand():
    """-log(e^0.5 / (e^0.5 + e^0.2 + e^-0.3)) - log(e^0.2 / (e^0.2 + e^-0.3)); the last term is log 1."""
    expected = log((exp(0.5) + exp(0.2) + exp(-0.3)) / exp(0.5)) + log((exp(0.2) + exp(-0.3)) / exp(0.2))
    assert listmle(*lists(HAND)).item() == pytest.approx(expected)


def test_listmle_groups_equal_grades():
    """Grades 1, 1, 0 with gammas 1, 0, -1: each of the first two competes with the last only."""
    assert listmle(*lists([(1, 1), (0, 1), (-1, 0)])).item() == pytest.approx(softplus(-2) + softplus(-1))


# -- what they share -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", UNWEIGHTED.values(), ids=UNWEIGHTED)
def test_two_candidates_are_dpo(objective):
    rng = torch.Generator().manual_seed(0)
    won, lost = torch.randn(2, 8, generator=rng) * 3
    gamma, grade = torch.stack([lost, won], 1), torch.tensor([[0.0, 1.0]]).expand(8, 2)
    dpo = torch.nn.functional.softplus(lost - won).mean()
    assert torch.allclose(objective(gamma, grade, torch.ones(8, 2, dtype=torch.bool)), dpo, rtol=1e-6)


@each
def test_only_lists_that_say_something_count(objective):
    silent = [(3.0, 1), (-2.0, 1)]
    gamma, grade, mask = lists(HAND, silent, [(0.7, 1)], HAND, [])
    assert objective(gamma, grade, mask).item() == pytest.approx(objective(*lists(HAND)).item())
    moved = gradient(objective, gamma, grade, mask)
    assert (moved[[1, 2, 4]] == 0).all() and (moved[[0, 3]] != 0).any()


@each
@pytest.mark.parametrize("row", [[(0.3, 1)], [(0.3, 1), (-5, 1), (9, 1)], []], ids=["one", "equal", "none"])
def test_a_batch_that_says_nothing_is_zero(objective, row):
    gamma, grade, mask = lists(row, row, [(1, 0)])
    assert objective(gamma, grade, mask).item() == 0
    assert (gradient(objective, gamma, grade, mask) == 0).all()


@each
@pytest.mark.parametrize("filler", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_padding_adds_nothing(objective, filler):
    gamma, grade, mask = random_lists()
    wide = torch.nn.functional.pad(gamma, (1, 2), value=filler)
    wide = wide.masked_fill(~torch.nn.functional.pad(mask, (1, 2)), filler)
    wide_grade = torch.nn.functional.pad(grade.double(), (1, 2), value=filler)
    wide_mask = torch.nn.functional.pad(mask, (1, 2))
    assert torch.allclose(objective(wide, wide_grade, wide_mask), objective(gamma, grade, mask), rtol=1e-12)
    moved = gradient(objective, wide, wide_grade, wide_mask)
    assert (moved[~wide_mask] == 0).all()
    assert torch.allclose(moved[:, 1:-2], gradient(objective, gamma, grade, mask), rtol=1e-12)


@each
def test_order_of_candidates_does_not_matter(objective):
    gamma, grade, mask = random_lists()
    gamma = (gamma * 2).round() / 2  # equal gammas too
    shuffled = torch.argsort(torch.rand(gamma.shape, generator=torch.Generator().manual_seed(1)), dim=1)
    moved = [tensor.gather(1, shuffled) for tensor in (gamma, grade, mask)]
    assert torch.allclose(objective(*moved), objective(gamma, grade, mask), rtol=1e-12)
    assert torch.allclose(gradient(objective, *moved), gradient(objective, gamma, grade, mask).gather(1, shuffled))


@each
def test_mean_over_lists_is_the_mean_of_single_lists(objective):
    gamma, grade, mask = random_lists(b=8)
    single = [objective(gamma[i : i + 1], grade[i : i + 1], mask[i : i + 1]) for i in range(8)]
    said = [loss for loss in single if loss > 0]
    assert 1 < len(said) < 8
    assert torch.allclose(objective(gamma, grade, mask), torch.stack(said).mean())


@each
def test_gradient_matches_finite_differences(objective):
    gamma, grade, mask = random_lists(b=4)
    assert torch.autograd.gradcheck(lambda g: objective(g, grade, mask), gamma.requires_grad_())


@each
def test_the_gradient_lifts_the_best_and_lowers_the_worst(objective):
    best, _, worst = gradient(objective, *lists(HAND))[0].tolist()
    assert best < 0 < worst


@each
@pytest.mark.parametrize("seed", range(5))
def test_float32_is_stable_at_ten_thousand(objective, seed):
    gamma, grade, mask = random_lists(b=32, dtype=torch.float32, scale=1e4, seed=seed)
    loss, exact = objective(gamma, grade, mask), objective(gamma.double(), grade, mask)
    assert loss.dtype == torch.float32 and loss.item() > 100
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    moved, right = gradient(objective, gamma, grade, mask), gradient(objective, gamma.double(), grade, mask)
    assert moved.isfinite().all() and torch.allclose(moved.double(), right, rtol=1e-6, atol=1e-7)


@each
@pytest.mark.parametrize("sign", [1, -1])
def test_float32_at_the_extremes(objective, sign):
    """A list told apart perfectly costs nothing, one turned round costs its gaps; neither overflows."""
    gamma, grade, mask = lists([(sign * 1e4, 1), (-sign * 1e4, 0)], dtype=torch.float32)
    weight = 1 - 1 / log2(3) if objective is WEIGHTED else 1
    assert objective(gamma, grade, mask).item() == pytest.approx(0 if sign > 0 else weight * 2e4, rel=1e-6)
    expected = [0, 0] if sign > 0 else [-weight, weight]
    assert gradient(objective, gamma, grade, mask)[0].tolist() == pytest.approx(expected)


@each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(objective, dtype):
    gamma, grade, mask = random_lists(dtype=dtype)
    loss = objective(gamma, grade, mask)
    assert loss.dtype == torch.float32 and loss == objective(gamma.float(), grade, mask)
    assert gradient(objective, gamma, grade, mask).dtype == dtype


@each
def test_shapes_are_checked(objective):
    gamma, grade, mask = random_lists()
    for wrong in ((gamma, grade[:, :2], mask), (gamma, grade, mask.long()), (gamma[0], grade[0], mask[0])):
        with pytest.raises(ValueError, match=r"gamma\[B, L\]"):
            objective(*wrong)


# -- names, parameters, mistakes -----------------------------------------------------------------------------------


def test_get_and_names():
    assert get("listmle") is OBJECTIVES["listmle"]
    assert names()[:4] == ["pairwise", "contrastive", "lambdarank", "listmle"]
    assert names()[4:14] == ["sft", "rrhf", "slic-hf", "ipo", "cpo", "kto", "r-dpo", "simpo", "spin", "irft"]
    assert names()[-6:] == ["grpo", "dr-grpo", "rloo", "pkpo", "best-minus-second", "rft"]
    with pytest.raises(UserError, match="did you mean 'lambdarank'.*contrastive"):
        get("lamdarank")


def test_what_an_objective_asks_for():
    lists_of = {name: (o.positives, o.negatives) for name, o in OBJECTIVES.items()}
    assert (lists_of["pairwise"], lists_of["contrastive"], lists_of["listmle"]) == ((1, 1), (1, 3), (2, 2))
    assert lists_of["sft"] == (1, 0) and not OBJECTIVES["sft"].needs_negative
    assert [name for name, o in OBJECTIVES.items() if o.mismatched] == ["kto"]
    assert [name for name, o in OBJECTIVES.items() if o.gold] == ["spin", "irft"]
    assert [name for name, o in OBJECTIVES.items() if o.all_draws and o.by_token] == names()[-6:]
    assert [name for name, o in OBJECTIVES.items() if o.learns_reward] == ["rft"]


def test_parameters_are_the_losses_own_with_their_defaults():
    assert get("cpo").parameters == {"beta": 0.1, "nll": 1.0}
    assert get("sft").parameters == {}
    assert get("ipo").resolve(beta=None, nll=0.2) == {"beta": 0.1, "per_token": True, "nll": 0.2}
    assert get("ipo").resolve(per_token=0) == {"beta": 0.1, "per_token": False, "nll": 0.0}


@pytest.mark.parametrize(
    "name, parameters, message",
    [
        ("pairwise", {"alpha": 1}, "'pairwise' has no parameter 'alpha'; known: beta, nll"),
        ("lambdarank", {"wieghted": 1}, "did you mean 'weighted'"),
        ("sft", {"beta": 0.1}, "'sft' has no parameter 'beta'; it takes none"),
        ("sft", {"nll": 0.1}, "it takes none"),
        ("pairwise", {"beta": -0.1}, "beta must be above 0, got -0.1"),
        ("ipo", {"beta": 0}, "beta must be above 0, got 0"),
        ("r-dpo", {"alpha": -1}, "alpha must be 0 or more, got -1"),
        ("pairwise", {"nll": -1}, "nll must be 0 or more"),
        ("simpo", {"beta": float("nan")}, "beta must be a finite number, got nan"),
        ("simpo", {"beta": float("inf")}, "finite number"),
        ("simpo", {"beta": "2"}, "finite number, got '2'"),
        ("ipo", {"per_token": 0.5}, "per_token is a switch, 0 or 1, got 0.5"),
        ("pkpo", {"k": 0}, "'pkpo': k must be a whole number of at least 1, got 0"),
        ("pkpo", {"k": 2.5}, "k must be a whole number of at least 1, got 2.5"),
        ("dr-grpo", {"budget": 0}, "'dr-grpo': budget must be above 0, got 0"),
        ("nca", {"alpha": 0}, "'nca': alpha must be above 0, got 0"),
        ("grpo", {"ratio": "word"}, "ratio is one of token, sequence, got 'word'"),
    ],
)
def test_wrong_parameters_are_refused(name, parameters, message):
    with pytest.raises(UserError, match=message):
        get(name).resolve(**parameters)


def test_the_parts_of_scores_must_fit():
    part = torch.zeros(2, 3)
    for wrong in ((part, part, part, part[:, :2], part.bool()), (part,) * 5, (part[0],) * 4 + (part[0].bool(),)):
        with pytest.raises(ValueError, match=r"each \[B, L\]"):
            Scores(*wrong)


@pytest.mark.parametrize("objective", [LIPO, RANKED, WEIGHTED])
def test_weights_read_neither_padding_nor_the_precision_of_the_grades(objective):
    """Grades of few bits, such as a reward model's, are brought to the precision of gamma before they are divided."""
    gamma, grade, mask = lists(HAND, HAND[:2])
    alone = [objective(*lists(row)).item() for row in (HAND, HAND[:2])]
    assert objective(gamma, grade, mask).item() == pytest.approx(sum(alone) / 2)
    thirds = torch.tensor([[3.0, 1.0, 0.0]])
    whole = objective(gamma[:1], thirds, mask[:1]).item()
    assert objective(gamma[:1], thirds.bfloat16(), mask[:1]).item() == pytest.approx(whole, abs=1e-9)


def test_what_is_wrong_with_an_objective_or_its_scores_is_named():
    with pytest.raises(UserError, match="--objective no_such_module:loss"):
        get("no_such_module:loss")
    with pytest.raises(ValueError, match=r"\[2, 3\], \[2, 3\], \[2, 3\], \[2, 2\], \[2, 3\]"):
        Scores(*[torch.zeros(2, 3)] * 3, torch.zeros(2, 2), torch.ones(2, 3).bool())


def test_which_lists_a_loss_counts():
    """By those a step's parts are weighed: two different grades, or, where no negative is needed, a candidate."""
    grade = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    mask = torch.tensor([[True, True], [True, True], [True, False], [False, False]])
    assert get("pairwise").counts(grade, mask).tolist() == [True, False, False, False]
    assert get("sft").counts(grade, mask).tolist() == [True, True, True, False]


DEFAULTS = {  # as the papers, or their authors' code, have them
    "pairwise": {"beta": 0.1},
    "contrastive": {"beta": 0.1},
    "listmle": {"beta": 0.1},
    "rrhf": {"nll": 1.0, "nll_per_token": True},
    "slic-hf": {"delta": 1.0, "nll": 0.1, "nll_per_token": False},
    "ipo": {"beta": 0.1, "per_token": True},
    "cpo": {"beta": 0.1, "nll": 1.0},
    "kto": {"beta": 0.1, "desirable": 1.0, "undesirable": 1.0},
    "r-dpo": {"beta": 0.1, "alpha": 0.05},
    "simpo": {"beta": 2.0, "gamma_beta_ratio": 0.5},
    "spin": {"beta": 0.1},
    "irft": {"beta": 0.1},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_the_published_ones(name):
    assert dict(get(name).parameters) == DEFAULTS[name]
