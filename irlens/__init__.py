"""Language-model alignment as information retrieval: the LLM is a retriever, the reward model a reranker.

`import irlens` loads nothing heavy and sets nothing in the process: each public name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irlens.negatives.mine import mine as mine
    from irlens.retrieve.dense import Dense as Dense
    from irlens.retrieve.lexical import BM25 as BM25
    from irlens.retrieve.policy import Policy as Policy
    from irlens.tables import run as run
    from irlens.tables import topics as topics
    from irlens.tasks import Task as Task
    from irlens.tasks import load as load

# public name → the module that has it; a module is its own
_WHERE = {
    "BM25": "irlens.retrieve.lexical",
    "Dense": "irlens.retrieve.dense",
    "Policy": "irlens.retrieve.policy",
    "Task": "irlens.tasks",
    "load": "irlens.tasks",
    "mine": "irlens.negatives.mine",
    "run": "irlens.tables",
    "topics": "irlens.tables",
}

__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str):
    if name == "__version__":
        from importlib.metadata import version

        return version("irlens")
    if name not in _WHERE:
        raise AttributeError(f"module 'irlens' has no attribute {name!r}")
    module = import_module(_WHERE[name])
    return getattr(module, name) if hasattr(module, name) else module


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
