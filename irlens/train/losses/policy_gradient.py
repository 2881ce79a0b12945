"""Policy-gradient losses over lists of all draws of a prompt: pure functions of one batch's `Scores`, with their sources.

Each gives every draw y_i of a list an advantage A_i from the list's grades g and pushes its probability that way:

    -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A),    rho = pi_theta / pi_ref

where pi_ref is the policy that drew, as it was when the iteration began. `ratio` says of what rho is: "token", of every
token given those before it, or "sequence", of the whole response; with log-probabilities per token (length_normalised)
that is GSPO's (Zheng et al. 2025, arXiv 2507.18071). `kl` weighs the estimate e^d - d - 1, d = log pi_ref - log pi_theta,
per token, of the distance from the policy that drew; off, as in TRL's GRPO and in Dr. GRPO. As pi_ref drew, a KL penalty
within the reward, as RLOO has it, is 0.

A list's draws weigh equally, and equal texts count as often as they were drawn. The mean is over the lists that hold two
different grades: in the others every advantage is 0. (GRPO's source divides by those too; here, as in DAPO, they are no
part of a step.) Advantages have no gradient.
"""

from math import comb
from typing import Literal

import torch
from torch import Tensor

from irlens.base.errors import UserError
from irlens.train.losses.scores import Scores, mean_over_lists

Ratio = Literal["token", "sequence"]
Baseline = Literal["mean", "loo-1"]
SMALLEST = 1e-4  # added to a deviation that is divided by, as in TRL


def grpo(
    scores: Scores, clip_low: float = 0.2, clip_high: float = 0.2, kl: float = 0.0, ratio: Ratio = "token"
) -> Tensor:
    """A = (g - mean g) / (std g + 0.0001); the mean over a response's tokens, then over draws, then over lists.

    std is the sample's, over n - 1. Source: Shao et al. 2024, "DeepSeekMath", arXiv 2402.03300, equation 3; TRL's
    `loss_type="grpo"`.
    """
    grade, count = _grades(scores)
    gap = _centred(grade, scores.mask)
    deviation = (gap**2).sum(1, keepdim=True).div((count - 1).clamp(min=1)).sqrt()
    terms = _clipped(scores, gap / (deviation + SMALLEST), clip_low, clip_high, kl, ratio)
    return mean_over_lists((terms / scores.tokens).sum(1) / count[:, 0], scores.counted)


def dr_grpo(
    scores: Scores,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl: float = 0.0,
    ratio: Ratio = "token",
    budget: float = 512.0,
) -> Tensor:
    """A = g - mean g; the sum over a response's tokens over the constant `budget`, then the means over draws and lists.

    budget: TRL's `max_completion_length`, with its default; any constant gives the same direction. Source: Liu et al. 2025,
    "Understanding R1-Zero-Like Training", arXiv 2503.20783, section 3.2; TRL's `loss_type="dr_grpo"` with
    `scale_rewards="none"`.
    """
    grade, count = _grades(scores)
    terms = _clipped(scores, _centred(grade, scores.mask), clip_low, clip_high, kl, ratio)
    return mean_over_lists(terms.sum(1) / (budget * count[:, 0]), scores.counted)


def rloo(
    scores: Scores, clip_low: float = 0.2, clip_high: float = 0.2, kl: float = 0.0, ratio: Ratio = "sequence"
) -> Tensor:
    """A_i = g_i - the mean of the other draws' g; the mean over draws, then over lists.

    Source: Ahmadian et al. 2024, "Back to Basics", arXiv 2402.14740; Kool et al. 2019. TRL's RLOOTrainer, whose ratio is
    the whole response's.
    """
    grade, count = _grades(scores)
    advantage = _centred(grade, scores.mask) * count / (count - 1).clamp(min=1)
    terms = _clipped(scores, advantage, clip_low, clip_high, kl, ratio)
    return mean_over_lists((terms / scores.tokens).sum(1) / count[:, 0], scores.counted)


def rft(
    scores: Scores, clip_low: float = 0.2, clip_high: float = 0.2, kl: float = 0.0, ratio: Ratio = "sequence"
) -> Tensor:
    """RLOO's loss: what differs is the loop, whose grades are a reward learned from demonstrations in every iteration, less
    a KL penalty to the start (`irlens.train.rft`).

    The source leaves the optimiser of the policy open, and its authors' code takes PPO, whose clipped step this is with
    the other draws' mean for a critic. Source: Li et al. 2024, "Getting More Juice Out of the SFT Data", arXiv 2405.17888
    (its explicit algorithm).
    """
    return rloo(scores, clip_low, clip_high, kl, ratio)


def pkpo(
    scores: Scores,
    k: int = 4,
    baseline: Baseline = "mean",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl: float = 0.0,
    ratio: Ratio = "sequence",
) -> Tensor:
    """A_i: what draw i adds to the expected best of k draws (Pass@k, where grades are 0 and 1); a sum over draws.

    s_i = the sum over the subsets of k draws that hold i of their best grade, over C(n, k) (equation 19). From it goes,
    by `baseline`, the mean of s over the list ("mean"), or the best of each of those subsets without i ("loo-1", equation
    33: only what i itself adds is left, so a draw that never is the only best gets 0). With k = 1 and "mean" this is RLOO but
    for n / (n - 1). A list of fewer draws takes its number as k, or with "mean" one less: of all draws the best is the same
    for each.
    Source: Walder & Karkhanis 2025, "Pass@K Policy Optimization", arXiv 2505.15201.
    """
    terms = _clipped(scores, _best_of(scores, k, baseline), clip_low, clip_high, kl, ratio)
    return mean_over_lists((terms / scores.tokens).sum(1), scores.counted)


def best_minus_second(
    scores: Scores, clip_low: float = 0.2, clip_high: float = 0.2, kl: float = 0.0, ratio: Ratio = "sequence"
) -> Tensor:
    """A_i = best g - best g of the other draws: the best draw's lead over the second, and 0 for all others; a sum over draws.

    That is the best of all n draws with its leave-one-out baseline, or `pkpo` with k = n and "loo-1". Two best draws of
    one grade: nothing is learnt. Source: Tang et al. 2025, "Optimizing Language Models for Inference Time Objectives
    using Reinforcement Learning", arXiv 2503.19595 (pass@k, its unbiased leave-one-out estimate).
    """
    advantage = _best_of(scores, scores.mask.shape[1], "loo-1")
    terms = _clipped(scores, advantage, clip_low, clip_high, kl, ratio)
    return mean_over_lists((terms / scores.tokens).sum(1), scores.counted)


def _grades(scores: Scores) -> tuple[Tensor, Tensor]:
    """(grades [B, L] in the losses' precision, 0 for padding; the number of draws [B, 1], at least 1)."""
    grade = torch.where(scores.mask, scores.grade.to(scores.tokens.dtype), 0)
    return grade, scores.mask.sum(1, keepdim=True).clamp(min=1)


def _centred(grade: Tensor, mask: Tensor) -> Tensor:
    """[B, L]: the grades less their list's mean; 0 for padding."""
    return torch.where(mask, grade - grade.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1), 0)


def _best_of(scores: Scores, k: int, baseline: str) -> Tensor:
    """[B, L]: every draw's part in the expected best of k, less the baseline; 0 for padding."""
    out = torch.zeros_like(scores.tokens)
    for b, real in enumerate(scores.mask):
        order = scores.grade[b].masked_fill(~real, torch.inf).argsort()[: int(real.sum())]
        most = len(order) - (baseline == "mean")
        values = _parts(scores.grade[b][order].tolist(), max(1, min(k, most)), baseline)
        out[b, order] = torch.tensor(values, dtype=out.dtype, device=out.device)
    return out


def _parts(g: list[float], k: int, baseline: str) -> list[float]:
    """A list's A_i, of grades g in rising order. Draw i is the best of C(i, k - 1) subsets; a better draw j stands in
    C(j - 1, k - 2) of those with i, and a worse one is the best of C(j, k - 2) without it (places from 0)."""
    n = len(g)
    choose = [[comb(place, size) if size >= 0 else 0 for place in range(n)] for size in (k - 1, k - 2)]
    subsets = comb(n, k)
    own = [choose[0][i] * g[i] for i in range(n)]
    if baseline == "loo-1":
        return [(own[i] - sum(choose[1][j] * g[j] for j in range(i))) / subsets for i in range(n)]
    found = [(own[i] + sum(choose[1][j - 1] * g[j] for j in range(i + 1, n))) / subsets for i in range(n)]
    return [value - sum(found) / n for value in found]


def _clipped(scores: Scores, advantage: Tensor, clip_low: float, clip_high: float, kl: float, ratio: str) -> Tensor:
    """[B, L]: every draw's loss, summed over its tokens; 0 for padding. Raises UserError without token log-probabilities."""
    tokens = scores.by_token
    if tokens is None:
        raise UserError("policy-gradient losses need the log-probabilities of single tokens, policy's and reference's")
    per_token = tokens.log_ratio
    rho = (per_token if ratio == "token" else scores.log_ratio.flatten()[tokens.owner]).exp()
    pushed = advantage.detach().flatten()[tokens.owner]
    losses = -torch.min(rho * pushed, rho.clamp(1 - clip_low, 1 + clip_high) * pushed)
    if kl:
        losses = losses + kl * (torch.expm1(-per_token) + per_token)
    summed = losses.new_zeros(scores.mask.numel()).index_add(0, tokens.owner, losses)
    return torch.where(scores.mask, summed.view(scores.mask.shape), 0)
