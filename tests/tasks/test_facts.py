"""facts: one gold passage a question, other words that really are others, and hard enough for BM25."""

import re
import subprocess
import sys

import bm25s
import numpy as np
import pandas as pd
import pytest

from irlens import tasks
from irlens.tasks import facts
from irlens.tasks.beir import has_answer

CORPUS, QUESTIONS = facts.collection()
TEXTS, TITLES = (dict(zip(CORPUS["doc_id"], CORPUS[column])) for column in ("text", "title"))
FUNCTION_WORDS = set(
    re.findall(
        r"\w+",
        """
    a an and as at be by can could did do does for from had has have he her his how in into is it its many of on one out
    over that the their they to up was we were what when where which who whom with
""",
    )
)


def words(text: str, title: str) -> set[str]:
    """The first four letters (`invent` is `invented`) of the words that mean something and are not in the title."""
    tokens, names = (set(re.findall(r"\w+", part.lower())) for part in (text, title))
    return {word[:4] for word in tokens - names - FUNCTION_WORDS}


def shared(row: dict) -> set[str]:
    """The words that a question has from its gold passage, but for the name."""
    title = TITLES[row["doc_id"]]
    return words(row["query"], title) & words(TEXTS[row["doc_id"]], title)


def test_the_collection_has_its_size():
    assert len(CORPUS) == 2000
    assert len(QUESTIONS) == 8000
    assert CORPUS["doc_id"].is_unique
    assert CORPUS["text"].is_unique
    assert CORPUS["title"].nunique() == sum(facts.COUNTS.values())


def test_every_answer_stands_in_its_gold_passage_and_reply():
    for row in QUESTIONS:
        assert row["answer"] in TEXTS[row["doc_id"]]
        assert has_answer([row["answer"]], TEXTS[row["doc_id"]])
        assert has_answer([row["answer"]], row["solution"])


def test_no_question_is_asked_twice():
    assert len({row["query"] for row in QUESTIONS}) == len(QUESTIONS)


def test_no_slot_or_double_space_is_left():
    for text in [*TEXTS.values(), *(row["query"] for row in QUESTIONS), *(row["solution"] for row in QUESTIONS)]:
        assert not re.search(r"[{}]|  |,\?", text), text


def test_other_words_are_not_in_the_passage():
    asked = [row for row in QUESTIONS if row["other_words"]]
    assert len(asked) == len(QUESTIONS) // 2
    assert {row["query"]: shared(row) for row in asked if shared(row)} == {}


def test_plain_questions_share_words_with_the_passage():
    assert [row["query"] for row in QUESTIONS if not row["other_words"] and not shared(row)] == []


def test_a_question_by_surname_and_trade_means_one_person():
    trades = {name: trade for trade, name in facts.TRADES.items()}
    asked = [(row, re.search(r"(\w+), the ([a-z ]+)", row["query"])) for row in QUESTIONS]
    asked = [(row, *match.groups()) for row, match in asked if match]
    assert len(asked) > 500
    said = {match.groups() for text in TEXTS.values() if (match := re.search(r"\b[Tt]he (\w+) (\w+) (\w+) ", text))}
    for row, surname, other in asked:
        people = {f"{first} {last}" for trade, first, last in said if (trade, last) == (trades[other], surname)}
        assert people == {TITLES[row["doc_id"]]}


def test_wrong_passages_share_names():
    surnames = [title.split()[1] for title in CORPUS["title"].unique() if re.fullmatch(r"[A-Z]\w+ [A-Z]\w+", title)]
    assert pd.Series(surnames).value_counts().median() >= 5
    towns = {row["answer"] for row in QUESTIONS if "born" in row["query"]}
    assert len([1 for town in towns if sum(town in text for text in TEXTS.values()) >= 5]) > 50


def success(with_title: bool) -> dict[int, float]:
    """BM25's Success@N on the test split, stop words removed."""
    task = tasks.load("facts")
    texts = task.corpus["title"] + " " + task.corpus["text"] if with_title else task.corpus["text"]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts.tolist(), stopwords="en", show_progress=False), show_progress=False)
    queries = bm25s.tokenize(task.topics["query"].tolist(), stopwords="en", show_progress=False)
    found, _ = index.retrieve(queries, k=20, show_progress=False)
    hits = task.corpus["doc_id"].to_numpy()[found] == task.qrels["doc_id"].to_numpy()[:, None]
    return {n: float(np.mean(hits[:, :n].any(axis=1))) for n in (1, 20)}


@pytest.mark.parametrize("with_title", [True, False])
def test_bm25_finds_most_but_not_all(with_title):
    found = success(with_title)
    assert 0.5 <= found[1] <= 0.75
    assert 0.9 <= found[20] <= 0.97


def test_the_task_has_one_gold_passage_a_question():
    task = tasks.load("facts")
    assert (task.split, len(task.topics)) == ("test", 500)
    assert list(task.topics.columns) == ["query_id", "query", "answers", "solution"]
    assert task.qrels["query_id"].tolist() == task.topics["query_id"].tolist()
    assert task.qrels["relevance"].eq(1).all()
    assert task.qrels["doc_id"].isin(task.corpus["doc_id"]).all()
    assert task.unrelated != "facts"


def test_splits_are_disjoint_and_a_smaller_limit_is_a_prefix():
    test, validation, some = tasks.load("facts"), tasks.load("facts", "validation"), tasks.load("facts", limit=9)
    assert set(test.topics["query"]).isdisjoint(validation.topics["query"])
    assert len(validation.topics) == 250
    assert test.topics.head(9).to_dict("list") == some.topics.to_dict("list")
    assert some.qrels["query_id"].tolist() == some.topics["query_id"].tolist()
    pd.testing.assert_frame_equal(test.corpus, some.corpus)


def test_the_seed_alone_decides_the_collection():
    code = "from irlens.tasks import facts; c, q = facts.collection(); print(c['text'].iloc[7], q[7]['query'])"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert found == f"{CORPUS['text'].iloc[7]} {QUESTIONS[7]['query']}"
    assert facts.collection(1)[1][7] != QUESTIONS[7]
