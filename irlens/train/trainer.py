"""The trainer: `transformers.Trainer` with a ranking loss over lists.

A step's loss is the objective over all lists of the step, and its gradient, however these are cut into passes and over
processes (`Steps`, `RankingTrainer.get_batch_samples`).
"""

import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from irlens.base import checksums, seeds
from irlens.base.errors import UserError
from irlens.models.logprobs import layout, response_logprobs
from irlens.models.memory import CHECKPOINTED
from irlens.models.weights import SMALL
from irlens.train import course, sharding
from irlens.train.data import Example, collate, read_scores, shuffled, with_reference
from irlens.train.losses import Scores
from irlens.train.options import AT_ONCE, TrainOptions, check_arguments


@dataclass
class Steps(torch.utils.data.Sampler):
    """Which list goes into which pass: every epoch all lists in a new order, `size` per optimiser step.

    A step has as many passes of `at_once` lists in every process, and its lists are dealt out evenly; what stays free is
    the number `lists`, a list without a candidate. The last step of an epoch has what is left. The order is a function
    of (seed, epoch). Passes come in the order in which accelerate deals them out: one to each process, and again.
    """

    lists: int
    size: int
    at_once: int
    processes: int
    seed: int
    epoch: Callable[[], int]

    def __len__(self) -> int:
        return sum(self._passes(n) for n in self._sizes()) * self.at_once

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch()]).permutation(self.lists).tolist()
        for chosen in (order[i : i + self.size] for i in range(0, self.lists, self.size)):
            passes = self._passes(len(chosen))
            for number in range(passes):
                some = chosen[number::passes]
                yield from some + [self.lists] * (self.at_once - len(some))

    def _sizes(self) -> list[int]:
        return [min(self.size, self.lists - i) for i in range(0, self.lists, self.size)]

    def _passes(self, lists: int) -> int:
        """Passes over all processes, as many in each."""
        return -(-lists // (self.at_once * self.processes)) * self.processes


class RankingTrainer(Trainer):
    """A Trainer whose loss is an objective over lists, and whose log says what happens to positives and negatives."""

    def __init__(
        self,
        *args,
        options: TrainOptions,
        train_dataset: list[Example],
        iteration: int = 0,
        state: course.State = course.FRESH,
        **kwargs,
    ):
        self.options, self.lists, self.iteration, self.kept = options, len(train_dataset), iteration, state
        self.objective, self.parameters = options.loss, options.parameters
        super().__init__(*args, train_dataset=[*train_dataset, train_dataset[0].blank()], **kwargs)
        self.model_accepts_loss_kwargs = False  # the loss is a mean over lists: accumulation divides it
        self.watched, self.tiers = Counter(), Counter()

    def _get_train_sampler(self, train_dataset=None) -> Steps:
        args, options = self.args, self.options
        capacity = args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
        own = {"per_device_train_batch_size", "gradient_accumulation_steps"} & set(options.arguments)
        size = capacity if own else options.batch_lists
        per_epoch = -(-self.lists // size)
        return Steps(
            self.lists,
            size,
            args.per_device_train_batch_size,
            args.world_size,
            args.data_seed,
            lambda: self.state.global_step // per_epoch,
        )

    def get_batch_samples(self, epoch_iterator, num_batches: int, device) -> tuple[list, None]:
        """A step's passes, each told its `share` of the lists that the step's loss is a mean over, in all processes, and
        the mismatched log-probabilities of the whole step, if the objective asks for them."""
        passes, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [float(self.objective.counts(each["grade"], each["mask"]).sum()) for each in passes]
        total = self.accelerator.reduce(torch.tensor(sum(counts), device=device), "sum").clamp(min=1).item()
        parts = len(passes) * self.args.world_size  # by which accumulation and the mean over processes divide
        whole = self._mismatched(passes) if self.objective.mismatched else {}
        passes = [each | whole | {"share": parts * n / total} for each, n in zip(passes, counts)]
        return passes, None

    @torch.no_grad()
    def _mismatched(self, passes: list[dict]) -> dict[str, torch.Tensor]:
        """What `Scores` holds of mismatched responses, of all lists of the step in all processes. [M] each."""
        model, device = self.model_wrapped, self.args.device
        model.eval()
        found = torch.full((3, len(passes), self.args.per_device_train_batch_size), torch.nan, device=device)
        for number, each in enumerate(passes):
            real = each["mask"].any(-1)
            logprob = response_logprobs(model, each.pop("mismatched_packed").to(device))[:, 0].float()
            known = [logprob, each.pop("mismatched_reference").to(device), each.pop("mismatched_length").to(device)]
            found[:, number, : int(real.sum())] = torch.stack(known)[:, real.to(device)]
        every = self.accelerator.gather(found.flatten(1).T.contiguous())
        every = every[~every.isnan().all(-1)]
        return dict(zip(("mismatched", "mismatched_reference", "mismatched_length"), every.unbind(-1)))

    def create_optimizer(self, *args, **kwargs):
        """The optimiser, with the state that is kept, where one is."""
        if self.optimizer is None:
            self.kept.take(super().create_optimizer(*args, **kwargs))
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """The learning rate's course, as the schedule has it."""
        if self.lr_scheduler is None:
            own = course.scheduler(
                self.options, optimizer or self.optimizer, self.args, num_training_steps, self.iteration
            )
            self.lr_scheduler, self._created_lr_scheduler = own, own is not None
        return super().create_scheduler(num_training_steps, optimizer)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        scores, share = self._scores(model, inputs), inputs.get("share", 1.0)
        loss = self._loss(scores) if share else 0 * scores.logprob.sum()  # every process computes as many gradients
        if not torch.isfinite(loss):
            bad = ~torch.isfinite(scores.logprob.detach()).all(-1)
            name = next((n for n, b in zip(inputs["names"], bad.tolist()) if b), inputs["names"][0])
            raise FloatingPointError(
                f"the loss became {loss.item()} at step {self.state.global_step}, in the list of {name}; lower the "
                "learning rate (the last good checkpoint is kept)"
            )
        if model.training:
            self.watched.update(self.diagnose(scores))
            self.tiers.update(tier for tiers in inputs["tiers"] for tier in tiers)
        loss = share * loss
        return (loss, {"logprob": scores.logprob}) if return_outputs else loss

    def _loss(self, scores: Scores) -> torch.Tensor:
        """The objective over the lists of a pass."""
        ways = {"length_normalised": self.options.length_normalised, "wpo": self.options.wpo}
        return self.objective(scores, **ways, **self.parameters)

    def diagnose(self, scores: Scores) -> dict[str, float]:
        """What the log says of a pass: sums over its lists, and their number, `lists`."""
        return _diagnose(scores, self.objective.uses_reference)

    def _scores(self, model, inputs: dict) -> Scores:
        mismatched = {name: value for name, value in inputs.items() if name.startswith("mismatched")}
        read = [inputs[name] for name in ("reference", "length", "grade", "mask")]
        return read_scores(model, inputs["packed"], read, inputs.get("token_reference"), self.options.wpo, **mismatched)

    def log(self, logs: dict, *args, **kwargs) -> None:
        if "loss" in logs:
            watched, tiers = Counter(), Counter()
            for sums, counts in gather_object([(self.watched, self.tiers)]):  # of every process
                watched.update(sums)
                tiers.update(counts)
            lists = watched.pop("lists")
            logs |= {name: total / lists for name, total in watched.items()}
            logs |= {f"share_{tier}": count / tiers.total() for tier, count in sorted(tiers.items())}
            self.watched, self.tiers = Counter(), Counter()
        super().log(logs, *args, **kwargs)

    def _prepare_inputs(self, inputs: dict) -> dict:
        kept = {name: inputs.pop(name) for name in ("packed", "names", "tiers")}
        return {**super()._prepare_inputs(inputs), **kept, "packed": kept["packed"].to(self.args.device)}


@torch.no_grad()
def _diagnose(scores: Scores, reference: bool) -> dict[str, float]:
    """What a pass's lists show, summed over them, and their number, `lists`: implicit-reward accuracy and margin
    (log-ratios, without β), likelihoods per response. Without a `reference` there are no log-ratios.

    `kl` is the mean of log π_ref − log π_θ over the candidates: the usual one-sample estimate of KL(π_ref ‖ π_θ), of
    those responses that came into lists.
    """
    grade, mask, policy = scores.grade, scores.mask, scores.policy
    best = mask & (grade == grade.masked_fill(~mask, -torch.inf).amax(-1, keepdim=True))
    worst = mask & (grade == grade.masked_fill(~mask, torch.inf).amin(-1, keepdim=True)) & ~best

    def mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        return (values * where).sum(-1) / where.sum(-1).clamp(min=1)

    per_list = {
        "lists": mask.any(-1),
        "logp_positive": mean(policy, best),
        "logp_negative": mean(policy, worst),
        "list_size": mask.sum(-1),
        "response_tokens": mean(scores.length, mask),
    }
    if reference:
        ratio = scores.log_ratio
        margin = mean(ratio, best) - mean(ratio, worst)
        per_list |= {
            "reward_accuracy": margin > 0,
            "reward_margin": margin,
            "logratio_positive": mean(ratio, best),
            "logratio_negative": mean(ratio, worst),
            "kl": -mean(ratio, mask),
        }
    return summed(per_list)


def summed(per_list: dict[str, torch.Tensor]) -> dict[str, float]:
    """Name → the sum of values [B]."""
    stacked = torch.stack([values.double().sum() for values in per_list.values()])
    return dict(zip(per_list, stacked.tolist()))


class DividedTrainer(sharding.Divided, RankingTrainer):
    """The same for a model whose weights are divided over the processes."""


@dataclass
class _MarkComplete(TrainerCallback):
    """Marks a checkpoint once all its files are there, so that a kill half-way through saving is noticed; only then the one
    before it goes, where the last is to be `alone`. What was watched is logged before: it is summed in memory, and a
    checkpoint has the log and no sums, so a training that continues would know nothing of the steps before."""

    alone: bool

    def on_step_end(self, args, state, control, **kwargs):
        control.should_log |= control.should_save

    on_epoch_end = on_step_end

    def on_save(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        last = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (last / "complete").touch()
        checksums.seal(last)
        for older in Path(args.output_dir).glob("checkpoint-*") if self.alone else ():
            if older != last:
                shutil.rmtree(older)


class _Bar(ProgressCallback):
    """The progress bar with the loss beside it; the whole log goes to a file."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.3f}")


@contextmanager
def _bar(trainer: Trainer) -> Iterator[None]:
    """Our bar in the place of transformers'; its line ends however the training does."""
    trainer.pop_callback(ProgressCallback)
    bar = _Bar()
    if not trainer.args.disable_tqdm:
        trainer.add_callback(bar)
    try:
        yield
    finally:
        if bar.training_bar is not None:
            bar.training_bar.close()


def lists_at_once(options: TrainOptions, parameters: int) -> int:
    """Lists that go through a model of so many parameters in one pass, in one process."""
    return min(options.lists_at_once or (AT_ONCE if parameters < SMALL else 1), options.batch_lists)


def training_arguments(
    folder: Path, options: TrainOptions, lists: int, parameters: int, iteration: int = 0
) -> TrainingArguments:
    """What transformers is told. Raises UserError for an unknown or refused entry of `options.arguments`."""
    import os

    check_arguments(options.arguments)
    steps = -(-lists // options.batch_lists) * options.epochs
    log_every = max(1, steps // 20)
    cuda, processes = torch.cuda.is_available(), int(os.environ.get("WORLD_SIZE", 1))
    at_once = min(lists_at_once(options, parameters), -(-options.batch_lists // processes))
    seed = seeds.derive(options.seed, iteration, "training")
    ours = {
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": -(-options.batch_lists // (at_once * processes)),
        "num_train_epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": min(10, steps // 10),
        "seed": seeds.folded(seed),
        "data_seed": seed,
        "bf16": cuda,
        "logging_steps": log_every,
        "save_strategy": "steps",
        "save_steps": log_every * max(1, steps // (4 * log_every)),  # whole lines of the log
        "report_to": options.report_to,
        "dataloader_pin_memory": cuda,
        "use_cpu": not cuda,
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "disable_tqdm": False,
        **({"gradient_checkpointing": True} if parameters > CHECKPOINTED else {}),
    }
    try:
        arguments = TrainingArguments(
            output_dir=str(folder), remove_unused_columns=False, **{**ours, **options.arguments}
        )
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"--trainer-args: {' '.join(str(error).split())}") from error
    arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs of one process mean DataParallel: no Packed can be split
    return arguments


def train(
    model,
    tokenizer,
    examples: list[Example],
    options: TrainOptions,
    folder: Path,
    iteration: int = 0,
    state: course.State = course.FRESH,
) -> Trainer:
    """Trains `model` in place and returns its trainer; the log is trainer.state.log_history.

    References are computed before the first step. `folder` holds the checkpoints; training continues from the last
    whole one. state: the optimiser's, where it is kept between iterations. Raises UserError for a checkpoint that is not
    this model's, FloatingPointError for a loss that is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arguments = training_arguments(folder, options, len(examples), model.num_parameters(), iteration)
    only_whole(folder, arguments)
    pad, rows = tokenizer.pad_token_id or 0, layout(model, options.pack_up_to, arguments.device.type)
    if options.shard and arguments.world_size > 1:
        model, kind = sharding.divide(model, arguments.device, arguments.bf16), DividedTrainer
    else:
        model, kind = model.to(arguments.device), RankingTrainer
    if options.shuffle_grades:
        examples = shuffled(examples, seeds.derive(options.seed, iteration, "grades"))
    if options.loss.uses_reference:
        examples = _references(model, examples, pad, options, arguments)
    trainer = kind(
        model=model,
        args=arguments,
        train_dataset=examples,
        data_collator=lambda batch: collate(batch, pad, rows),
        options=options,
        iteration=iteration,
        state=state,
    )
    run(trainer, folder)
    if arguments.process_index == 0:
        state.leave(trainer.optimizer)
    return trainer


def only_whole(folder: Path, arguments: TrainingArguments) -> None:
    """Removes the checkpoints in `folder` that are not whole. Every process calls it."""
    if arguments.process_index == 0:
        for checkpoint in folder.glob("checkpoint-*"):
            if not (checkpoint / "complete").exists() or not checksums.whole(checkpoint):
                shutil.rmtree(checkpoint)
    if arguments.world_size > 1:
        torch.distributed.barrier()  # before anyone looks for the last whole one


def run(trainer: RankingTrainer, folder: Path) -> Trainer:
    """Trains to the end, from the last checkpoint in `folder` where there is one; returns the trainer.

    Raises UserError for a checkpoint that is not this model's.
    """
    trainer.add_callback(_MarkComplete("save_total_limit" not in trainer.options.arguments))
    last, divided = get_last_checkpoint(str(folder)), isinstance(trainer, DividedTrainer)
    if last and (Path(last) / sharding.PARTS).is_dir() != divided:
        how = "without --shard" if divided else "with --shard, by several processes"
        raise UserError(f"{last}: was made {how}; go back to that, or delete it and run again")
    try:
        with _bar(trainer):
            trainer.train(resume_from_checkpoint=last)
    except (RuntimeError, ValueError, KeyError) as error:
        if last and ("size mismatch" in str(error) or "state_dict" in str(error) or "param_group" in str(error)):
            raise UserError(f"{last}: not a checkpoint of this model; delete it and run again") from error
        raise
    except pickle.UnpicklingError as error:  # its states are read as numbers, never as code
        raise UserError(f"{last}: not a readable checkpoint; delete it and run again") from error
    return trainer


def _references(
    model, examples: list[Example], pad: int, options: TrainOptions, arguments: TrainingArguments
) -> list[Example]:
    """Every process computes its share, and all get all; in as many passes each, for divided weights need them all."""
    at_once = lists_at_once(options, model.num_parameters())
    rank, processes = arguments.process_index, arguments.world_size
    own = examples[rank::processes]
    filled = own + examples[: -(-len(examples) // processes) - len(own)]
    ways = (arguments.bf16, options.pack_up_to, options.loss.by_token)
    own = with_reference(model, filled, pad, at_once, *ways)[: len(own)]
    if processes == 1:
        return own
    parts: list[list[Example]] = [[] for _ in range(processes)]
    torch.distributed.all_gather_object(parts, own)
    out = list(examples)
    for i, part in enumerate(parts):
        out[i::processes] = part
    return out
