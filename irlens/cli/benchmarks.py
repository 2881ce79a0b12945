"""The commands of chat benchmarks, and the tables of Arena-Hard and MT-Bench."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irlens.cli.options import takes
from irlens.cli.rewardbench import rewardbench
from irlens.commands.chat import ArenaHard, Judges, MtBench, WinRate
from irlens.commands.exchange import MixEval

if TYPE_CHECKING:
    import pandas as pd


@takes(WinRate)
def winrate(settings: WinRate) -> None:
    """Win rates against a baseline by a judge: plain, discrete and length-controlled (AlpacaEval 2).

    Example: `irlens winrate model_outputs.json --baseline gpt4_outputs.json --judge fsfairx`
    """
    from irlens.cli import report
    from irlens.commands.winrate import winrate as command

    folder, results = command(settings, report.say)
    report.win_rates(results)
    report.written(folder)


@takes(Judges)
def judges(settings: Judges) -> None:
    """How good judges are: agreement (κ, α, τ), position and length bias, consistency, and how they rank answers.

    Example: `irlens judges irlens-out/winrate-a irlens-out/winrate-b --judge length,random`
    """
    from irlens.cli import report
    from irlens.commands.judges import judges as command

    folder, tables = command(settings, report.say)
    report.judges(tables)
    report.written(folder)


@takes(MixEval)
def mixeval(settings: MixEval) -> None:
    """MixEval and MixEval-Hard: a table of systems, with intervals over distinct items, by type and benchmark.

    Example: `irlens mixeval irlens-out/sample-mathstral-mixeval-2024-08-11 --dataset MixEval/mix_eval/data/mixeval-2024-08-11`
    """
    from irlens.cli import report
    from irlens.commands.mixeval import mixeval as command

    folder, results, tests = command(settings, report.say)
    report.mixeval(results, tests)
    report.written(folder)


@takes(ArenaHard)
def arena_hard(settings: ArenaHard) -> None:
    """Arena-Hard-Auto: win rates over each category's baseline, two games a question, with style controlled.

    Example: `irlens arena-hard arena-hard-v2.0/model_judgment/gpt-4.1`
    """
    from irlens.cli import report
    from irlens.commands.arena_hard import arena_hard as command

    folder, results = command(settings, report.say)
    _rates(results)
    report.written(folder)


@takes(MtBench)
def mt_bench(settings: MtBench) -> None:
    """MT-Bench: two turns a question, each graded from 1 to 10, by turn and by category.

    Example: `irlens mt-bench mt_bench/model_answer/mine.jsonl --judge own --base-url http://localhost:8000/v1`
    """
    from irlens.cli import report
    from irlens.commands.mt_bench import mt_bench as command

    folder, results = command(settings, report.say)
    _grades(results)
    report.written(folder)


COMMANDS = {
    "winrate": winrate,
    "judges": judges,
    "mixeval": mixeval,
    "rewardbench": rewardbench,
    "arena-hard": arena_hard,
    "mt-bench": mt_bench,
}


# -- tables --------------------------------------------------------------------------------------------------------


def _rates(found: pd.DataFrame) -> None:
    """A table per category, judge and baseline: a row per system, best first, with every rate in points."""
    from irlens.cli import report

    names = ("WinRate", "SCWinRate", "EqualStyleWinRate")
    titles = dict(zip(names, ("win rate", "style control", "equal style")))
    for (category, judge, baseline), some in found.groupby(["category", "judge", "baseline"], sort=False):
        by = {name: some[some["measure"] == f"{name}:{category}"].set_index("run") for name in names}
        there = [name for name in names if len(by[name])]
        head = ["system", *(titles[name] for name in there), "questions", "no verdict"]
        table = report.new_table(f"{category} against {baseline}, by {judge}", *head, left=1)
        order = by["SCWinRate" if len(by["SCWinRate"]) else "WinRate"]
        for run in order.sort_values("value", ascending=False, kind="stable").index:
            plain = by["WinRate"].loc[run]
            cells = [report.points(by[name].loc[run]) if run in by[name].index else "" for name in there]
            table.add_row(str(run), *cells, f"{int(plain.n):,}", f"{int(plain.missing):,}")
        report.tables.print(table)


def _grades(found: pd.DataFrame) -> None:
    """A row per system, best first: mean grades over both turns, by turn and by category; nothing for an empty table."""
    from irlens.cli import report

    if found.empty:
        return
    names = list(dict.fromkeys(found["measure"]))
    for judge, some in found.groupby("judge", sort=False):
        for some_names in (names[:3], names[3:]):
            table = report.new_table(
                f"Grades by {judge}", "system", *(name.partition(":")[2] or "both turns" for name in some_names)
            )
            by = {name: some[some["measure"] == name].set_index("run") for name in names}
            for run in by[names[0]].sort_values("value", ascending=False, kind="stable").index:
                rows = [by[name].loc[run] if run in by[name].index else None for name in some_names]
                cells = (
                    "" if row is None or not row.n else f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"
                    for row in rows
                )
                table.add_row(str(run), *cells)
            if some_names:
                report.tables.print(table)
