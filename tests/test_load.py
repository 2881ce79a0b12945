"""`experiments/bench/load.py`: every load runs small, and its table says what it says it does."""

import os
from pathlib import Path

import pandas as pd
import pytest

BENCH = Path(__file__).resolve().parents[1] / "experiments" / "bench"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    import load

    return load


SMALL = {"evaluate": 2000, "best-of-n": 2000, "export": 40, "import": 40, "verify": 40, "again": 40}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_load_is_the_command_that_it_says(load, name):
    found = load.load(name, SMALL[name], rounds=1)
    assert (found["load"], found["rows"], found["rounds"]) == (name, SMALL[name], 1)
    assert 0 < found["user_seconds"] <= found["cpu_seconds"] and found["peak_mib"] > 50
    assert 0 <= found["others_cores"] <= os.cpu_count()


def test_the_table_has_each_load_at_a_size_and_at_a_tenth_of_it(load):
    table = pd.read_csv(BENCH / "load.csv")
    measured = list(dict.fromkeys(table["load"]))
    assert len(load.LOADS) == 10 and measured == [name for name in load.LOADS if name in measured]
    for name, rows in table.groupby("load"):
        tenth, whole = rows.itertuples()
        assert whole.rows == 10 * tenth.rows and tenth.growth == 1
        assert whole.growth == pytest.approx(whole.user_seconds / tenth.user_seconds, abs=0.3)
        goals = [None if pd.isna(one) else one for one in (whole.goal_seconds, whole.goal_gib)]
        assert goals == (list(load.LOADS[name][2:]) if whole.rows == load.LOADS[name][1] else [None, None])


def test_a_load_that_is_measured_again_takes_the_place_of_its_rows(load, tmp_path):
    path = tmp_path / "load.csv"
    load.kept(path, [{"load": "evaluate", "rows": rows, "seconds": 1.0} for rows in (10, 1)])
    load.kept(path, [{"load": "verify", "rows": 5, "seconds": 2.0}])
    load.kept(path, [{"load": "evaluate", "rows": 7, "seconds": 3.0}])
    assert pd.read_csv(path)[["load", "rows", "seconds"]].to_numpy().tolist() == [
        ["verify", 5, 2.0],
        ["evaluate", 7, 3.0],
    ]
