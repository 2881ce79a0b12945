"""Test problems among training prompts: the same words, or the same but for numbers."""

import pandas as pd

from irlens import tasks
from irlens.tasks import contamination


def topics(*queries):
    return pd.DataFrame({"query_id": [f"q{i}" for i in range(len(queries))], "query": queries})


def test_what_counts_as_the_same():
    train = topics("Ann has 3 pears.\nHow many?", "x + 1", "Bob runs 1,200 km")
    test = topics("ann has 3 pears; how many", "Ann has 7 pears. How many?", "Bob runs 5.5 km", "Cid", "+ -")
    assert contamination.shared(train, test) == ["q0"]
    assert contamination.shared(train, test, contamination.masked) == ["q0", "q1", "q2"]
    found = contamination.overlap(train, test)
    assert found == {"training_prompts": 3, "test_problems": 5, "same_text": 1, "same_but_for_numbers": 3}
    words = "test: 1 of 5 problems among 3 training prompts (3 but for their numbers)"
    assert contamination.in_words({"test": found}) == words
    assert contamination.in_words({}) == "no problems are held out"


def test_signs_alone_are_not_all_alike():
    assert contamination.shared(topics("+ -"), topics("- +", "+  -")) == ["q1"]


def test_the_embedded_task_shares_no_problem():
    train, test = tasks.load("sums", "train").topics, tasks.load("sums", "test").topics
    assert contamination.overlap(train, test)["same_text"] == 0
