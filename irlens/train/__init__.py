"""Training on candidate lists: losses, batches, the trainer, and LarPO's loop.

In Python: `fit` trains, `batches` and `scores` are for a loop of one's own.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irlens.train.in_memory import batches as batches
    from irlens.train.in_memory import fit as fit
    from irlens.train.in_memory import scores as scores

__all__ = ["batches", "fit", "scores"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'irlens.train' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("irlens.train.in_memory"), name)
