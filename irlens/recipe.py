"""A TOML recipe: stages of a preset, checked before the first one starts, then run one after the other."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from irlens import catalog, contamination, stages, studies
from irlens import seeds as apart
from irlens.arms import Done
from irlens.errors import UserError, did_you_mean
from irlens.folder import OutputFolder
from irlens.settings import BestOfN, Index, Mine, PassK, Recall, Rerank, Train, Verify, settings_from
from irlens.stages import measuring
from irlens.studies import Study, check_study

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
REFERENCES = ("model", "run", "qrels")
KEYS = ("title", "like", "figure", "shared", "preset", "test", "study")


@dataclass(frozen=True)
class Step:
    """One stage of a recipe. `name` is what later ones call it: a model `@name` is the policy that it chose, a run or
    qrels `@name` its folder."""

    stage: str
    name: str
    settings: object


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: the steps of one preset; `figure` names the paper's figure, `study` what its arms are to show."""

    name: str
    title: str
    figure: str | None
    preset: str
    steps: tuple[Step, ...]
    study: Study | None = None


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
    path, content = _content(name)
    presets = content.get("preset", {})
    if preset not in presets:
        raise UserError(
            f"{path}: no preset {preset!r}; {did_you_mean(preset, presets) if presets else 'the recipe has none'}"
        )
    entries = presets[preset]
    if isinstance(entries, str):  # another preset's stages, with settings of its own
        if not isinstance(presets.get(entries), list):
            raise UserError(f"{path}: preset {preset} = {entries!r}: no such preset with stages")
        entries = presets[entries]
    shared = content.get("shared", {})
    for table in ("shared", "test"):
        for other in content.get(table, {}).keys() - presets.keys():
            raise UserError(f"{path}: {table}.{other}: no such preset; {did_you_mean(other, presets)}")
    steps = _steps(entries, shared.get(preset, {}), f"{path}: preset {preset}")
    tested = content.get("test", {}).get(preset)
    if tested:
        steps += _tests(steps, tested, f"{path}: test {preset}")
    study = None
    if "study" in content:
        plain = {key: value for key, value in content["study"].items() if key not in presets}
        study = settings_from(Study, plain | content["study"].get(preset, {}), f"{path}: study")
        check_study(study, steps, f"{path}: study")
    return Recipe(path.stem, content.get("title", path.stem), content.get("figure"), preset, tuple(steps), study)


def presets(name: str) -> list[str]:
    """The presets of a recipe."""
    return list(_content(name)[1].get("preset", {}))


def _content(name: str) -> tuple[Path, dict]:
    """The file of a recipe and what it says, with what it takes from the recipe that it is `like`."""
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
    if "like" in content:
        if content["like"] == name:
            raise UserError(f"{path}: a recipe cannot be like itself")
        content = _over(_content(content["like"])[1], content)
    return path, content


def _over(below: dict, above: dict) -> dict:
    """`below` with what `above` says, table by table."""
    both = {k: _over(below[k], v) for k, v in above.items() if isinstance(v, dict) and isinstance(below.get(k), dict)}
    return below | above | both


def _steps(entries: list[dict], shared: dict, where: str) -> list[Step]:
    """The stages of a preset; each has the `shared` settings and, before those, its own."""
    steps: list[Step] = []
    for number, entry in enumerate(entries, 1):
        here = f"{where}, stage {number}"
        entry = shared | entry
        stage, name = entry.pop("stage", None), entry.pop("name", None)
        if stage not in STAGES:
            raise UserError(f"{here}: unknown stage {stage!r}; {did_you_mean(str(stage), STAGES)}")
        if "out" in entry:
            raise UserError(f"{here}: `out` is given by the command, not by the recipe")
        steps.append(_named(Step(stage, name or stage, settings_from(STAGES[stage][0], entry, here)), steps, here))
    if not steps:
        raise UserError(f"{where} has no stage")
    return steps


def _named(step: Step, before: list[Step], where: str) -> Step:
    """`step`, if its name is its own and the policy it asks for is made by an earlier one."""
    if step.name in {other.name for other in before}:
        raise UserError(f"{where}: two stages are called {step.name!r}; give each a `name`")
    for key in REFERENCES:
        given = getattr(step.settings, key, None)
        known = [other.name for other in before if key != "model" or other.stage == "train"]
        if isinstance(given, str) and given.startswith("@") and given[1:] not in known:
            what = "train stage" if key == "model" else "stage"
            raise UserError(
                f"{where}: {key} {given!r}: no earlier {what} of that name; {did_you_mean(given[1:], known)}"
            )
    return step


def _tests(steps: list[Step], entries: list[dict], where: str) -> list[Step]:
    """Pass@N of the start and of every trained policy on the same test problems: steps `test start`, `test NAME`.

    Each entry is such a set of steps: other temperatures may need fewer draws. From the second on, names end in its number.
    """
    arms = {step.name: step.settings for step in steps if step.stage == "train"}
    if not arms:
        raise UserError(f"{where}: no stage trains, so there is nothing to test")
    start, made = next(iter(arms.values())).model, []
    for number, entry in enumerate(entries, 1):
        settings = settings_from(PassK, {"model": start} | entry, where)
        for arm in ("start", *arms):
            name = f"test {arm}" + (f" {number}" if number > 1 else "")
            made.append(Step("passk", name, replace(settings, model=start if arm == "start" else f"@{arm}")))
    return made


def run(
    recipe: Recipe,
    out: Path | None,
    say: Callable[[str], None] = print,
    seeds: Sequence[int] | None = None,
    style: str = "screen",
    jobs: int | None = None,
) -> Path:
    """Runs the stages into `out/1-<name>`, `out/2-<name>` …, with `seeds` once for each under `out/seed-<s>`, then
    draws the figure with the paper's points beside ours and says what the study found.

    jobs: seeds to run at once, by default as `seeds.jobs_for` has it.
    """
    if seeds and len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {','.join(map(str, seeds))}: the same seed twice is not another run")
    out = out or Path("irlens-out") / f"{recipe.name}-{recipe.preset}"
    steps = [{"stage": step.stage, "name": step.name, **asdict(step.settings)} for step in recipe.steps]
    kept = {"recipe": recipe.name, "preset": recipe.preset, "steps": steps}
    with OutputFolder(out, "reproduce", kept | {"by_seed": bool(seeds)}) as folder:  # more seeds may come later
        say(f"{recipe.title} (preset {recipe.preset})")
        if seeds and len(seeds) > 1 and (jobs := min(jobs or apart.jobs_for(len(seeds)), len(seeds))) > 1:
            found = apart.run(partial(_run_seed, recipe, out), seeds, jobs, out, say)
        elif seeds:
            found = [_run_seed(recipe, out, seed, say) for seed in seeds]
        else:
            found = [_run_steps(recipe, out, None, say)]
        folder.note(contamination=_contamination(recipe, found[0]), **_account(found))
        for words in dict.fromkeys(map(contamination.in_words, folder.facts["contamination"].values())):
            say(f"contamination: {words}")
        if recipe.figure in FIGURES:
            FIGURES[recipe.figure](
                {name: done.results for name, done in found[0].items()}, out / recipe.name, recipe, style
            )
        if recipe.study:
            folder.note(conclusions=studies.report(recipe, found, out, say, style))
    return out


def _contamination(recipe: Recipe, found: dict[str, Done]) -> dict[str, dict]:
    """Train stage → how many of the problems that it, or a step `test …`, measures occur among its training prompts."""
    from irlens import tasks
    from irlens.stages.common import train_split

    out = {}
    for step in recipe.steps:
        if step.stage != "train":
            continue
        s = step.settings
        dataset = s.dataset or catalog.model(s.model).dataset
        held_out = json.loads((found[step.name].folder / "manifest.json").read_text(encoding="utf-8"))
        out[step.name] = held_out.get("contamination", {})
        tests = {
            (t.settings.dataset or dataset, t.settings.split, t.settings.limit)
            for t in recipe.steps
            if t.name.startswith("test ")
        }
        for asked in sorted(tests, key=lambda test: test[2] or float("inf")):  # the largest set of a split counts
            trained, test = tasks.load(dataset, train_split(s)), tasks.load(*asked)
            out[step.name][test.split] = contamination.overlap(trained.topics, test.topics)
    return out


def _account(found: Sequence[dict[str, Done]]) -> dict[str, int]:
    """Tokens and seconds over all steps and seeds, as their manifests have them."""
    sums = dict.fromkeys(
        ("tokens_generated", "tokens_generated_evaluation", "tokens_trained", "reward_calls", "wall_seconds"), 0
    )
    for done in (done for seed in found for done in seed.values()):
        manifest = json.loads((done.folder / "manifest.json").read_text(encoding="utf-8"))
        sums = {key: value + (manifest.get(key) or 0) for key, value in sums.items()}
    return {f"{key}_of_steps" if key == "wall_seconds" else key: round(value, 1) for key, value in sums.items()}


def _run_seed(recipe: Recipe, out: Path, seed: int, say: Callable[[str], None] = print) -> dict[str, Done]:
    say(f"seed {seed}")
    return _run_steps(recipe, out / f"seed-{seed}", seed, say)


def _run_steps(recipe: Recipe, out: Path, seed: int | None, say: Callable[[str], None]) -> dict[str, Done]:
    found: dict[str, Done] = {}
    for number, step in enumerate(recipe.steps, 1):
        say(f"stage {number} of {len(recipe.steps)}: {step.name}")
        settings = replace(step.settings, out=str(out / f"{number}-{step.name.replace(' ', '-')}"))
        if seed is not None:
            settings = replace(settings, seed=seed)
        settings = _resolved(settings, found)
        path, results, *_ = STAGES[step.stage][1](settings, say)
        found[step.name] = Done(path, results)
    return found


def _resolved(settings, found: dict[str, Done]):
    """`settings` with "@name" replaced: a `model` by the policy that step chose, `run` and `qrels` by its folder."""
    for key in REFERENCES:
        given = getattr(settings, key, None)
        if isinstance(given, str) and given.startswith("@"):
            folder = found[given[1:]].folder
            if key == "model":
                chosen = json.loads((folder / "chosen.json").read_text(encoding="utf-8"))
                inside = folder / f"iteration-{chosen['iteration']}" / "model"
                folder = inside if inside.is_dir() else chosen["model"]  # the start lies elsewhere
            settings = replace(settings, **{key: str(folder)})
    return settings


def _left(found: dict, recipe: Recipe) -> Panel:
    """Figure 2a: our Recall@N curves with the paper's e5 points as hollow marks."""
    from irlens import paper
    from irlens.panels import Panel

    points = paper.points("2a").rename(columns={"y": "value"})
    settings = next(step.settings for step in recipe.steps if step.stage == "recall")
    title = f"Recall@N on {settings.dataset} (lines); e5 on NQ (paper)"
    return Panel(measuring.recall_curves(found["recall"]), title, "N (passages per question)", "Recall@N", points)


def _right(found: dict, recipe: Recipe) -> Panel:
    """Figure 2b: our Pass@N curves with the paper's Mathstral points as hollow marks."""
    from irlens import paper
    from irlens.panels import Panel

    points = paper.points("2b").rename(columns={"y": "value"})
    points["curve"] = points["curve"].str.replace(r".*?([\d.]+)\D*$", r"T = \1", regex=True)
    settings = next(step.settings for step in recipe.steps if step.stage == "passk")
    title = f"Pass@N of {settings.model} (lines) and of Mathstral on GSM8K (paper)"
    return Panel(measuring.passk_curves(found["passk"]), title, "N (draws per problem)", "Pass@N", points)


def _figure(*sides: Callable) -> Callable:
    """Draws one panel, or several beside each other."""

    def draw(found: dict, path: Path, recipe: Recipe, style: str) -> list[Path]:
        from irlens import panels, plots

        parts = [side(found, recipe) for side in sides]
        if len(parts) > 1:
            return panels.panels(parts, path, log_x=True, style=style)
        (p,) = parts
        labels = {"x_label": p.x_label, "y_label": p.y_label}
        return plots.curves(p.table, path, title=p.title, log_x=True, paper=p.paper, style=style, **labels)

    return draw


FIGURES = {"2a": _figure(_left), "2b": _figure(_right), "2": _figure(_left, _right)}
