"""Stage `train`: LarPO iterations, chosen on validation problems, measured on test problems."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import at_least
from irlens.commands import exported, finished, learning, off_policy
from irlens.commands import truth as of_truth
from irlens.commands import validation as held_out_problems
from irlens.commands.drawing import default_out, identity, load_policy, store_of, train_split
from irlens.commands.evaluate import plot_diagnostics, plot_iterations
from irlens.commands.folder import OutputFolder
from irlens.commands.settings import Train, heat
from irlens.commands.validation import Job
from irlens.models.weights import saved_as
from irlens.rerank import judges as judging
from irlens.retrieve.policy import Policy, Say, concat
from irlens.train.options import FOREIGN

if TYPE_CHECKING:
    import pandas as pd

    from irlens.tasks.contract import Task


def train(settings: Train, say: Say = print) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """LarPO (Algorithm 1), measured on validation problems after every iteration, or every --eval-every-th, and on test
    problems at the end.

    Returns the folder, the validation results (curve, x = iteration, value, low, high, n) and the paired tests of the
    chosen policy against the start on test problems; no tests where none were wanted, for validation problems have chosen.
    With `list_file` it is one training on the lists given, without draws; without a data set beside them nothing is
    measured, and both frames are empty.
    The chosen policy is the best on validation (Pass@1 at the first evaluation temperature), or the last where
    the problems in between are test problems: nothing is chosen by those. The folder holds iteration-s/ (draws, run,
    qrels where a verifier judged, lists, log, model; with `rft` reward/, the reward model that it learned), evaluation/, results.csv, test.csv, tests.csv,
    training.{png,pdf,csv}, diagnostics.{png,pdf,csv}, chosen.json and the manifest.
    """
    import pandas as pd

    _check(settings)
    job = off_policy.prepare(settings, say) if settings.list_file else _prepare(settings, say)
    kept = {"store": store_of(settings, job.out), "say": say, "asked": settings}
    with OutputFolder(job.out, "train", _identity(job), **kept) as folder:
        if folder.finished and job.held_out is None:
            return job.out, pd.DataFrame(), pd.DataFrame()
        if folder.finished:
            return job.out, *(finished.table(job.out / name) for name in ("results.csv", "tests.csv"))
        policies = _policies(job) if job.lists is None else off_policy.policies(job)
        if job.held_out is None:
            off_policy.unmeasured(job, policies, folder, _facts(job, len(policies) - 1))
            return job.out, pd.DataFrame(), pd.DataFrame()
        measured = held_out_problems.measured(job.settings, len(policies) - 1)
        results, values, tokens = held_out_problems.validation(measured, job.out)
        chosen = held_out_problems.chosen(measured, job.settings, job.out)
        if job.test is not None:
            values, tested = _test(job, {0: policies[0], chosen: policies[chosen]})
            tokens += tested
        tests = held_out_problems.tests(values[0], values[chosen], settings.seed_of("bootstrap"))
        if job.test is None and held_out_problems.chooses(settings):
            tests = tests.iloc[:0]
            say("--test-limit 0: no test of the chosen policy, as the validation problems are those that chose it")
        _write(job, results, tests, chosen, policies)
        say(f"chosen: iteration {chosen} of {len(policies) - 1}, by {held_out_problems.why(job.held_out, settings)}")
        if job.truth is not None:
            folder.note(**of_truth.conclude(job.measured, measured, chosen, held_out_problems.chooses(settings)))
        folder.note(**_facts(job, len(policies) - 1), chosen_iteration=chosen, tokens_generated_evaluation=tokens)
    return job.out, results, tests


# -- the loop ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawing:
    """A policy of the loop: weights in a folder, whose draws of iteration `s` go through the command's engine."""

    job: Job
    weights: Path
    s: int

    def sample(self, part: Task, n: int, temperature: tuple[float, ...], seed: int) -> pd.DataFrame:
        """A run of n draws per topic of the task and temperature; what an earlier call has drawn is kept."""
        from irlens.retrieve.sample import Draws

        policy, shards = self.job.policy.at(self.weights), self.job.out / f"iteration-{self.s}" / "draws"
        asked = policy.prompts(part)
        return policy.draw(asked, Draws(n, temperature, seed), shards, self.job.say, f"iteration {self.s}")


@dataclass(frozen=True)
class Judging:
    """The judge of a training as the loop's reranker: the run with its reward, which a verifier gives as 0 or 1."""

    job: Job

    @property
    def relative(self) -> bool:
        """Whether rewards hold within one list only."""
        return self.job.judge.relative

    def __call__(self, run: pd.DataFrame, s: int) -> pd.DataFrame:
        job, here = self.job, self.job.out / f"iteration-{s}"
        merged = (here / "run.parquet").is_file()  # its own draws are judged already: these are several iterations'
        topics = job.policy.task.topics
        topics = topics[topics["query_id"].isin(run["query_id"])].reset_index(drop=True)
        scores = here / ("scores-merged" if merged else "scores")
        grades = job.judge.grade(
            run.assign(tag=""), topics, scores
        )  # all draws of a prompt compete, at any temperature
        if not job.judge.is_reward:
            files.write_parquet(grades, here / "qrels.parquet")
        more = {"truncated": grades["truncated"].to_numpy()} if "truncated" in grades.columns else {}
        return run.assign(reward=grades["relevance"].to_numpy(dtype=float), **more)


def _policies(job: Job) -> list[Path]:
    """Algorithm 1 over what the folder holds already: the weights of every policy, each validated, the start first."""
    from irlens.train.in_folder import Folders
    from irlens.train.iterations import Kept
    from irlens.train.larpo import cut_from, iterate, remember

    policy, settings, kept = job.policy, job.settings, Kept(job.out, job.say)
    folders = Folders(settings, kept, policy.name, policy.devices)
    rerank = Judging(job) if job.reward_base is None else learning.reranker(job)
    for run in job.out.glob("iteration-*/run.parquet"):
        if not job.judge.is_reward and not run.with_name("qrels.parquet").is_file():
            run.unlink()  # they are made together, from draws that are there

    def cut(runs: dict, part: Task, s: int, now: Drawing) -> tuple[pd.DataFrame, pd.DataFrame]:
        pool = remember(runs, part, settings, rerank)
        if settings.tier in FOREIGN:
            return _foreign_lists(job, pool, part.topics, now)
        return cut_from(pool, part, settings, s, job.judge.is_reward)

    def fit(now: Drawing, lists: pd.DataFrame, part: Task, s: int) -> Drawing:
        if settings.export:
            exported.write(job, s, lists, policy.prompts(part))
        return Drawing(job, folders.fit(now.weights, lists, policy.prompt_ids(part), s), s + 1)

    start = Drawing(job, policy.folder, 1)
    policies, values = [start.weights], {}
    if job.held_out is not None:
        values[0] = held_out_problems.value(job, start.weights, 0)
    for s, now in enumerate(iterate(start, policy.task, settings, rerank, cut, fit, kept), 1):
        policies.append(now.weights)
        if values and s in held_out_problems.measured(settings, s):
            values[s] = held_out_problems.value(job, now.weights, s)
        if settings.patience is not None and s in values and s - max(values, key=values.get) > settings.patience:
            patience = settings.patience + 1
            job.say(f"stopped after iteration {s}: no better validation value in {patience} iterations")
            break
    return policies


def _foreign_lists(job: Job, run: pd.DataFrame, some: pd.DataFrame, now: Drawing) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lists whose negatives answer another prompt: of this data set (easy), or of another one (easiest); and the prompts
    without one."""
    from irlens.negatives import mine
    from irlens.negatives.false_negatives import false_negatives
    from irlens.negatives.tiers import accepts

    settings, task = job.settings, job.policy.task
    pool = _unrelated(job, len(some), now) if settings.tier == "easiest" else run
    qrels = run[["query_id", "doc_id"]].assign(relevance=run["reward"])
    positives = mine.positives_from(some, run, qrels, settings.source)
    positives = positives.drop_duplicates("query_id", ignore_index=True)

    def screen(rows: pd.DataFrame) -> pd.Series:
        return false_negatives(rows, positives, accepts=accepts(replace(task, topics=some)))

    seed = settings.seed_of("mining", now.s)
    mined = mine.mine_negatives(some, {settings.tier: pool}, positives, screen, mine.Rules(settings.lists, seed))
    return mine.as_pairs(mined.lists).assign(iteration=now.s), mined.skipped


def _unrelated(job: Job, prompts: int, now: Drawing) -> pd.DataFrame:
    """Draws for prompts of another data set, enough for the negatives of so many prompts."""
    from irlens import tasks
    from irlens.retrieve.sample import Draws

    settings, policy = job.settings, job.policy
    asked = policy.prompts(policy.fitting(tasks.load(policy.task.unrelated, None, prompts), job.say))
    enough, seed = -(-2 * settings.lists * prompts // len(asked)), settings.seed_of("unrelated draws", now.s)
    shards, label = job.out / f"iteration-{now.s}" / "draws-unrelated", f"iteration {now.s}, unrelated"
    return policy.at(now.weights).draw(asked, Draws(enough, settings.temperature[:1], seed), shards, job.say, label)


# -- before it -----------------------------------------------------------------------------------------------------


def _prepare(settings: Train, say: Say) -> Job:
    """All that a training needs; what can be refused is, before work."""
    learns = settings.loss.learns_reward
    policy = load_policy(settings, train_split(settings), None, say, verified=not settings.reward and not learns)
    policy = policy.for_task(learning.demonstrations(policy.task, say)) if learns else policy
    judge, eval_judge = learning.judges(settings, policy, say) if learns else _judges(settings, policy, say)
    if policy.options.engine == "openai":
        raise UserError("--engine openai: a server does not load the policies that training makes; use another engine")
    if eval_judge is None:
        settings, held_out, test = learning.unmeasured(settings, policy, say), None, None
    else:
        settings = held_out_problems.sized(policy, settings, say)
        held_out, test, policy = held_out_problems.problems(policy, settings, say)
        held_out = policy.fitting(held_out, say)
        test = test and policy.fitting(test, say)
    _check_prompts(settings, policy)
    base = learning.base(settings, policy) if learns else None
    out = default_out(settings, settings.objective, policy.name, policy.task.name)
    truth = of_truth.judge(policy.task, (held_out, test), eval_judge, say)
    settings = settings.of_model(policy.entry, policy.positions)
    return Job(settings, policy, held_out, test, judge, eval_judge, out, say, reward_base=base, truth=truth)


def _judges(settings: Train, policy: Policy, say: Say) -> tuple[judging.Judge, judging.Judge]:
    """Who judges the draws that lists are cut from, and who the held-out ones."""
    given, task, devices = settings.reward, policy.task, policy.devices
    judge = (
        judging.of_reward(given, task.instruction, say=say, devices=devices) if given else judging.of_task(task, say)
    )
    if not settings.eval_reward:
        return judge, judge
    return judge, judging.of_reward(settings.eval_reward, task.instruction, "--eval-reward", say, devices)


def _check(settings: Train) -> None:
    """Raises UserError for settings that are wrong whatever the model and the data are."""
    settings.check()
    exported.forms(settings.export)
    at_least(0, patience=settings.patience, test_limit=settings.test_limit)
    at_least(1, eval_n=settings.eval_n, eval_limit=settings.eval_limit, max_tokens=settings.max_tokens)
    for value in settings.eval_temperature:
        heat(eval_temperature=value)
    parameters = settings.parameters
    if settings.reward and settings.loss.learns_reward:
        raise UserError(f"--reward: objective {settings.objective!r} learns its own; --reward-args says what from")
    if settings.reward and settings.verifier:
        raise UserError("--verifier and --reward: one of them judges; give one")
    if settings.reward and not settings.list_file and parameters.get("weighted") and parameters["gains"] == "grades":
        raise UserError(
            "weighted LambdaRank on rewards, which may be negative, needs grades of a known scale: add "
            '"gains": "normalised" or "gains": "ranked" to --objective-args'
        )
    if settings.reward and settings.tier in FOREIGN:
        raise UserError(f"--tier {settings.tier} needs a verifier, which tells false negatives; leave --reward out")


def _check_prompts(settings: Train, policy: Policy) -> None:
    """Raises UserError, naming everything that is wrong, for settings that the prompts do not allow."""
    wrong, task = [], policy.task
    if settings.source != "own" and "solution" not in task.topics.columns:
        wrong.append(f"--positives-from {settings.source}: {task.name} has no solutions; use own")
    present = len(task.topics)
    if settings.prompts > present + policy.left_out.get(f"{task.name} {task.split}", 0):
        wrong.append(f"--prompts {settings.prompts}: the split {task.split!r} of {task.name} has only {present}")
    again = settings.same_prompts or settings.prompts * settings.iterations > present
    if settings.memory != "current" and not again:
        wrong.append(
            f"--memory {settings.memory}: no prompt comes twice in {settings.iterations} iterations of "
            f"{settings.prompts} prompts, so there is nothing to remember; add --same-prompts"
        )
    if wrong:
        raise UserError("; and ".join(wrong))


def _identity(job: Job) -> dict:
    """The settings that make the result what it is, with what the model and the data decide of them."""
    from irlens.train import list_files

    settings = job.settings
    resolved = {"base": job.policy.name, "parameters": settings.parameters, "trainer_args": settings.arguments}
    resolved["save_dtype"] = saved_as(settings.save_dtype, job.policy.folder)
    splits = {"eval_split": job.held_out and job.held_out.split, "test_split": job.test and job.test.split}
    if job.lists is not None:
        resolved["list_file"] = list_files.digest(job.lists)
    kept = identity(settings, job.policy, **splits, **resolved)
    judges = {"reward_files": job.judge, "eval_reward_files": job.eval_judge}
    if job.reward_base is not None:
        kept["reward_args"] = asdict(settings.learning) | {"model": job.reward_base.name}
    return kept | {name: judge.identity for name, judge in judges.items() if judge and judge.identity}


# -- after it ------------------------------------------------------------------------------------------------------


def _test(job: Job, ends: dict[int, Path]) -> tuple[dict[int, pd.DataFrame], int]:
    """(values per test problem of the policies in `ends` (number → weights), tokens generated); writes test.csv."""
    done = {s: held_out_problems.measure(job, weights, s, "test") for s, weights in ends.items()}
    files.write_csv(concat([table.assign(iteration=s) for s, (table, _, _) in done.items()]), job.out / "test.csv")
    return {s: values for s, (_, values, _) in done.items()}, sum(tokens for _, _, tokens in done.values())


def _write(job: Job, results: pd.DataFrame, tests: pd.DataFrame, chosen: int, policies: list[Path]) -> None:
    """results.csv, tests.csv, chosen.json, and the figures; of a reward model's measures the one that decides is drawn, and
    the truth where it is known."""
    out, settings = job.out, job.settings
    files.write_csv(results, out / "results.csv")
    files.write_csv(tests, out / "tests.csv")
    files.write_text(json.dumps({"iteration": chosen, "model": str(policies[chosen])}) + "\n", out / "chosen.json")
    decides, by_reward = held_out_problems.measures_of(settings)[0], job.eval_judge.is_reward
    shown = (decides, of_truth.TRUTH)
    drawn = results[results["curve"].str.startswith(shown)] if by_reward else results
    label = " and ".join(shown if job.truth is not None else shown[:1]) if by_reward else "Pass@N"
    title = f"{settings.objective} on {job.policy.task.name}"
    plot_iterations(drawn, out / "training", title, label)
    plot_diagnostics(out, len(policies) - 1)


def _facts(job: Job, iterations: int) -> dict:
    """What the manifest says beside the settings."""
    from irlens.tasks.contamination import overlap

    policy, measured = job.policy, [task for task in (job.held_out, job.test) if task is not None]
    found = {task.split: overlap(policy.task.topics, task.topics) for task in measured}
    return {**policy.facts(job.out), **_account(job.out, iterations), "contamination": found}


def _account(out: Path, iterations: int) -> dict:
    """Tokens and lists over all iterations, and how many prompts gave no list for which reason."""
    import pandas as pd

    folders = [out / f"iteration-{s}" for s in range(1, iterations + 1)]
    drawn = [pd.read_parquet(path) for f in folders if (path := f / "run.parquet").is_file()]  # none with --lists
    trained = [json.loads((f / "account.json").read_text(encoding="utf-8")) for f in folders]
    return {
        "tokens_generated": int(sum(run["n_tokens"].sum() for run in drawn)),
        "reward_calls": sum(map(len, drawn)),
        **learning.account(folders),
        "truncated_by_reward": int(sum(run["truncated"].sum() for run in drawn if "truncated" in run.columns)),
        "tokens_trained": sum(t["tokens_trained"] for t in trained),
        "lists_trained": sum(t["lists"] for t in trained),
        "lists_too_long": sum(t["too_long"] for t in trained),
        **{
            name: sum(t.get(name, 0) for t in trained)  # iterations of an older version do not tell
            for name in ("responses_as_drawn", "responses_tokenised", "drawn_that_retokenise_otherwise")
        },
        "prompts_without_list": dict(sum((Counter(t.get("prompts_without_list")) for t in trained), Counter())),
    }
