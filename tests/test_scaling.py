"""`experiments/bench/scaling.py`: its schedule by hand, what its shares add up to, and workers that it measures."""

import dataclasses
from pathlib import Path

import pytest


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "experiments" / "bench")
    import scaling

    return scaling


def test_a_shard_goes_to_the_device_that_is_free_first(scaling):
    found = scaling.scheduled("draw", [5.0, 1.0, 1.0, 4.0], devices=2, start=10.0)
    assert (found.wall, found.busy, found.starting) == (16.0, 11.0, 20.0)  # 5 | 1 + 1 + 4, after the start
    few = scaling.scheduled("draw", [3.0], devices=8, start=10.0)
    assert (few.wall, few.busy, few.starting) == (13.0, 3.0, 10.0)


def test_shares_add_up_and_one_device_waits_for_the_controller_only(scaling):
    small = scaling.Assumed(prompts=400, evaluated=50)
    for devices in (1, 8):
        found = scaling.phases(small, devices)
        for row in scaling.rows_of("paper", "case", devices, found, 1.0):
            shares = row["busy_share"] + row["waiting_share"] + row["starting_share"]
            assert shares == pytest.approx(1, abs=1e-3) and min(shares, row["waiting_share"]) > -1e-3
        alone = sum(phase.wall for phase in found if phase.name == "merge")
        *_, whole = scaling.rows_of("paper", "case", devices, found, 1.0)
        waiting = whole["waiting_share"] * whole["seconds"]
        assert waiting == pytest.approx(alone, rel=0.02) if devices == 1 else waiting > alone


def test_shards_hold_whole_prompts_and_at_least_so_many_are_made(scaling):
    few = scaling.Assumed(shard_tokens=10**9)
    whole = scaling.shards(few, 100, 10, seed=1)
    parted = scaling.shards(dataclasses.replace(few, least_shards=32), 100, 10, seed=1)
    assert len(whole) == 1 and len(parted) == 34 and sum(t for t, _ in parted) == whole[0][0]  # of three prompts each
    assert max(longest for _, longest in parted) == whole[0][1]


@pytest.mark.slow
def test_of_the_settings_of_table_2_eight_devices_wait_less_than_a_tenth(scaling):
    rows = [row for row in scaling.on_paper((8,)) if row["phase"] == "all"]
    waiting = {row["case"]: row["waiting_share"] for row in rows}
    assert waiting["shards of 1M tokens, at least 32 a phase"] < scaling.GOAL
    assert waiting["the first device alone draws and judges"] > 0.7


def test_real_workers_divide_what_costs_time(scaling, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(scaling.__file__).parent))
    one, two = (row for row in scaling.measured((1, 2), scale=1 / 800) if row["phase"] == "all")
    assert one["devices"] == 1 and two["devices"] == 2 and one["shards"] == two["shards"] >= 32
    assert two["seconds"] < one["seconds"] and 0 < two["busy_share"] <= 1
