"""Language-model alignment as information retrieval: the LLM is a retriever, the reward model a reranker.

`import irlens` loads nothing heavy and sets nothing in the process: each public name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irlens.measure.results import Results as Results
    from irlens.measure.results import best_of_n as best_of_n
    from irlens.measure.results import compare as compare
    from irlens.measure.results import measure as measure
    from irlens.rerank.by_name import reranker as reranker
    from irlens.rerank.judges import verify as verify
    from irlens.retrieve.lexical import BM25 as BM25
    from irlens.tables import run as run
    from irlens.tables import topics as topics
    from irlens.tasks import Task as Task
    from irlens.tasks import load as load

# public name → the module that has it; a module is its own
_WHERE = {
    "BM25": "irlens.retrieve.lexical",
    "Results": "irlens.measure.results",
    "Task": "irlens.tasks",
    "best_of_n": "irlens.measure.results",
    "compare": "irlens.measure.results",
    "load": "irlens.tasks",
    "measure": "irlens.measure",
    "reranker": "irlens.rerank.by_name",
    "run": "irlens.tables",
    "topics": "irlens.tables",
    "verify": "irlens.rerank.judges",
}

__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str):
    if name == "__version__":
        from importlib.metadata import version

        return version("irlens")
    if name not in _WHERE:
        raise AttributeError(f"module 'irlens' has no attribute {name!r}")
    where = _WHERE[name]
    return import_module(where) if where.endswith(f".{name}") else getattr(import_module(where), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
