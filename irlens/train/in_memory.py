"""Training a model at hand: `fit`, and for a loop of one's own `batches` and `scores`."""

from __future__ import annotations

import copy
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from irlens.base.errors import UserError
from irlens.base.options import free
from irlens.models import catalog, chat, logprobs
from irlens.models.load import positions
from irlens.models.weights import saved_as
from irlens.retrieve.policy import Policy
from irlens.train import data, list_files
from irlens.train.course import FRESH, State
from irlens.train.losses import Scores
from irlens.train.options import TrainOptions
from irlens.train.preferences import as_lists

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.tasks.contract import Task
    from irlens.train.iterations import Kept
    from irlens.train.options import LarpoOptions
    from irlens.train.rft import LearnedReward


FIRST = 1  # a training on lists alone is an iteration, the first: a command makes the same of them


# -- one's own loop ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """B lists of at most L candidates on the model's device: what `scores` reads, and what a loss takes."""

    packed: logprobs.Packed
    grade: torch.Tensor  # [B, L], higher is better
    mask: torch.Tensor  # [B, L] bool: is there a candidate?
    reference: torch.Tensor  # [B, L] the reference's log-probability of each response, in nats
    length: torch.Tensor  # [B, L] tokens of each response
    token_reference: torch.Tensor  # [T] the reference's log-probability of each token, in the order of packed.target
    names: list[str]  # [B] which list it is


def batches(model, tokenizer, lists, batch_size: int, reference=None) -> list[Batch]:
    """The lists as batches of `batch_size`, in their order, with the log-probabilities of a reference.

    model, tokenizer: a causal language model of transformers. lists: what `fit` takes. reference: the model that
    gives the reference log-probabilities; by default `model` as it is now. A response is read by the tokens that were
    drawn, where the lists have them and this tokenizer wrote them. Raises UserError for lists that cannot be read.
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    lists, source = as_lists(lists), model if reference is None else reference
    examples = data.tokenise(lists, prompt_ids(lists, tokenizer), tokenizer, model=model)
    data.check_vocabulary(model, examples, lambda: "model and tokenizer")
    pad, rows, training = tokenizer.pad_token_id or 0, logprobs.layout(model), source.training
    examples = data.with_reference(source, examples, pad, batch_size, by_token=True)
    source.train(training)
    out = []
    for start in range(0, len(examples), batch_size):
        found = data.collate(examples[start : start + batch_size], pad, rows)
        own = {f.name: found[f.name] for f in fields(Batch)}
        moved = {k: v if k == "names" else v.to(model.device) for k, v in own.items()}
        out.append(Batch(**moved))
    return out


def scores(model, batch: Batch, squared: bool = False) -> Scores:
    """The batch's log-probabilities under `model`, with gradient: `.log_ratio` [B, L] is log π_θ − log π_ref in nats, and
    `.by_token` has them token by token. `squared` reads what WPO's weights need too.

    β times it is the gamma of `irlens.losses.listmle(gamma, batch.grade, batch.mask)` and the others.
    """
    read = (batch.reference, batch.length, batch.grade, batch.mask)
    return data.read_scores(model, batch.packed, read, batch.token_reference, squared)


def prompt_ids(
    lists: pd.DataFrame, tokenizer, instruction: str = "", messages_as: str | None = None
) -> dict[str, list[int]]:
    """query_id → the token ids that are read before its responses: of what `asked` gives."""
    found = asked(lists, tokenizer, instruction, messages_as)
    return dict(zip((prompt.query_id for prompt in found), chat.token_ids(tokenizer, found)))


def asked(lists: pd.DataFrame, tokenizer, instruction: str = "", messages_as: str | None = None) -> list[chat.Prompt]:
    """What is read before the responses of each query: a `prompt` word for word, else its `messages`, else its `query` as
    a policy reads it (see `chat.prompts`)."""
    topics = lists.drop_duplicates("query_id", ignore_index=True)
    if "messages" in lists.columns:  # a gold solution has none, the draws beside it have
        given = lists[lists["messages"].notna()].drop_duplicates("query_id").set_index("query_id")["messages"]
        topics = topics.assign(messages=[given.get(query_id) for query_id in topics["query_id"]])
    words = topics["prompt"].tolist() if "prompt" in topics.columns else [None] * len(topics)
    read = {i for i, word in enumerate(words) if not isinstance(word, str) or not word}
    made = iter(chat.prompts(topics.iloc[sorted(read)], tokenizer, instruction, messages_as))
    return [
        next(made) if i in read else chat.Prompt(query_id, words[i]) for i, query_id in enumerate(topics["query_id"])
    ]


# -- fit -----------------------------------------------------------------------------------------------------------


def fit(model, tokenizer, lists, objective: str = "listmle", **args) -> Policy:
    """Trains a policy on lists and returns it; the references are computed before the first step. `irlens train --lists`
    is the same.

    model: a causal language model of transformers, which is trained IN PLACE, as trainers do (`copy.deepcopy(model)`
    keeps it), or a name or folder, which is loaded. tokenizer: its own; None where the model is a name. lists:
    `irlens.lists`, `irlens.mine(...).lists`, or a frame, a `datasets.Dataset` or a list of dictionaries with `prompt,
    completions, scores` or TRL's `prompt, chosen, rejected` (see `preferences.as_lists`), or a file of these
    (`list_files.read`). objective: see
    `irlens.losses.names()`. args: fields of `TrainOptions` (learning_rate, epochs, batch_lists, max_length, lora_rank,
    seed, trainer_args as a dictionary, …) and the objective's parameters (beta, weighted, …); what is not given is the
    model's in the catalog, else β 0.1 and learning rate 5e-7.

    Lists longer than `max_length` (default: the model's positions) are left out whole. Raises UserError: lists that
    cannot be read or say nothing, an unknown setting, a loss that is not finite.
    """
    options = TrainOptions.of(objective, **args)
    if options.loss.learns_reward:
        raise UserError(
            f"fit: objective {objective!r} learns a reward as it draws: use irlens.larpo, or `irlens train`"
        )
    lists = list_files.read(lists) if isinstance(lists, (str, Path)) else as_lists(lists)
    if isinstance(model, (str, Path)):
        from irlens.train.in_folder import load

        entry = catalog.model(str(model))
        model, own = load(catalog.fetch(entry), options, FIRST)
        tokenizer = tokenizer or own
    else:
        entry = catalog.loaded(model)
        model = _adapted(model, options)
    if tokenizer is None:
        raise UserError("fit: give the model's tokenizer")
    options = options.of_model(entry, positions(model.config))
    return Policy((train(model, tokenizer, lists, prompt_ids(lists, tokenizer), options, FIRST), tokenizer))


def train(
    model,
    tokenizer,
    lists: pd.DataFrame,
    prompts: dict[str, list[int]],
    options: TrainOptions,
    s: int,
    state: State = FRESH,
):
    """The model, trained in place with the random numbers of iteration s, adapters merged. prompts: query_id → ids.
    state: the optimiser's (see `trainer.train`, whose seven parameters these are)."""
    from irlens.train import trainer

    if options.shard:
        raise UserError("shard: the command `irlens train` divides weights over processes; here there is one")
    every = data.tokenise(lists, prompts, tokenizer, options.loss.mismatched, model)
    examples = data.fitting(every, options.max_length)
    if not examples:
        raise UserError(f"no list fits into max_length {options.max_length}")
    if options.loss.needs_negative and not any(len(set(e.grades)) > 1 for e in examples):
        raise UserError(f"no list has two different grades, and {options.objective} compares")
    data.check_vocabulary(model, examples, lambda: "model and tokenizer")
    quiet = {"save_strategy": "no", **options.arguments}
    folder = Path(tempfile.mkdtemp(prefix="irlens-fit-"))
    try:
        done = trainer.train(model, tokenizer, examples, replace(options, trainer_args=quiet), folder, s, state)
    except FloatingPointError as error:
        raise UserError(str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    model = done.accelerator.unwrap_model(done.model, keep_fp32_wrapper=False)
    return (model.merge_and_unload() if hasattr(model, "merge_and_unload") else model).eval()


def _adapted(model, options: TrainOptions):
    """The model, with adapters where they are asked for."""
    from irlens.train import adapters

    if options.quantize:
        raise UserError("quantize: give the model's name or folder, as it is quantised when it is loaded")
    return adapters.adapted(model, options.lora_rank) if options.lora_rank else model


# -- for Algorithm 1 -----------------------------------------------------------------------------------------------


def opened(policy) -> Policy:
    """A policy: itself, or that of a name or folder."""
    return Policy(str(policy)) if isinstance(policy, (str, Path)) else policy


def told(policy: Policy, task: Task, judge, options: TrainOptions) -> dict:
    """What a run of Algorithm 1 is made from: the settings, and the weights, prompts and judge by their content or name."""
    kept = {name: value for name, value in asdict(options).items() if name not in free(type(options))}
    named = {"name": policy.name, "weights": policy.digest, "max_tokens": policy.max_tokens}
    kept["save_dtype"] = saved_as(options.save_dtype, policy.folder, policy.folder is None and policy.model)
    asked = hashlib.sha256("\n".join([task.instruction, *task.topics["query_id"], *task.topics["query"]]).encode())
    who = judge if isinstance(judge, str) else "the verifier" if judge is None else repr(judge).partition(" at 0x")[0]
    if options.loss.learns_reward:
        shown = hashlib.sha256("\n".join(task.topics["solution"]).encode()).hexdigest()
        kept["reward_args"] = asdict(options.learning)
        who = f"learned from demonstrations {shown[:16]}"
    return {**kept, "policy": named, "task": task.name, "prompts_digest": asked.hexdigest()[:16], "judge": who}


def judging(judge, task: Task, options: LarpoOptions) -> tuple[Task, Callable | None, bool]:
    """(the task with the prompts that are trained on, who judges, None where that is `learned`, whether by a reward)."""
    from irlens.train import rft

    if not options.loss.learns_reward:
        return task, *rewarded(judge, task)
    if judge is not None:
        raise UserError(f"objective {options.objective!r} learns its own reward from demonstrations; give no judge")
    return rft.demonstrations(task, lambda line: None), None, True


def rewarded(judge, task: Task) -> tuple[Callable, bool]:
    """((run, s) → the run with `reward`, whether that is a reward): of a reranker, its name, a function that gives a
    score per row, a judge, or the task's verifier, which gives 1 for right and 0 for wrong."""
    if isinstance(judge, str):
        from irlens.rerank import by_name

        judge = by_name.reranker(judge, task=task)
    if judge is None and task.verifier is None:
        raise UserError(f"data set {task.name!r} has no verifier, so right and wrong cannot be told; give a judge")

    def rerank(run: pd.DataFrame, s: int) -> pd.DataFrame:
        from irlens.negatives.lists import graded
        from irlens.rerank.verify import verify

        if judge is None:
            return run.assign(reward=verify(run, task.topics, task.verifier)["relevance"].to_numpy(dtype=float))
        found = judge(run)
        if not hasattr(found, "columns"):  # a score per row
            return run.assign(reward=list(map(float, found)))
        if "reward" in found.columns:
            return found
        return graded(run, found).rename(columns={"grade": "reward"})

    rerank.relative = getattr(judge, "relative", False)
    return rerank, judge is not None


def trained_copy(policy: Policy, lists: pd.DataFrame, part: Task, options: TrainOptions, s: int, kept: Kept) -> Policy:
    """The policy after iteration s; `policy` keeps its weights. In a folder the model is kept, whole, by rename, and it is
    what is kept that goes on."""
    from irlens.train import adapters

    path = None if kept.out is None else kept.folder(s) / "model"
    options = options.of_model(policy.entry, policy.positions)  # the optimiser may be kept by the model's own course
    if path is not None and kept.trained(s, options):
        kept.forget(s)
        kept.say(f"iteration {s}: reused the model in {path}")
        return policy.at(path)
    dtype = saved_as(options.save_dtype, policy.folder, policy.model)
    model = _adapted(copy.deepcopy(policy.model).float(), options)
    model = train(model, policy.tokenizer, lists, policy.prompt_ids(part), options, s, kept.state(s, options))
    if path is None:
        kept.forget(s)
        return _holding(policy, model)
    shutil.rmtree(path, ignore_errors=True)  # one that the optimiser's state is lost of
    with adapters.written_whole(path) as temporary:
        adapters.write(model, adapters.in_dtype(model, dtype), dtype, temporary)
        policy.tokenizer.save_pretrained(temporary)
    kept.forget(s)
    return policy.at(path)


def learned(policies: list[Policy], task: Task, options: LarpoOptions, kept: Kept) -> LearnedReward:
    """The reranker of RFT over the policies as they are made, the start first; its reward models lie beside theirs."""
    from irlens.train import rft

    start = policies[0]
    if options.learning.model:
        name, weights = rft.start_of(options.learning.model)
    else:
        name, weights = start.name, start.folder or _written(start, kept)
    where = kept.out or kept.states

    def ratio(run: pd.DataFrame, s: int) -> np.ndarray:
        now, before = (policy.logprobs(run, task)["logprob"].to_numpy() for policy in (policies[s - 1], start))
        return now - before

    rft.forget_unrewarded(where)
    base = rft.Base.of(name, weights, options.learning.pad_token, task.instruction)
    return rft.LearnedReward(options, task, base, ratio, lambda s: where / f"iteration-{s}", kept.out, say=kept.say)


def _written(policy: Policy, kept: Kept) -> Path:
    """A folder with the weights of a policy that has none."""
    from irlens.train import adapters

    folder = kept.states / "start"
    adapters.write(policy.model, adapters.in_dtype(policy.model, "float32"), "float32", folder)
    policy.tokenizer.save_pretrained(folder)
    return folder


def _holding(policy: Policy, model) -> Policy:
    """A policy like this one that draws from `model`."""
    told = {"max_tokens": policy.max_tokens, "max_prompt_length": policy.max_prompt_length}
    return Policy((model, policy.tokenizer), **told)
