"""The trainer: `transformers.Trainer` with a ranking loss over lists, and nothing else of its own."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from irlens.errors import UserError
from irlens.train.logprobs import Packed, pack, response_logprobs, shares_prefix


@dataclass(frozen=True)
class Example:
    """One list: token ids, grades, and the behaviour policy's summed log-probability of each response."""

    prompt: list[int]
    responses: list[list[int]]
    grades: list[float]
    reference: list[float]


def tokenise(lists: pd.DataFrame, prompt_ids: dict[str, list[int]], tokenizer) -> list[Example]:
    """One Example per list, with reference 0; responses end in EOS.

    prompt_ids: the token ids of each query's prompt, as the engine encodes them, so that training reads what sampling
    read. Raises UserError for an empty response.
    """
    out = []
    for (query_id, *_), group in lists.groupby(["query_id", "iteration", "list"], sort=False):
        encoded = tokenizer(list(group["text"]), add_special_tokens=False)["input_ids"]
        for doc_id, response in zip(group["doc_id"], encoded):
            if not response:
                raise UserError(f"response {doc_id} is empty; remove it from the lists")
        responses = [response + [tokenizer.eos_token_id] for response in encoded]
        out.append(Example(prompt_ids[query_id], responses, group["grade"].tolist(), [0.0] * len(group)))
    return out


def collate(examples: Sequence[Example], pad: int, share: bool) -> dict:
    """A batch: `packed`, and [B, L] tensors `grade`, `reference`, `mask`."""
    length = max(len(e.responses) for e in examples)

    def padded(values: list[list[float]], fill: float) -> torch.Tensor:
        return torch.tensor([v + [fill] * (length - len(v)) for v in values])

    return {
        "packed": pack([e.prompt for e in examples], [e.responses for e in examples], pad, share),
        "grade": padded([e.grades for e in examples], 0.0),
        "reference": padded([e.reference for e in examples], 0.0),
        "mask": padded([[1.0] * len(e.grades) for e in examples], 0.0).bool(),
    }


@torch.no_grad()
def with_reference(model, examples: list[Example], pad: int, batch_size: int) -> list[Example]:
    """`examples` with the log-probabilities under `model`: computed once, before it is trained."""
    model.eval()
    share, _ = shares_prefix(model)
    order = sorted(range(len(examples)), key=lambda i: sum(map(len, examples[i].responses)))
    found: dict[int, Example] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = collate([examples[i] for i in chosen], pad, share)
        with torch.autocast("cuda", torch.bfloat16, enabled=model.device.type == "cuda"):  # as the trainer runs it
            values = response_logprobs(model, batch["packed"].to(model.device)).tolist()
        for i, row in zip(chosen, values):
            e = examples[i]
            found[i] = Example(e.prompt, e.responses, e.grades, row[: len(e.responses)])
    return [found[i] for i in range(len(examples))]


class RankingTrainer(Trainer):
    """A Trainer whose loss is `objective(gamma, grade, mask)`, γ = β·(log π_θ − log π_ref) of every response of a list."""

    def __init__(self, *args, objective: Callable, beta: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.objective, self.beta = objective, beta
        self.model_accepts_loss_kwargs = False  # the loss is a mean over lists: accumulation divides it
        self.sums: dict[str, list[float]] = {
            "reward_accuracy": [],
            "reward_margin": [],
            "logp_positive": [],
            "logp_negative": [],
        }

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logprob = response_logprobs(model, inputs["packed"])
        gamma = self.beta * (logprob - inputs["reference"])
        loss = self.objective(gamma, inputs["grade"], inputs["mask"])
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss.item()} at step {self.state.global_step}; lower the learning rate"
            )
        if model.training:
            self._watch(gamma.detach(), logprob.detach(), inputs["grade"], inputs["mask"])
        return (loss, {"gamma": gamma}) if return_outputs else loss

    def _watch(self, gamma, logprob, grade, mask) -> None:
        best = mask & (grade == grade.masked_fill(~mask, -torch.inf).amax(-1, keepdim=True))
        worst = mask & (grade == grade.masked_fill(~mask, torch.inf).amin(-1, keepdim=True)) & ~best

        def mean(values, where):
            return (values * where).sum(-1) / where.sum(-1).clamp(min=1)

        margin = mean(gamma, best) - mean(gamma, worst)
        for name, values in (
            ("reward_accuracy", (margin > 0).float()),
            ("reward_margin", margin),
            ("logp_positive", mean(logprob, best)),
            ("logp_negative", mean(logprob, worst)),
        ):
            self.sums[name].append(values.mean().item())

    def log(self, logs: dict, *args, **kwargs) -> None:
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self.sums.items() if values}
            self.sums = {name: [] for name in self.sums}
        super().log(logs, *args, **kwargs)

    def _prepare_inputs(self, inputs: dict) -> dict:
        packed: Packed = inputs.pop("packed")
        return {**super()._prepare_inputs(inputs), "packed": packed.to(self.args.device)}


class _MarkComplete(TrainerCallback):
    """Marks a checkpoint once all its files are there, so that a kill half-way through saving is noticed."""

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / "complete").touch()


class _Bar(ProgressCallback):
    """The progress bar with the loss beside it; the whole log goes to a file."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.3f}")


def train(
    model,
    tokenizer,
    examples: list[Example],
    objective: Callable,
    folder: Path,
    *,
    beta: float,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    at_once: int,
    seed: int,
) -> list[dict]:
    """Trains `model` in place and returns the log (one dict per logged step).

    `batch_size` counts lists per step, of which `at_once` go through the model together. `folder` holds the checkpoints;
    training continues from the last whole one.
    """
    steps = -(-len(examples) // batch_size) * epochs
    folder.mkdir(parents=True, exist_ok=True)
    for checkpoint in folder.glob("checkpoint-*"):
        if not (checkpoint / "complete").exists():
            shutil.rmtree(checkpoint)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=-(-batch_size // at_once),
        **({"gradient_checkpointing": True} if model.num_parameters() > 5e8 else {}),
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(10, steps // 10),
        seed=seed,
        data_seed=seed,
        bf16=model.device.type == "cuda",
        logging_steps=max(1, steps // 20),
        save_strategy="steps",
        save_steps=max(1, steps // 4),
        save_total_limit=2,
        report_to="none",
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=model.device.type == "cuda",
        use_cpu=model.device.type == "cpu",
        max_grad_norm=1.0,
        weight_decay=0.0,
        disable_tqdm=False,
    )
    arguments._n_gpu = min(
        arguments.n_gpu, 1
    )  # several GPUs of one process mean DataParallel, which cannot split a Packed
    pad, (share, _) = tokenizer.pad_token_id or 0, shares_prefix(model)
    trainer = RankingTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        data_collator=lambda batch: collate(batch, pad, share),
        objective=objective,
        beta=beta,
        callbacks=[_MarkComplete()],
    )
    trainer.pop_callback(ProgressCallback)
    trainer.add_callback(_Bar())
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    return [entry for entry in trainer.state.log_history if "loss" in entry]
