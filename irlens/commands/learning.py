"""What `train --objective rft` needs beside the loop: demonstrations, what its reward model starts from, and who measures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.commands import sizes
from irlens.commands.settings import Train
from irlens.commands.validation import Job
from irlens.rerank import judges as judging
from irlens.retrieve.policy import Policy, Say
from irlens.train.rft import FOLDER, Base, LearnedReward, forget_unrewarded, start_of
from irlens.train.rft import demonstrations as demonstrations

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def judges(settings: Train, policy: Policy, say: Say) -> tuple[judging.Judge, judging.Judge | None]:
    """(the reward that is to be learned, who judges held-out draws: --eval-reward, else the verifier, else nobody)."""
    from irlens.models.weights import digest, digest_of_files
    from irlens.rerank import verifiers
    from irlens.train.reranker.base import unread

    task, name = policy.task, settings.eval_reward
    weights = _start(settings, policy)[1]
    files = f"{digest(weights)} {digest_of_files(weights)} {unread(weights, task.instruction)}".rstrip()
    learned = judging.Judge("the learned reward", _not_yet, True, identity=files)
    if name:
        return learned, judging.of_reward(name, task.instruction, "--eval-reward", say, policy.devices)
    if task.verifier is None:
        return learned, None
    verifiers.ready(task.verifier)
    return learned, judging.of_task(task, say)


def _not_yet(run: pd.DataFrame, topics: pd.DataFrame, folder: Path) -> pd.DataFrame:
    raise AssertionError("a reward that is learned in between judges through `reranker`")


def unmeasured(settings: Train, policy: Policy, say: Say) -> Train:
    """The settings of a training that nobody can measure. Raises UserError for what only a measured one has."""
    task = policy.task
    asked = {"--patience": settings.patience is not None, "--eval-split": settings.eval_split is not None}
    if given := [name for name, there in asked.items() if there]:
        raise UserError(
            f"{', '.join(given)}: {task.name} has no verifier, so nothing is measured; give --verifier or --eval-reward"
        )
    say(
        f"{task.name} has no verifier: {policy.name} is trained, measured on nothing (--eval-reward), and the last is taken"
    )
    return sizes.shrunk(settings, len(task.topics), [], f"{task.name} ({task.split})", say)


def base(settings: Train, policy: Policy) -> Base:
    """What the first reward model starts from: that of --reward-args, else the policy. Raises UserError for one that will not do."""
    return Base.of(*_start(settings, policy), settings.learning.pad_token, policy.task.instruction)


def _start(settings: Train, policy: Policy) -> tuple[str, Path]:
    name = settings.learning.model
    return start_of(name) if name else (policy.name, policy.folder)


def reranker(job: Job) -> LearnedReward:
    """The loop's reranker: the reward models lie in iteration-s/reward, and so do the scores and likelihoods of draws."""
    policy, task = job.policy, job.policy.task

    def place(s: int) -> Path:
        return job.out / f"iteration-{s}"

    def ratio(run: pd.DataFrame, s: int) -> np.ndarray:
        part = replace(task, topics=task.topics[task.topics["query_id"].isin(run["query_id"])].reset_index(drop=True))
        now = _logprobs(job.policy.at(place(s - 1) / "model"), place(s) / "likelihood-now")
        start = _logprobs(policy, place(s) / "likelihood-start")
        return now(part, run) - start(part, run)

    assert job.reward_base is not None
    forget_unrewarded(job.out)
    told = {"root": job.out, "devices": policy.devices, "say": job.say}
    return LearnedReward(job.settings, task, job.reward_base, ratio, place, **told)


def _logprobs(policy: Policy, out: Path) -> Callable[..., np.ndarray]:
    """(task, run) → log π of each row under a policy's own weights, in nats, kept in `out`."""
    from irlens.commands.hardness import policy_scorer

    score = policy_scorer(policy, out)
    assert score is not None
    return lambda task, run: score(task, run, "draws")["logprob"].to_numpy()


def account(folders: Sequence[Path]) -> dict[str, int]:
    """What reward models that were learned in these iterations' folders read; nothing where none was."""
    paths = [path for folder in folders if (path := folder / FOLDER / "account.json").is_file()]
    told = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    if not told:
        return {}
    return {
        "tokens_trained_reward": sum(t["tokens_trained"] for t in told),
        "lists_trained_reward": sum(t["lists"] for t in told),
        "lists_too_long_reward": sum(t["too_long"] for t in told),
    }
