"""tables: what is refused and how it is said, the order of tied scores, and files that come back as they were written."""

import gzip
import json

import ir_measures
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irlens import tables
from irlens.base import files
from irlens.base.errors import UserError


def run_of(*rows: tuple, columns: str = "query_id doc_id score rank") -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=columns.split())


RUN = run_of(("q1", "b", 2.0, 0), ("q1", "a", 1.0, 1), ("q2", "a", 0.5, 0))


# -- check ---------------------------------------------------------------------------------------------------------


def test_check_returns_the_very_frame():
    assert tables.check(RUN, "run") is RUN


@pytest.mark.parametrize(("table", "columns"), tables.COLUMNS.items())
def test_check_names_every_missing_column_and_those_found(table, columns):
    with pytest.raises(UserError) as error:
        tables.check(pd.DataFrame({"shape": [1]}), table, "some.file")
    assert str(error.value).startswith("some.file: ")
    assert f"missing: {', '.join(columns)} (found: shape)" in str(error.value)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("query_id", 7, "row 1: query_id must be a non-empty string, got 7"),
        ("query_id", None, "row 1: query_id must be a non-empty string, got None"),
        ("doc_id", "", "row 1: doc_id must be a non-empty string, got ''"),
        ("score", float("nan"), "row 1: score must be a finite number, got nan"),
        ("score", float("inf"), "row 1: score must be a finite number, got inf"),
        ("score", "high", "row 1: score must be a finite number, got 'high'"),
    ],
)
def test_check_names_the_first_bad_row(column, value, message):
    frame = RUN.astype({column: object})
    frame.loc[1, column] = value
    with pytest.raises(UserError, match="^run: ") as error:
        tables.check(frame, "run")
    assert message in str(error.value)


@pytest.mark.parametrize("bad", [[1, -2], [1.5], ["a"], "12", 7, [[1], [2]], [1, [2, 3]], [True]])
def test_check_names_tokens_that_are_no_ids(bad):
    columns = {"query_id": ["a", "b"], "doc_id": ["c", "d"], "score": [1.0, 2.0], "rank": [0, 0]}
    for good in ([], [0, 3], np.array([5], dtype=np.int32), (2, 1), None, float("nan")):
        frame = pd.DataFrame(columns | {"tokens": [good, None]})
        assert tables.check(frame, "run") is frame
        with pytest.raises(UserError, match="row 1: tokens must be a list of whole numbers of 0 or more, or missing"):
            tables.check(pd.DataFrame(columns | {"tokens": [good, bad]}), "run")


def test_check_names_a_key_that_occurs_twice():
    with pytest.raises(UserError, match=r"query_id=q1, doc_id=b occurs more than once \(2 repeated rows\)"):
        tables.check(pd.concat([RUN, RUN.iloc[[0, 0]]]), "run")
    with pytest.raises(UserError, match=r"query_id=q1 occurs more than once"):
        tables.check(pd.DataFrame({"query_id": ["q1", "q1"], "query": ["x", "y"]}), "topics")


@pytest.mark.parametrize("table", tables.COLUMNS)
def test_check_takes_an_empty_table(table):
    empty = pd.DataFrame(columns=list(tables.COLUMNS[table]))
    assert tables.check(empty, table) is empty


# -- ranked --------------------------------------------------------------------------------------------------------


def test_ranked_sorts_each_query_and_leaves_its_input_alone():
    run = run_of(("q2", "x", 1.0, 9), ("q1", "a", 1.0, 9), ("q1", "b", 3.0, 9), ("q2", "y", 2.0, 9))
    before = run.copy()
    out = tables.ranked(run)
    assert list(out["query_id"] + out["doc_id"]) == ["q1b", "q1a", "q2y", "q2x"]
    assert list(out["rank"]) == [0, 1, 0, 1]
    assert out["score"].dtype == np.float32
    assert out["rank"].dtype == np.int64
    pd.testing.assert_frame_equal(run, before)


def test_ranked_puts_the_larger_doc_id_of_a_tie_first_one_float_apart():
    out = tables.ranked(run_of(("q", "c", 1.0, 0), ("q", "a", 1.0, 0), ("q", "b", 1.0, 0)))
    one = np.float32(1)
    below = np.nextafter(one, np.float32(0))
    assert list(out["doc_id"]) == ["c", "b", "a"]
    assert list(out["score"]) == [one, below, np.nextafter(below, np.float32(0))]


def test_ranked_keeps_the_order_of_scores_that_only_float64_tells_apart():
    rows = [("q", doc_id, 1 + i * 1e-12, 0) for i, doc_id in enumerate("cba")]
    assert len({np.float32(row[2]) for row in rows}) == 1
    out = tables.ranked(run_of(*rows))
    assert list(out["doc_id"]) == ["a", "b", "c"]
    assert (np.diff(out["score"]) < 0).all()


def test_ranked_lowers_a_score_that_a_nudge_has_reached():
    below = float(np.nextafter(np.float32(1), np.float32(0)))
    out = tables.ranked(run_of(("q", "a", 1.0, 0), ("q", "b", 1.0, 0), ("q", "c", below, 0), ("q", "d", 0.5, 0)))
    assert list(out["doc_id"]) == ["b", "a", "c", "d"]
    assert (np.diff(out["score"]) < 0).all()
    assert out["score"].iloc[-1] == 0.5


@pytest.mark.parametrize("tags", [("bm25", "e5"), ("bm25", None)])
def test_ranked_ranks_each_tag_by_itself(tags):
    both = pd.concat([RUN.assign(tag=tags[0]), RUN.assign(tag=tags[1], score=-RUN["score"])])
    out = tables.ranked(both)
    second = out[out["tag"].isna()] if tags[1] is None else out[out["tag"] == tags[1]]
    assert list(out[out["tag"] == tags[0]]["doc_id"]) == ["b", "a", "a"]
    assert list(second["doc_id"]) == ["a", "b", "a"]
    assert list(second["rank"]) == [0, 1, 0]


@pytest.mark.parametrize("empty", [RUN.iloc[:0], pd.DataFrame(columns=["query_id", "doc_id", "score", "tag"])])
def test_ranked_takes_an_empty_run(empty):
    out = tables.ranked(empty)
    assert len(out) == 0
    assert {"query_id", "doc_id", "score", "rank"} <= set(out.columns)
    assert (out["score"].dtype, out["rank"].dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf"), 1e39])
def test_ranked_refuses_a_score_that_float32_cannot_hold(score):
    with pytest.raises(UserError, match="query_id=q, doc_id=bad: score must be a finite 32-bit number, got "):
        tables.ranked(run_of(("q", "good", 1.0, 0), ("q", "bad", score, 0)))


SCORES = st.one_of(st.sampled_from([0.0, 1.0, 1 + 1e-9, 1 - 1e-9, -1.0]), st.floats(-1e6, 1e6))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pq"), SCORES), min_size=1, max_size=12), st.randoms())
def test_ranked_always_falls_strictly_whatever_the_row_order(rows, random):
    run = run_of(*((query, f"d{i}", score, 0) for i, (query, score) in enumerate(rows)))
    out = tables.ranked(run)
    for _, own in out.groupby("query_id"):
        assert (np.diff(own["score"]) < 0).all()
        assert list(own["rank"]) == list(range(len(own)))
        raw = run.set_index("doc_id")["score"][own["doc_id"]].to_numpy()
        assert (np.diff(raw) <= 0).all()
    order = list(range(len(run)))
    random.shuffle(order)
    pd.testing.assert_frame_equal(tables.ranked(run.iloc[order]), out)
    pd.testing.assert_frame_equal(tables.ranked(out), out)


def test_a_ranked_tie_is_read_as_ranked_by_trec_eval(tmp_path):
    out = tables.ranked(run_of(*(("q", doc_id, 0.1, 0) for doc_id in ("d9", "d1", "d5"))))
    tables.write_trec_run(out, tmp_path / "x.run")
    qrels = [ir_measures.Qrel("q", "d9", 1)]
    measures = [ir_measures.parse_measure("Success@1")]
    run = list(ir_measures.read_trec_run(str(tmp_path / "x.run")))
    assert ir_measures.calc_aggregate(measures, qrels, run) == {measures[0]: 1.0}


# -- files ---------------------------------------------------------------------------------------------------------


def write(path, text: str):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_run_comes_back_from_a_trec_file(tmp_path):
    run = tables.ranked(run_of(("q1", "d1", 0.1, 0), ("q1", "d2", 0.1, 0), ("q1", "d3", -1e-20, 0), ("q2", "é", 3, 0)))
    tables.write_trec_run(run, tmp_path / "a.run", tag="mine")
    back = tables.read_run(tmp_path / "a.run")
    assert list(back["score"].astype(np.float32)) == list(run["score"])
    for column in ("query_id", "doc_id", "rank"):
        assert list(back[column]) == list(run[column])
    assert set(back["tag"]) == {"mine"}


def test_the_tag_of_a_run_goes_into_its_trec_file_without_spaces(tmp_path):
    tables.write_trec_run(RUN.assign(tag="bm25 k1=1.5"), tmp_path / "a.run")
    assert (tmp_path / "a.run").read_text().splitlines()[0] == "q1 Q0 b 0 2.0 bm25_k1=1.5"


@pytest.mark.parametrize("bad", ["a b", "a\tb", "a\u00a0b", "a\u2028b"])
def test_an_identifier_with_white_space_is_refused_before_a_trec_file_is_written(bad, tmp_path):
    with pytest.raises(UserError, match="doc_id .* has white space"):
        tables.write_trec_run(run_of(("q", bad, 1.0, 0)), tmp_path / "a.run")
    with pytest.raises(UserError, match="query_id .* has white space"):
        tables.write_trec_qrels(
            pd.DataFrame({"query_id": [bad], "doc_id": ["d"], "relevance": [1]}), tmp_path / "a.txt"
        )
    assert list(tmp_path.iterdir()) == []


def test_an_empty_run_comes_back_empty(tmp_path):
    tables.write_trec_run(tables.ranked(RUN.iloc[:0]), tmp_path / "a.run")
    assert len(tables.read_run(tmp_path / "a.run")) == 0


def test_a_run_with_five_fields_names_file_and_line(tmp_path):
    path = write(tmp_path / "a.run", "q1 Q0 d1 0 2.5 t\n\nq1 Q0 d2 1 t\n")
    with pytest.raises(UserError) as error:
        tables.read_run(path)
    assert str(error.value) == f"{path}:3: expected 6 fields (query_id Q0 doc_id rank score tag), got 5"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 d 0 high t", "entry 2: score must be a number, got 'high'"),
        ("q Q0 d 0 nan t", "entry 2: score must be a number, got 'nan'"),
        ("q Q0 d 0 inf t", "row 1: score must be a finite number, got inf"),
        ("q Q0 d 0.5 1 t", "entry 2: rank must be a whole number, got '0.5'"),
        ("q Q0 first 1 1 t", "query_id=q, doc_id=first occurs more than once"),
    ],
)
def test_a_run_with_a_bad_entry_names_file_and_entry(line, message, tmp_path):
    path = write(tmp_path / "a.run", f"q Q0 first 0 2.5 t\n{line}\n")
    with pytest.raises(UserError) as error:
        tables.read_run(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_identifiers_that_look_like_numbers_stay_strings(tmp_path):
    run = tables.read_run(write(tmp_path / "a.run", "007 Q0 1e3 0 2.5 t\n"))
    qrels = tables.read_qrels(write(tmp_path / "q.txt", "007 0 1e3 1\n"))
    assert list(run.merge(qrels, on=["query_id", "doc_id"])["doc_id"]) == ["1e3"]


def test_a_byte_order_mark_is_no_part_of_the_first_identifier(tmp_path):
    path = write(tmp_path / "a.run", "\ufeffq1 Q0 d1 0 2.5 t\n")
    assert list(tables.read_run(path)["query_id"]) == ["q1"]


def test_qrels_come_back_from_trec_and_beir_files(tmp_path):
    qrels = pd.DataFrame({"query_id": ["q1", "q2"], "doc_id": ["d1", "d1"], "relevance": [1, -2]})
    tables.write_trec_qrels(qrels, tmp_path / "a.txt")
    beir = write(tmp_path / "b.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td1\t-2\n")
    bare = write(tmp_path / "c.tsv", "q1\td1\t1\nq2\td1\t-2\n")
    for path in (tmp_path / "a.txt", beir, bare):
        pd.testing.assert_frame_equal(tables.read_qrels(path), qrels, check_dtype=False)


@pytest.mark.parametrize(("name", "text"), [("a.txt", "q d 1\n"), ("a.tsv", "q 0 d 1\n")])
def test_qrels_of_the_other_layout_are_refused_with_the_right_one(name, text, tmp_path):
    with pytest.raises(UserError, match=r":1: expected \d fields \(query.id "):
        tables.read_qrels(write(tmp_path / name, text))


def test_qrels_with_half_a_grade_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"relevance must be a whole number, got '0\.5'"):
        tables.read_qrels(write(tmp_path / "a.txt", "q 0 d 0.5\n"))


def test_parquet_keeps_everything_in_the_same_bytes(tmp_path):
    run = RUN.assign(text=["x", None, "é\n"], draw=[0, 1, 2])
    for name in ("a.parquet", "b.parquet"):
        files.write_parquet(run, tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    pd.testing.assert_frame_equal(tables.read_run(tmp_path / "a.parquet"), run, check_dtype=False)


def test_a_folder_stands_for_the_table_in_it(tmp_path):
    files.write_parquet(RUN, tmp_path / "run.parquet")
    files.write_parquet(
        pd.DataFrame({"query_id": ["q"], "doc_id": ["d"], "relevance": [1]}), tmp_path / "qrels.parquet"
    )
    assert len(tables.read_run(tmp_path)) == 3
    assert len(tables.read_qrels(tmp_path)) == 1


def test_parquet_without_query_id_names_file_and_column(tmp_path):
    files.write_parquet(RUN.drop(columns="query_id"), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: a run table needs .*; missing: query_id \(found: doc_id, score"):
        tables.read_run(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["none.parquet", "none.run", "text.parquet", "folder.run/"])
def test_a_file_that_cannot_be_read_is_a_user_error_naming_it(name, tmp_path):
    write(tmp_path / "text.parquet", "no Parquet")
    (tmp_path / "folder.run").mkdir()
    with pytest.raises(UserError, match=name.rstrip("/")):
        tables.read_run(tmp_path / name)


def test_lines_come_from_gzip_too(tmp_path):
    (tmp_path / "a.run.gz").write_bytes(gzip.compress(b"q Q0 d 0 2.5 t\n"))
    assert list(tables.read_run(tmp_path / "a.run.gz")["score"]) == [2.5]


def damaged(good: bytes) -> dict[str, bytes]:
    return {
        "plain": b"q Q0 d 0 2.5 t\n",
        "cut": good[:-12],
        "checksum": good[:-8] + bytes(4) + good[-4:],
        "block": good[:10] + b"\xff" * 8 + good[18:],
    }


@pytest.mark.parametrize("damage", ["plain", "cut", "checksum", "block"])
def test_a_damaged_gzip_file_is_a_user_error(damage, tmp_path):
    good = gzip.compress(b"".join(b"q Q0 d%d 0 2.5 t\n" % i for i in range(99)))
    path = tmp_path / "a.run.gz"
    path.write_bytes(damaged(good)[damage])
    with pytest.raises(UserError, match="not a UTF-8 text file"):
        list(files.read_lines(path))


def test_latin_1_is_a_user_error(tmp_path):
    (tmp_path / "a.run").write_bytes("q Q0 é 0 2.5 t\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.run: not a UTF-8 text file"):
        tables.read_run(tmp_path / "a.run")


@pytest.mark.parametrize(
    ("line", "message"), [('{"a": 1', "malformed JSON"), ("[1]", "expected a JSON object, got list")]
)
def test_jsonl_names_file_and_line(line, message, tmp_path):
    path = write(tmp_path / "a.jsonl", json.dumps({"a": 1}) + "\n\n" + line + "\n")
    with pytest.raises(UserError) as error:
        list(files.read_jsonl(path))
    assert str(error.value).startswith(f"{path}:3: {message}")


def test_jsonl_counts_lines_from_one_and_skips_blank_ones(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": 1}\r\n\n{"a": 2}')
    assert list(files.read_jsonl(path)) == [(1, {"a": 1}), (3, {"a": 2})]


def test_csv_keeps_every_digit(tmp_path):
    files.write_csv(pd.DataFrame({"value": [1 / 3, 1e-300]}), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "value\n0.3333333333333333\n1e-300\n"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    files.write_text("old", path)

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        files.write_atomically(path, fail)
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


# -- from what is at hand ------------------------------------------------------------------------------------------


def test_topics_from_texts_meet_the_draws_of_the_same_texts():
    topics = tables.topics(["a?", "b?"], answers=["1", ["2", 3]])
    run = tables.run([("b?", "x"), ("a?", "y"), ("b?", "z")])
    assert topics["answers"].tolist() == [["1"], ["2", "3"]]
    assert set(run["query_id"]) == set(topics["query_id"]) == {tables.query_id_of("a?"), tables.query_id_of("b?")}
    assert tables.topics({"q1": "a?"})["query_id"].tolist() == ["q1"]


def test_draws_without_scores_keep_their_order_and_those_with_are_ordered_by_them():
    plain = tables.run([("q", "first"), ("q", "second")], name="mine")
    assert plain.sort_values("rank")["text"].tolist() == ["first", "second"] and set(plain["tag"]) == {"mine"}
    scored = tables.run([("q", "worse", 0.1), ("q", "better", 0.9)])
    assert scored.sort_values("rank")["text"].tolist() == ["better", "worse"]
    assert scored.set_index("text")["reward"].to_dict() == {"worse": 0.1, "better": 0.9}


def test_a_frame_keeps_what_else_it_knows_and_stays_as_it_is():
    given = pd.DataFrame({"prompt": ["q", "q"], "completion": ["a", "b"], "tokens": [[1, 2], None], "mark": [7, 8]})
    before = given.copy()
    run = tables.run(given)
    assert run["mark"].tolist() == [7, 8] and run["query"].tolist() == ["q", "q"] and "text" in run.columns
    pd.testing.assert_frame_equal(given, before)
    topics = pd.DataFrame({"query_id": ["q"], "query": ["a?"]})
    assert tables.topics(topics, answers=["1"])["answers"].tolist() == [["1"]] and "answers" not in topics.columns


@pytest.mark.parametrize("make, message", [
    (lambda: tables.topics([]), "topics: no prompt"),
    (lambda: tables.topics(["a?", 3]), "topics: a prompt must be a text, got 3"),
    (lambda: tables.topics(["a?", "a?"]), "topics: the prompt 'a.' is there twice"),
    (lambda: tables.topics({3: "a?"}), "query_id must be a non-empty string, got 3"),
    (lambda: tables.topics(pd.DataFrame({"query": ["a?"]})), "missing: query_id"),
    (lambda: tables.topics(["a?", "b?"], answers=["1"]), "answers must have one entry for each of the 2 prompts, got 1"),
    (lambda: tables.topics(["a?"], answers="1"), "answers must have one entry .* got a single text"),
    (lambda: tables.topics(["a?"], messages=[]), "messages must have one entry for each of the 1 prompts, got 0"),
    (lambda: tables.run([]), "run: no draw"),
    (lambda: tables.run([("q",)]), r"run: a draw is \(query, response\) or \(query, response, score\)"),
    (lambda: tables.run([("q", "a", 1.0), ("q", "b")]), "run: 1 of 2 draws have no score; give all one, or none"),
    (lambda: tables.run([("q", "a", "good")]), "run: 1 of 1 draws have no score"),
    (lambda: tables.run([("q", "a", float("inf"))]), "score must be a finite number, got inf"),
    (lambda: tables.run(pd.DataFrame({"query": ["q"]})), r"run: no column text \(found: query\)"),
    (lambda: tables.run(pd.DataFrame({"text": ["a"]})), r"run: no column query \(found: text\)"),
    (lambda: tables.run([("q", 3)]), "run: row 0: a response must be a text, got 3"),
    (lambda: tables.run([(None, "a")]), "run: row 0: a query must be a text, got None"),
    (lambda: tables.run([("q", "a"), 3]), r"run: a draw is \(query, response\) .*, got 3"),
    (lambda: tables.run(["no"]), r"run: a draw is \(query, response\) .*, got 'no'"),
])  # fmt: skip
def test_what_is_no_prompt_and_no_draw_is_told_in_one_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_table_without_rows_is_one_whatever_its_types():
    for table, columns in tables.COLUMNS.items():
        assert tables.check(pd.DataFrame(columns=columns, dtype=float), table).empty
