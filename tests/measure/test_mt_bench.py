"""MT-Bench's scores: means over turns and categories by hand, what has no grade, what is refused."""

import json

import pandas as pd
import pytest

import irlens
from irlens.base.errors import UserError
from irlens.tables.formats import mt_bench as layout


def grades(scores, run="a"):
    """Rows of one system: (first turn, second turn) of each question."""
    rows = [
        (run, "gpt-4", str(81 + i), turn, score, "")
        for i, some in enumerate(scores)
        for turn, score in zip((1, 2), some)
    ]
    return pd.DataFrame(rows, columns=list(layout.GRADES))


def test_means_over_both_turns_each_and_by_category(tmp_path):
    asked = [
        {"question_id": 81 + i, "category": c, "turns": ["a", "b"]} for i, c in enumerate(("math", "math", "stem"))
    ]
    (tmp_path / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    found = irlens.mt_bench(grades([(10, 4), (7, 1), (9, 8)]), tmp_path).set_index("measure")
    assert found["value"].to_dict() == pytest.approx(
        {
            "MTBench": 39 / 6,
            "MTBench:turn-1": 26 / 3,
            "MTBench:turn-2": 13 / 3,
            "MTBench:math": 22 / 4,
            "MTBench:stem": 17 / 2,
        }
    )
    assert found.loc["MTBench", ["n", "missing"]].tolist() == [3, 0]
    whole = found.loc["MTBench"]
    assert 0 <= whole["low"] < whole["value"] < whole["high"] <= 10
    each = irlens.mt_bench(grades([(10, 4), (7, 1), (9, 8)])).per_query
    assert each[each["measure"] == "MTBench"]["value"].mean() == pytest.approx(39 / 6)


def test_a_turn_without_a_grade_is_counted_as_the_authors_leave_it_out():
    """The mean of all grades that there are, whichever turn they are of."""
    found = irlens.mt_bench(grades([(10, float("nan")), (6, 2)])).set_index("measure")
    assert found.loc["MTBench", "value"] == pytest.approx(18 / 3) and found.loc["MTBench", "missing"] == 1
    assert found.loc["MTBench:turn-2", ["value", "n", "missing"]].tolist() == [2, 1, 1]


def test_a_part_without_any_grade_is_nan_and_the_others_stay():
    found = irlens.mt_bench(grades([(10, float("nan")), (6, float("nan"))])).set_index("measure")
    assert found.loc["MTBench:turn-2", ["n", "missing"]].tolist() == [0, 2] and pd.isna(
        found.loc["MTBench:turn-2", "value"]
    )
    assert found.loc["MTBench", "value"] == 8


def test_the_interval_is_over_questions_not_turns():
    """A question's two turns go together: alike turns say no more than one of them."""
    both = irlens.mt_bench(grades([(9, 9), (2, 2), (7, 7), (4, 4), (5, 5), (8, 8)])).set_index("measure")
    pair, one = both.loc["MTBench"], both.loc["MTBench:turn-1"]
    assert (pair["low"], pair["high"]) == pytest.approx((one["low"], one["high"]))


def test_what_is_refused():
    good = grades([(5, 6)])
    cases = {
        "grades: no rows": good[:0],
        "missing: turn": good.drop(columns="turn"),
        "from 0 to 10, or NaN, got 11": good.assign(score=11.0),
        "turn 1 of question 81 is graded twice": pd.concat([good, good[:1]]),
        "a: none of 2 turns has a grade": good.assign(score=float("nan")),
    }
    for told, frame in cases.items():
        with pytest.raises(UserError, match=told):
            irlens.mt_bench(frame)
