"""MixEval's scores worked out by hand, and intervals over distinct items beside a bootstrap of them."""

import json

import numpy as np
import pandas as pd
import pytest

import irlens
from irlens.base.errors import UserError
from irlens.measure import stats
from irlens.measure.repeats import linearised, repeated_interval

FREE = [("who", ["Ann"], "TriviaQA"), ("who", ["Ann"], "TriviaQA"), ("when", ["1900"], "DROP")]
CHOICE = [("which", ["x", "y"], 1, "ARC"), ("what", ["x", "y"], 0, "AGIEval")]


@pytest.fixture
def folder(tmp_path):
    """Five items, of which two are copies; in the hard set one of them three times."""
    free = [
        {"problem_type": "free-form", "context": None, "prompt": p, "target": t, "benchmark_name": b}
        for p, t, b in FREE
    ]
    choice = [
        {
            "problem_type": "multiple-choice",
            "context": None,
            "prompt": p,
            "options": o,
            "target": [t],
            "benchmark_name": b,
        }
        for p, o, t, b in CHOICE
    ]
    sets = {"mixeval": (free, choice), "mixeval-hard": ([free[0]] * 3, choice[:1])}
    for split, kinds in sets.items():
        (tmp_path / "v" / split).mkdir(parents=True)
        for kind, some in zip(("free-form", "multiple-choice"), kinds):
            (tmp_path / "v" / split / f"{kind}.json").write_text(
                json.dumps({str(i): one for i, one in enumerate(some)})
            )
    return tmp_path / "v"


def responses(folder, texts, split="mixeval", tag="m"):
    """A run with a response to each item of a split."""
    topics = irlens.load(folder, split).topics
    run = topics[["query_id", "query"]].assign(text=texts, rank=0, score=0.0, tag=tag, draw=0)
    return run.assign(doc_id=run["query_id"] + "/0")


def values(results):
    return dict(zip(results["measure"], results["value"]))


def test_scores_by_hand_over_all_by_type_and_by_benchmark(folder):
    run = responses(folder, ["Ann", "Bo", "1900", "B", "no idea at all"])
    found = irlens.mixeval(run, folder)
    got = values(found)
    assert got["MixEval"] == pytest.approx(3 / 5) and got["MixEval free-form"] == pytest.approx(2 / 3)
    assert got["MixEval multiple-choice"] == 0.5 and got["MixEval ARC"] == 1 and got["MixEval AGIEval"] == 0
    assert got["MixEval TriviaQA"] == 0.5 and got["MixEval DROP"] == 1
    assert got["MixEval-Hard"] == pytest.approx((3 * 0.5 + 1) / 4)  # each copy takes the mean of both responses
    rows = found.set_index("measure")
    assert rows.loc["MixEval", ["n", "distinct", "unread", "missing"]].tolist() == [5, 4, 1, 0]
    assert rows.loc["MixEval-Hard", ["n", "distinct"]].tolist() == [4, 2]
    means = found.per_query.groupby("measure")["value"].mean()
    assert all(means[name] == pytest.approx(value) for name, value in got.items())


def test_parity_rounds_each_type_before_it_combines_them(folder):
    run = responses(folder, ["Ann", "Bo", "1900", "B", "A"])
    assert values(irlens.mixeval(run, folder))["MixEval"] == pytest.approx(4 / 5)
    found = values(irlens.mixeval(run, folder, parity=True))
    assert found["MixEval free-form"] == pytest.approx(0.667, abs=1e-12) and found["MixEval"] == pytest.approx(
        (0.667 * 3 + 1 * 2) / 5
    )


def test_a_hard_set_with_responses_of_its_own_takes_those(folder):
    full, hard = responses(folder, ["Ann"] * 3 + ["B"] * 2), responses(folder, ["Bo"] * 3 + ["A"], "mixeval-hard")
    assert values(irlens.mixeval(pd.concat([full, hard]), folder))["MixEval-Hard"] == 0
    alone = irlens.mixeval(hard, folder)
    assert set(alone["measure"].str.split().str[0]) == {"MixEval-Hard"}
    assert irlens.mixeval(full, folder, splits="mixeval-hard")["measure"].str.startswith("MixEval-Hard").all()


def test_several_draws_of_an_item_are_averaged_and_systems_stay_apart(folder):
    right, wrong = (
        responses(folder, texts) for texts in (["Ann", "Ann", "1900", "B", "A"], ["Bo", "Bo", "1", "A", "B"])
    )
    both = pd.concat([right, wrong.assign(doc_id=wrong["doc_id"] + "b", draw=1)])
    assert values(irlens.mixeval(both, folder))["MixEval"] == 0.5
    apart = irlens.mixeval(pd.concat([right, wrong.assign(tag="w", doc_id=wrong["doc_id"] + "b")]), folder)
    assert apart[apart["measure"] == "MixEval"]["value"].tolist() == [1, 0]
    tests = irlens.compare(apart, measures=["MixEval"])
    assert tests["n"].tolist() == [4] and tests["difference"].tolist() == pytest.approx(
        [-1]
    )  # distinct items, not copies


def test_what_is_missing_is_named_counted_and_refused(folder):
    run = responses(folder, ["Ann", "Ann", "1900", "B", "A"])
    some = run[~run["query_id"].str.contains("multiple-choice")]
    with pytest.raises(
        UserError, match=r"m: 2 of the 5 items of mixeval have no response \(v/mixeval/multiple-choice/0, .*allow"
    ):
        irlens.mixeval(some, folder)
    found = irlens.mixeval(some, folder, allow_missing=True).set_index("measure")
    assert found.loc["MixEval", ["value", "n", "missing"]].tolist() == [1, 3, 2]
    assert found.loc["MixEval-Hard", ["n", "missing"]].tolist() == [3, 1]


def test_runs_of_other_prompts_are_refused(folder):
    run = responses(folder, ["Ann"] * 5)
    strange = run.assign(query_id="q" + run["query_id"])
    assert values(irlens.mixeval(strange, folder))["MixEval free-form"] == pytest.approx(2 / 3)  # joined by the prompts
    with pytest.raises(UserError, match=r"5 of 5 queries of the run .* are not in this version of MixEval \(v\)"):
        irlens.mixeval(strange.assign(query="else"), folder)
    with pytest.raises(UserError, match="no column query"):
        irlens.mixeval(strange.drop(columns="query"), folder)
    with pytest.raises(UserError, match="no split 'hard'"):
        irlens.mixeval(run, folder, splits="hard")


# -- intervals -----------------------------------------------------------------------------------------------------


def test_what_items_add_has_the_score_as_mean_and_the_standard_error_of_resampling_them():
    rng = np.random.default_rng(0)
    values, copies = (rng.random(300) < 0.7).astype(float), rng.integers(1, 19, 300).astype(float)
    added = linearised(values, copies)
    assert added.mean() == pytest.approx((values * copies).sum() / copies.sum())
    drawn = rng.integers(0, 300, (2000, 300))
    resampled = (values * copies)[drawn].sum(axis=1) / copies[drawn].sum(axis=1)
    assert added.std(ddof=1) / 300**0.5 == pytest.approx(resampled.std(), rel=0.06)
    assert linearised(np.full(3, 0.3), np.array([1, 2, 4])).tolist() == [0.3] * 3


def test_repeated_items_make_the_interval_wider_and_as_wide_as_a_bootstrap_of_items():
    random = np.random.default_rng(0)
    copies = random.geometric(0.4, 400).clip(1, 18)
    values = (random.random(400) < 0.6).astype(float)
    low, high = repeated_interval(values, copies)
    naive = stats.mean_interval(np.repeat(values, copies))
    assert high - low > 1.2 * (naive[1] - naive[0])
    drawn = random.integers(0, 400, (4000, 400))
    means = (values * copies)[drawn].sum(axis=1) / copies[drawn].sum(axis=1)
    bootstrap = np.quantile(means, [0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(bootstrap), abs=0.12 * (high - low))


def test_items_that_stand_once_have_the_interval_of_a_plain_mean():
    values = np.array([1.0] * 60 + [0.0] * 40)
    assert repeated_interval(values, np.ones(100)) == pytest.approx(stats.mean_interval(values), abs=0.004)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_or_all_wrong_is_no_certainty_and_one_item_says_nothing(value):
    low, high = repeated_interval(np.full(20, value), np.full(20, 5))
    assert 0 <= low <= value <= high <= 1 and 0.1 < high - low < 0.3
    assert np.isnan(repeated_interval([value], [3])).all()
    few = repeated_interval(np.full(20, value), [81] + [1] * 19)
    assert few[1] - few[0] > 2 * (high - low)  # one item carries most of the set


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_interval_covers_the_truth_as_often_as_it_says(share):
    random, hits = np.random.default_rng(1), 0
    for _ in range(400):
        copies = random.geometric(0.35, 80).clip(1, 18)
        low, high = repeated_interval((random.random(80) < share).astype(float), copies)
        hits += low <= share <= high
    assert 0.92 <= hits / 400 <= 0.99
