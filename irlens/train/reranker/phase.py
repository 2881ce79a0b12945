"""One process of a reranker's training that `train.launch` started: `python -m irlens.train.reranker.phase FILE`."""

from __future__ import annotations

import sys

from irlens.base import checksums
from irlens.base.progress import Say
from irlens.base.secrets import kept_off_streams
from irlens.train import phase
from irlens.train.reranker.in_folder import Phase, train


def main(file: str, say: Say | None = None) -> None:
    """One process of the training that `file` tells."""
    phase.run(file, _train, say)


def _train(text: str, say: Say) -> None:
    told = Phase.of_json(text)
    with checksums.recording(told.root or told.out):
        train(told, say)


if __name__ == "__main__":
    with kept_off_streams():
        main(sys.argv[1])
