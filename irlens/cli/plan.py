"""What recipes would do and cost, before anything is run or downloaded: `irlens reproduce --list` and `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from irlens.cli.report import new_table, say, tables
from irlens.commands.settings import Train
from irlens.commands.train import list_shape
from irlens.models import catalog
from irlens.reproduce import costs, recipe
from irlens.reproduce.costs import Cost


def listing() -> None:
    """A table of all recipes in all presets, and how the numbers are estimated."""
    table = new_table(
        "Recipes (one seed)", "recipe", "preset", "GPU memory", "GPU-hours", "tokens generated", "trained", "CPU minutes",
        left=2,
    )  # fmt: skip
    for name in recipe.names():
        for number, preset in enumerate(sorted(recipe.presets(name), key=lambda preset: (preset != "tiny", preset))):
            loaded = recipe.load(name, preset)
            cost = costs.total(costs.of_steps(loaded.steps))
            first = f"{name}\n[dim]{loaded.title.partition(': ')[2] or loaded.title}[/dim]" if not number else ""
            table.add_row(first, preset, *_numbers(cost))
    tables.print(table)
    say(costs.FORMULA)


def dry_run(loaded: recipe.Recipe, seeds: int) -> None:
    """The stages in order: their settings, resolved, and what each one does and costs."""
    say(f"{loaded.title} (preset {loaded.preset}), {seeds} seed{'s' * (seeds > 1)}; nothing is run or downloaded")
    table = new_table(
        "", "stage", "prompts", "draws", "lists", "tokens generated", "trained", "GPU-hours", "CPU minutes"
    )
    spent = costs.of_steps(loaded.steps)
    for number, (step, cost) in enumerate(zip(loaded.steps, spent), 1):
        say(f"{number}. {step.name}: {step.stage}, {', '.join(_resolved(step.settings))}")
        table.add_row(step.name, *_counts(cost))
    every = costs.total(spent * seeds)
    table.add_row("all", *_counts(every), style="bold")
    tables.print(table)
    say(f"GPU memory: {_gib(every.gpu_gib)}. {costs.FORMULA}")


def _resolved(settings) -> Iterator[str]:
    """`name value` of every setting that is given, or that the model decides."""
    from irlens.train.losses import ranking as objectives

    found = {key: value for key, value in asdict(settings).items() if value is not None and key != "out"}
    plain = asdict(type(settings)())
    model = found.get("model", "")
    if model and not model.startswith("@") and model in catalog.MODELS:
        known = catalog.MODELS[model]
        found |= {k: getattr(known, k) for k in ("dataset", "max_tokens") if not found.get(k)}
        if isinstance(settings, Train):
            own = ("learning_rate", "beta") if objectives.get(settings.objective).model_beta else ("learning_rate",)
            found |= {k: getattr(known, k) for k in own if k not in found}
    if isinstance(settings, Train):
        found["positives"], found["negatives"] = list_shape(settings)
    shown = ("model", "dataset", "objective", "n", "temperature", "iterations", "prompts", "lists", "epochs", "seed")
    for key, value in found.items():
        if key in shown or plain.get(key) != value:
            text = (
                ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
                if isinstance(value, tuple)
                else value
            )
            yield f"{key} {text}"


def _numbers(cost: Cost) -> list[str]:
    return [
        _gib(cost.gpu_gib),
        _hours(cost.gpu_hours),
        _short(cost.generated),
        _short(cost.trained),
        _hours(cost.cpu_minutes),
    ]


def _counts(cost: Cost) -> list[str]:
    counts = [f"{n:,}" if n else "–" for n in (cost.prompts, cost.draws, cost.lists)]
    return [*counts, _short(cost.generated), _short(cost.trained), _hours(cost.gpu_hours), _hours(cost.cpu_minutes)]


def _gib(value: float | None) -> str:
    return "not known" if value is None else f"{value:,.{0 if value >= 10 else 1}f} GiB" if value else "none"


def _hours(value: float | None) -> str:
    return "not known" if value is None else f"{value:,.1f}" if value else "–"


def _short(tokens: int) -> str:
    """`4.6 M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.1f} {letter}"
    return str(tokens) if tokens else "–"
