"""The ranking objectives of preference optimisation: pure tensors in, one scalar out.

Every objective takes `gamma[B, L]`, `grade[B, L]` and `mask[B, L]` for B lists of L candidates, where
gamma(y) = beta * (log pi_theta(y | x) - log pi_ref(y | x)) with sums of token log-probabilities, a higher grade is
better, and mask is True where a candidate is real. It returns the mean over the lists that say something, that is, hold
two real candidates of different grade; with no such list it returns 0, with zero gradient. Candidates of equal grade
say nothing about each other. Padding adds nothing, whatever it holds, and neither does the order of a list's
candidates. Half precision is computed in float32.

Source: Jin et al. 2025, "LLM Alignment as Retriever Optimization", Table 1. A list is x with candidates y; sigma is the
logistic function. With one better and one worse candidate, every unweighted objective here is DPO.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from irlens.errors import UserError, did_you_mean


def pairwise(gamma: Tensor, grade: Tensor, mask: Tensor) -> Tensor:
    """DPO: -log sigma(gamma_w - gamma_l), w a candidate of the list's highest grade and l one of its lowest.

    A list with several of either is the mean over all such pairs; grades between are not used. Bradley-Terry.
    Source: Jin et al. 2025, Table 1; Rafailov et al. 2023, equation 7.
    """
    gamma, above = _prepare(gamma, grade, mask)
    best = ~above.any(dim=1) & mask  # [B, L]: no candidate is above it
    worst = ~above.any(dim=2) & mask
    pairs = above & best.unsqueeze(2) & worst.unsqueeze(1)
    return _mean((_pair_losses(gamma) * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1), above)


def contrastive(gamma: Tensor, grade: Tensor, mask: Tensor) -> Tensor:
    """-log(e^gamma_w / (e^gamma_w + sum_l e^gamma_l)), w of the highest grade, l every candidate of a lower one.

    A list with several w is the mean over them; they are no negatives of each other. Source: Jin et al. 2025, Table 1;
    InfoNCE of van den Oord et al. 2018, equation 4.
    """
    gamma, above = _prepare(gamma, grade, mask)
    best = ~above.any(dim=1) & mask
    return _mean((_losses_against_lower(gamma, above) * best).sum(1) / best.sum(1).clamp(min=1), above)


def lambdarank(gamma: Tensor, grade: Tensor, mask: Tensor, weighted: bool = False) -> Tensor:
    """-sum_ij w_ij log sigma(gamma_i - gamma_j) over all pairs with grade_i > grade_j: a sum, not a mean, per list.

    w = 1 as in Jin et al. 2025, Table 1 (RankNet over all pairs). `weighted` takes LambdaRank's own
    w_ij = |Delta NDCG| of swapping i and j in the list as gamma ranks it now (`_ndcg_changes`), without gradient; it
    raises UserError for a negative grade. Source: Burges 2010, sections 3 and 4; Liu et al. 2024 (LiPO-lambda).
    """
    gamma, above = _prepare(gamma, grade, mask)
    weights = _ndcg_changes(gamma.detach(), grade, mask) if weighted else 1
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
    gamma = gamma if gamma.dtype == torch.float64 else gamma.float()
    above = (grade.unsqueeze(2) > grade.unsqueeze(1)) & mask.unsqueeze(2) & mask.unsqueeze(1)
    return torch.where(mask, gamma, 0), above


def _pair_losses(gamma: Tensor) -> Tensor:
    """[B, L, L]: -log sigma(gamma_i - gamma_j)."""
    return -logsigmoid(gamma.unsqueeze(2) - gamma.unsqueeze(1))


def _losses_against_lower(gamma: Tensor, above: Tensor) -> Tensor:
    """[B, L]: -log(e^gamma_i / (e^gamma_i + sum of e^gamma_j over the j that i is above)); 0 if it is above none.

    Written as -log sigma(gamma_i - logsumexp_j gamma_j), which neither overflows nor cancels.
    """
    nothing = torch.finfo(gamma.dtype).min / 2  # e^nothing is 0; finite, so that nothing - nothing is 0, not NaN
    lower = torch.where(above, gamma.unsqueeze(1), nothing).logsumexp(dim=2)
    return -logsigmoid(gamma - lower)


def _mean(losses: Tensor, above: Tensor) -> Tensor:
    """losses[B] averaged over the lists with a pair of different grades; the other lists' losses are 0."""
    return losses.sum() / above.any(dim=2).any(dim=1).sum().clamp(min=1)


def _ndcg_changes(gamma: Tensor, grade: Tensor, mask: Tensor) -> Tensor:
    """[B, L, L]: how much NDCG changes if candidates i and j swap places in the order of falling gamma.

    |G_i - G_j| * |1 / D_i - 1 / D_j| / (the ideal order's DCG), G = 2^grade - 1, D = log2(1 + rank), rank from 1.
    Among equal gammas the lower grade is ranked first: at the start of training all gammas are 0, and one shared rank
    would make all weights, and every gradient for ever, 0. Candidates equal in both share the mean of their ranks.
    """
    if (mask & (grade < 0)).any():
        raise UserError("weighted LambdaRank has gains 2^grade - 1: grades must be 0 or more; rank or shift them first")
    ones, grade = mask.unsqueeze(1), torch.where(mask, grade, 0).to(gamma.dtype)
    ahead = (gamma.unsqueeze(1) > gamma.unsqueeze(2)) & ones  # [B, i, j]: j is ranked before i
    tied = (gamma.unsqueeze(1) == gamma.unsqueeze(2)) & ones
    worse, same = grade.unsqueeze(1) < grade.unsqueeze(2), grade.unsqueeze(1) == grade.unsqueeze(2)
    rank = 0.5 + (ahead | (tied & worse)).sum(2) + (tied & same).sum(2) / 2  # a candidate ties with itself
    top = grade.amax(dim=1, keepdim=True)
    gain = torch.where(mask, torch.exp2(grade - top) - torch.exp2(-top), 0)  # over 2^top, which the division cancels
    places = torch.arange(2, gain.shape[1] + 2, device=gain.device, dtype=gain.dtype)
    ideal = (gain.sort(dim=1, descending=True).values / torch.log2(places)).sum(1)
    discount = 1 / torch.log2(1 + rank)
    change = (gain.unsqueeze(2) - gain.unsqueeze(1)).abs() * (discount.unsqueeze(2) - discount.unsqueeze(1)).abs()
    return change / torch.where(ideal > 0, ideal, 1).view(-1, 1, 1)


OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    "pairwise": pairwise,
    "contrastive": contrastive,
    "lambdarank": lambdarank,
    "listmle": listmle,
}


def get(name: str) -> Callable[..., Tensor]:
    """The objective of that name. Raises UserError for an unknown one."""
    if name not in OBJECTIVES:
        raise UserError(f"no objective {name!r}; {did_you_mean(name, OBJECTIVES)}")
    return OBJECTIVES[name]
