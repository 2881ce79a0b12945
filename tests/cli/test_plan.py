"""What a recipe would do, at 80 columns: every recipe in every preset, nothing cut off, what differs in a table."""

import io

import pytest

from irlens.cli import plan, report
from irlens.reproduce import chat, recipe

ALL = [(name, preset) for name in recipe.names() for preset in recipe.presets(name)]


@pytest.fixture
def shown(monkeypatch):
    """A call → what it printed on a terminal of 80 columns."""

    def show(call, *args):
        page = io.StringIO()
        for console in (report.tables, report.console):
            monkeypatch.setattr(console, "_file", page)
            monkeypatch.setattr(console, "_width", 80)
        call(*args)
        return page.getvalue()

    return show


@pytest.mark.parametrize("name, preset", ALL)
def test_a_plan_is_readable_at_80_columns(name, preset, shown):
    loaded = recipe.load(name, preset)
    page = shown(plan.dry_run, loaded, 1)
    lines = page.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) <= 66 and "…" not in page
    assert all(name in page for name in plan._groups(loaded.steps))
    judged = [step for step, _, _ in chat.of(loaded.steps)]
    assert ("questions to the judge" in page) == bool(
        judged
    )  # how many, and that no price is known, before any is asked
    assert sum("learning_rate" in line for line in lines) <= 1  # what all share is said once


def test_the_same_test_of_several_policies_is_one_row(shown):
    page = shown(plan.dry_run, recipe.load("table3", "tiny"), 1)
    assert (
        "model the start and 4 trained" in page and sum(line.startswith("  test 2 ") for line in page.splitlines()) == 2
    )
    assert "@pairwise" not in page


def test_what_differs_in_too_many_ways_for_a_table_is_a_line_each(shown, tmp_path):
    arms = (
        (
            "a",
            'dataset = "sums"\nsplit = "test"\nlimit = 7\nmax_tokens = 30\nseed = 1\nn = 3\ntemperature = [0.1, 0.2, 0.3]',
        ),
        ("b", 'engine = "transformers"\nn = 4\nat = [1, 2, 3]\nmax_prompt_length = 100'),
    )
    stages = "".join(f'[[preset.tiny]]\nstage = "passk"\nname = "{name}"\n{more}\n' for name, more in arms)
    (tmp_path / "r.toml").write_text(stages)
    page = shown(plan.dry_run, recipe.load(str(tmp_path / "r.toml"), "tiny"), 1)
    assert "  a: " in page and "temperature 0.1,0.2,0.3" in page and "…" not in page


def test_the_list_names_every_recipe_and_preset(shown):
    lines = shown(plan.listing).splitlines()
    assert max(map(len, lines)) <= 80
    for name in recipe.names():
        assert any(line.startswith(f"{name}: ") for line in lines)
    assert sum(line.startswith("  ") for line in lines) == len(ALL)
