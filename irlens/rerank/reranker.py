"""A reranker as an object: a run in, the same rows in a new order out, its own numbers in the column `reward`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from irlens import tables
from irlens.base.errors import UserError
from irlens.rerank.given import Given
from irlens.rerank.scoring import reranked

if TYPE_CHECKING:
    from irlens.base.protocols import Reranker


@dataclass(frozen=True)
class Scores:
    """What a reranker gives: a score per row of the run, and of a vote the answers and the weights that elect.

    facts: what it counted: `reward_calls`, `truncated`, `asked`, `nonsense`, `refused`. truncated: [rows] which it read
    cut. refused: [rows] what a judge's server said that would not judge one, "" elsewhere.
    """

    scores: np.ndarray
    answers: list | None = None
    weights: np.ndarray | None = None
    facts: dict = field(default_factory=dict)
    truncated: np.ndarray | None = None
    refused: np.ndarray | None = None

    def of(self, rows: list[int]) -> Scores:
        """What it says of some rows."""
        return replace(
            self,
            scores=self.scores[rows],
            answers=None if self.answers is None else [self.answers[row] for row in rows],
            weights=None if self.weights is None else self.weights[rows],
            truncated=None if self.truncated is None else self.truncated[rows],
            refused=None if self.refused is None else self.refused[rows],
        )


@dataclass(frozen=True)
class Prepared:
    """A reranker with a run that it has accepted. identity: what else than its name makes its scores what they are."""

    score: Callable[[], Scores]
    identity: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Scoring:
    """A `Reranker` (irlens.base.protocols) that gives each row a score.

    prepare: what a run and what is given make of it, every refusal included. relative: scores hold within one list (the
    rows of a query and tag) only, as PairRM's. identity: of its model, whatever the run.
    """

    name: str
    prepare: Callable[[pd.DataFrame, Given], Prepared]
    given: Given = field(default_factory=Given)
    relative: bool = False
    identity: dict = field(default_factory=dict)

    def __call__(self, run: pd.DataFrame) -> pd.DataFrame:
        """The rows of `run` by falling score; `run` is not changed. Raises UserError: a run that it cannot read."""
        found = self.scores(run)
        return reranked(run, found.scores, self.name, found.refused)

    def scores(self, run: pd.DataFrame) -> Scores:
        """A score per row of `run`, in its order, and what a vote elects by."""
        return self.prepared(run).score()

    def prepared(self, run: pd.DataFrame) -> Prepared:
        """Refuses what can be refused before work. Raises UserError."""
        tables.check(run, "run", f"reranker {self.name}")
        if run.empty:
            raise UserError(f"reranker {self.name}: the run is empty")
        return self.prepare(run, self.given)

    def using(self, **changes) -> Scoring:
        """The same with another task, folder or whatever else is given (fields of `Given`); its model is not looked up again."""
        return replace(self, given=replace(self.given, **changes))


def of_function(function: Callable, name: str) -> Scoring:
    """One's own: a function of a run that gives a score per row, or a run (its `reward`, else its `score`)."""

    def score(run: pd.DataFrame) -> Scores:
        try:
            given = function(run.copy())
            numbers = _aligned(given, run) if isinstance(given, pd.DataFrame) else np.asarray(given, dtype=float)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"reranker {name}: it failed: {type(error).__name__}: {error}") from error
        if numbers.shape != (len(run),):
            raise UserError(f"reranker {name}: it gave {numbers.shape} scores for a run of {len(run):,} rows")
        if not np.isfinite(numbers).all():
            bad = run.iloc[int(np.flatnonzero(~np.isfinite(numbers))[0])]
            raise UserError(f"reranker {name}: score not finite for query_id={bad['query_id']}, doc_id={bad['doc_id']}")
        return Scores(numbers)

    def _aligned(found: pd.DataFrame, run: pd.DataFrame) -> np.ndarray:
        tables.check(found, "run", f"reranker {name}: what it gave")
        column = "reward" if "reward" in found.columns and "reward" not in run.columns else "score"
        known = dict(zip(zip(found["query_id"], found["doc_id"]), found[column]))
        keys = list(zip(run["query_id"], run["doc_id"]))
        if len(known) != len(keys) or not set(keys) <= set(known):
            raise UserError(f"reranker {name}: it must give the rows of the run, {len(run):,}, and gave {len(found):,}")
        return np.array([known[key] for key in keys], dtype=float)

    return Scoring(name, lambda run, _: Prepared(lambda: score(run)))


def called(function: Callable) -> str:
    """What a function is called in tables; `function` for one without a name."""
    name = getattr(function, "name", None) or getattr(function, "__name__", None) or type(function).__name__
    return "function" if name == "<lambda>" else str(name)


def as_scoring(reranker: Reranker) -> Scoring:
    """`reranker` itself if its scores can be asked for, else wrapped so that they can."""
    return reranker if isinstance(reranker, Scoring) else of_function(reranker, called(reranker))
