"""One process of a training that `train.launch` started: `python -m irlens.train.phase FILE`."""

from __future__ import annotations

import json
import os
import pickle
import platform
import sys
from pathlib import Path

from irlens.base.devices import first
from irlens.base.errors import UserError
from irlens.base.files import write_text
from irlens.base.progress import Say, silent
from irlens.base.worker import end_with_the_pipe
from irlens.train.in_folder import Folders
from irlens.train.iterations import Kept
from irlens.train.launch import CONTROLLED, Phase


def main(file: str, say: Say | None = None) -> None:
    """One process of the training that `file` tells. How it ended is written beside it: by the first, or by one that fails.

    What is no fault of the data or the settings, such as the death of another process, ends it without that.
    """
    if CONTROLLED in os.environ:
        end_with_the_pipe()
    if not Path(file).is_file():
        raise UserError(f"{file}: is not seen on {platform.node()}; put --out on a disk that all machines see")
    phase: Phase = pickle.loads(Path(file).read_bytes())
    say = silent if not first() else say or (lambda line: print(line, flush=True))
    kept, told = Kept(phase.out, say), {"error": None, "message": ""}
    try:
        import pandas as pd
        import torch

        from irlens.models.load import quiet_if_small

        quiet_if_small(phase.weights)
        lists = pd.read_parquet(kept.folder(phase.s) / "lists.parquet")
        Folders(phase.options, kept, phase.base).train(phase.weights, lists, phase.prompts, phase.s)
    except UserError as error:
        told = {"error": type(error).__name__, "message": str(error)}
    except torch.OutOfMemoryError as error:
        told = {"error": "UserError", "message": f"training: the device is full: {' '.join(str(error).split())[:200]}"}
    if told["error"] or first():
        write_text(json.dumps(told) + "\n", Path(file).with_suffix(".ended"))
    if told["error"]:
        sys.exit(1)  # the launcher ends the others, which may wait for this one


if __name__ == "__main__":
    main(sys.argv[1])
