"""The commands of chat evaluation: win rates by a judge, how good judges are, MixEval."""

import typer

from irlens.cli.options import Command, takes
from irlens.commands.chat import Judges, WinRate
from irlens.commands.exchange import MixEval


def add(app: typer.Typer) -> None:
    """Adds them to a command line, in this order."""
    for command in (winrate, judges, mixeval):
        app.command(cls=Command)(command)


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
