"""The progress bar of long work: what is done of how much, the rate, the time spent and the time left."""


def progress_bar(silent: bool = False):
    """A bar on standard error; a task has the field `rate`, such as "53 texts/s"."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=silent,
    )
