"""The progress bar of long work: what is done of how much, the rate, the time spent and the time left."""

from collections.abc import Callable

from irlens.base.untrusted import shown

Say = Callable[[str], None]  # where a line for the user goes


def silent(line: str) -> None:
    """Says nothing: for a notebook, and for the processes beside the first."""


def plain(line: str) -> None:
    """A line on standard output: for processes whose output is a log, and for Python's users."""
    print(shown(line), flush=True)


def progress_bar(silent: bool = False, unit: str = "", passing: bool = False):
    """A bar on standard error; a task has the field `rate`, such as "53 texts/s". passing: it goes when it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    class Shown(Progress):
        def add_task(self, description: str, *args, **more):
            return super().add_task(shown(description), *args, **more)

    return Shown(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn(f"{{task.completed:,.0f}}/{{task.total:,.0f}} {unit}".rstrip()),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=passing,
        disable=silent,
    )
