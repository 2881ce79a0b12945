"""beir: folders that are refused and how it is said, and answer strings found as DPR finds them."""

import gzip
import json
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from irlens import tasks
from irlens.base.errors import UserError
from irlens.tasks.beir import answer_qrels, has_answer

CORPUS = [{"_id": "d1", "title": "One", "text": "Marie Curie won it."}, {"_id": "d2", "text": "A long party."}]
QUERIES = [
    {"_id": "q1", "text": "who won", "metadata": {"answers": ["Marie Curie"]}},
    {"_id": "q3", "text": "not judged"},
    {"_id": "q2", "text": "what kind of party", "metadata": {"answers": ["long", "short"]}},
]
QRELS = "query-id\tcorpus-id\tscore\nq2\td2\t1\nq1\td1\t2\nq1\td2\t0\n"


def folder(path: Path, corpus=CORPUS, queries=QUERIES, qrels=QRELS, split="test") -> Path:
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (path / "qrels").mkdir(exist_ok=True)
    (path / "qrels" / f"{split}.tsv").write_text(qrels, encoding="utf-8")
    return path


def test_a_folder_becomes_topics_corpus_and_qrels(tmp_path):
    task = tasks.load(folder(tmp_path))
    assert task.split == "test"
    assert task.topics.to_dict("list") == {
        "query_id": ["q1", "q2"],
        "query": ["who won", "what kind of party"],
        "answers": [["Marie Curie"], ["long", "short"]],
    }
    assert task.corpus.to_dict("list") == {
        "doc_id": ["d1", "d2"],
        "text": ["Marie Curie won it.", "A long party."],
        "title": ["One", ""],
    }
    assert list(task.qrels.itertuples(index=False, name=None)) == [("q2", "d2", 1), ("q1", "d1", 2), ("q1", "d2", 0)]
    assert task.revision.count("sha256:") == 3


def test_the_limit_cuts_topics_and_their_qrels_only(tmp_path):
    task = tasks.load(folder(tmp_path), limit=1)
    assert task.topics["query_id"].tolist() == ["q1"]
    assert task.qrels["query_id"].unique().tolist() == ["q1"]
    assert len(task.corpus) == 2


def test_gzipped_files_read_the_same(tmp_path):
    plain = tasks.load(folder(tmp_path))
    for path in (tmp_path / "corpus.jsonl", tmp_path / "queries.jsonl", tmp_path / "qrels" / "test.tsv"):
        with gzip.open(f"{path}.gz", "wt", encoding="utf-8") as file:
            file.write(path.read_text(encoding="utf-8"))
        path.unlink()
    zipped = tasks.load(tmp_path)
    for table in ("topics", "corpus", "qrels"):
        pd.testing.assert_frame_equal(getattr(plain, table), getattr(zipped, table))


def test_queries_without_answers_have_no_such_column(tmp_path):
    task = tasks.load(folder(tmp_path, queries=[{"_id": "q1", "text": "a"}, {"_id": "q2", "text": "b"}]))
    assert list(task.topics.columns) == ["query_id", "query"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"corpus": []}, r"corpus.jsonl: no rows"),
        ({"queries": []}, r"queries.jsonl: no rows"),
        ({"qrels": "query-id\tcorpus-id\tscore\n"}, r"test.tsv: no rows"),
        ({"corpus": [*CORPUS, CORPUS[0]]}, r"corpus.jsonl:3: _id 'd1' occurs again \(first on line 1\)"),
        ({"queries": [*QUERIES, QUERIES[0]]}, r"queries.jsonl:4: _id 'q1' occurs again \(first on line 1\)"),
        ({"corpus": [*CORPUS, {"text": "t"}]}, r"corpus.jsonl:3: _id must be a non-empty string .* got None"),
        ({"corpus": [*CORPUS, {"_id": "a b", "text": "t"}]}, r"corpus.jsonl:3: _id .* got 'a b'"),
        ({"corpus": [*CORPUS, {"_id": "d3"}]}, r"corpus.jsonl:3: text must be a string"),
        ({"corpus": [*CORPUS, {"_id": "d3", "text": "t", "title": 3}]}, r"corpus.jsonl:3: text must be a string"),
        (
            {"queries": [*QUERIES, {"_id": "q4", "text": "t", "metadata": {"answers": "x"}}]},
            r"queries.jsonl:4: metadata.answers must be a list of strings",
        ),
        ({"qrels": QRELS + "q9\td1\t1\n"}, r"test.tsv:5: query 'q9' is not in queries.jsonl"),
        ({"qrels": QRELS + "q3\td9\t1\n"}, r"test.tsv:5: document 'd9' is not in corpus.jsonl"),
        ({"qrels": QRELS + "q1\td1\t1\n"}, r"test.tsv:5: query 'q1' and document 'd1' are judged twice"),
        ({"qrels": QRELS + "q3\td1\n"}, r"test.tsv:5: expected 3 fields \(query-id corpus-id score\), got 2"),
        ({"qrels": QRELS + "q3\td1\t0.5\n"}, r"test.tsv:5: score must be a whole number, got '0.5'"),
    ],
)
def test_a_bad_folder_is_refused_with_file_and_line(tmp_path, parts, message):
    with pytest.raises(UserError, match=message):
        tasks.load(folder(tmp_path, **parts))


def test_a_folder_without_queries_or_qrels_is_refused(tmp_path):
    folder(tmp_path)
    with pytest.raises(UserError, match="no split 'dev'; present: test"):
        tasks.load(tmp_path, split="dev")
    (tmp_path / "qrels" / "test.tsv").unlink()
    with pytest.raises(UserError, match=r"needs qrels/SPLIT.tsv"):
        tasks.load(tmp_path)
    (tmp_path / "queries.jsonl").unlink()
    with pytest.raises(UserError, match=r"needs queries.jsonl"):
        tasks.load(tmp_path)


# -- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "text", "found"),
    [
        (["Curie"], "Marie CURIE won it.", True),
        (["Marie Curie"], "Marie, Curie", False),  # a comma is a token too
        (["art"], "a party", False),
        (["art"], "modern art.", True),
        (["Röntgen"], "Wilhelm Ro\u0308ntgen", True),  # composed and decomposed
        (["Rontgen"], "Wilhelm Röntgen", False),  # marks are kept
        (["O'Brien"], "Mr. O'Brien left", True),
        (["O'Brien"], "Mr. O\u2019Brien left", False),
        (["O Brien"], "Mr. O'Brien left", False),
        (["10,000"], "about 10,000 people", True),
        (["10000"], "about 10,000 people", False),
        (["000"], "about 10,000 people", True),  # as DPR has it
        (["May 18 , 2018"], "on May 18, 2018.", True),
        (["U.S."], "the U.S. army", True),
        (["U.S."], "the US army", False),
        (["no", "long"], "a long way", True),
        (["new\n york"], "New  York", True),
        (["ΟΔΟΣ"], "η οδος", True),
        ([""], "anything", False),
        ([" \n"], "anything", False),
        ([], "anything", False),
        (["x"], "", False),
    ],
)
def test_has_answer_matches_whole_tokens(answers, text, found):
    assert has_answer(answers, text) is found


def in_lists(answer: str, text: str) -> bool:
    """DPR's rule written out with lists of tokens."""
    pattern = r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]"
    wanted, tokens = (
        [token.lower() for token in regex.findall(pattern, unicodedata.normalize("NFD", part))]
        for part in (answer, text)
    )
    return bool(wanted) and any(tokens[i : i + len(wanted)] == wanted for i in range(len(tokens)))


SOME = st.text(alphabet="aAbÉé\u0301İΣσ1,.' \n\u00a0\u200b", max_size=12)


@given(SOME, SOME, SOME)
@settings(deadline=None, max_examples=300)
def test_has_answer_agrees_with_token_lists(answer, before, after):
    for text in (before + after, before + answer + after, f"{before} {answer} {after}"):
        assert has_answer([answer], text) == in_lists(answer, text)


RUN = pd.DataFrame({"query_id": ["q2", "q1", "q1"], "doc_id": ["d2", "d2", "d1"]})


def test_answer_qrels_judges_every_row_by_the_text(tmp_path):
    task = tasks.load(folder(tmp_path))
    titled = task.corpus.assign(title="long Marie Curie")
    qrels = answer_qrels(RUN, task.topics, titled)
    assert list(qrels.itertuples(index=False, name=None)) == [("q2", "d2", 1), ("q1", "d2", 0), ("q1", "d1", 1)]


def test_answer_qrels_judges_a_pair_of_two_tags_once(tmp_path):
    task = tasks.load(folder(tmp_path))
    run = pd.concat([RUN.assign(tag="a"), RUN.assign(tag="b")])
    assert len(answer_qrels(run, task.topics, task.corpus)) == len(RUN)


@pytest.mark.parametrize(
    ("run", "topics", "message"),
    [
        (RUN[["query_id"]], None, "run: missing columns: doc_id"),
        (RUN, {"answers": None}, "topics: no column answers"),
        (RUN, {"answers": [["x"], []]}, "topics: query 'q2' has no answers"),
        (RUN.assign(doc_id="d9"), None, r"run: doc_id 'd9' is not in the corpus \(1 such\)"),
        (RUN.assign(query_id="q9"), None, r"run: query_id 'q9' is not in the topics \(1 such\)"),
    ],
)
def test_answer_qrels_refuses_what_it_cannot_judge(tmp_path, run, topics, message):
    task = tasks.load(folder(tmp_path))
    changed = task.topics.drop(columns="answers") if topics == {"answers": None} else task.topics.assign(**topics or {})
    with pytest.raises(UserError, match=message):
        answer_qrels(run, changed, task.corpus)


def test_the_gold_passages_of_natural_questions_have_their_answers(real_data):
    task = tasks.load(real_data("nq"))
    assert (len(task.topics), len(task.corpus), len(task.qrels)) == (2655, 2600, 2655)
    assert answer_qrels(task.qrels, task.topics, task.corpus)["relevance"].all()
    others = task.qrels.assign(doc_id=task.qrels["doc_id"].to_numpy()[::-1].copy())
    assert answer_qrels(others, task.topics, task.corpus)["relevance"].mean() < 0.05
