"""LarPO, Algorithm 1: retrieve with the policy, rerank what it drew, cut lists, train on them; and again.

Source: Jin et al. 2025, "LLM Alignment as Retriever Optimization", Algorithm 1 (arXiv 2502.03699).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irlens.base import seeds
from irlens.base.errors import UserError
from irlens.negatives.lists import Cut, cut_lists, merge, without_list
from irlens.train.iterations import Kept
from irlens.train.options import LarpoOptions

if TYPE_CHECKING:
    import pandas as pd

    from irlens.base.protocols import Judge, Reranker
    from irlens.retrieve.policy import Policy
    from irlens.tasks.contract import Task


def iterate(policy, task: Task, options: LarpoOptions, rerank: Callable, cut: Callable, fit: Callable, kept: Kept):
    """The policy of each iteration, as it is made; the caller measures it, and stops when it wants.

    policy: has `sample(task, n, temperature, seed)` → run. rerank: (run, s) → the run with a column `reward`. cut: (runs
    by iteration, part, s, policy) → lists, and the prompts without one. fit: (policy, lists, part, s) → policy. `part` is
    the task with the prompts of iteration s. kept: what of this an earlier call has made. (Seven parameters: the
    algorithm's four steps, and what they are taken with.)
    """
    runs: dict[int, pd.DataFrame] = {}
    for s in range(1, options.iterations + 1):
        part = replace(task, topics=prompts_of(task.topics, options, s))
        draws = {"n": options.n, "temperature": options.temperature, "seed": seeds.derive(options.seed, s, "draws")}
        runs[s] = kept.run(s, lambda: rerank(policy.sample(part, **draws), s))  # retrieve, rerank
        lists = kept.lists(s, part, lambda: cut(runs, part, s, policy))  # negatives
        policy = fit(policy, lists, part, s)  # train
        yield policy


def prompts_of(topics: pd.DataFrame, options: LarpoOptions, s: int) -> pd.DataFrame:
    """The prompts of iteration s (from 1): the next ones, beginning anew at the end, or always the same."""
    count = min(options.prompts, len(topics))
    first = 0 if options.same_prompts else (s - 1) * count
    return topics.iloc[[i % len(topics) for i in range(first, first + count)]].reset_index(drop=True)


def remember(runs: dict[int, pd.DataFrame], part: Task, options: LarpoOptions, rerank) -> pd.DataFrame:
    """The last run with those of earlier iterations that `options.memory` keeps, for the same prompts.

    Rewards that hold within one list only (`rerank.relative`) are given anew.
    """
    s = max(runs)
    since = {"current": s, "previous": max(1, s - 1), "all": 1}[options.memory]
    if since == s:
        return runs[s]
    pool = merge({k: runs[k] for k in range(since, s + 1)}, part.topics["query_id"])
    return rerank(pool, s) if getattr(rerank, "relative", False) else pool


def cut_from(pool: pd.DataFrame, part: Task, options: LarpoOptions, s: int, by_reward: bool):
    """(lists of iteration s, the prompts without one and why) from rewards, or from right (above 0) and wrong ones."""
    positives, negatives = options.shape
    more = {
        "positives_from": options.source,
        "self_play": options.loss.gold,
        "by_reward": by_reward,
        "all_draws": options.whole,
    }
    seed = seeds.derive(options.seed, s, "lists")
    cut = Cut(positives, negatives, options.lists, s, seed, **more)
    lists = cut_lists(pool, None, part.topics, cut)
    return lists, without_list(pool, None, part.topics, lists, cut)


def larpo(
    policy: Policy | str | Path,
    task: Task,
    judge: Reranker | Judge | str | None = None,
    objective: str = "contrastive",
    iterations: int = 3,
    out: str | Path | None = None,
    **settings: Any,
) -> list[Policy]:
    """Algorithm 1: the policies of all iterations, the start first. The start's own weights stay as they are.

    policy: an `irlens.Policy`, or a name or path of one. judge: a reranker (run → run with `reward`), a judge (run →
    qrels) or a reranker's name; None is the task's verifier, or with objective "rft" a reward that is learned from the
    task's solutions. out: a folder that keeps every iteration's run, lists and
    model, and from which the same call continues; None keeps nothing. settings: any of `LarpoOptions`, such as
    `prompts=200, n=8, epochs=1, learning_rate=5e-7`, and the objective's parameters. Raises UserError for settings that
    do not fit, NothingToRank if no prompt of an iteration gives a list.
    """
    from irlens.train.in_memory import judging, learned, opened, told, trained_copy

    options = LarpoOptions.of(objective, iterations=iterations, **settings)
    if options.tier != "own":
        raise UserError(f"larpo: tier {options.tier!r} is what the command `irlens train` has; here it is own")
    policy, kept = opened(policy), Kept(None if out is None else Path(out))
    task, rerank, by_reward = judging(judge, task, options)
    kept.claim(told(policy, task, judge, options))

    def cut(runs, part, s, policy):
        return cut_from(remember(runs, part, options, rerank), part, options, s, by_reward)

    def fit(policy, lists, part, s):
        return trained_copy(policy, lists, part, options, s, kept)

    with kept.checked(), tempfile.TemporaryDirectory(prefix="irlens-larpo-") as states:
        kept = replace(kept, states=Path(states))
        policies = [policy]
        rerank = rerank or learned(policies, task, options, kept)
        for made in iterate(policy, task, options, rerank, cut, fit, kept):
            policies.append(made)
        return policies
