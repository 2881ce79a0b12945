"""Policy-gradient losses: numbers worked out by hand, the expected best of k by counting, and what must say nothing."""

from dataclasses import replace
from functools import partial
from itertools import combinations
from math import comb, exp, log, sqrt

import pytest
import torch

from irlens.base.errors import UserError
from irlens.train.losses import OBJECTIVES, Scores, Tokens, get

NAMES = [name for name, objective in OBJECTIVES.items() if objective.by_token]
every = pytest.mark.parametrize("name", NAMES)


def lists(*rows, requires_grad=False) -> tuple[Scores, torch.Tensor]:
    """(Scores of lists of draws (grade, the log-ratio of each of its tokens), the leaf that they are differentiated by).

    The reference's log-probability of every token is -1.
    """
    width, flat, owner = max(map(len, rows)), [], []
    grade, mask = torch.zeros(2, len(rows), width, dtype=torch.float64)
    for b, row in enumerate(rows):
        for i, (value, ratios) in enumerate(row):
            grade[b, i], mask[b, i] = value, 1
            flat += ratios
            owner += [b * width + i] * len(ratios)
    reference, owner = -torch.ones(len(flat), dtype=torch.float64), torch.tensor(owner)
    leaf = (reference + torch.tensor(flat, dtype=torch.float64)).requires_grad_(requires_grad)
    return scores_of(leaf, reference, owner, grade, mask.bool()), leaf


def scores_of(leaf, reference, owner, grade, mask) -> Scores:
    def summed(values):
        return torch.zeros(mask.numel(), dtype=torch.float64).index_add(0, owner, values).view(mask.shape)

    tokens = Tokens(leaf, reference, owner)
    return Scores(summed(leaf), summed(reference), summed(torch.ones_like(leaf)), grade, mask, by_token=tokens)


def random_lists(seed=0, b=5, n=6):
    """Lists of 2 to n draws of 1 to 4 tokens, with ties, the first of them informative."""
    rng = torch.Generator().manual_seed(seed)

    def draw(grade):
        size = int(torch.randint(1, 5, (), generator=rng))
        return grade, (0.3 * torch.randn(size, generator=rng)).tolist()

    sizes = torch.randint(2, n + 1, (b,), generator=rng).tolist()
    rows = [[draw(float(torch.randint(0, 3, (), generator=rng))) for _ in range(size)] for size in sizes]
    rows[0] = [draw(1.0), draw(0.0), *rows[0]]
    return rows


def gradient(loss, rows):
    scores, leaf = lists(*rows, requires_grad=True)
    value = loss(scores)
    value.backward()
    return value.item(), leaf.grad


# -- by hand -------------------------------------------------------------------------------------------------------
# Two draws: the right one's tokens have the ratios 1.5 and 1.1, the wrong one's 0.5. Clipped, 1.2, 1.1 and 0.8: a right
# draw gains nothing above 1.2, and a wrong one nothing below 0.8.

PAIR = [(1.0, [log(1.5), log(1.1)]), (0.0, [log(0.5)])]


def test_grpo_by_hand():
    """A = +-0.5 / (sqrt(0.5) + 0.0001); means over tokens 1.15 and 0.8, then over the two draws."""
    scores, _ = lists(PAIR)
    advantage = 0.5 / (sqrt(0.5) + 1e-4)
    assert get("grpo")(scores).item() == pytest.approx(advantage * (0.8 - 1.15) / 2)


def test_dr_grpo_by_hand():
    """A = +-0.5; sums over tokens 2.3 and 0.8, over a budget of 10 and two draws."""
    scores, _ = lists(PAIR)
    assert get("dr-grpo")(scores, budget=10).item() == pytest.approx(0.5 * (0.8 - 2.3) / 20)
    with pytest.raises(UserError, match="budget"):
        get("dr-grpo")(scores, budget=0)


def test_rloo_by_hand():
    """A = +-1; the responses' ratios 1.65 and 0.5 are clipped to 1.2 and 0.8. Of three draws, 1 - 0, and -1/2 twice."""
    scores, _ = lists(PAIR)
    assert get("rloo")(scores).item() == pytest.approx((0.8 - 1.2) / 2)
    _, moved = gradient(get("rloo"), [[(1.0, [0.0]), (0.0, [0.0]), (0.0, [0.0])]])
    assert moved.tolist() == pytest.approx([-1 / 3, 0.5 / 3, 0.5 / 3])


def test_wider_clips_by_hand():
    scores, _ = lists(PAIR)
    assert get("rloo")(scores, clip_low=0.9, clip_high=0.3).item() == pytest.approx((0.5 - 1.3) / 2)


def test_a_ratio_per_token_or_of_the_response():
    """RLOO by the token: means 1.15 and 0.8. Of the response per token, as in GSPO: sqrt(1.65), clipped to 1.2, and 0.8."""
    scores, _ = lists(PAIR)
    assert get("rloo")(scores, ratio="token").item() == pytest.approx((0.8 - 1.15) / 2)
    wide = get("rloo")(scores, clip_high=0.5, length_normalised=True).item()
    assert wide == pytest.approx((0.8 - sqrt(1.65)) / 2)


def test_the_distance_from_the_policy_that_drew_by_hand():
    """Of ratio 2: 1/2 + log 2 - 1, per token; RLOO's draws cost (0.8 - 1.2) / 2 without it."""
    rows = [(1.0, [log(2)]), (0.0, [log(0.5)])]
    near = get("rloo")(lists(rows)[0], kl=3.0).item()
    assert near == pytest.approx((0.8 - 1.2) / 2 + 3 * ((0.5 + log(2) - 1) + (2 - log(2) - 1)) / 2)


def test_pkpo_by_hand():
    """n = 4, c = 2, k = 2: s is 1/2 for a right draw, and 1/2 * 2/3 = 1/3 for a wrong one, so +-1/12 around the mean.

    Less the best of the other draw of each pair: a right draw is the only right one in two of six pairs.
    """
    rows = [[(1.0, [0.0]), (0.0, [0.0]), (1.0, [0.0]), (0.0, [0.0])]]
    _, moved = gradient(partial(get("pkpo"), k=2), rows)
    assert moved.tolist() == pytest.approx([-1 / 12, 1 / 12, -1 / 12, 1 / 12])
    _, moved = gradient(partial(get("pkpo"), k=2, baseline="loo-1"), rows)
    assert moved.tolist() == pytest.approx([-1 / 3, 0, -1 / 3, 0])


def best_of(grades, k, i):
    """s_i and the baseline of "loo-1", by going through every subset."""
    subsets = [some for some in combinations(range(len(grades)), k) if i in some]
    whole = sum(max(grades[j] for j in some) for some in subsets)
    without = sum(max((grades[j] for j in some if j != i), default=0.0) for some in subsets)
    return whole / comb(len(grades), k), without / comb(len(grades), k)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_pkpo_is_what_counting_all_subsets_gives(k):
    """Ties, negative grades, and lists of fewer than k draws, which take their number, or one less around the mean."""
    for grades in ([0.5, -1.0, 2.0, 2.0, 0.0], [1.0, 0.0], [3.0, 1.0, 1.0]):
        rows = [[(grade, [0.0]) for grade in grades]]
        counted = [best_of(grades, min(k, len(grades) - 1), i) for i in range(len(grades))]
        mean = sum(s for s, _ in counted) / len(grades)
        _, moved = gradient(partial(get("pkpo"), k=k), rows)
        assert moved.tolist() == pytest.approx([mean - s for s, _ in counted])
        counted = [best_of(grades, min(k, len(grades)), i) for i in range(len(grades))]
        _, moved = gradient(partial(get("pkpo"), k=k, baseline="loo-1"), rows)
        assert moved.tolist() == pytest.approx([without - s for s, without in counted])


def test_pkpo_with_k_1_is_rloo_but_for_a_factor():
    rows = random_lists()[:1]
    n = len(rows[0])
    ones, _ = lists(*rows)
    assert get("pkpo")(ones, k=1).item() == pytest.approx(get("rloo")(ones).item() * (n - 1) / n)


@pytest.mark.parametrize("k", [0, 0.5, 2.5])
def test_pkpo_takes_whole_numbers(k):
    with pytest.raises(UserError, match="whole number of at least 1"):
        get("pkpo")(lists(PAIR)[0], k=k)


def test_best_minus_second_by_hand():
    """Grades 3, 1, 1, 0: the best leads by 2, and nothing else is pushed. Two best ones: nothing is."""
    _, moved = gradient(get("best-minus-second"), [[(1.0, [0.0]), (3.0, [0.0]), (1.0, [0.0]), (0.0, [0.0])]])
    assert moved.tolist() == pytest.approx([0, -2, 0, 0])
    _, moved = gradient(get("best-minus-second"), [[(3.0, [0.0]), (3.0, [0.0]), (1.0, [0.0])]])
    assert moved.tolist() == pytest.approx([0, 0, 0])


# -- what they share -----------------------------------------------------------------------------------------------


@every
def test_at_the_policy_that_drew_a_list_pushes_up_as_much_as_down(name):
    """One token each, ratios of 1: the gradients of a list sum to 0, but for the best's lead."""
    rows = [[(grade, [0.0]) for grade, _ in row] for row in random_lists()]
    _, moved = gradient(get(name), rows)
    assert moved.abs().max() > 0
    assert moved.sum().item() == pytest.approx(0, abs=1e-12) or (name == "best-minus-second" and moved.max() == 0)


@every
def test_lists_of_one_draw_or_equal_grades_add_nothing(name):
    """Neither to the loss nor to what it is a mean over; alone they give 0."""
    silent = [[(1.0, [0.2]), (1.0, [-0.2, 0.1])], [(2.0, [0.4])]]
    loss = partial(get(name), kl=0.5, nll=0.5)
    value, moved = gradient(loss, [PAIR, *silent])
    alone, its = gradient(loss, [PAIR])
    assert value == pytest.approx(alone) and torch.allclose(moved[:3], its) and (moved[3:] == 0).all()
    value, moved = gradient(loss, silent)
    assert value == 0 and (moved == 0).all()


@every
def test_a_batch_is_the_mean_of_its_lists_in_any_order(name):
    rows = [row for row in random_lists() if len({grade for grade, _ in row}) > 1]
    assert len(rows) > 2
    single = [gradient(get(name), [row])[0] for row in rows]
    assert gradient(get(name), rows)[0] == pytest.approx(sum(single) / len(rows))
    turned = [row[::-1] for row in rows]
    assert gradient(get(name), turned)[0] == pytest.approx(gradient(get(name), rows)[0])


@every
@pytest.mark.parametrize(
    "ways", [{}, {"kl": 0.3}, {"ratio": "sequence"}, {"ratio": "token"}, {"length_normalised": True}]
)
def test_gradient_matches_finite_differences(name, ways):
    scores, _ = lists(*random_lists())
    tokens = scores.by_token

    def loss(leaf):
        return get(name)(scores_of(leaf, tokens.reference, tokens.owner, scores.grade, scores.mask), **ways)

    assert torch.autograd.gradcheck(loss, scores.by_token.logprob.clone().requires_grad_())


@every
@pytest.mark.parametrize("filler", [float("nan"), float("inf"), 1e30])
def test_padding_adds_nothing(name, filler):
    scores, _ = lists(*random_lists())
    parts = ("logprob", "reference", "length", "grade")
    filled = {part: getattr(scores, part).masked_fill(~scores.mask, filler) for part in parts}
    assert not scores.mask.all()
    assert get(name)(replace(scores, **filled)).item() == pytest.approx(get(name)(scores).item())


@every
def test_half_precision_is_computed_in_float32(name):
    scores, _ = lists(*random_lists())
    tokens = scores.by_token
    low = Tokens(tokens.logprob.bfloat16(), tokens.reference.bfloat16(), tokens.owner)
    half = replace(scores, logprob=scores.logprob.bfloat16(), reference=scores.reference.bfloat16(), by_token=low)
    exact = Tokens(low.logprob.float(), low.reference.float(), low.owner)
    full = replace(half, logprob=half.logprob.float(), reference=half.reference.float(), by_token=exact)
    assert get(name)(half).dtype == torch.float32 and get(name)(half) == get(name)(full)


@every
def test_what_they_lack_is_said(name):
    with pytest.raises(UserError, match="single tokens"):
        get(name)(replace(lists(PAIR)[0], by_token=None))


@every
def test_weights_of_lists_reach_their_tokens(name):
    """WPO's weights, e^0 and e^-1: the loss is half the one list's and half the other's by e."""
    rows = [PAIR, [(0.0, [0.1]), (1.0, [0.05, 0.02, 0.0])]]
    scores, _ = lists(*rows)
    squared = scores.policy.clone()
    squared[1] += 0.5 * scores.tokens[1]
    first, second = (gradient(get(name), [row])[0] for row in rows)
    weighed = get(name)(replace(scores, squared=squared), wpo=True).item()
    assert weighed == pytest.approx((first + exp(-1) * second) / 2)


def test_an_objective_of_ones_own_may_ask_for_tokens_and_all_draws(tmp_path, monkeypatch):
    (tmp_path / "own_loss.py").write_text(
        "def loss(scores, beta=1.0):\n    return beta * scores.by_token.log_ratio.sum()\n\nloss.by_token = True\n"
        "def plain(scores):\n    return scores.policy.sum()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own = get("own_loss:loss")
    assert own.by_token and not own.all_draws and not get("own_loss:plain").by_token
    assert own(lists(PAIR)[0]).item() == pytest.approx(log(1.5) + log(1.1) + log(0.5))
