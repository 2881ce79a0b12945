"""A run on disk as the input of a stage: its rows, its judgements, and the data set that its prompts came from."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import checksums
from irlens.base.errors import UserError
from irlens.commands.settings import PASSK_OUT

if TYPE_CHECKING:
    import pandas as pd

    from irlens.models.thoughts import Thought
    from irlens.rerank.given import Given
    from irlens.rerank.judges import Verifier
    from irlens.rerank.options import ScoringOptions
    from irlens.tasks.contract import Task


@dataclass(frozen=True)
class Source:
    """A run and where it came from. `judged` are the judgements that lie beside it, `loaded` its task if that is known."""

    path: Path
    run: pd.DataFrame
    judged: pd.DataFrame | None
    manifest: dict
    dataset: str | None
    split: str | None
    revision: str  # digest of the file
    verifier_name: str | None = None
    loaded: Task | None = None
    thought: Thought | None = None  # the tags of its responses' thoughts
    columns: str | None = None  # how the data set's are read
    drawn_by: str | None = None  # the model that drew it, where that is not what the manifest names

    @property
    def name(self) -> str:
        """What an output folder is named after."""
        where = self.path if self.path.is_dir() or self.path.stem != "run" else self.path.parent
        return where.resolve().name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".parquet")

    @property
    def policy(self) -> str | None:
        """The model that drew the run, as its manifest names it."""
        return self.drawn_by or self.manifest.get("settings", {}).get("model") or self.manifest.get("policy")

    @cached_property
    def task(self) -> Task:
        """The data set of the prompts, of which the run's; or what the run itself says of them. Raises UserError if
        nothing says which, or if a query of the run is not in it."""
        from irlens import tasks
        from irlens.rerank.given import of_run, topics_for

        if self.loaded:
            return self.loaded
        if not self.dataset:
            if "query" in self.run.columns:
                return of_run(self.run, str(self.path))
            raise UserError(f"{self.path}: nothing beside it says which data set its prompts are from; give --dataset")
        task = tasks.load(self.dataset, self.split, None, self.columns)
        return replace(task, topics=topics_for(self.run, task))

    @property
    def judge(self) -> Verifier:
        """The verifier asked for, else the data set's own."""
        from irlens.rerank.judges import Verifier
        from irlens.rerank.verifiers import get

        return Verifier(self.task, get(self.verifier_name) if self.verifier_name else None, self.thought)

    def given(self, options: ScoringOptions, seed: int, folder: Path, qrels: str | None = None) -> Given:
        """What a reranker may need of it. folder: where scores are kept; qrels: the judgements asked for."""
        from irlens.base import devices
        from irlens.rerank.given import Given

        return Given(
            task=lambda: self.task,
            qrels=lambda: qrels_of(self, qrels)[0],
            thought=self.thought,
            options=replace(options, verifier=self.verifier_name),
            policy=self.policy,
            messages_as=self.manifest.get("settings", {}).get("messages_as"),  # as they were put when it was drawn
            seed=seed,
            folder=folder,
            where=str(self.path),
            devices=devices.choose(options.devices),
        )

    def data(self) -> dict:
        """What a manifest records, so that the next stage finds the prompts again."""
        return _data(self.dataset, self.split, self.columns, self.verifier_name)


def _data(dataset: str | None, split: str | None, columns: str | None, verifier: str | None) -> dict:
    more = {"columns": columns, "verifier": verifier}
    return {"dataset": dataset, "split": split} | {name: value for name, value in more.items() if value is not None}


def data_of(dataset: str, split: str, columns: str | None = None, verifier: str | None = None) -> dict:
    """What a manifest records of a data set, found again from any working directory, and of who judges it."""
    from irlens import tasks
    from irlens.tasks import mixeval

    dataset = mixeval.place(dataset)
    path = Path(dataset).expanduser()
    known = dataset in tasks.NAMES or not path.exists()
    return _data(dataset if known else str(path.resolve()), split, columns, verifier)


def read(
    path: str,
    dataset: str | None = None,
    split: str | None = None,
    verifier: str | None = None,
    thought: str | None = None,
    columns: str | None = None,
) -> Source:
    """The run at `path`: Parquet, TREC, a folder of irlens, a part of a training's, or a data set that comes with
    candidates.

    `dataset`, `split`, `verifier`, `thought` and `columns` are the user's; without them, what the folder's manifest says. A response
    that never closed its thought is unfinished (`thoughts.marked`). Raises UserError: nothing there, no run, an unknown
    verifier, tags that are none.
    """
    from irlens.models import thoughts
    from irlens.rerank.verifiers import get
    from irlens.tasks import contract

    tags = thoughts.parse(thought)
    if verifier:
        get(verifier)
    where = Path(path).expanduser()
    if not where.exists():
        hint = "; `irlens passk` makes that one" if path == PASSK_OUT else ""
        raise UserError(f"{path}: no such run (a Parquet file, or the folder of a passk or a rerank){hint}")
    if (where.is_dir() and not (where / "run.parquet").is_file()) or contract.SUFFIX.search(where.name):
        return _with_candidates(path, where, split, verifier, tags, columns)
    found = _of_file(where, verifier)
    if thought is None:
        tags = thoughts.recorded(found.manifest.get("settings", {}).get("thought"))
    run, tags = _after_thoughts(found.run, tags)
    split = split or (None if dataset else found.split)
    columns = columns or (None if dataset else found.columns)
    return replace(found, run=run, thought=tags, dataset=dataset or found.dataset, split=split, columns=columns)


def _with_candidates(
    path: str, where: Path, split: str | None, verifier: str | None, tags: Thought | None, columns: str | None
) -> Source:
    """A data set that comes with candidates."""
    from irlens import tasks

    try:
        task = tasks.load(where, split, None, columns)
    except UserError as error:
        if where.is_dir() and (made_by := command_of(where)):
            raise UserError(f"{path}: is of `irlens {made_by}` and holds no run.parquet ({error})") from error
        raise
    if task.candidates is None:
        raise UserError(f"{path}: holds no run.parquet, and no lists of candidates")
    data = data_of(path, task.split)
    run, tags = _after_thoughts(task.candidates, tags)
    return Source(where, run, task.qrels, {}, *data.values(), task.revision, verifier, task, tags, columns)


def _of_file(where: Path, verifier: str | None) -> Source:
    """A run of a file or folder, with what lies beside it and what its manifest says."""
    from irlens import tables
    from irlens.tasks import contract

    run = tables.read_run(where)
    if run.empty:
        raise UserError(f"{where}: the run is empty")
    folder = where if where.is_dir() else where.parent
    training = _of_training(folder)
    manifest = training.manifest if training else _manifest(folder / "manifest.json")
    data = manifest.get("data") or _named(manifest)
    if training and data:
        data = {**data, "split": training.split}
    if "query" in run.columns and os.path.isabs(data.get("dataset") or "") and not Path(data["dataset"]).exists():
        data = {}  # the file is elsewhere, and the run says itself what was asked
    beside = folder / "qrels.parquet"
    return Source(
        where,
        run,
        tables.read_qrels(beside) if beside.is_file() else None,
        manifest,
        data.get("dataset"),
        data.get("split"),
        contract.digest(where / "run.parquet" if where.is_dir() else where),
        verifier or _recorded(data.get("verifier")),
        columns=data.get("columns"),
        drawn_by=training.policy if training else None,
    )


def _recorded(verifier: str | None) -> str | None:
    """The verifier that a manifest names; not one's own function, for a file that may be another's is to run no code."""
    from irlens.base import plugins

    return None if verifier is None or plugins.named(verifier) else verifier


PART = re.compile(r"(iteration-|evaluation/|test/)(\d+)")  # of a training's folder: where a run lies


@dataclass(frozen=True)
class _Training:
    """The training in whose folder a run lies: its manifest, the split of the run's prompts, the policy that drew it."""

    manifest: dict
    split: str | None
    policy: str | None


def _of_training(folder: Path) -> _Training | None:
    """The training that a run in `folder` belongs to; None for a run that is no part of one."""
    folder = folder.resolve()
    for above in folder.parents[:2]:
        found = PART.fullmatch(folder.relative_to(above).as_posix())
        manifest = _manifest(above / "manifest.json") if found else {}
        if manifest.get("command") == "train":
            where, number = found[1], int(found[2])
            key = {"iteration-": "split", "evaluation/": "eval_split", "test/": "test_split"}[where]
            split = (manifest.get("settings", {}).get(key) or "").partition("[")[0] or None  # train[60:] lies in train
            before = number - 1 if where == "iteration-" else number
            return _Training(manifest, split, str(above / f"iteration-{before}" / "model") if before else None)
    return None


def _after_thoughts(run: pd.DataFrame, tags: Thought | None) -> tuple[pd.DataFrame, Thought | None]:
    """The run with unclosed thoughts marked, and the tags as its responses settle them."""
    from irlens.models import thoughts

    if tags is None or "text" not in run.columns:
        return run, tags
    tags = thoughts.settled(tags, (text for text in run["text"] if isinstance(text, str)))
    return thoughts.marked(run, tags), tags


def without_thoughts(source: Source, what: str) -> pd.DataFrame:
    """The run with what follows a closed thought as its texts; a thought that never closes leaves nothing. Raises
    UserError, naming `what` needs them, for a run without texts."""
    from irlens.models.thoughts import answer_part
    from irlens.rerank.scoring import need_texts

    run = need_texts(source.run, what)
    if source.thought is None:
        return run
    return run.assign(text=[answer_part(text, source.thought) or "" for text in run["text"]])


def command_of(folder: Path) -> str | None:
    """The command whose output a folder is, as its manifest says; None of any other folder."""
    try:
        told = checksums.read_signed(folder / "manifest.json")
    except (OSError, ValueError, RecursionError):
        return None
    return str(told["command"]) if "command" in told else None


def _manifest(path: Path) -> dict:
    try:
        return checksums.read_signed(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a readable manifest ({error})") from error


def _named(manifest: dict) -> dict:
    """The data set of a manifest that only names it, where the name is enough to find it."""
    from irlens import tasks

    settings = manifest.get("settings", {})
    dataset = settings.get("dataset")
    known = dataset in tasks.NAMES or (isinstance(dataset, str) and Path(dataset).expanduser().exists())
    return {"dataset": settings["dataset"], "split": settings.get("split")} if known else {}


def qrels_of(source: Source, given: str | None) -> tuple[pd.DataFrame, str]:
    """The judgements asked for, else those beside the run, else its rewards, and what to call them.

    Raises UserError if there are none.
    """
    from irlens import tables, tasks
    from irlens.tasks import contract

    if given:
        path = Path(given).expanduser()
        if (path.is_dir() and not (path / "qrels.parquet").is_file()) or contract.SUFFIX.search(path.name):
            task = tasks.load(path)
            if task.qrels is None:
                raise UserError(f"{given}: holds no qrels.parquet, and no graded lists")
            return task.qrels, given
        return tables.read_qrels(path), given
    if source.judged is None and "reward" in source.run.columns and source.run["reward"].notna().all():
        return source.run[["query_id", "doc_id"]].assign(
            relevance=source.run["reward"]
        ), f"the rewards of {source.path}"
    if source.judged is None:
        raise UserError(
            f"{source.path}: no qrels beside it; name them, or make them with `irlens verify {source.path}`"
        )
    return source.judged, f"the qrels of {source.path}"


def read_judgements(path: Path) -> pd.DataFrame:
    """`tables.read_qrels`; of a run with rewards that nothing else judges, its rewards. Raises UserError as that does."""
    from irlens import tables

    path = Path(path)
    run = path / "run.parquet" if path.is_dir() else path
    if run.name == "run.parquet" and run.is_file() and not (path.is_dir() and (path / "qrels.parquet").is_file()):
        found = tables.read_run(run)
        if "reward" in found.columns and found["reward"].notna().all():
            return tables.check(found[["query_id", "doc_id"]].assign(relevance=found["reward"]), "qrels", str(path))
    return tables.read_qrels(path)
