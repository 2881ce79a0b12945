"""Stage `export`: a run, its judgements, or the lists cut from them, as files of other tools."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import at_least, cutoffs, identity, one_of
from irlens.base.untrusted import file_names
from irlens.commands import runs
from irlens.commands.exchange import Export
from irlens.commands.folder import OutputFolder, version
from irlens.commands.mixeval import response_files
from irlens.retrieve.policy import Say

if TYPE_CHECKING:
    import pandas as pd

    from irlens.negatives.export import Prompts
    from irlens.tables.formats.write import Source
    from irlens.tasks.mixeval import Item

FORMATS = [
    "trl",
    "kto",
    "sentence-transformers",
    "lm-eval",
    "every-eval-ever",
    "alpaca-eval",
    "mixeval",
    "jsonl",
    "trec",
]
OF_LISTS = FORMATS[:3]


def export(settings: Export, say: Say = print) -> tuple[Path, list[Path]]:
    """Writes the files of a format; returns the folder and the files.

    trl, kto and sentence-transformers take lists: those of a folder of `mine-negatives`, else cut from the judged draws.
    Raises UserError: an unknown format, a run that nothing judges where judgements are needed, none of whose prompts
    gives a list, with white space in an identifier (trec).
    """
    check(settings)
    given, kind = Path(settings.run).expanduser(), settings.to
    lists = given if (given / "lists.parquet").is_file() else None
    source = None if lists and kind in OF_LISTS else runs.read(settings.run)
    name = source.name if source else given.resolve().name
    out = Path(settings.out or Path("irlens-out") / f"export-{kind}-{name}")
    kept = identity(settings, run=source.revision if source else _digest(given / "lists.parquet"))
    cut = (
        _lists(source, given, settings) if kind in OF_LISTS else None
    )  # what can be refused is before a folder is made
    run, qrels, called = (None, None, "") if cut is not None else _draws(source, settings)
    with OutputFolder(out, "export", kept, say=say) as folder:
        if cut is not None:
            found = _of_lists(*cut, kind, out, say)
        else:
            found = _of_run(run, qrels, source, settings, out)
            say(f"{len(run):,} draws" + (f", judged by {called}" if called else ", not judged"))
        folder.note(data=source.data() if source else {}, files=[path.name for path in found])
    return out, found


def check(settings: Export) -> None:
    """Raises UserError for a format that is not known, and for lists of no row."""
    one_of(FORMATS, to=settings.to)
    at_least(1, positives=settings.positives, negatives=settings.negatives)


def write(source: runs.Source, settings: Export, out: Path, say: Say) -> list[Path]:
    """The files of a run that is at hand. Raises UserError: see `export`."""
    if settings.to in OF_LISTS:
        return _of_lists(*_lists(source, source.path, settings), settings.to, out, say)
    run, qrels, _ = _draws(source, settings)
    return _of_run(run, qrels, source, settings, out)


def _digest(path: Path) -> str:
    from irlens.tasks import contract

    return contract.digest(path)


# -- lists ---------------------------------------------------------------------------------------------------------


def _lists(source: runs.Source | None, given: Path, settings: Export) -> tuple[pd.DataFrame, Prompts | None]:
    """The folder's lists, else those cut from the run by its judgements; and what the policy reads, where that is known."""
    from irlens import tables
    from irlens.negatives import lists as cutting

    if source is None:
        pairs = files.read_jsonl(given / "trl.jsonl") if (given / "trl.jsonl").is_file() else ()
        lists = tables.read_lists(given)
        known = {row["query_id"]: row["prompt"] for _, row in pairs}
        return lists, dict(zip(lists["query_id"], lists["query"])) | known if known else None
    run, _ = _with_prompts(source)
    judged, called = runs.qrels_of(source, settings.qrels)
    found = cutting.lists(run, judged, settings.positives, settings.negatives)
    if found.empty:
        raise UserError(f"{settings.run}: no prompt has a right and a wrong draw by {called}, so there is no list")
    if "messages" not in run.columns:
        return found, None
    rows = run.drop_duplicates("query_id")
    return found, {q: [dict(message) for message in some] for q, some in zip(rows["query_id"], rows["messages"])}


def _of_lists(lists: pd.DataFrame, prompts: Prompts | None, kind: str, out: Path, say: Say) -> list[Path]:
    from irlens.negatives import export as writing

    if kind == "sentence-transformers":
        rows, left_out = writing.tuples(lists)
        if left_out:
            say(f"tuples.jsonl leaves out {left_out:,} lists with fewer negatives than the largest")
        tables = {"triplets": writing.triplets(lists), "tuples": rows}
    else:
        tables = {kind: getattr(writing, kind)(lists, prompts)}
    for name, some in tables.items():
        writing.write_jsonl(some, out / f"{name}.jsonl")
        say(f"{name}.jsonl: {len(some):,} rows")
    return [out / f"{name}.jsonl" for name in tables]


# -- runs ----------------------------------------------------------------------------------------------------------


def _with_prompts(source: runs.Source) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The run with its prompts and answers in columns, and its topics; Raises UserError where nothing tells the prompts."""
    from irlens.tables import with_queries

    topics = source.task.topics
    run = source.run if "query" in source.run.columns else with_queries(source.run, topics)
    if "answers" in topics.columns and "answers" not in run.columns:
        run = run.assign(answers=run["query_id"].map(dict(zip(topics["query_id"], topics["answers"]))))
    return run, topics


def _draws(source: runs.Source, settings: Export) -> tuple[pd.DataFrame, pd.DataFrame | None, str]:
    """The run (with its prompts, but for TREC), its judgements where there are any, and what to call these."""
    judged = settings.qrels or source.judged is not None or "reward" in source.run.columns
    qrels, called = runs.qrels_of(source, settings.qrels) if judged else (None, "")
    if settings.to == "mixeval":
        _benchmark(source)
    if qrels is None and settings.to == "every-eval-ever":
        raise UserError(f"{settings.run}: Every Eval Ever holds judged draws; judge it with `irlens verify` first")
    return (source.run if settings.to in ("trec", "mixeval") else _with_prompts(source)[0]), qrels, called


def _of_run(
    run: pd.DataFrame, qrels: pd.DataFrame | None, source: runs.Source, settings: Export, out: Path
) -> list[Path]:
    """A file per tag: of draws at two temperatures these are two systems."""
    from irlens.rerank.by_name import slug

    tags = list(run.groupby("tag", sort=False)) if "tag" in run.columns else [("run", run)]
    names = file_names((str(tag) for tag, _ in tags), slug)
    found, items = [], _items(source) if settings.to == "mixeval" else None
    for tag, rows in tags:
        name = names[str(tag)] if len(tags) > 1 else source.name
        if items is not None:
            found += response_files(rows, items, name, out)
            continue
        found += _written(rows.reset_index(drop=True), qrels, name, _about(source, settings), settings.to, out)
    return found


def _items(source: runs.Source) -> list[Item]:
    """The items of the MixEval that a run was drawn for."""
    from irlens.measure.mixeval import present
    from irlens.tasks import mixeval

    path = _benchmark(source)
    return [item for split in present(path) for item in mixeval.read(path, split)]


def _benchmark(source: runs.Source) -> Path:
    """The folder of the MixEval that a run was drawn for. Raises UserError for a run of other prompts."""
    from irlens.tasks import mixeval

    if not source.dataset or not mixeval.is_folder(path := Path(mixeval.place(source.dataset))):
        raise UserError(f"{source.path}: not drawn for MixEval ({source.dataset or 'no data set'} is beside it)")
    return path


def _about(source: runs.Source, settings: Export) -> Source:
    """What an evaluation says of itself."""
    from irlens.tables.formats.write import Source

    path = source.path / "run.parquet" if source.path.is_dir() else source.path
    model = source.policy or source.manifest.get("settings", {}).get("file") or "unknown"
    dataset = source.manifest.get("task") or source.dataset or source.name
    about = Source(
        str(model),
        Path(str(dataset)).name,
        version("irlens") or "unknown",
        time=int(path.stat().st_mtime if path.exists() else time.time()),
    )
    return replace(about, organization=settings.organization) if settings.organization else about


def _written(
    run: pd.DataFrame, qrels: pd.DataFrame | None, name: str, source: Source, kind: str, out: Path
) -> list[Path]:
    """The files of one system."""
    from irlens import tables
    from irlens.negatives.export import write_jsonl
    from irlens.rerank.scoring import grades_of
    from irlens.tables.formats import write

    if kind == "trec":
        tables.write_trec_run(run, out / f"{name}.run")
        if qrels is None:
            return [out / f"{name}.run"]
        tables.write_trec_qrels(qrels[qrels["query_id"].isin(run["query_id"].unique())], out / f"{name}.qrels")
        return [out / f"{name}.run", out / f"{name}.qrels"]
    if kind == "alpaca-eval":
        return [_model_outputs(run, name, source, out)]
    grades = None
    if qrels is not None:
        import pandas as pd

        grades = pd.Series(grades_of(run, qrels), index=run.index)
    if kind != "every-eval-ever":
        file = out / (f"samples_{name}.jsonl" if kind == "lm-eval" else f"{name}.jsonl")
        write_jsonl(write.lm_eval(run, grades) if kind == "lm-eval" else write.plain(run, grades), file)
        return [file]
    instances = out / f"{name}.instances.jsonl"
    evaluation, rows = write.every_eval_ever(run, grades, _measured(run, qrels), source, instances.name)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files.write_text(text, instances)
    evaluation["detailed_evaluation_results"] |= write.checksum(text)
    files.write_text(json.dumps(evaluation, indent=1, ensure_ascii=False) + "\n", out / f"{name}.json")
    return [out / f"{name}.json", instances]


def _model_outputs(run: pd.DataFrame, name: str, source: Source, out: Path) -> Path:
    """AlpacaEval's model_outputs.json of one system: the first draw of each prompt."""
    from irlens.rerank.scoring import need_texts
    from irlens.tables.formats import alpaca_outputs

    first = need_texts(run, "alpaca-eval").sort_values("rank", kind="stable").drop_duplicates("query_id").sort_index()
    generator = str(run["tag"].iloc[0]) if "tag" in run.columns else name
    rows = alpaca_outputs.rows_of(first["query"], first["text"], generator, [source.dataset] * len(first))
    path = out / f"{name}.json"
    files.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", path)
    return path


def _measured(run: pd.DataFrame, qrels: pd.DataFrame) -> pd.DataFrame:
    """Pass@N of verdicts, Reward@N of other grades."""
    import irlens.measure
    from irlens.measure import best_of_n

    mine = qrels[qrels["query_id"].isin(run["query_id"].unique())]
    kind = "Pass" if mine["relevance"].isin((0, 1)).all() else "Reward"
    return irlens.measure(run, mine, [f"{kind}@{N}" for N in cutoffs(best_of_n.fewest(run), None)])
