"""Best of N: what a reranker's pick among N draws is worth, expected over every choice of N of a query's n draws.

Without bias and without sampling where the reranker scores each draw: sorted by score, the draw of rank r (from 1) is
the best of N random ones with the chance C(n − r, N − 1) / C(n, N), because the other N − 1 must lie behind it. With
0/1 grades and the grades as scores this is Pass@N.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.measure import stats
from irlens.measure.agreement import quality, threshold
from irlens.rerank.reranker import Scores
from irlens.rerank.scoring import grades_of as grades_of

PER_TEXT = (
    "random per text"  # the null of a reranker that reads nothing but the text: a random number for each distinct one
)
ALWAYS = ("oracle", "random", PER_TEXT)  # measured whatever else is; the last where the run holds texts
Picker = Callable[[np.ndarray, np.ndarray, Sequence[int]], np.ndarray]  # rows of a query, their grades, N → values [N]


def pick_chances(n: int, cutoffs: Sequence[int]) -> np.ndarray:
    """[len(cutoffs), n]: the chance that the draw at each place of the order is the first of N random draws out of n.

    Raises UserError for an N outside 1 … n.
    """
    out = np.zeros((len(cutoffs), n))
    for row, N in zip(out, cutoffs):
        if not 1 <= N <= n:
            raise UserError(f"best of {N} needs at least {N} candidates per query, and a query has {n}")
        row[0], left = N / n, np.arange(n - 1, N - 1, -1)  # left: n − r
        row[1 : n - N + 1] = (left - N + 1) / left  # C(n − r − 1, N − 1) / C(n − r, N − 1)
        np.cumprod(row[: n - N + 1], out=row[: n - N + 1])
    return out


def expected_best(scores: Sequence[float], grades: Sequence[float], cutoffs: Sequence[int]) -> np.ndarray:
    """[len(cutoffs)]: the expected grade of the highest-scored of N random draws; draws of equal score share equally.

    `scores`, `grades` [n]. Raises UserError for an N outside 1 … n.
    """
    scores, grades = np.asarray(scores, dtype=float), np.asarray(grades, dtype=float)
    values, group = np.unique(-scores, return_inverse=True)
    shared = (np.bincount(group, grades, minlength=len(values)) / np.bincount(group))[group]
    values = pick_chances(len(scores), cutoffs) @ shared[np.argsort(-scores, kind="stable")]
    return np.clip(values, grades.min(), grades.max())  # which rounding leaves


def check_grades(grades: np.ndarray, source: str = "the qrels") -> None:
    """Raises UserError where all candidates are graded alike, so that no reranker can be told from another."""
    if len(grades) and np.ptp(grades) == 0:
        what = {0.0: "no candidate is right", 1.0: "no candidate is wrong"}.get(
            grades[0], f"all have the grade {grades[0]:g}"
        )
        raise UserError(f"{source}: {what}, so no reranker can be told from another")


def by_scores(scores: np.ndarray) -> Picker:
    """The picker of a reranker that gave each row of the run a score."""
    return lambda rows, grades, cutoffs: expected_best(scores[rows], grades, cutoffs)


def text_chances(counts: np.ndarray, cutoffs: Sequence[int]) -> np.ndarray:
    """[len(cutoffs), K]: the chance that each of K distinct texts, drawn `counts` [K] times, is the first of N random draws
    when the texts stand in a random order.

    Of numbers that are uniform from 0 to 1, one for each text, let that of a text be 1 − y: the others stand before it with the
    chance y each, A draws in all, and it is first if none of these and one of its own c is among the N, which has the
    chance (C(n − A, N) − C(n − A − c, N)) / C(n, N). Its expectation over A is a polynomial in y, whose integral from 0
    to 1 is Gauss and Legendre's sum; A's distribution, a convolution, is taken by its Fourier transform. No sampling:
    exact up to rounding below 200 texts, and to 1e-9 above. Raises UserError for an N outside 1 … n.
    """
    n, texts = int(counts.sum()), len(counts)
    sizes, kind = np.unique(counts, return_inverse=True)
    left = _none_among(n, cutoffs)
    if len(sizes) == 1:  # none is before another
        return np.full((len(cutoffs), texts), 1 / texts)
    waves = np.arange((n + 1) // 2 + 1)
    folded = np.where(2 * waves % (n + 1) == 0, 1.0, 2.0) / (n + 1)  # a real signal's other half is this one's mirror
    out = np.zeros((len(cutoffs), len(sizes)))
    for i, others in enumerate(_others_before(sizes, np.bincount(kind), waves)):
        spectrum = np.fft.rfft(left[:, : n + 1] - left[:, sizes[i] : sizes[i] + n + 1])
        out[:, i] = (others * folded * spectrum.conj()).real.sum(axis=1)
    return out[:, kind]


def _none_among(n: int, cutoffs: Sequence[int]) -> np.ndarray:
    """[len(cutoffs), 2n + 1]: the chance that none of a given draws is among N random ones out of n. Raises UserError for an N
    outside 1 … n."""
    out = np.zeros((len(cutoffs), 2 * n + 1))
    for row, N in zip(out, cutoffs):
        if not 1 <= N <= n:
            raise UserError(f"best of {N} needs at least {N} candidates per query, and a query has {n}")
        size = np.arange(n, N, -1)
        row[: n - N + 1] = np.cumprod(np.append(1.0, (size - N) / size))
    return out


def _others_before(sizes: np.ndarray, many: np.ndarray, waves: np.ndarray) -> Iterator[np.ndarray]:
    """For a text of each of the `sizes`: the Fourier transform, at `waves`, of the distribution of the draws of other texts
    that stand before it, over all orders. many: how many texts have each size.

    A text of size c before it with the chance y has the transform f(y) = 1 − y + y·w^c, and the others' is a product. The
    points of the sum over y mirror each other at 1/2, and f(1 − y) = w^c·conj(f(y)), so that half of them do.
    """
    n, texts = int(sizes @ many), int(many.sum())
    points, weights = _quadrature(min(2 * ((texts + 3) // 4), 100))  # an even number: none is 1/2, where f may be 0
    half = len(points) // 2
    y, weights = (points[:half, None] + 1) / 2, weights[:half] / 2
    turns = [np.exp(-2j * np.pi * (size * waves % (n + 1)) / (n + 1)) for size in sizes]
    factors = [1 - y + y * turn for turn in turns]
    whole = functools.reduce(np.multiply, map(_power, factors, many))
    for size, factor in zip(sizes, factors):
        one_half = weights @ (whole / factor)
        rest = (n - size) * waves % (n + 1)
        yield one_half + np.exp(-2j * np.pi * rest / (n + 1)) * one_half.conj()


def _power(base: np.ndarray, exponent: int) -> np.ndarray:
    """base ** exponent, exponent ≥ 1, by squaring: of complex numbers several times faster than numpy's."""
    out = None
    while True:
        if exponent & 1:
            out = base if out is None else out * base
        exponent >>= 1
        if not exponent:
            return out
        base = base * base


@functools.cache
def _quadrature(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of Gauss and Legendre's sum from −1 to 1."""
    return np.polynomial.legendre.leggauss(count)


def by_texts(texts: Sequence[str]) -> Picker:
    """The picker of a reranker that gives each distinct text a random number: the expectation over all such. `texts` [rows
    of the run]."""
    texts = np.asarray(texts, dtype=object)

    def pick(rows: np.ndarray, grades: np.ndarray, cutoffs: Sequence[int]) -> np.ndarray:
        group = pd.factorize(texts[rows])[0]
        counts = np.bincount(group)
        values = text_chances(counts, cutoffs) @ (np.bincount(group, grades) / counts)
        return np.clip(values, grades.min(), grades.max())  # which rounding leaves

    return pick


def curves(
    run: pd.DataFrame, grades: np.ndarray, pickers: dict[str, Picker], cutoffs: Sequence[int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(results, values per query) of each reranker at each N, as `measures.evaluate` returns them.

    `grades` [rows of run]. results: run (the reranker's name), measure "best-of-N", cutoff, value, low, high (`stats.mean_intervals`
    over queries), n (queries). Raises UserError for a query with fewer candidates than N.
    """
    lists = run.reset_index(drop=True).groupby("query_id", sort=True).indices
    for query_id, rows in lists.items():
        if len(rows) < max(cutoffs):
            raise UserError(f"query {query_id} has {len(rows)} candidates, fewer than the largest N, {max(cutoffs)}")
    results, per_query = [], []
    for name, pick in pickers.items():
        values = np.array([pick(rows, grades[rows], cutoffs) for rows in lists.values()])
        low, high = stats.mean_intervals(values)
        named = {"run": name, "measure": "best-of-N"}
        about = {"value": values.mean(axis=0), "low": low, "high": high, "n": len(values)}
        results.append(pd.DataFrame({**named, "cutoff": list(cutoffs), **about}))
        each = {"query_id": np.repeat(list(lists), len(cutoffs)), "cutoff": list(cutoffs) * len(lists)}
        per_query.append(pd.DataFrame({**named, **each, "value": values.ravel()}))
    return pd.concat(results, ignore_index=True), pd.concat(per_query, ignore_index=True)


def picker(found: Scores, seed: int) -> Picker:
    """How a reranker picks among N: by its scores, or by an election that N draws hold among themselves."""
    from irlens.rerank.vote import expected_vote_accuracy

    if found.answers is None:
        return by_scores(found.scores)

    def elect(rows: np.ndarray, grades: np.ndarray, at: Sequence[int]) -> np.ndarray:
        answers = [found.answers[row] for row in rows]
        weights = None if found.weights is None else found.weights[rows]
        return expected_vote_accuracy(answers, grades, at, seed=seed, weights=weights)

    return elect


def has_texts(run: pd.DataFrame) -> bool:
    """Whether each row says what its candidate is."""
    return "text" in run.columns and bool(run["text"].map(lambda text: isinstance(text, str)).all())


def pools(run: pd.DataFrame) -> dict[str, list[int]]:
    """Rows that compete, by name: those of a tag; of a run without tags those of a temperature; else all."""
    if "tag" in run.columns:
        return {str(tag): list(rows) for tag, rows in run.groupby("tag", sort=False).indices.items()}
    if "temperature" in run.columns and run["temperature"].nunique() > 1:
        return {f"T = {t:g}": list(rows) for t, rows in run.groupby("temperature", sort=False).indices.items()}
    return {"run": list(range(len(run)))}


def fewest(run: pd.DataFrame) -> int:
    """The candidates of the query that has the fewest in one of the `pools`: the largest N that can be measured."""
    return min(int(run.iloc[rows].groupby("query_id").size().min()) for rows in pools(run).values())


def measured(
    run: pd.DataFrame,
    grades: np.ndarray,
    found: Mapping[str, Scores],
    at: Sequence[int],
    right_from: float | None = None,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """(results, values per query, `quality`) of rerankers in each pool of candidates, its name in the column `tag`.

    grades [rows of run]; found: what each reranker gives for these rows, the one named random among them, whose
    expectation counts and not the one order that it gives. Where the rows hold texts, PER_TEXT is beside it. right_from: as in `quality`; None is `threshold`'s. seed: of
    elections. Draws have their temperature in a column.
    """
    right_from = threshold(grades) if right_from is None else right_from
    results, per_query, qualities = [], [], []
    for tag, rows in pools(run).items():
        part, own = run.iloc[rows], {name: one.of(rows) for name, one in found.items()}
        pick = {name: picker(one, seed) for name, one in own.items()}
        pick["random"] = by_scores(grades[rows] * 0)
        if has_texts(part):
            pick[PER_TEXT] = by_texts(part["text"].tolist())
        parts = (
            *curves(part, grades[rows], pick, at),
            quality(part, grades[rows], {name: one.scores for name, one in own.items()}, right_from),
        )
        heat = {"temperature": temperature_of(part)} if "temperature" in run.columns else {}
        for table, into in zip(parts, (results, per_query, qualities)):
            into.append(table.assign(tag=tag, **heat))
    return tuple(pd.concat(parts, ignore_index=True) for parts in (results, per_query, qualities))


def temperature_of(part: pd.DataFrame) -> float:
    """The temperature of draws that all have one; NaN of others."""
    known = part["temperature"].unique()
    return float(known[0]) if len(known) == 1 else float("nan")


def tests(per_query: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Each reranker against one draw, a random number per text and the majority vote at every N above 1, paired over queries,
    Holm over all."""
    rows = []
    some = per_query[per_query["cutoff"] > 1]
    for (tag, cutoff), group in some.groupby(["tag", "cutoff"], sort=False):
        values = {name: part.sort_values("query_id")["value"].to_numpy() for name, part in group.groupby("run")}
        for before in ("random", PER_TEXT, "majority"):
            for after in values:
                if before in values and after not in (*ALWAYS, before):
                    test = stats.paired_test(values[before], values[after], seed=seed)
                    rows.append({"tag": tag, "cutoff": cutoff, "before": before, "after": after, **asdict(test)})
    found = pd.DataFrame(rows)
    return found.assign(p_holm=stats.holm(found["p"])) if rows else found
