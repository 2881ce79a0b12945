"""Every ranking and preference loss, by name: pure functions of log-probabilities and grades.

`pairwise`, `contrastive`, `lambdarank` and `listmle` take `gamma[B, L]`, `grade[B, L]` and `mask[B, L]`, where
gamma = beta * (log pi_theta - log pi_ref). `get(name)` is any objective, over `Scores`; `names()` lists them.
"""

from irlens.train.losses.objective import OBJECTIVES, Objective, get, names
from irlens.train.losses.ranking import contrastive, lambdarank, listmle, pairwise
from irlens.train.losses.scores import Scores, Tokens

__all__ = [
    "OBJECTIVES",
    "Objective",
    "Scores",
    "Tokens",
    "contrastive",
    "get",
    "lambdarank",
    "listmle",
    "names",
    "pairwise",
]
