"""Every objective of a reranker by name: Bradley-Terry, two pointwise ones, and the policy's ranking losses over scores.

Notation: s_i is the classifier's raw score of candidate i of a list, g_i its grade.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from irlens.base import plugins
from irlens.base.errors import UserError, did_you_mean
from irlens.train import losses
from irlens.train.losses import Objective
from irlens.train.losses.scores import Scores, gaps, mean_over_lists

RANKING = ("pairwise", "contrastive", "lambdarank", "listmle")  # a policy's, with beta * s for gamma


@dataclass(frozen=True)
class Every:
    """Scores at every token of the responses, T in all."""

    score: Tensor  # [T] what a classifier says once it has read that token
    owner: Tensor  # [T] whose token it is: a place in the flat [B * L] grid of candidates


@dataclass(frozen=True)
class Judged(Scores):
    """Scores of a classifier: `logprob` holds s, `reference` zeros, `length` ones."""

    margin: Tensor | None = None  # [B] by how much the better is to lead in this list; NaN where it does not say
    every: Every | None = None

    @classmethod
    def of(cls, scores: Tensor, grade: Tensor, mask: Tensor, margin: Tensor | None = None, every: Every | None = None):
        """Of s[B, L], in at least float32."""
        return cls(scores, torch.zeros_like(grade), torch.ones_like(grade), grade, mask, margin=margin, every=every)


def bradley_terry(scores: Judged, margin: float = 0.0) -> Tensor:
    """-log sigma(s_i - s_j - m) over the pairs with g_i > g_j: the mean of a list's pairs, then of the lists.

    m = margin * (g_i - g_j), as Llama 2's margin of graded preferences, unless the list has a margin of its own (TRL's
    column). Source: Ouyang et al. 2022, arXiv 2203.02155, equation 1; Touvron et al. 2023, arXiv 2307.09288, equation 2.
    """
    pairs, wanted = scores.above, margin * gaps(scores.grade)
    if scores.margin is not None:
        own = scores.margin.view(-1, 1, 1)
        wanted = torch.where(own.isnan(), wanted, own)
    each = torch.where(pairs, -logsigmoid(gaps(scores.policy) - wanted), 0).sum((1, 2))
    return mean_over_lists(each / pairs.sum((1, 2)).clamp(min=1), pairs.any(dim=2).any(dim=1))


def bce(scores: Judged) -> Tensor:
    """-g log sigma(s) - (1 - g) log sigma(-s), grades from 0 to 1: the mean of a list's candidates, then of the lists.

    Source: the outcome reward model of Cobbe et al. 2021, arXiv 2110.14168, on the whole response.
    """
    return _mean(binary_cross_entropy_with_logits(scores.policy, _grades(scores), reduction="none"), scores)


def regression(scores: Judged) -> Tensor:
    """(s - g)^2: the mean of a list's candidates, then of the lists."""
    return _mean((scores.policy - _grades(scores)) ** 2, scores)


def at_every_token(scores: Judged, counted: Tensor) -> Tensor:
    """`bce` of the score at every token of a response, as if the response ended there: the mean over its tokens, then over
    a list's candidates, then over the lists that counted[B] marks.

    Source: the token-level verifiers of Cobbe et al. 2021, arXiv 2110.14168, section 4.2 and appendix B: whether a
    solution will be right is learnt at each of its tokens, which teaches more than its end alone.
    """
    assert scores.every is not None
    owner, grades = scores.every.owner, _grades(scores).flatten()
    each = binary_cross_entropy_with_logits(scores.every.score, grades[owner], reduction="none")
    tokens = torch.zeros_like(grades).index_add(0, owner, torch.ones_like(each)).clamp(min=1)
    per_candidate = torch.zeros_like(grades).index_add(0, owner, each) / tokens
    per_list = per_candidate.view_as(scores.mask).sum(1) / scores.mask.sum(1).clamp(min=1)
    return mean_over_lists(per_list, counted)


def _grades(scores: Judged) -> Tensor:
    return torch.where(scores.mask, scores.grade, 0).to(scores.policy.dtype)


def _mean(each: Tensor, scores: Judged) -> Tensor:
    """each[B, L] averaged over a list's candidates, and then over the lists that have some."""
    per_list = torch.where(scores.mask, each, 0).sum(1) / scores.mask.sum(1).clamp(min=1)
    return mean_over_lists(per_list, scores.mask.any(dim=1))


OWN = {
    objective.name: objective
    for objective in (
        Objective("bradley-terry", bradley_terry, False, 1, 1, "Ouyang et al. 2022; Touvron et al. 2023"),
        Objective("bce", bce, False, 1, 0, "Cobbe et al. 2021", needs_negative=False),
        Objective("regression", regression, False, 1, 0, "least squares", needs_negative=False),
    )
}


def get(name: str) -> Objective:
    """The objective of that name, or of one's own function `module:function` of scores. Raises UserError for another."""
    if name in OWN:
        return OWN[name]
    if name in RANKING or plugins.named(name):
        return losses.get(name)
    raise UserError(f"no objective {name!r} of a reranker; {did_you_mean(name, names())} (or module:function)")


def names() -> list[str]:
    """The names of all objectives of a reranker."""
    return [*OWN, *RANKING]
