"""Calls within limits: what hangs, dies or eats memory costs its own verdict and no other, on any thread."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from irlens.base import limits
from irlens.base.errors import UserError
from irlens.base.limits import NOT_JUDGED
from irlens.models import thoughts
from irlens.rerank import llm_judge, verifiers
from irlens.rerank.verify import not_judged, not_judged_in_words, unreadable, verify
from irlens.tasks import gsm8k, math

PATTERNS = (r"(a+)+$", r"(a|a)+$", r"(a|aa)+$", r"(a*)*b$", r"(.*a){25}$", r"([a-z]+)*\d$", r"(\w+\s?)*\.$", r"(a+)+\1$",
            r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(x+x+)+y", r"(?:a?){40}a{40}$", r"((a+)+)+$")  # fmt: skip
TEXTS = ("a" * 60 + "!", "x" * 60, "ab" * 40 + "!", "a b " * 40 + "?", "aA" * 30 + "9!", "a" * 5000)
FORMULAS = (
    *(f"{base}^{{{base}^{{{base}^{{{base}}}}}}}" for base in (7, 9, 99, 12345)),
    *("9**9**9**9", "10000000!", "9" * 10**6, "1" * 10**6 + "/3", "0." + "3" * 10**6, "2^{10^{12}}", "2^{-10^{15}}"),
    *(left * 20_000 + "1" + right * 20_000 for left, right in (("(", ")"), ("{", "}"), ("[", "]"), (r"\sqrt{", "}"))),
    *(r"\frac{1}{" * depth + "2" + "}" * depth for depth in (50, 500, 5000)),
    *(
        "x" + "+x^2" * 20_000,
        r"\int" * 5000,
        "1," * 100_000,
        "-" * 100_000 + "1",
        r"\binom{10^{9}}{10^{8}}",
        "e^" * 3000,
    ),
    *(r"\sum_{n=1}^{10^{12}} n^{" + n + "}" for n in ("n", "99")),
    *("(x+1)^{100000}", "(x+y+z)^{3000}", r"\sin(" * 900 + "1" + ")" * 900, r"\prod_{k=1}^{10^9} k", "|" * 50_000),
)
ENDLESS = ("forever", "asleep", "caught", "exits", "dies", "stops", "deep", "wide")
OWN = """
import os, signal, sys, time
def forever(text, gold):
    while True: pass
def asleep(text, gold): time.sleep(1000)
def caught(text, gold):
    while True:
        try:
            while True: time.sleep(1000)
        except BaseException: pass
def exits(text, gold): os._exit(0)
def dies(text, gold): os.kill(os.getpid(), signal.SIGSEGV)
def stops(text, gold): os.kill(os.getpid(), signal.SIGSTOP)
def deep(text, gold): sys.exit("deep")
def wide(text, gold):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return 9 ** 9 ** 9 > 0
def good(text, gold): return text == gold
def sometimes(text, gold): return forever(text, gold) if "hang" in text else text == gold
def broken(text, gold): raise KeyError(text)
"""


def attacks():
    """(verifier, text): 200 and more."""
    own = [(f"own_verdicts:{name}", f"text {i}") for name, i in product(ENDLESS, range(10))]
    found = [(f"regex:{pattern}", text) for pattern, text in product(PATTERNS, TEXTS)]
    return own + found + [("math", f"so it is \\boxed{{{formula}}}") for formula in FORMULAS] + [
        ("math", f"so it is ${formula}$") for formula in FORMULAS
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "own_verdicts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(limits.VARIABLE, "0.4")
    yield
    sys.modules.pop("own_verdicts", None)
    limits.close()


def judged(name, text, gold="5"):
    """What an attack gives, and the seconds that it takes once its worker is there."""
    judge = verifiers.get(name).judge
    started = time.monotonic()
    (found,) = limits.calls(judge, [(text, gold)])
    return found, time.monotonic() - started


def attacked(some):
    late = 0
    for name, text in some:
        if name == "math":
            pytest.importorskip("math_verify")
            limits.calls(verifiers.get(name).judge, [(r"\boxed{5}", "5")])  # imported: that is no part of a verdict
        found, seconds = judged(name, text)
        assert found is NOT_JUDGED or found in (True, False), (name, text[:40])
        assert seconds < 5, (name, text[:40])
        late += found is NOT_JUDGED
    return late


def test_some_of_the_attacks():
    assert attacked(attacks()[::13]) > 5


@pytest.mark.slow
def test_200_attacks_are_each_judged_in_time():
    assert len(attacks()) >= 200
    assert attacked(attacks()) > 80


def test_a_verdict_that_hangs_costs_no_other_and_is_not_tried_again():
    judge = verifiers.get("own_verdicts:sometimes").judge
    asked = [("5" if i % 7 else f"hang {i}", "5") for i in range(30)]
    wanted = [True if i % 7 else NOT_JUDGED for i in range(30)]
    with ThreadPoolExecutor(1) as pool:  # off the main thread
        assert pool.submit(limits.calls, judge, asked).result() == wanted
    started = time.monotonic()
    assert limits.calls(judge, asked) == wanted and time.monotonic() - started < 2


def test_verdicts_come_in_order_and_as_they_are_here():
    judge = verifiers.get(r"regex:= (\d+)").judge
    asked = [(f"{i} = {i % 10}", "7") for i in range(5000)]
    assert limits.calls(judge, asked) == [judge(*some) for some in asked]
    judge = verifiers.get("own_verdicts:good").judge
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda i: limits.calls(judge, [(str(i), "3")])[0], range(12)))
    assert found == [i == 3 for i in range(12)]


def test_what_a_function_raises_is_one_line():
    with pytest.raises(UserError, match="own_verdicts:broken: it failed: KeyError: 'a'"):
        limits.calls(verifiers.get("own_verdicts:broken").judge, [("a", "b")])


def test_a_function_that_no_worker_can_import_is_called_here():
    assert limits.calls(lambda text: os.getpid(), [("a",)]) == [os.getpid()]
    assert limits.calls(os.getpid, [()]) != [os.getpid()]


@pytest.mark.parametrize("told", ["0", "-1", "nan", "inf", "soon"])
def test_a_limit_that_is_none_is_refused(monkeypatch, told):
    monkeypatch.setenv(limits.VARIABLE, told)
    with pytest.raises(UserError, match=f"{limits.VARIABLE}={told}: give the seconds"):
        limits.seconds()


def test_calls_on_all_cores_are_the_same(monkeypatch):
    monkeypatch.setattr(limits, "MANY", 100)
    monkeypatch.setattr(limits, "BATCH", 30)
    texts = [f"so {i} and {i} are\n#### {2 * i}" for i in range(500)]
    assert limits.each(gsm8k.extract, texts) == {text: gsm8k.extract(text) for text in texts}
    with pytest.raises(UserError, match="has no number"):
        limits.calls(gsm8k.is_correct, [(text, "none") for text in texts])


def test_a_worker_whose_parent_is_killed_ends_by_itself():
    code = (
        "import os, sys; from irlens.base import limits; from irlens.rerank import verifiers\n"
        "judge = verifiers.get('regex:(a+)+$').judge; limits.calls(judge, [('a', 'a')])\n"
        "print(limits._here.workers[False, 0].worker.process.pid, flush=True); limits.calls(judge, [('a' * 90 + '!', 'a')])"
    )
    environment = os.environ | {limits.VARIABLE: "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    worker = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(200):
        state = Path(f"/proc/{worker}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")


# -- what a run makes of it ----------------------------------------------------------------------------------------


def run_of(texts):
    return pd.DataFrame({"query_id": "a", "doc_id": [f"d{i}" for i in range(len(texts))], "text": texts, "query": "?"})


def test_a_response_that_is_not_judged_is_wrong_and_told():
    topics = pd.DataFrame({"query_id": ["a"], "query": ["?"], "answers": [["5", "6"]]})
    rule = verifiers.get("own_verdicts:sometimes")
    run = run_of(["5", "hang", "6", "hang", "7"])
    qrels = verify(run, topics, rule.judge)
    assert qrels["relevance"].tolist() == [1, 0, 1, 0, 0]
    assert not_judged(qrels).tolist() == [False, True, False, True, False]
    assert "2 of 5 responses were not judged" in not_judged_in_words(qrels)
    assert "not_judged" not in verify(run.iloc[[0, 2]], topics, rule.judge).columns
    assert not_judged_in_words(verify(run.iloc[[0, 2]], topics, rule.judge)) is None


def test_an_answer_that_cannot_be_read_in_time_is_none():
    rule = verifiers.get(r"regex:^(a+)+$")
    run = run_of(["a" * 90 + "!", "aaa"])
    wrong = pd.DataFrame({"relevance": [0, 0]})
    assert unreadable(run, wrong, rule.extract).tolist() == [True, False]
    assert unreadable(run, wrong.assign(not_judged=[True, False]), rule.extract).tolist() == [False, False]


def test_the_command_counts_and_says_it(irlens, tmp_path):
    texts = ["5", "hang", "hang", "6"]
    run = run_of(texts).assign(score=[4.0, 3.0, 2.0, 1.0], rank=range(4), answers=[["5"]] * 4)
    run.to_parquet(tmp_path / "run.parquet")
    out = tmp_path / "out"
    said = irlens(
        "verify", tmp_path / "run.parquet", "--verifier", "own_verdicts:sometimes", "--out", out, cwd=tmp_path
    )
    assert "2 of 4 responses were not judged, as the verifier did not come to an end within 0.4 s" in said.stdout
    assert pd.read_parquet(out / "qrels.parquet")["not_judged"].tolist() == [False, True, True, False]
    assert '"not_judged": 2' in (out / "manifest.json").read_text()


# -- what needs no limit -------------------------------------------------------------------------------------------

PIECES = ("9", "9,", "9 ", "999 ", "1.234", "####", "#### 5\n", "\\boxed{", "{", "}", "answer: ", "the answer is ", "= ",
          " ", "\n", "-", "(", "*", "A", "Answer A ", "1/", "1 1/", "9e9", "½", "٣", "3 million ", "x = ", "$", ".", ",",
          "answer\t", "The ", "</think>", "\\frac{1}{", "\\text", "5 or 6 ", "2 hours ", "é")  # fmt: skip
LINEAR = {
    "gsm8k": partial(gsm8k.is_correct, gold="5"),
    "choice": partial(verifiers.chooses, gold="A"),
    "nq-exact": partial(verifiers.nq_exact, gold="end"),
    "nq-has-answer": partial(verifiers.nq_has_answer, gold="the end"),
    "boxed": math.boxed,
    "thought": lambda text: thoughts.answer_part(text, thoughts.Thought("<think>", "</think>")),
    "pair": llm_judge.read_pair,
    "point": llm_judge.read_point,
}


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_called_without_a_limit_is_linear(name):
    def seconds(piece, size, ends):
        text = (piece * (size // len(piece) + 1))[:size] + ends
        started = time.process_time()
        LINEAR[name](text)
        return time.process_time() - started

    for piece, ends in product(PIECES, ("", "!", "\n\nx")):
        short = seconds(piece, 25_000, ends)
        most = min(0.3 + 20 * short, 3)
        whole = seconds(piece, 250_000, ends)
        whole = whole if whole < most else seconds(piece, 250_000, ends)  # other threads of this process count, too
        assert whole < most, (piece, ends, short, whole)


def test_marks_are_seen_through_what_wraps_them():
    thought = thoughts.Thought("<think>", "</think>")
    plain = thoughts.of_verifier(verifiers.get("gsm8k"), thought)
    assert limits.is_linear(plain.judge) and limits.is_linear(plain.extract) and not limits.is_foreign(plain.judge)
    wild = thoughts.of_verifier(verifiers.get("regex:(a+)+$"), thought)
    assert not limits.is_linear(wild.judge) and not limits.is_linear(wild.extract)
    mine = thoughts.of_verifier(verifiers.get("own_verdicts:good"), thought)
    assert not limits.is_linear(mine.judge) and limits.is_foreign(mine.judge)
