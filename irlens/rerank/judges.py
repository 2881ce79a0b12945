"""Judges, a run in and qrels out: a task's verifier or one's own; and who judges the draws of a training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import plugins
from irlens.base.devices import HERE, Devices
from irlens.base.errors import UserError
from irlens.models import catalog
from irlens.retrieve.policy import Say

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.models.thoughts import Thought
    from irlens.rerank import verifiers
    from irlens.tasks.contract import Task

ROWS = 512  # draws in a shard of scores


# -- verifiers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verifier:
    """A `Judge` (irlens.base.protocols): relevance 1 where a rule accepts a response for a gold answer of its query.

    rule: the task's own unless another is named. task: where the gold answers are; without one a run's own columns
    `query` and `answers` tell. thought: tags around what is not judged. A response that never finished, or never closed
    its thought, is wrong unless `judge_unfinished`.
    """

    task: Task | None = None
    rule: verifiers.Verifier | None = None
    thought: Thought | None = None
    judge_unfinished: bool = False

    @property
    def read(self) -> verifiers.Verifier:
        """The rule, reading what follows the thought. Raises UserError where there is none, or its extra is missing."""
        from irlens.models import thoughts
        from irlens.rerank.verifiers import Verifier as Rule
        from irlens.rerank.verifiers import ready

        rule = self.rule
        if rule is None:
            if self.task is None or self.task.verifier is None:
                name = "the run's prompts have" if self.task is None else f"data set {self.task.name!r} has"
                raise UserError(f"{name} no verifier of its own; give --verifier")
            ready(self.task.verifier)
            rule = Rule(self.task.name, self.task.verifier, self.task.extract)
        return thoughts.of_verifier(rule, self.thought)

    def __call__(self, run: pd.DataFrame) -> pd.DataFrame:
        """`query_id, doc_id, relevance` of every row, in order. Raises UserError: see `irlens.rerank.verify.verify`."""
        from irlens.models import thoughts
        from irlens.rerank.given import Given
        from irlens.rerank.scoring import need_texts
        from irlens.rerank.verify import verify as judged

        need_texts(run, "a verifier")
        rule = self.read
        topics = Given(self.task).task_of(run).topics if rule.needs_answers or self.task else self._without_answers(run)
        marked = thoughts.marked(run, self.thought)
        return judged(marked, topics, rule.judge, self.judge_unfinished, rule.needs_answers)

    @staticmethod
    def _without_answers(run: pd.DataFrame) -> pd.DataFrame:
        """Topics for a rule that reads the response alone: a run's own answers, where it has some."""
        columns = [c for c in ("query_id", "answers") if c in run.columns]
        return run[columns].drop_duplicates("query_id", ignore_index=True)


def verify(
    run: pd.DataFrame,
    task_or_verifier: Task | str | Callable,
    *,
    verifier: str | Callable | None = None,
    thought: str | None = None,
    judge_unfinished: bool = False,
) -> pd.DataFrame:
    """A run judged right or wrong: qrels `query_id, doc_id, relevance`, a row for each of the run's, in its order.

    task_or_verifier: a task, whose gold answers and verifier are used; a verifier's name (gsm8k, math, nq-exact,
    nq-has-answer, choice, regex:PATTERN, module:function) or function (response, gold answer) → True, False or a number,
    where the run brings its answers (column `answers`) or none are needed; or a judge, which is called. verifier: another
    one for the task. thought: tags such as "<think>,</think>" before what is judged. Query ids that the task does not
    know are joined by the text of the query (column `query`). Raises UserError: no verifier, no answers, no texts,
    queries that are not the task's.
    """
    from irlens.models import thoughts
    from irlens.rerank.reranker import Scoring
    from irlens.tasks.contract import Task

    if isinstance(task_or_verifier, Scoring):
        raise UserError(
            f"verify: {task_or_verifier.name} is a reranker, whose rewards are no verdicts; call it with the run"
        )
    if isinstance(task_or_verifier, Verifier):
        return task_or_verifier(run)
    task = task_or_verifier if isinstance(task_or_verifier, Task) else None
    rule = verifier if task is not None else task_or_verifier
    tags = thoughts.parse(thought)
    if tags is not None and "text" in run.columns:
        tags = thoughts.settled(tags, (text for text in run["text"] if isinstance(text, str)))
    return Verifier(task, rule and rule_of(rule), tags, judge_unfinished)(run)


def rule_of(verifier: str | Callable | verifiers.Verifier) -> verifiers.Verifier:
    """A verifier's name, or a function (response, gold answer) → verdict, as a rule. Raises UserError for another thing."""
    from irlens.rerank import verifiers

    if isinstance(verifier, verifiers.Verifier):
        return verifier
    if isinstance(verifier, str):
        return verifiers.get(verifier)
    if not callable(verifier):
        raise UserError(f"verify: give a task, a verifier's name or a function, not {type(verifier).__name__}")
    name = getattr(verifier, "__name__", "function")
    return verifiers.Verifier(name, verifiers.Guarded(verifier, f"verifier {name}"), needs_answers=False)


# -- judges of a training ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judge:
    """`grade(run, topics, folder)` → qrels; scores are kept in `folder`. By a reward model grades are its scores.

    relative: scores hold within one list (the rows of a query and tag) only, as PairRM's. identity: what a result
    depends on.
    """

    name: str
    grade: Callable[[pd.DataFrame, pd.DataFrame, Path], pd.DataFrame]
    is_reward: bool = False
    relative: bool = False
    identity: str | None = None


def of_task(task: Task, say: Say = print) -> Judge:
    """The verifier of a task; what it takes too long over is said."""
    from irlens.rerank.verify import not_judged_in_words, verify

    def grade(run: pd.DataFrame, topics: pd.DataFrame, _) -> pd.DataFrame:
        qrels = verify(run, topics, task.verifier)
        if line := not_judged_in_words(qrels):
            say(line)
        return qrels

    return Judge("the verifier", grade)


def of_reward(
    name: str, instruction: str, option: str = "--reward", say: Say = print, devices: Devices = HERE
) -> Judge:
    """A reward model, whose grades tell, in the column `truncated`, which texts it read cut; or a function of one's own
    (`module:function`) of a run that gives a score per row, as a reranker's.

    Raises UserError for one that is not known, not to be had, or has not one label.
    """
    from irlens.models.chat import conversations
    from irlens.rerank.reward_files import reward_model
    from irlens.rerank.scoring import ALONE, TOGETHER, MadeBy, score_in_shards

    if plugins.named(name):
        return _own(name, option)
    chosen = catalog.reward(name)
    if chosen is None:
        known = ", ".join(catalog.REWARDS)
        raise UserError(
            f"{option} {name!r}: no such reward model; known: {known}, a hub id owner/name, a folder, or module:function"
        )
    model = reward_model(chosen, name)

    def grade(run: pd.DataFrame, topics: pd.DataFrame, shards: Path) -> pd.DataFrame:
        asked = conversations(topics, instruction)
        told = MadeBy(model.made_by, asked, TOGETHER if model.pairs else ALONE)
        load = partial(model.load, asked)
        found = score_in_shards(run, load, shards, chosen.name, told, ROWS, say=say, devices=devices)
        if cut := int(found["truncated"].sum()):
            say(cut_in_words(cut, len(found), chosen.name))
        scores = found["score"].to_numpy(dtype=float)
        return run[["query_id", "doc_id"]].assign(relevance=scores, truncated=found["truncated"].to_numpy(dtype=bool))

    return Judge(chosen.name, grade, True, model.pairs, model.digest)


def _own(name: str, option: str) -> Judge:
    """A function of one's own; its identity is that of the file it stands in."""
    import inspect

    from irlens import tables
    from irlens.rerank.reranker import of_function

    function = plugins.function(name, option)
    scoring = of_function(function, name)
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # one that is written in C, or an object that can be called
        file = None

    def grade(run: pd.DataFrame, topics: pd.DataFrame, shards: Path) -> pd.DataFrame:
        scores = scoring.scores(tables.with_queries(run, topics)).scores
        return run[["query_id", "doc_id"]].assign(relevance=scores, truncated=False)

    made = file and hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    return Judge(name, grade, True, identity=f"{name} {made or ''}".rstrip())


def cut_in_words(cut: int, texts: int, name: str) -> str:
    """That a model that scores did not read all of some texts."""
    return f"{name}: {cut:,} of {texts:,} texts were longer than the model reads, and were cut"


def refused_in_words(refused: Sequence[str] | np.ndarray, name: str, unit: str = "responses") -> str | None:
    """That a judge's server would not judge some, in its last words; None where it judged all. refused: words of each."""
    words = [why for why in refused if why]
    if not words:
        return None
    return (
        f"{name}: {len(words):,} of {len(refused):,} {unit} are not judged, as the server refused a question about them "
        f"({words[-1]:.80}); the same command asks again"
    )


def beats(mine: np.ndarray, other: np.ndarray) -> float:
    """The chance that one of `mine` [m] is above one of `other` [n], a tie being half of one."""
    above = mine[:, None] - other[None, :]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def against_start(
    judge: Judge, run: pd.DataFrame, start: pd.DataFrame, topics: pd.DataFrame, here: Path, before: Path
) -> pd.DataFrame:
    """query_id, temperature, `win rate` (and `reward`, where scores compare across lists): the chance that a policy's draw
    scores above one of the start's at that temperature, a tie being half a win, and its mean score.

    `here`, `before`: folders that keep the scores of `run` and of `start`.
    """
    import pandas as pd

    tables = {}
    if judge.relative:  # both in one list
        runs = {name: r.assign(doc_id=f"{name}/" + r["doc_id"]) for name, r in (("a", run), ("b", start))}
        both = pd.concat(runs.values(), ignore_index=True)
        scores = judge.grade(both.assign(tag=both["temperature"].map("{:g}".format)), topics, here)
        tables = {name: r.merge(scores, on=["query_id", "doc_id"]) for name, r in runs.items()}
    else:
        for name, some, folder in (("a", run, here), ("b", start, before)):
            tables[name] = some.merge(judge.grade(some, topics, folder), on=["query_id", "doc_id"])
    rows = []
    lists = {name: dict(iter(t.groupby(["query_id", "temperature"], sort=False))) for name, t in tables.items()}
    for (query_id, temperature), own in lists["a"].items():
        mine, other = (t["relevance"].to_numpy() for t in (own, lists["b"][query_id, temperature]))
        row = {"query_id": query_id, "temperature": temperature, "win rate": beats(mine, other)}
        rows.append(row if judge.relative else row | {"reward": mine.mean()})
    return pd.DataFrame(rows)
