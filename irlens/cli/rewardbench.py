"""The command rewardbench, and the tables that it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irlens.cli.options import takes
from irlens.commands.reward_models import RewardBench

if TYPE_CHECKING:
    import pandas as pd


@takes(RewardBench)
def rewardbench(settings: RewardBench) -> None:
    """RewardBench 2's scores of a reranker, and its audit: calibration, length, within-prompt AUC, over-optimisation.

    Example: `irlens rewardbench --reranker fsfairx --run irlens-out/passk-mathstral-gsm8k --temperature 0.7`
    """
    from irlens.cli import report
    from irlens.commands.rewardbench import rewardbench as command

    folder, results, audit = command(settings, report.say)
    _shown(results, audit)
    report.written(folder)


def _shown(found: pd.DataFrame | None, audit: pd.DataFrame) -> None:
    """A row per subset, in per cent; then what the audit found, on each thing that it was made on."""
    from irlens.cli.report import new_table, tables
    from irlens.commands.compare_pages import interval, number

    if found is not None:
        table = new_table("RewardBench 2, % with 95 % intervals over prompts", "subset", "score", "n")
        for row in found.itertuples():
            table.add_row(
                row.measure, f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]", f"{row.n:,}"
            )
        tables.print(table)
    for on, rows in audit.groupby("on", sort=False):
        table = new_table(f"Audit on {on}", "measure", "value and 95 % interval", "prompts")
        for row in rows.itertuples():
            told = f"{number(row.value, '.3f')} {interval(row.low, row.high)}".removesuffix(" –")
            table.add_row(row.measure, told, f"{row.n:,}")
        tables.print(table)
