"""Collections of ir_datasets: read through its own interface, with passages left on disk."""

from collections import namedtuple

import pytest

from irlens import tasks
from irlens.base.errors import UserError
from irlens.tasks import irds

ir_datasets = pytest.importorskip("ir_datasets", reason="needs the extra irlens[ir-datasets]")

Doc = namedtuple("Doc", "doc_id text title")
Query = namedtuple("Query", "query_id text answers")
Qrel = namedtuple("Qrel", "query_id doc_id relevance iteration")


class Collection:
    """A data set with the methods that ir_datasets gives every data set."""

    def __init__(self, docs, queries, qrels):
        self.docs, self.queries, self.qrels = docs, queries, qrels

    def has_docs(self):
        return bool(self.docs)

    def has_queries(self):
        return bool(self.queries)

    def has_qrels(self):
        return bool(self.qrels)

    def docs_count(self):
        return len(self.docs)

    def docs_iter(self):
        return iter(self.docs)

    def queries_iter(self):
        return iter(self.queries)

    def qrels_iter(self):
        return iter(self.qrels)


DOCS = [Doc(f"d{i}", f"text {i}", f"title {i}") for i in range(7)]
QUERIES = [
    Query("q0", "first?", ["one"]),
    Query("q1", "second?", ["two", "zwei"]),
    Query("q2", "not judged?", ["three"]),
]
QRELS = [Qrel("q0", "d1", 2, "0"), Qrel("q1", "d2", 0, "0"), Qrel("q1", "d2", 1, "0")]


@pytest.fixture
def registered(monkeypatch):
    def load(name):
        known = {"small": Collection(DOCS, [], []), "small/dev": Collection(DOCS, QUERIES, QRELS)}
        return known[name]

    monkeypatch.setattr(ir_datasets, "load", load)


def test_judged_queries_with_answers_and_passages_in_chunks(registered):
    task = tasks.load("irds:small/dev")
    assert task.topics["query_id"].tolist() == ["q0", "q1"] and task.topics["answers"].tolist() == [
        ["one"],
        ["two", "zwei"],
    ]
    assert task.qrels.values.tolist() == [["q0", "d1", 2], ["q1", "d2", 1]]
    assert len(task.corpus) == 7 and task.name == "small-dev" and task.split == "dev"
    chunks = list(task.corpus.chunks(2, 3))
    assert [chunk["doc_id"].tolist() for chunk in chunks] == [["d2", "d3", "d4"], ["d5", "d6"]]
    assert task.corpus.frame()["title"].iloc[-1] == "title 6"
    assert len(tasks.load("irds:small/dev", limit=1).topics) == 1


def test_what_is_not_there_is_named(registered):
    with pytest.raises(UserError, match="small: the ir_datasets collection has no queries"):
        tasks.load("irds:small")
    with pytest.raises(UserError, match="no such file or folder, and no data set of ir_datasets"):
        tasks.load("beir/nqq")


def test_nq_is_dprs_collection_and_names_go_to_the_right_place(monkeypatch):
    asked = []
    monkeypatch.setattr(irds, "load_id", lambda *args: asked.append(args))
    tasks.load("nq"), tasks.load("nq", "train", 5), tasks.load("beir/nq")
    assert asked == [
        ("dpr-w100/natural-questions/dev", None, None),
        ("dpr-w100/natural-questions/train", None, 5),
        ("beir/nq", None, None),
    ]
    with pytest.raises(UserError, match="nq: no split 'test'"):
        tasks.load("nq", "test")
    assert irds.identifier("./a/b") is None and irds.identifier("/a/b") is None and irds.identifier("sums") is None
    assert "dev" in tasks.splits("dpr-w100/natural-questions") and tasks.splits("nq") == ["dev", "train"]


def test_a_collection_that_cannot_be_downloaded_is_one_line(monkeypatch):
    class Offline(Collection):
        def qrels_iter(self):
            raise ConnectionError("no route")

    monkeypatch.setattr(ir_datasets, "load", lambda name: Offline(DOCS, QUERIES, QRELS))
    with pytest.raises(UserError, match="cannot read or download it .ConnectionError: no route.; --dataset facts"):
        tasks.load("beir/nq")
