"""Pass@N against exact fractions, measures against hand counts and ir_measures itself, and what is refused."""

from fractions import Fraction
from itertools import combinations
from math import comb

import ir_measures
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irlens.errors import UserError
from irlens.measures import Pass, evaluate, parse, pass_at
from irlens.stats import mean_interval


def exact(n: int, c: int, k: int) -> Fraction:
    return 1 - Fraction(comb(n - c, k), comb(n, k))


def right_to(value: float, expected: Fraction, relative: float) -> bool:
    return abs(Fraction(float(value)) - expected) <= relative * expected


# -- Pass@N --------------------------------------------------------------------------------------------------------


def test_pass_at_is_the_share_of_subsets_with_a_hit():
    """5 draws, 2 right: of the 10 ways to take 2 draws, 3 miss both, so 7/10."""
    hits = [any(draw in (0, 3) for draw in some) for some in combinations(range(5), 2)]
    assert pass_at(5, 2, 2) == pytest.approx(0.7) and sum(hits) / len(hits) == 0.7


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_is_exact(case):
    assert right_to(pass_at(*case), exact(*case), 1e-13)


@pytest.mark.parametrize(
    ("n", "c", "k"),
    [
        (100_000, 1, 1),
        (100_000, 1, 99_999),
        (100_000, 3, 20),
        (100_000, 20_000, 3),
        (20_000, 10_000, 9_000),
        (20_000, 19_000, 1000),
        (100_000, 40, 60_000),
    ],
)
def test_pass_at_is_exact_for_many_draws(n, c, k):
    assert right_to(pass_at(n, c, k), exact(n, c, k), 1e-12)


def test_pass_at_edges():
    assert not np.signbit(pass_at(4, 0, 2))  # prints as 0.00, not -0.00
    assert pass_at(10, 0, 10) == 0 and pass_at(10, 10, 1) == 1 and pass_at(10, 1, 10) == 1 and pass_at(1, 1, 1) == 1
    assert pass_at(10, 4, 1) == pytest.approx(0.4)


def test_pass_at_broadcasts():
    n, c = np.array([[4], [6]]), np.array([0, 1, 3])
    values = pass_at(n, c, 2)
    assert values.shape == (2, 3) and values.dtype == np.float64
    assert values[1, 2] == pytest.approx(float(exact(6, 3, 2))) and values[0, 1] == pytest.approx(0.5)
    assert pass_at(np.array([], dtype=int), np.array([], dtype=int), 2).shape == (0,)
    assert pass_at(10, 3, np.arange(1, 11)) == pytest.approx([float(exact(10, 3, k)) for k in range(1, 11)])


def test_pass_at_is_unbiased():
    """The mean over samples of 8 of 20 draws, 5 right, of the estimate of Pass@3 is the Pass@3 of all 20."""
    chance = [comb(5, c) * comb(15, 8 - c) / comb(20, 8) for c in range(6)]
    assert np.dot(chance, pass_at(8, np.arange(6), 3)) == pytest.approx(float(exact(20, 5, 3)))


@pytest.mark.parametrize(
    ("case", "part"),
    [
        ((5, 2, 6), "n=5 draws, c=2 of them right, k=6: k must be at most n"),
        ((5, 2, 0), "at least 1"),
        ((5, 6, 2), "c must be"),
        ((5, -1, 2), "c must be"),
        ((5, 2.5, 1), "c must hold whole numbers"),
        (([9, 3], [1, 1], 5), "n=3"),
    ],
)
def test_pass_at_refuses(case, part):
    with pytest.raises(UserError, match=part):
        pass_at(*case)


def test_pass_is_one_of_ir_measures():
    """q1: 1 of 3 draws right, Pass@2 = 2/3. q2: 2 of 3, 1 by rel=2, so 1 and 2/3."""
    qrels = {"q1": {"a": 1, "b": 0, "c": 0}, "q2": {"a": 1, "b": 2, "x": 1}}
    run = {"q1": {"a": 1.0, "b": 2.0, "c": 3.0}, "q2": {"a": 3.0, "b": 2.0, "unjudged": 1.0}}
    measures = [ir_measures.parse_measure(name) for name in ("Pass@2", "Pass(rel=2)@2", "Success@1")]
    assert measures[0] == Pass @ 2 and str(measures[1]) == "Pass(rel=2)@2"
    got = {(str(m.measure), m.query_id): m.value for m in ir_measures.iter_calc(measures, qrels, run)}
    assert got == pytest.approx(
        {
            ("Pass@2", "q1"): 2 / 3,
            ("Pass@2", "q2"): 1,
            ("Pass(rel=2)@2", "q1"): 0,
            ("Pass(rel=2)@2", "q2"): 2 / 3,
            ("Success@1", "q1"): 0,
            ("Success@1", "q2"): 1,
        }
    )
    assert ir_measures.calc_aggregate(measures, qrels, run)[Pass @ 2] == pytest.approx(5 / 6)


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Success@1 Success@10  nDCG@10\nRR Pass@10", ["Success@1", "Success@10", "nDCG@10", "RR", "Pass@10"]),
        ("P(rel=2)@5,Pass(rel=2)@5, RR", ["P(rel=2)@5", "Pass(rel=2)@5", "RR"]),
        ("nDCG(gains={1:3, 2:4}, judged_only=True)@10", ["nDCG(gains={1:3,2:4},judged_only=True)@10"]),
        ("RR RR P@5 P@5 RR", ["RR", "P@5"]),
        (["P@5", ir_measures.RR], ["P@5", "RR"]),
    ],
)
def test_parse(text, names):
    assert [str(measure) for measure in parse(text)] == names


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no measure given"),
        (" , ", "no measure given"),
        ("Sucess@1", "did you mean 'Success'"),
        ("Passs@1", "did you mean 'Pass'"),
        ("Success", "Success takes cutoff .int, required."),
        ("Pass", "Pass takes cutoff"),
        ("Pass@0", "wrong parameters"),
        ("P@True", "wrong parameters"),
        ("P@0.5", "wrong parameters"),
        ("P(k=1)@5", "P takes cutoff"),
        ("P@-1", "not of the form"),
        ("RR(", "not of the form"),
        ("RR P(5)@5", r"'P\(5\)@5': not of the form"),
        ([5], "not of the form"),
    ],
)
def test_parse_refuses(text, part):
    with pytest.raises(UserError, match=part):
        parse(text)


# -- evaluation ----------------------------------------------------------------------------------------------------


def table(rows, **more) -> pd.DataFrame:
    """A run of (query_id, doc_id, score) in rank order."""
    frame = pd.DataFrame(rows, columns=["query_id", "doc_id", "score"])
    return frame.assign(rank=frame.groupby("query_id").cumcount(), **more)


def judge(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["query_id", "doc_id", "relevance"])


RUN = table([(query, doc, score) for query in ("q1", "q2") for doc, score in (("a", 3.0), ("b", 2.0), ("c", 1.0))])
QRELS = judge([("q1", "a", 0), ("q1", "b", 1), ("q1", "c", 0), ("q2", "a", 1), ("q2", "b", 1), ("q2", "c", 0)])


def draws(queries=40, n=20, seed=0, **more) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A sampled run (score = minus the draw) and its judgements, each query of its own difficulty."""
    rng = np.random.default_rng(seed)
    ids = [(f"q{q:03}", f"q{q:03}#{d:03}") for q in range(queries) for d in range(n)]
    right = rng.random((queries, n)) < rng.random((queries, 1)) ** 2
    run = table([(q, d, -float(i % n)) for i, (q, d) in enumerate(ids)], **more)
    return run, judge([(q, d, int(hit)) for (q, d), hit in zip(ids, right.ravel())])


def value(frame: pd.DataFrame, measure: str, **where) -> float:
    rows = frame[frame["measure"] == measure]
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted]
    assert len(rows) == 1
    return rows["value"].item()


def test_evaluate_by_hand():
    """q1: hit at rank 2 of 3, 1 right. q2: hits at 1 and 2. Pass@2: 1 - C(2,2)/C(3,2) = 2/3, and 1."""
    results, per_query = evaluate(RUN, QRELS, "Success@1 RR P@2 Pass@2")
    assert results["value"].tolist() == pytest.approx([0.5, 0.75, 0.75, 5 / 6])
    assert results["cutoff"].tolist() == [1, pd.NA, 2, 2] and results["n"].tolist() == [2] * 4
    assert value(per_query, "RR", query_id="q1") == 0.5
    assert value(per_query, "Pass@2", query_id="q1") == pytest.approx(2 / 3)


def test_columns_and_types():
    results, per_query = evaluate(RUN, QRELS, "RR Pass@2")
    assert {column: str(kind) for column, kind in results.dtypes.items()} == {
        "run": "str",
        "measure": "str",
        "cutoff": "Int64",
        "value": "float64",
        "low": "float64",
        "high": "float64",
        "n": "int64",
    }
    assert {column: str(kind) for column, kind in per_query.dtypes.items()} == {
        "run": "str",
        "query_id": "str",
        "measure": "str",
        "value": "float64",
    }


def test_agrees_with_ir_measures():
    run, qrels = draws()
    measures = parse("Success@5 nDCG@10 RR RR@5 AP P(rel=1)@3 Judged@5 NumRet NumRelRet NumQ Pass@10")
    results, _ = evaluate(run.sample(frac=1, random_state=0), qrels, measures)
    theirs = ir_measures.calc_aggregate(measures, qrels, run)
    assert dict(zip(results["measure"], results["value"])) == pytest.approx({str(m): v for m, v in theirs.items()})
    within = (results["low"] <= results["value"]) & (results["value"] <= results["high"])
    assert (within | results["measure"].isin(["NumRet", "NumQ"])).all()  # equal counts say nothing of their spread


def test_intervals_are_over_queries():
    results, per_query = evaluate(*draws(), "Success@3 Pass@3")
    for row in results.itertuples():
        values = per_query["value"][per_query["measure"] == row.measure]
        assert (row.low, row.high) == pytest.approx(mean_interval(values), rel=1e-12)
        assert row.value == pytest.approx(values.mean())


def test_pass_is_the_mean_of_success_over_orders_of_the_draws():
    run, qrels = draws(queries=10, n=8)
    rng = np.random.default_rng(0)
    orders = [run.assign(score=rng.permutation(len(run)).astype(float)) for _ in range(150)]
    success = [value(evaluate(order, qrels, "Success@3")[0], "Success@3") for order in orders]
    passed = {value(evaluate(order, qrels, "Pass@3")[0], "Pass@3") for order in orders[:3]}
    assert len(passed) == 1 and np.std(success) > 0
    assert np.mean(success) == pytest.approx(passed.pop(), abs=4 * np.std(success) / np.sqrt(150))


def test_each_tag_is_a_run():
    """The same documents may come back under another tag."""
    both = pd.concat([RUN.assign(tag="T=1"), RUN.assign(tag="T=0.1", score=-RUN["score"])])
    results, per_query = evaluate(both, QRELS, "RR Pass@1")
    assert results["run"].tolist() == ["T=1", "T=1", "T=0.1", "T=0.1"] and len(per_query) == 8
    assert value(results, "RR", run="T=1") == 0.75 and value(results, "RR", run="T=0.1") == 0.5
    only, _ = evaluate(both, QRELS, "RR", tag="T=0.1")
    assert only["run"].tolist() == ["T=0.1"] and only["value"].tolist() == [0.5]
    with pytest.raises(UserError, match="did you mean 'T=0.1'"):
        evaluate(both, QRELS, "RR", tag="T=0.2")


def test_tag_names_a_run_without_one():
    assert evaluate(RUN, QRELS, "RR")[0]["run"].tolist() == ["run"]
    assert evaluate(RUN, QRELS, "RR", tag="bm25")[0]["run"].tolist() == ["bm25"]


def test_what_the_run_lacks_counts_as_zero():
    qrels = pd.concat([QRELS, judge([("q3", "a", 1), ("q4", "a", 1)])])
    results, per_query = evaluate(RUN, qrels, "RR Judged@2")
    assert results["value"].tolist() == [0.375, 0.5] and results["n"].tolist() == [4, 4]
    assert value(per_query, "RR", query_id="q4") == 0


def test_one_query_has_no_interval():
    results, _ = evaluate(RUN[:3], QRELS[:3], "RR")
    assert results["value"].item() == 0.5 and results[["low", "high"]].isna().all(axis=None)


def test_tied_scores_are_ordered_as_the_tables_order_them():
    """By doc_id: a before b. trec_eval left alone would put the larger id first."""
    tied = table([("q1", "b", 1.0), ("q1", "a", 1.0)])
    assert evaluate(tied, judge([("q1", "a", 1)]), "RR")[0]["value"].item() == 1
    near = table([("q1", "a", 1.0), ("q1", "b", 1.0 + 1e-12)])  # one number for trec_eval's 32 bits
    assert evaluate(near, judge([("q1", "a", 1)]), "RR")[0]["value"].item() == 1


def test_input_is_not_changed():
    run, qrels = RUN.assign(tag="x", score=1.0), QRELS.assign(relevance=QRELS["relevance"].astype(float))
    kept = run.copy(), qrels.copy()
    evaluate(run, qrels, "RR")
    pd.testing.assert_frame_equal(run, kept[0])
    pd.testing.assert_frame_equal(qrels, kept[1])


MORE = table([(f"x{i}", "a", 1.0) for i in range(5)])


@pytest.mark.parametrize(
    ("run", "qrels", "measures", "part"),
    [
        (RUN, QRELS, "Pass@4", r"'run': Pass@4 needs at least 4 .*2 of 2 queries, such as 'q1' with 3"),
        (RUN[:5], QRELS, "Pass@3", "1 of 2 queries, such as 'q2' with 2"),
        (RUN[:3], QRELS, "RR Pass@1", "such as 'q2' with 0"),
        (pd.concat([RUN, MORE[:1]]), QRELS, "RR", r"without any judged document in the qrels: 1 \(x0\)"),
        (pd.concat([RUN, MORE]), QRELS, "RR", r"in the qrels: 5 \(x0, x1, x2, …\)"),
        (RUN[:0], QRELS, "RR", "the run is empty"),
        (RUN, QRELS[:0], "RR", "the qrels are empty"),
        (RUN.drop(columns="score"), QRELS, "RR", "missing: score"),
        (RUN, QRELS.drop(columns="relevance"), "RR", "missing: relevance"),
        (pd.concat([RUN, RUN]), QRELS, "RR", "occurs more than once"),
        (RUN, QRELS.assign(relevance=0.5), "RR", "whole number for a measure, got 0.5"),
        (RUN.assign(tag=["x"] * 5 + [None]), QRELS, "RR", "row 5 has no tag"),
    ],
)
def test_evaluate_refuses(run, qrels, measures, part):
    with pytest.raises(UserError, match=part):
        evaluate(run, qrels, measures)
