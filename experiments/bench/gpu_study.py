"""A model of 33 million parameters trained from scratch on `sums`, and Figure 3a's study on it.

    python experiments/bench/gpu_study.py --out experiments/bench/gpu

`train_tiny.py` trains it until it solves half of the validation problems, for at most a third of the time; the recipe is
Figure 3a's `tiny` preset with that model, fewer prompts and iterations, and a learning rate for its size. Seed 0 comes
first and is reported; where the time allows, seeds 1 and 2 follow and the report is made anew. Rates and sizes were
chosen without a GPU at hand.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from gpu_common import DEVICE, Table, device_name, options, slug

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("step", "seconds", "value", "note")
LARGE = {
    "hidden-size": 512, "layers": 11, "heads": 8, "intermediate-size": 1408, "tokens": 16_384, "steps": 3000,
    "decay": 100, "until": 0.5, "every": 50, "threads": 4,
}  # fmt: skip
DRY = {"hidden-size": 32, "layers": 2, "heads": 2, "intermediate-size": 64, "steps": 3, "decay": 2, "warmup": 2}
RECIPE = """like = "fig3a"
title = "Figure 3a: negatives by hardness, {title}"

[preset]
gpu = "tiny"

[shared.gpu]
stage = "train"
objective = "pairwise"
positives_from = "both"
epochs = 1
eval_split = "test"
{settings}
"""


def trained(folder: Path, minutes: float, dry: bool) -> dict:
    """Trains the model into `folder`; returns what was logged."""
    settings = (DRY if dry else LARGE) | {"device": DEVICE, "minutes": minutes, "out": folder}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    subprocess.run([sys.executable, ROOT / "experiments" / "train_tiny.py", *words], check=True)
    return json.loads((folder / "training.json").read_text())


def recipe(path: Path, model: str, dry: bool) -> Path:
    """Figure 3a's recipe on that model."""
    settings = {"prompts": 400, "n": 8, "lists": 2, "iterations": 2, "eval_n": 4, "eval_limit": 600}
    settings |= {"learning_rate": 5e-5, "batch_size": 1024}  # arms share the device: none takes all that is free
    if dry:
        settings |= {"prompts": 12, "n": 4, "lists": 1, "iterations": 1, "eval_n": 1, "eval_limit": 10}
    settings |= {"model": model}
    told = "\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())
    path.write_text(RECIPE.format(title=f"{model if dry else '33M parameters'} on {device_name()}", settings=told))
    return path


def reproduced(path: Path, seeds: str, jobs: int, out: Path) -> float:
    """Runs the recipe for these seeds, continuing what `out` holds; returns seconds."""
    started = time.monotonic()
    words = ["reproduce", path, "--preset", "gpu", "--seeds", seeds, "--jobs", str(jobs), "--out", out]
    subprocess.run([sys.executable, "-m", "irlens", *words], check=True)
    return time.monotonic() - started


def reported(study: Path, out: Path) -> None:
    """The study's tables and words, with the device's name in the files' and as a column."""
    for kind in ("arms", "tests"):
        frame = pd.read_csv(study / f"{kind}.csv")
        frame.assign(device=device_name()).to_csv(out / f"study-{kind}-{slug()}.csv", index=False)
    shutil.copy(study / "conclusions.md", out / f"study-{slug()}.md")


def main() -> None:
    given = options(__doc__).parse_args()
    table, end = Table(given.out, "study", COLUMNS), time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory() as work:
        model, started = Path(work) / "model", time.monotonic()
        log = trained(model, given.seconds / 3 / 60, given.dry)
        spent, solved = round(time.monotonic() - started, 1), log["log"][-1]["greedy_validation"]
        note = f"{log['parameters']:,} parameters, {log['tokens']:,} tokens, {log['log'][-1]['step']} steps"
        table.add(step="trained: greedy validation accuracy", seconds=spent, value=solved, note=note)
        # nothing can be learned from what a model of five steps draws
        path = recipe(Path(work) / "fig3a-gpu.toml", "tiny" if given.dry else str(model), given.dry)
        jobs, study = (1 if given.dry else 4), Path(work) / "study"
        for number, seeds in enumerate(("0",) if given.dry else ("0", "0,1", "0,1,2")):
            if number and time.monotonic() + 1.3 * spent > end:
                break
            spent = round(reproduced(path, seeds, jobs, study), 1)
            table.add(step=f"study, seeds {seeds}", seconds=spent)
            reported(study, given.out)


if __name__ == "__main__":
    main()
