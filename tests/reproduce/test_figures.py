"""The committed figures: each that has its table of values per problem is what that table gives today."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from irlens.reproduce import kept, recipe, run

ROOT = Path(__file__).resolve().parents[2]
TABLES = sorted((ROOT / "figures").glob(f"*.{run.PER_PROBLEM}"))


def redraw_script():
    spec = importlib.util.spec_from_file_location("redraw", ROOT / "experiments" / "redraw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name.partition(".")[0])
def test_a_committed_figure_is_what_its_table_gives(table, tmp_path):
    name = table.name.partition(".")[0]
    for file in (table, table.with_name(f"{name}.manifest.json")):
        shutil.copy(file, tmp_path)
    made = redraw_script().redraw(tmp_path / table.name)
    assert {path.name for path in made} >= {f"{name}.{ending}" for ending in ("png", "pdf", "csv")}
    for path in made:
        if path.suffix in (".csv", ".md"):
            assert path.read_text() == (table.parent / path.name).read_text(), path.name
    said = [
        json.loads((folder / f"{name}.manifest.json").read_text()).get("conclusions")
        for folder in (tmp_path, table.parent)
    ]
    assert said[0] == said[1]


def test_the_script_draws_and_judges_a_recipe_from_its_table(tmp_path):
    """Figure 2b, with five seeds of thirty problems made up: the manifest keeps all but its conclusions."""
    (step,) = recipe.load("fig2b", "tiny").steps
    rng, cells = np.random.default_rng(0), [(t, N) for t in step.settings.temperature for N in (1, 100)]
    rows = [
        (
            "curve",
            step.name,
            f"tiny T={t}",
            f"Pass@{N}",
            np.nan,
            seed,
            f"q{i}",
            float(rng.random() < (0.9 - t / 2) * N**0.1),
        )
        for t, N in cells
        for seed in range(5)
        for i in range(30)
    ]
    pd.DataFrame(rows, columns=kept.COLUMNS).to_parquet(tmp_path / "fig2b.per_problem.parquet")
    before = json.loads((ROOT / "figures" / "fig2b.manifest.json").read_text())
    (tmp_path / "fig2b.manifest.json").write_text(json.dumps(before))
    made = {path.name for path in redraw_script().redraw(tmp_path / "fig2b.per_problem.parquet")}
    assert made == {"fig2b.png", "fig2b.pdf", "fig2b.csv", "fig2b.tests.csv", "fig2b.conclusions.md"}
    after = json.loads((tmp_path / "fig2b.manifest.json").read_text())
    assert after.pop("conclusions") != before.pop("conclusions") and after == before
    assert "5 seeds, 30 problems" in (tmp_path / "fig2b.conclusions.md").read_text()
