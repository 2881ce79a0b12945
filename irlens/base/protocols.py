"""What the two worlds have in common: a retriever, a reranker and a judge are each one call on the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import pandas as pd


@runtime_checkable
class Retriever(Protocol):
    """Topics to a run: BM25, a dense encoder over an index, or an LLM that draws (`irlens.Policy`)."""

    def __call__(self, topics: pd.DataFrame, n: int) -> pd.DataFrame:
        """The run of n candidates per topic: `query_id, doc_id, score, rank, text` and what else the retriever knows."""


@runtime_checkable
class Reranker(Protocol):
    """A run to a run: the same rows with a new score and rank, and the reranker's own number as `reward`."""

    def __call__(self, run: pd.DataFrame) -> pd.DataFrame:
        """`run` in a new order. The input frame is not changed."""


@runtime_checkable
class Judge(Protocol):
    """A run to qrels: a verifier, or a grader whose grades are whole numbers from 0."""

    def __call__(self, run: pd.DataFrame) -> pd.DataFrame:
        """`query_id, doc_id, relevance` of every row."""
