"""Runs and qrels to results: measures, intervals, paired tests, best-of-N, and their figures.

The module is also the function: `irlens.measure(run, qrels, measures)` is `irlens.measure.results.measure`.
"""

from __future__ import annotations

import sys
from types import ModuleType


class _Room(ModuleType):
    """A module that can be called."""

    def __call__(self, run, qrels, measures, seed: int = 0, *, complete: bool = True):
        from irlens.measure.results import measure

        return measure(run, qrels, measures, seed, complete=complete)


sys.modules[__name__].__class__ = _Room
