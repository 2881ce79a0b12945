"""`countdown`: problems that have a solution, splits that share none, and a verifier that takes every right expression."""

import pytest

from irlens import tasks
from irlens.base.errors import UserError
from irlens.rerank.verify import verify
from irlens.tasks import countdown

PROBLEMS = {split: countdown.take(split, 400) for split in countdown.SPLITS}


@pytest.mark.parametrize("split", countdown.SPLITS)
def test_every_solution_is_right_and_every_problem_of_its_split(split):
    for row in PROBLEMS[split]:
        assert countdown.is_correct(row["solution"], row["answer"])
        assert countdown.split_of(*row["key"]) == split
        assert all(number in row["query"] for number in row["answer"].replace("=", "").split())
        for step in row["solution"].splitlines()[:-1]:
            left, right = step.split("=")
            assert eval(left) == int(right) and 1 <= int(right) <= countdown.LARGEST
    assert len({row["key"] for row in PROBLEMS[split]}) == 400


def test_splits_are_as_large_as_they_say_and_the_same_every_time():
    assert {split: len(countdown.take(split)) for split in ("validation", "test")} == {"validation": 500, "test": 1000}
    assert countdown.take("test", 5) == countdown.take("test")[:5]


@pytest.mark.parametrize(
    "response, right",
    [
        ("3*7=21\n21+5=26\n#### 3*7+5", True),
        ("#### 5+7*3", True),
        ("#### 5 + (7 × 3) = 26", True),
        ("first #### 1+1\n#### (7*3)+5", True),
        ("#### 7*3", False),  # a number is left
        ("#### 7*3+5+0", False),
        ("#### 7*(3+5)", False),  # another value
        ("#### 26", False),
        ("7*3+5", False),  # without the mark
        ("#### __import__('os')", False),
        ("#### 7**3+5", False),
        ("#### 7*3+5)", False),
        ("####", False),
        ("#### -(0-7)*3+5", False),
        ("#### " + "(" * 150 + "7*3+5", False),
        ("#### " + "9" * 500, False),
    ],
)
def test_any_expression_of_the_numbers_with_the_value_is_right(response, right):
    assert countdown.is_correct(response, "3 5 7 = 26") is right


def test_division_is_exact_and_by_zero_is_no_answer():
    assert countdown.is_correct("#### 7/2*4", "2 4 7 = 14") and not countdown.is_correct("#### 7/(2-2)", "2 2 7 = 14")
    assert countdown.extract("#### 7/(2-2)") is None


def test_the_same_answer_is_the_same_text_however_it_is_written():
    same = ["#### 3*7+5", "#### 5+7*3", "#### 5 + (3*7)", "#### (7 * 3) + 5 = 26"]
    assert len({countdown.extract(text) for text in same}) == 1
    other = ["#### 5-7+3", "#### 7-5+3", "#### 3-(7-5)", "#### 3*(7+5)", "#### 3-7-5"]
    assert len({countdown.extract(text) for text in [*other, same[0]]}) == 5  # the first and the third are one
    assert countdown.extract("5+7") is None


def test_it_is_a_task_with_a_verifier_as_any_other():
    import pandas as pd

    task = tasks.load("countdown", "test", 3)
    run = pd.DataFrame(
        {"query_id": task.topics["query_id"], "doc_id": ["a", "b", "c"], "text": task.topics["solution"], "score": 0.0}
    )
    assert verify(run, task.topics, task.verifier)["relevance"].tolist() == [1, 1, 1]
    assert tasks.splits("countdown") == list(countdown.SPLITS)


def test_the_generator_refuses_where_there_are_no_more(monkeypatch):
    """It would loop for ever."""
    monkeypatch.setattr(countdown, "LARGEST_NUMBER", 2)
    monkeypatch.setattr(countdown, "COUNTS", (3,))
    monkeypatch.setattr(countdown, "TRIES", 500)
    with pytest.raises(UserError, match=r"the split 'pretrain' has no more than \d+ problems"):
        list(countdown.distinct_problems("pretrain"))
