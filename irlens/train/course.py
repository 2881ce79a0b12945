"""What a training continues of those before it: the learning rate's course over the iterations, and the optimiser's state.

`cosine` falls to 0 within every iteration, as the paper has it, after a warm-up. `constant` stays at the rate, after a
warm-up. `cosine-over-all` falls to 0 in the last iteration's last step. The optimiser begins anew in every iteration, or
goes on with what it has gathered (`keep_optimiser`); then the warm-up is the first iteration's alone.
"""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.base.files import write_atomically

if TYPE_CHECKING:
    from irlens.train.options import TrainOptions


@dataclass(frozen=True)
class State:
    """Where the optimiser's state is read from, before the first step, and written to, after the last; None: not at all."""

    before: Path | None = None
    after: Path | None = None

    def take(self, optimiser) -> None:
        """Gives the optimiser what was kept. Its learning rate and other settings stay as they are now."""
        import torch

        if self.before is None:
            return
        try:
            kept = torch.load(self.before, map_location="cpu", weights_only=True)
            optimiser.load_state_dict({**optimiser.state_dict(), "state": kept})
        except (OSError, RuntimeError, pickle.UnpicklingError, ValueError, KeyError, AttributeError) as error:
            first = " ".join(str(error).split())[:100]
            raise UserError(
                f"{self.before}: not the state of this optimiser ({first}); choose another folder"
            ) from error

    def leave(self, optimiser) -> None:
        """Writes what the optimiser has gathered, by rename; the same state gives the same bytes."""
        import torch

        if self.after is None:
            return
        found = getattr(optimiser, "optimizer", optimiser).state_dict()["state"]

        def write(path: Path) -> None:
            with path.open("wb") as file:  # by its name, torch would write that into the file
                torch.save(found, file)

        write_atomically(self.after, write)


FRESH = State()


def iterations_of(options: TrainOptions) -> int:
    """How many trainings there are to be, this among them."""
    return getattr(options, "iterations", 1)


def factor(options: TrainOptions, iteration: int, steps: int, warm: int, step: int) -> float:
    """What the learning rate is multiplied with at a step (from 0) of an iteration (from 1) of `steps`, for the schedules
    that transformers does not have.

    warm: steps that are below the full rate. Where the optimiser is kept they are the first of all iterations', if each
    has as many steps as this.
    """
    before = (iteration - 1) * steps if options.keep_optimiser else 0
    rising = min(1.0, (before + step + 1) / (warm + 1))
    if options.schedule == "constant":
        return rising
    return rising * 0.5 * (1 + math.cos(math.pi * (iteration - 1 + step / max(1, steps)) / iterations_of(options)))


def scheduler(options: TrainOptions, optimiser, arguments, steps: int, iteration: int):
    """The learning rate's course of this training, of `steps` steps; None where it is what TrainingArguments say."""
    from torch.optim.lr_scheduler import LambdaLR

    if options.schedule in (None, "cosine"):
        return None
    place = max(1, iteration)
    warm = arguments.get_warmup_steps(steps)
    if options.keep_optimiser and "warmup_steps" not in options.arguments:
        warm = min(10, steps * iterations_of(options) // 10)
    return LambdaLR(optimiser, lambda step: factor(options, place, steps, warm, step))
