"""The judge: what an answer says, both orders, ties, nonsense that is asked again and counted; a server in between."""

import json

import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.rerank.llm_judge import Judge, Refusal, pairings, read_pair, read_point
from irlens.rerank.scoring import MadeBy, score_in_shards

TALK = {"q": [{"role": "user", "content": "how many"}]}
ROWS = pd.DataFrame({"query_id": "q", "doc_id": list("abcd"), "text": ["xx", "x", "xxx", "xx"]})


@pytest.mark.parametrize("answer, value", [
    ("A", 1.0), ("B", 0.0), ("c", 0.5), (" **A**.", 1.0), ("[[B]]", 0.0), ("Answer: A", 1.0), ("The better answer is B.", 0.0),
    ("<think>A or B?</think>\nB", 0.0), ("Because of its detail.\nVerdict: A", 1.0), ("A and B", None), ("", None),
    ("Apples", None), ("I cannot say", None), ("D", None), ("A is worse than B", None),
])  # fmt: skip
def test_what_an_answer_about_a_pair_says(answer, value):
    assert read_pair(answer) == value


@pytest.mark.parametrize("answer, value", [
    ("7", 7.0), ("10", 10.0), ("Score: 8/10", 8.0), ("**9**", 9.0), ("my rating is 3.", 3.0), ("5.0", 5.0), ("0", None),
    ("11", None), ("7 or 8", None), ("great", None), ("-3", None), ("Fine work.\n6", 6.0), ("7.5", None),
])  # fmt: skip
def test_what_a_grade_says(answer, value):
    assert read_point(answer) == value


def parts(talk):
    first, _, second = talk[0]["content"].partition("[Answer A]")[2].partition("[Answer B]")
    return first.strip(), second.partition("\n\nReply")[0].strip()


def longer(talks, number):
    return ["A" if len(a) > len(b) else "B" if len(b) > len(a) else "C" for a, b in map(parts, talks)]


def test_pairs_are_asked_both_ways_and_a_consistent_judge_ranks():
    asked = []

    def ask(talks, number):
        asked.extend(map(parts, talks))
        return longer(talks, number)

    found = Judge(ask, TALK)(ROWS)
    assert sorted(asked) == sorted((a, b) for a in ("x", "xx", "xxx") for b in ("x", "xx", "xxx") if a != b)
    assert found["score"].tolist() == [0.5, 0.0, 1.0, 0.5]  # equal texts are one contestant
    assert found["asked"].tolist() == [4, 4, 4, 0] and found["nonsense"].sum() == 0


def test_a_judge_that_always_says_a_has_no_opinion():
    assert Judge(lambda talks, _: ["A"] * len(talks), TALK)(ROWS)["score"].tolist() == [0.5] * 4


def test_nonsense_is_asked_once_more_then_kept_counted_and_a_tie():
    tries = []

    def ask(talks, number):
        tries.append((number, len(talks), len(talks[0])))
        answers = longer(talks, number)
        return ["banana" if "xxx" in parts(talk) else a for talk, a in zip(talks, answers)]

    found = Judge(ask, TALK)(ROWS)
    assert tries == [(0, 6, 1), (1, 4, 3)]  # the second try shows what was said, and asks again
    assert found["score"].tolist() == [0.75, 0.25, 0.5, 0.75]
    assert found["nonsense"].tolist() == [2, 2, 4, 0] and json.loads(found["answers"][1]) == ["banana"] * 2


def test_a_second_answer_that_can_be_read_counts():
    found = Judge(lambda talks, number: longer(talks, 0) if number else ["?"] * len(talks), TALK)(ROWS)
    assert found["score"].tolist() == [0.5, 0.0, 1.0, 0.5] and found["nonsense"].sum() == 0


def test_one_unreadable_order_makes_a_tie():
    def ask(talks, number):
        return ["A" if parts(talk)[0] == "xxx" else "?" for talk in talks]

    assert Judge(ask, TALK)(ROWS.iloc[1:3].reset_index(drop=True))["score"].tolist() == [0.5, 0.5]


def test_a_pair_that_a_server_refuses_in_one_order_is_no_tie_but_left_out():
    def ask(talks, number):
        return [Refusal("no") if parts(talk)[0] == "xxx" else a for talk, a in zip(talks, longer(talks, number))]

    found = Judge(ask, TALK)(ROWS)
    assert found["score"].tolist() == [1.0, 0.0, 0.5, 1.0]  # the two that met; nobody knows of the third
    assert found["refused"].tolist() == ["no", "no", "no", ""]
    assert found["asked"].tolist() == [3, 3, 2, 0] and found["nonsense"].sum() == 0


def test_a_grade_that_is_refused_at_the_second_try_is_the_mean_and_no_nonsense():
    def ask(talks, number):
        texts = [t[0]["content"].partition("[Answer]\n")[2].partition("\n")[0] for t in talks]
        return [Refusal("no") if number else "?" if text == "xxx" else f"{len(text)}" for text in texts]

    found = Judge(ask, TALK, "pointwise")(ROWS)
    assert found["score"].tolist() == [2.0, 1.0, pytest.approx(5 / 3), 2.0]
    assert found["refused"].tolist() == ["", "", "no", ""] and found["asked"].tolist() == [1, 1, 0, 1]


def test_grades_and_one_that_stays_unreadable_is_the_mean_of_the_others():
    def ask(talks, number):
        texts = [t[0]["content"].partition("[Answer]\n")[2].partition("\n")[0] for t in talks]
        return [{"x": "2", "xx": "9", "xxx": "hm"}[text] for text in texts]

    found = Judge(ask, TALK, "pointwise")(ROWS)
    assert found["score"].tolist() == [9.0, 2.0, pytest.approx((9 + 2 + 9) / 3), 9.0]
    assert found["nonsense"].tolist() == [0, 0, 1, 0]
    nothing = Judge(lambda talks, _: ["?"] * len(talks), TALK, "pointwise")(ROWS)
    assert nothing["score"].tolist() == [0.0] * 4


def test_opponents_meet_equally_often():
    texts = [str(i) for i in range(9)]
    assert len(pairings(texts, None)) == 36 and pairings(texts, 8) == pairings(texts, None)
    some = pairings(texts, 4)
    assert [sum(i in pair for pair in some) for i in range(9)] == [4] * 9 and len(set(some)) == 18
    assert pairings(["a"], None) == [] and pairings([], 2) == []
    with pytest.raises(UserError, match="even number"):
        pairings(texts, 3)


def test_lists_of_one_and_shards_close_the_judge(tmp_path):
    closed = []
    rows = pd.DataFrame({"query_id": ["q"], "doc_id": ["a"], "text": ["x"]})
    judge = Judge(lambda *_: pytest.fail("asked"), TALK, close=lambda: closed.append(1))
    assert score_in_shards(rows, lambda: judge, tmp_path, "judge", MadeBy({}))["score"].tolist() == [0.5]
    assert closed == [1]


@pytest.mark.parametrize("argument, expected", [
    ("pairwise", ("pairwise", None)), ("pointwise", ("pointwise", None)), ("tiny", ("pairwise", "tiny")),
    ("pointwise:tiny", ("pointwise", "tiny")), ("owner/chat", ("pairwise", "owner/chat")),
])  # fmt: skip
def test_what_follows_judge_is_a_mode_a_model_or_both(argument, expected):
    from irlens.rerank import local_judge

    assert local_judge.parsed(f"judge:{argument}", argument) == expected


def test_a_model_without_a_template_is_asked_again_in_one_turn_and_long_questions_are_refused(monkeypatch):
    """The embedded model says nothing that can be read; what it is asked is its own prompt, and must fit."""
    import irlens

    run = irlens.run([("how many", "one"), ("how many", "two")])
    judge = irlens.reranker("judge:tiny", judge_tokens=4)
    found = judge.scores(run)
    assert found.scores.tolist() == [0.5, 0.5] and found.facts["asked"] == found.facts["nonsense"] == 4
    assert judge.identity["judge"] == "tiny" and judge.identity["judge_digest"]
    with pytest.raises(
        UserError, match="question 0 to the judge tiny: prompt of .* exceeds the model's 1024 positions"
    ):
        judge.scores(irlens.run([("how many " * 600, "one"), ("how many " * 600, "two")]))
    with pytest.raises(UserError, match="judge:pontwise: did you mean 'pointwise'"):
        irlens.reranker("judge:pontwise")
    with pytest.raises(UserError, match="needs --base-url.*or judge:MODEL"):
        irlens.reranker("judge:pointwise")
