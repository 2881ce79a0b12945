"""Training as a phase of its own: processes on the devices, started for it and ended with it, that continue after a death.

`run` starts them, by torchrun or on a Ray cluster; each is `irlens.train.phase`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from irlens.base import errors, interrupts, plugins, workers
from irlens.base.devices import Devices, environment
from irlens.base.errors import UserError
from irlens.base.files import write_text
from irlens.base.progress import Say
from irlens.train.options import LarpoOptions, TrainOptions

PROCESS = "irlens.train.phase"
CONTROLLED = "IRLENS_CONTROLLED"  # set where standard input is a pipe from the process that started the phase


@dataclass(frozen=True)
class Phase:
    """One training: from the folder `weights`, on the lists in `out/iteration-s`, into its model. prompts: query_id → ids."""

    options: TrainOptions
    out: Path
    base: str
    weights: Path
    prompts: dict[str, list[int]]
    s: int
    process: ClassVar[str] = PROCESS  # the module whose `main` each of its processes runs

    @property
    def called(self) -> str:
        """What messages call it."""
        return f"iteration {self.s}"

    @property
    def file(self) -> Path:
        """Where it is written for its processes; what comes of it lies beside it, `.ended`."""
        return self.out / f"iteration-{self.s}" / "phase.json"

    def as_json(self) -> str:
        """What its processes read: no code, and of the settings only those of training, which hold no secret."""
        kind = LarpoOptions if isinstance(self.options, LarpoOptions) else TrainOptions
        options = {f.name: getattr(self.options, f.name) for f in fields(kind)}
        places = {"out": str(self.out), "base": self.base, "weights": str(self.weights)}
        return json.dumps({"options": options, **places, "prompts": self.prompts, "s": self.s})

    @classmethod
    def of_json(cls, text: str) -> Phase:
        """The training that `as_json` told."""
        told = json.loads(text)
        places = {name: Path(told[name]) for name in ("out", "weights")}
        options = {name: tuple(v) if isinstance(v, list) else v for name, v in told["options"].items()}
        kind = LarpoOptions if "iterations" in options else TrainOptions
        return cls(**told | places | {"options": kind(**options)})


def run(phase: Phase, devices: Devices, say: Say) -> None:
    """Trains in processes of their own; those that die are started again, `workers.AGAIN` times, and continue.

    Raises what the training raises: NothingToRank, UserError; and UserError with the last words if they died too often.
    """
    write_text(phase.as_json(), phase.file)
    ended = phase.file.with_suffix(".ended")
    start: Callable[[Phase, Devices, Say], str] = on_ray if devices.kind == "ray" else on_this_machine
    for tries in range(workers.AGAIN + 1):
        ended.unlink(missing_ok=True)
        last = start(phase, devices, say)
        if ended.is_file():
            break
        if tries < workers.AGAIN:
            say(f"{phase.called}: training died ({last}); it is started again from its last checkpoint")
    else:
        raise UserError(
            f"{phase.called}: training died {workers.AGAIN + 1} times, the last {last}; the same command continues"
        )
    told = json.loads(ended.read_text(encoding="utf-8"))
    ended.unlink()
    phase.file.unlink()
    if told["error"]:
        raise getattr(errors, told["error"])(told["message"])


def on_this_machine(phase: Phase, devices: Devices, say: Say) -> str:
    """Starts the processes by torchrun and waits; lines on their standard output go to `say`. Returns how they ended.

    Their standard input is a pipe from here, so that they end when this process does, however it ends.
    """
    own = phase.file.with_name(
        ".torchrun.tmp"
    )  # else it leaves a folder per training among the machine's temporary ones
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices.count}", f"--log-dir={own}"]
    command = [sys.executable, *(several if devices.count != 1 else []), "-m", phase.process, str(phase.file)]
    given = environment(None, 1, 0) | {"PYTHONPATH": workers.python_path(), CONTROLLED: "1"}
    given.setdefault("OMP_NUM_THREADS", environment(0, devices.count or 1, 0)["OMP_NUM_THREADS"])
    log = phase.file.with_suffix(".log")
    with log.open("wb") as kept:
        process = shown = None
        try:
            with interrupts.held():  # what is started is known
                process = subprocess.Popen(
                    command, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
                )  # fmt: skip
                shown = threading.Thread(target=_show, args=(process.stderr, kept))
                shown.start()
            for line in process.stdout:
                say(line.decode("utf-8", "replace").rstrip("\n"))
            status = process.wait()
        finally:
            workers.end(process)
            if shown is not None:
                shown.join()
            for pipe in (process.stdin, process.stdout, process.stderr) if process is not None else ():
                pipe.close()
            shutil.rmtree(own, ignore_errors=True)
    return workers.said_last(f"with exit code {status}", log.read_bytes())


def _show(pipe, log) -> None:
    """What a process writes on its standard error, such as a progress bar: to ours, and to a file."""
    while some := pipe.read1(4096):
        log.write(some)
        log.flush()
        sys.stderr.write(some.decode("utf-8", "replace"))
        sys.stderr.flush()


def on_ray(phase: Phase, devices: Devices, say: Say) -> str:
    """The same as actors of a Ray cluster, one per device, whose folder all nodes must see."""
    from irlens.base.cluster import launch

    return launch(plugins.function(f"{phase.process}:main", "a training"), str(phase.file), devices.count, say)
