"""Verifiers by name: what each takes for right, what it reads as the answer, and what is refused."""

import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.rerank import verifiers
from irlens.rerank.verify import verify
from irlens.tasks import math


@pytest.mark.parametrize("name, text, gold, right", [
    ("gsm8k", "so #### 1,234", "1234", True), ("gsm8k", "#### 15", "5", False),
    ("nq-exact", "The Eiffel Tower!", "eiffel tower", True), ("nq-exact", "It is the Eiffel Tower", "Eiffel Tower", False),
    ("nq-exact", "", "the", False),
    ("nq-has-answer", "It is the Eiffel Tower.", "Eiffel Tower", True), ("nq-has-answer", "Eiffels Tower", "Eiffel", False),
    ("choice", "The answer is (B).", "B", True), ("choice", "A. London", "(A)", True), ("choice", "A dog", "A", False),
    ("regex:(?i)yes", "Yes, sir", None, True), ("regex:yes", "no", None, False),
    (r"regex:Answer: (\w+)", "Answer: a\nAnswer: b", "b", True), (r"regex:Answer: (\w+)", "Answer: a\nAnswer: b", "a", False),
])  # fmt: skip
def test_verdicts(name, text, gold, right):
    assert verifiers.get(name).judge(text, gold) is right


@pytest.mark.parametrize("text, letter", [
    ("Answer: C", "C"), ("**Answer:** D", "D"), ("The answer is B because A is wrong", "B"), ("(C) Paris", "C"), ("B", "B"),
    ("Option A is wrong, so the correct choice is C.", "C"), ("B is right.\nOption A is wrong.", None), ("I think so", None),
    (r"\boxed{\text{D}}", "D"), ("#### B", "B"), ("Answer:\nC", "C"), ("The answer is a dog", None), ("first\n\nE)", "E"),
    ("The answer is A. No: the answer is B.", "B"), ("As for answers, Apples", None), ("", None),
])  # fmt: skip
def test_the_letter_that_is_chosen(text, letter):
    assert verifiers.choice(text) == letter


@pytest.mark.parametrize("text, gold, right", [
    (r"so \boxed{\frac{1}{2}}", "0.5", True), (r"the roots are $2\sqrt{2}$", r"\sqrt{8}", True), (r"\boxed{(1,2)}", "(1, 2)", True),
    (r"\boxed{x^2+1}", "1+x^2", True), (r"\boxed{11}", "10", False), ("no answer at all", "5", False),
    (r"\boxed{12}", r"thus $4\cdot 3$ is \boxed{12}", True), (r"\boxed{\text{east}}", r"\text{east}", True),
])  # fmt: skip
def test_formulas(text, gold, right):
    pytest.importorskip("math_verify")
    assert verifiers.get("math").judge(text, gold) is right


def test_formulas_are_judged_off_the_main_thread_too():
    pytest.importorskip("math_verify")
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(verifiers.get("math").judge, r"\boxed{7}", "7.0").result() is True


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(UserError, match=r"pip install 'irlens\[math\]'"):
        verifiers.get("math")


def test_what_is_voted_on():
    assert math.boxed(r"\boxed{1} or \boxed{\dfrac{1}{2} }") == r"\frac{1}{2}"
    assert math.boxed("none") is None and math.boxed(r"\boxed{1") is None
    assert verifiers.get(r"regex:= (\d+)").extract("1 = 1, 2 = 2") == "2"
    assert verifiers.get("nq-exact").extract("The End.") == "end" and verifiers.get("nq-exact").extract("the") is None


def test_ones_own_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_verdicts.py").write_text(
        "def short(text, gold): return len(text) <= 3\n"
        "def half(text, gold): return 0.5\n"
        "def broken(text, gold): return 1 / 0\n"
        "def words(text, gold): return 'yes'\n"
        "number = 3\n"
    )
    run = pd.DataFrame({"query_id": ["a", "a"], "doc_id": ["1", "2"], "text": ["abc", "abcd"]})
    topics = pd.DataFrame({"query_id": ["a"], "query": ["?"]})

    def relevance(name):
        own = verifiers.get(f"my_verdicts:{name}")
        return verify(run, topics, own.judge, needs_answers=own.needs_answers)["relevance"].tolist()

    assert relevance("short") == [1, 0] and relevance("half") == [0.5, 0.5]
    with pytest.raises(UserError, match="it failed: ZeroDivisionError"):
        relevance("broken")
    with pytest.raises(UserError, match="a: the verifier gave 'yes'; it must give True, False or a finite number"):
        relevance("words")
    with pytest.raises(UserError, match="number is no function"):
        verifiers.get("my_verdicts:number")
    with pytest.raises(UserError, match="has no attribute 'nothing'"):
        verifiers.get("my_verdicts:nothing")
    with pytest.raises(UserError, match="No module named"):
        verifiers.get("no_such_module_here:f")


@pytest.mark.parametrize("name, message", [
    ("gsm9k", "did you mean 'gsm8k'"), ("regex:(", "not a regular expression"), ("regex:", "give a pattern"),
])  # fmt: skip
def test_what_is_no_verifier(name, message):
    with pytest.raises(UserError, match=message):
        verifiers.get(name)


def test_a_gold_answer_without_a_letter_is_named():
    with pytest.raises(UserError, match="no letter from A to J"):
        verifiers.get("choice").judge("B", "2")
