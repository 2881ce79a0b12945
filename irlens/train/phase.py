"""One process of a training that `train.launch` started: `python -m irlens.train.phase FILE`."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from irlens.base import checksums, full
from irlens.base.devices import first
from irlens.base.errors import UserError
from irlens.base.files import write_text
from irlens.base.progress import Say, plain, silent
from irlens.base.secrets import kept_off_streams, redact
from irlens.base.worker import end_with_the_pipe
from irlens.train.in_folder import Folders
from irlens.train.iterations import Kept
from irlens.train.launch import CONTROLLED, Phase


def main(file: str, say: Say | None = None) -> None:
    """One process of the training that `file` tells (`run`)."""
    run(file, _train, say)


def run(file: str, train: Callable[[str, Say], None], say: Say | None = None) -> None:
    """One process of what `train` makes of the text of `file`. How it ended is written beside it: by the first, or by one
    that fails.

    What is no fault of the data or the settings, such as the death of another process, ends it without that.
    """
    if CONTROLLED in os.environ:
        end_with_the_pipe()
    if not Path(file).is_file():
        raise UserError(f"{file}: is not seen on {platform.node()}; put --out on a disk that all machines see")
    told = {"error": None, "message": ""}
    try:
        import torch

        train(Path(file).read_text(encoding="utf-8"), silent if not first() else say or plain)
    except UserError as error:
        told = {"error": type(error).__name__, "message": str(error)}
    except torch.OutOfMemoryError as error:
        told = {
            "error": "UserError",
            "message": f"training: the device is full: {' '.join(redact(str(error)).split())[:200]}",
        }
    except Exception as error:
        if (cause := full.is_full(error)) is None:
            raise
        told = {"error": "UserError", "message": full.in_words(cause, Path(file).parent)}
    if told["error"] or first():
        write_text(json.dumps(told) + "\n", Path(file).with_suffix(".ended"))
    if told["error"]:
        sys.exit(1)  # the launcher ends the others, which may wait for this one


def _train(text: str, say: Say) -> None:
    """Trains the policy that a `Phase` tells of."""
    import pandas as pd

    from irlens.models.load import quiet_if_small

    phase = Phase.of_json(text)
    kept = Kept(phase.out, say)
    quiet_if_small(phase.weights)
    lists = pd.read_parquet(kept.folder(phase.s) / "lists.parquet")
    with checksums.recording(phase.out):
        Folders(phase.options, kept, phase.base).train(phase.weights, lists, phase.prompts, phase.s)


if __name__ == "__main__":
    with kept_off_streams():
        main(sys.argv[1])
