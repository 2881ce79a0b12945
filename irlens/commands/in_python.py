"""Commands as functions: other tools' draws as frames, frames as their files, and a reranker of one's own."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irlens.base.errors import UserError, did_you_mean
from irlens.base.progress import silent

if TYPE_CHECKING:
    import pandas as pd

    from irlens.tasks.contract import Task


def import_draws(file: str | os.PathLike, **options: Any) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """(run, qrels) of a file of draws: lm-eval's samples, a log of inspect_ai, a batch's output, TRL's completions,
    AlpacaEval's outputs, JSON lines.

    qrels: the file's verdicts; None where it has none, and other scores are the run's column `reward`. options: those of
    `irlens import`: format, requests, dataset, split, model, temperature, judged_by. Nothing is written. Raises UserError:
    an unknown option, a file that cannot be read as one of the formats.
    """
    from irlens.commands import imports
    from irlens.commands.exchange import Import

    _check("import_draws", options, {f.name for f in fields(Import)} - {"file", "out"})
    found, _, _ = imports.read(Import(file=os.fspath(file), **options))
    return found.run, found.qrels


def export_draws(
    run: pd.DataFrame,
    out: str | os.PathLike,
    to: str = "jsonl",
    *,
    qrels: pd.DataFrame | None = None,
    task: Task | None = None,
    model: str = "unknown",
    **options: Any,
) -> list[Path]:
    """The files of another tool, written into the folder `out`: lm-eval, every-eval-ever, jsonl, trec of draws; trl, kto,
    sentence-transformers of the lists that are cut from them.

    qrels: who judged; without them the run's rewards do, where it has any. task: its prompts, where the run has no column
    `query`. model: who drew. options: positives, negatives, organization, as those of `irlens export`. Raises UserError:
    an unknown format or option, no judgements where they are needed, a run that does not say its prompts.
    """
    from irlens import tables
    from irlens.commands import exports
    from irlens.commands.exchange import Export
    from irlens.commands.runs import Source

    _check("export_draws", options, {"positives", "negatives", "organization"})
    settings = Export(run="the run", to=to, **options)
    exports.check(settings)
    tables.check(run, "run", "export_draws")
    if task is None and to != "trec" and not {"query", "messages"} & set(run.columns):
        raise UserError("export_draws: the run has no column query, so its prompts are not known; give its task")
    told = {"settings": {"model": model}, "task": task.name if task else None}
    source = Source(Path("draws"), run, qrels, told, None, None, "", loaded=task)
    return exports.write(source, settings, Path(out), silent)


def fit_reranker(
    data: str | os.PathLike | pd.DataFrame | list[dict] | Any,
    out: str | os.PathLike,
    model: str | os.PathLike = "tiny",
    objective: str = "bradley-terry",
    **options: Any,
) -> tuple[Path, pd.DataFrame]:
    """(the folder of a reranker that is trained on judged responses, its results on held-out prompts); `irlens fit-reranker`
    is the same.

    data: judged draws, preference pairs or scored lists: a path, a hub id, or the lists themselves, in the forms that
    `irlens.train.fit` takes. out: the folder; `irlens.reranker(out)` loads the reranker, the same call continues. options:
    further options of the command, such as list_size, held_out, epochs, learning_rate, lora_rank. Raises UserError:
    nothing to learn from, an unknown option or objective, a model of which no reranker can be made.
    """
    from irlens.commands import fit_reranker as command
    from irlens.commands.reranking import FitReranker

    _check("fit_reranker", options, {f.name for f in fields(FitReranker)} - {"data", "out", "model", "objective"})
    given: Any = os.fspath(data) if isinstance(data, (str, os.PathLike)) else data
    told: dict[str, Any] = {"model": os.fspath(model), "objective": objective, "out": os.fspath(out)}
    return command.fit_reranker(FitReranker(data=given, **told, **options), silent)


def _check(name: str, options: dict[str, Any], known: set[str]) -> None:
    for key in options:
        if key not in known:
            raise UserError(f"{name}: unknown option {key!r}; {did_you_mean(key, known)}")
