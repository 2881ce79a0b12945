"""Lists cut from judged draws: which draws become positives and negatives, and what is merged over iterations."""

from itertools import combinations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import irlens
from irlens.base.errors import UserError
from irlens.negatives.lists import REASONS, Cut, cut_lists, graded, in_words, merge, without_list

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
    lists = cut_lists(*judged([0.1, 0.9, 0.5, 0.3]), TOPICS, Cut(1, 3))
    assert docs(lists, "positive") == [{"d1"}] and docs(lists, "own") == [{"d0", "d2", "d3"}]
    lists = cut_lists(*judged([0.1, 0.9, 0.5, 0.3, 0.4, 0.6]), TOPICS, Cut(2, 2))
    assert docs(lists, "positive") == [{"d1", "d5"}] and docs(lists, "own") == [{"d0", "d3"}]


def test_no_draw_is_on_both_sides():
    lists = cut_lists(*judged([0.1, 0.9, 0.5]), TOPICS, Cut(2, 2, lists=4))
    for _, group in lists.groupby("list"):
        assert group["doc_id"].is_unique and group["grade"].nunique() > 1


def test_sft_takes_right_draws_only_and_needs_no_wrong_one():
    assert docs(cut_lists(*judged([1, 1, 0]), TOPICS, Cut(1, 0, lists=5)), "positive") in (
        [{"d0"}, {"d1"}],
        [{"d1"}, {"d0"}],
    )
    assert len(cut_lists(*judged([1, 1]), TOPICS, Cut(2, 0))) == 2
    assert cut_lists(*judged([0, 0]), TOPICS, Cut(1, 0)).empty


def test_gold_solutions_are_positives_and_not_samples():
    run, qrels = judged([1, 0, 0])
    gold = cut_lists(run, qrels, TOPICS, Cut(1, 2, positives_from="gold"))
    assert gold["doc_id"].tolist()[0] == "q/gold" and docs(gold, "own") == [{"d1", "d2"}]
    both = cut_lists(run, qrels, TOPICS, Cut(2, 2, positives_from="both"))
    assert docs(both, "positive") == [{"q/gold", "d0"}] and both["grade"].tolist() == [1, 1, 0, 0]
    wrong = cut_lists(*judged([0, 0]), TOPICS, Cut(1, 2, positives_from="both"))
    assert docs(wrong, "positive") == [{"q/gold"}]  # also where no draw is right
    with pytest.raises(UserError, match="no solutions"):
        cut_lists(run, qrels, TOPICS.drop(columns="solution"), Cut(1, 1, positives_from="gold"))


def test_self_play_takes_every_own_draw_as_a_negative_but_not_the_solution_itself():
    run, qrels = judged([1, 0, 1], ["two", "three", "two #### 2"])
    lists = cut_lists(run, qrels, TOPICS, Cut(1, 3, positives_from="gold", self_play=True))
    assert docs(lists, "own") == [{"d0", "d1"}] and lists["grade"].tolist() == [1, 0, 0]


def test_empty_and_unfinished_draws_are_left_out():
    run, qrels = judged([1, 0, 0, 0], ["right", " ", "", "wrong"])
    assert docs(cut_lists(run, qrels, TOPICS, Cut(1, 3)), "own") == [{"d3"}]
    assert cut_lists(run.assign(finish_reason=["stop", "stop", "stop", "length"]), qrels, TOPICS, Cut(1, 3)).empty


def test_merge_keeps_the_prompts_at_hand_and_tells_iterations_apart():
    first, second = judged([1, 0]), judged([0, 1], ["draw 0", "new"])
    other = tuple(frame.assign(query_id="p") for frame in judged([1]))
    both = tuple(pd.concat(parts, ignore_index=True) for parts in zip(first, other))
    run = merge({1: graded(*both), 2: graded(*second)}, ["q"]).rename(columns={"grade": "reward"})
    assert run["doc_id"].tolist() == ["d0@1", "d1@1", "d0@2", "d1@2"] and set(run["query_id"]) == {"q"}
    lists = cut_lists(run, None, TOPICS, Cut(2, 2))
    assert docs(lists, "positive") == [{"d0@1", "d1@2"}]  # one right draw of each iteration


def pairs(lists):
    """(grades of the positives, grades of the negatives) of every list."""
    return [
        tuple(tuple(rows[rows["tier"] == tier]["grade"]) for tier in ("positive", "own"))
        for _, rows in lists.groupby(["iteration", "list"])
    ]


def test_several_lists_of_rewards_start_with_the_best_against_the_worst_and_never_invert():
    lists = cut_lists(*judged([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), TOPICS, Cut(1, 1, lists=6, by_reward=True))
    assert pairs(lists) == [((6,), (1,)), ((5,), (2,)), ((4,), (3,)), ((6,), (2,)), ((5,), (1,)), ((4,), (1,))]
    every = cut_lists(*judged([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), TOPICS, Cut(1, 1, lists=99, by_reward=True))
    assert len(pairs(every)) == len(set(pairs(every))) == 15 and pairs(every)[:6] == pairs(lists)


def test_a_tie_never_stands_on_both_sides():
    lists = cut_lists(*judged([3.0, 2.0, 2.0, 1.0]), TOPICS, Cut(2, 2, by_reward=True))
    assert pairs(lists) == [((3, 2), (1,))]  # the other 2 says nothing against its equal


def test_full_lists_come_before_shorter_ones():
    lists = cut_lists(*judged([5.0, 4.0, 3.0, 2.0, 1.0]), TOPICS, Cut(1, 3, lists=99, by_reward=True))
    sizes = [len(bad) for _, bad in pairs(lists)]
    assert sizes == sorted(sizes, reverse=True) and sizes == [3] * 5 + [2, 1]


def test_a_reward_has_no_zero_sft_takes_the_best_of_a_prompt():
    for grades in ([-3.0, -1.0, -2.0], [3.0, 9.0, 1.0]):
        lists = cut_lists(*judged(grades), TOPICS, Cut(1, 0, lists=3, by_reward=True))
        assert lists["doc_id"].tolist() == ["d1"]
    assert len(cut_lists(*judged([-1.0, -1.0, -2.0]), TOPICS, Cut(2, 0, by_reward=True))) == 2  # both best ones
    assert cut_lists(*judged([2.0, 2.0]), TOPICS, Cut(1, 0, by_reward=True)).empty  # none is better than another
    both = cut_lists(*judged([-1.0, -2.0]), TOPICS, Cut(2, 1, positives_from="both", by_reward=True))
    assert both["doc_id"].tolist() == ["q/gold", "d0", "d1"]


def test_texts_equal_but_for_white_space_are_one():
    run, qrels = judged([0, 1, 0, 0], ["#### 8", "#### 9", " #### 8 ", "####  8\n"])
    lists = cut_lists(run, qrels, TOPICS, Cut(1, 3, lists=3))
    assert lists["doc_id"].tolist() == ["d1", "d0"]  # of three negatives that are one, the first drawn
    solution = cut_lists(*judged([0, 0], ["two  ####\n2", "three"]), TOPICS, Cut(1, 3, positives_from="gold"))
    assert docs(solution, "own") == [{"d1"}]


def test_the_tokens_of_a_draw_go_into_the_list_with_it():
    run, qrels = judged([1, 0, 1])
    run["tokens"] = [[1, 2], [3], [4, 5, 6]]
    lists = cut_lists(run, qrels, TOPICS, Cut(3, 1, positives_from="both"))
    ids = dict(zip(run["doc_id"], run["tokens"]))
    assert lists.columns[-1] == "tokens" and len(lists) == 4
    for row in lists.itertuples():
        assert row.tokens == ids.get(row.doc_id)  # a gold solution was not drawn
    assert "tokens" not in cut_lists(*judged([1, 0]), TOPICS, Cut(1, 1)).columns


SPACES = st.sampled_from(["", " ", "\n", "  "])
TEXTS = st.tuples(SPACES, st.sampled_from(["", "a", "b", "c d", "e", "f", "g"]), SPACES).map("".join)
RIGHT = st.sampled_from([0.0, 1.0])
REWARDS = st.one_of(st.integers(-2, 2).map(float), st.floats(-1e6, 1e6))
ENDS = st.sampled_from(["stop", "stop", "stop", "length"])


def drawn(by_reward):
    return st.lists(st.tuples(REWARDS if by_reward else RIGHT, TEXTS, ENDS), max_size=7)


@st.composite
def problems(draw):
    by_reward = draw(st.booleans())
    rows = draw(drawn(by_reward))
    source = draw(st.sampled_from(["own", "own", "gold", "both"]))
    shape = {"positives": draw(st.integers(1, 3)), "negatives": draw(st.integers(0, 3))}
    return rows, shape | {"positives_from": source, "by_reward": by_reward, "seed": draw(st.integers(0, 3))}


def as_tables(rows):
    run, qrels = judged([grade for grade, _, _ in rows], [text for _, text, _ in rows] or None)
    run = run.astype({"query_id": object, "doc_id": object, "text": object})  # also without rows
    return run.assign(finish_reason=[end for _, _, end in rows]), qrels.astype({"query_id": object, "doc_id": object})


def distinct(rows):
    """text without white space → grade, of the first draw that is finished and says something."""
    out = {}
    for grade, text, end in rows:
        if end == "stop" and text.strip():
            out.setdefault(" ".join(text.split()), grade)
    return out


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(1, 5))
def test_whatever_is_drawn_lists_keep_their_promises(problem, count):
    rows, how = problem
    run, qrels = as_tables(rows)
    topics = TOPICS.assign(solution="c  d")
    lists = cut_lists(run, qrels, topics, Cut(lists=count, **how))
    pd.testing.assert_frame_equal(lists, cut_lists(run, qrels, topics, Cut(lists=count, **how)))
    one = cut_lists(run, qrels, topics, Cut(**how))
    pd.testing.assert_frame_equal(one, lists[lists["list"] == 0], check_dtype=False)
    known, seen = distinct(rows), set()
    for number, some in lists.groupby("list"):
        good, bad = some[some["tier"] == "positive"], some[some["tier"] != "positive"]
        assert 1 <= len(good) <= how["positives"] and len(bad) <= how["negatives"]
        assert len(bad) > 0 or not how["negatives"]
        assert bad.empty or good["grade"].min() > bad["grade"].max()
        assert some["text"].str.split().str.join(" ").is_unique
        for row in some.itertuples():
            assert row.doc_id == "q/gold" or known[" ".join(row.text.split())] == row.grade
        key = (frozenset(good["doc_id"]), frozenset(bad["doc_id"]))
        assert key not in seen and number == len(seen)
        seen.add(key)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-2, 2), max_size=5), st.integers(1, 2), st.integers(1, 2))
def test_there_are_as_many_lists_as_differ(grades, p, q):
    """Counted by trying every choice: p of those above the worst, against q of all below them, or as many as there are."""
    lists = cut_lists(*judged([float(g) for g in grades]), TOPICS, Cut(p, q, lists=10**6, by_reward=True))
    above = [i for i, g in enumerate(grades) if g > min(grades)]
    expected = set()
    for ups in combinations(above, min(p, len(above))):
        below = [i for i, g in enumerate(grades) if ups and g < min(grades[u] for u in ups)]
        expected |= {(ups, downs) for downs in combinations(below, min(q, len(below))) if downs}
    found = [
        tuple(tuple(sorted(int(d[1:]) for d in some[some["tier"] == tier]["doc_id"])) for tier in ("positive", "own"))
        for _, some in lists.groupby("list")
    ]
    assert len(found) == len(set(found)) and set(found) == expected


@settings(max_examples=40, deadline=None)
@given(problems())
def test_every_prompt_has_a_list_or_the_reason_why_not(problem):
    rows, how = problem
    run, qrels = as_tables(rows)
    topics = TOPICS.assign(solution="c  d")
    lists = cut_lists(run, qrels, topics, Cut(**how))
    left = without_list(run, qrels, topics, lists, Cut(**how))
    assert len(left) == lists.empty
    for why in left["why"]:
        known, ends = distinct(rows), [end for _, _, end in rows]
        gold = how["positives_from"] != "own"
        values = {grade for text, grade in known.items() if text != "c d" or not gold}
        true = {
            "no draw": not rows,
            "unfinished": "length" in ends and len(known) < 2,
            "empty": "length" not in ends and any(not text.strip() for _, text, _ in rows) and len(known) < 2,
            "one text": set(ends) == {"stop"} and len(known) == 1 < len(rows),
            "one draw": set(ends) == {"stop"} and len(known) == 1 == len(rows),
            "all right": values == {1.0} and not how["by_reward"],
            "none right": values == {0.0} and not how["by_reward"],
            "equal rewards": len(values) == 1 and how["by_reward"],
            "as the solution": set(known) == {"c d"} and gold,
        }
        assert why in REASONS and true[why], (why, rows, how)


def test_every_reason_is_found():
    draws = {
        "u": [(1, "a", "stop"), (0, "b", "length"), (0, "", "stop")],
        "e": [(1, "a", "stop"), (0, " ", "stop")],
        "t": [(1, "a", "stop"), (1, "a ", "stop")],
        "r": [(1, "a", "stop"), (1, "b", "stop"), (0, "c", "length")],
        "w": [(0, "a", "stop"), (0, "b", "stop")],
        "ok": [(0, "a", "stop"), (1, "b", "stop")],
    }
    tables = [tuple(frame.assign(query_id=q) for frame in as_tables(rows)) for q, rows in draws.items()]
    run, qrels = (pd.concat(parts, ignore_index=True) for parts in zip(*tables))
    topics = pd.DataFrame({"query_id": ["n", *draws], "query": "?"})
    left = without_list(run, qrels, topics, cut_lists(run, qrels, topics, Cut(1, 1)), Cut(1, 1))
    assert dict(left.values) == {"n": "no draw", "u": "unfinished", "e": "empty", "t": "one text", "r": "all right", "w": "none right"}  # fmt: skip
    by_reward = Cut(1, 1, by_reward=True)
    rewarded = without_list(run, qrels, topics, cut_lists(run, qrels, topics, by_reward), by_reward)
    assert dict(rewarded.values)["r"] == "equal rewards"


ALL = Cut(all_draws=True)


def test_a_list_of_all_draws_has_equal_texts_as_often_as_they_were_drawn():
    run, qrels = judged([0, 1, 1, 0, 0.5], ["a", "b", "b", "a", "c"])
    run = run.assign(finish_reason=["stop"] * 4 + ["length"], tokens=[[i] for i in range(5)])
    lists = cut_lists(run, qrels, TOPICS, ALL)
    assert lists["doc_id"].tolist() == ["d0", "d1", "d2", "d3"] and lists["list"].tolist() == [0] * 4
    assert lists["grade"].tolist() == [0, 1, 1, 0] and lists["tokens"].tolist() == [[0], [1], [2], [3]]
    assert lists["tier"].tolist() == ["own", "positive", "positive", "own"]
    assert lists["query"].unique().tolist() == ["1+1?"] and without_list(run, qrels, TOPICS, lists, ALL).empty


def test_all_draws_of_several_prompts_come_in_the_order_of_the_topics():
    tables = [judged([1, 0, 0]), judged([0, 2])]
    run, qrels = (
        pd.concat([part.assign(query_id=q) for q, part in zip("ba", parts)], ignore_index=True)
        for parts in zip(*tables)
    )
    topics = pd.DataFrame({"query_id": ["a", "n", "b"], "query": ["A?", "N?", "B?"]})
    lists = cut_lists(run, qrels, topics, ALL)
    assert lists["query"].tolist() == ["A?", "A?", "B?", "B?", "B?"]
    assert without_list(run, qrels, topics, lists, ALL).to_dict("records") == [{"query_id": "n", "why": "no draw"}]
    assert irlens.lists(run.assign(reward=1.0, query="?"), all_draws=True).empty


@pytest.mark.parametrize(
    "grades, texts, why",
    [
        ([1.0, 1.0], ["a", "a"], "all right"),
        ([0.0, 0.0], ["a", "b"], "none right"),
        ([1.0], ["a"], "one draw"),
        ([1.0, 0.0], ["a", " "], "empty"),
    ],
)
def test_why_a_prompt_has_no_list_of_all_draws(grades, texts, why):
    run, qrels = judged(grades, texts)
    lists = cut_lists(run, qrels, TOPICS, ALL)
    assert lists.empty and without_list(run, qrels, TOPICS, lists, ALL)["why"].tolist() == [why]


@pytest.mark.parametrize("cut", [ALL, Cut(1, 1)])
def test_draws_without_a_grade_are_left_out_and_a_prompt_without_any_says_so(cut):
    """By a reward that is missing, or by qrels that do not know the draw."""
    run, qrels = judged([1.0, 0.0, 3.0])
    rewarded = run.assign(reward=[1.0, 0.0, None])
    assert set(cut_lists(rewarded, None, TOPICS, cut)["doc_id"]) == {"d0", "d1"}
    none = run.assign(reward=float("nan"))
    for some, known in ((none, None), (run, qrels[:0])):
        lists = cut_lists(some, known, TOPICS, cut)
        assert lists.empty and without_list(some, known, TOPICS, lists, cut)["why"].tolist() == ["no grade"]
    assert in_words(pd.Series(["no grade"])) == "1 no graded draw (a judge that grades every draw)"


@settings(max_examples=40, deadline=None)
@given(st.lists(drawn(True), min_size=1, max_size=3), st.integers(1, 2), st.integers(1, 3))
def test_merged_iterations_make_lists_as_one_run_would(rounds, p, q):
    """A text of two iterations counts once, as the earlier one's; no draw is lost or judged by another's grade."""
    pools = {s: graded(*as_tables(rows)) for s, rows in enumerate(rounds, 1)}
    run = merge(pools, ["q"]).rename(columns={"grade": "reward"})
    grades = {f"d{i}@{s}": row[0] for s, rows in enumerate(rounds, 1) for i, row in enumerate(rows)}
    assert dict(zip(run["doc_id"], run["reward"])) == grades and run["doc_id"].tolist() == list(grades)
    lists = cut_lists(run, None, TOPICS, Cut(p, q, lists=3, by_reward=True))
    alone = cut_lists(*as_tables([row for rows in rounds for row in rows]), TOPICS, Cut(p, q, lists=3, by_reward=True))
    assert lists["text"].tolist() == alone["text"].tolist() and lists["grade"].tolist() == alone["grade"].tolist()
    for row in lists.itertuples():
        assert grades[row.doc_id] == row.grade


def test_beside_the_solution_only_the_best_draws_are_positives():
    both = cut_lists(*judged([2, 1, 0]), TOPICS, Cut(3, 1, positives_from="both"))
    assert docs(both, "positive") == [{"q/gold", "d0"}] and docs(both, "own") == [{"d2"}]


def test_without_a_draw_that_counts_the_reason_is_not_that_of_others():
    """A solution is there to compare with, and no draw of this prompt is finished."""
    run, qrels = judged([1, 0])
    run = run.assign(finish_reason="length")
    lists = cut_lists(run, qrels, TOPICS, Cut(1, 1, positives_from="gold"))
    found = without_list(run, qrels, TOPICS, lists, Cut(1, 1, positives_from="gold"))
    assert lists.empty and found["why"].tolist() == ["unfinished"]


# -- from a run ----------------------------------------------------------------------------------------------------


def test_a_run_gives_lists_by_qrels_or_by_its_rewards():
    run, qrels = judged([1, 0, 0])
    run = run.assign(query="1+1?", reward=[-1.0, -3.0, -2.0])
    before = run.copy()
    right = irlens.lists(run, grades=qrels, positives=1, negatives=3)
    pd.testing.assert_frame_equal(right, cut_lists(run, qrels, TOPICS, Cut(1, 3)))
    rewarded = irlens.lists(run, positives=1, negatives=1)
    assert rewarded["doc_id"].tolist() == ["d0", "d1"] and rewarded["grade"].tolist() == [-1.0, -3.0]
    assert irlens.lists(run, lists=2, negatives=1)["list"].tolist() == [0, 0, 1, 1]
    pd.testing.assert_frame_equal(run, before)


def test_lists_of_chats_keep_what_was_asked():
    run, qrels = judged([1, 0])
    talk = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+1?"}]
    found = irlens.lists(run.assign(query="1+1?", messages=[talk, talk]), grades=qrels)
    assert [list(messages) for messages in found["messages"]] == [talk, talk]


@pytest.mark.parametrize("columns, more, message", [
    (["query", "text"], {}, "no column `reward`"),
    (["text", "reward"], {}, "no column `query`"),
    (["query", "reward"], {}, "no column `text`"),
    (["query", "text", "reward"], {"positiv": 2}, "did you mean 'positives"),
    (["query", "text", "reward"], {"negatives": -1}, "--negatives must be at least 0"),
    (["query", "text", "reward"], {"positives_from": "gold"}, "has no solutions"),
])  # fmt: skip
def test_what_lists_cannot_be_cut_from_is_one_line(columns, more, message):
    run, _ = judged([1, 0])
    run = run.assign(query="1+1?", reward=[1.0, 0.0])[["query_id", "doc_id", *columns]]
    with pytest.raises(UserError, match=message):
        irlens.lists(run, **more)


def test_reasons_in_words_count_and_advise():
    reasons = pd.Series(["all right", "unfinished", "unfinished", "as another tool says"])
    told = in_words(reasons, ["unfinished"])
    assert told == ("2 too few finished draws (a larger --max-tokens), 1 all draws right, 1 as another tool says")
    assert "(more draws (-n)" in in_words(reasons)
