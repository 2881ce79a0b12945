"""A run on disk as the input of a stage: its rows, its judgements, and the data set that its prompts came from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.commands.settings import PASSK_OUT

if TYPE_CHECKING:
    import pandas as pd

    from irlens.models.thoughts import Thought
    from irlens.rerank.verifiers import Verifier
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

    @property
    def name(self) -> str:
        """What an output folder is named after."""
        where = self.path if self.path.is_dir() or self.path.stem != "run" else self.path.parent
        return where.resolve().name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".parquet")

    @property
    def policy(self) -> str | None:
        """The model that drew the run, as its manifest names it."""
        return self.manifest.get("settings", {}).get("model") or self.manifest.get("policy")

    @cached_property
    def task(self) -> Task:
        """The data set of the prompts. Raises UserError if nothing says which, or if a query of the run is not in it."""
        from irlens import tasks

        if self.loaded:
            return self.loaded
        if not self.dataset:
            raise UserError(f"{self.path}: nothing beside it says which data set its prompts are from; give --dataset")
        task = tasks.load(self.dataset, self.split)
        strangers = sorted(set(self.run["query_id"]) - set(task.topics["query_id"]))
        if strangers:
            raise UserError(
                f"{len(strangers)} queries of the run ({strangers[0]}, …) are not in the data set {task.name}, split "
                f"{task.split}; give the right --dataset and --split"
            )
        return replace(task, topics=task.topics[task.topics["query_id"].isin(set(self.run["query_id"]))])

    @cached_property
    def verifier(self) -> Verifier:
        """The verifier asked for, else the data set's own. Raises UserError if there is neither."""
        from irlens.models import thoughts
        from irlens.rerank.verifiers import Verifier, get

        if self.verifier_name:
            return thoughts.of_verifier(get(self.verifier_name), self.thought)
        if self.task.verifier is None:
            raise UserError(f"data set {self.task.name!r} has no verifier of its own; give --verifier")
        own = Verifier(self.task.name, self.task.verifier, self.task.extract)
        return thoughts.of_verifier(own, self.thought)

    @property
    def extract(self):
        """Response → the answer to vote on; None where responses have none."""
        if self.verifier_name or self.task.verifier is not None:
            return self.verifier.extract
        return self.task.extract

    @cached_property
    def conversations(self) -> dict[str, list[dict]]:
        """query_id → the messages that the run's responses answer."""
        from irlens.rerank.scoring import conversations

        return conversations(self.task.topics, self.task.instruction)

    def data(self) -> dict:
        """What a manifest records, so that the next stage finds the prompts again."""
        return {"dataset": self.dataset, "split": self.split}


def data_of(dataset: str, split: str) -> dict:
    """What a manifest records of a data set, found again from any working directory."""
    from irlens import tasks

    path = Path(dataset).expanduser()
    known = dataset in tasks.NAMES or not path.exists()
    return {"dataset": dataset if known else str(path.resolve()), "split": split}


def read(
    path: str,
    dataset: str | None = None,
    split: str | None = None,
    verifier: str | None = None,
    thought: str | None = None,
) -> Source:
    """The run at `path`: Parquet, TREC, a folder of irlens, or a data set that comes with candidates.

    `dataset`, `split`, `verifier` and `thought` are the user's; without them, what the folder's manifest says. A response
    that never closed its thought is unfinished (`thoughts.marked`). Raises UserError: nothing there, no run, an unknown
    verifier, tags that are none.
    """
    from irlens import tables, tasks
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
        task = tasks.load(where, split)
        if task.candidates is None:
            raise UserError(f"{path}: holds no run.parquet, and no lists of candidates")
        data = data_of(path, task.split)
        run, tags = _after_thoughts(task.candidates, tags)
        return Source(where, run, task.qrels, {}, *data.values(), task.revision, verifier, task, tags)
    run = tables.read_run(where)
    if run.empty:
        raise UserError(f"{path}: the run is empty")
    folder = where if where.is_dir() else where.parent
    manifest = _manifest(folder / "manifest.json")
    beside = folder / "qrels.parquet"
    data = manifest.get("data") or _named(manifest)
    if thought is None:
        tags = thoughts.recorded(manifest.get("settings", {}).get("thought"))
    run, tags = _after_thoughts(run, tags)
    return Source(
        where,
        run,
        tables.read_qrels(beside) if beside.is_file() else None,
        manifest,
        dataset or data.get("dataset"),
        split or (None if dataset else data.get("split")),
        contract.digest(where / "run.parquet" if where.is_dir() else where),
        verifier,
        thought=tags,
    )


def _after_thoughts(run: pd.DataFrame, tags: Thought | None) -> tuple[pd.DataFrame, Thought | None]:
    """The run with unclosed thoughts marked, and the tags as its responses settle them."""
    from irlens.models import thoughts

    if tags is None or "text" not in run.columns:
        return run, tags
    tags = thoughts.settled(tags, (text for text in run["text"] if isinstance(text, str)))
    return thoughts.marked(run, tags), tags


def _manifest(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable manifest ({error})") from error
    return found if isinstance(found, dict) else {}


def _named(manifest: dict) -> dict:
    """The data set of a manifest that only names it, where the name is enough to find it."""
    from irlens import tasks

    settings = manifest.get("settings", {})
    known = settings.get("dataset") in tasks.NAMES
    return {"dataset": settings["dataset"], "split": settings.get("split")} if known else {}


def qrels_of(source: Source, given: str | None) -> tuple[pd.DataFrame, str]:
    """The judgements asked for, else those beside the run, and what to call them. Raises UserError if there are none."""
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
    if source.judged is None:
        raise UserError(
            f"{source.path}: no qrels beside it; name them, or make them with `irlens verify {source.path}`"
        )
    return source.judged, f"the qrels of {source.path}"
