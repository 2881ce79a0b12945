"""The page of a rehearsal: what ran, what was cut, what the real steps will take on given devices, what was not checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from irlens.base.errors import UserError, did_you_mean
from irlens.base.untrusted import markdown, markdown_table
from irlens.commands.settings import Train
from irlens.models import catalog
from irlens.reproduce import costs
from irlens.reproduce.costs import Cost
from irlens.reproduce.records import Recipe, Step
from irlens.reproduce.rehearsal.cut import Cut
from irlens.reproduce.rehearsal.furnish import Model, named

DEVICES = {  # kind → peak of bfloat16 without sparsity, FLOP/s; memory, GiB. Source: the makers' data sheets
    "A100-40GB": (312e12, 40),
    "A100-80GB": (312e12, 80),
    "H100-80GB": (989e12, 80),
    "H200-141GB": (989e12, 141),
    "B200-180GB": (2250e12, 180),
    "L4-24GB": (121e12, 24),
    "L40S-48GB": (362e12, 48),
    "MI300X-192GB": (1307e12, 192),
    "RTX3090-24GB": (71e12, 24),
    "RTX4090-24GB": (165e12, 24),
}
SAVED = 2  # bytes per parameter of a saved policy (bfloat16, as those of half-precision starts are)
STORED = 2  # bytes per parameter of what is downloaded (bfloat16)
UNCHECKED = (
    "GPUs: kernels in bfloat16, device memory, how the model is spread over several, how fast any of it is.",
    "Downloads: licences that must be accepted, a hub that does not answer, room for the files.",
    "Published weights: that they load, that their vocabulary fits their tokenizer, that their responses end in time.",
    "Long texts: prompts and responses here are a few dozen tokens, and the windows of sliding attention are 32.",
    "The data: how many prompts are too long, how many lists the real draws give, how many responses are cut.",
)
PAIRRM = "PairRM as published: its config.json does not name its encoder's sizes, a stand-in's has to."


def machine(kind: str) -> tuple[str, float, int]:
    """(kind, FLOP/s, GiB). Raises UserError for a kind that is not in DEVICES."""
    if kind not in DEVICES:
        raise UserError(f"--device-kind {kind!r}; {did_you_mean(kind, DEVICES)}")
    return (kind, *DEVICES[kind])


@dataclass(frozen=True)
class Rehearsed:
    """A recipe and what its rehearsal was: the cut steps, the stand-ins, the process's report, its folder, its seconds."""

    real: Recipe
    small: Recipe
    cuts: tuple[Cut, ...]
    models: tuple[Model, ...]
    report: dict
    run: Path
    seconds: float


def written(told: Rehearsed, devices: int, kind: tuple[str, float, int]) -> str:
    """The page in Markdown."""
    real, failed = told.real, told.report["failed"]
    head = f"# Rehearsal: {markdown(real.title)} (preset {real.preset})"
    if failed:
        verdict = f"**Failed at {markdown(failed['step'])}: {markdown(failed['why'])}.** What the table does not call run was not tried."
    else:
        verdict = f"All {len(real.steps)} steps, the figures and the verdicts ran, in {told.seconds:.0f} s on this CPU."
    no_meaning = (
        "Weights were random, policies were taught for seconds to write short answers that end, and problems were made up: "
        "**no number under `run/` means anything.**"
    )
    parts = [head, f"{verdict} {no_meaning}", *_ran(told), *_stood_in(told), *_takes(told, devices, kind)]
    without = list(dict.fromkeys(words for cut in told.cuts for words in cut.not_rehearsed))
    parts += [
        "## What this could not check",
        _items([*without, *UNCHECKED, *[PAIRRM] * any(m.role == "pairrm" for m in told.models)]),
    ]
    return "\n\n".join(parts) + "\n"


# -- what ran ------------------------------------------------------------------------------------------------------


def _ran(told: Rehearsed) -> Iterator[str]:
    yield "## What ran, and what was cut"
    rows = [
        (step.real.name, *_done(told, number, step.real), _changes(step)) for number, step in enumerate(told.cuts, 1)
    ]
    yield markdown_table(("step", "ran", "s here", "cut: real → rehearsed"), rows)
    yield (
        "Not cut: draws per prompt, temperatures, list shapes, memory, objectives and their parameters, learning rates, lists "
        "per step, limits on prompts, engines but for those named at the end, and every file that is written."
    )


def _done(told: Rehearsed, number: int, step: Step) -> tuple[str, str]:
    """(whether it ran, seconds) of a step, by its manifest."""
    manifest = next(told.run.glob(f"{number}-*/manifest.json"), None)
    if told.report["failed"] and told.report["failed"]["step"] == step.name:
        return "failed", "–"
    if manifest is None:
        return "no", "–"
    found = json.loads(manifest.read_text(encoding="utf-8"))
    return {"complete": "yes"}.get(found["status"], "ended early"), f"{found.get('wall_seconds', 0):.1f}"


def _changes(cut: Cut) -> str:
    return (
        "; ".join(f"{name} {_number(real)} → {_number(now)}" for name, (real, now) in cut.changed.items()) or "nothing"
    )


def _number(value) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _stood_in(told: Rehearsed) -> Iterator[str]:
    sizes = told.report["stand_ins"]
    if not told.models:
        return
    yield "## Stand-ins"
    yield _items(
        f"{m.origin} ({m.role}), {sizes[key]:,} parameters"
        if (key := f"{m.repo} ({m.role})") in sizes
        else f"{m.origin} ({m.role}), not made"
        for m in told.models
    )


# -- what the real ones take ---------------------------------------------------------------------------------------


def _takes(told: Rehearsed, devices: int, kind: tuple[str, float, int]) -> Iterator[str]:
    name, peak, gib = kind
    each = costs.of_steps(told.real.steps)
    rows = [
        (step.name, *_estimate(cost, _disk(step, told.real), devices, peak, gib))
        for step, cost in zip(told.real.steps, each)
    ]
    disks = [_disk(step, told.real) for step in told.real.steps]
    every = None if None in disks else sum(filter(None, disks))
    rows.append(("**all**", *_estimate(costs.total(each), every, devices, peak, gib)))
    plural = "s" * (devices > 1)
    yield f"## What it will take on {devices} {name}"
    yield markdown_table(("step", "hours", "GPU memory", "disk", "tokens drawn", "tokens trained"), rows)
    yield (
        f"Hours are GPU-hours over {devices} device{plural}, as if all of them always worked. Disk: policies that are kept, "
        f"{SAVED} bytes a parameter. {_asked(costs.total(each))}Beside it {_downloads(told.real)} of published weights are downloaded once. {costs.FORMULA}"
    )


def _asked(cost: Cost) -> str:
    return f"Judges at servers: {costs.in_words(cost)}. " if cost.asked else ""


def _estimate(cost: Cost, disk: float | None, devices: int, peak: float, gib: int) -> tuple[str, ...]:
    hours = "not known" if cost.gpu_hours is None else _hours(cost, costs.PEAK / peak / devices)
    memory = "not known" if cost.gpu_gib is None else _memory(cost.gpu_gib, devices, gib)
    return hours, memory, _gib(disk), f"{cost.generated:,}", f"{cost.trained:,}"


def _hours(cost: Cost, scale: float) -> str:
    if cost.gpu_hours:
        return f"{cost.gpu_hours * scale:,.2g}" if cost.gpu_hours * scale < 1 else f"{cost.gpu_hours * scale:,.1f}"
    return f"{cost.cpu_minutes:,.1f} min on a CPU core" if cost.cpu_minutes else "–"


def _memory(needed: float, devices: int, gib: int) -> str:
    """What a step needs of all devices together before activations and caches, and whether they have it."""
    if not needed:
        return "none"
    if needed <= gib:
        return f"{needed:,.1f} GiB: one has it" if needed < 10 else f"{needed:,.0f} GiB: one has it"
    fits = f"{devices} sharded have it" if needed <= devices * gib else f"{devices} do not have it"
    return f"{needed:,.0f} GiB: {fits}"


def _disk(step: Step, recipe: Recipe) -> float | None:
    """GiB of the policies that a training keeps; None where its size is not known."""
    if not isinstance(step.settings, Train):
        return 0.0
    models = {s.name: s.settings.model for s in recipe.steps if s.stage == "train"}
    name = step.settings.model
    while name.startswith("@"):
        name = models[name[1:]]
    found = costs.parameters(name)
    return None if found is None else step.settings.iterations * SAVED * found / costs.GIB


def _downloads(recipe: Recipe) -> str:
    """GiB of the published weights that the steps name."""
    names = dict.fromkeys(pair for step in recipe.steps for pair in named(step))
    total, unknown = 0, 0
    for name, _ in names:
        tables = (catalog.MODELS, catalog.REWARDS, catalog.ENCODERS)
        known = next((table[name] for table in tables if name in table), None)
        if known is not None and known.repo:
            total += (known.parameters or 0) * STORED
        elif "/" in name and not Path(name).is_dir():
            unknown += 1
    return _gib(total / costs.GIB) + (f" and {unknown} of unknown size" if unknown else "")


def _gib(value: float | None) -> str:
    return (
        "not known" if value is None else f"{value:,.0f} GiB" if value >= 10 else f"{value:,.2g} GiB" if value else "–"
    )


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {markdown(line)}" for line in lines)
