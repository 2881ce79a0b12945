"""Verifying a run and voting over it."""

import numpy as np
import pandas as pd
import pytest

from irlens.base import limits
from irlens.base.errors import UserError
from irlens.rerank.verify import unreadable, verify
from irlens.rerank.vote import answers_of, expected_vote_accuracy, majority_vote, vote_scores, vote_weights
from irlens.tasks.gsm8k import extract, is_correct

TOPICS = pd.DataFrame({"query_id": ["a"], "query": ["?"], "answers": [["5"]]})


def run_of(texts, reasons=None, query="a"):
    return pd.DataFrame(
        {
            "query_id": query,
            "doc_id": [f"d{i}" for i in range(len(texts))],
            "score": -np.arange(len(texts), dtype=float),
            "rank": range(len(texts)),
            "text": texts,
            "finish_reason": reasons or ["stop"] * len(texts),
        }
    )


def test_verify_judges_each_draw_and_an_unfinished_one_is_wrong():
    run = run_of(["#### 5", "#### 15", "5 then #### 6", "#### 5"], ["stop", "stop", "stop", "length"])
    assert verify(run, TOPICS, is_correct)["relevance"].tolist() == [1, 0, 0, 0]


def test_unfinished_draws_can_be_judged_and_a_run_need_not_say_how_it_ended():
    run = run_of(["#### 5", "#### 5"], ["stop", "length"])
    assert verify(run, TOPICS, is_correct, judge_unfinished=True)["relevance"].tolist() == [1, 1]
    assert verify(run.drop(columns="finish_reason"), TOPICS, is_correct)["relevance"].tolist() == [1, 1]


def test_workers_send_back_whether_there_is_an_answer_and_not_the_answer(monkeypatch):
    """Of a million responses the answers, as fractions, took longer to send than to read."""
    texts = ["#### 5", "#### 1/3", "no number", "", "nor here", "no number"]
    run, sent, calls = run_of(texts, ["stop"] * 4 + ["length", "stop"]), [], limits.calls
    monkeypatch.setattr(limits, "calls", lambda *told: sent.append(calls(*told)) or sent[-1])
    found = unreadable(run, verify(run, TOPICS, is_correct), extract)
    assert found.tolist() == [False, False, True, True, False, True]
    assert sent[-1] == [True, False, False]  # each text that is finished and wrong, once
    assert not unreadable(run, verify(run, TOPICS, is_correct), None).any()


def test_verify_needs_texts():
    with pytest.raises(UserError, match="no column text"):
        verify(run_of(["x"]).drop(columns="text"), TOPICS, is_correct)


def test_verify_needs_an_answer():
    with pytest.raises(UserError, match="nothing to verify"):
        verify(run_of(["x"]), TOPICS.drop(columns="answers"), is_correct)
    with pytest.raises(UserError, match="query b has no gold answer"):
        verify(run_of(["x"], query="b"), TOPICS, is_correct)


def test_majority_vote_puts_the_shared_answer_first():
    voted = majority_vote(run_of(["#### 7", "#### 5", "none at all", "so #### 5.0", "#### 7", "#### 5"]), extract)
    assert voted["doc_id"].tolist()[:3] == ["d1", "d3", "d5"]
    assert voted["doc_id"].tolist()[-1] == "d2"
    assert voted["score"].is_monotonic_decreasing and voted["score"].is_unique


def brute_force(answers, correct, n):
    """The expectation over all orders, ties shared."""
    from itertools import combinations

    values = []
    for some in combinations(range(len(answers)), n):
        counts = {}
        for i in some:
            if answers[i] is not None:
                counts[answers[i]] = counts.get(answers[i], 0) + 1
        top = [a for a, c in counts.items() if c == max(counts.values())]
        right = {answers[i] for i in range(len(answers)) if correct[i]}
        values.append(sum(a in right for a in top) / len(top) if top else 0.0)
    return float(np.mean(values))


def test_expected_vote_accuracy_is_the_mean_over_orders():
    answers = [1, 2, 2, None, 3, 1, 1]
    correct = [False, True, True, False, False, False, False]
    cutoffs = [1, 2, 3, 5, 7]
    found = expected_vote_accuracy(answers, correct, cutoffs, orders=20000)
    assert found == pytest.approx([brute_force(answers, correct, n) for n in cutoffs], abs=0.012)
    assert found[-1] == 0.0 and found[0] == pytest.approx(2 / 7, abs=0.012)


def test_votes_without_any_answer_are_worth_nothing():
    assert expected_vote_accuracy([None, None], [False, False], [1, 2]).tolist() == [0.0, 0.0]


def test_a_vote_is_exact_where_few_choices_exist():
    answers, correct = [1, 2, 2, None, 3, 1, 1], [False, True, True, False, False, False, False]
    found = expected_vote_accuracy(answers, correct, range(1, 8))  # at most C(7, 3) = 35 choices of N
    assert found == pytest.approx([brute_force(answers, correct, n) for n in range(1, 8)], abs=1e-12)


def test_an_unfinished_draw_does_not_vote():
    run = run_of(["#### 7", "#### 7", "#### 5"], ["length", "length", "stop"])
    assert answers_of(run, extract) == [None, None, 5]
    assert majority_vote(run, extract)["doc_id"].tolist() == ["d2", "d0", "d1"]


def test_votes_are_counted_per_query_and_tag():
    run = pd.concat([run_of(["#### 7", "#### 7", "#### 5"]), run_of(["#### 7", "#### 5", "no"], query="b")])
    assert vote_scores(run, answers_of(run, extract)).tolist() == [2, 2, 1, 1, 1, 0]
    tagged = run_of(["#### 7", "#### 7", "#### 7"]).assign(tag=["s", "t", "t"])
    assert vote_scores(tagged, answers_of(tagged, extract)).tolist() == [1, 2, 2]


def test_a_weighted_vote_by_hand():
    run = run_of(["#### 7", "#### 7", "#### 5"])
    weights = vote_weights(run, np.log([1.0, 2.0, 4.0]))
    assert weights == pytest.approx([0.25, 0.5, 1.0])  # the odds, scaled by the best
    assert vote_scores(run, [7, 7, 5], weights) == pytest.approx([0.75, 0.75, 1.0])
    # of two draws: {7, 7} elects 7; {7, 5} twice elects 5, the only right one
    assert expected_vote_accuracy([7, 7, 5], [False, False, True], [1, 2, 3], weights=weights) == pytest.approx(
        [1 / 3, 2 / 3, 1]
    )
    assert expected_vote_accuracy([7, 7, 5], [False, False, True], [2, 3]) == pytest.approx([1 / 3, 0])


def test_an_elected_answer_is_worth_the_mean_grade_of_its_draws():
    assert expected_vote_accuracy([1, 1, 2], [0.2, 0.6, 0.9], [3]) == pytest.approx([0.4])
