"""Tiers and lists: what becomes a negative, and above all what does not."""

import pandas as pd
import pytest

from irlens.errors import UserError
from irlens.lists import cut_lists
from irlens.mine import mine_negatives, parse_tiers, positives_from

TOPICS = pd.DataFrame(
    {
        "query_id": ["a", "b", "c"],
        "query": ["1+1", "2+2", "3+3"],
        "answers": [["2"], ["4"], ["6"]],
        "solution": ["#### 2", "#### 4", "#### 6"],
    }
)
ANSWERS = {"a": "2", "b": "4", "c": "6"}


def accepts(query_id, text):
    return text.split()[-1] == ANSWERS[query_id]


def pool(*rows):
    frame = pd.DataFrame(rows, columns=["query_id", "doc_id", "text"])
    return frame.assign(finish_reason="stop")


GOLD = positives_from(TOPICS, None, None, "gold")
OWN = pool(
    ("a", "a0", "is 2"),
    ("a", "a1", "is 3"),
    ("a", "a2", "is 3"),
    ("a", "a3", "is 9"),
    ("b", "b0", "is 5"),
    ("c", "c0", "is 6"),
)


def tier(mined, name):
    rows = mined.lists[mined.lists["tier"] == name]
    return dict(zip(rows["query_id"], rows["text"]))


def test_hard_negatives_are_the_prompts_own_wrong_ones():
    mined = mine_negatives(TOPICS, {"hard": OWN}, accepts, GOLD, per_tier=2)
    assert mined.lists[["query_id", "text", "tier", "grade"]].values.tolist() == [
        ["a", "#### 2", "positive", 1.0],
        ["a", "is 3", "hard", 0.0],
        ["a", "is 9", "hard", 0.0],
        ["b", "#### 4", "positive", 1.0],
        ["b", "is 5", "hard", 0.0],
    ]
    report = mined.report.iloc[0]
    assert (report["negatives"], report["prompts_without"]) == (3, 1)
    assert (report["false_negatives"], report["duplicates"]) == (2, 1)


def test_a_negative_is_used_for_one_prompt_only():
    twins = pool(("a", "a0", "is 7"), ("b", "b0", "is 7"), ("b", "b1", "is 8"))
    mined = mine_negatives(TOPICS, {"hard": twins}, accepts, GOLD)
    assert tier(mined, "hard") == {"a": "is 7", "b": "is 8"}


@pytest.mark.parametrize("seed", range(20))
def test_easy_negatives_come_from_other_prompts_and_are_wrong_here(seed):
    responses = pool(
        ("a", "a0", "so 2"), ("b", "b0", "so 4"), ("c", "c0", "so 6"), ("a", "a1", "gives 4"), ("b", "b1", "gives 6")
    )
    mined = mine_negatives(TOPICS, {"easy": responses}, accepts, GOLD, seed=seed)
    found = mined.lists[mined.lists["tier"] == "easy"]
    assert len(found) == 3 and found["text"].is_unique
    origin = dict(zip(responses["doc_id"], responses["query_id"]))
    for row in found.itertuples():
        assert origin[row.doc_id] != row.query_id and not accepts(row.query_id, row.text)


def test_unfinished_and_positive_texts_are_no_negatives():
    responses = pool(("a", "a0", "#### 2"), ("a", "a1", "is 3")).assign(finish_reason=["stop", "length"])
    mined = mine_negatives(TOPICS, {"hard": responses}, lambda q, t: False, GOLD)
    assert mined.lists.empty and mined.report["prompts_without"].item() == 3


def test_the_same_seed_mines_the_same_lists():
    responses = pool(*[("abc"[i % 3], f"d{i}", f"text {i} is 1{i}") for i in range(30)])
    one, two, other = (mine_negatives(TOPICS, {"easy": responses}, accepts, GOLD, seed=s).lists for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert not one.equals(other)


def test_positives_gold_or_correct():
    run = OWN.assign(score=0.0, rank=0)
    qrels = OWN[["query_id", "doc_id"]].assign(relevance=[1, 0, 0, 0, 0, 1])
    assert positives_from(TOPICS, run, qrels, "correct").values.tolist() == [["a", "a0", "is 2"], ["c", "c0", "is 6"]]
    assert positives_from(TOPICS, run, qrels, "gold")["doc_id"].tolist() == ["a/gold", "b/gold", "c/gold"]
    with pytest.raises(UserError, match="no solutions"):
        positives_from(TOPICS.drop(columns="solution"), run, qrels, "gold")
    with pytest.raises(UserError, match="did you mean 'gold'"):
        positives_from(TOPICS, run, qrels, "golden")


@pytest.mark.parametrize(
    "text, message",
    [
        ("hardst", "did you mean 'hardest'"),
        ("", "give each tier once"),
        ("hard,hard", "give each tier once"),
    ],
)
def test_bad_tiers(text, message):
    with pytest.raises(UserError, match=message):
        parse_tiers(text)


def judged(grades, query="a"):
    draws = pool(*[(query, f"{query}{i}", f"draw {i}") for i in range(len(grades))])
    return draws, draws[["query_id", "doc_id"]].assign(relevance=grades)


def test_lists_have_the_asked_sizes_and_repeat_nothing():
    run, qrels = judged([1, 1, 1, 0, 0, 0, 0, 0])
    lists = cut_lists(run, qrels, TOPICS, 1, 3, lists=4)
    sizes = lists.groupby("list")["grade"].agg(["sum", "size"]).values.tolist()
    assert sizes == [[1, 4]] * 4
    assert len({frozenset(g["doc_id"]) for _, g in lists.groupby("list")}) == 4
    assert cut_lists(*judged([1, 0]), TOPICS, 1, 3, lists=4)["list"].max() == 0


def test_prompts_that_say_nothing_give_no_list():
    for grades in ([1, 1, 1], [0, 0, 0], [1]):
        assert cut_lists(*judged(grades), TOPICS, 1, 1).empty
    run, qrels = judged([1, 0])
    assert cut_lists(run.assign(finish_reason=["stop", "length"]), qrels, TOPICS, 1, 1).empty
    assert cut_lists(run.assign(text="the same"), qrels, TOPICS, 1, 1).empty


def test_lists_depend_on_seed_and_query_and_not_on_neighbours():
    run, qrels = judged([1, 1, 1, 0, 0, 0])
    more, more_qrels = judged([0, 1, 0, 1], "b")
    alone = cut_lists(run, qrels, TOPICS, 1, 2, lists=2, seed=5)
    both = cut_lists(pd.concat([more, run]), pd.concat([more_qrels, qrels]), TOPICS, 1, 2, lists=2, seed=5)
    pd.testing.assert_frame_equal(alone, both[both["query_id"] == "a"].reset_index(drop=True))
    shuffled = [tuple(cut_lists(run, qrels, TOPICS, 1, 2, seed=s)["doc_id"]) for s in range(10)]
    assert len(set(shuffled)) > 1


def test_graded_draws_keep_their_grades():
    lists = cut_lists(*judged([3, 2, 1, 0]), TOPICS, 2, 2)
    assert sorted(lists["grade"]) == [0.0, 1.0, 2.0, 3.0]  # the two best against the two worst
