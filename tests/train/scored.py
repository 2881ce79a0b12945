"""Scores of lists for the tests of losses: by hand and random; and a pair of which every loss is worked out."""

from dataclasses import replace
from math import exp, log

import pytest
import torch

from irlens.train.losses import OBJECTIVES, Scores, names

NAMES = [name for name in names() if not OBJECTIVES[name].by_token]  # test_policy_gradient.py has the others
every = pytest.mark.parametrize("name", NAMES)
# The winner has log-probability -6 (reference -7) over 3 tokens, the loser -8 (reference -5) over 4.
PAIR = [(-6, -7, 3, 1), (-8, -5, 4, 0)]


def softplus(x: float) -> float:
    """-log sigma(-x) = log(1 + e^x)."""
    return log(1 + exp(x))


def sigma(x: float) -> float:
    return 1 / (1 + exp(-x))


def lists(*rows, mismatched=None, dtype=torch.float64) -> Scores:
    """Scores of lists of (log-probability, reference, tokens, grade), padded at the end; mismatched: (policy, reference)."""
    width = max(map(len, rows))
    tensors = torch.zeros(4, len(rows), width, dtype=dtype)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for b, row in enumerate(rows):
        for i, candidate in enumerate(row):
            tensors[:, b, i], mask[b, i] = torch.tensor(candidate, dtype=dtype), True
    other, other_reference = torch.tensor(mismatched or [(0.0, 0.0)] * len(rows), dtype=dtype).unbind(1)
    return Scores(*tensors, mask, other, other_reference, torch.full((len(rows),), 2.0, dtype=dtype))


def random_scores(b=6, n=5, dtype=torch.float64, seed=0, scale=1.0) -> Scores:
    """Lists of 1 to n real candidates with grades 0 to 2, ties among them."""
    rng = torch.Generator().manual_seed(seed)
    logprob, reference = (torch.randn(2, b, n, generator=rng) * 3 * scale).to(dtype)
    length = torch.randint(1, 9, (b, n), generator=rng)
    grade = torch.randint(0, 3, (b, n), generator=rng)
    mask = torch.arange(n) < torch.randint(1, n + 1, (b, 1), generator=rng)
    mask[0], grade[0, :3] = True, torch.tensor([2, 0, 1])  # at least one list that says something
    other, other_reference = (torch.randn(2, b, generator=rng) * scale).to(dtype)
    return Scores(logprob, reference, length, grade, mask, other, other_reference, torch.full((b,), 3))


def gradient(loss, scores: Scores) -> torch.Tensor:
    logprob = scores.logprob.clone().requires_grad_()
    loss(replace(scores, logprob=logprob)).backward()
    return logprob.grad
