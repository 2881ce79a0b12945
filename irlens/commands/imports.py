"""Stage `import`: the draws of another tool's file as a run, and as qrels where the file judges them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import cutoffs, identity
from irlens.commands import finished
from irlens.commands.exchange import Import
from irlens.commands.folder import OutputFolder
from irlens.commands.runs import data_of
from irlens.commands.settings import heat
from irlens.retrieve.policy import Say

if TYPE_CHECKING:
    import pandas as pd

    from irlens.tables.formats import Imported
    from irlens.tasks.contract import Task


def import_draws(settings: Import, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Reads a file of draws; returns the folder and, where it judges them, Pass@N (of rewards Reward@N).

    The folder holds run.parquet, qrels.parquet (of verdicts) or the run's column `reward` (of other scores), results.csv
    and per_query.parquet where there is any judgement, and the manifest. Raises UserError: see `tables.formats.read`.
    """
    found, task, path = read(settings)
    out = Path(settings.out or Path("irlens-out") / f"import-{_stem(path)}")
    kept = {
        "file": path.name,
        "content": _content(path),
        "requests": settings.requests and _content(Path(settings.requests)),
    }
    kept = identity(settings, **kept, format=found.format, judged_by=found.judged_by)
    with OutputFolder(out, "import", kept, say=say, asked=settings) as folder:
        if folder.finished:
            judged = (out / "results.csv").is_file()
            return out, finished.table(out / "results.csv") if judged else _nothing()
        results = _write(found, out)
        _tell(found, results, out, say)
        folder.note(**_facts(found), data=data_of(settings.dataset, task.split) if task else {})
    return out, results


def read(settings: Import) -> tuple[Imported, Task | None, Path]:
    """(what the file holds, the data set that was named for it, the file). Raises UserError: see `import_draws`."""
    if settings.file is None:
        raise UserError("import: name a file of draws, such as lm-eval's samples_gsm8k.jsonl")
    heat(temperature=settings.temperature)
    from irlens.tables import formats

    path = Path(settings.file).expanduser()
    found = formats.read(path, settings.format, settings.judged_by, settings.requests)
    return *_completed(found, settings, path), path


def _stem(path: Path) -> str:
    """A file's name without its endings, as an output folder is named after it."""
    return re.sub(r"(\.jsonl|\.json|\.parquet|\.eval)?(\.gz)?$", "", path.resolve().name)


def _content(path: Path) -> str:
    """What a file, or all of a folder, holds."""
    from irlens.tasks import contract

    path = path.expanduser()
    return contract.digest(*(sorted(path.glob("*.parquet")) if path.is_dir() else [path]))


def _completed(found: Imported, settings: Import, path: Path) -> tuple[Imported, Task | None]:
    """`found` with what the command line knows better: model, temperature, and the identifiers of a data set."""
    log = replace(found.log, model=settings.model or found.log.model)
    run, qrels, task = found.run, found.qrels, None
    if settings.temperature is not None:
        if "temperature" in run.columns and (run["temperature"] != settings.temperature).any():
            told = ", ".join(f"{t:g}" for t in sorted(run["temperature"].unique()))
            raise UserError(f"--temperature {settings.temperature:g}: {path} says that it drew at {told}")
        run = run.assign(temperature=float(settings.temperature))
    if "tag" not in run.columns:
        tag = log.model or log.task or _stem(path)
        several = "temperature" in run.columns and run["temperature"].nunique() > 1
        run = run.assign(tag=[f"{tag} T={t:g}" for t in run["temperature"]] if several else tag)
    if settings.dataset:
        from irlens import tasks

        task = tasks.load(settings.dataset, settings.split)
        names = _joined(run, task)
        run = run.assign(query_id=run["query_id"].map(names))
        qrels = None if qrels is None else qrels.assign(query_id=qrels["query_id"].map(names))
    return replace(found, run=run, qrels=qrels, log=log), task


def _joined(run: pd.DataFrame, task: Task) -> dict[str, str]:
    """The run's query_id → the data set's, by identifier, else by the prompt's text. Raises UserError for those of neither."""
    from irlens.rerank.given import topics_for

    topics = topics_for(run, task)  # under the run's identifiers; refuses what cannot be told
    known = set(task.topics["query_id"])
    by_text = dict(zip(task.topics["query"][::-1], task.topics["query_id"][::-1]))
    return {own: own if own in known else by_text[text] for own, text in zip(topics["query_id"], topics["query"])}


def _nothing() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=["run", "measure", "cutoff", "value", "low", "high", "n"])


def _write(found: Imported, out: Path) -> pd.DataFrame:
    """The tables, and what the draws are worth by the file's own judgement; nothing without one."""
    import irlens.measure
    from irlens.measure import best_of_n

    files.write_parquet(found.run, out / "run.parquet")
    if found.qrels is not None:
        files.write_parquet(found.qrels, out / "qrels.parquet")
    judged, name = found.qrels, "Pass"
    if judged is None and "reward" in found.run.columns:
        judged, name = found.run[["query_id", "doc_id"]].assign(relevance=found.run["reward"]), "Reward"
    if judged is None:
        return _nothing()
    results = irlens.measure(found.run, judged, [f"{name}@{N}" for N in cutoffs(best_of_n.fewest(found.run), None)])
    files.write_csv(results, out / "results.csv")
    files.write_parquet(results.per_query, out / "per_query.parquet")
    return results


def _tell(found: Imported, results: pd.DataFrame, out: Path, say: Say) -> None:
    """What was read, by which judgement, what was not, and whether the file's own figure comes out."""
    run, log = found.run, found.log
    say(f"{found.format}: {len(run):,} draws of {run['query_id'].nunique():,} prompts")
    for reason, count in log.left_out.items():
        say(f"left out: {count:,} {reason}")
    for note in log.notes:
        say(note)
    if found.judged_by:
        others = [name for name in found.judgements if name != found.judged_by]
        more = f"; there are also {', '.join(others)} (--judged-by)" if others else ""
        say(f"judged by {found.judged_by}{more}")
    elif "query" in run.columns:
        say(f"not judged: `irlens verify {out} --verifier NAME`, or `irlens rerank {out} --reranker REWARD`")
    own = log.reported.get(found.judged_by or "")
    if own is not None and len(results):
        ours = results["value"].iloc[0]
        same = "the same" if abs(ours - own) < 1e-9 else f"not {results['measure'].iloc[0]} = {ours:.6g} of these draws"
        say(f"the file's own {found.judged_by}: {own:.6g}, {same}")
    elif log.reported and found.judged_by is None:
        say("the file's own: " + ", ".join(f"{name} {value:.6g}" for name, value in log.reported.items()))


def _facts(found: Imported) -> dict:
    return {
        "policy": found.log.model,
        "task": found.log.task,
        "draws": len(found.run),
        "queries": int(found.run["query_id"].nunique()),
        "judgements": found.judgements,
        "reported": found.log.reported,
        "left_out": dict(found.log.left_out),
    }
