"""Stage `recall`: retrievers on a corpus, a second stage on top, Recall@N."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.files import digest
from irlens.base.options import at_least, identity
from irlens.commands.evaluate import DRAWN
from irlens.commands.folder import OutputFolder
from irlens.commands.index import Prepared, corpus_revision, default_index_folder, prepare, with_corpus
from irlens.commands.settings import Recall
from irlens.models import catalog
from irlens.retrieve.policy import Say, concat, default_out

if TYPE_CHECKING:
    import pandas as pd

    from irlens.tasks.contract import Task


def recall(settings: Recall, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Retrieves and measures Recall@N by gold passage and, where the questions have answers, by answer string.

    Recall@N is DPR's: the share of questions with a hit among the first N, ir_measures' Success@N. The folder holds
    run.parquet (a tag per retriever), the qrels of each judgement, results.csv, per_query.parquet, tests.csv (each
    retriever against the first, paired), trec/, recall.{png,pdf,csv} and the manifest.
    """
    from irlens import tasks

    names = settings.retriever.split(",")
    if len(set(names)) < len(names):
        raise UserError(f"--retriever {settings.retriever}: give each retriever once")
    if not settings.at or min(settings.at) < 1:
        raise UserError("--at: give at least one N, each at least 1")
    at_least(1, rerank_depth=settings.rerank_depth)
    for name in names:
        if name != "bm25":
            catalog.encoder(name)  # a misspelt name is refused before the data is read
    task = with_corpus(tasks.load(settings.dataset, settings.split, settings.limit))
    at = sorted(set(settings.at))
    if at[-1] > len(task.corpus):
        raise UserError(f"--at {at[-1]} is larger than the corpus of {len(task.corpus):,} passages")
    dense = {name: prepare(settings, task, name) for name in names if name != "bm25"}
    if settings.index_folder and len(dense) != 1:
        raise UserError("--index-folder: give one retriever with it, and no bm25 alone")
    reranker = _reranker(settings)
    labels = [dense[name].chosen.name if name in dense else name for name in names]
    out = default_out(settings, "+".join(labels), task.name)
    output = OutputFolder(out, "recall", _identity(settings, task, at, dense, reranker))
    output.check()
    places = {name: index_folder(settings, prepared, task, out) for name, prepared in dense.items()}
    for name, prepared in dense.items():  # a folder of another model is refused before anything is made
        prepared.output(settings, task, places[name]).check()
    with output as folder:
        depth = max(at[-1], settings.rerank_depth if reranker else 0)
        depth = min(depth, len(task.corpus))
        runs, facts, truncated = [], {}, {}
        for name, label in zip(names, labels):
            say(f"{label}: {len(task.corpus):,} passages, {len(task.topics):,} questions")
            if name == "bm25":
                run = _lexical(task, depth)
            else:
                run, facts[label] = _dense(dense[name], settings, task, depth, places[name], say)
            runs.append(run)
            if reranker:
                runs.append(_reranked(run, task, settings, reranker, out / "rerank" / label, say, truncated))
        table = _measure(runs, task, at, out, settings.seed_of("bootstrap"))
        run = concat([run[run["rank"] < at[-1]] for run in runs])
        files.write_parquet(run, out / "run.parquet")
        counts = {"questions": len(task.topics), "passages": len(task.corpus), "truncated": truncated}
        folder.note(data_revision=task.revision, indexes=facts, **counts)
    return out, table


def _identity(settings: Recall, task: Task, at: list[int], dense: dict[str, Prepared], reranker) -> dict:
    """The settings that make the result what it is; not where it goes nor how the work is batched."""
    resolved = {"dataset": task.name, "split": task.split, "data": task.revision, "at": at}
    digests = {name: prepared.digest for name, prepared in dense.items()}
    if reranker:
        digests[settings.reranker] = digest(reranker)
    return identity(settings, **resolved, digests=digests)


def _lexical(task: Task, k: int) -> pd.DataFrame:
    import pandas as pd

    from irlens.retrieve.lexical import BM25

    corpus = task.corpus if isinstance(task.corpus, pd.DataFrame) else task.corpus.frame()
    run = BM25(corpus).search(task.topics, k=k)
    if "title" in corpus.columns:
        run["title"] = run["doc_id"].map(dict(zip(corpus["doc_id"], corpus["title"])))
    return run


def _dense(
    prepared: Prepared, settings: Recall, task: Task, k: int, where: Path, say: Say
) -> tuple[pd.DataFrame, dict]:
    """The run of an encoder, over the index in its folder (made or continued there)."""
    from irlens.retrieve.index import to_run

    built = prepared.build(settings, task, where, say)
    try:
        queries = built.encoder.encode(task.topics["query"].tolist(), "query")
    finally:
        built.encoder.close()
    scores, rows = built.index.search(queries, k)
    run = to_run(task.topics, scores, rows, built.index.vectors, k, prepared.chosen.name)
    return run, {"folder": str(built.folder), "corpus": corpus_revision(task), **built.facts}


def index_folder(settings: Recall, prepared: Prepared, task: Task, out: Path) -> Path:
    """The folder given, or one beside the output."""
    return Path(settings.index_folder or default_index_folder(out.parent, prepared.chosen.name, task.name))


def _reranker(settings: Recall) -> Path | None:
    """The files of the second stage's model."""
    if settings.reranker is None:
        return None
    folder = Path(settings.reranker).expanduser()
    if folder.is_dir():
        return folder
    if settings.reranker.count("/") != 1 or settings.reranker.startswith((".", "/", "~")):
        raise UserError(
            f"--reranker {settings.reranker}: no such folder, and not a hub id such as cross-encoder/ms-marco-MiniLM-L6-v2"
        )
    return catalog.fetch(catalog.Model(settings.reranker, settings.reranker))


def _reranked(
    run: pd.DataFrame, task: Task, settings: Recall, model: Path, shards: Path, say: Say, truncated: dict
) -> pd.DataFrame:
    """The second stage's run; how many pairs it read cut goes to `truncated`, by its tag."""
    from irlens.rerank.cross_encoder import load, rerank

    tag = f"{run['tag'].iloc[0]}, {model.name if Path(settings.reranker).is_dir() else settings.reranker.rpartition('/')[2]}"
    made_by, depth = {"kind": "cross-encoder", "model": digest(model)}, settings.rerank_depth
    run, cut = rerank(lambda: load(model), run, task.topics, depth, shards, tag, made_by=made_by, say=say)
    truncated[tag] = cut
    if cut:
        say(f"{tag}: {cut:,} pairs were longer than the model reads, and were cut")
    return run


def _measure(runs: list[pd.DataFrame], task: Task, at: list[int], out: Path, seed: int) -> pd.DataFrame:
    """Writes qrels, results, tests, TREC files and the figure; returns the results."""
    from irlens import tables
    from irlens.measure import measures
    from irlens.measure.plots import curves as plots
    from irlens.tasks.beir import answer_qrels

    judged = {"gold passage": task.qrels[task.qrels["query_id"].isin(task.topics["query_id"])]}
    if "answers" in task.topics.columns:
        found = concat([run[["query_id", "doc_id", "text"]] for run in runs])
        answers = answer_qrels(found, task.topics, found.drop_duplicates("doc_id"))
        judged["answer string"] = concat([answers, _nothing_found(task.topics, answers)])
    results, per_query = [], []
    for judgement, qrels in judged.items():
        name = f"qrels-{judgement.split()[0]}"
        files.write_parquet(qrels, out / f"{name}.parquet")
        tables.write_trec_qrels(qrels, out / "trec" / f"{name}.txt")
        for run in runs:
            values, each = measures.evaluate(run, qrels, [f"Success@{N}" for N in at])
            label = f"{run['tag'].iloc[0]}, {judgement}"
            results.append(values.assign(run=label))
            per_query.append(each.assign(run=label, judgement=judgement))
    for run in runs:
        tables.write_trec_run(run, out / "trec" / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', run['tag'].iloc[0])}.run")
    table, each = concat(results), concat(per_query)
    files.write_csv(table, out / "results.csv")
    files.write_parquet(each, out / "per_query.parquet")
    if len(runs) > 1:
        files.write_csv(_tests(each, seed), out / "tests.csv")
    drawn = table.assign(curve=table["run"], x=table["cutoff"])[DRAWN]
    labels = {"x_label": "N (passages per question)", "y_label": "Recall@N"}
    plots.curves(drawn, out / "recall", title=f"Recall@N on {task.name}", log_x=True, **labels)
    return table


def _nothing_found(topics: pd.DataFrame, qrels: pd.DataFrame) -> pd.DataFrame:
    """A judgement for each question for which nothing was retrieved, so that it counts as a miss, not as absent."""
    missing = topics[["query_id"]][~topics["query_id"].isin(qrels["query_id"])]
    return missing.assign(doc_id="(nothing-retrieved)", relevance=0)


def _tests(each: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Every run against the first of its judgement at every N, paired over questions, with Holm's correction over all."""
    import pandas as pd

    from irlens.measure import stats

    rows = []
    for (_, measure), group in each.groupby(["judgement", "measure"], sort=False):
        values = {
            run: part.sort_values("query_id")["value"].to_numpy() for run, part in group.groupby("run", sort=False)
        }
        first, *others = values
        for other in others:
            test = stats.paired_test(values[first], values[other], seed=seed)
            rows.append({"measure": measure, "before": first, "after": other, **asdict(test)})
    tests = pd.DataFrame(rows)
    return tests.assign(p_holm=stats.holm(tests["p"]))
