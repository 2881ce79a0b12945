"""Stage `sample`: draws of any prompts, for rerankers, mining and training to go on from; nothing judges them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.untrusted import file_names, last_word
from irlens.commands import finished
from irlens.commands.drawing import check_draws, counts, default_out, identity, load_policy, store_of
from irlens.commands.folder import OutputFolder
from irlens.commands.runs import data_of
from irlens.commands.settings import Sample
from irlens.retrieve.policy import Policy, Say

if TYPE_CHECKING:
    import pandas as pd


def sample(settings: Sample, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Draws; returns the folder and what was drawn per temperature (run, prompts, draws, distinct, tokens, unfinished).

    The folder holds run.parquet (whose columns query and messages say what was asked), draws.csv, trec/ and the
    manifest. With a larger `n` than before it keeps the draws and makes the rest.
    """
    check_draws(settings)
    return drawn(settings, load_policy(settings, settings.split, settings.limit, say, verified=False), say)


def drawn(settings: Sample, policy: Policy, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """`sample`, of a policy that is ready (`drawing.load_policy`)."""
    from irlens import tables
    from irlens.retrieve.sample import Draws

    task = policy.task
    out = default_out(settings, policy.name, task.name)
    kept = {"store": store_of(settings, out), "say": say, "asked": settings}
    with OutputFolder(out, "sample", identity(settings, policy), ("n",), **kept) as folder:
        if folder.finished:
            return out, finished.table(out / "draws.csv")
        draws = Draws(settings.n, settings.temperature, settings.seed_of("draws"))
        run = _with_prompts(policy.draw(policy.prompts(task), draws, out / "shards", say), policy)
        files.write_parquet(run, out / "run.parquet")
        names = file_names(run["tag"].astype(str), last_word)
        for tag, rows in run.groupby("tag"):
            tables.write_trec_run(rows, out / "trec" / f"{names[str(tag)]}.run")
        found = _drawn(run)
        files.write_csv(found, out / "draws.csv")
        data = data_of(settings.dataset or policy.entry.dataset, task.split, settings.columns)
        folder.note(**policy.facts(out), data=data, prompts=len(task.topics), **counts(run))
    return out, found


def _with_prompts(run: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """The run with the texts of its prompts, and with their messages where they are chats."""
    from irlens import tables

    topics = policy.task.topics
    run = tables.with_queries(run, topics)
    if "messages" not in topics.columns:
        return run
    return run.assign(messages=run["query_id"].map(dict(zip(topics["query_id"], topics["messages"]))))


def _drawn(run: pd.DataFrame) -> pd.DataFrame:
    """What was drawn at each temperature: tokens are the mean of a draw, distinct the texts that a prompt has on average."""
    import pandas as pd

    rows = []
    for tag, some in run.groupby("tag", sort=False):
        counted = {"prompts": some["query_id"].nunique(), "draws": len(some)}
        counted["distinct"] = some.groupby("query_id")["text"].nunique().mean()
        counted["tokens"] = some["n_tokens"].mean()
        rows.append({"run": tag, **counted, "unfinished": int((some["finish_reason"] == "length").sum())})
    return pd.DataFrame(rows)
