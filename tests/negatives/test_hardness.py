"""The hardness report against numbers worked out by hand."""

from fractions import Fraction
from functools import partial

import numpy as np
import pandas as pd
import pytest

from irlens.measure import stats
from irlens.negatives import hardness as measured
from irlens.negatives.hardness import LARGEST, MEASURES

hardness = partial(measured.hardness, intervals=stats)

ROWS = [  # query, doc, text, tier, logprob, tokens, reward
    ("a", "a/gold", "so it is 2", "positive", -4.0, 2, 3.0),
    ("a", "a1", "so it is 11", "hard", -6.0, 3, 1.0),
    ("a", "a2", "it is 3", "hard", -8.0, 2, np.nan),
    ("b", "b/gold", "so 4", "positive", -2.0, 1, 1.0),
    ("b", "b1", "so 5", "hard", -3.0, 1, 2.0),
    ("b", "c1", "none", "easy", -9.0, 3, np.nan),
]
COLUMNS = ["query_id", "doc_id", "text", "tier", "logprob", "n_tokens", "reward"]
LISTS = pd.DataFrame(ROWS, columns=COLUMNS).assign(query="?", grade=0.0, iteration=0, list=0)
ANSWERS = {"a": ["2"], "b": ["4"]}


def extract(text):
    last = text.split()[-1]
    return Fraction(last) if last.isdigit() else None


@pytest.fixture(scope="module")
def found():
    table = hardness(LISTS, ["easy", "hard", "hardest"], 4, answers=ANSWERS, extract=extract)
    assert (table["low"] <= table["value"]).sum() + table["low"].isna().sum() == len(table)
    return table.set_index(["tier", "measure"])


@pytest.mark.parametrize(
    "tier, measure, value, n",
    [
        ("positive", "logprob", -3.0, 2),
        ("hard", "logprob", (-7 - 3) / 2, 2),  # a's mean of −6 and −8, b's −3
        ("hard", "logprob_gap", (-3 - 1) / 2, 2),
        ("hard", "logprob_per_token", (-(2 + 4) / 2 - 3) / 2, 2),
        ("hard", "logprob_per_token_gap", -1.0, 2),  # −3 less −2 for both
        ("positive", "reward", 2.0, 2),
        ("hard", "reward_gap", (-2 + 1) / 2, 2),  # the NaN is not known
        ("hard", "answer_distance", 3.0, 2),  # medians 5 (of 9 and 1) and 1
        ("hard", "unparsable", 0.0, 2),
        ("easy", "unparsable", 1.0, 1),
        ("hard", "word_similarity", ((2 * 3 / 8 + 2 * 2 / 7) / 2 + 2 * 1 / 4) / 2, 2),
        ("easy", "word_similarity", 0.0, 1),
        ("hard", "tokens", (2.5 + 1) / 2, 2),
        ("hard", "distinct_answers", 2.0, 1),  # only a has two
        ("easy", "without", 0.75, 4),
        ("hard", "without", 0.5, 4),
        ("hardest", "without", 1.0, 4),
    ],
)
def test_measures_by_hand(found, tier, measure, value, n):
    assert found.loc[(tier, measure), "value"] == pytest.approx(value)
    assert found.loc[(tier, measure), "n"] == n


def test_what_is_not_known_has_no_row(found):
    assert ("easy", "reward") not in found.index and ("easy", "answer_distance") not in found.index
    assert ("hardest", "logprob") not in found.index and ("positive", "word_similarity") not in found.index
    assert set(found.index.get_level_values("measure")) < set(MEASURES)
    bare = hardness(LISTS.drop(columns=["logprob", "n_tokens", "reward"]), ["hard"], 2)
    assert bare["measure"].tolist() == ["word_similarity", "self_bleu", "without"]
    own = hardness(LISTS, ["hard"], 2, embed=lambda texts: np.array([[len(t), 1.0] for t in texts]))
    assert "embedding_similarity" in set(own["measure"])


def test_answers_that_are_far_or_no_numbers():
    lists = LISTS[LISTS["query_id"] == "b"].assign(text=["so 4", "so " + "9" * 300, "none"])
    table = hardness(lists, ["hard"], 1, answers=ANSWERS, extract=extract).set_index("measure")
    assert table.loc["answer_distance", "value"] == LARGEST and np.isnan(table.loc["answer_distance", "low"])
    words = hardness(lists, ["hard"], 1, answers={"b": ["x"]}, extract=lambda text: text.split()[-1])
    assert "answer_distance" not in set(words["measure"])
