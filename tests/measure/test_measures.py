"""Pass@N against exact fractions, measures against hand counts and ir_measures itself, and what is refused."""

import json
import re
from fractions import Fraction
from itertools import combinations
from math import comb

import ir_measures
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irlens import tables
from irlens.base.errors import UserError
from irlens.commands.evaluate import evaluate as run_evaluate
from irlens.measure.measures import Pass, evaluate, judged_part, parse, pass_at
from irlens.measure.stats import mean_interval


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


def test_ties_go_to_the_larger_doc_id_as_in_trec_eval():
    """b before a, and so where only more than trec_eval's 32 bits tell the scores apart."""
    tied = table([("q1", "b", 1.0), ("q1", "a", 1.0)])
    near = table([("q1", "a", 1.0 + 1e-12), ("q1", "b", 1.0)])
    for run in (tied, near):
        assert evaluate(run, judge([("q1", "a", 1)]), "RR")[0]["value"].item() == 0.5
        assert evaluate(run, judge([("q1", "b", 1)]), "RR")[0]["value"].item() == 1


# -- trec_eval -----------------------------------------------------------------------------------------------------

TREC = {"RR": "recip_rank", "AP": "map", "AP@5": "map_cut_5", "nDCG": "ndcg", "nDCG@5": "ndcg_cut_5", "P@5": "P_5",
        "R@10": "recall_10", "Rprec": "Rprec", "Bpref": "bpref", "Success@1": "success_1", "infAP": "infAP",
        "IPrec@0.1": "iprec_at_recall_0.10", "NumRet": "num_ret", "NumRelRet": "num_rel_ret", "NumRel": "num_rel",
        "NumQ": "num_q", "SetP": "set_P", "SetR": "set_recall", "SetF": "set_F"}  # fmt: skip


def foreign(levels: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A run with so many different scores, and qrels; some queries are only judged, some only retrieved, some documents
    unjudged, some judgements negative, some queries without a relevant document."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=levels), 3) + np.array([0, 1e-9])[rng.integers(2, size=levels)]
    rows, grades = [], []
    for q in range(14):
        docs = [f"D/{i} é"[: 3 + i % 4] + str(i) for i in rng.permutation(60)[: rng.integers(3, 40)]]
        if q < 12:
            rows += [(f"t{q}/ß {q}", doc, score) for doc, score in zip(docs, rng.choice(scores, len(docs)))]
        if q > 1:
            judged = [*docs[:: rng.integers(1, 3)], "never found"]
            most = 1 if q == 5 else 4
            grades += [(f"t{q}/ß {q}", doc, int(g)) for doc, g in zip(judged, rng.integers(-1, most, len(judged)))]
    return table(rows), judge(grades)


@pytest.mark.parametrize("levels", [2, 3, 5, 10])
@pytest.mark.parametrize("complete", [True, False])
def test_agrees_with_trec_eval_on_ties_and_on_queries_without_judgements(levels, complete):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    for seed in range(3):
        run, qrels = foreign(levels, seed)
        nested = {q: dict(zip(part["doc_id"], part["score"])) for q, part in run.groupby("query_id")}
        judged = {q: dict(zip(part["doc_id"], part["relevance"])) for q, part in qrels.groupby("query_id")}
        if complete:
            nested |= {q: {} for q in judged if q not in nested}  # what `trec_eval -c` makes of them
        names = ["success", "map_cut", "ndcg_cut", "P", "recall", "iprec_at_recall"]
        theirs = pytrec_eval.RelevanceEvaluator(judged, {*names, *pytrec_eval.supported_measures}).evaluate(nested)
        part, unjudged = judged_part(run.sample(frac=1, random_state=seed), qrels)
        results, per_query = evaluate(part, qrels, " ".join(TREC), complete=complete)
        assert unjudged == 2 and results["n"].tolist() == [len(theirs)] * len(TREC) and len(theirs) == 10 + 2 * complete
        found = per_query.set_index(["query_id", "measure"])["value"]
        for query, values in theirs.items():
            if not nested[query]:
                values["iprec_at_recall_0.10"] = 0.0  # pytrec_eval does not set it where nothing is found
            assert {m: found[query, m.replace("NumRelRet", "NumRet(rel=1)")] for m in TREC} == pytest.approx(
                {m: values[name] for m, name in TREC.items()}, abs=1e-6
            )


def test_queries_without_judgements_are_left_out_on_request_only():
    run, qrels = foreign(3, 0)
    with pytest.raises(UserError, match="without any judged document"):
        evaluate(run, qrels, "RR")
    with pytest.raises(UserError, match="none of its queries is in the qrels"):
        judged_part(run[run["query_id"] == "t0/ß 0"], qrels)


def test_the_command_counts_what_it_leaves_out(tmp_path, monkeypatch):
    """d2 and d1 tie, so d2 is first; q2 has no judgements, q3 no documents."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.run").write_text("q1 Q0 d1 0 0.5 x\nq1 Q0 d2 1 0.5 x\nq2 Q0 d1 0 1.0 x\n")
    (tmp_path / "a.qrels").write_text("q1 0 d1 1\nq3 0 d1 1\n")
    lines: list[str] = []
    folder, results = run_evaluate(tmp_path / "a.run", tmp_path / "a.qrels", "RR", say=lines.append)
    assert results[["value", "n"]].to_numpy().tolist() == [[0.25, 2]]
    assert "1 queries of the run are not in the qrels: left out" in lines[0]
    assert "1 judged queries are not in the run 'x': count as 0" in lines[1]
    noted = json.loads((folder / "manifest.json").read_text())
    assert noted["queries_not_judged"] == 1 and noted["queries_not_in_run"] == {"x": 1}
    _, results = run_evaluate(tmp_path / "a.run", tmp_path / "a.qrels", "RR", complete=False, say=lines.append)
    assert results[["value", "n"]].to_numpy().tolist() == [[0.5, 1]]


@pytest.mark.parametrize("name", ["a.json", "a.parquet"])
def test_files_of_other_tools_have_scores_of_32_bits(name, tmp_path):
    if name == "a.json":
        (tmp_path / name).write_text(json.dumps({"q": {"d1": 1.0 + 1e-12, "d2": 1.0}}))
    else:
        pd.DataFrame({"q_id": "q", "doc_id": ["d1", "d2"], "score": [1 + 1e-12, 1.0]}).to_parquet(tmp_path / name)
    assert evaluate(tables.read_run(tmp_path / name), judge([("q", "d2", 1)]), "RR")[0]["value"].item() == 1


# -- every measure that ir_measures lists --------------------------------------------------------------------------

PARAMETERS = {"cutoff": "cutoff=5", "recall": "recall=0.1", "max_rel": "max_rel=3"}
REFUSED = "none of the installed|judges by subtopics|wrong parameters"


def typical(name: str) -> list[str]:
    """Each measure with the least that it needs, with a cutoff where it takes one, and with each of its choices."""
    known = ir_measures.measures.registry[name].SUPPORTED_PARAMS
    needed = [PARAMETERS[param] for param, info in known.items() if info.required]
    cut = ["cutoff=5"] if "cutoff" in known and "cutoff=5" not in needed else []
    options = [
        [],
        ["rel=2"],
        ["judged_only=True"],
        ["dcg='exp-log2'"],
        ["gains={1:3,2:4}"],
        ["relative=True"],
        ["beta=0.5"],
    ]
    forms = [[*needed, *more, *extra] for more in ([], cut) for extra in options]
    return sorted({f"{name}({','.join(form)})" for form in forms if {f.split("=")[0] for f in form} <= known.keys()})


@pytest.mark.parametrize("name", sorted(ir_measures.measures.registry))
def test_every_measure_works_with_text_ids_or_is_refused_by_name(name):
    """Renaming ids, in an order of their own, changes nothing: identifiers here have slashes, spaces and umlauts."""
    texts = {"q1/T=1": "7", "ä q 2": "3", "q-1": "12", "D ü/00003": "5", "d 1": "9", "d\t2": "1", "x": "4"}
    run = table([("q1/T=1", "D ü/00003", 3.0), ("q1/T=1", "d 1", 2.0), ("q1/T=1", "x", 1.0), ("ä q 2", "d\t2", 1.0),
                 ("ä q 2", "x", 0.5), ("q-1", "x", 1.0), ("q-1", "d 1", 0.25)])  # fmt: skip
    qrels = judge([("q1/T=1", "d 1", 2), ("q1/T=1", "x", 0), ("ä q 2", "d\t2", 1), ("ä q 2", "x", 3), ("q-1", "x", 1)])
    for form in typical(name):
        try:
            (measure,) = parse(form)
        except UserError as error:
            assert re.search(REFUSED, str(error)) and ir_measures.measures.registry[name].NAME in str(error)
            continue
        if name in ("Pass", "Reward"):
            with pytest.raises(UserError, match=r"such as 'q-1' with 2"):
                evaluate(run, qrels, [measure])
            continue
        results, per_query = evaluate(run, qrels, [measure])
        plain = [
            frame.assign(query_id=frame["query_id"].map(texts), doc_id=frame["doc_id"].map(texts))
            for frame in (run, qrels)
        ]
        _, numbered = evaluate(*plain, [measure])
        theirs = dict(zip(numbered["query_id"], numbered["value"]))
        if name != "Accuracy":  # theirs divides by zero where all that is retrieved is relevant
            assert theirs == {
                m.query_id: pytest.approx(m.value) for m in ir_measures.iter_calc([measure], plain[1], plain[0])
            }
        assert {texts[q]: v for q, v in zip(per_query["query_id"], per_query["value"])} == pytest.approx(theirs)
        assert len(per_query) == results["n"].item() > 0


def test_a_measure_is_worth_the_same_in_any_company():
    """A plain nDCG beside one with gains, a count beside a measure of judged documents only."""
    run, qrels = draws(queries=4, n=8)
    grades = np.random.default_rng(0).integers(0, 3, len(qrels))
    qrels = pd.concat([qrels.assign(relevance=grades)[::2], judge([("q000", "other", 1)])])
    names = [
        "nDCG(gains={1:9,2:1})@5",
        "nDCG@5",
        "P(judged_only=True)@5",
        "NumRet",
        "P@5",
        "nDCG(gains={2:7})@5",
        "Accuracy@5",
    ]
    together, _ = evaluate(run, qrels, names)
    alone = [evaluate(run, qrels, name)[0]["value"].item() for name in names]
    assert together["value"].tolist() == pytest.approx(alone)
    assert alone[0] != pytest.approx(alone[1]) and alone[3] == 32


def test_accuracy_counts_queries_with_a_pair_to_compare():
    """q1: b under a: 1/1 and 0/1 pairs, so 0. q2: c below both: 1. q3: nothing relevant found; q4: nothing else found."""
    run = pd.concat([RUN, table([("q3", "a", 1.0), ("q4", "a", 1.0)])])
    qrels = pd.concat([QRELS, judge([("q3", "b", 1), ("q4", "a", 1), ("q5", "a", 1)])])
    results, per_query = evaluate(run, qrels, "Accuracy@2 Accuracy RR")
    assert results["value"].tolist() == pytest.approx([0.0, 0.75, (0.5 + 1 + 0 + 1 + 0) / 5])
    assert results["n"].tolist() == [1, 2, 5]
    assert per_query[per_query["measure"] == "Accuracy"]["query_id"].tolist() == ["q1", "q2"]
    with pytest.raises(UserError, match="Accuracy is defined for none"):
        evaluate(run[-2:], qrels[-3:], "RR Accuracy")


def test_sums_have_intervals_of_sums():
    """12 queries with 5 or 6 relevant documents found: the mean's interval times 12."""
    run, qrels = draws(queries=12, n=6)
    qrels = qrels.assign(relevance=[0 if i % 12 == 0 else 1 for i in range(len(qrels))])
    row = evaluate(run, qrels, "NumRelRet")[0].iloc[0]
    assert row["value"] == 66 and 60 < row["low"] < 66 < row["high"] < 72


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("P(rel=0)@5", r"rel must be 1 … 10,000"),
        ("P(rel=99999999999999999999)@5", r"rel must be 1 … 10,000"),
        ("P@99999999999999999999", "must be at most 2,147,483,647"),
        ("nDCG(gains={1:0.5})@5", "gains must map whole grades to whole gains"),
        ("nDCG(gains={1:4611686018427387904})@5", "gains must map whole grades"),
        ("IPrec@0.105", "two decimals"),
        ("Compat(p=2.0)", "p must lie above 0"),
        ("ERR", "none of the installed ir_measures providers"),
    ],
)
def test_parameters_that_a_provider_breaks_on_are_refused(text, part):
    with pytest.raises(UserError, match=part):
        parse(text)


def test_grades_beyond_a_provider_are_refused():
    qrels = judge([("q1", "a", 1), ("q2", "a", 5)])
    if ir_measures.providers.registry["gdeval"].is_available():
        with pytest.raises(UserError, match=r"ERR@10 takes grades up to 4 \(gdeval\); row 1 .*query_id=q2.* has 5"):
            evaluate(RUN, qrels, "RR ERR@10")
    assert evaluate(RUN, qrels, "nDCG@3")[0]["value"].item() == 1


@pytest.mark.parametrize("grade", [4611686018427387904, -4611686018427387904, 1e300, 10_001])
def test_a_grade_has_a_bound(grade, tmp_path):
    """trec_eval's nDCG keeps a table of all grades up to the largest: a huge one ended the process."""
    qrels = judge([("q1", "a", 1), ("q2", "a", grade)])
    with pytest.raises(UserError, match=r"row 1 \(query_id=q2, doc_id=a\): relevance must be at most 10,000"):
        evaluate(RUN, qrels, "nDCG@3")
    (tmp_path / "a.qrels").write_text(f"q1 0 a 1\nq2 0 a {grade}\n")
    (tmp_path / "a.json").write_text(json.dumps({"q1": {"a": 1}, "q2": {"a": grade}}))
    for name in ("a.qrels", "a.json"):
        with pytest.raises(UserError, match=r"entry 2: relevance must be a whole number of at most 10,000"):
            tables.read_qrels(tmp_path / name)


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
        (RUN, QRELS.assign(relevance=0.5), "RR", "a whole number for RR .Reward@N takes any., got 0.5"),
        (RUN.assign(tag=["x"] * 5 + [None]), QRELS, "RR", "row 5 has no tag"),
    ],
)
def test_evaluate_refuses(run, qrels, measures, part):
    with pytest.raises(UserError, match=part):
        evaluate(run, qrels, measures)


def test_columns_have_one_type_whatever_is_measured():
    """A cutoff is a whole number or missing, and rows are numbered from 0, of several runs too."""
    both = pd.concat([RUN.assign(tag=tag, doc_id=RUN["doc_id"]) for tag in ("a", "b")])
    for measures in ("RR", "P@2", "RR P@2"):
        results, per_query = evaluate(both, QRELS, measures)
        assert results["cutoff"].dtype == "Int64"
        assert results.index.tolist() == list(range(len(results)))
        assert per_query.index.tolist() == list(range(len(per_query)))


def test_draws_have_their_temperature_behind_their_name():
    run = RUN.assign(temperature=0.7)
    for table in evaluate(run, QRELS, "RR"):
        assert list(table.columns[:2]) == ["run", "temperature"] and set(table["temperature"]) == {0.7}


def test_an_interval_of_rewards_may_leave_0_and_1():
    """Grades from 0 to 1 bound it, others do not."""
    rows = [(f"q{i}", f"q{i}/{d}") for i in range(4) for d in range(2)]
    run = pd.DataFrame(rows, columns=["query_id", "doc_id"]).assign(score=[1.0, 0.0] * 4, rank=[0, 1] * 4)
    grades = run[["query_id", "doc_id"]].assign(relevance=[0.9, 1.0, 1.0, 1.0, 1.0, 0.9, 1.0, 1.0])
    (within,), (beyond,) = (
        evaluate(run, grades.assign(relevance=grades["relevance"] * scale), "Reward@1")[0].itertuples()
        for scale in (1, 10)
    )
    assert within.high <= 1 < 10 < beyond.high


def test_a_share_is_bounded_whatever_the_grades():
    """Reciprocal ranks of 1 with grades of 2: other queries may have less, none more."""
    rows = [(f"q{i}", "d") for i in range(6)]
    run = pd.DataFrame(rows, columns=["query_id", "doc_id"]).assign(score=1.0, rank=0)
    found, _ = evaluate(run, run[["query_id", "doc_id"]].assign(relevance=2), "RR")
    assert found["high"].item() == 1 and 0.5 < found["low"].item() < 1


def test_a_query_with_one_document_counts_where_only_those_of_the_run_do():
    run = pd.DataFrame(
        {"query_id": ["a", "b", "b"], "doc_id": ["d", "d", "e"], "score": [1.0, 1.0, 0.5], "rank": [0, 0, 1]}
    )
    qrels = pd.DataFrame({"query_id": ["a", "b", "c"], "doc_id": ["d", "e", "d"], "relevance": [1, 1, 1]})
    found, each = evaluate(run, qrels, "RR", complete=False)
    assert found["n"].item() == 2 and each.set_index("query_id")["value"].to_dict() == {"a": 1.0, "b": 0.5}


def test_a_run_of_other_queries_is_told_so():
    run = pd.DataFrame({"query_id": ["a"], "doc_id": ["d"], "score": [1.0], "rank": [0]})
    with pytest.raises(UserError) as told:
        judged_part(run, pd.DataFrame({"query_id": ["b"], "doc_id": ["d"], "relevance": [1]}))
    assert str(told.value) == "run: none of its queries is in the qrels"
