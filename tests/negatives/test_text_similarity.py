"""Similarities against values worked out by hand, and against the plain way to compute them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irlens.negatives.text_similarity import edit_similarity, self_bleu, words


def test_words_are_lower_case_with_numbers_and_signs_and_without_other_punctuation():
    assert words("He pays 1,000 dollars, i.e. 3.5*2 − 1!") == ["he", "pays", "1000", "dollars", "i", "e", "3.5", "*", "2", "-", "1"]  # fmt: skip
    assert words("…") == [] and words("Ｑ") == ["q"]


@pytest.mark.parametrize(
    "a, b, value",
    [
        ("a b c", "a b c", 1.0),
        ("a b c", "d e", 0.0),
        ("a b c d", "a x c", 2 * 2 / 7),  # a and c in common
        ("a b", "b a", 2 * 1 / 4),  # only one of the two in the same order
        ("", "", 1.0),
        ("a", "", 0.0),
    ],
)
def test_edit_similarity_by_hand(a, b, value):
    assert edit_similarity(a.split(), b.split()) == pytest.approx(value)


@given(st.lists(st.sampled_from("abc"), max_size=70), st.lists(st.sampled_from("abc"), max_size=70))
def test_edit_similarity_is_the_longest_common_subsequence(a, b):
    row = [0] * (len(b) + 1)
    for x in a:
        above = row
        row = [0]
        for j, y in enumerate(b):
            row.append(above[j] + 1 if x == y else max(above[j + 1], row[j]))
    expected = 2 * row[-1] / (len(a) + len(b)) if a or b else 1.0
    assert edit_similarity(a, b) == expected


def test_self_bleu_by_hand():
    assert self_bleu(["a b c d e"] * 3) == pytest.approx(1.0)
    assert self_bleu(["a b", "c d"]) == 0.0
    assert math.isnan(self_bleu(["alone"]))
    # "a b c" against "a b d": 1-grams 2/3, 2-grams (1 + 1)/(2 + 1), order 2; the other way round the same
    assert self_bleu(["a b c", "a b d"], order=2) == pytest.approx(math.sqrt(2 / 3 * 2 / 3))
    # "a" against "a b": all its words are there, but it is short: exp(1 − 2/1); "a b" against "a": (1/2 · 1/2)^(1/2)
    assert self_bleu(["a", "a b"], order=2) == pytest.approx((math.exp(-1) * 1 + 0.5) / 2)
