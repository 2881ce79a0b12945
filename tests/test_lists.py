"""Lists cut from judged draws: which draws become positives and negatives, and what is merged over iterations."""

import pandas as pd
import pytest

from irlens.errors import UserError
from irlens.lists import cut_lists, merge

TOPICS = pd.DataFrame({"query_id": ["q"], "query": ["1+1?"], "solution": ["two #### 2"]})


def judged(grades, texts=None):
    run = pd.DataFrame(
        {
            "query_id": "q",
            "doc_id": [f"d{i}" for i in range(len(grades))],
            "score": [-float(i) for i in range(len(grades))],
            "rank": range(len(grades)),
            "text": texts or [f"draw {i}" for i in range(len(grades))],
        }
    )
    return run, run[["query_id", "doc_id"]].assign(relevance=grades)


def docs(lists, tier):
    return [set(group["doc_id"]) for _, group in lists[lists["tier"] == tier].groupby("list")]


def test_graded_draws_give_the_best_against_the_worst():
    lists = cut_lists(*judged([0.1, 0.9, 0.5, 0.3]), TOPICS, 1, 3)
    assert docs(lists, "positive") == [{"d1"}] and docs(lists, "own") == [{"d0", "d2", "d3"}]
    lists = cut_lists(*judged([0.1, 0.9, 0.5, 0.3, 0.4, 0.6]), TOPICS, 2, 2)
    assert docs(lists, "positive") == [{"d1", "d5"}] and docs(lists, "own") == [{"d0", "d3"}]


def test_no_draw_is_on_both_sides():
    lists = cut_lists(*judged([0.1, 0.9, 0.5]), TOPICS, 2, 2, lists=4)
    for _, group in lists.groupby("list"):
        assert group["doc_id"].is_unique and group["grade"].nunique() > 1


def test_sft_takes_right_draws_only_and_needs_no_wrong_one():
    assert docs(cut_lists(*judged([1, 1, 0]), TOPICS, 1, 0, lists=5), "positive") in (
        [{"d0"}, {"d1"}],
        [{"d1"}, {"d0"}],
    )
    assert len(cut_lists(*judged([1, 1]), TOPICS, 2, 0)) == 2
    assert cut_lists(*judged([0, 0]), TOPICS, 1, 0).empty


def test_gold_solutions_are_positives_and_not_samples():
    run, qrels = judged([1, 0, 0])
    gold = cut_lists(run, qrels, TOPICS, 1, 2, positives_from="gold")
    assert gold["doc_id"].tolist()[0] == "q/gold" and docs(gold, "own") == [{"d1", "d2"}]
    both = cut_lists(run, qrels, TOPICS, 2, 2, positives_from="both")
    assert docs(both, "positive") == [{"q/gold", "d0"}] and both["grade"].tolist() == [1, 1, 0, 0]
    wrong = cut_lists(*judged([0, 0]), TOPICS, 1, 2, positives_from="both")
    assert docs(wrong, "positive") == [{"q/gold"}]  # also where no draw is right
    with pytest.raises(UserError, match="no solutions"):
        cut_lists(run, qrels, TOPICS.drop(columns="solution"), 1, 1, positives_from="gold")


def test_self_play_takes_every_own_draw_as_a_negative_but_not_the_solution_itself():
    run, qrels = judged([1, 0, 1], ["two", "three", "two #### 2"])
    lists = cut_lists(run, qrels, TOPICS, 1, 3, positives_from="gold", self_play=True)
    assert docs(lists, "own") == [{"d0", "d1"}] and lists["grade"].tolist() == [1, 0, 0]


def test_empty_and_unfinished_draws_are_left_out():
    run, qrels = judged([1, 0, 0, 0], ["right", " ", "", "wrong"])
    assert docs(cut_lists(run, qrels, TOPICS, 1, 3), "own") == [{"d3"}]
    assert cut_lists(run.assign(finish_reason=["stop", "stop", "stop", "length"]), qrels, TOPICS, 1, 3).empty


def test_merge_keeps_the_prompts_at_hand_and_tells_iterations_apart():
    first, second = judged([1, 0]), judged([0, 1], ["draw 0", "new"])
    other = tuple(frame.assign(query_id="p") for frame in judged([1]))
    both = tuple(pd.concat(parts, ignore_index=True) for parts in zip(first, other))
    run, qrels = merge({1: both, 2: second}, ["q"])
    assert run["doc_id"].tolist() == ["d0@1", "d1@1", "d0@2", "d1@2"] and set(run["query_id"]) == {"q"}
    lists = cut_lists(run, qrels, TOPICS, 2, 2)
    assert docs(lists, "positive") == [{"d0@1", "d1@2"}]  # one right draw of each iteration
