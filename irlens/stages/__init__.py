"""The stages that a command, a recipe and the demo share: settings in, an output folder and its tables out.

Each stage is a function of one frozen settings object. It checks everything that it can before its folder is made.
"""

from irlens.stages.generation import passk
from irlens.stages.hardness import temperatures
from irlens.stages.indexing import index
from irlens.stages.measuring import evaluate, plot
from irlens.stages.mining import mine_negatives
from irlens.stages.reranking import rerank, verify
from irlens.stages.retrieval import recall
from irlens.stages.selecting import best_of_n
from irlens.stages.training import train

__all__ = [
    "best_of_n",
    "evaluate",
    "index",
    "mine_negatives",
    "passk",
    "plot",
    "recall",
    "rerank",
    "temperatures",
    "train",
    "verify",
]
