"""LarPO, Algorithm 1: sample with the current policy, judge, cut lists, train, repeat; every step kept on disk."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from irlens.base.errors import NothingToRank, UserError
from irlens.base.files import write_csv, write_parquet, write_text
from irlens.negatives import lists as candidate_lists

SMALL, AT_ONCE = 50e6, 16  # parameters below which this many lists go through at once, else one
MEMORIES = ("current", "previous", "all")


@dataclass(frozen=True)
class Settings:
    """What one LarPO run does. `batch_lists` counts lists per step; `parameters` are the objective's own.

    memory: whose draws a list is cut from: this iteration's, the previous one's too, or all so far. patience: how many
    iterations without a better validation value are allowed before stopping; None never stops early.
    """

    objective: str
    iterations: int
    memory: str
    learning_rate: float
    epochs: int
    batch_lists: int
    seed: int
    base: str  # the catalog name whose defaults the trained model inherits
    parameters: dict = field(default_factory=dict)
    length_normalised: bool = False
    max_length: int | None = None
    pack_up_to: int | None = None
    patience: int | None = None
    lora_rank: int | None = None
    quantize: str | None = None
    trainer_args: dict = field(default_factory=dict)


@dataclass(frozen=True)
class World:
    """What the loop asks of the rest: each a plain function, so that it knows no engine, task or judge.

    list_relative: the judge's grades hold within one list only (PairRM), so a merged list is judged anew.
    """

    topics: Callable[[int], pd.DataFrame]  # iteration (from 1) → its topics
    sample: Callable[[Path, pd.DataFrame, int, Path], pd.DataFrame]  # policy, topics, iteration, folder → run
    judge: Callable[[pd.DataFrame, pd.DataFrame, Path], pd.DataFrame]  # run, topics, folder for scores → qrels
    cut: Callable[  # run, qrels, topics, iteration, policy, folder → lists, and the prompts without (query_id, why)
        [pd.DataFrame, pd.DataFrame, pd.DataFrame, int, Path, Path], tuple[pd.DataFrame, pd.DataFrame]
    ]
    prompt_ids: Callable[[pd.DataFrame], dict[str, list[int]]]  # topics → token ids of their prompts
    validate: Callable[[Path, int], float]  # policy, iteration → the value to select by, higher is better
    say: Callable[[str], None] = print
    list_relative: bool = False


def larpo(start: Path, settings: Settings, world: World, out: Path, lists_at_once: int | None = None) -> list[Path]:
    """Runs the iterations that `out` does not hold yet and returns the policies' folders, the start first.

    `out/iteration-s/` holds draws, run, qrels, lists, the prompts without one and why (skipped.csv), training log, the
    model (by rename, so a model that is there is whole) and validation.json. Under `accelerate launch` every process
    calls this; all but the first wait for the lists and train along. Raises NothingToRank if no prompt of an iteration
    gives a list, UserError if the loss is not finite.
    """
    policies, values = [start], [_validated(start, 0, world, out)]
    for s in range(1, settings.iterations + 1):
        here = out / f"iteration-{s}"
        if (here / "model").is_dir():
            world.say(f"iteration {s}: reused the model in {here / 'model'}")
        else:
            _iterate(policies[-1], s, settings, world, out, lists_at_once)
        policies.append(here / "model")
        values.append(_validated(here / "model", s, world, out))
        if settings.patience is not None and s - values.index(max(values)) > settings.patience:
            world.say(f"stopped after iteration {s}: no better validation value in {settings.patience + 1} iterations")
            break
    return policies


def _main() -> bool:
    return int(os.environ.get("RANK", 0)) == 0


def _await(path: Path) -> None:
    """Until the first process has written `path`, each time by rename."""
    while not path.exists():
        time.sleep(0.5)


def _validated(policy: Path, s: int, world: World, out: Path) -> float:
    """The validation value of a policy: computed once by the first process, then read."""
    path = out / f"iteration-{s}" / "validation.json"
    if _main() and not path.is_file():
        write_text(json.dumps({"value": world.validate(policy, s)}) + "\n", path)
    _await(path)
    return json.loads(path.read_text(encoding="utf-8"))["value"]


def _iterate(policy: Path, s: int, settings: Settings, world: World, out: Path, lists_at_once: int | None) -> None:
    here, topics = out / f"iteration-{s}", world.topics(s)
    if (here / "lists.parquet").is_file():
        world.say(f"iteration {s}: reused the lists in {here / 'lists.parquet'}")
    elif _main():
        run = world.sample(policy, topics, s, here / "draws")
        qrels = world.judge(run, topics, here / "scores")
        write_parquet(run, here / "run.parquet")
        write_parquet(qrels, here / "qrels.parquet")
        run, qrels = _remember(run, qrels, topics, s, settings, world, out)
        lists, skipped = world.cut(run, qrels, topics, s, policy, here)
        write_csv(skipped, here / "skipped.csv")
        write_parquet(lists, here / "lists.parquet")
    _await(here / "lists.parquet")
    lists, reasons = pd.read_parquet(here / "lists.parquet"), _skipped(here)["why"]
    if lists.empty:
        raise NothingToRank(
            f"iteration {s}: none of {len(topics):,} prompts gives a list to rank: {candidate_lists.in_words(reasons)}"
        )
    used, count = lists["query_id"].nunique(), len(lists.groupby(["query_id", "list"]))
    others = candidate_lists.in_words(reasons, candidate_lists.FAULTS)
    world.say(
        f"iteration {s}: {count:,} lists from {used:,} of {len(topics):,} prompts"
        + (f" (the others, see skipped.csv: {others})" if others else "")
    )
    _train(policy, lists, world, topics, settings, s, here, lists_at_once)


def _skipped(here: Path) -> pd.DataFrame:
    """query_id and why of an iteration's prompts without a list; none where an older version did not keep them."""
    path = here / "skipped.csv"
    return (
        pd.read_csv(path, dtype=str, keep_default_na=False)
        if path.is_file()
        else pd.DataFrame(columns=["query_id", "why"])
    )


def _remember(run, qrels, topics, s: int, settings: Settings, world: World, out: Path):
    """This iteration's draws with those of the earlier ones that `memory` keeps, for the same prompts."""
    first = {"current": s, "previous": max(1, s - 1), "all": 1}[settings.memory]
    if first == s:
        return run, qrels
    pools = {
        k: tuple(pd.read_parquet(out / f"iteration-{k}" / f"{name}.parquet") for name in ("run", "qrels"))
        for k in range(first, s + 1)
    }
    run, qrels = candidate_lists.merge(pools, topics["query_id"])
    scores = out / f"iteration-{s}" / "scores-merged"
    return run, world.judge(run, topics, scores) if world.list_relative else qrels


def _train(policy: Path, lists, world: World, topics, settings: Settings, s: int, here: Path, lists_at_once) -> None:
    import torch

    from irlens.base import seeds
    from irlens.models.chat import origins
    from irlens.models.logprobs import explain
    from irlens.train import adapters
    from irlens.train.data import check_vocabulary, fitting, tokenise
    from irlens.train.losses import ranking as objectives
    from irlens.train.trainer import Plan, train

    objective = objectives.get(settings.objective)
    torch.manual_seed(seeds.folded(seeds.derive(settings.seed, s, "weights")))
    model, tokenizer = adapters.load(policy, settings.lora_rank, settings.quantize)
    at_once = lists_at_once or (AT_ONCE if model.num_parameters() < SMALL else 1)
    if objective.mismatched and lists["query_id"].nunique() < 2:
        raise NothingToRank(
            f"iteration {s}: one prompt gives lists, and {settings.objective} compares with responses to another"
        )
    every = tokenise(lists, world.prompt_ids(topics), tokenizer, objective.mismatched, model)
    examples = fitting(every, settings.max_length)
    reasons = _without_long(every, examples, settings.max_length, s, here, world.say)
    check_vocabulary(model, examples, lambda: str(policy))
    lengths = [(len(e.prompt), [len(r) for r in e.responses]) for e in examples]
    explain(model, world.say, settings.pack_up_to, lengths)
    plan = Plan(
        objective=objective,
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        batch_size=settings.batch_lists,
        at_once=min(at_once, settings.batch_lists),
        seed=seeds.derive(settings.seed, s, "training"),
        parameters=settings.parameters,
        length_normalised=settings.length_normalised,
        pack_up_to=settings.pack_up_to,
        arguments=settings.trainer_args,
    )
    trained = settings.epochs * sum(e.tokens for e in examples)
    account = {"lists": len(examples), "too_long": len(every) - len(examples), "tokens_trained": trained}
    account |= {"prompts": len(topics), "prompts_without_list": reasons}

    def finish(trainer) -> None:
        if _main():
            read = origins(lists, model, tokenizer)
            write_text(json.dumps(account | read) + "\n", here / "account.json")
            write_csv(pd.DataFrame(entry for entry in trainer.state.log_history if "loss" in entry), here / "log.csv")
        adapters.save(trainer, policy, tokenizer, settings.base, here / "model")

    try:
        train(model, tokenizer, examples, plan, here / "checkpoints", finish)
    except FloatingPointError as error:
        raise UserError(f"iteration {s}: {error}") from error
    _await(here / "model")
    if _main():
        shutil.rmtree(here / "checkpoints")
        for warning in displaced(pd.read_csv(here / "log.csv")):
            world.say(f"iteration {s}: {warning}")


def _without_long(every: list, examples: list, limit: int | None, s: int, here: Path, say) -> dict[str, int]:
    """Says which lists did not fit, adds the prompts that lost all of theirs to skipped.csv, and counts its reasons."""
    skipped = _skipped(here)
    skipped = skipped[skipped["why"] != "too long"]  # of a start that was killed
    if len(examples) < len(every):
        say(
            f"iteration {s}: left out {len(every) - len(examples):,} of {len(every):,} lists, whole: a response with its "
            f"prompt is longer than {limit:,} tokens"
        )
        prompts, kept = (
            list(dict.fromkeys(e.name.rpartition(", iteration ")[0] for e in some)) for some in (every, examples)
        )
        lost = pd.DataFrame({"query_id": [q for q in prompts if q not in set(kept)], "why": "too long"})
        skipped = pd.concat([skipped, lost], ignore_index=True)
        if _main():
            write_csv(skipped, here / "skipped.csv")
    if not examples:
        raise NothingToRank(f"iteration {s}: no list fits into --max-length {limit}")
    return {why: int(count) for why, count in skipped["why"].value_counts().items()}


def displaced(log: pd.DataFrame) -> list[str]:
    """A warning in words if training made the positives a quarter of a nat or more less likely than the reference has
    them (the mean of the last quarter of the log): likelihood displacement."""
    if "logratio_positive" not in log.columns or log.empty:  # no reference, or nothing logged
        return []
    last = log.tail(max(1, len(log) // 4))
    up, down = last["logratio_positive"].mean(), last["logratio_negative"].mean()
    if up >= -0.25:  # what single steps wander by
        return []
    return [
        f"warning: the positives' log-probability fell by {-up:.2f} nats per response below the reference's "
        f"(the negatives' by {-down:.2f}): likelihood displacement; a term --nll 0.1, a lower learning rate or harder "
        "negatives help"
    ]
