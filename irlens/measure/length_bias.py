"""How much a judge of answers likes length: who wins by how much longer the answer is, and the slope of that.

Source of the standardised difference: Dubois et al. 2024, "Length-Controlled AlpacaEval".
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from irlens.measure import coefficients as agree
from irlens.measure.coefficients import Estimate
from irlens.measure.verdicts import Verdicts

PARTS = 10  # of the pairs, from much shorter to much longer answers
LEVEL = 0.95


def of_judge(values: np.ndarray, pairs: pd.DataFrame) -> dict[str, Estimate]:
    """`longer preferred` and `slope of length` of preferences [n] on `pairs`; nothing where all answers are equally long."""
    longer, prompt = pairs["longer"].to_numpy(), pairs["prompt"].to_numpy()
    some = longer != 0
    if not some.any():
        return {}
    wins = agree.categories(values[some]) / 2
    liked = np.where(longer[some] > 0, wins, 1 - wins)
    told = {"longer preferred": agree.share(liked, prompt[some])}
    return told | {"slope of length": slope(values - 1, longer, pairs["system"].to_numpy(), prompt)}


def slope(wins: np.ndarray, longer: np.ndarray, system: np.ndarray, prompt: np.ndarray) -> Estimate:
    """The log-odds of a win that an answer gains by being far longer than the other, against one of equal length.

    A logistic regression of wins [n], from 0 to 1, on tanh(longer / its standard deviation) with a constant for each
    system, so that a good system with long answers is no length bias. A normal prior of standard deviation 1 on every
    weight keeps it finite where length decides everything. The interval is of the covariance clustered by prompts.
    """
    from scipy.stats import t
    from sklearn.linear_model import LogisticRegression

    spread = longer.std(ddof=1) if len(longer) > 1 else 0.0
    nothing = Estimate(float("nan"), float("nan"), float("nan"), len(wins), len(set(prompt)))
    if spread == 0 or len(set(prompt)) < 2:
        return nothing
    _, own = np.unique(system, return_inverse=True)
    features = np.c_[np.tanh(longer / spread), np.eye(own.max() + 1)[own]]
    model = LogisticRegression(C=1.0, fit_intercept=False, solver="newton-cholesky", tol=1e-8)
    soft = np.clip(wins, 1e-9, 1 - 1e-9)  # both labels are needed
    model.fit(np.r_[features, features], np.repeat([1, 0], len(soft)), sample_weight=np.r_[soft, 1 - soft])
    chance = 1 / (1 + np.exp(-(features @ model.coef_[0])))
    bread = np.linalg.inv((features * (chance * (1 - chance))[:, None]).T @ features + np.eye(features.shape[1]))
    groups = np.unique(prompt, return_inverse=True)[1]
    scores = agree.summed(features * (soft - chance)[:, None], groups, groups.max() + 1)
    clusters = len(scores)
    error = np.sqrt((bread @ (scores.T @ scores) @ bread)[0, 0] * clusters / (clusters - 1))
    half = float(t.ppf((1 + LEVEL) / 2, clusters - 1) * error)
    value = float(model.coef_[0][0])
    return Estimate(value, value - half, value + half, len(wins), clusters)


def by_length(found: Verdicts) -> pd.DataFrame:
    """`judge, part, least, most, longer, value, low, high, n, prompts`: the systems' win rate in tenths of the pairs by how
    many characters longer their answer is. least, most: of a part; longer: its median. The same parts for all judges."""
    longer, prompt = found.pairs["longer"].to_numpy(), found.pairs["prompt"].to_numpy()
    edges = np.unique(np.quantile(longer, np.linspace(0, 1, PARTS + 1)))
    part = np.clip(np.searchsorted(edges, longer, side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for i, name in enumerate(found.judges):
        for number in np.unique(part):
            some = (part == number) & ~np.isnan(found.values[:, i])
            if some.any():
                own = longer[part == number]
                about = {"judge": name, "part": int(number) + 1, "least": own.min(), "most": own.max()}
                one = agree.share(found.values[some, i] - 1, prompt[some])
                rows.append(about | {"longer": float(np.median(own))} | vars(one))
    return pd.DataFrame(rows)
