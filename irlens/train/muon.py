"""Muon for the matrices inside a model and AdamW for the rest, as one optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

REST = 0.15  # AdamW's learning rate, as a share of Muon's
OUTSIDE = {"score", "classifier", "lm_head"}  # heads: what comes out of a model


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, as torch has it) on the weights of linear layers, at the rate `lr`; AdamW on embeddings,
    heads and vectors, at REST of it. Neither decays weights. Only what a gradient is asked for is moved."""

    def __init__(self, model: torch.nn.Module, lr: float):
        inside = {
            id(module.weight)
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and OUTSIDE.isdisjoint(name.split("."))
        }
        moved = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in moved if id(p) in inside]
        rest = [p for p in moved if id(p) not in inside]
        self.parts = [torch.optim.Muon(matrices, lr=lr, weight_decay=0.0)] if matrices else []
        self.parts += [torch.optim.AdamW(rest, lr=REST * lr, weight_decay=0.0)] if rest else []
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Both work on this optimiser's groups, whose rates a schedule changes, and in its state, which is saved."""
        for part, group in zip(self.parts, self.param_groups):
            part.param_groups, part.state = [group], self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See torch."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """See torch."""
        loss = closure() if closure else None
        for part in self.parts:
            part.step()
        return loss
