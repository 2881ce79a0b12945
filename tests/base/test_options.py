"""Settings as fields: what an identity keeps, and plain values that are refused."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from irlens.base.errors import UserError
from irlens.base.options import argument, free, identity, option, settings_from
from irlens.commands.settings import STAGES


@dataclass(frozen=True)
class Some:
    run: str = argument("here", "A run.")
    n: int = option(3, "How many.", panel="Draws")
    workers: int = option(1, "How fast.", panel="Engine", free=True)
    split: str | None = option(None, "Which.", panel="Data")


def test_an_identity_is_what_is_not_free_as_it_was_resolved():
    assert identity(Some(n=4, workers=9), split="test", digest="ab") == {
        "run": "here",
        "n": 4,
        "split": "test",
        "digest": "ab",
    }
    assert identity(Some(workers=1)) == identity(Some(workers=2)) != identity(Some(n=5))


@pytest.mark.parametrize("command", STAGES)
def test_where_and_how_fast_is_free_and_what_is_drawn_is_not(command):
    """No list beside the fields: each says itself whether it changes a result."""
    marked, names = free(STAGES[command]), {f.name for f in fields(STAGES[command])}
    assert "out" in marked
    assert marked >= names & {"batch_size", "num_workers", "timeout", "concurrency", "report_to", "lists_at_once"}
    assert not marked & {"model", "dataset", "n", "seed", "temperature", "tier", "reranker", "objective", "thought"}


@pytest.mark.parametrize(
    "values, message",
    [
        ({"wokers": 3}, "here: unknown setting 'wokers'; did you mean 'workers'"),
        ({"n": "three"}, "here: n = 'three' is not of type int"),
        ({"n": 2.5}, "here: n = 2.5 is not of type int"),
    ],
)
def test_values_that_do_not_fit_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        settings_from(Some, values, "here")
