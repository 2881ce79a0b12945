"""Stage `recall`: a retriever on a corpus, Recall@N."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from irlens import catalog
from irlens.errors import UserError, did_you_mean
from irlens.folder import OutputFolder
from irlens.settings import Recall
from irlens.stages.common import Say, concat, default_out

if TYPE_CHECKING:
    import pandas as pd


def recall(settings: Recall, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Retrieves and measures Recall@N by gold passage and, where the questions have answers, by answer string.

    Recall@N is DPR's: the share of questions with a hit among the first N, ir_measures' Success@N. The folder holds
    run.parquet, the qrels of each judgement, results.csv, trec/, recall.{png,pdf,csv} and the manifest.
    """
    from irlens import measures, plots, tables, tasks

    if settings.retriever not in catalog.RETRIEVERS:
        raise UserError(
            f"unknown retriever {settings.retriever!r}; {did_you_mean(settings.retriever, catalog.RETRIEVERS)}"
        )
    if not settings.at or min(settings.at) < 1:
        raise UserError("--at: give at least one N, each at least 1")
    task = tasks.load(settings.dataset, settings.split, settings.limit)
    if task.corpus is None:
        raise UserError(f"data set {task.name!r} has no corpus to retrieve from; use facts or a BEIR folder")
    from irlens.retrieve.lexical import BM25
    from irlens.tasks.beir import answer_qrels

    at = sorted(set(settings.at))
    if at[-1] > len(task.corpus):
        raise UserError(f"--at {at[-1]} is larger than the corpus of {len(task.corpus)} passages")
    out = default_out(settings, settings.retriever, task.name)
    kept = {"retriever": settings.retriever, "dataset": task.name, "split": task.split, "data": task.revision}
    with OutputFolder(out, "recall", kept | {"limit": settings.limit, "at": at}) as folder:
        say(f"indexing {len(task.corpus):,} passages, searching for {len(task.topics):,} questions")
        run = BM25(task.corpus).search(task.topics, k=at[-1])
        judged = {"gold passage": task.qrels[task.qrels["query_id"].isin(task.topics["query_id"])]}
        if "answers" in task.topics.columns:
            judged["answer string"] = answer_qrels(run, task.topics, task.corpus)
        results = []
        for judgement, qrels in judged.items():
            found, _ = measures.evaluate(run, qrels, [f"Success@{N}" for N in at])
            results.append(found.assign(run=f"{settings.retriever}, {judgement}"))
            name = f"qrels-{judgement.split()[0]}"
            tables.write_parquet(qrels, out / f"{name}.parquet")
            tables.write_trec_qrels(qrels, out / "trec" / f"{name}.txt")
        table = concat(results)
        tables.write_parquet(run, out / "run.parquet")
        tables.write_trec_run(run, out / "trec" / f"{settings.retriever}.run")
        tables.write_csv(table, out / "results.csv")
        drawn = table.assign(curve=table["run"], x=table["cutoff"])[["curve", "x", "value", "low", "high", "n"]]
        labels = {"x_label": "N (passages per question)", "y_label": "Recall@N"}
        plots.curves(drawn, out / "recall", title=f"Recall@N on {task.name}", log_x=True, **labels)
        folder.note(data_revision=task.revision, questions=len(task.topics), passages=len(task.corpus))
    return out, table
