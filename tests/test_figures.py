"""The committed figures: each that has its table of values per problem is what that table gives today."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from irlens import recipe

ROOT = Path(__file__).parent.parent
TABLES = sorted((ROOT / "figures").glob(f"*.{recipe.PER_PROBLEM}"))


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
