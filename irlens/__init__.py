"""Language-model alignment as information retrieval: the LLM is a retriever, the reward model a reranker.

`import irlens` loads nothing heavy and sets nothing in the process: each public name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irlens import train as train
    from irlens.commands.in_python import export_draws as export_draws
    from irlens.commands.in_python import fit_reranker as fit_reranker
    from irlens.commands.in_python import import_draws as import_draws
    from irlens.measure.arena_hard import arena_hard as arena_hard
    from irlens.measure.audit import audit_reranker as audit_reranker
    from irlens.measure.judges import judges as judges
    from irlens.measure.leaderboard import winrate as winrate
    from irlens.measure.mixeval import mixeval as mixeval
    from irlens.measure.mt_bench import mt_bench as mt_bench
    from irlens.measure.results import Results as Results
    from irlens.measure.results import best_of_n as best_of_n
    from irlens.measure.results import compare as compare
    from irlens.measure.results import measure as measure
    from irlens.measure.rewardbench import rewardbench as rewardbench
    from irlens.measure.wins import preferences as preferences
    from irlens.measure.wins import win_rates as win_rates
    from irlens.negatives import export as export
    from irlens.negatives.lists import lists as lists
    from irlens.negatives.mine import mine as mine
    from irlens.rerank.by_name import reranker as reranker
    from irlens.rerank.judges import verify as verify
    from irlens.retrieve.dense import Dense as Dense
    from irlens.retrieve.lexical import BM25 as BM25
    from irlens.retrieve.policy import Policy as Policy
    from irlens.tables import run as run
    from irlens.tables import topics as topics
    from irlens.tasks import Task as Task
    from irlens.tasks import load as load
    from irlens.train import losses as losses
    from irlens.train.larpo import larpo as larpo

# public name → the module that has it; a module is its own
_WHERE = {
    "BM25": "irlens.retrieve.lexical",
    "Dense": "irlens.retrieve.dense",
    "Policy": "irlens.retrieve.policy",
    "Results": "irlens.measure.results",
    "Task": "irlens.tasks",
    "audit_reranker": "irlens.measure.audit",
    "arena_hard": "irlens.measure.arena_hard",
    "best_of_n": "irlens.measure.results",
    "compare": "irlens.measure.results",
    "export": "irlens.negatives.export",
    "export_draws": "irlens.commands.in_python",
    "fit_reranker": "irlens.commands.in_python",
    "import_draws": "irlens.commands.in_python",
    "judges": "irlens.measure.judges",
    "larpo": "irlens.train.larpo",
    "lists": "irlens.negatives.lists",
    "load": "irlens.tasks",
    "losses": "irlens.train.losses",
    "measure": "irlens.measure",
    "mine": "irlens.negatives.mine",
    "mixeval": "irlens.measure.mixeval",
    "mt_bench": "irlens.measure.mt_bench",
    "preferences": "irlens.measure.wins",
    "reranker": "irlens.rerank.by_name",
    "rewardbench": "irlens.measure.rewardbench",
    "run": "irlens.tables",
    "topics": "irlens.tables",
    "train": "irlens.train",
    "verify": "irlens.rerank.judges",
    "winrate": "irlens.measure.leaderboard",
    "win_rates": "irlens.measure.wins",
}

__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str):
    if name == "__version__":
        from importlib.metadata import version

        return version("irlens")
    if name not in _WHERE:
        raise AttributeError(f"module 'irlens' has no attribute {name!r}")
    where = _WHERE[name]
    module = import_module(where)
    return getattr(module, name, module)  # a module without such a name is itself what is meant


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
