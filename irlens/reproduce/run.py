"""A recipe run: its stages one after the other or several at once, for each seed, then its figure and what it found."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files, parallel
from irlens.base import store as stores
from irlens.base.errors import NothingToRank, UserError
from irlens.base.options import identity
from irlens.base.progress import plain
from irlens.base.seeds import check as check_seed
from irlens.base.untrusted import file_names
from irlens.commands import memory
from irlens.commands.best_of_n import best_of_n
from irlens.commands.fit_reranker import fit_reranker
from irlens.commands.folder import OutputFolder
from irlens.commands.index import index
from irlens.commands.mine_negatives import mine_negatives
from irlens.commands.mixeval import mixeval
from irlens.commands.passk import passk
from irlens.commands.recall import recall
from irlens.commands.rerank import rerank, verify
from irlens.commands.rewardbench import rewardbench
from irlens.commands.sample import sample
from irlens.commands.train import train
from irlens.commands.winrate import winrate
from irlens.models import catalog
from irlens.reproduce import arms as of_arms
from irlens.reproduce import chat, figure2, judges, overoptimisation, tuning
from irlens.reproduce import kept as kept_values
from irlens.reproduce import study as studies
from irlens.reproduce.recipe import references
from irlens.reproduce.records import OVER, Done, Recipe, Step
from irlens.tasks import contamination

if TYPE_CHECKING:
    import pandas as pd

PER_PROBLEM = "per_problem.parquet"  # what the figure and the verdicts are drawn from
COMMANDS = {  # stage → what runs it
    "sample": sample,
    "passk": passk,
    "index": index,
    "recall": recall,
    "mine-negatives": mine_negatives,
    "train": train,
    "rerank": rerank,
    "verify": verify,
    "best-of-n": best_of_n,
    "fit-reranker": fit_reranker,
    "rewardbench": rewardbench,
    "winrate": winrate,
    "mixeval": mixeval,
}


def run(
    recipe: Recipe,
    out: Path | None,
    say: Callable[[str], None] = print,
    seeds: Sequence[int] | None = None,
    style: str = "screen",
    jobs: int | None = None,
    store: str | None = None,
    devices: str | None = None,
) -> Path:
    """Runs the stages into `out/1-<name>`, `out/2-<name>` …, with `seeds` once for each under `out/seed-<s>`, then
    draws the figure with the paper's points beside ours and says what the study found.

    jobs: how many parts to run at once (seeds, and arms that need nothing of each other), by default as
    `parallel.jobs_for` has it; one at a time they run in this process. store: the folder of draws and scores that all
    steps share (`base.store`), by default beside `out`. devices: those of every step (`base.devices`).
    """
    if seeds and len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {','.join(map(str, seeds))}: the same seed twice is not another run")
    for seed in seeds or ():
        check_seed(seed, "--seeds")
    out = out or Path("irlens-out") / f"{recipe.name}-{recipe.preset}"
    kept = stores.place(store, out)
    recipe = _sharing(recipe, store="none" if kept is None else str(kept), devices=devices)
    _fits(recipe, say)
    kept, judged = _identity(recipe)
    kept |= {"by_seed": bool(seeds)}  # more seeds may come later
    with OutputFolder(out, "reproduce", kept, say=say, asked=[seeds, style, *judged]) as folder:
        say(f"{recipe.title} (preset {recipe.preset})")
        if recipe.left_out:
            say(recipe.left_out)
        if not folder.finished:
            judges.check(recipe, len(seeds or (0,)), say)
        jobs = 1 if folder.finished else jobs  # to be read, one process is quicker
        recipe = tuning.tuned(recipe, out, lambda tries, at: _run_all(tries, at, None, jobs, say)[0], say)
        read = _without_judges(recipe) if folder.finished else recipe  # whose servers may be gone by now
        found = _run_all(read, out, seeds, jobs, say)
        if folder.finished:
            for sentence in folder.facts.get("conclusions", ()):
                say(sentence)
            return out
        ended = {s.name: why for s in recipe.steps if s.stage == "train" and (why := of_arms.ended(s.name, found))}
        folder.note(contamination=_contamination(recipe, found[0]), **_account(found), arms_ended=ended)
        for words in dict.fromkeys(map(contamination.in_words, folder.facts["contamination"].values())):
            say(f"contamination: {words}")
        if recipe.figure or recipe.claim or recipe.study:
            table = kept_values.collect(recipe, found)
            files.write_parquet(table, out / PER_PROBLEM)
            folder.note(**_drawn(recipe, table, out, say, style))
    return out


def _identity(recipe: Recipe) -> tuple[dict, list[dict]]:
    """(what makes the folder what it is, the steps that draw for judges and judge): these have folders that know their own,
    so that the same policies may meet another judge."""
    steps = [{"stage": step.stage, "name": step.name, **identity(step.settings)} for step in recipe.steps]
    chats = chat.names(recipe.steps)
    kept = {"recipe": recipe.name, "preset": recipe.preset, "steps": [s for s in steps if s["name"] not in chats]}
    kept |= tuning.identity(recipe.tune)
    return kept, [s for s in steps if s["name"] in chats]


def _without_judges(recipe: Recipe) -> Recipe:
    """The recipe without the steps that ask a judge."""
    return replace(recipe, steps=tuple(step for step in recipe.steps if step.stage not in chat.JUDGES))


def _sharing(recipe: Recipe, **shared: str | None) -> Recipe:
    """`recipe` with these settings for all of its steps that have none of their own."""

    def sharing(settings):
        known = {n: value for n, value in shared.items() if value is not None and getattr(settings, n, value) is None}
        return replace(settings, **known)

    return replace(recipe, steps=tuple(replace(step, settings=sharing(step.settings)) for step in recipe.steps))


def _fits(recipe: Recipe, say: Callable[[str], None]) -> None:
    """Says what the stages need of each device, every line once. Raises UserError, before anything is downloaded, naming
    the first stage that cannot fit."""
    lines: dict[str, None] = {}
    for step in recipe.steps:
        if step.stage in ("sample", "passk", "mine-negatives", "train") and not step.settings.model.startswith("@"):
            try:
                memory.check(step.settings, lines.setdefault)
            except UserError as error:
                raise UserError(f"{step.name}: {error}") from error
    for line in lines:
        say(line)


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
        report = overoptimisation.report if recipe.study.kind == OVER else studies.report
        return {"conclusions": report(recipe, table, out, say, style)}
    return {}


def _contamination(recipe: Recipe, found: dict[str, Done]) -> dict[str, dict]:
    """Train stage → how many of the problems that it, or a step `test …`, measures occur among its training prompts."""
    from irlens import tasks
    from irlens.commands.drawing import train_split

    out = {}
    answered = [draws for _, arm, draws in chat.of(recipe.steps) if arm == chat.START]
    for step in recipe.steps:
        if step.stage != "train" or found[step.name].ended:
            continue
        s = step.settings
        dataset = s.dataset or catalog.model(s.model).dataset
        held_out = json.loads((found[step.name].folder / "manifest.json").read_text(encoding="utf-8"))
        out[step.name] = held_out.get("contamination", {})
        asked_of = [t.settings for t in recipe.steps if t.name.startswith("test ")] + answered
        tests = {(t.dataset or dataset, t.split, t.limit) for t in asked_of}
        for asked in sorted(tests, key=lambda test: test[2] or float("inf")):  # the largest set of a split counts
            trained, test = tasks.load(dataset, train_split(s)), tasks.load(*asked)
            out[step.name][test.split] = contamination.overlap(trained.topics, test.topics)
    return out


def _account(found: Sequence[dict[str, Done]]) -> dict[str, int]:
    """Tokens and seconds over all steps and seeds, as their manifests have them."""
    sums = dict.fromkeys(
        ("tokens_generated", "tokens_generated_evaluation", "tokens_trained", "reward_calls", "calls", "wall_seconds"),
        0,
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

    Every `@name` binds. Stages other than sampling, training and judging may share an index or read a default folder: with
    one of those, all are one group.
    """
    if any(step.stage not in ("passk", "train", "sample", *chat.JUDGES) for step in steps):
        return [tuple(step.name for step in steps)]
    order, groups = [step.name for step in steps], {}
    for step in steps:
        bound = {step.name, *(name for _, needed in references(step.settings) for name in groups[needed])}
        groups |= dict.fromkeys(bound, tuple(sorted(bound, key=order.index)))
    return list(dict.fromkeys(groups.values()))


def _part(recipe: Recipe, out: Path, seed: int | None, group: tuple[str, ...], divided: bool) -> parallel.Part:
    words = [*([] if seed is None else [f"seed {seed}"]), *([group[0]] if divided else [])]
    log = f"log-{file_names(step.name for step in recipe.steps)[group[0]]}" if divided else "log"
    return parallel.Part(", ".join(words), _of_seed(out, seed) / f"{log}.txt", (recipe, out, seed, group))


def _of_seed(out: Path, seed: int | None) -> Path:
    return out if seed is None else out / f"seed-{seed}"


def _run_steps(
    recipe: Recipe, out: Path, seed: int | None, group: tuple[str, ...], say: Callable[[str], None] = plain
) -> dict[str, Done]:
    """The steps of a group, in the recipe's order; training that finds nothing to rank ends, and what needs it with it."""
    if seed is not None:
        say(f"seed {seed}")
    found: dict[str, Done] = {}
    for number, step in enumerate(recipe.steps, 1):
        if step.name not in group:
            continue
        say(f"stage {number} of {len(recipe.steps)}: {step.name}")
        folder = _of_seed(out, seed) / step.folder(number)
        if (without := _ended(step, found)) is not None:
            say(f"left out: {without} ended")
            found[step.name] = Done(folder, None, f"{without} ended")
            continue
        settings = replace(step.settings, out=str(folder))
        if seed is not None:
            settings = replace(settings, seed=seed)
        settings = _resolved(settings, found)
        try:
            path, results, *_ = COMMANDS[step.stage](settings, say)
        except NothingToRank as error:
            say(f"{step.name} ended: {error}")
            found[step.name] = Done(folder, None, str(error))
        except Exception as error:
            error.add_note(step.name)  # which step it was, for a rehearsal's page
            raise
        else:
            found[step.name] = Done(path, results)
    return found


def _ended(step: Step, found: dict[str, Done]) -> str | None:
    """The step that this one needs and that ended; None if there is none."""
    return next((name for _, name in references(step.settings) if found[name].ended), None)


def _resolved(settings, found: dict[str, Done]):
    """`settings` with "@name" replaced: a `model` by the policy that step chose, others by its folder."""
    for key, name in references(settings):
        folder, given = found[name].folder, getattr(settings, key)
        if key == "model":
            chosen = json.loads((folder / "chosen.json").read_text(encoding="utf-8"))
            inside = folder / f"iteration-{chosen['iteration']}" / "model"
            folder = inside if inside.is_dir() else chosen["model"]  # the start lies elsewhere
        here = str(folder) if isinstance(given, str) else [str(folder) if one == f"@{name}" else one for one in given]
        settings = replace(settings, **{key: here})
    return settings
