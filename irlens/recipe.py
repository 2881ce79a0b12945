"""A TOML recipe: stages of a preset, checked before the first one starts, then run one after the other."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from irlens import stages
from irlens.errors import UserError, did_you_mean
from irlens.settings import Index, Mine, PassK, Recall, Train, settings_from
from irlens.stages import measuring

STAGES = {
    "passk": (PassK, stages.passk),
    "index": (Index, stages.index),
    "recall": (Recall, stages.recall),
    "mine-negatives": (Mine, stages.mine_negatives),
    "train": (Train, stages.train),
}
KEYS = ("title", "figure", "preset")


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: `steps` are (stage name, settings) of one preset; `figure` names the paper's figure, if any."""

    name: str
    title: str
    figure: str | None
    preset: str
    steps: tuple[tuple[str, object], ...]


def folder() -> Path:
    """Where the recipes are: beside the package in a checkout, inside it once installed."""
    here = Path(__file__).parent
    installed = here / "experiments"
    return installed if installed.is_dir() else here.parent / "experiments"


def names() -> list[str]:
    """The recipes that ship with irlens."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def load(name: str, preset: str) -> Recipe:
    """A shipped recipe or a TOML file. Raises UserError for an unknown name, preset, stage or setting."""
    path = Path(name) if name.endswith(".toml") else folder() / f"{name}.toml"
    if not path.is_file():
        raise UserError(
            f"{path}: no such file"
            if name.endswith(".toml")
            else f"unknown recipe {name!r}; {did_you_mean(name, names())}"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: malformed TOML ({error})") from error
    for key in content:
        if key not in KEYS:
            raise UserError(f"{path}: unknown key {key!r}; {did_you_mean(key, KEYS)}")
    presets = content.get("preset", {})
    if preset not in presets:
        raise UserError(
            f"{path}: no preset {preset!r}; {did_you_mean(preset, presets) if presets else 'the recipe has none'}"
        )
    steps = []
    for number, step in enumerate(presets[preset], 1):
        where = f"{path}: preset {preset}, stage {number}"
        stage = step.pop("stage", None)
        if stage not in STAGES:
            raise UserError(f"{where}: unknown stage {stage!r}; {did_you_mean(str(stage), STAGES)}")
        if "out" in step:
            raise UserError(f"{where}: `out` is given by the command, not by the recipe")
        steps.append((stage, settings_from(STAGES[stage][0], step, where)))
    if not steps:
        raise UserError(f"{path}: preset {preset} has no stage")
    return Recipe(path.stem, content.get("title", path.stem), content.get("figure"), preset, tuple(steps))


def run(recipe: Recipe, out: Path | None, say: Callable[[str], None] = print) -> Path:
    """Runs the stages into `out/1-<stage>`, `out/2-<stage>` …, then draws the figure with the paper's points beside ours."""
    out = out or Path("irlens-out") / f"{recipe.name}-{recipe.preset}"
    say(f"{recipe.title} (preset {recipe.preset})")
    found = None
    for number, (stage, settings) in enumerate(recipe.steps, 1):
        say(f"stage {number} of {len(recipe.steps)}: {stage}")
        found = STAGES[stage][1](replace(settings, out=str(out / f"{number}-{stage}")), say)[1]
    if recipe.figure == "2b":
        figure_2b(found, out / recipe.name, recipe)
    return out


def figure_2b(results, path: Path, recipe: Recipe) -> list[Path]:
    """Our Pass@N curves with the paper's Mathstral points as hollow marks."""
    from irlens import paper

    points = paper.points("2b").rename(columns={"y": "value"})
    points["curve"] = points["curve"].str.replace(r".*?([\d.]+)\D*$", r"T = \1", regex=True)
    settings = recipe.steps[0][1]
    return measuring.plot_passk(
        results, path, f"Pass@N of {settings.model} (lines) and of Mathstral on GSM8K (paper)", paper=points
    )
