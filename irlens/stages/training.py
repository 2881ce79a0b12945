"""Stage `train`: LarPO iterations, measured on held-out problems."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.errors import UserError
from irlens.folder import OutputFolder
from irlens.settings import Train, at_least, positive
from irlens.stages.common import Policy, Say, concat, default_out, identity, load_policy, train_split
from irlens.stages.measuring import plot_iterations

if TYPE_CHECKING:
    import pandas as pd

    from irlens.tasks import Task
    from irlens.train.larpo import Settings, World


def train(settings: Train, say: Say = print) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """LarPO (Algorithm 1), measured on held-out problems after every iteration.

    Returns the folder, the results (curve, x = iteration, value, low, high, n) and the paired tests of the last policy
    against the start. The folder holds iteration-s/ (draws, run, qrels, lists, log, model), evaluation/, results.csv,
    tests.csv, training.{png,pdf,csv} and the manifest. Nothing is chosen by the held-out problems.
    """
    from irlens import objectives, tables
    from irlens.train import larpo

    objectives.get(settings.objective)
    _check(settings)
    policy = load_policy(settings, train_split(settings), None, say)
    if settings.prompts > len(policy.task.topics):
        raise UserError(
            f"--prompts {settings.prompts}: the split {policy.task.split!r} of {policy.task.name} has only "
            f"{len(policy.task.topics)}"
        )
    if policy.options.engine == "openai":
        raise UserError("--engine openai: a server does not load the policies that training makes; use another engine")
    held_out = _held_out(policy, settings)
    plan = _plan(settings, policy)
    out = default_out(settings, settings.objective, policy.model.name, policy.task.name)
    kept = identity(settings, policy, eval_split=held_out.split, **asdict(plan))
    with OutputFolder(out, "train", kept) as folder:
        policies = larpo.larpo(policy.folder, plan, _world(policy, settings, say), out, settings.lists_at_once)
        results, tests, tokens = _evaluate_policies(policies, policy, held_out, settings, out, say)
        tables.write_csv(results, out / "results.csv")
        tables.write_csv(tests, out / "tests.csv")
        plot_iterations(results, out / "training", f"{settings.objective} on {policy.task.name}")
        folder.note(**policy.facts(out), **_account(out, plan), tokens_generated_evaluation=tokens)
    return out, results, tests


def _check(settings: Train) -> None:
    at_least(1, iterations=settings.iterations, prompts=settings.prompts, lists=settings.lists, epochs=settings.epochs)
    at_least(1, positives=settings.positives, negatives=settings.negatives, batch_lists=settings.batch_lists)
    at_least(1, eval_n=settings.eval_n, eval_limit=settings.eval_limit)
    at_least(1, max_tokens=settings.max_tokens, lists_at_once=settings.lists_at_once)
    at_least(2, n=settings.n)
    positive(temperature=settings.temperature, eval_temperature=settings.eval_temperature)
    positive(beta=settings.beta, learning_rate=settings.learning_rate)


def _plan(settings: Train, policy: Policy) -> Settings:
    from irlens import objectives
    from irlens.train.larpo import Settings

    defaults = objectives.get(settings.objective)
    return Settings(
        objective=settings.objective,
        iterations=settings.iterations,
        positives=settings.positives or defaults.positives,
        negatives=settings.negatives or defaults.negatives,
        lists=settings.lists,
        beta=settings.beta or policy.model.beta,
        learning_rate=settings.learning_rate or policy.model.learning_rate,
        epochs=settings.epochs,
        batch_lists=settings.batch_lists,
        seed=settings.seed,
        base=policy.model.name,
    )


def _held_out(policy: Policy, settings: Train) -> Task:
    """The problems to measure on. Raises UserError if one of them is trained on."""
    from irlens import tasks

    dataset = settings.dataset or policy.model.dataset
    present = tasks.splits(dataset)
    split = settings.eval_split or next((s for s in ("validation", "test") if s in present), None)
    held_out = tasks.load(dataset, split, settings.eval_limit)
    trained = set(policy.task.topics["query"].str.split().str.join(" "))
    shared = held_out.topics["query"].str.split().str.join(" ").isin(trained)
    if shared.any():
        raise UserError(
            f"{int(shared.sum())} of {len(shared)} held-out problems ({held_out.split}) are training problems "
            f"({policy.task.split}), the first {held_out.topics['query_id'][shared].iloc[0]}; choose another --eval-split"
        )
    return held_out


def _world(policy: Policy, settings: Train, say: Say) -> World:
    """Algorithm 1's surroundings: iteration s takes the next `prompts` training problems, starting over at the end."""
    from irlens.rerank.verify import verify
    from irlens.retrieve.engines import token_ids
    from irlens.retrieve.sample import prompts
    from irlens.train.larpo import World

    task = policy.task

    def topics(s: int) -> pd.DataFrame:
        rows = [i % len(task.topics) for i in range((s - 1) * settings.prompts, s * settings.prompts)]
        return task.topics.iloc[rows].reset_index(drop=True)

    def sample(weights: Path, some: pd.DataFrame, s: int, shards: Path) -> pd.DataFrame:
        asked = prompts(some, policy.tokenizer, task.instruction)
        seed = settings.seed * 1000 + s  # a policy that hardly changed still draws anew
        return policy.draw(asked, settings.n, [settings.temperature], seed, shards, say, f"iteration {s}", weights)

    def prompt_ids(some: pd.DataFrame) -> dict[str, list[int]]:
        asked = prompts(some, policy.tokenizer, task.instruction)
        return dict(zip(some["query_id"], token_ids(policy.tokenizer, asked)))

    return World(topics, sample, lambda run, some: verify(run, some, task.verifier), prompt_ids, say)


def _evaluate_policies(
    policies: list[Path], policy: Policy, held_out: Task, settings: Train, out: Path, say: Say
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Pass@1 and Pass@N of every policy on the same problems with the same random numbers; the last against the first."""
    import pandas as pd

    from irlens import measures, stats, tables
    from irlens.rerank.verify import verify

    asked = policy.prompts(held_out)
    names = [f"Pass@{N}" for N in sorted({1, settings.eval_n})]
    rows, values, tokens = [], [], 0
    for s, weights in enumerate(policies):
        here = out / "evaluation" / str(s)
        temperature, label = [settings.eval_temperature], f"held-out, policy {s}"
        run = policy.draw(asked, settings.eval_n, temperature, settings.seed, here / "draws", say, label, weights)
        qrels = verify(run, held_out.topics, held_out.verifier)
        results, per_query = measures.evaluate(run, qrels, names, seed=settings.seed)
        tables.write_parquet(run, here / "run.parquet")
        tables.write_parquet(qrels, here / "qrels.parquet")
        rows.append(results.assign(curve=results["measure"], x=s))
        values.append(per_query.pivot(index="query_id", columns="measure", values="value"))
        tokens += int(run["n_tokens"].sum())
    tested = [stats.paired_test(values[0][m], values[-1][m], seed=settings.seed) for m in names]
    tests = pd.DataFrame([{"measure": m, **asdict(t)} for m, t in zip(names, tested)])
    tests["p_holm"] = stats.holm(tests["p"])
    return concat(rows)[["curve", "x", "value", "low", "high", "n"]], tests, tokens


def _account(out: Path, plan: Settings) -> dict:
    """Tokens and lists over all iterations."""
    import pandas as pd

    folders = [out / f"iteration-{s}" for s in range(1, plan.iterations + 1)]
    drawn = [pd.read_parquet(f / "run.parquet", columns=["n_tokens"])["n_tokens"] for f in folders]
    trained = [json.loads((f / "account.json").read_text(encoding="utf-8")) for f in folders]
    return {
        "tokens_generated": int(sum(tokens.sum() for tokens in drawn)),
        "reward_calls": sum(map(len, drawn)),
        "tokens_trained": sum(t["tokens_trained"] for t in trained),
        "lists_trained": sum(t["lists"] for t in trained),
    }
