"""At which temperatures draws make lists: shares by hand, and the sentences that they become."""

from functools import partial

import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.measure.stats import mean_intervals
from irlens.negatives import temperatures
from irlens.negatives.temperatures import in_words

usable_temperatures = partial(temperatures.usable_temperatures, mean_intervals=mean_intervals)


def draws(*prompts):
    """(temperature, "text:right" …) of prompts q0, q1 …; a text that ends in … is unfinished."""
    rows = []
    for i, (temperature, some) in enumerate(prompts):
        for j, draw in enumerate(some.split()):
            text, right = draw.split(":")
            reason = "length" if text.endswith("…") else "stop"
            rows.append((f"q{i}", f"q{i}/T{temperature}/{j}", text, temperature, reason, int(right)))
    run = pd.DataFrame(rows, columns=["query_id", "doc_id", "text", "temperature", "finish_reason", "relevance"])
    return run.drop(columns="relevance"), run[["query_id", "doc_id", "relevance"]]


COLD = [(0.1, "a:1 a:1 a:1 a:1"), (0.1, "b:0 b:0 b:0 b:0"), (0.1, "c:1 c:1 d:1 e…:0"), (0.1, "f:1 f:1 f:1 g:0")]
WARM = [(1.0, "a:1 b:0 c:0 d:0")] * 3 + [(1.0, "a…:0 b…:0 c…:0 d…:0")]


def test_shares_by_hand():
    run, qrels = draws(*COLD, *WARM)
    table = usable_temperatures(run, qrels).set_index(["temperature", "measure"])
    value = table["value"].to_dict()
    assert [value[0.1, m] for m in ("usable", "all right", "all wrong")] == [0.25, 0.5, 0.25]
    assert value[0.1, "distinct"] == pytest.approx((0.25 + 0.25 + 0.75 + 0.5) / 4)
    assert [value[1.0, m] for m in ("usable", "all right", "all wrong", "distinct")] == [0.75, 0.0, 0.25, 1.0]
    assert (table["n"] == 4).all() and (table["draws"] == 4).all()
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_the_range_is_said_in_words():
    same = " ".join(["a:1"] * 10)
    run, qrels = draws(*[(0.1, same)] * 4, *WARM, *[(1.5, "a:0 b:0 c:0 d:0")] * 4)
    words = in_words(usable_temperatures(run, qrels))
    assert words == [
        "Lists of draws are usable (at least 50 % of the prompts have a right and a wrong draw) at T = 1 only; most: "
        "75 % at T = 1.",
        "At T = 0.1 draws collapse: 10 draws hold 1.0 distinct responses; 100 % of the prompts are all right, 0 % all "
        "wrong.",
        "At T = 1.5 4 draws hold 4.0 distinct responses; 0 % of the prompts are all right, 100 % all wrong.",
    ]
    assert in_words(usable_temperatures(run, qrels), 0.8)[0].endswith("at no temperature; most: 75 % at T = 1.")
    run, qrels = draws(*[(t, "a:1 b:0") for t in (0.5, 0.7, 1.0)])
    assert (
        in_words(usable_temperatures(run, qrels))[0].split("draw) ")[1] == "from T = 0.5 to 1; most: 100 % at T = 0.5."
    )
    with pytest.raises(UserError, match="--least 1.5"):
        in_words(usable_temperatures(run, qrels), 1.5)


def test_runs_that_tell_no_temperatures():
    run, qrels = draws(*COLD)
    with pytest.raises(UserError, match="missing: temperature"):
        usable_temperatures(run.drop(columns="temperature"), qrels)
    with pytest.raises(UserError, match="do not judge 1 of 16 draws, the first q3/T0.1/3"):
        usable_temperatures(run, qrels[:-1])
    with pytest.raises(UserError, match="the run has no draws"):
        usable_temperatures(run[:0], qrels)
