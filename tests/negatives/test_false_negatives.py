"""The false-negative filter: each reason alone, their order, and what settles nothing."""

import numpy as np
import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.negatives.false_negatives import REASONS, false_negatives, nearest_positive

POSITIVES = pd.DataFrame({"query_id": ["a", "a", "b"], "text": ["so 2 apples", "it is 2", "so 4"], "reward": [3.0, 2.0, 1.0]})  # fmt: skip
VECTORS = {"so 2 apples": [2, 0], "it is 2": [0, 1], "so 4": [1, 1], "p": [3, 4], "q": [-1, 0], "r": [9, 0.1]}


def embed(texts):
    return np.array([VECTORS[text] for text in texts], dtype=np.float32)


def rows(*pairs, **more):
    return pd.DataFrame(pairs, columns=["query_id", "text"]).assign(**more)


def test_a_text_that_the_verifier_accepts_for_this_prompt():
    found = false_negatives(rows(("a", "2"), ("b", "2"), ("a", "2"), ("a", "3")), POSITIVES, accepts=lambda q, t: (q, t) == ("a", "2"))  # fmt: skip
    assert found.tolist() == ["right answer", "", "right answer", ""]


def test_the_same_words_and_nearly_the_same_words():
    candidates = rows(("a", "So 2 apples."), ("a", "so 2 pears"), ("b", "so 2 apples"), ("a", "it is 3"))
    assert false_negatives(candidates, POSITIVES).tolist() == ["near text", "", "", ""]
    # 2 of 3 words are the positive's, in order: 2 · 2 / 6 = 2/3 for rows 1 and 3; row 2 is held against "so 4": 2/5
    near = false_negatives(candidates, POSITIVES, text_threshold=2 / 3)
    assert near.tolist() == ["near text", "near text", "", "near text"]
    assert (false_negatives(candidates, POSITIVES, text_threshold=None) == "").all()


def test_embeddings_are_compared_by_cosine_with_every_positive_of_the_query():
    candidates = rows(("a", "p"), ("a", "q"), ("a", "r"), ("b", "q"), ("c", "r"))
    # p = (3, 4)/5 against (1, 0) and (0, 1): 0.8; q: max(−1, 0); r nearly (1, 0); b's positive is (1, 1)/√2
    assert nearest_positive(candidates, POSITIVES, embed) == pytest.approx([0.8, 0, 81 / np.sqrt(81 * 81.01), -np.sqrt(0.5), -np.inf], abs=1e-3)  # fmt: skip
    options = {"embed": embed, "text_threshold": None}
    found = false_negatives(candidates, POSITIVES, embedding_threshold=0.8, **options)
    assert found.tolist() == ["near embedding", "", "near embedding", "", ""]
    assert false_negatives(candidates, POSITIVES, embedding_threshold=0.9, **options).tolist()[0] == ""


def test_rewards_within_a_margin_of_the_lowest_positive():
    candidates = rows(
        *[("a", "x"), ("a", "y"), ("a", "z"), ("b", "u"), ("c", "v")], reward=[5.0, 2.0, 1.4, np.nan, 9.0]
    )
    assert false_negatives(candidates, POSITIVES, reward_margin=0.0).tolist() == [
        "near reward",
        "near reward",
        "",
        "",
        "",
    ]
    assert false_negatives(candidates, POSITIVES, reward_margin=0.6).tolist()[2] == "near reward"
    with pytest.raises(UserError, match="candidates have no column `reward`"):
        false_negatives(candidates.drop(columns="reward"), POSITIVES, reward_margin=0.0)


def test_the_first_reason_counts_and_the_input_stays():
    candidates = rows(("a", "so 2 apples"), ("a", "q"), reward=[9.0, 9.0]).set_axis([7, 3])
    before = candidates.copy()
    found = false_negatives(candidates, POSITIVES, accepts=lambda q, t: True, embed=embed, reward_margin=0.0)
    assert found.to_dict() == {7: "right answer", 3: "right answer"}
    found = false_negatives(candidates, POSITIVES, embed=embed, reward_margin=0.0)
    assert found.to_dict() == {7: "near text", 3: "near reward"} and set(found) <= set(REASONS)
    pd.testing.assert_frame_equal(candidates, before)
    assert false_negatives(candidates.iloc[:0], POSITIVES, embed=embed, reward_margin=0.0).empty


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"text_threshold": 1.5}, "text threshold 1.5: a similarity must be above 0 and at most 1"),
        ({"text_threshold": 0.0}, "text threshold 0"),
        ({"embedding_threshold": -0.1}, "embedding threshold -0.1"),
        ({"embedding_threshold": float("nan")}, "embedding threshold nan"),
        ({"reward_margin": -1.0}, "reward margin -1"),
        ({"reward_margin": float("nan")}, "reward margin nan"),
    ],
)
def test_thresholds_out_of_range(wrong, message):
    with pytest.raises(UserError, match=message):
        false_negatives(rows(("a", "x")), POSITIVES, **wrong)


def test_white_space_makes_no_other_vector():
    seen = []

    def embed(texts):
        seen.extend(texts)
        return np.eye(len(texts))

    positives = pd.DataFrame({"query_id": ["a"], "text": ["is 2"]})
    candidates = pd.DataFrame({"query_id": ["a", "a", "a"], "text": [" is  2\n", "is 3", "is 3 "]})
    found = false_negatives(candidates, positives, text_threshold=None, embed=embed, embedding_threshold=0.9)
    assert found.tolist() == ["near embedding", "", ""] and seen == ["is 2", "is 3"]
