"""A TOML recipe: stages of a preset, checked before the first one starts, then run one after the other."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens import arms as of_arms
from irlens import catalog, contamination, figure2, parallel, stages, studies, tables
from irlens import kept as kept_values
from irlens.arms import Done
from irlens.errors import NothingToRank, UserError, did_you_mean
from irlens.folder import OutputFolder
from irlens.seeds import check as check_seed
from irlens.settings import BestOfN, Index, Mine, PassK, Recall, Rerank, Train, Verify, settings_from
from irlens.studies import Study, check_study

if TYPE_CHECKING:
    import pandas as pd

PER_PROBLEM = "per_problem.parquet"  # what the figure and the verdicts are drawn from
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
KEYS = ("title", "like", "figure", "claim", "shared", "preset", "test", "study")


@dataclass(frozen=True)
class Step:
    """One stage of a recipe. `name` is what later ones call it: a model `@name` is the policy that it chose, a run or
    qrels `@name` its folder."""

    stage: str
    name: str
    settings: object


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: the steps of one preset; `figure` names the paper's figure and `claim` what that is to show,
    `study` what trained arms are to show."""

    name: str
    title: str
    figure: str | None
    preset: str
    steps: tuple[Step, ...]
    study: Study | None = None
    claim: figure2.Claim | None = None


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
    figure, claim, study = content.get("figure"), None, None
    if figure is not None:
        figure2.check(figure, steps, f"{path}: figure")
    if "claim" in content:
        if "study" in content:
            raise UserError(f"{path}: a recipe has a claim (of Figure 2b) or a study: both write tests.csv")
        claim = settings_from(figure2.Claim, content["claim"], f"{path}: claim")
        figure2.check_claim(claim, steps, f"{path}: claim")
    if "study" in content:
        plain = {key: value for key, value in content["study"].items() if key not in presets}
        study = settings_from(Study, plain | content["study"].get(preset, {}), f"{path}: study")
        check_study(study, steps, f"{path}: study")
    return Recipe(path.stem, content.get("title", path.stem), figure, preset, tuple(steps), study, claim)


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

    jobs: how many parts to run at once (seeds, and arms that need nothing of each other), by default as
    `parallel.jobs_for` has it; one at a time they run in this process.
    """
    if seeds and len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {','.join(map(str, seeds))}: the same seed twice is not another run")
    for seed in seeds or ():
        check_seed(seed, "--seeds")
    out = out or Path("irlens-out") / f"{recipe.name}-{recipe.preset}"
    steps = [{"stage": step.stage, "name": step.name, **asdict(step.settings)} for step in recipe.steps]
    kept = {"recipe": recipe.name, "preset": recipe.preset, "steps": steps}
    with OutputFolder(out, "reproduce", kept | {"by_seed": bool(seeds)}) as folder:  # more seeds may come later
        say(f"{recipe.title} (preset {recipe.preset})")
        found = _run_all(recipe, out, seeds, jobs, say)
        ended = {s.name: why for s in recipe.steps if s.stage == "train" and (why := of_arms.ended(s.name, found))}
        folder.note(contamination=_contamination(recipe, found[0]), **_account(found), arms_ended=ended)
        for words in dict.fromkeys(map(contamination.in_words, folder.facts["contamination"].values())):
            say(f"contamination: {words}")
        if recipe.figure or recipe.claim or recipe.study:
            table = kept_values.collect(recipe, found)
            tables.write_parquet(table, out / PER_PROBLEM)
            folder.note(**_drawn(recipe, table, out, say, style))
    return out


def redraw(
    recipe: Recipe, table: Path, out: Path | None, say: Callable[[str], None] = print, style: str = "screen"
) -> Path:
    """Draws the figure and judges the claims of an earlier run again, from its per_problem.parquet alone.

    Raises UserError: no such table, one of another recipe or preset, a recipe that draws nothing.
    """
    if not (recipe.figure or recipe.claim or recipe.study):
        raise UserError(f"{recipe.name} has neither a figure nor a claim to draw again")
    values = kept_values.read(table, recipe)
    out = out or Path("irlens-out") / f"{recipe.name}-{recipe.preset}-redrawn"
    kept = {"recipe": recipe.name, "preset": recipe.preset, "redrawn_from": str(table), "style": style}
    with OutputFolder(out, "reproduce", kept) as folder:
        say(f"{recipe.title} (preset {recipe.preset}), again from {table}")
        folder.note(**_drawn(recipe, values, out, say, style))
    return out


def _drawn(recipe: Recipe, table: pd.DataFrame, out: Path, say: Callable[[str], None], style: str) -> dict:
    """Draws what the recipe draws from a table of values per problem; {"conclusions": sentences} where it claims."""
    if recipe.figure:
        figure2.draw(recipe, table, out / recipe.name, style)
    if recipe.claim:
        return {"conclusions": figure2.report(recipe, recipe.claim, table, out, say)}
    if recipe.study:
        return {"conclusions": studies.report(recipe, table, out, say, style)}
    return {}


def _contamination(recipe: Recipe, found: dict[str, Done]) -> dict[str, dict]:
    """Train stage → how many of the problems that it, or a step `test …`, measures occur among its training prompts."""
    from irlens import tasks
    from irlens.stages.common import train_split

    out = {}
    for step in recipe.steps:
        if step.stage != "train" or found[step.name].ended:
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
        if done.ended and not (done.folder / "manifest.json").is_file():  # it never began
            continue
        manifest = json.loads((done.folder / "manifest.json").read_text(encoding="utf-8"))
        sums = {key: value + (manifest.get(key) or 0) for key, value in sums.items()}
    return {f"{key}_of_steps" if key == "wall_seconds" else key: round(value, 1) for key, value in sums.items()}


def _run_all(
    recipe: Recipe, out: Path, seeds: Sequence[int] | None, jobs: int | None, say: Callable[[str], None]
) -> list[dict[str, Done]]:
    """What every step made, a dictionary per seed (one of them where no seeds are given)."""
    groups, several = _independent(recipe.steps), seeds or [None]
    count = len(several) * len(groups)
    jobs = min(jobs or parallel.jobs_for(count), count)
    if jobs == 1:
        units = [(seed, tuple(step.name for step in recipe.steps)) for seed in several]
        done = [_run_steps(recipe, out, *unit, say) for unit in units]
    else:
        units = [(seed, group) for seed in several for group in groups]
        done = parallel.run(_run_steps, [_part(recipe, out, *unit, len(groups) > 1) for unit in units], jobs, say)
    found: dict[int | None, dict[str, Done]] = {seed: {} for seed, _ in units}
    for (seed, _), made in zip(units, done):
        found[seed] |= made
    return [{step.name: made[step.name] for step in recipe.steps} for made in found.values()]


def _independent(steps: Sequence[Step]) -> list[tuple[str, ...]]:
    """The names of the steps, in groups that need nothing of each other.

    Every `@name` binds. Stages other than sampling and training may share an index or read a default folder: with one of
    those, all are one group.
    """
    if any(step.stage not in ("passk", "train") for step in steps):
        return [tuple(step.name for step in steps)]
    groups: dict[str, list[str]] = {}
    for step in steps:
        first = groups[step.settings.model[1:]][0] if step.settings.model.startswith("@") else step.name
        groups.setdefault(first, []).append(step.name)
        groups[step.name] = groups[first]
    return list(dict.fromkeys(map(tuple, groups.values())))


def _part(recipe: Recipe, out: Path, seed: int | None, group: tuple[str, ...], divided: bool) -> parallel.Part:
    words = [*([] if seed is None else [f"seed {seed}"]), *([group[0]] if divided else [])]
    log = (f"log-{group[0]}" if divided else "log").replace(" ", "-")
    return parallel.Part(", ".join(words), _of_seed(out, seed) / f"{log}.txt", (recipe, out, seed, group))


def _of_seed(out: Path, seed: int | None) -> Path:
    return out if seed is None else out / f"seed-{seed}"


def _run_steps(
    recipe: Recipe, out: Path, seed: int | None, group: tuple[str, ...], say: Callable[[str], None] = print
) -> dict[str, Done]:
    """The steps of a group, in the recipe's order; training that finds nothing to rank ends, and what needs it with it."""
    if seed is not None:
        say(f"seed {seed}")
    found: dict[str, Done] = {}
    for number, step in enumerate(recipe.steps, 1):
        if step.name not in group:
            continue
        say(f"stage {number} of {len(recipe.steps)}: {step.name}")
        folder = _of_seed(out, seed) / f"{number}-{step.name.replace(' ', '-')}"
        if (without := _ended(step, found)) is not None:
            say(f"left out: {without} ended")
            found[step.name] = Done(folder, None, f"{without} ended")
            continue
        settings = replace(step.settings, out=str(folder))
        if seed is not None:
            settings = replace(settings, seed=seed)
        settings = _resolved(settings, found)
        try:
            path, results, *_ = STAGES[step.stage][1](settings, say)
        except NothingToRank as error:
            say(f"{step.name} ended: {error}")
            found[step.name] = Done(folder, None, str(error))
        else:
            found[step.name] = Done(path, results)
    return found


def _ended(step: Step, found: dict[str, Done]) -> str | None:
    """The step that this one needs and that ended; None if there is none."""
    needs = [given[1:] for key in REFERENCES if (given := str(getattr(step.settings, key, ""))).startswith("@")]
    return next((name for name in needs if found[name].ended), None)


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
