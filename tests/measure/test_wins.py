"""Texts that compete: preferences by scores and by a judge of pairs, win rates by hand, tests, and what is refused."""

import numpy as np
import pandas as pd
import pytest

import irlens
from irlens.base.errors import UserError
from irlens.measure import winrate, wins
from irlens.rerank.reranker import Prepared, Scores, Scoring


def run(texts, name="q"):
    """A run of draws: texts[i] are the responses to prompt i."""
    rows = [
        (f"{name}{i}", f"ask {i}", f"{name}{i}/{d}", text, d)
        for i, some in enumerate(texts)
        for d, text in enumerate(some)
    ]
    frame = pd.DataFrame(rows, columns=["query_id", "query", "doc_id", "text", "draw"])
    return frame.assign(score=-frame["draw"].astype(float), rank=frame["draw"])


def length(rows):
    return rows["text"].str.len()


def pairwise(prefers, facts=None):
    """A judge of pairs: `prefers(text)` is greater for the better one. It keeps what it was shown."""
    shown = []

    def prepare(rows, given):
        def score():
            shown.append(rows)
            return Scores(np.array([prefers(text) for text in rows["text"]], dtype=float), facts=facts or {})

        return Prepared(score)

    judge = Scoring("pairs", prepare, relative=True)
    return judge, shown


A = run([["aa", "a"], ["a", "a"], ["aaaa", "b"]])
B = run([["bbb", "b"], ["b", "bb"], ["aaaa", "bb"]])


def test_by_scores_every_response_meets_every_other():
    """q0: of 4 meetings b wins 2 (bbb), ties 1 (b, a); q1: bb wins both, b ties both; q2: aaaa ties itself, …"""
    found = irlens.preferences({"a": A, "b": B}, length)
    assert list(found.columns) == wins.COLUMNS
    assert found["preference"].tolist() == pytest.approx([(2 + 0.5) / 4, (2 + 2 * 0.5) / 4, (0.5 + 1 + 0 + 1) / 4])
    assert found["length_before"].tolist() == [1.5, 1, 2.5] and found["length_after"].tolist() == [2, 1.5, 3]
    back = irlens.preferences({"b": B, "a": A}, length)
    assert (found["preference"] + back["preference"]).tolist() == [1, 1, 1]


def test_equal_texts_tie_whatever_rounding_makes_of_their_scores():
    scored = {"a": A.assign(reward=1.0), "b": A.assign(reward=1.0 + 1e-9)}
    some = {name: frame[frame["query_id"] == "q1"] for name, frame in scored.items()}
    assert wins.by_scores(some, [("a", "b")])["preference"].tolist() == [0.5]


def test_a_judge_of_pairs_sees_two_texts_at_a_time():
    judge, shown = pairwise(len)
    found = irlens.preferences({"a": A, "b": B}, judge)
    assert found["preference"].tolist() == [1.0, 0.5, 0.5]  # first against first
    assert found["length_before"].tolist() == [2, 1, 4]
    (rows,) = shown
    assert (rows.groupby(["query_id", "tag"])["text"].size() == 2).all() and set(rows["query"]) == {
        "ask 0",
        "ask 1",
        "ask 2",
    }
    found = irlens.preferences({"a": A, "b": B}, pairwise(len)[0], pairs=2)
    assert found["preference"].tolist() == [0.75, 0.75, 0.75]
    three = irlens.preferences({"a": A, "b": B, "c": A}, judge, baseline="b")
    assert list(zip(three["before"], three["after"]))[::3] == [("b", "a"), ("b", "c")]


def test_a_prompt_that_one_lacks_is_left_out():
    found = irlens.preferences({"a": A, "b": B[B["query_id"] != "q1"]}, length)
    assert found["query_id"].tolist() == ["q0", "q2"]


def test_win_rates_by_hand():
    found = irlens.preferences({"a": A, "b": B}, pairwise(len)[0])
    rates = irlens.win_rates(found).set_index("measure")
    assert (rates["run"] == "b").all() and (rates["against"] == "a").all() and (rates["n"] == 3).all()
    assert rates.loc[wins.RATE, "value"] == pytest.approx(2 / 3)
    assert rates.loc[wins.RATE, "se"] == pytest.approx(np.std([1, 0.5, 0.5], ddof=1) / np.sqrt(3))
    soft = irlens.win_rates(found.assign(preference=[0.9, 0.6, 0.4])).set_index("measure")
    assert soft.loc[wins.DISCRETE, "value"] == pytest.approx(2 / 3) and soft.loc[wins.RATE, "value"] == pytest.approx(
        1.9 / 3
    )
    assert ((rates["low"] <= rates["value"]) & (rates["value"] <= rates["high"])).all()


def test_the_length_controlled_one_is_that_of_the_length_of_the_responses():
    """The longer response wins always: a system that is longer most of the time wins, until its length is taken out."""
    rng = np.random.default_rng(0)
    longer = rng.integers(1, 60, 80) * np.where(rng.random(80) < 0.75, 1, -1)
    texts = run([["x" * 100] for _ in longer]), run([["y" * (100 + d)] for d in longer])
    found = irlens.preferences(dict(zip("ab", texts)), pairwise(len)[0])
    rates = irlens.win_rates(found).set_index("measure")
    expected = winrate.length_controlled(1.0 + (longer > 0), -longer.astype(float))
    assert rates.loc[wins.CONTROLLED, "value"] == pytest.approx(expected.value)
    assert rates.loc[wins.RATE, "value"] > 0.65 > rates.loc[wins.CONTROLLED, "value"]


def test_identical_systems_and_one_prompt():
    judge, _ = pairwise(len)
    same = irlens.preferences({"a": A, "b": A}, judge)
    rates = irlens.win_rates(same)
    assert (rates["value"] == 0.5).all() and (rates["low"] < 0.5).all() and (rates["high"] > 0.5).all()
    tests = irlens.compare(same)
    assert tests["p"].tolist() == [1.0] and tests["difference"].tolist() == [0.0]
    one = irlens.preferences({"a": A.iloc[:2], "b": B.iloc[:2]}, judge)
    rates = irlens.win_rates(one)
    assert rates[["se", "low", "high"]].isna().all().all() and (rates["n"] == 1).all()
    assert irlens.compare(one)["detectable"].tolist() == [float("inf")]


def test_tests_of_win_rates_stand_beside_others_under_one_correction():
    """b wins on all of 12 prompts: the two most extreme of 4,096 patterns; Holm counts the other measure too."""
    texts = run([["x"]] * 12), run([["yy"]] * 12)
    found = irlens.preferences(dict(zip("ab", texts)), pairwise(len)[0])
    values = [pd.DataFrame({"run": name, "query_id": texts[0]["query_id"], "measure": "m", "value": value})
              for name, value in (("a", 0.0), ("b", 0.0))]  # fmt: skip
    tests = irlens.compare(*values, found).set_index("measure")
    assert tests.loc[wins.RATE, "p"] == 2 / 2**12 and tests.loc[wins.RATE, "p_holm"] == 2 * 2 / 2**12
    assert tests.loc[wins.RATE, "difference"] == 0.5 and tests.loc[wins.RATE, "high"] <= 0.5
    assert tests.loc["m", "p"] == 1


@pytest.mark.parametrize("change, message", [
    (lambda: irlens.preferences({"a": A}, length), "needs two systems or more, got 1"),
    (lambda: irlens.preferences({"a": A, "b": run([["x"]], "z")}, length), "no prompt in common"),
    (lambda: irlens.preferences({"a": A, "b": B.drop(columns="text")}, length), "no column text"),
    (lambda: irlens.preferences({"a": A, "b": B}, length, pairs=0), "--pairs must be at least 1"),
    (lambda: irlens.preferences({"a": A, "b": B}, length, baseline="c"), "the baseline 'c' is no system here"),
    (lambda: irlens.preferences({"a": A, "b": B}, lambda rows: [np.nan] * len(rows)), "score not finite for query_id=q0"),
    (lambda: irlens.preferences({"a": A, "b": B}, pairwise(len, {"asked": 12, "nonsense": 12})[0]), "none of its 6 answers"),
    (lambda: irlens.win_rates(A), "no column before"),
    (lambda: irlens.win_rates(irlens.preferences({"a": A, "b": B}, length).assign(preference=1.5)), "expected 0 to 1, got 1.5"),
])  # fmt: skip
def test_what_has_no_win_rate(change, message):
    with pytest.raises(UserError, match=message):
        change()
