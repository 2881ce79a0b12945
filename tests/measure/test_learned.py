"""How a learned reranker is measured: within prompts, ties shared, by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from irlens.measure import learned


def test_pairs_in_order_and_their_brier_score_by_hand():
    scores, grades = np.array([2.0, 1.0, 1.0]), np.array([1.0, 2.0, 0.0])
    # pairs (better, worse): (1, 0) wrong, (0, 2) right, (1, 2) tied
    assert learned.pair_accuracy(scores, grades) == pytest.approx((0 + 1 + 0.5) / 3)
    sigma = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    assert learned.pair_brier(scores, grades) == pytest.approx(((1 - sigma(-1)) ** 2 + (1 - sigma(1)) ** 2 + 0.25) / 3)
    assert math.isnan(learned.pair_accuracy(scores, grades * 0)) and math.isnan(learned.pair_brier(scores, grades * 0))
    assert learned.brier(np.array([0.0, 1.0]), np.array([1.0, 0.0])) == pytest.approx((0.25 + sigma(1) ** 2) / 2)


def test_auc_is_of_prompts_and_not_of_all_responses_together():
    """Two prompts, one easy and one hard, whose scores only tell which is which."""
    lists = pd.DataFrame(
        {
            "query_id": ["easy"] * 4 + ["hard"] * 4,
            "list": 0,
            "grade": [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0],
            "score": [5.0] * 4 + [-5.0] * 4,
        }
    )
    results, each = learned.held_out(lists, "mine", calibrated=False)
    values = results.set_index("measure")
    assert values.loc["AUC", "value"] == 0.5 == values.loc["PairAccuracy", "value"]
    assert values.loc["PairBrier", "value"] == 0.25 and "Brier" not in values.index
    assert set(each["query_id"]) == {"easy", "hard"} and (values["n"] == 2).all()
    assert (values["low"] < values["value"]).all() and (values["value"] < values["high"]).all()


def test_a_prompt_with_several_lists_counts_once_and_one_of_equal_grades_not_at_all():
    lists = pd.DataFrame(
        {
            "query_id": ["a", "a", "a", "a", "b", "b"],
            "list": [0, 0, 1, 1, 0, 0],
            "grade": [1.0, 0.0, 1.0, 0.0, 0.0, 0.0],
            "score": [1.0, 0.0, 0.0, 1.0, 3.0, 4.0],
        }
    )
    results, _ = learned.held_out(lists, "mine", calibrated=True)
    values = results.set_index("measure")
    assert values.loc["PairAccuracy", "value"] == 0.5 and values.loc["PairAccuracy", "n"] == 1
    assert values.loc["Brier", "n"] == 2


def test_grades_that_say_nothing_of_right_have_no_auc():
    lists = pd.DataFrame({"query_id": "a", "list": 0, "grade": [-1.5, 2.5], "score": [0.0, 1.0]})
    results, _ = learned.held_out(lists, "mine", calibrated=True)
    assert set(results["measure"]) == {"PairAccuracy", "PairBrier"}
