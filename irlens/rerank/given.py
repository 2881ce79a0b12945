"""What a reranker or a judge may be told beside the run: its task, judgements, thoughts, and the scoring options."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import seeds
from irlens.base.devices import HERE, Devices
from irlens.base.errors import UserError
from irlens.rerank.options import ScoringOptions

if TYPE_CHECKING:
    import pandas as pd

    from irlens.models.thoughts import Thought
    from irlens.tasks.contract import Task

OF_A_TOPIC = ("query_id", "query", "messages", "answers")  # columns of a topic that a run may carry


@dataclass(frozen=True)
class Given:
    """What a reranker may need; anything may be missing, and what is missing is refused by the reranker that needs it.

    task, qrels: themselves, or a function that gives them when they are asked for first. Without a task the run's own
    columns `query` (or `messages`) tell what was asked. policy: the model that drew the run; messages_as: how it was
    asked. folder: where scores are kept, None for nowhere. devices: where models score. where: what the run is called in messages.
    """

    task: Task | Callable[[], Task] | None = None
    qrels: pd.DataFrame | Callable[[], pd.DataFrame] | None = None
    thought: Thought | None = None
    options: ScoringOptions = field(default_factory=ScoringOptions)
    policy: str | None = None
    messages_as: str | None = None
    seed: int = 0
    folder: Path | None = None
    where: str = "the run"
    devices: Devices = HERE

    def task_of(self, run: pd.DataFrame) -> Task:
        """The task with the topics of `run`, under the run's own query ids. Raises UserError where nothing tells them."""
        task = self.task() if callable(self.task) else self.task
        return of_run(run, self.where) if task is None else replace(task, topics=topics_for(run, task))

    def conversations(self, run: pd.DataFrame) -> dict[str, list[dict]]:
        """query_id → the messages that the responses of `run` answer."""
        from irlens.models.chat import conversations

        task = self.task_of(run)
        return conversations(task.topics, task.instruction)

    def judgements(self) -> pd.DataFrame:
        """The qrels. Raises UserError without any."""
        found = self.qrels() if callable(self.qrels) else self.qrels
        if found is None:
            raise UserError(f"{self.where}: no qrels were given")
        return found

    def extract(self, run: pd.DataFrame) -> Callable[[str], Hashable | None] | None:
        """Response → its answer, by the verifier asked for, else by the task; None where responses have none."""
        from irlens.models import thoughts
        from irlens.rerank.verifiers import get

        texts = (text for text in run["text"] if isinstance(text, str)) if "text" in run.columns else ()
        tags = thoughts.settled(self.thought, texts)
        if self.options.verifier:
            return thoughts.of_verifier(get(self.options.verifier), tags).extract
        return thoughts.of_task(self.task_of(run), tags).extract

    def seed_of(self, purpose: str) -> int:
        """Where the random numbers of a purpose begin."""
        return seeds.derive(self.seed, 0, purpose)


def of_run(run: pd.DataFrame, where: str = "the run") -> Task:
    """A task of what a run says of its own prompts. Raises UserError if it does not say it."""
    from irlens.tasks.contract import Task

    if not {"query", "messages"} & set(run.columns):
        raise UserError(f"{where}: it has no column query, so its prompts are not known; give the task (--dataset)")
    columns = [c for c in OF_A_TOPIC if c in run.columns]
    topics = run[columns].drop_duplicates("query_id", ignore_index=True)
    return Task("the run's own prompts", "", topics if "query" in columns else topics.assign(query=""))


def topics_for(run: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The task's topics that `run` answers, under the run's query ids: joined by id, else by the text of the query.

    Raises UserError for queries that the task does not have, or whose text it has twice with different answers.
    """
    import pandas as pd

    topics = task.topics
    known = topics[topics["query_id"].isin(set(run["query_id"]))]
    strange = run[~run["query_id"].isin(set(known["query_id"]))]
    if strange.empty:
        return known
    parts, left = [known], sorted(set(strange["query_id"]))
    if "query" in run.columns:
        text_of = strange.drop_duplicates("query_id").set_index("query_id")["query"]
        _check_twice(topics[topics["query"].isin(set(text_of))], task)
        asked = pd.DataFrame({"query_id": text_of.index, "query": text_of.to_numpy()})
        parts.append(asked.merge(topics.drop(columns="query_id").drop_duplicates("query"), on="query"))
        left = sorted(set(left) - set(parts[1]["query_id"]))
    if left:
        raise UserError(
            f"{len(left)} queries of the run ({left[0]}, …) are not in the data set {task.name}, split {task.split}; "
            "give the right --dataset and --split"
        )
    return pd.concat(parts, ignore_index=True)[topics.columns]


def _check_twice(topics: pd.DataFrame, task: Task) -> None:
    """Raises UserError for a query that has the same text as another, but other answers."""
    if "answers" not in topics.columns:
        return
    answers = topics["answers"].map(lambda some: tuple(some))
    for query, some in answers.groupby(topics["query"]):
        if some.nunique() > 1:
            raise UserError(f"{task.name} asks {query!r:.60} more than once, with other answers: give its query_id")
