"""BM25: one score worked by hand, the order of ties, what is refused, and recall on Natural Questions."""

import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import ir_measures
import numpy as np
import pandas as pd
import pytest

from irlens import tables
from irlens.base import files
from irlens.base.errors import UserError
from irlens.retrieve.lexical import BM25

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "nq"
CORPUS = pd.DataFrame(
    {
        "doc_id": ["d1", "d2", "d3"],
        "text": ["cats cats sleep", "dogs bark", "green birds sing loudly"],
    }
)


def topics(*queries: str) -> pd.DataFrame:
    return pd.DataFrame({"query_id": [f"q{i}" for i in range(len(queries))], "query": queries})


def same_text(*doc_ids: str) -> pd.DataFrame:
    return pd.DataFrame({"doc_id": doc_ids, "text": "a red fox"})


def test_a_score_worked_by_hand():
    # "cat" is in 1 of 3 documents: idf = ln(1 + 2.5 / 1.5). In d1 tf = 2, and its 3 words are the mean length (9 / 3),
    # so the length does not matter: tf / (tf + k1) = 2 / 3.5. "sleep" likewise with tf = 1: 1 / 2.5.
    idf = math.log(1 + 2.5 / 1.5)
    run = BM25(CORPUS).search(topics("cat", "the sleeping cat"), k=3)
    assert list(run["doc_id"]) == ["d1", "d1"]
    assert list(run["score"]) == pytest.approx([idf * 2 / 3.5, idf * (2 / 3.5 + 1 / 2.5)], rel=1e-6)
    # "bark" in d2, 2 words long: tf + k1 · (1 − b + b · 2/3) = 1 + 1.2 · (0.6 + 0.4 · 2/3) = 2.04
    bark = BM25(CORPUS, k1=1.2, b=0.4).search(topics("bark"), k=1)
    assert list(bark["score"]) == pytest.approx([idf / 2.04], rel=1e-6)


def test_the_run_is_a_run_with_text_and_tag():
    run = BM25(CORPUS).search(topics("birds or dogs"), k=3)
    assert tables.check(run, "run") is run
    assert list(run.columns) == ["query_id", "doc_id", "score", "rank", "text", "tag"]
    assert list(run["rank"]) == [0, 1]
    assert list(run["doc_id"]) == ["d2", "d3"]  # the shorter of the two
    assert list(run["text"]) == ["dogs bark", "green birds sing loudly"]
    assert set(run["tag"]) == {"bm25"}


def test_as_a_retriever_it_knows_what_was_asked_and_gives_all_where_there_are_no_more():
    asked, titled = topics("birds or dogs", "cat"), CORPUS.assign(title=["Mammals", None, "Feathers"])
    run = BM25(titled)(asked, 100)
    assert list(run.columns) == ["query_id", "doc_id", "score", "rank", "text", "tag", "title", "query"]
    assert list(zip(run["query"], run["doc_id"])) == [("birds or dogs", "d2"), ("birds or dogs", "d3"), ("cat", "d1")]
    pd.testing.assert_frame_equal(run.drop(columns=["title", "query"]), BM25(titled).search(asked, k=3))
    with pytest.raises(UserError, match="BM25: n must be at least 1, got 0"):
        BM25(CORPUS)(asked, 0)


def test_the_title_counts_and_may_be_missing():
    titled = CORPUS.assign(title=["Mammals", None, "Feathers"])
    run = BM25(titled).search(topics("mammal", "feather"), k=3)
    assert list(run["doc_id"]) == ["d1", "d3"]
    assert list(run["text"]) == ["cats cats sleep", "green birds sing loudly"]
    assert BM25(titled).search(topics("none dogs"), k=3)["doc_id"].tolist() == ["d2"]


def test_words_are_stemmed_or_not():
    assert list(BM25(CORPUS).search(topics("dog"), k=1)["doc_id"]) == ["d2"]
    with pytest.warns(UserWarning, match="share no word"):
        assert len(BM25(CORPUS, stemmer=None).search(topics("dog"), k=1)) == 0


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_ties_are_cut_by_doc_id_whatever_the_order_of_the_corpus(k):
    for order in (("d3", "d1", "d4", "d2"), ("d1", "d2", "d3", "d4"), ("d4", "d3", "d2", "d1")):
        run = BM25(same_text(*order)).search(topics("fox"), k=k)
        assert list(run["doc_id"]) == ["d4", "d3", "d2", "d1"][:k]
        assert (np.diff(run["score"]) < 0).all()


def test_a_better_document_comes_before_a_tie_at_the_cut():
    corpus = pd.concat([same_text("d1", "d2", "d3"), pd.DataFrame({"doc_id": ["d9"], "text": ["fox fox fox"]})])
    run = BM25(corpus).search(topics("fox"), k=2)
    assert list(run["doc_id"]) == ["d9", "d3"]


def test_a_query_has_only_documents_that_share_a_word_with_it():
    run = BM25(CORPUS).search(topics("dogs", "green dogs"), k=3)
    assert run.groupby("query_id").size().to_dict() == {"q0": 1, "q1": 2}


def test_one_warning_counts_the_queries_without_a_document():
    with pytest.warns(UserWarning) as caught:
        run = BM25(CORPUS).search(topics("zebra", "dogs", "the", ""), k=3)
    assert [str(w.message) for w in caught] == ["BM25: queries that share no word with any document: 3 (q0, q2, q3)"]
    assert set(run["query_id"]) == {"q1"}


def test_no_topics_give_an_empty_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = BM25(CORPUS).search(topics(), k=3)
    assert len(tables.check(run, "run")) == 0


def test_the_inputs_are_left_alone():
    corpus, queries = same_text("d2", "d1"), topics("fox")
    before = corpus.copy(), queries.copy()
    BM25(corpus).search(queries, k=1)
    pd.testing.assert_frame_equal(corpus, before[0])
    pd.testing.assert_frame_equal(queries, before[1])


@pytest.mark.parametrize(
    ("corpus", "options", "message"),
    [
        (CORPUS.iloc[:0], {}, "the corpus is empty"),
        (CORPUS.assign(text=["the", "", "a"]), {}, "no document has a word to index"),
        (CORPUS.assign(text=["x y", None, "z"]), {}, "corpus: row 1: text must be a string"),
        (CORPUS.drop(columns="text"), {}, "missing: text"),
        (pd.concat([CORPUS, CORPUS]), {}, "doc_id=d1 occurs more than once"),
        (CORPUS, {"k1": -1}, "k1 must be at least 0"),
        (CORPUS, {"k1": float("nan")}, "k1 must be at least 0"),
        (CORPUS, {"b": 1.5}, "b between 0 and 1"),
        (CORPUS, {"stemmer": "englisch"}, "unknown stemmer 'englisch': did you mean 'english'"),
    ],
)
def test_a_bad_corpus_or_option_is_refused(corpus, options, message):
    with pytest.raises(UserError) as error:
        BM25(corpus, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("k", [0, -1, 4])
def test_a_k_outside_the_corpus_is_refused_with_the_right_range(k):
    with pytest.raises(UserError, match=f"k={k} of a corpus of 3 documents; k must be between 1 and 3"):
        BM25(CORPUS).search(topics("dogs"), k=k)


def test_bad_topics_are_refused():
    with pytest.raises(UserError, match="topics: row 0: query must be a string, got 3"):
        BM25(CORPUS).search(pd.DataFrame({"query_id": ["q"], "query": [3]}), k=1)
    with pytest.raises(UserError, match="missing: query_id"):
        BM25(CORPUS).search(pd.DataFrame({"query": ["dogs"]}), k=1)


def scores_of_forty_words() -> str:
    words = [f"w{i}" for i in range(40)]
    texts = [" ".join(word for j, word in enumerate(words) if (i * j) % 7 < 3) + f" w{i}" for i in range(40)]
    corpus = pd.DataFrame({"doc_id": [f"d{i}" for i in range(40)], "text": texts})
    return BM25(corpus).search(topics(" ".join(words)), k=40)[["doc_id", "score"]].to_csv()


def test_the_scores_do_not_depend_on_the_hash_seed():
    here = Path(__file__).resolve()
    code = f"import runpy; print(runpy.run_path({str(here)!r})['scores_of_forty_words'](), end='')"
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(here.parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == scores_of_forty_words()
    assert len(done.stdout.splitlines()) == 41


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no folder {DATA}")
def test_recall_on_natural_questions():
    corpus = pd.DataFrame([row for _, row in files.read_jsonl(DATA / "corpus.jsonl")]).rename(columns={"_id": "doc_id"})
    queries = pd.DataFrame([row for _, row in files.read_jsonl(DATA / "queries.jsonl")])
    queries = queries.rename(columns={"_id": "query_id", "text": "query"})
    qrels = tables.read_qrels(DATA / "qrels" / "test.tsv")
    run = BM25(corpus).search(queries, k=100)
    floors = {"Success@1": 0.77, "Success@20": 0.965, "Success@100": 0.98}
    measures = [ir_measures.parse_measure(name) for name in floors]
    found = ir_measures.calc_aggregate(measures, qrels, run[["query_id", "doc_id", "score"]])
    for measure in measures:
        assert floors[str(measure)] <= found[measure] < floors[str(measure)] + 0.01
    assert set(run.groupby("query_id").size()) <= set(range(1, 101))
