"""What recipes would do and cost, before anything is run or downloaded: `irlens reproduce --list` and `--dry-run`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace

from rich.measure import Measurement

from irlens.cli.report import new_table, say, tables, wrapped
from irlens.commands import memory
from irlens.commands.settings import Train
from irlens.models import catalog
from irlens.models.memory import GIB
from irlens.reproduce import chat, costs, recipe, tuning
from irlens.reproduce.costs import Cost
from irlens.reproduce.records import Step


def listing() -> None:
    """All recipes in all presets with what each costs, within 80 columns, and how the numbers are estimated."""
    say(f"{'Recipes (one seed)':<22}{'GPU memory':>11}{'GPU-hours':>11}{'generated':>11}{'trained':>10}{'CPU min':>9}")
    for name in recipe.names():
        for number, preset in enumerate(sorted(recipe.presets(name), key=lambda preset: (preset != "tiny", preset))):
            loaded = recipe.load(name, preset)
            if not number:
                say(f"\n{name}: {loaded.title.partition(': ')[2] or loaded.title}")
            cost = costs.total(costs.of_steps([*tuning.steps(loaded), *loaded.steps]))
            memory, hours, generated, trained, minutes = _numbers(cost)
            say(f"  {preset:<20}{memory:>11}{hours:>11}{generated:>11}{trained:>10}{minutes:>9}")
    say("\ngenerated, trained: tokens")
    wrapped(costs.FORMULA)


def dry_run(loaded: recipe.Recipe, seeds: int, room: int | None = None) -> None:
    """What the stages share and how they differ, what each one does and costs, and what each phase needs of a GPU, beside
    the `room` (bytes) of one."""
    runs = f"{seeds} seed{'s' * (seeds > 1)}; nothing is run or downloaded"
    wrapped(f"{loaded.title} (preset {loaded.preset}), {runs}")
    groups = _groups(loaded.steps)
    for stage in dict.fromkeys(step.stage for step in loaded.steps):
        own = {name: some for name, some in groups.items() if some[0].stage == stage}
        _settings(stage, {name: _resolved(some[0].settings, len(some)) for name, some in own.items()})
    spent = dict(zip((step.name for step in loaded.steps), costs.of_steps(loaded.steps)))
    tried = costs.total(costs.of_steps(tuning.steps(loaded)))
    every = costs.total([tried, *[*spent.values()] * seeds])
    shown = {"tuning": tried} if loaded.tune else {}
    shown |= {name: costs.total(spent[step.name] for step in some) for name, some in groups.items()}
    _spent(shown | {"all": every})
    _memory(loaded.steps, room)
    if loaded.tune:
        wrapped(f"Tuning: {tuning.plan(loaded)}.")
    if loaded.left_out:
        wrapped(f"{loaded.left_out}.")
    if every.asked:
        wrapped(f"Judges: {costs.in_words(every)}.")
    note = "tokens: generated; trained: tokens, over all epochs"
    wrapped(f"{note}. GPU memory: {_gib(every.gpu_gib)}. {costs.FORMULA}")


def _spent(found: dict[str, Cost]) -> None:
    """A row for each, and of the columns those in which anything stands."""
    rows = {name: _counts(cost) for name, cost in found.items()}
    names = ("prompts", "draws", "lists", "tokens", "trained", "GPU-h", "CPU min")
    shown = [i for i in range(len(names)) if any(row[i] != "–" for row in rows.values())]
    table = new_table("", "stage", *(names[i] for i in shown))
    for name, row in rows.items():
        table.add_row(name, *(row[i] for i in shown), style="bold" if row is rows["all"] else None)
    tables.print(table)


WAYS = {  # column → (GPUs, changes): ways to train
    "train": (1, {}),
    "on 8": (8, {"shard": False}),
    "8, --shard": (8, {"shard": True, "quantize": None}),
    "--lora-rank 16": (1, {"lora_rank": 16, "shard": False}),
}


def _memory(steps: Sequence[Step], room: int | None) -> None:
    """GiB that each phase needs of one GPU, for each model: the most of its steps; nothing where all run on a CPU."""
    found: dict[str, dict[str, float]] = {}
    for step in steps:
        model = getattr(step.settings, "model", "tiny")
        if (
            step.stage not in ("sample", "passk", "mine-negatives", "train")
            or model in catalog.EMBEDDED
            or model.startswith("@")
        ):
            continue
        row = found.setdefault(model, {})
        ways = WAYS if step.stage == "train" else {"train": (1, {})}
        for way, (gpus, change) in ways.items():
            for need in memory.needs(replace(step.settings, **change), gpus, ask=False):
                column = {"drawing from": "draw", "scoring by": "score"}.get(need.phase, way)
                row[column] = max(row.get(column, 0.0), need.total)
    columns = [name for name in ("draw", "score", *WAYS) if any(name in row for row in found.values())]
    if not columns:
        return
    table = new_table("", "GiB of each GPU", *columns)
    for model, row in found.items():
        table.add_row(model, *(_fits(row.get(name), room) for name in columns))
    tables.print(table)
    if room:
        wrapped(f"!: more than the {room / GIB:,.0f} GiB of a GPU")


def _fits(need: float | None, room: int | None) -> str:
    return "–" if need is None else f"{need / GIB:,.0f}{' !' if room and need > room else ''}"


def _groups(steps: Sequence[Step]) -> dict[str, list[Step]]:
    """What is shown as one → its steps: each alone, but the same test, draws or judging of several policies together."""
    found: dict[str, list[Step]] = {}
    chats = chat.names(steps)
    for step in steps:
        number = re.fullmatch(r"test .*?( \d+)?", step.name)
        name = step.name.partition(" ")[0] if step.name in chats else f"test{number[1] or ''}" if number else step.name
        found.setdefault(name, []).append(step)
    return found


def _settings(stage: str, own: dict[str, dict[str, str]]) -> None:
    """What all of a stage share in a sentence, and how they differ: a table, or lines where that is too wide."""
    shared = dict(set.intersection(*(set(found.items()) for found in own.values())))
    first = next(iter(own.values()))
    words = _listed({key: first[key] for key in first if key in shared})
    wrapped(f"\n{stage}{f', all {len(own)}' if len(own) > 1 else ''}: {words}")
    if len(own) == 1:
        return
    different = [key for key in dict.fromkeys(k for found in own.values() for k in found) if key not in shared]
    table = new_table("", stage, *different, left=1 + len(different))
    for name, found in own.items():
        table.add_row(name, *(found.get(key, "–") for key in different))
    if Measurement.get(tables, tables.options.update(width=1000), table).maximum <= tables.width:
        tables.print(table)
        return
    for name, found in own.items():
        wrapped(f"  {name}: {_listed({key: found[key] for key in different if key in found})}")


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in found.items())


def _resolved(settings, policies: int = 1) -> dict[str, str]:
    """Name → value of every setting that is given, or that the model decides; of the same test of several policies."""
    from irlens.train import losses as objectives

    judged = ("outputs", "runs")  # an arm's answers, in every step of theirs
    found = {k: v for k, v in asdict(settings).items() if v is not None and k not in ("out", *judged)}
    if policies > 1 and "model" in found:
        found["model"] = f"the start and {policies - 1} trained"
    plain = asdict(type(settings)())
    model = found.get("model", "")
    if model in catalog.MODELS:
        known = catalog.MODELS[model]
        found |= {k: getattr(known, k) for k in ("dataset", "max_tokens") if not found.get(k)}
        if isinstance(settings, Train):
            own = ("learning_rate", "beta") if objectives.get(settings.objective).model_beta else ("learning_rate",)
            found |= {k: getattr(known, k) for k in own if k not in found}
    if isinstance(settings, Train) and settings.whole:
        found["all_draws"] = True
    elif isinstance(settings, Train):
        found["positives"], found["negatives"] = settings.shape
    shown = ("model", "dataset", "objective", "n", "temperature", "iterations", "prompts", "lists", "epochs", "seed")
    return {key: _text(value) for key, value in found.items() if key in shown or plain.get(key) != value}


def _text(value) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _numbers(cost: Cost) -> list[str]:
    return [
        _gib(cost.gpu_gib),
        _hours(cost.gpu_hours),
        _short(cost.generated),
        _short(cost.trained),
        _hours(cost.cpu_minutes),
    ]


def _counts(cost: Cost) -> list[str]:
    counts = (cost.prompts, cost.draws, cost.lists, cost.generated, cost.trained)
    return [*map(_short, counts), _hours(cost.gpu_hours), _hours(cost.cpu_minutes)]


def _gib(value: float | None) -> str:
    return "not known" if value is None else f"{value:,.{0 if value >= 10 else 1}f} GiB" if value else "none"


def _hours(value: float | None) -> str:
    return "not known" if value is None else f"{value:,.1f}" if value else "–"


def _short(count: int) -> str:
    """`4.6 M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f} {letter}"
    return str(count) if count else "–"
