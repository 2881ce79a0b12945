"""Stage `passk`: draws, verdicts, Pass@N."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.options import cutoffs
from irlens.base.untrusted import file_names, last_word
from irlens.commands import finished
from irlens.commands.drawing import check_draws, counts, default_out, identity, load_policy, store_of
from irlens.commands.evaluate import judgements_of, plot_passk
from irlens.commands.folder import OutputFolder
from irlens.commands.rerank import unreadable_in_words
from irlens.commands.runs import data_of
from irlens.commands.settings import PassK
from irlens.retrieve.policy import Policy, Say

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def passk(settings: PassK, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Draws, verifies and measures; returns the folder and the results (run, measure, cutoff, value, low, high, n).

    The folder holds run.parquet, qrels.parquet, results.csv, per_query.parquet, trec/, passk.{png,pdf,csv} and the
    manifest. With a larger `n` than before it keeps the draws and makes the rest.
    """
    check_draws(settings)
    at = cutoffs(settings.n, settings.at)
    policy = load_policy(settings, settings.split, settings.limit, say)
    from irlens.measure import measures
    from irlens.rerank.verify import not_judged, verify
    from irlens.retrieve.sample import Draws

    task = policy.task
    out = default_out(settings, policy.name, task.name)
    kept = {"store": store_of(settings, out), "say": say, "asked": settings}
    with OutputFolder(out, "passk", identity(settings, policy), ("n",), **kept) as folder:
        if folder.finished:
            return out, finished.table(out / "results.csv")
        draws = Draws(settings.n, settings.temperature, settings.seed_of("draws"))
        run = policy.draw(policy.prompts(task), draws, out / "shards", say)
        qrels = verify(run, task.topics, task.verifier)
        unread, without = _without_answer(run, qrels, policy, settings.thought, say)
        results, per_query = measures.evaluate(run, qrels, [f"Pass@{N}" for N in at])
        _write(run, qrels.assign(unreadable=unread, not_judged=not_judged(qrels)), per_query, out)
        files.write_csv(results, out / "results.csv")
        plot_passk(results, out / "passk", f"Pass@N of {policy.name} on {task.name}")
        data = data_of(settings.dataset or policy.entry.dataset, task.split, settings.columns, settings.verifier)
        folder.note(
            **policy.facts(out), data=data, prompts=len(task.topics), reward_calls=len(run), **counts(run), **without
        )
    return out, results


def _write(run: pd.DataFrame, qrels: pd.DataFrame, per_query: pd.DataFrame, out: Path) -> None:
    """The tables, and a TREC run and qrels per temperature."""
    from irlens import tables

    for name, table in (("run", run), ("qrels", qrels), ("per_query", per_query)):
        files.write_parquet(table, out / f"{name}.parquet")
    names = file_names(run["tag"].astype(str), last_word)
    for tag, rows in run.groupby("tag"):
        name = names[str(tag)]
        tables.write_trec_run(rows, out / "trec" / f"{name}.run")
        tables.write_trec_qrels(judgements_of(rows, qrels), out / "trec" / f"{name}.qrels")


def _without_answer(
    run: pd.DataFrame, qrels: pd.DataFrame, policy: Policy, option: str | None, say: Say
) -> tuple[np.ndarray, dict]:
    """Which responses finished without an answer that can be read, and how many those are and never closed their thought.

    Both are said where there are any.
    """
    from irlens.models import thoughts
    from irlens.rerank.verify import not_judged, not_judged_in_words, unreadable

    never, unread = int(thoughts.unclosed(run, policy.thought).sum()), unreadable(run, qrels, policy.task.extract)
    if never:
        say(thoughts.in_words(never, len(run)))
    if line := thoughts.suspicion(run, policy.thought, option):
        say(line)
    if unread.any():
        say(unreadable_in_words(int(unread.sum()), len(run)))
    if line := not_judged_in_words(qrels):
        say(line)
    late = int(not_judged(qrels).sum())
    return unread, {"unclosed_thoughts": never, "unreadable": int(unread.sum()), "not_judged": late}
