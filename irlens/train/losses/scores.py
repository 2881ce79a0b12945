"""What a loss over candidate lists reads: log-probabilities, lengths, grades; and the averages that all losses share."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from irlens.base.errors import UserError


@dataclass(frozen=True)
class Tokens:
    """Log-probabilities of single response tokens, T in all, for losses that compare policies token by token."""

    logprob: Tensor  # [T] under the policy, with gradient
    reference: Tensor  # [T] under the reference, no gradient
    owner: Tensor  # [T] whose token it is: a place in the flat [B * L] grid of candidates

    @property
    def log_ratio(self) -> Tensor:
        """[T]: log pi_theta - log pi_ref of each token, given what comes before it."""
        return at_least_float32(self.logprob) - at_least_float32(self.reference.detach())

    def of(self, first: int, last: int) -> "Tokens":
        """The tokens of the candidates from place `first` up to `last`, which count from 0 again."""
        chosen = (self.owner >= first) & (self.owner < last)
        return Tokens(self.logprob[chosen], self.reference[chosen], self.owner[chosen] - first)


@dataclass(frozen=True)
class Scores:
    """B lists of at most L candidates. All log-probabilities are sums over a response's tokens, in nats.

    `mismatched` is, for each of M lists, the log-probability of another prompt's response under the list's prompt (KTO
    alone asks for it). The M lists are all of the optimiser step where the caller knows them, these B or more. `by_token`
    and `squared` are there where an objective or WPO's weights ask for them. Padding may hold anything; the properties
    below hold 0 there and compute half precision in float32.
    """

    logprob: Tensor  # [B, L] under the policy, with gradient
    reference: Tensor  # [B, L] under the reference, no gradient; zeros where the objective takes none
    length: Tensor  # [B, L] tokens of the response
    grade: Tensor  # [B, L] higher is better
    mask: Tensor  # [B, L] bool: is there a candidate?
    mismatched: Tensor | None = None  # [M]
    mismatched_reference: Tensor | None = None  # [M]
    mismatched_length: Tensor | None = None  # [M]; read by length normalisation only
    normalised: bool = False  # the log-probabilities are means per token already
    by_token: Tokens | None = None
    squared: Tensor | None = None  # [B, L] sums over a response's tokens of log sum_v pi_theta(v)^2, no gradient

    def __post_init__(self):
        parts = (self.logprob, self.reference, self.length, self.grade, self.mask)
        if self.logprob.ndim != 2 or len({tuple(part.shape) for part in parts}) > 1 or self.mask.dtype != torch.bool:
            shapes = ", ".join(str(list(part.shape)) for part in parts)
            raise ValueError(
                "Scores are logprob, reference, length, grade and a boolean mask, each [B, L]; got the shapes "
                f"{shapes} ({self.mask.dtype})"
            )

    @property
    def tokens(self) -> Tensor:
        """[B, L]: the lengths as numbers to divide by, so at least 1."""
        return self._clean(self.length.to(at_least_float32(self.logprob).dtype)).clamp(min=1)

    @property
    def policy(self) -> Tensor:
        """[B, L]: log pi_theta(y | x)."""
        return self._clean(self.logprob)

    @property
    def log_ratio(self) -> Tensor:
        """[B, L]: log pi_theta(y | x) - log pi_ref(y | x)."""
        return self._clean(self.logprob) - self._clean(self.reference.detach())

    @property
    def mean_policy(self) -> Tensor:
        """[B, L]: log pi_theta(y | x) per token."""
        return self.policy if self.normalised else self.policy / self.tokens

    @property
    def mean_log_ratio(self) -> Tensor:
        """[B, L]: log pi_theta(y | x) - log pi_ref(y | x) per token."""
        return self.log_ratio if self.normalised else self.log_ratio / self.tokens

    @property
    def above(self) -> Tensor:
        """[B, L, L] bool: is candidate i of a higher grade than j?"""
        return above(self.grade, self.mask)

    @property
    def counted(self) -> Tensor:
        """[B] bool: does the list say something, that is, hold two different grades?"""
        return self.above.any(2).any(1)

    @property
    def likely(self) -> Tensor:
        """[B]: WPO's weight of each list, without gradient: how likely the policy is to draw its candidates.

        The log-weight of a candidate is the mean over its tokens of log pi_theta(y_t) - log sum_v pi_theta(v)^2, about 0
        for the policy's own draws. A list weighs e to twice the mean of its candidates' log-weights: a pair's weight is
        the product of both, as published. Source: Zhou et al. 2024, "WPO", arXiv 2406.11827, equation 2. Raises
        UserError without `squared`.
        """
        if self.squared is None:
            raise UserError("WPO's weights need Scores.squared, the policy's log sum_v pi(v)^2")
        gaps = self._clean(self.mean_policy.detach() - self.squared.detach() / self.tokens)
        return torch.exp(2 * gaps.sum(1) / self.mask.sum(1).clamp(min=1))

    def only(self, b: int) -> "Scores":
        """List b alone. The mismatched ones, which belong to the whole step, stay."""
        width = self.logprob.shape[1]
        names = ("logprob", "reference", "length", "grade", "mask")
        own = {name: getattr(self, name)[b : b + 1] for name in names}
        own["squared"] = None if self.squared is None else self.squared[b : b + 1]
        own["by_token"] = None if self.by_token is None else self.by_token.of(b * width, (b + 1) * width)
        return replace(self, **own)

    def normalise(self) -> "Scores":
        """These scores with every log-probability divided by its length. Lengths stay what they are."""
        if self.normalised:
            return self
        mismatched: dict[str, Any] = {}
        if self.mismatched is not None:
            if self.mismatched_length is None:
                raise ValueError("length normalisation of mismatched log-probabilities needs mismatched_length[M]")
            names, tokens = ("mismatched", "mismatched_reference"), self.mismatched_length.clamp(min=1)
            mismatched = {name: at_least_float32(getattr(self, name)) / tokens for name in names}
        policy, reference = self.policy / self.tokens, self._clean(self.reference.detach()) / self.tokens
        return replace(self, logprob=policy, reference=reference, normalised=True, **mismatched)

    def _clean(self, values: Tensor) -> Tensor:
        return torch.where(self.mask, at_least_float32(values), 0)


def at_least_float32(values: Tensor) -> Tensor:
    """`values` as they are in float64, else in float32."""
    return values if values.dtype == torch.float64 else values.float()


def above(grade: Tensor, mask: Tensor) -> Tensor:
    """[B, L, L] bool: are i and j real, and is i of a higher grade than j?"""
    return (grade.unsqueeze(2) > grade.unsqueeze(1)) & mask.unsqueeze(2) & mask.unsqueeze(1)


def extreme_pairs(above: Tensor, mask: Tensor) -> Tensor:
    """[B, L, L] bool: is i of the list's highest grade and j of its lowest? Nowhere if all grades are equal."""
    best = ~above.any(dim=1) & mask  # [B, L]: no candidate is above it
    worst = ~above.any(dim=2) & mask
    return above & best.unsqueeze(2) & worst.unsqueeze(1)


def gaps(values: Tensor) -> Tensor:
    """[B, L, L]: values_i - values_j."""
    return values.unsqueeze(2) - values.unsqueeze(1)


def mean_over_lists(losses: Tensor, counted: Tensor) -> Tensor:
    """losses[B] averaged over the lists that counted[B] marks; 0, with zero gradient, if there is none."""
    return torch.where(counted, losses, 0).sum() / counted.sum().clamp(min=1)


def mean_over_pairs(losses: Tensor, scores: Scores) -> Tensor:
    """losses[B, L, L] of (better, worse): the mean over a list's pairs of highest and lowest grade, then over lists."""
    above = scores.above
    pairs = extreme_pairs(above, scores.mask)
    per_list = torch.where(pairs, losses, 0).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
    return mean_over_lists(per_list, above.any(dim=2).any(dim=1))


def nll_of_best(scores: Scores, per_token: bool = True, alone: bool = False) -> Tensor:
    """-log pi_theta(y) per token of a list's best candidates: the mean over them, then over lists.

    `per_token=False` takes the sum over a response's tokens. Lists whose candidates are all of one grade do not count,
    unless `alone`: then all of a list's candidates are its best.
    """
    above = scores.above
    best = ~above.any(dim=1) & scores.mask
    losses = -scores.mean_policy if per_token else -scores.mean_policy * scores.tokens
    per_list = torch.where(best, losses, 0).sum(1) / best.sum(1).clamp(min=1)
    return mean_over_lists(per_list, best.any(dim=1) if alone else above.any(dim=2).any(dim=1))
