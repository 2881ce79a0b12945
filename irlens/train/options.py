"""How a policy is trained: one frozen record, from the command's options to the loss and the trainer."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from irlens.base.errors import UserError, did_you_mean
from irlens.base.options import Default, at_least, one_of, option, parse_json, positive
from irlens.base.secrets import is_name, learn

if TYPE_CHECKING:
    from irlens.models.catalog import Model
    from irlens.train.losses import Objective

MEMORIES = ("current", "previous", "all")
SOURCES = ("own", "gold", "both")
DTYPES = ("auto", "float32", "bfloat16")  # of saved policies
BEFORE = {
    "wpo": False,
    "shuffle_grades": False,
    "schedule": "cosine",
    "keep_optimiser": False,
    "all_draws": False,
}  # what trainings were told before there were these settings
SCHEDULES = ("cosine", "constant", "cosine-over-all")  # of the learning rate (`train.course`)
OURS = ("output_dir", "remove_unused_columns", "max_steps")  # what lists and resuming depend on
AT_ONCE = 16  # lists that go through a small model in one pass
FOREIGN = ("easiest", "easy")  # tiers whose negatives answer another prompt


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What one training on lists does: the objective with its parameters, and the trainer's own settings."""

    objective: str = option(
        "contrastive",
        "pairwise, contrastive, listmle, grpo, sft, … or module:function.",
        panel="Objective",
    )
    beta: float | None = option(None, "β of γ = β·log(π/π_ref). Default: the model's.", panel="Objective")
    nll: float | None = option(None, "Weight of the positives' NLL per token (RPO).", panel="Objective")
    length_normalised: bool = option(False, "Log-probabilities per token, not sums.", panel="Objective")
    wpo: bool = option(False, "WPO: weigh lists by how likely they are.", panel="Objective")
    shuffle_grades: bool = option(False, "Placebo: grades permuted within a list.", panel="Objective")
    objective_args: str | None = option(None, "JSON of other parameters: '{\"weighted\": 1}'.", panel="Objective")
    learning_rate: float | None = option(None, "Default: the model's.", panel="Trainer")
    schedule: str | None = option(None, "constant, cosine, … Default: the model's.", panel="Trainer")
    keep_optimiser: bool = option(False, "From one iteration to the next; else a new one.", panel="Trainer")
    epochs: int = option(2, "Epochs per iteration.", panel="Trainer", least=1)
    batch_lists: int = option(32, "Lists per step, over all processes.", panel="Trainer", least=1)
    lists_at_once: int | None = option(
        None, "Lists per pass. Default: by the model's size.", panel="Trainer", free=True
    )
    max_length: int | None = option(None, "Tokens; longer lists are left out, and counted.", panel="Trainer")
    pack_up_to: int | None = option(
        None,
        "Tokens of a list up to which its responses share a row. Default: where faster.",
        panel="Trainer",
        free=True,
    )
    lora_rank: int | None = option(None, "LoRA adapters of this rank, merged in the end.", panel="Trainer")
    quantize: str | None = option(None, "4bit: QLoRA, with --lora-rank.", panel="Trainer")
    shard: bool = option(False, "Divide all that training holds over the GPUs.", panel="Trainer", free=True)
    save_dtype: str = option("auto", "Policies: float32, bfloat16; as the start.", panel="Trainer")
    report_to: str = option("none", "wandb, tensorboard, mlflow, …", panel="Trainer", free=True)
    trainer_args: str | None = option(None, 'JSON of TrainingArguments: \'{"optim": "sgd"}\'.', panel="Trainer")
    seed: int = option(0, "Seed of all that is random, from 0.", panel="Output")

    @classmethod
    def of(cls, objective: str, **given):
        """The record from a caller's arguments: options, and parameters of the objective (`weighted=1`).

        `objective_args` and `trainer_args` may be dictionaries. Raises UserError for a name that is neither, or a value
        out of range.
        """
        from irlens.base import seeds
        from irlens.train import losses

        known, own = {f.name for f in fields(cls)}, losses.get(objective).parameters
        for name in given:
            if name not in known and name not in own:
                raise UserError(f"training: unknown setting {name!r}; {did_you_mean(name, [*known, *own])}")
        more = {name: given.pop(name) for name in list(given) if name not in known}
        asked = _object(given.pop("objective_args", None), "objective_args")
        found = cls(objective=objective, objective_args=asked | more or None, **given)
        seeds.check(found.seed, "seed")
        return found.check()

    def check(self):
        """These options. Raises UserError for a value out of range, or an extra that is missing."""
        from irlens.train.adapters import check_adapters

        at_least(1, epochs=self.epochs, batch_lists=self.batch_lists, lora_rank=self.lora_rank)
        at_least(1, max_length=self.max_length, lists_at_once=self.lists_at_once)
        at_least(0, pack_up_to=self.pack_up_to)
        positive(learning_rate=self.learning_rate)
        check_arguments(self.arguments)
        check_adapters(self.lora_rank, self.quantize, self.shard)
        one_of(DTYPES, save_dtype=self.save_dtype)
        if self.schedule is not None:
            one_of(SCHEDULES, schedule=self.schedule)
        self._check_course()
        if self.shuffle_grades and not self.loss.needs_negative:
            raise UserError(f"--shuffle-grades: objective {self.objective!r} compares no grades; leave it out")
        if self.shard and "deepspeed" in self.arguments:
            raise UserError("--shard and --trainer-args deepspeed both divide the model; give one of them")
        self.parameters  # noqa: B018 - it refuses what the objective does not know
        return self

    def _check_course(self) -> None:
        """Raises UserError for what --schedule and --keep-optimiser do not go with."""
        if self.schedule not in (None, "cosine") and "lr_scheduler_type" in self.arguments:
            raise UserError("--schedule and --trainer-args lr_scheduler_type say the same twice; give one of them")
        if self.keep_optimiser and (other := self._parts_of_it()):
            why = "every iteration has adapters of its own" if self.lora_rank else "no process holds the whole state"
            raise UserError(f"--keep-optimiser and {other}: {why}; give one of them")

    def _parts_of_it(self) -> str | None:
        """The option with which no process has the whole state of one optimiser, if one was given."""
        others = {"--lora-rank": self.lora_rank, "--shard": self.shard, "--trainer-args deepspeed": "deepspeed" in self.arguments}  # fmt: skip
        return next((name for name, given in others.items() if given), None)

    def of_model(self, model: Model | None = None, positions: int | None = None):
        """These options with what the model decides in the place of what was not given: learning rate, β and length; of
        several iterations without a schedule also that, and whether the optimiser is kept (of one: the paper's cosine)."""
        from irlens.models.catalog import Model

        model = model or Model("", "")
        given = {"learning_rate": self.learning_rate or model.learning_rate, "max_length": self.max_length or positions}
        several = getattr(self, "iterations", 1) > 1 and not getattr(self, "list_file", None)
        if self.schedule is None and several and "lr_scheduler_type" not in self.arguments:
            keeps = model.keep_optimiser and not self._parts_of_it()
            given |= {"schedule": model.schedule, "keep_optimiser": self.keep_optimiser or keeps}
        elif self.schedule is None:
            given["schedule"] = "cosine"
        if self.loss.model_beta and "beta" not in self._given:
            given["beta"] = model.beta
        return replace(self, **given)

    @property
    def loss(self) -> Objective:
        """The objective. Raises UserError for one that is not known."""
        from irlens.train import losses

        return losses.get(self.objective)

    @property
    def _given(self) -> dict:
        """The objective's parameters that were given. Raises UserError for one that was given twice."""
        given = _object(self.objective_args, "--objective-args")
        for name, value in (("beta", self.beta), ("nll", self.nll)):
            if name in given and value is not None:
                raise UserError(f"--{name} and --objective-args: {name} is given twice")
            if value is not None:
                given[name] = value
        return given

    @property
    def parameters(self) -> dict:
        """Every parameter of the objective, with its default where none was given."""
        return self.loss.resolve(**self._given)

    @property
    def arguments(self) -> dict:
        """The fields of transformers.TrainingArguments that were given."""
        return _object(self.trainer_args, "--trainer-args")


@dataclass(frozen=True, kw_only=True)
class LarpoOptions(TrainOptions):
    """What Algorithm 1 does: which prompts, how many draws, which lists, and how each iteration trains on them."""

    iterations: int = option(3, "Rounds of sampling, judging, training.", panel="Data", least=1)
    prompts: int = option(Default(500), "Prompts per iteration.", panel="Data")
    same_prompts: bool = option(False, "The same ones in every iteration.", panel="Data")
    n: int = option(8, "Draws per prompt and temperature.", "-n", panel="Draws", least=1)
    temperature: tuple[float, ...] = option((1.0,), "Temperatures, by commas; 0 is greedy.", panel="Draws", least=0)
    memory: str = option("current", "Draws: current, previous (too), all.", panel="Lists")
    tier: str = option("own", "Negatives: own; others' easy, easiest.", panel="Lists")
    positives_from: str | None = option(
        None, "gold (solutions), own (draws), or both. Default: the objective's.", panel="Lists"
    )
    positives: int | None = option(None, "Per list. Default: the paper's.", panel="Lists")
    negatives: int | None = option(None, "Per list. Default: the paper's.", panel="Lists")
    list_size: int | None = option(None, "Candidates, in the place of --negatives.", panel="Lists")
    lists: int = option(1, "Lists cut per prompt.", "--lists-per-prompt", panel="Lists", least=1)
    all_draws: bool = option(False, "All in one list, equal texts too (as GRPO).", panel="Lists")

    def check(self):
        """These options. Raises UserError for a value out of range."""
        at_least(1, iterations=self.iterations, prompts=self.prompts, lists_per_prompt=self.lists, n=self.n)
        at_least(1, positives=self.positives)
        at_least(0, negatives=self.negatives)
        at_least(2, list_size=self.list_size)
        for value in self.temperature:
            if not 0 <= value < float("inf"):
                raise UserError(f"--temperature must be 0 (greedy) or a number above, got {value:g}")
        one_of(MEMORIES, memory=self.memory)
        one_of(SOURCES, positives_from=self.positives_from)
        one_of(("own", *FOREIGN), tier=self.tier)
        self.shape  # noqa: B018 - it refuses a list without a negative
        self._check_whole()
        if self.drawn < 2 and self.positives_from != "gold":
            how = "-n 1 at one temperature" if self.temperature[0] else "temperature 0 (greedy)"
            raise UserError(f"{how} gives one candidate per prompt, and nothing to rank; draw at least 2")
        return super().check()

    @property
    def shape(self) -> tuple[int, int]:
        """(positives, negatives) of a list: as given, or the objective's own; `list_size` sets what remains negative."""
        positives = self.loss.positives if self.positives is None else self.positives
        negatives = self.loss.negatives if self.negatives is None else self.negatives
        if self.list_size is not None:
            if self.negatives is not None:
                raise UserError("--list-size and --negatives say the same twice; give one of them")
            negatives = self.list_size - positives
        if negatives < 1 and self.loss.needs_negative:
            raise UserError(f"objective {self.objective!r} needs a negative in every list, got {negatives}")
        return positives, negatives

    @property
    def drawn(self) -> int:
        """Draws of a prompt in an iteration that may differ: greedy ones are all equal."""
        return sum(self.n if temperature else 1 for temperature in self.temperature)

    @property
    def size(self) -> int:
        """Candidates of a list, at most."""
        return self.drawn if self.whole else sum(self.shape)

    @property
    def whole(self) -> bool:
        """Whether a list is all that was drawn for a prompt: as asked for, or as the objective has it."""
        return self.all_draws or self.loss.all_draws

    def _check_whole(self) -> None:
        """Raises UserError, naming all, for what says which draws a list has where it has them all."""
        if not self.whole:
            return
        why = "--all-draws" if self.all_draws else f"objective {self.objective!r} takes all draws of a prompt"
        shaped = ("positives", "negatives", "list_size")
        given = [f"--{name.replace('_', '-')}" for name in shaped if getattr(self, name) is not None]
        given += ["--lists-per-prompt"] if self.lists != 1 else []
        given += ["--positives-from"] if self.source != "own" else []
        given += ["--tier"] if self.tier != "own" else []
        given += ["--memory"] if self.loss.all_draws and self.memory != "current" else []
        if given:
            raise UserError(f"{why}, of this policy and this iteration: leave out {', '.join(given)}")
        k, draws = self.parameters.get("k", 0), self.n * len(self.temperature)
        if k > draws and not getattr(self, "list_file", None):
            raise UserError(
                f"objective {self.objective!r}: k = {k} is more than the {draws} draws of a prompt; raise -n, or lower k by "
                "--objective-args"
            )

    @property
    def source(self) -> str:
        """Where positives come from: as given, or the objective's own."""
        return self.positives_from or ("gold" if self.loss.gold else "own")


def check_arguments(given: dict) -> None:
    """Raises UserError for a name that TrainingArguments does not have, or that irlens sets itself."""
    from transformers import TrainingArguments

    known = [f.name for f in fields(TrainingArguments) if f.init]
    for name in given:
        if is_name(name) and isinstance(given[name], str):
            learn(given[name])
            raise UserError(
                f"--trainer-args: {name} is a secret, and checkpoints keep these; set HF_TOKEN in the environment"
            )
        if name not in known:
            raise UserError(f"--trainer-args: unknown argument {name!r}; {did_you_mean(name, known)}")
        if name in ("fsdp", "fsdp_config"):
            raise UserError(
                f"--trainer-args: {name} reads the whole model into every process and onto every GPU; --shard divides it"
            )
        if name in OURS:
            raise UserError(f"--trainer-args: {name} is set by irlens")


def _object(value: str | dict | None, name: str) -> dict:
    return dict(value) if isinstance(value, dict) else parse_json(value, name)
