"""What a person reads: tables of results with intervals, examples, and what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from irlens.stages.measuring import format_value, in_words

if TYPE_CHECKING:
    import pandas as pd

console = Console(highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """A plain line, as it is."""
    console.print(line, markup=False)


def written(folder: Path) -> None:
    """Where the output went."""
    say(f"written to {folder}/ (run again with the same command to continue or check; see manifest.json)")


def _short(value: float) -> str:
    """`.43`, so that an interval fits a narrow column."""
    return f"{value:.2f}".removeprefix("0")


def curves(found: pd.DataFrame, title: str, first: str) -> None:
    """A row per run, a column per N."""
    cutoffs = sorted(found["cutoff"].unique())
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for cutoff in cutoffs:
        table.add_column(f"N = {cutoff}", justify="right")
    for run, rows in found.groupby("run", sort=False):
        cells = {
            row.cutoff: f"{row.value:.3f}\n[dim]{_short(row.low)}–{_short(row.high)}[/dim]" for row in rows.itertuples()
        }
        table.add_row(str(run), *(cells.get(cutoff, "") for cutoff in cutoffs))
    Console(highlight=False).print(table)
    say(f"95 % bootstrap intervals over {found['n'].iloc[0]:,} queries")


def results(found: pd.DataFrame) -> None:
    """A row per run and measure."""
    table = Table()
    for name in ("run", "measure", "value [95 % interval]", "queries"):
        table.add_column(name, justify="left" if name in ("run", "measure") else "right")
    for row in found.itertuples():
        table.add_row(str(row.run), row.measure, format_value(row).replace("[", r"\["), f"{row.n:,}")
    Console(highlight=False).print(table)


def mined(lists: pd.DataFrame, tally: pd.DataFrame) -> None:
    """The tally per tier, and one example of each."""
    table = Table(title="Negatives by tier", title_justify="left")
    table.add_column("tier")
    for name in ("negatives", "prompts without", "false negatives removed", "duplicates removed"):
        table.add_column(name, justify="right")
    for row in tally.itertuples():
        counts = (row.negatives, row.prompts_without, row.false_negatives, row.duplicates)
        table.add_row(row.tier, *(f"{count:,}" for count in counts))
    Console(highlight=False).print(table)
    most = lists.groupby("query_id")["tier"].nunique()
    if most.empty:
        say("No prompt has a negative.")
        return
    example = lists[lists["query_id"] == most.index[most.to_numpy().argmax()]]
    table = Table(title="One list", title_justify="left", show_lines=True)
    table.add_column("tier", width=24)
    table.add_column(f"response to: {example['query'].iloc[0]}")
    meaning = dict(zip(tally["tier"], tally["meaning"]))
    for row in example.drop_duplicates("tier").itertuples():
        text = row.text.strip().replace("[", r"\[")
        about = f"{row.tier}\n[dim]{meaning.get(row.tier, 'what is to be preferred')}[/dim]"
        table.add_row(about, text if len(text) <= 400 else text[:400] + " …")
    Console(highlight=False).print(table)


def trained(found: pd.DataFrame, tests: pd.DataFrame) -> None:
    """Each measure by iteration, and the last policy against the start in words."""
    table = Table(title="Held-out problems by iteration", title_justify="left")
    table.add_column("measure")
    for x in sorted(found["x"].unique()):
        table.add_column("start" if x == 0 else f"iteration {x}", justify="right")
    for curve, rows in found.groupby("curve", sort=False):
        table.add_row(
            str(curve), *(format_value(row).replace("[", r"\[") for row in rows.sort_values("x").itertuples())
        )
    Console(highlight=False).print(table)
    for sentence in in_words(tests):
        say(sentence)


EXTRAS = {
    "vllm": ("vllm", "sampling with vLLM"),
    "ray": ("ray", "work spread over a cluster"),
    "peft": ("peft", "LoRA and QLoRA training"),
    "faiss-cpu": ("faiss", "dense retrieval"),
    "sentence-transformers": ("sentence_transformers", "dense encoders and cross-encoders"),
    "wandb": ("wandb", "logging to Weights & Biases"),
}


def doctor() -> None:
    """Prints versions, devices and optional parts."""
    import importlib.util
    import os
    import platform

    import torch

    from irlens.folder import PACKAGES, git_commit, version

    table = Table("part", "found", title="irlens doctor", title_justify="left")
    table.add_row("python", platform.python_version())
    for name in PACKAGES:
        if name not in EXTRAS:
            table.add_row(name, version(name) or "[red]missing[/red]")
    table.add_row("commit", git_commit() or "installed copy")
    table.add_row("cpu cores", f"{os.cpu_count()} (torch uses {torch.get_num_threads()})")
    gpus = [
        f"{torch.cuda.get_device_name(i)}, {torch.cuda.mem_get_info(i)[1] / 2**30:.0f} GiB"
        for i in range(torch.cuda.device_count())
    ]
    table.add_row("gpu", "\n".join(gpus) or "none: 7B models want one; `--model tiny` does not")
    for name, (module, purpose) in EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        table.add_row(name, version(name) or "present" if found else f"not installed (optional; for {purpose})")
    Console(highlight=False).print(table)
