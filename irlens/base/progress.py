"""The progress bar of long work: what is done of how much, the rate, the time spent and the time left."""

from collections.abc import Callable

Say = Callable[[str], None]  # where a line for the user goes


def silent(line: str) -> None:
    """Says nothing: for a notebook, and for the processes beside the first."""


def progress_bar(silent: bool = False, unit: str = "", passing: bool = False):
    """A bar on standard error; a task has the field `rate`, such as "53 texts/s". passing: it goes when it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(f"{{task.completed:,.0f}}/{{task.total:,.0f}} {unit}".rstrip()),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=passing,
        disable=silent,
    )
