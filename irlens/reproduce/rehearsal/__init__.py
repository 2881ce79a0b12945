"""A rehearsal: every step of a preset run small, with stand-ins made on the spot, and a page of what the real one takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from irlens.base import files, interrupts, workers
from irlens.base.devices import LAUNCHED, MOST
from irlens.base.errors import UserError
from irlens.reproduce.records import Recipe
from irlens.reproduce.rehearsal import cut, furnish, page, steps

Say = Callable[[str], None]
PAGE, HOME, RUN = "rehearsal.md", ".rehearsal", "run"
CACHES = (  # variables that would lead out of the rehearsal's folder
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "TRANSFORMERS_CACHE",
    "SENTENCE_TRANSFORMERS_HOME",
    "HF_TOKEN",
    "IRLENS_STORE",
)


def rehearse(recipe: Recipe, out: Path | None, devices: str | None, kind: str, say: Say = print) -> Path:
    """Runs every step of `recipe` on this CPU with stand-ins, in a process of its own, and writes `out`/rehearsal.md.

    devices, kind: the machine that the estimates on the page are for; where there are `devices`, as many worker processes
    take part here too. `out` holds the steps' folders under run/; a rehearsal there before is made anew. The user's hub cache is not
    touched. Raises UserError in one line: what the steps name is not to be had, or the step that failed and why (the page
    is written then too); a fault of the program, not of what was given, ends the process with exit code 1.
    """
    machine, count = page.machine(kind), _count(devices)
    small, cuts = cut.recipe(recipe)
    needed = furnish.models(recipe.steps)
    out = out or Path("irlens-out") / f"rehearsal-{recipe.name}-{recipe.preset}"
    home = _emptied(out)
    files.write_text(steps.as_json(small, needed, out / RUN, devices), home / "spec.json")
    say(f"rehearsal of {recipe.title} (preset {recipe.preset}): {len(recipe.steps)} steps, {len(needed)} stand-ins")
    began = time.monotonic()
    code = _run(home, say)
    report = _report(home, code)
    told = page.Rehearsed(recipe, small, tuple(cuts), tuple(needed), report, out / RUN, time.monotonic() - began)
    files.write_text(page.written(told, count, machine), out / PAGE)
    if failed := report["failed"]:
        line = f"rehearsal: {failed['step']}: {failed['why']}; see {out / PAGE} for the steps that were tried"
        if failed["user"]:
            raise UserError(line)
        raise SystemExit(f"irlens: {line}; the traceback is in {home / 'log.txt'}")
    return out


def _count(devices: str | None) -> int:
    """How many devices `--devices` means: a number, or `ray:N`. Raises UserError for anything else, or too many."""
    number = (devices or "0").removeprefix("ray:")
    if not number.isascii() or not number.isdigit() or int(number) > MOST:
        raise UserError(f"--devices {devices}: with --rehearse give a number of up to {MOST}, or ray:N")
    if str(devices).startswith("ray"):
        from irlens.base.cluster import check_ray

        check_ray()
    return max(1, int(number))


def _emptied(out: Path) -> Path:
    """`out`/.rehearsal, empty; what an earlier rehearsal made in `out` is removed. Raises UserError for another's folder.

    The folder itself stays where it is there: it says whose `out` is, also after a kill in the middle of this.
    """
    home = out / HOME
    if out.exists() and not home.is_dir() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: the folder is not empty and holds no rehearsal; choose another")
    try:
        home.mkdir(parents=True, exist_ok=True)
        for made in (out / RUN, *home.iterdir()):
            if made.is_dir() and not made.is_symlink():
                shutil.rmtree(made, ignore_errors=True)
            else:
                made.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from error
    return home


def _run(home: Path, say: Say) -> int:
    """The process of the steps, to its end: its exit code. What it prints goes to log.txt, which step it is at to `say`.

    It leads a session, and its standard input is a pipe from here: it ends when this process does, however it ends.
    """
    environment = {name: value for name, value in os.environ.items() if name not in (*CACHES, *LAUNCHED)}
    environment |= {"HF_HOME": str(home.resolve()), "IR_DATASETS_HOME": str((home / "ir_datasets").resolve())}
    environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, "-m", steps.__name__, str(home.resolve())]
    process = None
    with (home / "log.txt").open("w", encoding="utf-8") as log:
        try:
            with interrupts.held():  # what is started is known
                process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    text=True, errors="replace", start_new_session=True,
                )  # fmt: skip
            for line in process.stdout or ():
                log.write(line)
                if line.startswith("stage "):
                    say(line.rstrip())
            return process.wait()
        except BaseException:  # an interrupt: nothing runs on without us
            if process is not None:
                workers.stop(process)
            raise
        finally:
            for pipe in (process.stdin, process.stdout) if process is not None else ():
                pipe.close()


def _report(home: Path, code: int) -> dict:
    """What the process wrote last, or how it ended without a word."""
    file = home / steps.REPORT
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    why = f"the process ended without a word (exit code {code}; out of memory?)"
    return {"seconds_of_stand_ins": None, "stand_ins": {}, "failed": {"step": "the process", "why": why, "user": False}}
