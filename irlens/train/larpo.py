"""LarPO, Algorithm 1: sample with the current policy, judge, cut lists, train, repeat; every step kept on disk."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from irlens.errors import UserError
from irlens.mine import cut_lists
from irlens.tables import write_csv, write_parquet, write_text

SMALL = 50e6  # parameters below which a whole step's lists go through at once


@dataclass(frozen=True)
class Settings:
    """What one LarPO run does; `positives`, `negatives` per list, `lists` per prompt, `batch_lists` lists per step."""

    objective: str
    iterations: int
    positives: int
    negatives: int
    lists: int
    beta: float
    learning_rate: float
    epochs: int
    batch_lists: int
    seed: int
    base: str  # the catalog name whose defaults the trained model inherits


@dataclass(frozen=True)
class World:
    """What the loop asks of the rest: each a plain function, so that it knows no engine, task or judge."""

    topics: Callable[[int], pd.DataFrame]  # iteration (from 1) → its topics
    sample: Callable[[Path, pd.DataFrame, int, Path], pd.DataFrame]  # policy, topics, iteration, folder → run
    judge: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]  # run, topics → qrels
    prompt_ids: Callable[[pd.DataFrame], dict[str, list[int]]]  # topics → token ids of their prompts
    say: Callable[[str], None] = print


def larpo(start: Path, settings: Settings, world: World, out: Path, lists_at_once: int | None = None) -> list[Path]:
    """Runs the iterations that `out` does not hold yet and returns the policies' folders, the start first.

    `out/iteration-s/` holds draws, run, qrels, lists, training log and the model (by rename, so a model that is there
    is whole). Raises UserError if no prompt of an iteration has both a right and a wrong draw, or the loss is not finite.
    """
    policies = [start]
    for s in range(1, settings.iterations + 1):
        here = out / f"iteration-{s}"
        if (here / "model").is_dir():
            world.say(f"iteration {s}: reused the model in {here / 'model'}")
        else:
            _iterate(policies[-1], s, settings, world, here, lists_at_once)
        policies.append(here / "model")
    return policies


def _iterate(policy: Path, s: int, settings: Settings, world: World, here: Path, lists_at_once: int | None) -> None:
    topics = world.topics(s)
    if (here / "lists.parquet").is_file():
        lists = pd.read_parquet(here / "lists.parquet")
        world.say(f"iteration {s}: reused the lists in {here / 'lists.parquet'}")
    else:
        run = world.sample(policy, topics, s, here / "draws")
        qrels = world.judge(run, topics)
        write_parquet(run, here / "run.parquet")
        write_parquet(qrels, here / "qrels.parquet")
        lists = cut_lists(
            run, qrels, topics, settings.positives, settings.negatives, settings.lists, iteration=s, seed=settings.seed
        )
        write_parquet(lists, here / "lists.parquet")
    if lists.empty:
        raise UserError(
            f"iteration {s}: of {len(topics)} prompts none has both a right and a wrong finished draw, so there is nothing "
            f"to rank; use more prompts or draws, another temperature, or a model that solves some of them"
        )
    used = lists["query_id"].nunique()
    count = len(lists.groupby(["query_id", "list"]))
    world.say(
        f"iteration {s}: {count:,} lists from {used:,} of {len(topics):,} prompts (the others: all right or all wrong)"
    )
    _train(policy, lists, world.prompt_ids(topics), settings, s, here, lists_at_once)


def _train(
    policy: Path,
    lists: pd.DataFrame,
    prompt_ids: dict,
    settings: Settings,
    s: int,
    here: Path,
    lists_at_once: int | None,
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from irlens import objectives
    from irlens.train.trainer import tokenise, train, with_reference

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).to(
        device
    )  # bf16 by autocast, not storage
    at_once = lists_at_once or (settings.batch_lists if model.num_parameters() < SMALL else 1)
    examples = tokenise(lists, prompt_ids, tokenizer)
    examples = with_reference(model, examples, tokenizer.pad_token_id or 0, at_once)
    try:
        log = train(
            model,
            tokenizer,
            examples,
            objectives.get(settings.objective),
            here / "checkpoints",
            beta=settings.beta,
            learning_rate=settings.learning_rate,
            epochs=settings.epochs,
            batch_size=settings.batch_lists,
            at_once=min(at_once, settings.batch_lists),
            seed=settings.seed + s,
        )
    except FloatingPointError as error:
        raise UserError(f"iteration {s}: {error}") from error
    write_csv(pd.DataFrame(log), here / "log.csv")
    trained = settings.epochs * sum(len(e.prompt) + sum(map(len, e.responses)) for e in examples)
    write_text(json.dumps({"lists": len(examples), "tokens_trained": trained}) + "\n", here / "account.json")
    _save(model, tokenizer, settings.base, here / "model")
    shutil.rmtree(here / "checkpoints")


def _save(model, tokenizer, base: str, path: Path) -> None:
    """The model as plain transformers loads it, in one rename."""
    temporary = path.with_name(".model.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    write_text(json.dumps({"base": base}) + "\n", temporary / "irlens.json")
    temporary.rename(path)
