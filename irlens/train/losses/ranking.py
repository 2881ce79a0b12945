"""LarPO's four ranking losses: pure functions of gamma, grade and mask, one scalar out.

Each of the four here takes `gamma[B, L]`, `grade[B, L]` and `mask[B, L]` for B lists of L candidates, where
gamma(y) = beta * (log pi_theta(y | x) - log pi_ref(y | x)) with sums of token log-probabilities, a higher grade is
better, and mask is True where a candidate is real. It returns the mean over the lists that say something, that is, hold
two real candidates of different grade; with no such list it returns 0, with zero gradient. Candidates of equal grade
say nothing about each other. Padding adds nothing, whatever it holds, and neither does the order of a list's
candidates. Half precision is computed in float32.

Source: Jin et al. 2025, "LLM Alignment as Retriever Optimization", Table 1. A list is x with candidates y; sigma is the
logistic function. With one better and one worse candidate, every unweighted objective here is DPO.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from irlens.base.errors import UserError
from irlens.train.losses.scores import above, at_least_float32, extreme_pairs, gaps, mean_over_lists


def pairwise(gamma: Tensor, grade: Tensor, mask: Tensor) -> Tensor:
    """DPO: -log sigma(gamma_w - gamma_l), w a candidate of the list's highest grade and l one of its lowest.

    A list with several of either is the mean over all such pairs; grades between are not used. Bradley-Terry.
    Source: Jin et al. 2025, Table 1; Rafailov et al. 2023, equation 7.
    """
    gamma, above = _prepare(gamma, grade, mask)
    pairs = extreme_pairs(above, mask)
    return _mean((_pair_losses(gamma) * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1), above)


def contrastive(gamma: Tensor, grade: Tensor, mask: Tensor) -> Tensor:
    """-log(e^gamma_w / (e^gamma_w + sum_l e^gamma_l)), w of the highest grade, l every candidate of a lower one.

    A list with several w is the mean over them; they are no negatives of each other. Source: Jin et al. 2025, Table 1;
    InfoNCE of van den Oord et al. 2018, equation 4.
    """
    gamma, above = _prepare(gamma, grade, mask)
    best = ~above.any(dim=1) & mask
    return _mean((_losses_against_lower(gamma, above) * best).sum(1) / best.sum(1).clamp(min=1), above)


Gains = Literal["grades", "normalised", "ranked"]


def lambdarank(gamma: Tensor, grade: Tensor, mask: Tensor, weighted: bool = False, gains: Gains = "grades") -> Tensor:
    """-sum_ij w_ij log sigma(gamma_i - gamma_j) over all pairs with grade_i > grade_j: a sum, not a mean, per list.

    w = 1 as in Jin et al. 2025, Table 1 (RankNet over all pairs). `weighted` takes what swapping i and j in the list as
    gamma ranks it now would change, without gradient: `gains` says of what. With the grades as they are, which must be
    0 or more (else UserError), LambdaRank's own |Delta NDCG| (`_ndcg_changes`); with grades of any real value,
    normalised to [0, 1] or ranked within their list, LiPO-lambda's weights (`_lipo_weights`). Gains other than the
    grades raise UserError without `weighted`.
    Source: Burges 2010, sections 3 and 4; Liu et al. 2024, "LiPO", arXiv 2402.01878.
    """
    gamma, above = _prepare(gamma, grade, mask)
    if gains != "grades" and not weighted:
        raise UserError(f'lambdarank: "gains": "{gains}" weighs the pairs; add "weighted": 1')
    weights = 1
    if weighted:
        change = _ndcg_changes if gains == "grades" else _lipo_weights
        labels = _labels(grade.to(torch.promote_types(grade.dtype, gamma.dtype)), mask, gains)
        weights = change(gamma.detach(), labels, mask)
    return _mean((_pair_losses(gamma) * above * weights).sum((1, 2)), above)


def listmle(gamma: Tensor, grade: Tensor, mask: Tensor) -> Tensor:
    """-sum_i log(e^gamma_i / (e^gamma_i + sum_j e^gamma_j)), j every candidate of a lower grade than i: a sum per list.

    Plackett-Luce, best first, over the groups of equal grade: a candidate competes with itself and those below only.
    Source: Jin et al. 2025, Table 1 and equation 24, with j > i (some of the paper's forms start at j = i and would
    count y_i twice); Xia et al. 2008.
    """
    gamma, above = _prepare(gamma, grade, mask)
    return _mean(_losses_against_lower(gamma, above).sum(1), above)


def _prepare(gamma: Tensor, grade: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(gamma in at least float32 with 0 for padding, above[B, L, L]: is candidate i of a higher grade than j?)."""
    if gamma.ndim != 2 or not gamma.shape == grade.shape == mask.shape or mask.dtype != torch.bool:
        raise ValueError(
            "an objective takes gamma[B, L], grade[B, L] and a boolean mask[B, L], got the shapes "
            f"{list(gamma.shape)}, {list(grade.shape)} and {list(mask.shape)} ({mask.dtype})"
        )
    return torch.where(mask, at_least_float32(gamma), 0), above(grade, mask)


def _pair_losses(gamma: Tensor) -> Tensor:
    """[B, L, L]: -log sigma(gamma_i - gamma_j)."""
    return -logsigmoid(gaps(gamma))


def _losses_against_lower(gamma: Tensor, above: Tensor) -> Tensor:
    """[B, L]: -log(e^gamma_i / (e^gamma_i + sum of e^gamma_j over the j that i is above)); 0 if it is above none.

    Written as -log sigma(gamma_i - logsumexp_j gamma_j), which neither overflows nor cancels.
    """
    nothing = torch.finfo(gamma.dtype).min / 2  # e^nothing is 0; finite, so that nothing - nothing is 0, not NaN
    lower = torch.where(above, gamma.unsqueeze(1), nothing).logsumexp(dim=2)
    return -logsigmoid(gamma - lower)


def _mean(losses: Tensor, above: Tensor) -> Tensor:
    """losses[B] averaged over the lists with a pair of different grades; the other lists' losses are 0."""
    return mean_over_lists(losses, above.any(dim=2).any(dim=1))


def _labels(grade: Tensor, mask: Tensor, gains: str) -> Tensor:
    """psi[B, L]: the grades, or these in [0, 1] within their list, of which the worst has 0 and the
    best 1.

    normalised: (grade - least) / (greatest - least). ranked: the candidates below, ties counting half, out of all
    others, and those numbers normalised, so that only the order counts. All equal: 0. Padding: 0.
    """
    grade = torch.where(mask, grade, 0)
    if gains == "grades":
        return grade
    if gains == "ranked":
        below, over = above(grade, mask).sum(2), above(grade, mask).sum(1)
        grade = (below - over).to(grade.dtype)
    low = torch.where(mask, grade, torch.inf).amin(1, keepdim=True)
    span = torch.where(mask, grade, -torch.inf).amax(1, keepdim=True) - low
    return torch.where(mask & (span > 0), (grade - low) / torch.where(span > 0, span, 1), 0)


def _ranks(gamma: Tensor, grade: Tensor, mask: Tensor) -> Tensor:
    """[B, L]: the place of every candidate in the order of falling gamma, from 1.

    Among equal gammas the lower grade is ranked first: at the start of training all gammas are 0, and one shared rank
    would make all weights, and every gradient for ever, 0. Candidates equal in both share the mean of their ranks.
    """
    ones = mask.unsqueeze(1)
    ahead = (gamma.unsqueeze(1) > gamma.unsqueeze(2)) & ones  # [B, i, j]: j is ranked before i
    tied = (gamma.unsqueeze(1) == gamma.unsqueeze(2)) & ones
    worse, same = grade.unsqueeze(1) < grade.unsqueeze(2), grade.unsqueeze(1) == grade.unsqueeze(2)
    return 0.5 + (ahead | (tied & worse)).sum(2) + (tied & same).sum(2) / 2  # a candidate ties with itself


def _lipo_weights(gamma: Tensor, psi: Tensor, mask: Tensor) -> Tensor:
    """[B, L, L]: |G_i - G_j| * |1 / D_i - 1 / D_j|, G = 2^psi - 1, D = log(1 + rank), natural, as published.

    Other than |Delta NDCG| not over the ideal order's DCG: with psi in [0, 1] gains are of one scale as they are.
    """
    gain = torch.where(mask, torch.exp2(psi.to(gamma.dtype)) - 1, 0)
    discount = 1 / torch.log1p(_ranks(gamma, psi, mask).to(gamma.dtype))
    return gaps(gain).abs() * gaps(discount).abs()


def _ndcg_changes(gamma: Tensor, grade: Tensor, mask: Tensor) -> Tensor:
    """[B, L, L]: how much NDCG changes if candidates i and j swap places in the order of falling gamma.

    |G_i - G_j| * |1 / D_i - 1 / D_j| / (the ideal order's DCG), G = 2^grade - 1, D = log2(1 + rank) (`_ranks`).
    """
    if (mask & (grade < 0)).any():
        raise UserError(
            "weighted LambdaRank has gains 2^grade - 1: grades must be 0 or more, or be brought there within their list "
            'by "gains": "normalised" or "ranked"'
        )
    grade = grade.to(gamma.dtype)
    top = grade.amax(dim=1, keepdim=True)
    gain = torch.where(mask, torch.exp2(grade - top) - torch.exp2(-top), 0)  # over 2^top, which the division cancels
    places = torch.arange(2, gain.shape[1] + 2, device=gain.device, dtype=gain.dtype)
    ideal = (gain.sort(dim=1, descending=True).values / torch.log2(places)).sum(1)
    discount = 1 / torch.log2(1 + _ranks(gamma, grade, mask))
    return gaps(gain).abs() * gaps(discount).abs() / torch.where(ideal > 0, ideal, 1).view(-1, 1, 1)
