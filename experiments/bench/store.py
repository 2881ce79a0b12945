"""What the store spares a recipe: the same recipe without a store and with an empty one, in turn.

    python experiments/bench/store.py fig4 table2 [--preset tiny] [--seeds 0] [--jobs 2] [--out experiments/bench/store.csv]
    python experiments/bench/store.py --count fig4=FOLDER=OTHER …   # of finished output folders: without, with

Wall and CPU seconds of the whole command, and from the manifests: draws that were needed, the share that the store had,
the shares of the steps' time that drawing and training took, and whether every table and every model is the same to the
byte. Seeds share no draw, so the ratio of one seed is that of five.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd


def reproduce(recipe, preset, seeds, jobs, out, store):
    """(wall seconds, CPU seconds) of a recipe in a process of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "irlens", "reproduce", recipe, "--preset", preset, "--seeds", seeds]
    command += ["--jobs", str(jobs), "--out", str(out), "--store", str(store)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - began, sum(getattr(after, k) - getattr(before, k) for k in ("ru_utime", "ru_stime"))


def counted(out):
    """What the manifests of a recipe's finished steps say, summed, and the shares of the time."""
    total = {"steps": 0, "draws_made": 0, "seconds": 0.0, "drawing": 0.0, "training": 0.0}
    for path in sorted(out.glob("seed-*/*/manifest.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["status"] != "complete":
            continue
        total["steps"] += 1
        total["draws_made"] += manifest["sampling"]["draws"]
        total["seconds"] += manifest["wall_seconds"]
        total["drawing"] += manifest["sampling"]["seconds"]
        for lists in path.parent.glob("iteration-*/lists.parquet"):
            total["training"] += (lists.parent / "model" / "config.json").stat().st_mtime - lists.stat().st_mtime
    shares = {name: round(total[name] / total["seconds"], 2) for name in ("drawing", "training")}
    return {"steps": total["steps"], "draws_made": total["draws_made"]} | {f"{k}_share": v for k, v in shares.items()}


def same(one, other):
    """How many tables and models differ between two output folders of a recipe."""
    names = [p.relative_to(one) for p in one.rglob("*") if p.suffix in (".parquet", ".csv", ".safetensors")]
    names = [name for name in names if not {"draws", "draws-unrelated"} & set(name.parts)]
    wrong = [n for n in names if not (other / n).is_file() or (one / n).read_bytes() != (other / n).read_bytes()]
    return f"{len(names) - len(wrong)} of {len(names)}"


def rows(recipe, without, folder, times):
    """A row per way. times: (wall, CPU) of each, or nothing known."""
    found = [counted(without), counted(folder)]
    spared = round(1 - found[1]["draws_made"] / found[0]["draws_made"], 3)
    out = []
    for way, facts, (wall, cpu) in zip(("without", "with a store, empty at first"), found, times):
        row = {"recipe": recipe, "way": way, **facts, "draws_spared": spared if way != "without" else 0.0}
        row |= {"wall_s": round(wall) if wall else None, "cpu_s": round(cpu) if cpu else None}
        row |= {"of_cpu_without": round(cpu / times[0][1], 2) if cpu else None, "same_bytes": same(without, folder)}
        out.append(row)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--count", action="store_true", help="RECIPE=FOLDER=OTHER[=WALL,CPU=WALL,CPU]: run nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    given = parser.parse_args()
    found = []
    for recipe in given.recipes:
        if given.count:
            recipe, without, folder, *times = recipe.split("=")
            times = [tuple(map(float, some.split(","))) for some in times] or [(None, None)] * 2
            found += rows(recipe, Path(without), Path(folder), times)
            continue
        with tempfile.TemporaryDirectory() as place:
            ways = [Path(place) / name / recipe for name in ("without", "with")]
            how = (recipe, given.preset, given.seeds, given.jobs)
            times = [reproduce(*how, out, s) for out, s in zip(ways, ("none", ways[1].parent / "store"))]
            found += rows(recipe, *ways, times)
        print(pd.DataFrame(found).to_string(), flush=True)
    machine = (
        f"{os.cpu_count()}-core CPU under other load, {platform.machine()}, {given.jobs} jobs, seeds {given.seeds}"
    )
    pd.DataFrame(found).assign(machine=machine).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
