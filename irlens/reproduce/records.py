"""What a recipe is: its stages, the claim or study that it makes, and what a stage left behind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.untrusted import file_name
from irlens.commands.chat import WinRate
from irlens.commands.exchange import MixEval
from irlens.commands.reranking import FitReranker
from irlens.commands.reward_models import RewardBench
from irlens.commands.settings import STAGES as PLAIN

if TYPE_CHECKING:
    import pandas as pd

LEARNED = {"fit-reranker": FitReranker, "rewardbench": RewardBench}
STAGES = PLAIN | LEARNED | {"winrate": WinRate, "mixeval": MixEval}  # what a recipe may have → its settings
OVER = "over-optimisation"  # the kind of study that puts a reward beside the truth (`reproduce.overoptimisation`)
PAIR = re.compile(r"T = (\d+(?:\.\d+)?) > T = (\d+(?:\.\d+)?) at N = (\d+)")


@dataclass(frozen=True)
class Step:
    """One stage of a recipe. `name` is what later ones call it: a model `@name` is the policy that it chose; a run, qrels,
    or what a judge is to see `@name` its folder."""

    stage: str
    name: str
    settings: object

    def folder(self, number: int) -> str:
        """What its folder is called, as the step of this number; another judge has another folder."""
        judge = self.settings.judge if isinstance(self.settings, (WinRate, MixEval)) else None
        return f"{number}-{self.name.replace(' ', '-')}" + (f"-{file_name(judge)}" if judge else "")


@dataclass(frozen=True)
class Done:
    """A finished step: its folder and its results; or why it ended without any."""

    folder: Path
    results: pd.DataFrame | None
    ended: str | None = None


@dataclass(frozen=True)
class Claim:
    """What Figure 2b is to show. text: the paper's words. better: "T = 0.1 > T = 1 at N = 1", each a paired test."""

    text: str
    better: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[float, float, int]]:
        """(temperature that is better, that is worse, N) of each."""
        parts = [PAIR.fullmatch(pair).groups() for pair in self.better]
        return [(float(better), float(worse), int(N)) for better, worse, N in parts]


@dataclass(frozen=True)
class Study:
    """What the arms (the names of a recipe's train stages) are to show.

    claim: the paper's words. order: arms from worst to best as claimed, for a trend test. better: pairs "better >
    worse", each a paired test. measure and temperature: what decides. gain: points that every arm is to gain over the
    start. kind: a figure of `bars` (one per arm), of what arms gain over the start (`gains`), of arms on an `axis` (x,
    x_label: their places, in their order), of values after each of the `iterations`, against the `budget` of tokens
    generated, where the arms are compared at equal tokens, or of a reward beside the truth (OVER). beside: the paper's
    figure (3a) or table (table3, its `column`) that is drawn beside ours; group: the models of those of the table's
    rows that ours stand for. also: other measures at that temperature that are tested and drawn too, which decide
    nothing.
    """

    claim: str
    kind: str = "bars"
    measure: str = "Pass@1"
    temperature: float = 1.0
    order: tuple[str, ...] = ()
    better: tuple[str, ...] = ()
    x: tuple[float, ...] | None = None
    x_label: str = ""
    gain: float | None = None
    beside: str = ""
    column: str = ""
    group: str = ""
    also: tuple[str, ...] = ()

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(better, worse) of each pair."""
        return [tuple(part.strip() for part in pair.split(">")) for pair in self.better]

    @property
    def label(self) -> str:
        """What decides, in words."""
        return f"{self.measure} at T = {self.temperature:g}"


@dataclass(frozen=True)
class Tune:
    """A grid of learning rates, each tried once by every arm with this seed, on so many validation problems with n draws
    of each."""

    learning_rate: tuple[float, ...]
    limit: int = 300
    n: int = 16
    seed: int = 1000


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: the steps of one preset; `figure` names the paper's figure and `claim` what that is to show,
    `study` what trained arms are to show; `left_out` says what is no part of it here; `tune`: the rates that are tried
    before."""

    name: str
    title: str
    figure: str | None
    preset: str
    steps: tuple[Step, ...]
    study: Study | None = None
    claim: Claim | None = None
    left_out: str = ""
    tune: Tune | None = None
