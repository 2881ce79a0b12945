"""Stage `passk`: draws, verdicts, Pass@N."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import at_least, cutoffs
from irlens.commands.evaluate import judgements_of, plot_passk
from irlens.commands.folder import OutputFolder
from irlens.commands.rerank import unreadable_in_words
from irlens.commands.runs import data_of
from irlens.commands.settings import PassK, heat
from irlens.retrieve.policy import Policy, Say, default_out, identity, load_policy

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def passk(settings: PassK, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Draws, verifies and measures; returns the folder and the results (run, measure, cutoff, value, low, high, n).

    The folder holds run.parquet, qrels.parquet, results.csv, per_query.parquet, trec/, passk.{png,pdf,csv} and the
    manifest. With a larger `n` than before it keeps the draws and makes the rest.
    """
    at_least(1, n=settings.n, max_tokens=settings.max_tokens)
    for temperature in settings.temperature:
        heat(temperature=temperature)
    if not settings.temperature or len(set(settings.temperature)) < len(settings.temperature):
        raise UserError("--temperature: give at least one, each once")
    at = cutoffs(settings.n, settings.at)
    policy = load_policy(settings, settings.split, settings.limit, say)
    task = policy.task
    from irlens import tables
    from irlens.measure import measures
    from irlens.rerank.verify import verify

    out = default_out(settings, policy.model.name, task.name)
    with OutputFolder(out, "passk", identity(settings, policy), growing=("n",)) as folder:
        run = policy.draw(
            policy.prompts(task), settings.n, settings.temperature, settings.seed_of("draws"), out / "shards", say
        )
        qrels = verify(run, task.topics, task.verifier)
        unread, without = _without_answer(run, qrels, policy, settings.thought, say)
        results, per_query = measures.evaluate(run, qrels, [f"Pass@{N}" for N in at])
        for name, table in (("run", run), ("qrels", qrels.assign(unreadable=unread)), ("per_query", per_query)):
            files.write_parquet(table, out / f"{name}.parquet")
        files.write_csv(results, out / "results.csv")
        for tag, rows in run.groupby("tag"):
            name = str(tag).split()[-1]
            tables.write_trec_run(rows, out / "trec" / f"{name}.run")
            tables.write_trec_qrels(judgements_of(rows, qrels), out / "trec" / f"{name}.qrels")
        plot_passk(results, out / "passk", f"Pass@N of {policy.model.name} on {task.name}")
        folder.note(
            **policy.facts(out),
            data=data_of(settings.dataset or policy.model.dataset, task.split),
            prompts=len(task.topics),
            draws=len(run),
            reward_calls=len(run),
            tokens_generated=int(run["n_tokens"].sum()),
            unfinished=int((run["finish_reason"] == "length").sum()),
            **without,
            without_logprob=int(run["logprob"].isna().sum()),
            without_tokens=int(run["tokens"].isna().sum()),
        )
    return out, results


def _without_answer(
    run: pd.DataFrame, qrels: pd.DataFrame, policy: Policy, option: str | None, say: Say
) -> tuple[np.ndarray, dict]:
    """Which responses finished without an answer that can be read, and how many those are and never closed their thought.

    Both are said where there are any.
    """
    from irlens.models import thoughts
    from irlens.rerank.verify import unreadable

    never, unread = int(thoughts.unclosed(run, policy.thought).sum()), unreadable(run, qrels, policy.task.extract)
    if never:
        say(thoughts.in_words(never, len(run)))
    if line := thoughts.suspicion(run, policy.thought, option):
        say(line)
    if unread.any():
        say(unreadable_in_words(int(unread.sum()), len(run)))
    return unread, {"unclosed_thoughts": never, "unreadable": int(unread.sum())}
