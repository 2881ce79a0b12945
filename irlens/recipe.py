"""A TOML recipe: stages of a preset, checked before the first one starts, then run one after the other."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens import stages
from irlens.errors import UserError, did_you_mean
from irlens.folder import OutputFolder
from irlens.settings import BestOfN, Index, Mine, PassK, Recall, Rerank, Train, Verify, settings_from
from irlens.stages import measuring

if TYPE_CHECKING:
    from irlens.panels import Panel

STAGES = {
    "passk": (PassK, stages.passk),
    "index": (Index, stages.index),
    "recall": (Recall, stages.recall),
    "mine-negatives": (Mine, stages.mine_negatives),
    "train": (Train, stages.train),
    "rerank": (Rerank, stages.rerank),
    "verify": (Verify, stages.verify),
    "best-of-n": (BestOfN, stages.best_of_n),
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
    steps = [{"stage": stage, **asdict(settings)} for stage, settings in recipe.steps]
    with OutputFolder(out, "reproduce", {"recipe": recipe.name, "preset": recipe.preset, "steps": steps}):
        say(f"{recipe.title} (preset {recipe.preset})")
        found = {}
        for number, (stage, settings) in enumerate(recipe.steps, 1):
            say(f"stage {number} of {len(recipe.steps)}: {stage}")
            settings = _with_inputs(replace(settings, out=str(out / f"{number}-{stage}")), out)
            found[stage] = STAGES[stage][1](settings, say)[1]
        if recipe.figure in FIGURES:
            FIGURES[recipe.figure](found, out / recipe.name, recipe)
    return out


def _with_inputs(settings, out: Path):
    """`settings` whose `run` and `qrels` may name the folder of an earlier step, such as "1-passk"."""
    given = {name: getattr(settings, name, None) for name in ("run", "qrels")}
    return replace(settings, **{k: str(out / v) for k, v in given.items() if v and (out / v).is_dir()})


def _left(found: dict, recipe: Recipe) -> Panel:
    """Figure 2a: our Recall@N curves with the paper's e5 points as hollow marks."""
    from irlens import paper
    from irlens.panels import Panel

    points = paper.points("2a").rename(columns={"y": "value"})
    settings = next(s for stage, s in recipe.steps if stage == "recall")
    title = f"Recall@N on {settings.dataset} (lines); e5 on NQ (paper)"
    return Panel(measuring.recall_curves(found["recall"]), title, "N (passages per question)", "Recall@N", points)


def _right(found: dict, recipe: Recipe) -> Panel:
    """Figure 2b: our Pass@N curves with the paper's Mathstral points as hollow marks."""
    from irlens import paper
    from irlens.panels import Panel

    points = paper.points("2b").rename(columns={"y": "value"})
    points["curve"] = points["curve"].str.replace(r".*?([\d.]+)\D*$", r"T = \1", regex=True)
    settings = next(s for stage, s in recipe.steps if stage == "passk")
    title = f"Pass@N of {settings.model} (lines) and of Mathstral on GSM8K (paper)"
    return Panel(measuring.passk_curves(found["passk"]), title, "N (draws per problem)", "Pass@N", points)


def _figure(*sides: Callable) -> Callable:
    """Draws one panel, or several beside each other."""

    def draw(found: dict, path: Path, recipe: Recipe) -> list[Path]:
        from irlens import panels, plots

        parts = [side(found, recipe) for side in sides]
        if len(parts) > 1:
            return panels.panels(parts, path, log_x=True)
        (p,) = parts
        labels = {"x_label": p.x_label, "y_label": p.y_label}
        return plots.curves(p.table, path, title=p.title, log_x=True, paper=p.paper, **labels)

    return draw


FIGURES = {"2a": _figure(_left), "2b": _figure(_right), "2": _figure(_left, _right)}
