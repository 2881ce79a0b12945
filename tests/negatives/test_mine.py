"""Tiers and lists: what becomes a negative, and above all what does not."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irlens.base.errors import UserError
from irlens.negatives import mine
from irlens.negatives.false_negatives import false_negatives
from irlens.negatives.lists import Cut, cut_lists
from irlens.negatives.margin import Bound, with_rewards
from irlens.negatives.mine import COUNTS, Rules, as_pairs, parse_tiers, positives_from


def mine_negatives(topics, pools, positives, screen, per_tier=1, **rules):
    return mine.mine_negatives(topics, pools, positives, screen, Rules(per_tier, **rules))


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


def screen(rows):
    return false_negatives(rows, GOLD, accepts=accepts)


GOLD = positives_from(TOPICS, None, None, "gold")
OWN = pool(
    ("a", "a0", "is 2"),
    ("a", "a1", "is 3"),
    ("a", "a2", "is 3"),
    ("a", "a3", "is 9"),
    ("b", "b0", "is 5"),
    ("c", "c0", "is 6"),
)


def nothing(rows):
    return pd.Series("", index=rows.index)


def tier(mined, name):
    rows = mined.lists[mined.lists["tier"] == name]
    return dict(zip(rows["query_id"], rows["text"]))


def test_hard_negatives_are_the_prompts_own_wrong_ones():
    mined = mine_negatives(TOPICS, {"hard": OWN}, GOLD, screen, per_tier=2)
    assert mined.lists[["query_id", "text", "tier", "grade"]].values.tolist() == [
        ["a", "#### 2", "positive", 1.0],
        ["a", "is 3", "hard", 0.0],
        ["a", "is 9", "hard", 0.0],
        ["b", "#### 4", "positive", 1.0],
        ["b", "is 5", "hard", 0.0],
    ]
    report = mined.report.iloc[0]
    assert (report["negatives"], report["prompts_without"]) == (3, 1)
    assert (report["false_negatives"], report["duplicates"], report["right_answer"]) == (2, 1, 2)
    assert mined.skipped.values.tolist() == [["c", "no negative: every response is right"]]


def test_a_negative_is_used_for_one_prompt_only():
    twins = pool(("a", "a0", "is 7"), ("b", "b0", "is 7"), ("b", "b1", "is 8"))
    mined = mine_negatives(TOPICS, {"hard": twins}, GOLD, screen)
    assert tier(mined, "hard") == {"a": "is 7", "b": "is 8"}


@pytest.mark.parametrize("seed", range(20))
def test_easy_negatives_come_from_other_prompts_and_are_wrong_here(seed):
    responses = pool(
        ("a", "a0", "so 2"), ("b", "b0", "so 4"), ("c", "c0", "so 6"), ("a", "a1", "gives 4"), ("b", "b1", "gives 6")
    )
    mined = mine_negatives(TOPICS, {"easy": responses}, GOLD, screen, seed=seed)
    found = mined.lists[mined.lists["tier"] == "easy"]
    assert len(found) == 3 and found["text"].is_unique
    origin = dict(zip(responses["doc_id"], responses["query_id"]))
    for row in found.itertuples():
        assert origin[row.doc_id] != row.query_id and not accepts(row.query_id, row.text)


def test_unfinished_and_positive_texts_are_no_negatives():
    responses = pool(("a", "a0", "#### 2"), ("a", "a1", "is 3")).assign(finish_reason=["stop", "length"])
    mined = mine_negatives(TOPICS, {"hard": responses}, GOLD, nothing)
    assert mined.lists.empty and mined.report["prompts_without"].item() == 3


def test_the_same_seed_mines_the_same_lists():
    responses = pool(*[("abc"[i % 3], f"d{i}", f"text {i} is 1{i}") for i in range(30)])
    one, two, other = (mine_negatives(TOPICS, {"easy": responses}, GOLD, screen, seed=s).lists for s in (1, 1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert not one.equals(other)


def test_positives_gold_or_correct():
    run = OWN.assign(score=0.0, rank=0)
    qrels = OWN[["query_id", "doc_id"]].assign(relevance=[1, 0, 0, 0, 0, 1])
    assert positives_from(TOPICS, run, qrels, "own").values.tolist() == [["a", "a0", "is 2"], ["c", "c0", "is 6"]]
    assert positives_from(TOPICS, run, qrels, "gold")["doc_id"].tolist() == ["a/gold", "b/gold", "c/gold"]
    both = positives_from(TOPICS, run, qrels, "both")
    assert sorted(both["doc_id"]) == ["a/gold", "a0", "b/gold", "c/gold", "c0"]
    with pytest.raises(UserError, match="no solutions"):
        positives_from(TOPICS.drop(columns="solution"), run, qrels, "gold")
    with pytest.raises(UserError, match="did you mean 'gold'"):
        positives_from(TOPICS, run, qrels, "golden")


def test_twins_of_a_prompt_count_as_the_prompt():
    topics = pd.DataFrame({"query_id": ["a", "twin"], "query": ["What is 1+1?", "what  is 1+1?"]})
    responses = pool(("twin", "t0", "is 9")).assign(query="what  is 1+1?")
    positives = pd.DataFrame({"query_id": ["a"], "doc_id": ["a/gold"], "text": ["2"]})
    assert mine_negatives(topics, {"easy": responses}, positives, nothing).lists.empty
    assert not mine_negatives(topics, {"easy": responses.drop(columns="query")}, positives, nothing).lists.empty


def test_related_prompts_are_asked_nearest_first():
    responses = pool(("a", "a0", "is 11"), ("b", "b0", "is 12"), ("c", "c0", "is 13"), ("c", "c1", "so 2"))
    near = {"a": ["c", "b"], "b": ["c", "a"], "c": ["b"]}
    mined = mine_negatives(TOPICS, {"easy": responses}, GOLD, screen, neighbours=near)
    assert tier(mined, "easy") == {"a": "is 13", "b": "so 2", "c": "is 12"}  # "so 2" is right for a, and free for b
    mined = mine_negatives(TOPICS, {"easy": responses}, GOLD, screen, 2, neighbours={"a": ["a", "b"]}, allow_reuse=True)
    assert tier(mined, "easy") == {"a": "is 12"} and mined.report["prompts_without"].item() == 2


def test_reuse_only_if_it_is_asked_for():
    twins = pool(("a", "a0", "is 7"), ("b", "b0", "is 7"))
    assert tier(mine_negatives(TOPICS, {"hard": twins}, GOLD, screen), "hard") == {"a": "is 7"}
    mined = mine_negatives(TOPICS, {"hard": twins, "hardest": twins}, GOLD, screen, allow_reuse=True)
    assert tier(mined, "hardest") == {"a": "is 7", "b": "is 7"} and tier(mined, "hard") == {}  # the choosier one first
    assert mined.report["tier"].tolist() == ["hard", "hardest"] and mined.report["taken"].tolist() == [2, 0]


def test_a_freed_response_goes_to_the_next_prompt():
    responses = pool(("x", "x0", "so 2"))  # right for a, wrong for b
    assert tier(mine_negatives(TOPICS[:2], {"easiest": responses}, GOLD, screen), "easiest") == {"b": "so 2"}


def test_empty_responses_are_no_negatives():
    mined = mine_negatives(TOPICS, {"hard": pool(("a", "a0", " \n"))}, GOLD, nothing)
    assert mined.lists.empty and mined.report["unusable"].item() == 1


def test_top_ranked_and_near_miss_take_the_best_scored_wrong_ones():
    scored = OWN.assign(logprob=[-1.0, -7.0, -7.0, -3.0, -2.0, -1.0], reward=[9.0, 5.0, 5.0, 1.0, 2.0, 8.0])
    mined = mine_negatives(TOPICS, {"top-ranked": scored}, GOLD, screen)
    assert tier(mined, "top-ranked") == {"a": "is 9", "b": "is 5"}
    mined = mine_negatives(TOPICS, {"near-miss": scored}, GOLD, screen)
    assert tier(mined, "near-miss") == {"a": "is 3", "b": "is 5"}
    for name in ("top-ranked", "near-miss", "margin"):
        with pytest.raises(UserError, match=f"tier {name}: candidates have no"):
            mine_negatives(TOPICS, {name: OWN}, GOLD, screen)
    with pytest.raises(UserError, match="the logprob of a1 must be a finite number, got nan"):
        mine_negatives(TOPICS, {"top-ranked": scored.assign(logprob=[-1, np.nan, 0, 0, 0, 0])}, GOLD, screen)


def test_the_margin_tier_stays_below_the_positive():
    draws = pool(*[("a", f"a{i}", f"is {20 + i}") for i in range(4)]).assign(logprob=[-4.0, -5.0, -6.0, -9.0])
    positives = GOLD.assign(logprob=[-4.0, -1.0, -1.0])

    def best(**bound):
        return tier(mine_negatives(TOPICS, {"margin": draws}, positives, screen, bound=Bound(**bound)), "margin")

    assert best() == {"a": "is 20"} and best(margin=1.0) == {"a": "is 21"} and best(margin=1.5) == {"a": "is 22"}
    assert best(margin=6.0) == {}
    two = pd.concat([positives, positives.assign(doc_id="other", text="#### 2.0", logprob=-5.5)])
    mined = mine_negatives(TOPICS, {"margin": draws}, two, screen)  # the lower-scored positive decides
    assert tier(mined, "margin") == {"a": "is 22"} and mined.report["beyond_margin"].item() == 2


def test_the_percentage_form_is_for_scores_that_are_not_negative():
    draws = pool(*[("a", f"a{i}", f"is {20 + i}") for i in range(3)]).assign(reward=[0.79, 0.76, 0.5])
    mined = mine_negatives(TOPICS, {"margin": draws}, GOLD.assign(reward=0.8), screen, bound=Bound("reward", percentage=0.95))  # fmt: skip
    assert tier(mined, "margin") == {"a": "is 21"}  # 0.95 · 0.8 = 0.76
    with pytest.raises(UserError, match="score below 0; use --margin"):
        mine_negatives(TOPICS, {"margin": draws}, GOLD.assign(reward=-1.0), screen, bound=Bound("reward", percentage=0.9))  # fmt: skip
    for bound, message in (
        (Bound(percentage=0.95), "log-probabilities are negative"),
        (Bound("reward", percentage=1.5), "--percentage 1.5"),
        (Bound("reward", 1.0, 0.9), "give one of them"),
        (Bound(margin=-1.0), "--margin -1"),
        (Bound(margin=float("nan")), "--margin nan"),
    ):
        with pytest.raises(UserError, match=message):
            bound.check()


def test_rewards_come_from_a_scored_run_or_a_function():
    run = OWN[:2]
    scored = run.assign(score=[0.5, 1.5], rank=[1, 0])
    assert with_rewards(run, scored[::-1], "r")["reward"].tolist() == [0.5, 1.5]
    assert with_rewards(run, lambda q, t: len(t), "r")["reward"].tolist() == [4.0, 4.0]
    tied = scored.assign(reward=2.0)  # what rerankers write: `score` falls strictly, `reward` does not
    assert with_rewards(run, tied, "r")["reward"].tolist() == [2.0, 2.0]
    with pytest.raises(UserError, match="r: the reward of a1 must be a finite number, got nan"):
        with_rewards(run, tied.assign(reward=[2.0, np.nan]), "r")
    with pytest.raises(UserError, match="no score for 1 of 2 candidates, the first a0"):
        with_rewards(run, scored[1:], "r")
    with pytest.raises(UserError, match="text of a1 is not the one that is mined"):
        with_rewards(run, scored.assign(text=["is 2", "else"]), "r")
    with pytest.raises(UserError, match="score must be a finite number"):
        with_rewards(run, scored.assign(score=[0.5, np.nan]), "r")
    with pytest.raises(UserError, match="reward of a0 must be a finite number, got nan"):
        with_rewards(run, lambda q, t: float("nan"), "r")


def test_a_prompt_without_a_positive_is_listed_as_skipped():
    mined = mine_negatives(TOPICS, {"hard": OWN}, GOLD[1:], screen)
    assert mined.skipped.values.tolist() == [["a", "no positive"], ["c", "no negative: every response is right"]]
    assert mined.lists["query_id"].unique().tolist() == ["b"] and mined.report["prompts_without"].item() == 2


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
    lists = cut_lists(run, qrels, TOPICS, Cut(1, 3, lists=4))
    sizes = lists.groupby("list")["grade"].agg(["sum", "size"]).values.tolist()
    assert sizes == [[1, 4]] * 4
    assert len({frozenset(g["doc_id"]) for _, g in lists.groupby("list")}) == 4
    assert cut_lists(*judged([1, 0]), TOPICS, Cut(1, 3, lists=4))["list"].max() == 0


def test_prompts_that_say_nothing_give_no_list():
    for grades in ([1, 1, 1], [0, 0, 0], [1]):
        assert cut_lists(*judged(grades), TOPICS, Cut(1, 1)).empty
    run, qrels = judged([1, 0])
    assert cut_lists(run.assign(finish_reason=["stop", "length"]), qrels, TOPICS, Cut(1, 1)).empty
    assert cut_lists(run.assign(text="the same"), qrels, TOPICS, Cut(1, 1)).empty


def test_lists_depend_on_seed_and_query_and_not_on_neighbours():
    run, qrels = judged([1, 1, 1, 0, 0, 0])
    more, more_qrels = judged([0, 1, 0, 1], "b")
    alone = cut_lists(run, qrels, TOPICS, Cut(1, 2, lists=2, seed=5))
    both = cut_lists(pd.concat([more, run]), pd.concat([more_qrels, qrels]), TOPICS, Cut(1, 2, lists=2, seed=5))
    pd.testing.assert_frame_equal(alone, both[both["query_id"] == "a"].reset_index(drop=True))
    shuffled = [tuple(cut_lists(run, qrels, TOPICS, Cut(1, 2, seed=s))["doc_id"]) for s in range(10)]
    assert len(set(shuffled)) > 1


def test_graded_draws_keep_their_grades():
    lists = cut_lists(*judged([3, 2, 1, 0]), TOPICS, Cut(2, 2))
    assert sorted(lists["grade"]) == [0.0, 1.0, 2.0, 3.0]  # the two best against the two worst


def own(texts):
    """prompt → texts, as a pool."""
    return pool(*[(q, f"{q}{i}", text) for q, some in texts.items() for i, text in enumerate(some)])


def test_no_prompt_takes_a_second_before_all_have_a_first():
    same = ["is 7", "is 8", "is 9"]
    mined = mine_negatives(TOPICS, {"hard": own({"a": same, "b": same, "c": same})}, GOLD, screen, per_tier=3)
    assert tier(mined, "hard") == {"a": "is 7", "b": "is 8", "c": "is 9"} and mined.skipped.empty
    assert mined.report["taken"].item() == 6


def test_a_prompt_gives_way_to_one_that_would_go_without():
    texts = {"a": ["is 7", "is 8"], "b": ["is 8", "is 9"], "c": ["is 8", "is 7"]}
    mined = mine_negatives(TOPICS, {"hard": own(texts)}, GOLD, screen)
    assert tier(mined, "hard") == {"a": "is 7", "b": "is 9", "c": "is 8"}


def test_prompts_share_the_responses_to_others_evenly():
    responses = pool(*[("x", f"x{i}", f"is 1{i}") for i in range(3)])
    mined = mine_negatives(TOPICS, {"easiest": responses}, GOLD, screen, per_tier=3)
    assert mined.lists[mined.lists["tier"] == "easiest"].groupby("query_id").size().tolist() == [1, 1, 1]


def test_every_prompt_without_a_list_is_told_what_became_of_its_responses():
    topics = pd.DataFrame({"query_id": [*"abcdefgh"], "query": [f"query {q}" for q in "abcdefgh"]})
    positives = pd.DataFrame({"query_id": [*"abcdefg"]})
    positives = positives.assign(doc_id=positives["query_id"] + "/gold", text="is 2", logprob=-5.0)
    rows = own(
        {"a": ["so 2"], "b": [" ", "is 3"], "c": ["is 3"], "d": ["is 4"], "f": ["is 5"], "g": ["so 2", " is  2"]}
    )
    rows = rows.assign(logprob=-9.0, finish_reason="stop")
    rows.loc[rows["doc_id"] == "b1", "finish_reason"] = "length"
    rows.loc[rows["doc_id"] == "d0", "logprob"] = -1.0
    first = own({"c": ["is 5"]}).assign(logprob=-9.0)  # what c has, f cannot have
    rows = pd.concat([first, rows[rows["query_id"] != "c"]], ignore_index=True)
    reasons = rows["text"].map(lambda text: "right answer" if text == "so 2" else "")
    mined = mine_negatives(topics, {"margin": rows}, positives, lambda some: reasons[some.index])
    assert mined.skipped.values.tolist() == [
        ["a", "no negative: every response is right"],
        ["b", "no negative: every response is unfinished or empty"],
        ["d", "no negative: every response is beyond the margin"],
        ["e", "no negative: no response to choose from"],
        ["f", "no negative: every response is taken by other prompts"],
        ["g", "no negative: every response is right or a positive's text"],
        ["h", "no positive"],
    ]
    assert tier(mined, "margin") == {"c": "is 5"}


def test_white_space_makes_no_other_negative():
    texts = ["#### 8", "#### 8 ", " ####\n8", "#### 9", "#### 2 "]
    mined = mine_negatives(TOPICS, {"hard": own({"a": texts, "b": ["#### 8\n"]})}, GOLD, nothing, per_tier=4)
    found = mined.lists[mined.lists["tier"] == "hard"]
    assert found["doc_id"].tolist() == ["a3", "b0"]  # of the 8s one, which b would have to go without
    assert (mined.report["duplicates"].item(), mined.report["taken"].item()) == (3, 1)
    again = own({"a": ["####   2"]})
    right = positives_from(TOPICS[:1], again, again[["query_id", "doc_id"]].assign(relevance=1), "both")
    assert right["doc_id"].tolist() == ["a/gold"]


def test_tokens_stay_with_their_response():
    responses = own({"a": ["is 3"], "b": ["is 4", "is 5"]})
    responses["tokens"] = [[1], [2, 3], [4]]
    mined = mine_negatives(TOPICS, {"hard": responses, "easiest": pool(("x", "x0", "is 1"))}, GOLD, screen)
    ids = dict(zip(responses["doc_id"], responses["tokens"])) | {"x0": None}
    for row in mined.lists.itertuples():
        assert row.tokens == ids.get(row.doc_id)
    right = positives_from(TOPICS, responses, responses[["query_id", "doc_id"]].assign(relevance=1), "own")
    assert right["tokens"].tolist() == [[1], [2, 3]]


SPACES = st.sampled_from(["", " ", "\n"])
TEXT = st.tuples(SPACES, st.sampled_from(["", "is 2", "is 3", "is 4", "is 5", "is 6", "#### 2"]), SPACES).map("".join)
ROW = st.tuples(st.sampled_from("abcx"), TEXT, st.sampled_from(["stop", "stop", "length"]), st.integers(-9, 0))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(ROW, max_size=10),
    st.lists(ROW, max_size=6),
    st.sampled_from([("hard",), ("margin",), ("easy",), ("hard", "top-ranked"), ("easiest", "hard", "margin")]),
    st.integers(1, 3),
    st.booleans(),
)
def test_whatever_is_mined_is_wrong_new_and_accounted_for(rows, others, tiers, per_tier, reuse):
    def frame(some):
        made = pd.DataFrame(some, columns=["query_id", "text", "finish_reason", "logprob"]).astype({"logprob": float})
        return made.assign(doc_id=[f"{query}{i}" for i, query in enumerate(made["query_id"])])

    pools = {name: frame(others if name == "easiest" else rows) for name in tiers}
    positives = GOLD[:2].assign(logprob=-3.0)  # c has none
    mined = mine_negatives(TOPICS, pools, positives, screen_words, per_tier, allow_reuse=reuse)
    pd.testing.assert_frame_equal(
        mined.lists, mine_negatives(TOPICS, pools, positives, screen_words, per_tier, allow_reuse=reuse).lists
    )
    for row in mined.report.to_dict("records"):
        assert row["candidates"] == len(pools[row["tier"]]) == sum(row[name] for name in COUNTS)
        assert row["negatives"] >= row["used"] and (reuse or row["negatives"] == row["used"])
        assert row["prompts_with"] + row["prompts_without"] == 3
    negatives = mined.lists[mined.lists["tier"] != "positive"]
    keys = [" ".join(text.split()) for text in negatives["text"]]
    assert len(set(zip(negatives["query_id"], keys))) == len(keys) and (reuse or len(set(keys)) == len(keys))
    for row, key in zip(negatives.itertuples(), keys):
        source = pools[row.tier].set_index("doc_id").loc[row.doc_id]
        assert source["finish_reason"] == "stop" and key and not accepts(row.query_id, key)
        assert (source["query_id"] == row.query_id) == (row.tier not in ("easy", "easiest"))
    assert (negatives.groupby(["query_id", "tier"]).size() <= per_tier).all()
    assert set(mined.skipped["query_id"]) | set(mined.lists["query_id"]) == set("abc")
    assert not set(mined.skipped["query_id"]) & set(mined.lists["query_id"])


def screen_words(rows):
    return false_negatives(rows, GOLD, accepts=accepts, text_threshold=None)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.sampled_from(["is 7", "is 8", "is 9"]), max_size=3)))
def test_as_many_prompts_have_a_negative_as_can(texts):
    """Against every order in which the prompts could choose, each among all that it has."""
    mined = mine_negatives(TOPICS, {"hard": own(texts)}, GOLD, screen)
    answers = ["is 7", "is 8", "is 9", None, None, None]
    most = max(
        sum(text in some for some, text in zip(texts.values(), order)) for order in permutations(answers, len(texts))
    )
    assert len(tier(mined, "hard")) == most


def test_of_a_score_the_highest_come_first_whatever_the_order_of_the_run():
    draws = pool(*[("a", f"a{i}", f"is {20 + i}") for i in range(4)]).assign(logprob=[-9.0, -6.0, -8.0, -7.0])
    mined = mine_negatives(TOPICS, {"margin": draws}, GOLD.assign(logprob=-1.0), screen, per_tier=3)
    assert mined.lists.query("tier == 'margin'")["text"].tolist() == ["is 21", "is 23", "is 22"]


def test_what_is_not_needed_is_counted_as_unused():
    mined = mine_negatives(TOPICS, {"hard": OWN}, GOLD, screen)
    assert mined.report[["used", "unused", "duplicates", "right_answer"]].values.tolist() == [[2, 1, 1, 2]]


def test_nearness_orders_the_easy_tier_alone():
    others = pool(*[(f"x{i}", f"x{i}", f"is {20 + i}") for i in range(6)])
    mined = mine_negatives(TOPICS, {"easiest": others, "easy": others}, GOLD, screen, neighbours={"a": ["x4"]})
    assert tier(mined, "easy") == {"a": "is 24"} and len(tier(mined, "easiest")) == 3


def test_a_positives_text_from_another_prompt_is_named():
    others = pool(("x", "x0", "#### 2"))
    mined = mine_negatives(TOPICS.iloc[:1], {"easiest": others}, GOLD, screen)
    assert mined.skipped["why"].tolist() == ["no negative: every response is a positive's text"]


def test_mined_lists_become_pairs_of_the_positive_and_one_negative():
    lists = mine_negatives(TOPICS, {"hard": OWN}, GOLD, screen, per_tier=2).lists
    pairs = as_pairs(lists.sample(frac=1, random_state=0))
    assert pairs[["query_id", "list", "grade"]].values.tolist() == [
        *(["a", 0, 1.0], ["a", 0, 0.0], ["a", 1, 1.0], ["a", 1, 0.0]),
        *(["b", 0, 1.0], ["b", 0, 0.0]),
    ]
    assert set(pairs["text"][[0, 2]]) == {"#### 2"} and set(pairs["text"][[1, 3]]) == {"is 3", "is 9"}
    assert list(pairs.columns) == list(lists.columns)


def test_why_no_prompt_got_a_negative_is_told_by_tier():
    counts = dict.fromkeys(("unusable", "no_positive", "duplicates", "false_negatives", "beyond_margin", "taken"), 0)
    rows = [{"tier": "hard", "candidates": 1200} | counts | {"unusable": 1000, "false_negatives": 200}]
    rows.append({"tier": "easy", "candidates": 0} | counts)
    assert mine.why_none(pd.DataFrame(rows)) == (
        "hard: 1,200 candidates, of them 1,000 unusable, 200 false negatives; easy: 0 candidates"
    )
