"""The judge's server gone wrong in every way that a client may meet: its answers whole, or one line."""

import pytest
from bad_server import BROKEN, KINDS, ODD, OTHER, REFUSED

from irlens.base.errors import UserError
from irlens.rerank.judge_server import JudgeServer

ALONE = ("400",)  # what a server refuses of one question


@pytest.fixture(scope="module")
def url(serve_all):
    return serve_all("retrieve/bad_server.py")


def asked(url, kinds, faults, tries=60, questions=4, key=None):
    """Key → answer of a few questions."""
    found = {}
    body = {"temperature": 0.0, "max_tokens": 4, "seed": 3, "stub": {"faults": faults, "kinds": list(kinds)}}
    told = [(f"k{i}", body | {"messages": [{"role": "user", "content": "y" * (i + 1)}]}) for i in range(questions)]
    with JudgeServer([url], "stub", concurrency=4, timeout=0.4, key=key, tries=tries, pause=0.005) as server:
        server.ask(told, found.__setitem__)
    return found


def texts(found):
    return {key: (answer.choice["message"]["content"], answer.refused) for key, answer in found.items()}


def expected(questions=4):
    return {f"k{i}": (f"{i + 1} 3 0.0\n#### 5", "") for i in range(questions)}


@pytest.mark.parametrize("kind", [*BROKEN, *ODD])
def test_each_fault_now_and_then(url, kind):
    """What breaks the protocol is asked for again; no answer is lost, or another question's."""
    assert texts(asked(url, [kind], 0.5)) == expected()


@pytest.mark.parametrize("kind", BROKEN)
def test_each_fault_for_ever_is_one_line(url, kind):
    with pytest.raises(UserError) as told:
        asked(url, [kind], 1.0, tries=2, questions=1)
    line = str(told.value)
    assert "gave up after 2 tries for question k0" in line and line.endswith("and the same command continues them")
    assert len(line) <= 291 and line.isprintable()


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_is_one_questions_affair_or_ends_all(url, kind):
    if kind in ALONE:
        found = asked(url, [kind], 1.0)
        assert {answer.refused for answer in found.values()} == {"400 as the test wants it [31m again"}
        return
    with pytest.raises(UserError, match="refused the key" if kind == "401" else "it points to /v1/completions") as told:
        asked(url, [kind], 1.0)
    assert len(str(told.value)) <= 291


def test_other_answers_are_taken_as_they_are(url):
    assert {one.choice["message"]["content"] for one in asked(url, ["empty"], 1.0).values()} == {None}
    assert {one.choice["finish_reason"] for one in asked(url, ["unknown end"], 1.0).values()} == {"abort"}


def test_all_kinds_are_met():
    assert set(KINDS) == {*BROKEN, *ODD, *REFUSED, *OTHER} and set(ALONE) < set(REFUSED)


def test_a_key_that_the_server_repeats_is_in_no_line(serve):
    from irlens.base import secrets

    secrets.learn("sk-very-secret-4711")
    with pytest.raises(UserError) as told:
        asked(serve(key="sk-another-one", echo=True), [], 0.0, key="sk-very-secret-4711")
    assert "refused the key" in str(told.value) and "4711" not in str(told.value)
