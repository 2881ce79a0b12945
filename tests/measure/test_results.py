"""`irlens.measure`, `irlens.compare`, `irlens.best_of_n`: tables that know their values per query, and tests on them."""

import pickle

import numpy as np
import pandas as pd
import pytest

import irlens
from irlens.base.errors import UserError
from irlens.measure import stats
from irlens.measure.measures import pass_at


def draws(right, temperature=None, name=None):
    """A run, and its qrels, of queries whose draws are right (1) or not."""
    rows = [(f"q{i}", f"q{i}/{t}/{j}", f"x{j}", j, t, good)
            for t in (temperature or [1.0]) for i, some in enumerate(right) for j, good in enumerate(some)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["query_id", "doc_id", "text", "draw", "temperature", "relevance"])
    frame = frame.assign(score=-frame["draw"].astype(float), rank=frame["draw"])
    frame = frame if name is None else frame.assign(tag=name)
    return frame.drop(columns="relevance"), frame[["query_id", "doc_id", "relevance"]]


RIGHT = [[1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0]]


def test_the_room_is_also_the_function():
    run, qrels = draws(RIGHT)
    found = irlens.measure(run, qrels, ["Pass@1", "Pass@4", "Success@1"])
    assert isinstance(found, pd.DataFrame) and isinstance(found, irlens.Results)
    assert irlens.measure.stats is stats  # the modules of the room stay where they are
    values = found.set_index("measure")["value"]
    assert values["Pass@1"] == pytest.approx(np.mean([np.mean(some) for some in RIGHT]))
    assert values["Pass@4"] == pytest.approx(5 / 6) and values["Success@1"] == pytest.approx(3 / 6)
    assert (found["temperature"] == 1.0).all() and (found["n"] == 6).all()
    each = found.per_query
    assert len(each) == 18 and found[found["measure"] == "Pass@1"].per_query["measure"].unique().tolist() == ["Pass@1"]
    means = each.groupby("measure")["value"].mean()
    assert all(means[m] == pytest.approx(values[m]) for m in values.index)


def test_results_survive_copying_and_pickling():
    run, qrels = draws(RIGHT)
    found = irlens.measure(run, qrels, "Pass@1")
    for again in (found.copy(), pickle.loads(pickle.dumps(found)), found.reset_index(drop=True)):
        pd.testing.assert_frame_equal(again.per_query, found.per_query)
    with pytest.raises(UserError, match="know no values per query"):
        irlens.Results({"measure": ["Pass@1"]}).per_query  # noqa: B018 (a property that refuses)


def test_temperatures_are_runs_of_their_own_whatever_they_are_called():
    run, qrels = draws(RIGHT, [0.5, 1.0])
    for some in (run, run.assign(tag=run["temperature"].map("T is {}".format))):
        found = irlens.measure(some, qrels, "Pass@1")
        assert found["temperature"].tolist() == [0.5, 1.0] and (found["n"] == 6).all()
    tests = irlens.compare(irlens.measure(run, qrels, "Pass@1"))
    assert tests[["before", "after"]].to_numpy().tolist() == [["run, T = 0.5", "run, T = 1"]]


def test_rewards_are_measured_by_reward_at_n():
    """The expected largest of N draws, by hand; it is Pass@N where grades are 0 and 1."""
    run, qrels = draws([[0, 0, 0], [0, 0, 0]])
    rewards = qrels.assign(relevance=[-1.0, 0.5, 2.0, -3.0, -2.0, -1.0])
    value = irlens.measure(run, rewards, "Reward@1 Reward@2 Reward@3").set_index("measure")["value"]
    assert value["Reward@1"] == pytest.approx((0.5 - 2) / 2)
    assert value["Reward@2"] == pytest.approx(((0.5 + 2 + 2) / 3 + (-2 - 1 - 1) / 3) / 2)
    assert value["Reward@3"] == pytest.approx((2 - 1) / 2)
    run, qrels = draws(RIGHT)
    both = irlens.measure(run, qrels, "Reward@2 Pass@2")
    assert both["value"].iloc[0] == pytest.approx(both["value"].iloc[1], abs=1e-12)
    assert both["value"].iloc[1] == pytest.approx(np.mean([pass_at(4, sum(some), 2) for some in RIGHT]))
    with pytest.raises(UserError, match=r"must be a whole number for Pass@1 \(Reward@N takes any\), got 0.5"):
        irlens.measure(*draws([[0, 0, 0], [0, 0, 0]])[:1], rewards, "Pass@1")


# -- comparing -----------------------------------------------------------------------------------------------------


def three():
    run, qrels = draws(RIGHT, name="a")
    other, judged = draws([some[::-1] for some in RIGHT], name="b")
    third, graded = draws([[1, 1, 0, 0]] * 6, name="c")
    measures = ["Success@1", "Pass@2"]
    return [irlens.measure(r, q, measures) for r, q in ((run, qrels), (other, judged), (third, graded))]


def test_every_pair_with_holm_over_all():
    a, b, c = three()
    tests = irlens.compare(a, b, c)
    assert tests["measure"].tolist() == ["Success@1"] * 3 + ["Pass@2"] * 3
    assert list(zip(tests["before"], tests["after"]))[:3] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert tests["p_holm"].tolist() == stats.holm(tests["p"]).tolist()
    one = tests[(tests["measure"] == "Success@1") & (tests["after"] == "c")].iloc[0]
    assert one["difference"] == pytest.approx(1 - 3 / 6) and one["low"] < one["difference"] < one["high"]
    assert one["n"] == 6 and one["effect"] > 0
    assert (tests[tests["measure"] == "Pass@2"].iloc[0][["difference", "p"]] == [0, 1]).all()
    per_query = irlens.compare(a.per_query, c.per_query, measures="Success@1", correction=None)
    assert "p_holm" not in per_query and per_query["difference"].iloc[0] == one["difference"]


def test_runs_of_one_name_are_told_apart_by_their_place():
    a = three()[0]
    assert irlens.compare(a, a)[["before", "after"]].iloc[0].tolist() == ["a (1)", "a (2)"]


@pytest.mark.parametrize("change, options, message", [
    (lambda r: [r[0]], {}, "needs two runs or more, got 1"),
    (lambda r: r, {"measures": ["Pass@3"]}, "'a' was not measured by Pass@3; did you mean 'Pass@2'"),
    (lambda r: r, {"correction": "bonferroni"}, "holm"),
    (lambda r: [r[0], "b"], {}, "argument 2 is no Results and no frame, but str"),
    (lambda r: [r[0], r[1].per_query.drop(columns="value")], {}, "no column value"),
    (lambda r: [r[0], r[1].per_query[lambda f: f["query_id"] != "q0"]], {}, "share 5 queries"),
    (lambda r: [r[0], pd.concat([r[1].per_query] * 2)], {}, "several values of query q0"),
    (lambda r: [r[0][r[0]["measure"] == "Pass@2"], r[1][r[1]["measure"] == "Success@1"]], {}, "no measure in common"),
])  # fmt: skip
def test_what_cannot_be_compared(change, options, message):
    with pytest.raises(UserError, match=message):
        irlens.compare(*change(three()), **options)


# -- best of N -----------------------------------------------------------------------------------------------------


def test_best_of_n_takes_names_and_rerankers():
    run, qrels = draws(RIGHT)
    run = run.assign(text=["x" * (1 + g) for g in qrels["relevance"]])  # the right ones are longer
    longest = irlens.reranker(lambda run: run["text"].str.len())
    found = irlens.best_of_n(run, qrels, ["length", longest], at=[1, 2, 4])
    value = found.set_index(["run", "cutoff"])["value"]
    for n in (1, 2, 4):
        assert value["oracle", n] == pytest.approx(np.mean([pass_at(4, sum(some), n) for some in RIGHT]))
        assert value["length", n] == value["function", n] == pytest.approx(value["oracle", n])
        assert value["random", n] == pytest.approx(value["oracle", 1])
    assert isinstance(found, irlens.Results) and len(found.per_query) == 5 * 3 * 6
    assert set(found.quality["measure"]) == {"nDCG", "RR", "AUC", "tau-b"}
    tests = irlens.compare(found[found["run"].isin(["oracle", "random"])], measures=["best-of-4"])
    assert tests["difference"].iloc[0] == pytest.approx(value["random", 4] - value["oracle", 4])


def test_a_vote_holds_an_election_among_n():
    run, qrels = draws([[1, 1, 0, 0, 0]] * 2)
    run = run.assign(query="1 + 1?", text=["#### 2", "#### 2", "#### 3", "#### 4", "#### 5"] * 2)
    found = irlens.best_of_n(run, qrels, "majority", at=[1, 5], verifier="gsm8k").set_index(["run", "cutoff"])["value"]
    assert found["majority", 5] == 1.0 and found["majority", 1] == pytest.approx(0.4)


def test_rewards_as_grades_need_no_threshold():
    run, qrels = draws(RIGHT)
    rewards = qrels.assign(relevance=np.linspace(-5, 3, len(qrels)))
    found = irlens.best_of_n(run, rewards, ["length"])
    assert found["cutoff"].max() == 4 and np.isfinite(found["value"]).all()
    n = found.quality.set_index(["run", "measure"])["n"]
    assert n["oracle", "nDCG"] == n["oracle", "RR"] == n["oracle", "AUC"] == 0 and n["oracle", "tau-b"] == 6
    told = irlens.best_of_n(run, rewards, ["length"], right_from=0.0).quality.set_index(["run", "measure"])["n"]
    assert told["oracle", "RR"] == 6


@pytest.mark.parametrize("rerankers, at, message", [
    (["lenght"], [1], "did you mean 'length'"),
    (["length", "length"], [1], "rerankers of one name"),
    (["length"], [5], "smaller than the largest N asked for, 5"),
    (["majority"], [1], "has no column query"),
])  # fmt: skip
def test_what_best_of_n_refuses(rerankers, at, message):
    with pytest.raises(UserError, match=message):
        irlens.best_of_n(*draws(RIGHT), rerankers, at)
