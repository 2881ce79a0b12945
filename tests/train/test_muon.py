"""Muon and AdamW as one optimiser: what moves by which, and that a state continues."""

import copy

import pytest
import torch
from torch import nn

from irlens.train.muon import REST, Muon


class Small(nn.Module):
    """An embedding, a linear layer with a vector, and a head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.inside = nn.Linear(4, 4)
        self.score = nn.Linear(4, 1, bias=False)

    def forward(self, ids):
        return self.score(torch.tanh(self.inside(self.embed(ids)))).squeeze(-1)


def steps(model, optimisers, count, schedules=()):
    """Trains towards 0, 1, 2, …; returns the weights."""
    ids = torch.arange(5)
    for _ in range(count):
        ((model(ids) - ids) ** 2).mean().backward()
        for one in (*optimisers, *schedules):
            one.step()
        model.zero_grad()
    return [p.detach().clone() for p in model.parameters()]


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Small()


def test_linear_layers_move_by_muon_and_the_rest_by_adamw(small):
    other, falling = copy.deepcopy(small), lambda step: 0.5**step
    optimiser = Muon(small, lr=0.02)
    found = steps(small, [optimiser], 4, [torch.optim.lr_scheduler.LambdaLR(optimiser, falling)])
    rest = [p for p in other.parameters() if p is not other.inside.weight]
    both = [torch.optim.Muon([other.inside.weight], lr=0.02, weight_decay=0.0),
            torch.optim.AdamW(rest, lr=REST * 0.02, weight_decay=0.0)]  # fmt: skip
    expected = steps(other, both, 4, [torch.optim.lr_scheduler.LambdaLR(one, falling) for one in both])
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


def test_what_is_frozen_stays(small):
    small.inside.weight.requires_grad_(False)
    before = small.inside.weight.clone()
    after = steps(small, [Muon(small, lr=0.02)], 2)
    assert torch.equal(small.inside.weight, before) and not torch.equal(after[-1], torch.zeros_like(after[-1]))


def test_a_saved_state_continues_to_the_same_weights(small, tmp_path):
    other = copy.deepcopy(small)
    unbroken = steps(small, [Muon(small, lr=0.02)], 6)
    first = Muon(other, lr=0.02)
    steps(other, [first], 3)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    again = Muon(other, lr=0.02)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    found = steps(other, [again], 3)
    assert all(torch.equal(a, b) for a, b in zip(found, unbroken))
    fresh = steps(other, [Muon(other, lr=0.02)], 1)
    assert not torch.equal(fresh[1], steps(other, [again], 1)[1])
