"""RewardBench 2's scores by hand: best of four, every part of the Ties score, the mean of six, intervals over prompts."""

import json
import math

import numpy as np
import pytest

import irlens
from irlens.base.errors import UserError
from irlens.measure.rewardbench import OVERALL, best_of, scored, ties_parts, ties_score
from irlens.tasks import rewardbench as benchmark

SUBSETS = list(benchmark.SUBSETS)


@pytest.fixture
def saved(rewardbench_rows, tmp_path):
    """`saved(rows)`: a file with these rows, or all."""

    def write(rows=None):
        path = tmp_path / "rb.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows or rewardbench_rows()))
        return str(path)

    return write


def test_best_of_four_by_hand():
    assert [best_of(s) for s in ([2, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0])] == [1, 1 / 2, 1 / 4, 0]


TIES = {  # (ref, tied): scores and how many are right; accuracies of tied and ref, both margins, the ratio
    "all right answers are close and far above": (([5, 1], 1), ([6, 5, 2], 2), (1, 1, 1, 1, math.tanh(3 / 1 - 1))),
    "ref is close": (([2, 1], 1), ([6, 4, 1], 2), (1, 1, 1, 0, math.tanh(1 / 2 - 1))),
    "right answers differ more than they stand out": (([9, 1], 1), ([9, 3, 2], 2), (1, 1, 0, 0, math.tanh(1 / 6 - 1))),
    "a wrong one between the right ones": (([5, 1], 1), ([6, 2, 3], 2), (0, 1, 0, 0, math.tanh(-1 / 4 - 1))),
    "ref is wrong": (([1, 2], 1), ([6, 5, 0], 2), (1, 0, 1, 0, math.tanh(-1 - 1))),
    "right ones are equal: the ratio is infinite": (([5, 1], 1), ([4, 4, 1], 2), (1, 1, 1, 1, 1)),
    "right ones are equal and below: minus infinite": (([1, 5], 1), ([4, 4, 1], 2), (1, 0, 1, 0, -1)),
    "all scores are equal: 0 / 0 counts 0": (([1, 1], 1), ([1, 1, 1], 2), (0, 0, 0, 0, 0)),
    "one right answer has no spread to compare with": (([5, 1], 1), ([7, 1, 0], 1), (1, 1, 0, 0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("ref, tied, parts", TIES.values(), ids=TIES)
def test_the_ties_score_by_hand(ref, tied, parts):
    found = ties_parts(ref, tied)
    assert list(found.values()) == pytest.approx(parts)
    assert ties_score(found) == pytest.approx(np.dot([0.3, 0.3, 0.2, 0.2, 0.01], parts))


def test_the_whole_by_hand(saved):
    """Of 21 prompts: `length` is right in all but Math and Ties; every score is the mean of what it says of a prompt."""
    run, qrels, _ = benchmark.read(saved())
    lengths = run["text"].str.len().to_numpy(dtype=float)
    found = scored(run, qrels, lengths, "length")
    value = found.set_index("measure")["value"]
    assert found["measure"].tolist() == [*SUBSETS, OVERALL] and set(found["run"]) == {"length"}
    # "right x…" of i + 1 against "wrong " with up to 2 more letters, all of these 2i longer in Math
    assert value["Factuality"] == pytest.approx(np.mean([0, 1 / 2, 1])) and value["Math"] == 0
    # G = 12 of ref against "wrong y": 11 − 7 = 4, of tied 11 − 7 = 4, D = 1
    ties = 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(4 - 1)
    assert value["Ties"] == pytest.approx(ties)
    assert value[OVERALL] == pytest.approx(np.mean([value[subset] for subset in SUBSETS]))
    assert found["n"].tolist() == [3] * 6 + [18]
    means = found.per_query.groupby("measure")["value"].mean()
    assert [means[m] for m in found["measure"]] == pytest.approx(found["value"].tolist())


def test_intervals_resample_prompts(rewardbench_rows, saved):
    """The mean of six spreads as six independent means do; equal values have the interval of as many equal rates."""
    run, qrels, _ = benchmark.read(saved(rewardbench_rows(40)))
    rng = np.random.default_rng(0)
    found = scored(run, qrels, rng.random(len(run)), "x", resamples=4000).set_index("measure")
    each = scored(run, qrels, rng.random(len(run)), "x", resamples=0)
    assert (each["low"] <= each["value"]).all() and (each["value"] <= each["high"]).all()
    errors = []
    for subset in SUBSETS:
        values = scored(run, qrels, rng.random(len(run)), "x", resamples=10).per_query
        errors.append(values[values["measure"] == subset]["value"].std(ddof=0) / np.sqrt(40))
    half = (found["high"] - found["low"])[OVERALL] / 2
    assert half == pytest.approx(1.96 * np.sqrt(np.sum(np.square(errors))) / 6, rel=0.2)
    right = qrels["relevance"].to_numpy(dtype=float)
    oracle = scored(run, qrels, right, "oracle").set_index("measure")
    assert oracle["value"][OVERALL] == pytest.approx((5 + 1.01) / 6)
    assert (oracle["low"] < oracle["value"] - 0.005).all() and (oracle["low"] > 0.9).all()
    assert oracle["low"]["Math"] < oracle["low"][OVERALL]  # of six means at once less is unknown


def test_the_same_seed_gives_the_same_and_a_missing_subset_no_mean(rewardbench_rows, saved):
    rows = [row for row in rewardbench_rows(8) if row["subset"] != "Focus"]
    first, again, other = (irlens.rewardbench("random", saved(rows), seed=seed) for seed in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)
    assert first["measure"].tolist() == [subset for subset in SUBSETS if subset != "Focus"]


def test_in_python_two_rerankers_are_compared_prompt_by_prompt(saved):
    length = irlens.rewardbench("length", saved())
    own = irlens.rewardbench(lambda run: run["text"].str.startswith("right").astype(float), saved())
    tests = irlens.compare(length, own, measures=["Math", OVERALL]).set_index("measure")
    gained = own.set_index("measure")["value"] - length.set_index("measure")["value"]
    assert tests["difference"]["Math"] == pytest.approx(gained["Math"]) == 1.0
    assert tests["difference"][OVERALL] == pytest.approx(gained[OVERALL]) and tests["n"][OVERALL] == 18
    with pytest.raises(UserError, match="no short answer to vote on"):
        irlens.rewardbench("majority", saved())
