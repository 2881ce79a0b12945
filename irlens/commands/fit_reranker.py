"""Stage `fit-reranker`: judged responses → a classifier of one score, measured on prompts that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.devices import Devices, choose
from irlens.base.errors import UserError
from irlens.base.options import identity
from irlens.commands import finished, judged
from irlens.commands.drawing import store_of
from irlens.commands.folder import OutputFolder
from irlens.commands.judged import Judged
from irlens.commands.reranking import FitReranker
from irlens.models import catalog
from irlens.rerank.judges import cut_in_words
from irlens.retrieve.policy import Say
from irlens.train.reranker import in_folder
from irlens.train.reranker.in_folder import Phase
from irlens.train.reranker.options import Training

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT = "held-out"


@dataclass(frozen=True)
class Job:
    """All that a training needs, refused before work where it can be."""

    learnt: Judged
    held_out: Judged | None
    data: str  # digest of both, as they were read
    name: str  # of the base
    weights: Path
    options: Training
    devices: Devices
    out: Path
    unread: str  # what of the data set's instruction the reranker does not read


def fit_reranker(settings: FitReranker, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Trains a reranker; returns the folder and its results on held-out prompts, without rows where none are.

    The folder holds model/ (a sequence classifier of one label with its tokenizer, which every reranker's name takes, and
    so does the folder itself), lists.parquet (what it learnt from), log.csv, account.json, held-out/ (run and qrels, as
    `best-of-n` reads them), results.csv, per_query.parquet and the manifest. Raises UserError: nothing to learn from, an
    unknown objective, a base of which no reranker can be made.
    """
    job = prepare(settings, say)
    kept = _identity(settings, job)
    with OutputFolder(
        job.out, "fit-reranker", kept, store=store_of(settings, job.out), say=say, asked=settings
    ) as folder:
        if folder.finished:
            return job.out, finished.table(job.out / "results.csv") if job.held_out else _nothing()
        lists = job.out / in_folder.LISTS
        if not lists.is_file():
            files.write_parquet(job.learnt.lists, lists)
        phase = Phase(job.options, job.out, job.name, job.weights, settings.pad_token, instruction=job.unread)
        model = in_folder.fit(phase, job.devices, say)
        results, cut = _measured(job, model) if job.held_out else (_nothing(), 0)
        if cut:
            say(cut_in_words(cut, len(job.held_out.lists), "the reranker"))
        folder.note(**_facts(job), truncated=cut, **json.loads((job.out / "account.json").read_text(encoding="utf-8")))
    return job.out, results


def prepare(settings: FitReranker, say: Say) -> Job:
    """What the training needs, read and checked: objective, data, base, and that its lists fit."""
    from irlens.train.reranker import base

    settings.check()
    found = judged.read(settings, say)
    options = settings.training()
    compares: Callable[[], bool] = lambda: options.loss.needs_negative  # noqa: E731
    judged.check(found, compares, options.objective, options.every_token)
    learnt, held_out = judged.split(found, settings.held_out, settings.seed)
    learnt = judged.cut(learnt, settings.list_size, settings.seed, settings.balanced)
    if held_out is not None:
        learnt = replace(learnt, where=f"{learnt.where}, without what --held-out {settings.held_out:g} keeps")
    judged.check(learnt, compares, options.objective, options.every_token)
    _check_gains(learnt, options)
    chosen = catalog.model(settings.model)
    weights = catalog.fetch(chosen)
    options = _resolved(settings, learnt, weights)
    unread = base.unread(weights, learnt.instruction)
    out = Path(
        settings.out or Path("irlens-out") / f"fit-reranker-{options.objective}-{_stem(chosen.name)}-{found.name}"
    )
    if held_out is None:
        say("--held-out 0: the reranker is trained, and measured on nothing")
    return Job(learnt, held_out, found.digest, chosen.name, weights, options, choose(settings.devices), out, unread)


def _check_gains(learnt: Judged, options: Training) -> None:
    """Raises UserError for grades that weighted LambdaRank has no gains for."""
    told = options.parameters
    if told.get("weighted") and told.get("gains") == "grades" and (learnt.lists["grade"] < 0).any():
        raise UserError(
            f"{learnt.where}: weighted LambdaRank has gains 2^grade - 1, and there are grades below 0: add "
            '"gains": "normalised" or "gains": "ranked" to --objective-args'
        )


def _resolved(settings: FitReranker, learnt: Judged, weights: Path) -> Training:
    """The options with what the base decides. Raises UserError for a base that will not do, or lists of which none fits."""
    from irlens.models.weights import stored
    from irlens.rerank.reward import LONGEST
    from irlens.train.reranker import base

    tokenizer = base.tokenizer(weights, settings.pad_token, learnt.instruction)
    limit = base.reader(weights, tokenizer, {}).limit
    options = settings.training(stored(weights)[0], None if limit >= LONGEST else limit)
    if options.max_length is not None and limit < options.max_length:
        raise UserError(f"--max-length {options.max_length}: {weights} reads {limit:,} tokens at most")
    in_folder.fitting(learnt.lists, weights, tokenizer, options)
    return options


def _stem(name: str) -> str:
    from irlens.rerank.by_name import slug

    return slug(name)


def _identity(settings: FitReranker, job: Job) -> dict:
    """The settings that make the result what it is, with what the base and the data decide of them."""
    from irlens.models.weights import digest, digest_of_files, saved_as

    told = job.options
    resolved = {
        "data": job.data,
        "model": job.name,
        "model_digest": digest(job.weights),
        "model_files": digest_of_files(job.weights),
        "parameters": told.parameters,
        "trainer_args": told.arguments,
        "learning_rate": told.learning_rate,
        "max_length": told.max_length,
        "save_dtype": saved_as(settings.save_dtype, job.weights),
    }
    gone = dict.fromkeys(("qrels", "dataset", "columns", "split", "objective_args", "margin", "beta"))  # said by these
    unread = {"instruction_unread": job.unread} if job.unread else {}
    return identity(settings, **gone | resolved | unread)


# -- what it writes ------------------------------------------------------------------------------------------------


def _nothing() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=["run", "measure", "value", "low", "high", "n"])


def _measured(job: Job, model: Path) -> tuple[pd.DataFrame, int]:
    """The measures of the scores of held-out responses, as `rerank` gives them; how many texts were read cut."""
    from irlens.measure.learned import held_out
    from irlens.rerank.scoring import ALONE, MadeBy, reranked, score_in_shards

    assert job.held_out is not None
    lists, where = job.held_out.lists, job.out / HELD_OUT
    talks, name = in_folder.conversations(lists), f"{job.options.objective} on {job.name}"
    run = lists.rename(columns={"grade": "relevance"}).assign(score=0.0)
    run["rank"] = run.groupby("query_id", sort=False).cumcount()
    told = MadeBy({"kind": "reward", "model_digest": files.digest(model)}, talks, ALONE)
    load = partial(_scorer, model, talks)
    found = score_in_shards(run, load, job.out / "shards", "the reranker", told, 512, devices=job.devices)
    ordered = reranked(run.drop(columns=["tier", "iteration"]), found["score"].to_numpy(), "reranker")
    files.write_parquet(ordered.drop(columns=["relevance", "list"]), where / "run.parquet")
    files.write_parquet(ordered[["query_id", "doc_id", "relevance"]], where / "qrels.parquet")
    results, each = held_out(lists.assign(score=found["score"].to_numpy()), name, job.options.objective == "bce")
    files.write_csv(results, job.out / "results.csv")
    files.write_parquet(each, job.out / "per_query.parquet")
    return results, int(found["truncated"].sum())


def _scorer(model: Path, talks: dict[str, list[dict]]):
    """The trained reranker, as a reward model is loaded for any run."""
    from irlens.models.load import quiet_if_small
    from irlens.rerank import reward

    quiet_if_small(model)
    return reward.load(model, talks)


def _facts(job: Job) -> dict:
    """What the manifest says beside the settings."""
    some = {"learnt": job.learnt, "held_out": job.held_out}
    prompts = {f"prompts_{name}": int(one.lists["query_id"].nunique()) for name, one in some.items() if one}
    left = dict(job.learnt.left_out)
    by = job.learnt.lists.groupby(["query_id", "list"], sort=False)["grade"].nunique()
    left["lists_of_one_grade"] = int((by < 2).sum())
    responses = {"responses_held_out": len(job.held_out.lists)} if job.held_out else {}
    return prompts | responses | left
