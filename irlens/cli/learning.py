"""The command that trains a reranker: parse, call, print."""

from irlens.cli.options import takes
from irlens.commands.reranking import FitReranker


@takes(FitReranker)
def fit_reranker(settings: FitReranker) -> None:
    """Train a reranker of your own: a classifier of one score, from judged draws, preference pairs or scored lists.

    Example: `irlens fit-reranker irlens-out/passk-tiny-sums --model tiny --objective listmle`
    """
    from irlens.cli import report
    from irlens.commands.fit_reranker import fit_reranker as command

    folder, results = command(settings, report.say)
    report.results(results)
    report.written(folder)
