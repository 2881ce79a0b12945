"""How a reranker is trained: a frozen record, and what of it the trainer reads."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.base.options import at_least, one_of, option, positive
from irlens.train.options import DTYPES, TrainOptions, check_arguments

if TYPE_CHECKING:
    from irlens.train.losses import Objective

RATES = (1e-3, 1e-5)  # learning rate where none is given: of a model below and from SMALL parameters on
OPTIMISERS = {"adamw": 1, "muon": 10}  # and what it is multiplied with


@dataclass(frozen=True)
class Training(TrainOptions):
    """What the trainer is told: a policy's options, with an objective over a classifier's scores."""

    every_token: float = 0.0
    optimiser: str = "adamw"

    @property
    def loss(self) -> Objective:
        """The objective. Raises UserError for one that is not known."""
        from irlens.train.reranker import objectives

        return objectives.get(self.objective)

    @property
    def parameters(self) -> dict:
        """Every parameter of the objective; beta is 1 unless it is given: a score has the scale that it learns."""
        given = self._given
        if "nll" in given:
            raise UserError(f"objective {self.objective!r} of a reranker has no parameter 'nll': it writes no text")
        beta = {"beta": 1.0} if "beta" in self.loss.parameters else {}
        return self.loss.resolve(**beta | given)


@dataclass(frozen=True, kw_only=True)
class RerankerOptions:
    """What one training of a reranker does. `training` is its form for the trainer."""

    objective: str = option(
        "bradley-terry",
        "bradley-terry; bce, regression; pairwise, contrastive, lambdarank, listmle; or module:function.",
        panel="Objective",
    )
    margin: float | None = option(
        None,
        "Of bradley-terry, times the difference of two grades. A column margin of pairs goes before it. Default: 0.",
        panel="Objective",
    )
    beta: float | None = option(None, "Of the ranking losses, times the score. Default: 1.", panel="Objective")
    objective_args: str | None = option(None, "JSON of other parameters: '{\"weighted\": 1}'.", panel="Objective")
    every_token: float = option(
        0.0, "Weight of bce at every token of a response, beside the objective.", panel="Objective", least=0
    )
    list_size: int = option(8, "Responses of a prompt in training, evenly over their grades.", panel="Lists", least=2)
    balanced: bool = option(False, "As many responses of each grade in a list.", panel="Lists")
    held_out: float = option(0.1, "Share of the prompts that is held out, and measured.", panel="Measuring")
    epochs: int = option(1, "Times that every list is read.", panel="Trainer", least=1)
    learning_rate: float | None = option(None, "Default: 1e-5; of a small model 1e-3.", panel="Trainer")
    max_length: int | None = option(None, "Tokens; longer lists are left out, and counted.", panel="Trainer")
    batch_lists: int = option(32, "Lists per step, over all processes.", panel="Trainer", least=1)
    optimiser: str = option("adamw", "Or muon, which learns more where there is much to learn.", panel="Trainer")
    lists_at_once: int | None = option(
        None, "Lists per pass. Default: by the model's size.", panel="Trainer", free=True
    )
    lora_rank: int | None = option(None, "LoRA adapters of this rank, merged in the end.", panel="Trainer")
    save_dtype: str = option("auto", "Of the reranker: float32, bfloat16, or by the start's.", panel="Trainer")
    trainer_args: str | None = option(None, 'JSON of TrainingArguments: \'{"optim": "sgd"}\'.', panel="Trainer")
    report_to: str = option("none", "wandb, tensorboard, mlflow, …", panel="Trainer", free=True)
    seed: int = option(0, "Seed of all that is random, from 0.", panel="Output")

    def check(self) -> Training:
        """These options as the trainer reads them. Raises UserError for a value out of range."""
        from irlens.base import seeds
        from irlens.train.adapters import check_adapters

        seeds.check(self.seed)
        at_least(1, epochs=self.epochs, batch_lists=self.batch_lists, lists_at_once=self.lists_at_once)
        at_least(1, max_length=self.max_length, lora_rank=self.lora_rank)
        at_least(2, list_size=self.list_size)
        positive(learning_rate=self.learning_rate)
        at_least(0, every_token=self.every_token)
        if not 0 <= self.held_out < 1:
            raise UserError(f"--held-out must be 0 or more and below 1, got {self.held_out:g}")
        one_of(DTYPES, save_dtype=self.save_dtype)
        check_adapters(self.lora_rank, None)
        found = self.training()
        check_arguments(found.arguments)
        self._check_optimiser(found)
        found.parameters  # noqa: B018 - it refuses what the objective does not know
        return found

    def _check_optimiser(self, found: Training) -> None:
        """Raises UserError for an optimiser that is not known, or that --trainer-args chooses another one beside."""
        one_of(tuple(OPTIMISERS), optimiser=self.optimiser)
        other = next((name for name in ("optim", "deepspeed") if name in found.arguments), None)
        if self.optimiser != "adamw" and other:
            raise UserError(f"--optimiser {self.optimiser} and --trainer-args {other}: give one of them")

    def training(self, parameters: int | None = None, positions: int | None = None) -> Training:
        """What the trainer is told, with what a model of so many parameters and positions decides in the place of what was
        not given."""
        from irlens.models.weights import SMALL
        from irlens.train.options import _object

        shared = {f.name for f in fields(TrainOptions)} & {f.name for f in fields(self)}
        told = {name: getattr(self, name) for name in (*shared, "every_token", "optimiser")}
        args = _object(self.objective_args, "--objective-args")
        if self.margin is not None:
            if "margin" in args:
                raise UserError("--margin and --objective-args: margin is given twice")
            args["margin"] = self.margin
        told["objective_args"] = args or None
        if parameters is not None and self.learning_rate is None:
            told["learning_rate"] = OPTIMISERS[self.optimiser] * RATES[parameters >= SMALL]
        if self.max_length is None:
            told["max_length"] = positions
        return Training(**told)
