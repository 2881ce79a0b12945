"""MixEval's parsers: each form of a letter by hand, telling parts and numbers, any text in bounded time; judges' verdicts."""

import time

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irlens.base.errors import UserError
from irlens.rerank import mixeval_judge, questions
from irlens.rerank.judge_server import Answer
from irlens.rerank.mixeval import by_rule
from irlens.rerank.mixeval_rules import chosen, numbers_in, parts, says
from irlens.tasks import mixeval

OPTIONS = ["red apple", "green pear", "blue plum", "old lemon"]


@pytest.mark.parametrize("response, letter", [
    ("B", "B"), ("B.", "B"), ("'B'", "B"), ("B,", "B"), ("So B it is", "B"), ("I say\nB", "B"), ("B\nbecause", "B"),
    ("x\nB\ny", "B"), ("so B. it is", "B"), ("so B.\nyes", "B"), ("x\nB. y", "B"), ("x\nB.\ny", "B"), ("x(B)y", "B"),
    ("**B is right", "B"), ("right: B**", "B"), ("**B. pear**", "B"), ("so B.**", "B"), ("not A but B", "A"),
    ("(C) rather than (B)", "C"), ("**B**", None), ("b", None), ("AB", None), ("B)", None), ("E", None), ("", None),
    ("B;.", "B"), ("B.;", "B"), ("\tB", None), ("a green pear", None), ("it must be a Green PEAR I think", "B"),
    ("not an old lemon but the blue plum", "D"), ("I am not at all sure about that", None),
])  # fmt: skip
def test_the_letter_that_a_response_chooses(response, letter):
    assert chosen(response, OPTIONS) == letter


def test_a_mark_that_a_later_one_uncovers_is_not_stripped_again():
    assert chosen(".;B", OPTIONS) == "B" and chosen(";.B", OPTIONS) is None  # full stops go before semicolons
    assert chosen("?!B", OPTIONS) is None and chosen("!?B", OPTIONS) == "B"


@pytest.mark.parametrize("response, golds, right", [
    ("It was Paris.", ["paris"], True), ("Paris", ["London", "PARIS"], True), ("London", ["Paris"], False),
    ("The answer is 42.", ["42"], True), ("x = 3", ["3"], True), ("x = 3\nso it is four", ["3"], False),
    ("it costs 1,234 dollars", ["1234"], True), ("about 1.5e3", ["1500"], True), ("3.14159", ["3.14"], True),
    ("-7", ["7"], False), ("it is seven", ["7"], False), ("The result 12\nfinal remark", ["12"], True),
    ("Paris is the wrong guess, London is right", ["Paris"], False),  # only the tail after the last telling word
    ("x", ["x"], True), ("xy", ["x"], False), ("the x ray", ["x"], True), ("", ["a"], False), ("is ", ["is"], True),
])  # fmt: skip
def test_whether_a_free_form_response_is_right(response, golds, right):
    assert says(response, golds) is right


def test_parts_and_numbers():
    assert parts("So it is the answer 5.\nTherefore x = 6") == ["5.", "6"]
    assert parts("no such word") == ["no such word"] and parts("It is :") == ["it is :"]
    found = numbers_in("1,234 and 2.5 and -3e2 and 12abc")
    assert found == ["1,234", "-3e2", "234", "2.5", "2"]  # grouped, scientific, and what looks plain in any of them
    assert numbers_in("1.25, that is") == ["1"]  # as the authors' pattern has it: no number stands before a comma


@pytest.mark.parametrize("gold", ["U.S.", "It is the mark of", "Bush Jr.", ".6"])
def test_a_response_that_is_a_gold_text_is_right_but_for_parity(gold):
    assert says(gold, [gold]) and says(f" {gold.upper()}.", [gold])
    assert not says(gold, [gold], parity=True)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300), st.lists(st.text(min_size=1), min_size=2, max_size=10))
def test_any_text_is_read_and_decided_the_same_again(response, options):
    letter = chosen(response, options)
    assert letter is None or letter in mixeval.LETTERS[: len(options)]
    assert says(response, options) >= says(response, options, parity=True)
    assert letter == chosen(response, options)


@pytest.mark.parametrize(
    "piece", ["1", "1,", "1,234", "1.", "1e", "A ", "**", "is ", "\n", "=1\n", " B", "(A", "-", "9.9"]
)
def test_long_responses_take_seconds_at_most(piece):
    response, started = piece * (60_000 // len(piece)) + "e", time.process_time()
    assert chosen(response, OPTIONS) in (*"AB", None) and says(response, ["nothing"]) is False
    assert time.process_time() - started < 5


def items(**records):
    return {key: mixeval.Item(key, "mixeval", "multiple-choice" if "options" in r else "free-form", key, r) for key, r in records.items()}  # fmt: skip


ITEMS = items(
    free={"context": "hidden", "prompt": "Who {response}?", "target": ["Ann", "Bo"], "benchmark_name": "DROP"},
    choice={"context": None, "prompt": "Which?", "options": ["x", "y"], "target": [1], "benchmark_name": "ARC"},
)
ROWS = pd.DataFrame({"query_id": ["free", "choice"], "doc_id": ["a", "b"], "text": ["{options} Ann", "B {prompt}"]})


def test_gold_answers_of_the_published_versions_score_one(real_data):
    for version in ("2024-06-01", "2024-08-11"):
        for split in mixeval.SPLITS:
            found = {item.query_id: item for item in mixeval.read(real_data(f"mixeval/mixeval-{version}"), split)}
            rows = [(key, gold) for key, item in found.items() for gold in item.answers]
            verdicts = by_rule(pd.DataFrame(rows, columns=["query_id", "text"]), found)
            assert len(rows) > 1000 and verdicts["read"].all() and (verdicts["score"] == 1).all()


# -- judges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer, score", [
    ("good [[0.7]]", 0.7), ("[[1]]", 1.0), ("[[1.]]", 1.0), ("[0.5]", 0.5), ("[0.5] but [[0.2]]", 0.2), ("[[0.3]] [[0.9]]", 0.3),
    ("[[1.1]]", None), ("[[-1]]", None), ("0.5", None), ("[[A]]", None), ("", None), ("<think>[[0.1]]</think>[[0.9]]", 0.9),
])  # fmt: skip
def test_what_a_grade_says(answer, score):
    assert mixeval_judge.read_score(answer) == score


@pytest.mark.parametrize("answer, letter", [
    ("[[B]]", "B"), ("[C]", "C"), ("[A] or [[D]]", "D"), ("[[a]]", None), ("B", None), ("[[AB]]", None), ("", None),
])  # fmt: skip
def test_which_letter_a_judge_reads_off(answer, letter):
    assert mixeval_judge.read_letter(answer) == letter


def test_a_judge_sees_golds_and_options_but_no_context_and_braces_stay_what_they_are():
    free, choice = (
        mixeval_judge.OWN.asked(ITEMS[q], text)[0]["content"] for q, text in zip(ROWS["query_id"], ROWS["text"])
    )
    assert "Who {response}?" in free and "<answer 1> Ann; <answer 2> Bo" in free and "{options} Ann" in free
    assert "hidden" not in free and "A. x\nB. y" in choice and "B {prompt}" in choice and "<answer" not in choice


def verdicts(tmp_path, says, tries):
    """(verdicts on ROWS, the bodies of every round) of a judge that says `says(number of the round, question)`."""
    plan = mixeval_judge.Verdicts(mixeval_judge.OWN, ITEMS, ROWS, "stub", tries=tries, seed=7)
    journal, asked = questions.Journal(tmp_path / f"{tries}.jsonl"), []

    def ask(bodies, heard):
        asked.append([body for _, body in bodies])
        for i, (key, _) in enumerate(bodies):
            heard(key, Answer({"message": {"content": says(len(asked) - 1, i)}}, prompt_tokens=5))

    plan.ask(plan.todo(()), ask, journal, lambda: None)
    return plan.judged(ROWS, journal.said), asked, list(journal.said.values())


def test_what_stays_unreadable_is_asked_again_then_counted_and_never_drawn(tmp_path):
    """At temperature 0 first, at 1 and with other seeds then; what every try read is counted."""
    found, asked, said = verdicts(tmp_path, lambda n, i: [["hm", "[[B]]"], ["[[7]]"], ["[[0.4]]"]][n][i], tries=3)
    assert found["score"].tolist() == [0.4, 1.0] and found["read"].all()
    assert [[(body["temperature"], body["seed"]) for body in some] for some in asked] == [
        [(0, 7)] * 2,
        [(1, 8)],
        [(1, 9)],
    ]
    assert sorted(one.prompt_tokens for one in said) == [5, 15]
    never, asked, _ = verdicts(tmp_path, lambda n, i: "?", tries=2)
    assert never["read"].tolist() == [False, False] and never["score"].tolist() == [0, 0]
    assert never["reason"].tolist() == ["unreadable"] * 2 and [len(some) for some in asked] == [2, 2]


def test_the_authors_messages_are_read_from_their_file(real_data, tmp_path):
    wording = mixeval_judge.of_file(real_data("mixeval") / "templates.json")
    talk = wording.asked(ITEMS["free"], "It was {prompt}.")
    assert [message["role"] for message in talk] == ["system", "user"]
    assert "Golden Answer(s): <answer 1> Ann; <answer 2> Bo\nModel's Answer: It was {prompt}." in talk[1]["content"]
    assert "Options: \nA. x\nB. y\n" in wording.asked(ITEMS["choice"], "B")[1]["content"]


@pytest.mark.parametrize("content, said", [
    ("{", "not a readable JSON file"), ("[]", "no judge_freeform"), ('{"judge_freeform": []}', "no judge_multichoice"),
    ('{"judge_freeform": [], "judge_multichoice": []}', r"no place \{gold_ans\}"),
    ('{"judge_freeform": "x", "judge_multichoice": []}', "list of objects with role and content"),
])  # fmt: skip
def test_another_file_of_messages_is_refused(tmp_path, content, said):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(UserError, match=said):
        mixeval_judge.of_file(tmp_path / "t.json")
