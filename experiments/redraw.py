"""Draws the figures of a folder again, and judges their claims again, from the kept tables alone; nothing is trained.

    python experiments/redraw.py [figures]

For each NAME.per_problem.parquet there, a run's per_problem.parquet, it writes NAME.{png,pdf,csv}, NAME.arms.csv,
NAME.tests.csv (NAME.tests-MEASURE.csv) and NAME.conclusions.md, and puts the conclusions into NAME.manifest.json. `--preset` is what the
manifest says.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from irlens.base.errors import UserError
from irlens.reproduce import recipe, run

TABLES = ("arms.csv", "tests.csv", "conclusions.md")


def redraw(table: Path) -> list[Path]:
    """The files that were written beside NAME.per_problem.parquet."""
    name = table.name.removesuffix(f".{run.PER_PROBLEM}")
    path = table.with_name(f"{name}.manifest.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    loaded = recipe.load(name, manifest["settings"]["preset"])
    with tempfile.TemporaryDirectory() as folder:
        out = run.redraw(loaded, table, Path(folder) / name)
        made = {out / f"{name}.{ending}": table.with_name(f"{name}.{ending}") for ending in ("png", "pdf", "csv")}
        others = [path.name for path in out.glob("tests-*.csv")]  # of other measures
        made |= {out / kind: table.with_name(f"{name}.{kind}") for kind in (*TABLES, *others)}
        made = {source: target for source, target in made.items() if source.is_file()}
        for source, target in made.items():
            shutil.copy(source, target)
        said = json.loads((out / "manifest.json").read_text(encoding="utf-8")).get("conclusions")
    if said is not None:
        path.write_text(
            json.dumps(manifest | {"conclusions": said}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return list(made.values())


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
    found = sorted(folder.glob(f"*.{run.PER_PROBLEM}"))
    if not found:
        sys.exit(f"{folder}: no NAME.{run.PER_PROBLEM}; a run of `irlens reproduce NAME` leaves one to be put there")
    try:
        for table in found:
            print("\n".join(map(str, redraw(table))))
    except UserError as error:
        sys.exit(f"redraw: {error}")
