"""Responses for our losses and TRL's: logits that both are differentiated by, and trainers that were never constructed."""

from collections import defaultdict
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from irlens.train.losses import Scores, Tokens

B, PROMPT, RESPONSE, WORDS = 6, 3, 9, 11
GRADES = torch.tensor([1.0, 0, 0, 1, 0.5, -2, 3, 0, 0, 0, 0, 1]).double()  # of three lists of four draws


@dataclass(frozen=True)
class Pairs:
    """B winners, then their B losers: `logits` is the leaf that both losses are differentiated by."""

    logits: torch.Tensor  # [2B, S, WORDS]
    ids: torch.Tensor  # [2B, S]
    lengths: torch.Tensor  # [2B]
    reference: torch.Tensor  # [2B, S - 1] per token, 0 outside the response

    @property
    def completion(self) -> torch.Tensor:
        """[2B, S] bool: is this token one of the response's?"""
        place = torch.arange(self.ids.shape[1])
        return (place >= PROMPT) & (place < PROMPT + self.lengths[:, None])

    @property
    def labels(self) -> torch.Tensor:
        return self.ids.masked_fill(~self.completion, -100)

    @property
    def tokens(self) -> torch.Tensor:
        """[2B, S - 1]: the log-probability of every token of a response, 0 elsewhere."""
        chosen = self.logits.log_softmax(-1)[:, :-1].gather(2, self.ids[:, 1:, None])[..., 0]
        return chosen * self.completion[:, 1:]

    @property
    def squared(self) -> torch.Tensor:
        """[2B, S - 1]: log sum_v p(v)^2 of every token of a response, 0 elsewhere."""
        return (2 * self.logits.detach().log_softmax(-1)).logsumexp(-1)[:, :-1] * self.completion[:, 1:]

    @property
    def scores(self) -> Scores:
        """[B, 2]: winner and loser."""
        sums = (part.sum(1) for part in (self.tokens, self.reference, self.squared))
        logprob, reference, squared, length = (part.view(2, B).T for part in (*sums, self.lengths))
        grade, mask = torch.tensor([[1.0, 0.0]]).expand(B, 2), torch.ones(B, 2).bool()
        return Scores(logprob, reference, length, grade, mask, squared=squared)

    @property
    def draws(self) -> Scores:
        """The same responses as three lists of four draws, in their order, with their tokens and grades of GRADES."""
        inside = self.completion[:, 1:]
        owner = torch.arange(2 * B)[:, None].expand(inside.shape)[inside]
        tokens = Tokens(self.tokens[inside], self.reference[inside], owner)
        parts = (self.tokens.sum(1), self.reference.sum(1), self.lengths, GRADES)
        return Scores(*(part.view(3, 4) for part in parts), torch.ones(3, 4).bool(), by_token=tokens)


def make_pairs(seed: int, same_length: bool = False, scale: float = 1.0) -> Pairs:
    rng = torch.Generator().manual_seed(seed)
    width = PROMPT + RESPONSE
    logits = (torch.randn(2 * B, width, WORDS, generator=rng) * scale).double().requires_grad_()
    lengths = torch.randint(1, RESPONSE + 1, (2 * B,), generator=rng)
    if same_length:  # of the winners: TRL's NLL weighs tokens, ours lists
        lengths[:B] = 5
    pairs = Pairs(logits, torch.randint(0, WORDS, (2 * B, width), generator=rng), lengths, torch.zeros(()))
    drift = torch.randn(pairs.tokens.shape, generator=rng).double() * scale
    return replace(pairs, reference=(pairs.tokens.detach() + drift) * pairs.completion[:, 1:])


def bare(trainer_class, **attributes):
    """A trainer that was never constructed, with what its loss method reads."""
    from accelerate import Accelerator

    trainer = object.__new__(trainer_class)
    common = {
        "model": SimpleNamespace(training=True),
        "accelerator": Accelerator(cpu=True),
        "aux_loss_enabled": False,
        "precompute_ref_logps": True,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    vars(trainer).update(common | attributes)
    return trainer


def output(log_probs: torch.Tensor) -> SimpleNamespace:
    zeros = torch.zeros_like(log_probs)
    return SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def agree(pairs: Pairs, ours: torch.Tensor, theirs: torch.Tensor, rel: float = 1e-9) -> None:
    gradients = [torch.autograd.grad(loss, pairs.logits)[0] for loss in (ours, theirs)]
    assert ours.item() == pytest.approx(theirs.item(), rel=rel) and ours.item() != 0
    assert gradients[0].abs().max() > 0 and torch.allclose(*gradients, rtol=rel, atol=1e-12)


seeds = pytest.mark.parametrize("seed", range(4))
