"""The losses that LarPO is compared with: each a pure function of one batch's `Scores`, with its formula and source.

Notation: s = log pi_theta(y | x), a sum over the response's tokens; s' = s / |y|; r = s - s_ref; w a candidate of the
list's highest grade, l one of its lowest; sigma the logistic function. A loss over (w, l) is the mean over all such
pairs of a list, grades between are not used, and then the mean over the lists that hold two different grades: a list of
equal grades, like padding, adds nothing and has no gradient.

One baseline is more than a loss. RFT (Li et al. 2024, arXiv 2405.17888) learns a reward model from demonstrations against
the policy's own samples, and optimises the policy against that reward under a KL penalty: two losses over two sets of
weights, in turns (`irlens.train.rft`). `irft`, the same paper's form without an explicit reward model, is here.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu, sigmoid

from irlens.base.errors import UserError
from irlens.train.losses.scores import Scores, at_least_float32, gaps, mean_over_lists, mean_over_pairs, nll_of_best


def sft(scores: Scores) -> Tensor:
    """Supervised fine-tuning: -s'_w, the mean over a response's tokens, a list's best candidates, and the lists.

    No reference. Nothing is compared, so one candidate is enough, and in a list of equal grades all are the best: cut
    the lists to what should be imitated. A trainer that averages over a batch's tokens instead weighs long responses
    more; the two agree where the lengths do.
    """
    return nll_of_best(scores, alone=True)


def rrhf(scores: Scores, nll: float = 1.0, nll_per_token: bool = True) -> Tensor:
    """sum of max(0, s'_j - s'_i) over all pairs with grade_i > grade_j, plus nll * NLL of the best. No reference.

    The pairs are summed, as in the paper; the log-probabilities are per token. The paper writes the NLL as a sum over
    tokens (`nll_per_token=False`), the authors' code takes the mean, and weighs the pairs 100 times (nll=0.01 here).
    Source: Yuan et al. 2023, "RRHF", arXiv 2304.05302.
    """
    above = scores.above
    hinges = relu(-gaps(scores.mean_policy)) * above
    ranking = mean_over_lists(hinges.sum((1, 2)), above.any(dim=2).any(dim=1))
    return ranking + nll * nll_of_best(scores, nll_per_token)


def slic_hf(scores: Scores, delta: float = 1.0, nll: float = 0.1, nll_per_token: bool = False) -> Tensor:
    """max(0, delta - s_w + s_l) + nll * NLL of w. No reference, and no beta: s are sums over tokens.

    The NLL is a sum over tokens too, as the paper writes it (`nll_per_token=True`: the mean, as TRL has it beside its
    hinge loss). Source: Zhao et al. 2023, "SLiC-HF", arXiv 2305.10425, with w for its regularisation target.
    """
    return mean_over_pairs(relu(delta - gaps(scores.policy)), scores) + nll * nll_of_best(scores, nll_per_token)


def ipo(scores: Scores, beta: float = 0.1, per_token: bool = True) -> Tensor:
    """(r_w - r_l - 1 / (2 beta))^2, with r per token; `per_token=False`: with sums, as the paper's formula reads.

    TRL, too, takes r per token, and says that the authors confirmed their results to be of that form. The two differ by
    the length in what a beta means. Source: Azar et al. 2023, "IPO", arXiv 2310.12036, equation 17 (beta is its tau).
    """
    ratio = scores.mean_log_ratio if per_token else scores.log_ratio
    return mean_over_pairs((gaps(ratio) - 1 / (2 * beta)) ** 2, scores)


def cpo(scores: Scores, beta: float = 0.1, nll: float = 1.0) -> Tensor:
    """-log sigma(beta (s_w - s_l)) + nll * NLL of w, s sums, the NLL per token. No reference.

    Source: Xu et al. 2024, "Contrastive Preference Optimization", arXiv 2401.08417; the NLL per token is its authors'
    and TRL's code (TRL averages over a batch's tokens, this over a list's and then over lists).
    """
    return mean_over_pairs(-logsigmoid(beta * gaps(scores.policy)), scores) + nll * nll_of_best(scores)


def kto(scores: Scores, beta: float = 0.1, desirable: float = 1.0, undesirable: float = 1.0) -> Tensor:
    """Half of desirable (1 - sigma(beta (r_w - z))) + undesirable (1 - sigma(beta (z - r_l))), r sums.

    z = max(0, mean of r over the M mismatched pairs of prompt and response), without gradient: an estimate of the
    policy's KL from the reference, better the larger M is. The trainer hands over those of the whole optimiser step, on
    all devices, however it is cut into passes. The mean of both terms is the paper's mean over examples, half of which
    are wanted. Raises UserError without mismatched log-probabilities.
    Source: Ethayarajh et al. 2024, "KTO", arXiv 2402.01306, equation 7.
    """
    if scores.mismatched is None or scores.mismatched_reference is None:
        raise UserError("kto needs the log-probabilities of mismatched responses, policy's and reference's")
    ratio = scores.log_ratio
    drift = at_least_float32(scores.mismatched).detach() - at_least_float32(scores.mismatched_reference).detach()
    z = drift.mean().clamp(min=0)
    wanted = desirable * sigmoid(beta * (z - ratio))
    unwanted = undesirable * sigmoid(beta * (ratio - z))
    return mean_over_pairs((wanted.unsqueeze(2) + unwanted.unsqueeze(1)) / 2, scores)


def r_dpo(scores: Scores, beta: float = 0.1, alpha: float = 0.05) -> Tensor:
    """-log sigma(beta (r_w - r_l) + alpha |y_w| - alpha |y_l|), r sums, |y| in tokens.

    The sign: the policy that maximises reward - alpha |y| has reward = beta r + alpha |y| + a constant of the prompt,
    and Bradley-Terry compares those. So a winner that is longer is partly explained by its length and pushed less.
    Source: Park et al. 2024, "Disentangling Length from Quality in DPO", arXiv 2403.19159.
    """
    return mean_over_pairs(-logsigmoid(gaps(beta * scores.log_ratio + alpha * scores.tokens)), scores)


def simpo(scores: Scores, beta: float = 2.0, gamma_beta_ratio: float = 0.5) -> Tensor:
    """-log sigma(beta (s'_w - s'_l) - gamma), gamma = gamma_beta_ratio * beta. Per token, no reference.

    Source: Meng et al. 2024, "SimPO", arXiv 2405.14734, equation 6; the ratio is its authors' parameter.
    """
    return mean_over_pairs(-logsigmoid(beta * (gaps(scores.mean_policy) - gamma_beta_ratio)), scores)


def spin(scores: Scores, beta: float = 0.1) -> Tensor:
    """-log sigma(beta (r_w - r_l)), w the demonstration and l the previous iterate's own sample: DPO's form, sums.

    The reference is the previous iterate, which also drew l. Source: Chen et al. 2024, "Self-Play Fine-Tuning",
    arXiv 2401.01335 (beta is its lambda, with the logistic loss).
    """
    return mean_over_pairs(-logsigmoid(beta * gaps(scores.log_ratio)), scores)


def irft(scores: Scores, beta: float = 0.1) -> Tensor:
    """SPIN's loss; what differs is the loop: T regenerations, each over its own slice of the demonstrations.

    Each slice's l are drawn by, and its reference is, the policy that the slice before left behind. T = 1 is SPIN.
    Source: Li et al. 2024, "Getting More Juice Out of the SFT Data", arXiv 2405.17888 (its implicit-reward algorithm).
    """
    return spin(scores, beta)


def apo_zero(scores: Scores, beta: float = 0.1) -> Tensor:
    """1 - sigma(beta r_w) + sigma(beta r_l), r sums: w becomes more likely than under the reference, and l less.

    For winners that are better than what the policy says by itself. Source: D'Oosterlinck et al. 2024, "Anchored
    Preference Optimization", arXiv 2408.06266, equation 7.
    """
    return _each(1 - sigmoid(beta * scores.log_ratio), sigmoid(beta * scores.log_ratio), scores)


def apo_down(scores: Scores, beta: float = 0.1) -> Tensor:
    """sigma(beta r_w) + 1 - sigma(beta (r_w - r_l)), r sums: both become less likely, l more so.

    For winners that are worse than what the policy says by itself. Source: as APO-zero, equation 8.
    """
    ratio = scores.log_ratio
    return mean_over_pairs(sigmoid(beta * ratio).unsqueeze(2) + 1 - sigmoid(beta * gaps(ratio)), scores)


def sppo(scores: Scores, beta: float = 0.1) -> Tensor:
    """(r_w - 1 / (2 beta))^2 + (r_l + 1 / (2 beta))^2, r sums.

    The self-play step r(y) = eta (P(y wins) - 1/2) with P taken as 1 for w and 0 for l. Source: Wu et al. 2024,
    "Self-Play Preference Optimization", arXiv 2405.00675, equation 4.7 (beta is its 1 / eta).
    """
    ratio, half = scores.log_ratio, 1 / (2 * beta)
    return _each((ratio - half) ** 2, (ratio + half) ** 2, scores)


def rebel(scores: Scores, beta: float = 0.1) -> Tensor:
    """(beta (r_i - r_j) - (g_i - g_j))^2, r sums and g the grades: the mean over all pairs of a list, of whatever grade.

    Log-ratios regress on differences of reward, so their scale counts. Source: Gao et al. 2024, "REBEL", arXiv
    2404.16767, Algorithm 1 (beta is its 1 / eta; its pi_t, which drew both, is the reference).
    """
    pairs = (scores.mask.unsqueeze(2) & scores.mask.unsqueeze(1)).triu(1)
    grade = scores.grade.masked_fill(~scores.mask, 0).to(scores.policy.dtype)
    losses = torch.where(pairs, (beta * gaps(scores.log_ratio) - gaps(grade)) ** 2, 0).sum((1, 2))
    return mean_over_lists(losses / pairs.sum((1, 2)).clamp(min=1), scores.counted)


def infonca(scores: Scores, beta: float = 0.1, alpha: float = 0.1) -> Tensor:
    """-sum_i p_i log(e^gamma_i / sum_j e^gamma_j), p = softmax(g / alpha) over the list, gamma = beta r, r sums.

    alpha: near 0 the best candidates alone are the target, and one best and one other are DPO. Source: Chen et al. 2024,
    "Noise Contrastive Alignment", arXiv 2402.05369 (InfoNCA).
    """
    gamma = (beta * scores.log_ratio).masked_fill(~scores.mask, NOTHING)
    losses = -(_targets(scores, alpha) * gamma.log_softmax(1)).sum(1)
    return mean_over_lists(losses, scores.counted)


def nca(scores: Scores, beta: float = 0.1, alpha: float = 0.1) -> Tensor:
    """-sum_i (p_i log sigma(gamma_i) + (1 / K) log sigma(-gamma_i)), K candidates, p and gamma as InfoNCA has them.

    Not only gaps count: the best do not become less likely. Source: as InfoNCA (NCA).
    """
    gamma, mask = beta * scores.log_ratio, scores.mask
    noise = mask / mask.sum(1, keepdim=True).clamp(min=1)
    losses = -(_targets(scores, alpha) * logsigmoid(gamma) + noise * logsigmoid(-gamma)).sum(1)
    return mean_over_lists(losses, scores.counted)


def swepo(scores: Scores, beta: float = 0.1, alpha: float = 1.0) -> Tensor:
    """-log(sum_P e^(gamma_i + alpha d_i) / sum_{P and N} e^(gamma_i + alpha d_i)), gamma = beta r, r sums.

    P are the candidates above their list's mean grade, N the others, and d_i = |g_i - mean|: what is far from the mean
    weighs more, on either side. Source: Gupta et al. 2024, "SWEPO", arXiv 2412.04628 (p = 1).
    """
    mask = scores.mask
    grade = scores.grade.masked_fill(~mask, 0).to(scores.policy.dtype)
    gap = grade - grade.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    weighed = beta * scores.log_ratio + alpha * gap.abs()
    best, every = (weighed.masked_fill(~some, NOTHING).logsumexp(1) for some in (mask & (gap > 0), mask))
    return mean_over_lists(every - best, scores.counted)


def orpo(scores: Scores, beta: float = 0.1, nll: float = 1.0) -> Tensor:
    """nll * NLL of w - beta log sigma(o_w - o_l), o = log(p / (1 - p)), p = e^(s'): per token, no reference.

    Source: Hong et al. 2024, "ORPO", arXiv 2403.07691, equations 6 and 7 (beta is its lambda). TRL's NLL also counts the
    prompt's tokens; the paper's does not.
    """
    mean = scores.mean_policy.clamp(max=-1e-6)  # p = 1 has no odds
    odds = mean - torch.log(-torch.expm1(mean))
    return mean_over_pairs(-beta * logsigmoid(gaps(odds)), scores) + nll * nll_of_best(scores)


NOTHING = -1e30  # a logarithm of nothing: finite, so that nothing - nothing is 0, not NaN


def _each(wanted: Tensor, unwanted: Tensor, scores: Scores) -> Tensor:
    """wanted[B, L] of w plus unwanted[B, L] of l: the mean over pairs."""
    return mean_over_pairs(wanted.unsqueeze(2) + unwanted.unsqueeze(1), scores)


def _targets(scores: Scores, alpha: float) -> Tensor:
    """p[B, L] = softmax(g / alpha) over the list's candidates; 0 for padding."""
    grade = scores.grade.to(scores.policy.dtype).masked_fill(~scores.mask, NOTHING)
    return torch.where(scores.mask, (grade / alpha).softmax(1), 0)
