"""How often the 95 % intervals of `irlens.measure.stats` hold the truth, on data whose truth is known: experiments/bench/coverage.csv.

    python experiments/bench/coverage.py [--samples 2000] [--out experiments/bench/coverage.csv]

A row is a cell: what is measured, of which distribution, on how many problems and seeds; its true mean, the share of
samples whose interval holds it, the mean width, how many intervals had no width, and `known`: whether any method can
know. `few`: in a sample fewer than 25 effective problems carry the mean's distance from a bound (such as all right but
two), where counts are coarse and an honest interval is wide. `seeds`: two or three seeds, or seeds that differ more than
all else, so that ten numbers or fewer say all that is known.
All samples of a cell are one array; the seed of a cell is made of its name, so that one cell can be run alone.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from irlens.measure import stats

PROBLEMS = (30, 100, 300, 1000)
MEANS = (0.02, 0.1, 0.5, 0.9, 0.98)
SPREADS = {"Beta, a + b = 0.3": 0.3, "Beta, a + b = 1": 1.0, "Beta, a + b = 5": 5.0, "constant": np.inf}
FEW = 25


@dataclass(frozen=True)
class Cell:
    """One line of the table. draw: (random numbers, samples) → values[problems, samples], of kinds that are crossed
    values[seeds, problems, samples]. carry: effective problems that carry the mean, per problem."""

    kind: str
    data: str
    problems: int
    truth: float
    draw: Callable[[np.random.Generator, int], np.ndarray]
    draws: int = 1
    at: int = 1
    seeds: int = 1
    carry: float = 1.0
    dominant: bool = False

    @property
    def known(self) -> str:
        """Whether a method can know: yes, few (problems carry the mean), seeds (too few)."""
        return (
            "seeds" if self.seeds in (2, 3) or self.dominant else "few" if self.carry * self.problems < FEW else "yes"
        )


def pass_values(draws: int, at: int) -> np.ndarray:
    """[draws + 1] Pass@N of a problem with 0 … draws right ones."""
    right = np.arange(draws + 1)
    wrong = np.array([np.prod(1 - at / np.arange(draws - c + 1, draws + 1)) if draws - c >= at else 0.0 for c in right])
    return 1 - wrong


def counts(mean: float, spread: float, draws: int) -> np.ndarray:
    """[draws + 1] the chance of each number of right draws, the problem's own p being Beta of that mean and a + b."""
    right = np.arange(draws + 1)
    if np.isinf(spread):
        return scipy_stats.binom.pmf(right, draws, mean)
    return scipy_stats.betabinom.pmf(right, draws, spread * mean, spread * (1 - mean))


def carried(values: np.ndarray, chances: np.ndarray) -> float:
    """√((E x)³ / E x³) of the distance from the nearer bound, 0 or 1, as `stats._doubt` counts problems."""
    return min(float(np.sqrt((chances @ x) ** 3 / max(chances @ x**3, 1e-300))) for x in (values, 1 - values))


def from_atoms(values: np.ndarray, chances: np.ndarray, n: int) -> Callable:
    """Draws values[n, samples] of a discrete distribution."""
    edges = np.cumsum(chances)[:-1]
    return lambda rng, samples: values[np.searchsorted(edges, rng.random((n, samples)))]


def rates() -> Iterator[Cell]:
    """Pass@N of one run: 1 to 128 draws, N from 1 to all of them; all right and all wrong."""
    for n in PROBLEMS:
        for name, spread in SPREADS.items():
            for mean in (0.0, *MEANS, 1.0) if name == "constant" else MEANS:
                for draws in (1, 4, 16, 128):
                    for at in sorted({1, max(1, draws // 8), max(1, draws // 2), draws}):
                        values, chances = pass_values(draws, at), counts(mean, spread, draws)
                        truth = float(values @ chances)
                        of = from_atoms(values, chances, n)
                        about, carry = f"{name}, mean {mean:g}", carried(values, chances)
                        yield Cell("rate", about, n, truth, of, draws, at, 1, carry)


def continuous() -> Iterator[Cell]:
    """Measures such as nDCG: from 0 to 1, some problems at 0 or at 1."""
    shapes = {"Beta(2, 2)": (0, 0, 2, 2), "Beta(0.5, 0.5)": (0, 0, 0.5, 0.5), "30 % 0, Beta(2, 2)": (0.3, 0, 2, 2),
              "30 % 0, 30 % 1, Beta(1, 1)": (0.3, 0.3, 1, 1), "40 % 1, Beta(3, 1)": (0, 0.4, 3, 1), "80 % 0, Beta(1, 3)": (0.8, 0, 1, 3)}  # fmt: skip
    for n in PROBLEMS:
        for name, (zero, one, a, b) in shapes.items():

            def draw(rng, samples, n=n, zero=zero, one=one, a=a, b=b):
                where, inner = rng.random((n, samples)), rng.beta(a, b, (n, samples))
                return np.where(where < zero, 0.0, np.where(where < zero + one, 1.0, inner))

            grid = scipy_stats.beta.ppf((np.arange(2000) + 0.5) / 2000, a, b)
            atoms = np.r_[0.0, 1.0, grid]
            chances = np.r_[zero, one, np.full(2000, (1 - zero - one) / 2000)]
            truth = one + (1 - zero - one) * a / (a + b)
            yield Cell("continuous", name, n, truth, draw, carry=carried(atoms, chances))


def rewards() -> Iterator[Cell]:
    """Values without bounds."""
    families = {"normal": scipy_stats.norm(3, 2), "Laplace": scipy_stats.laplace(), "exponential": scipy_stats.expon(),
                "log-normal, sigma 0.7": scipy_stats.lognorm(0.7)}  # fmt: skip
    for n in PROBLEMS:
        for name, family in families.items():
            draw = lambda rng, samples, n=n, f=family: f.rvs((n, samples), random_state=rng)  # noqa: E731
            yield Cell("reward", name, n, float(family.mean()), draw)


def differences() -> Iterator[Cell]:
    """Two systems on the same problems: right or wrong, or shares of right draws."""
    for n in PROBLEMS:
        for up, down in ((0, 0), (0.02, 0.02), (0.05, 0.01), (0.05, 0), (0.1, 0.1), (0.3, 0.1), (0.2, 0), (0.9, 0)):
            chances = np.array([down, 1 - up - down, up])
            of = from_atoms(np.array([-1.0, 0.0, 1.0]), chances, n)
            name = f"right or wrong, {100 * up:g} % gained, {100 * down:g} % lost"
            yield Cell("difference", name, n, up - down, of, carry=up + down)
        for spread, draws, mean in ((1, 4, 0.5), (1, 16, 0.9), (5, 4, 0.1), (np.inf, 4, 0.02), (np.inf, 16, 0.5)):
            gain = 0.05 if np.isinf(spread) else 0.0

            def draw(rng, samples, n=n, spread=spread, draws=draws, mean=mean, gain=gain):
                p = np.full((n, samples), mean)
                p = p if np.isinf(spread) else rng.beta(spread * mean, spread * (1 - mean), (n, samples))
                return (rng.binomial(draws, p + gain) - rng.binomial(draws, p)) / draws

            of_size = np.abs(draw(np.random.default_rng(0), 20_000 // n))
            carry = float(np.sqrt(of_size.mean() ** 3 / (of_size**3).mean()))
            what = "the same p" if np.isinf(spread) else f"Beta, a + b = {spread:g}"
            yield Cell("difference", f"{what}, mean {mean:g}", n, gain, draw, draws, carry=carry)


SEED_SPREADS = {"none": 0.0, "small": 0.05, "as the problems'": 0.2, "large": 0.6, "dominant": 1.5}


def crossed() -> Iterator[Cell]:
    """Seeds × problems: logit p = base + problem + seed; for differences the seed and the problem move the gain."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    weights = weights / weights.sum()
    logistic = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    for seeds in (2, 3, 5, 10):
        for n in (100, 500):
            for name, sd in SEED_SPREADS.items():
                for base, problem, draws in ((-0.6, 1.5, 4), (2.5, 0.0, 16), (0.0, 3.0, 1)):
                    total = np.hypot(sd, problem)
                    truth = float(weights @ logistic(base + total * nodes))

                    def draw(rng, samples, seeds=seeds, n=n, sd=sd, base=base, problem=problem, draws=draws):
                        of = base + sd * rng.normal(size=(seeds, 1, samples)) + problem * rng.normal(size=(n, samples))
                        return rng.binomial(draws, logistic(of)) / draws

                    about = f"between seeds {name}; base {base:g}, problems' sd {problem:g}"
                    carry = min(truth, 1 - truth)
                    yield Cell("crossed", about, n, truth, draw, draws, seeds=seeds, carry=carry, dominant=sd > 1)

                def gain(rng, samples, seeds=seeds, n=n, sd=sd):
                    p = 0.25 + 0.5 * rng.beta(2, 2, (n, samples))  # even about 1/2, so that clipping moves no mean
                    moved = p + 0.1 * (sd * rng.normal(size=(seeds, 1, samples)) + 0.5 * rng.normal(size=(n, samples)))
                    first, second = (np.broadcast_to(q, (seeds, n, samples)) for q in (p, np.clip(moved, 0, 1)))
                    return (rng.binomial(4, second) - rng.binomial(4, first)) / 4

                yield Cell("crossed difference", f"between seeds {name}", n, 0.0, gain, 4, seeds=seeds, dominant=sd > 1)


def trends() -> Iterator[Cell]:
    """Page's trend test where nothing rises: coverage is the share of samples that it does not reject."""
    for seeds in (2, 3, 5, 10):
        for arms in (3, 4, 5):
            draw = lambda rng, samples, shape=(seeds, arms): rng.normal(size=(*shape, samples))  # noqa: E731
            yield Cell("trend", f"{arms} arms, nothing rises", arms, 0.0, draw, seeds=seeds, carry=FEW)


INTERVALS = {
    "rate": lambda values: stats.mean_intervals(values, bounds=(0, 1)),
    "continuous": lambda values: stats.mean_intervals(values, bounds=(0, 1)),
    "reward": lambda values: stats.mean_intervals(values, bounds=(-np.inf, np.inf)),
    "difference": lambda values: stats.crossed_differences(values[None], bounds=(-1, 1)),
    "crossed": lambda values: stats.crossed_intervals(values, bounds=(0, 1)),
    "crossed difference": lambda values: stats.crossed_differences(values, bounds=(-1, 1)),
}


def measure(cell: Cell, samples: int) -> dict:
    """The row of a cell."""
    name = (cell.kind, cell.data, cell.problems, cell.draws, cell.at, cell.seeds)
    rng = np.random.default_rng(zlib.crc32(repr(name).encode()))
    about = dict(zip(("kind", "data", "problems", "draws", "N", "seeds"), name))
    about |= {"truth": cell.truth, "known": cell.known}
    if cell.kind == "trend":
        found = cell.draw(rng, samples // 10)
        p = np.array([stats.trend_test(found[..., i]).p for i in range(found.shape[-1])])
        return about | {"coverage": float((p >= 0.05).mean()), "samples": len(p)}
    hits = width = none = done = 0
    chunk = max(1, min(samples, 1_000_000 // (cell.problems * cell.seeds)))
    while done < samples:
        size = min(chunk, samples - done)
        low, high = INTERVALS[cell.kind](cell.draw(rng, size))
        hits += ((low <= cell.truth + 1e-9) & (cell.truth - 1e-9 <= high)).sum()
        width, none, done = width + (high - low).sum(), none + (~(high > low)).sum(), done + size
    return about | {"coverage": hits / done, "width": width / done, "without_width": int(none), "samples": done}


def cells() -> list[Cell]:
    """All of the table."""
    return [*rates(), *continuous(), *rewards(), *differences(), *crossed(), *trends()]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Per kind and `known`: cells, the least, the median and the largest coverage, the share of cells from .935 to .965."""
    inside = table["coverage"].between(0.935, 0.965)
    groups = table.assign(inside=inside, low=table["coverage"] < 0.92).groupby(["kind", "known"], sort=False)
    named = {"cells": ("coverage", "size"), "least": ("coverage", "min"), "median": ("coverage", "median")}
    named |= {"most": ("coverage", "max"), "inside": ("inside", "mean"), "below_.92": ("low", "sum")}
    return groups.agg(**named).round(3).reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    asked = parser.parse_args()
    table = pd.DataFrame([measure(cell, asked.samples) for cell in cells()])
    table.to_csv(asked.out, index=False, float_format="%.5g")
    print(summary(table).to_string(index=False))


if __name__ == "__main__":
    main()
