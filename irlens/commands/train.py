"""Stage `train`: LarPO iterations, chosen on validation problems, measured on test problems."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import at_least, one_of, parse_json, positive
from irlens.commands import validation as held_out_problems
from irlens.commands.drawing import default_out, identity, load_policy, train_split
from irlens.commands.evaluate import plot_diagnostics, plot_iterations
from irlens.commands.folder import OutputFolder
from irlens.commands.settings import Train, heat
from irlens.rerank import judges as judging
from irlens.retrieve.policy import Policy, Say, concat

if TYPE_CHECKING:
    import pandas as pd

    from irlens.tasks.contract import Task
    from irlens.train.larpo import Settings, World

FOREIGN = ("easiest", "easy")  # tiers whose negatives answer another prompt


def train(settings: Train, say: Say = print) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """LarPO (Algorithm 1), measured on validation problems after every iteration and on test problems at the end.

    Returns the folder, the validation results (curve, x = iteration, value, low, high, n) and the paired tests of the
    chosen policy against the start on test problems; no tests where none were wanted, for validation problems have chosen.
    The chosen policy is the best on validation (Pass@1 at the first evaluation temperature), or the last where
    the problems in between are test problems: nothing is chosen by those. The folder holds iteration-s/ (draws, run,
    qrels, lists, log, model), evaluation/, results.csv, test.csv, tests.csv, training.{png,pdf,csv},
    diagnostics.{png,pdf,csv}, chosen.json and the manifest.
    """
    from irlens.tasks.contamination import overlap
    from irlens.train import larpo

    follows = int(os.environ.get("RANK", 0)) > 0  # accelerate launch: the first process does all but the training
    plan_of, policy, held_out, test, judges = _prepare(settings, _silent if follows else say)
    plan = plan_of(policy)
    out = default_out(settings, settings.objective, policy.name, policy.task.name)
    if follows:
        larpo.larpo(
            policy.folder, plan, _world(policy, held_out, settings, judges, out, _silent), out, settings.lists_at_once
        )
        return out, *_nothing()
    test_split = test and test.split
    kept = identity(settings, policy, eval_split=held_out.split, test_split=test_split, **_decisive(plan))
    kept |= {
        name: judge.identity for name, judge in zip(("reward_files", "eval_reward_files"), judges) if judge.identity
    }
    with OutputFolder(out, "train", kept) as folder:
        world = _world(policy, held_out, settings, judges, out, say)
        policies = larpo.larpo(policy.folder, plan, world, out, settings.lists_at_once)
        results, values, tokens = held_out_problems.validation(len(policies), out)
        chosen = held_out_problems.chosen(len(policies), settings, out)
        if test is not None:
            ends = {0: policies[0], chosen: policies[chosen]}
            done = {
                s: held_out_problems.measure(weights, s, policy, test, settings, judges[1], out, "test", say)
                for s, weights in ends.items()
            }
            files.write_csv(concat([r.assign(iteration=s) for s, (r, _, _) in done.items()]), out / "test.csv")
            values, tokens = {s: v for s, (_, v, _) in done.items()}, tokens + sum(t for _, _, t in done.values())
        tests = held_out_problems.tests(values[0], values[chosen], settings.seed_of("bootstrap"))
        if test is None and held_out_problems.chooses(settings):
            tests = tests.iloc[:0]
            say("--test-limit 0: no test of the chosen policy, as the validation problems are those that chose it")
        files.write_csv(results, out / "results.csv")
        files.write_csv(tests, out / "tests.csv")
        files.write_text(json.dumps({"iteration": chosen, "model": str(policies[chosen])}) + "\n", out / "chosen.json")
        _draw(results, settings, judges[1].is_reward, policy.task.name, out, len(policies) - 1)
        say(f"chosen: iteration {chosen} of {len(policies) - 1}, by {held_out_problems.why(held_out, settings)}")
        folder.note(
            **policy.facts(out),
            **_account(out, len(policies) - 1),
            chosen_iteration=chosen,
            contamination={t.split: overlap(policy.task.topics, t.topics) for t in (held_out, test) if t is not None},
            tokens_generated_evaluation=tokens,
        )
    return out, results, tests


def _draw(results: pd.DataFrame, settings: Train, by_reward: bool, name: str, out: Path, iterations: int) -> None:
    """training and diagnostics (.png, .pdf, .csv); of a reward model's measures only the one that decides is drawn."""
    decides = held_out_problems.measures_of(settings)[0]
    drawn = results[results["curve"].str.startswith(decides)] if by_reward else results
    plot_iterations(drawn, out / "training", f"{settings.objective} on {name}", decides if by_reward else "Pass@N")
    plot_diagnostics(out, iterations)


def _decisive(plan: Settings) -> dict:
    """What of the plan makes the result what it is."""
    return {name: value for name, value in asdict(plan).items() if name != "pack_up_to"}


def _silent(line: str) -> None:
    """What the other processes of a distributed run have to say: the first one says it."""


def _nothing() -> tuple[pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    return pd.DataFrame(), pd.DataFrame()


def _prepare(settings: Train, say: Say):
    """(plan of a policy, policy, validation task, test task or None, judges); what can be refused is, before work."""
    from irlens.train.losses import ranking as objectives

    objective = objectives.get(settings.objective)
    _check(settings)
    parameters = parse_json(settings.objective_args, "--objective-args")
    for name in ("beta", "nll"):
        if name in parameters and getattr(settings, name) is not None:
            raise UserError(f"--{name} and --objective-args: {name} is given twice")
        parameters.setdefault(name, getattr(settings, name))
    resolved = objective.resolve(**parameters)
    if settings.reward and resolved.get("weighted") and resolved["gains"] == "grades":
        raise UserError(
            "weighted LambdaRank on rewards, which may be negative, needs grades of a known scale: add "
            '"gains": "normalised" or "gains": "ranked" to --objective-args'
        )
    policy = load_policy(settings, train_split(settings), None, say, verified=not settings.reward)
    judges = _judges(settings, policy.task, say)
    _check_prompts(settings, policy)
    if policy.options.engine == "openai":
        raise UserError("--engine openai: a server does not load the policies that training makes; use another engine")
    held_out, test, policy = held_out_problems.problems(policy, settings, say)
    _check_prompts(settings, policy)
    held_out = policy.fitting(held_out, say)
    test = test and policy.fitting(test, say)
    if objective.model_beta and parameters["beta"] is None:
        resolved["beta"] = policy.entry.beta
    return lambda policy: _plan(settings, policy, resolved), policy, held_out, test, judges


def _judges(settings: Train, task: Task, say: Say) -> tuple[judging.Judge, judging.Judge]:
    """Who judges the draws that lists are cut from, and who the held-out ones."""
    given = settings.reward
    judge = judging.of_reward(given, task.instruction, say=say) if given else judging.of_task(task)
    if not settings.eval_reward:
        return judge, judge
    return judge, judging.of_reward(settings.eval_reward, task.instruction, "--eval-reward", say)


def _check(settings: Train) -> None:
    from irlens.train.adapters import check_adapters
    from irlens.train.larpo import MEMORIES
    from irlens.train.trainer import check_arguments

    at_least(1, iterations=settings.iterations, prompts=settings.prompts, lists=settings.lists, epochs=settings.epochs)
    at_least(1, positives=settings.positives, batch_lists=settings.batch_lists, lora_rank=settings.lora_rank)
    at_least(0, negatives=settings.negatives, patience=settings.patience, test_limit=settings.test_limit)
    at_least(1, n=settings.n, eval_n=settings.eval_n, eval_limit=settings.eval_limit, max_length=settings.max_length)
    at_least(1, max_tokens=settings.max_tokens, lists_at_once=settings.lists_at_once)
    at_least(2, list_size=settings.list_size)
    at_least(0, pack_up_to=settings.pack_up_to)
    for name in ("temperature", "eval_temperature"):
        for value in getattr(settings, name):
            heat(**{name: value})
    positive(learning_rate=settings.learning_rate)
    one_of(MEMORIES, memory=settings.memory)
    one_of(("own", "gold", "both"), positives_from=settings.positives_from)
    list_shape(settings)
    check_arguments(parse_json(settings.trainer_args, "--trainer-args"))
    check_adapters(settings.lora_rank, settings.quantize)
    one_of(("own", *FOREIGN), tier=settings.tier)
    if settings.reward and settings.tier in FOREIGN:
        raise UserError(f"--tier {settings.tier} needs a verifier, which tells false negatives; leave --reward out")
    drawn = sum(settings.n if temperature else 1 for temperature in settings.temperature)  # greedy draws are all equal
    if drawn < 2 and settings.positives_from != "gold":
        how = "-n 1 at one temperature" if settings.temperature[0] else "temperature 0 (greedy)"
        raise UserError(f"{how} gives one candidate per prompt, and nothing to rank; draw at least 2")


def _check_prompts(settings: Train, policy: Policy) -> None:
    if (source := _positives(settings)[0]) != "own" and "solution" not in policy.task.topics.columns:
        raise UserError(f"--positives-from {source}: {policy.task.name} has no solutions; use own")
    present = len(policy.task.topics)
    if settings.prompts > present + policy.left_out.get(f"{policy.task.name} {policy.task.split}", 0):
        raise UserError(
            f"--prompts {settings.prompts}: the split {policy.task.split!r} of {policy.task.name} has only {present}"
        )
    again = settings.same_prompts or settings.prompts * settings.iterations > present
    if settings.memory != "current" and not again:
        raise UserError(
            f"--memory {settings.memory}: no prompt comes twice in {settings.iterations} iterations of "
            f"{settings.prompts} prompts, so there is nothing to remember; add --same-prompts"
        )


def _plan(settings: Train, policy: Policy, parameters: dict) -> Settings:
    from irlens.train.larpo import Settings

    return Settings(
        objective=settings.objective,
        iterations=settings.iterations,
        memory=settings.memory,
        learning_rate=policy.entry.learning_rate if settings.learning_rate is None else settings.learning_rate,
        epochs=settings.epochs,
        batch_lists=settings.batch_lists,
        seed=settings.seed,
        base=policy.name,
        parameters=parameters,
        length_normalised=settings.length_normalised,
        max_length=policy.positions if settings.max_length is None else settings.max_length,
        pack_up_to=settings.pack_up_to,
        patience=settings.patience,
        lora_rank=settings.lora_rank,
        quantize=settings.quantize,
        trainer_args=parse_json(settings.trainer_args, "--trainer-args") | {"report_to": settings.report_to},
    )


def list_shape(settings: Train) -> tuple[int, int]:
    """(positives, negatives) of a list: as given, or the objective's own; --list-size sets what remains negative."""
    from irlens.train.losses import ranking as objectives

    objective = objectives.get(settings.objective)
    positives = objective.positives if settings.positives is None else settings.positives
    negatives = objective.negatives if settings.negatives is None else settings.negatives
    if settings.list_size is not None:
        if settings.negatives is not None:
            raise UserError("--list-size and --negatives say the same twice; give one of them")
        negatives = settings.list_size - positives
    if negatives < 1 and objective.needs_negative:
        raise UserError(f"objective {objective.name!r} needs a negative in every list, got {negatives}")
    return positives, negatives


def _positives(settings: Train) -> tuple[str, bool]:
    """(where positives come from, whether every own draw is a negative of the gold solution)."""
    from irlens.train.losses import ranking as objectives

    demonstrations = objectives.get(settings.objective).gold
    return settings.positives_from or ("gold" if demonstrations else "own"), demonstrations


def _foreign_lists(run, qrels, some, s, weights, here, policy, settings, sample, say):
    """Lists whose negatives answer another prompt: of this data set (easy), or of another one (easiest); and the prompts
    without one."""
    from irlens import tasks
    from irlens.negatives import mine
    from irlens.negatives.false_negatives import false_negatives
    from irlens.retrieve.sample import Draws

    task, pool = policy.task, run
    if settings.tier == "easiest":
        other = policy.fitting(tasks.load(task.unrelated, None, len(some)), say)
        asked = policy.prompts(other)
        seed, enough = settings.seed_of("unrelated draws", s), -(-2 * settings.lists * len(some) // len(asked))
        label = f"iteration {s}, unrelated"
        draws = Draws(enough, settings.temperature[:1], seed)
        pool = policy.at(weights).draw(asked, draws, here / "draws-unrelated", say, label)
    answers = dict(zip(some["query_id"], some["answers"]))
    positives = mine.positives_from(some, run, qrels, _positives(settings)[0])
    positives = positives.drop_duplicates("query_id", ignore_index=True)

    def screen(rows: pd.DataFrame) -> pd.Series:
        def accepts(query_id: str, text: str) -> bool:
            return any(task.verifier(text, gold) for gold in answers[query_id])

        return false_negatives(rows, positives, accepts=accepts)

    mined = mine.mine_negatives(
        some, {settings.tier: pool}, positives, screen, mine.Rules(settings.lists, settings.seed_of("mining", s))
    )
    return mine.as_pairs(mined.lists).assign(iteration=s), mined.skipped


def _world(policy: Policy, held_out: Task, settings: Train, judges: tuple, out: Path, say: Say) -> World:
    """Algorithm 1's surroundings: iteration s takes the next `prompts` training problems, starting over at the end; all
    of them, where too long ones are left out and so many do not remain."""
    from irlens.retrieve.sample import Draws
    from irlens.train.larpo import World

    task = policy.task
    count = min(settings.prompts, len(task.topics))
    positives, negatives = list_shape(settings)

    def topics(s: int) -> pd.DataFrame:
        first = 0 if settings.same_prompts else (s - 1) * count
        rows = [i % len(task.topics) for i in range(first, first + count)]
        return task.topics.iloc[rows].reset_index(drop=True)

    def sample(weights: Path, some: pd.DataFrame, s: int, shards: Path) -> pd.DataFrame:
        asked = policy.prompts(task, some)
        seed = settings.seed_of("draws", s)  # a policy that hardly changed still draws anew
        draws = Draws(settings.n, settings.temperature, seed)
        return policy.at(weights).draw(asked, draws, shards, say, f"iteration {s}")

    def cut(run, qrels, some: pd.DataFrame, s: int, weights: Path, here: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
        from irlens.negatives.lists import cut_lists, without_list

        if settings.tier in FOREIGN:
            return _foreign_lists(run, qrels, some, s, weights, here, policy, settings, sample, say)
        source, self_play = _positives(settings)
        more = {"lists": settings.lists, "iteration": s, "seed": settings.seed_of("lists", s)}
        how = {"positives_from": source, "by_reward": judges[0].is_reward}
        lists = cut_lists(run, qrels, some, positives, negatives, **more, **how, self_play=self_play)
        return lists, without_list(run, qrels, some, lists, negatives, **how)

    def prompt_ids(some: pd.DataFrame) -> dict[str, list[int]]:
        return policy.prompt_ids(task, some)

    def validate(weights: Path, s: int) -> float:
        results, _, _ = held_out_problems.measure(
            weights, s, policy, held_out, settings, judges[1], out, "evaluation", say
        )
        return float(results["value"].iloc[0])

    def judge(run: pd.DataFrame, some: pd.DataFrame, scores: Path) -> pd.DataFrame:
        return judges[0].grade(run.assign(tag=""), some, scores)  # all draws of a prompt compete, at any temperature

    return World(topics, sample, judge, cut, prompt_ids, validate, say, judges[0].relative)


def _account(out: Path, iterations: int) -> dict:
    """Tokens and lists over all iterations, and how many prompts gave no list for which reason."""
    import pandas as pd

    folders = [out / f"iteration-{s}" for s in range(1, iterations + 1)]
    drawn = [pd.read_parquet(f / "run.parquet", columns=["n_tokens"])["n_tokens"] for f in folders]
    graded = [pd.read_parquet(f / "qrels.parquet") for f in folders]
    trained = [json.loads((f / "account.json").read_text(encoding="utf-8")) for f in folders]
    return {
        "tokens_generated": int(sum(tokens.sum() for tokens in drawn)),
        "reward_calls": sum(map(len, drawn)),
        "truncated_by_reward": int(sum(q["truncated"].sum() for q in graded if "truncated" in q.columns)),
        "tokens_trained": sum(t["tokens_trained"] for t in trained),
        "lists_trained": sum(t["lists"] for t in trained),
        "lists_too_long": sum(t["too_long"] for t in trained),
        **{
            name: sum(t.get(name, 0) for t in trained)  # iterations of an older version do not tell
            for name in ("responses_as_drawn", "responses_tokenised", "drawn_that_retokenise_otherwise")
        },
        "prompts_without_list": dict(sum((Counter(t.get("prompts_without_list")) for t in trained), Counter())),
    }
