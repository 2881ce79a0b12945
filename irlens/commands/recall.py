"""Stage `recall`: retrievers on a corpus, a second stage on top, Recall@N."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.files import digest
from irlens.base.options import at_least, identity
from irlens.base.untrusted import file_name, file_names
from irlens.commands import finished
from irlens.commands.drawing import default_out, store_of
from irlens.commands.evaluate import DRAWN
from irlens.commands.folder import OutputFolder
from irlens.commands.index import Prepared, corpus_revision, default_index_folder, prepare, with_corpus
from irlens.commands.settings import Recall
from irlens.models import catalog, hub
from irlens.retrieve.policy import Say, concat

if TYPE_CHECKING:
    import pandas as pd

    from irlens.base.protocols import Retriever
    from irlens.tasks.contract import Task


def recall(settings: Recall, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Retrieves and measures Recall@N by gold passage and, where the questions have answers, by answer string.

    Recall@N is DPR's: the share of questions with a hit among the first N, ir_measures' Success@N. The folder holds
    run.parquet (a tag per retriever), the qrels of each judgement, results.csv, per_query.parquet, tests.csv (each
    retriever against the first, paired), trec/, recall.{png,pdf,csv} and the manifest.
    """
    stages, task = _stages(settings)
    at = sorted(set(settings.at))
    out = default_out(settings, "+".join(stages.labels), task.name)
    output = OutputFolder(
        out, "recall", _identity(settings, task, at, stages), store=store_of(settings, out), say=say, asked=settings
    )
    output.check()
    places = {name: index_folder(settings, prepared, task, out) for name, prepared in stages.dense.items()}
    for name, prepared in stages.dense.items():  # a folder of another model is refused before anything is made
        prepared.output(settings, task, places[name]).check()
    depth = min(max(at[-1], settings.rerank_depth if stages.reranker else 0), len(task.corpus))
    with output as folder:
        if folder.finished:
            return out, finished.table(out / "results.csv")
        runs, facts, truncated = [], {}, {}
        for name, label in zip(stages.names, stages.labels):
            say(f"{label}: {len(task.corpus):,} passages, {len(task.topics):,} questions")
            retriever, made = _retriever(name, stages, settings, task, places.get(name), say)
            facts |= {label: made} if made else {}
            runs.append(retriever(task.topics, depth).drop(columns="query"))
            if stages.reranker:
                again, cut = _reranked(runs[-1], task, settings, stages.reranker, out / "rerank" / label, say)
                truncated[again["tag"].iloc[0]] = cut
                runs.append(again)
        table = _measure(runs, task, at, out, settings.seed_of("bootstrap"))
        files.write_parquet(concat([run[run["rank"] < at[-1]] for run in runs]), out / "run.parquet")
        counts = {"questions": len(task.topics), "passages": len(task.corpus), "truncated": truncated}
        folder.note(data_revision=task.revision, indexes=facts, **counts)
    return out, table


@dataclass(frozen=True)
class Stages:
    """The retrievers by name, those with an encoder prepared, and the files of the second stage's model."""

    names: list[str]
    dense: dict[str, Prepared]
    reranker: Path | None

    @property
    def labels(self) -> list[str]:
        """What each retriever is called in the results."""
        return [self.dense[name].chosen.name if name in self.dense else name for name in self.names]


def _stages(settings: Recall) -> tuple[Stages, Task]:
    """Retrievers and task; what can be refused is, before anything is made."""
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
    if max(settings.at) > len(task.corpus):
        raise UserError(f"--at {max(settings.at)} is larger than the corpus of {len(task.corpus):,} passages")
    dense = {name: prepare(settings, task, name) for name in names if name != "bm25"}
    called = [dense[name].chosen.name if name in dense else name for name in names]
    if len({name.casefold() for name in called}) < len(called):
        raise UserError(f"--retriever {settings.retriever}: two have the same name; rename the folder of one")
    of_index = {name: value for name in ("index", "nprobe", "ef_search", "refine") if (value := getattr(settings, name)) is not None}  # fmt: skip
    if of_index and not dense:
        name, value = next(iter(of_index.items()))
        raise UserError(
            f"--{name.replace('_', '-')} {value!r}: of an index of vectors, and bm25 has none; leave it out"
        )
    if settings.index_folder and len(dense) != 1:
        raise UserError("--index-folder: give one retriever with it, and no bm25 alone")
    return Stages(names, dense, _reranker(settings)), task


def _identity(settings: Recall, task: Task, at: list[int], stages: Stages) -> dict:
    """The settings that make the result what it is; not where it goes nor how the work is batched."""
    resolved = {"dataset": task.name, "split": task.split, "data": task.revision, "at": at}
    digests = {name: prepared.digest for name, prepared in stages.dense.items()}
    if stages.reranker:
        digests[settings.reranker] = digest(stages.reranker)
    return identity(settings, **resolved, digests=digests)


def _retriever(
    name: str, stages: Stages, settings: Recall, task: Task, where: Path | None, say: Say
) -> tuple[Retriever, dict]:
    """A retriever over the task's corpus, and what the manifest says of its index (made or continued in `where`)."""
    if name == "bm25":
        from irlens.retrieve.lexical import BM25

        return BM25(task.corpus), {}
    built = stages.dense[name].build(settings, task, where, say)
    return built.retriever, {"folder": str(built.folder), "corpus": corpus_revision(task), **built.facts}


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
    if not hub.is_id(settings.reranker):
        raise UserError(
            f"--reranker {settings.reranker}: no such folder, and not a hub id such as cross-encoder/ms-marco-MiniLM-L6-v2"
        )
    return catalog.fetch(catalog.Model(settings.reranker, *hub.pinned(settings.reranker, "--reranker")))


def _reranked(
    run: pd.DataFrame, task: Task, settings: Recall, model: Path, shards: Path, say: Say
) -> tuple[pd.DataFrame, int]:
    """The second stage's run, and how many pairs it read cut."""
    from irlens.rerank.cross_encoder import load, rerank

    name = model.name if Path(settings.reranker).is_dir() else settings.reranker.rpartition("/")[2]
    tag = f"{run['tag'].iloc[0]}, {name}"
    made_by, depth = {"kind": "cross-encoder", "model": digest(model)}, settings.rerank_depth
    run, cut = rerank(lambda: load(model), run, task.topics, depth, shards, tag, made_by=made_by, say=say)
    if cut:
        say(f"{tag}: {cut:,} pairs were longer than the model reads, and were cut")
    return run, cut


def _measure(runs: list[pd.DataFrame], task: Task, at: list[int], out: Path, seed: int) -> pd.DataFrame:
    """Writes qrels, results, tests, TREC files and the figure; returns the results."""
    from irlens import tables
    from irlens.measure import measures
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
    names = file_names((str(run["tag"].iloc[0]) for run in runs), _ascii)
    for run in runs:
        tables.write_trec_run(run, out / "trec" / f"{names[str(run['tag'].iloc[0])]}.run")
    table, each = concat(results), concat(per_query)
    files.write_csv(table, out / "results.csv")
    files.write_parquet(each, out / "per_query.parquet")
    if len(runs) > 1:
        files.write_csv(_tests(each, seed), out / "tests.csv")
    _draw(table, task, out)
    return table


def _ascii(tag: str) -> str:
    """A tag as a file name: trec_eval's own files have ASCII names."""
    return file_name(re.sub(r"[^A-Za-z0-9_.-]+", "-", tag))


def _draw(table: pd.DataFrame, task: Task, out: Path) -> None:
    from irlens.measure.plots import curves as plots

    drawn = table.assign(curve=table["run"], x=table["cutoff"])[DRAWN]
    labels = {"x_label": "N (passages per question)", "y_label": "Recall@N"}
    plots.curves(drawn, out / "recall", title=f"Recall@N on {task.name}", log_x=True, **labels)


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
