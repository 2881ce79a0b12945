"""gsm8k: which number of a response is its answer, and that every real gold answer is accepted, its neighbours not."""

import json
import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from irlens import tasks
from irlens.base.errors import UserError
from irlens.tasks.gsm8k import extract, is_correct

STATED = {  # text: the answer it states
    # the markers
    "#### 18": 18,
    "####18": 18,
    "####\n18": 18,
    "##### 18": 18,
    "Final answer: 18": 18,
    "FINAL ANSWER: 18": 18,
    "### Final Answer\n\n**18**": 18,
    "The answer is 18": 18,
    "the answer is: 18": 18,
    "The final answer is therefore 18.": 18,
    "The answer to the problem is 18.": 18,
    "Answer: 18": 18,
    r"\boxed{18}": 18,
    r"The answer is $\boxed{18}$.": 18,
    r"\boxed{18": 18,  # cut off
    # decoration, units, currencies
    "**Final Answer:** 18": 18,
    "**Final Answer**: **$1,234.00**.": 1234,
    "The answer is **18**.": 18,
    "__The answer is__ `18`": 18,
    "#### **18 apples**": 18,
    "#### $18": 18,
    "#### 18$": 18,
    "#### £18": 18,
    "#### €1,234.50": Fraction(2469, 2),
    "#### Rs.18": 18,
    "#### 18 dollars": 18,
    "The answer is ... 18!": 18,
    "The answer is that Mr. Smith pays $18.": 18,
    "#### 18%": 18,
    "#### 18</s>": 18,
    # LaTeX
    r"\boxed{18 \text{ apples}}": 18,
    r"\boxed{\text{18 apples}}": 18,
    r"\boxed{\textbf{18}}": 18,
    r"\boxed{\$18}": 18,
    r"\boxed{18\%}": 18,
    r"\boxed{1{,}234}": 1234,
    r"\boxed{1\,234}": 1234,
    r"\boxed{x = 18}": 18,
    r"\boxed{\frac{1}{2}}": Fraction(1, 2),
    r"\boxed{\dfrac{36}{2}}": 18,
    r"\boxed{-\frac12}": Fraction(-1, 2),
    r"\boxed{2\frac{1}{2}}": Fraction(5, 2),
    r"\boxed{\mathbf{-5}}": -5,
    r"#### \(\frac{3}{4}\)": Fraction(3, 4),
    r"The answer is \( 3 \times 6 = 18 \).": 18,
    r"The answer is $\frac{56}{3} \approx 19$": 19,
    # how numbers are written
    "#### 1,234,567": 1234567,
    "#### 1,00,000": 100000,
    "#### 1\u202f234": 1234,
    "#### 18.00": 18,
    "#### 18.50": Fraction(37, 2),
    "#### 18.": 18,
    "#### 007": 7,
    "#### .5": Fraction(1, 2),
    "#### 3/4": Fraction(3, 4),
    "#### 3 / 4": Fraction(3, 4),
    "#### 1 1/2": Fraction(3, 2),
    "#### 20 000": 20000,
    "#### 12 345 678.50 dollars": Fraction(24691357, 2),
    "#### 12\u2009345": 12345,
    "#### 1'000": 1000,
    "#### 1’000’000": 1000000,
    "#### 1_000": 1000,
    "#### 1.234.567": 1234567,
    "#### 1.234,50": Fraction(2469, 2),
    "#### 33.333": Fraction(33333, 1000),
    "#### 0.500": Fraction(1, 2),
    "#### 1.5e3": 1500,
    "#### 1e-3": Fraction(1, 1000),
    "#### 1.5 x 10^3": 1500,
    r"#### 1.5 \times 10^{3}": 1500,
    "#### 4 million": 4,
    "#### 12 200-kilobyte videos": 12,
    "#### 12 5-minute breaks": 12,
    "#### 1/2 hour": Fraction(1, 2),
    "#### 3½": Fraction(7, 2),
    "#### ½": Fraction(1, 2),
    "#### １８": 18,
    "#### １，２３４": 1234,
    "#### \u0662\u0660": 20,
    "#### - 5": -5,
    "- 5\n- 18": 18,
    "#### 5%": 5,
    "#### 2 dozen": 2,
    "#### 18th": 18,
    "#### 12 = 12": 12,
    "#### 18 / 2": 9,
    "so 20 000": 20000,
    "#### +5": 5,
    "#### -5": -5,
    "#### -.5": Fraction(-1, 2),
    "#### \u22125": -5,
    "The answer is -$5": -5,
    "The answer is $-5": -5,
    "The answer is -$1,000.50": Fraction(-2001, 2),
    r"\boxed{-\$5}": -5,
    # sums
    "The answer is 3 + 4 = 7": 7,
    "The answer is <<3*4=12>>12 apples.": 12,
    "The answer is 18, since 18 + 2 = 20.": 18,
    "The answer is 18 (18 + 2 = 20).": 18,
    "#### 3 * (4 + 2) = 18": 18,
    "#### 3 x 6 = 18\nDone.": 18,
    "The answer is 18 = x": 18,
    "The answer is 16-5=11": 11,
    # the last marker wins, and nothing else counts
    "#### 17\n#### 18": 18,
    r"\boxed{17} so the answer is 18": 18,
    r"The answer is 17? No: \boxed{18}": 18,
    "#### 18\n\nQuestion: Tom has 5 apples.": 18,
    "The answer is 18. Check: 20 - 2 = 19": 18,
    r"So \boxed{18}. That answers question 5.": 18,
    "The answer is 18.\nLet us check that the answer is correct: 20 - 3 = 17": 18,
    "#### 18 (3 * 6)\n5 more lines": 18,
    # what looks like a marker
    "#### Step 2: add\n3 + 4 = 7": 7,
    "#### 2. Compute the sum\nIt is 15": 15,
    "#### Step 1\nfoo\n#### Step 2: 5 apples": 5,
    "To answer this: we add 3 and 4 and get 7. Then 9": 9,
    "Answer: She sells 3*2=<<3*2=6>>6 eggs.\nThat brings 12 dollars": 12,
    "The answer is not 17 but 18": 18,
    "3 + 15 = 18 is the final answer\nI hope it helps.": 18,
    # no marker: the last number
    "He has 3 boxes of 6, so 18": 18,
    "It is 18.": 18,
    "16-5": 5,
    "16 - 5": 5,
    "It is -5": -5,
    "It is (-5)": -5,
    "She ate 3/4": Fraction(3, 4),
    r"She ate \frac{3}{4} of it": Fraction(3, 4),
    "It costs $1,234.50 now": Fraction(2469, 2),
    "17 " + "and then some words " * 40: 17,
    "x" * 39 + " 1234567890 " + "9" * 40: int("9" * 40),
}
UNSTATED = [
    "",
    "no number at all",
    "#### unknown",
    "So 5\n#### unknown",
    "So 5\n####",
    "The answer is unknown. We have 5 apples.",
    "We have 5 apples. The answer is unknown",
    "We have 5.\nFinal answer: unknown",
    "We have 5.\nAnswer: unknown",
    r"We have 5. \boxed{}",
    r"We have 5. \boxed{\text{unknown}}",
    "The answer is 3 + 4",
    "The answer is 3 x 4.",
    r"The answer is 3 \times 4.",
    "The answer is 18^2",
    "The answer is 7:30",
    "The answer is 3 + 4 = ?",
    "The answer is 5,6",
    "#### 12,34",
    "#### 1/0",
    # what a person would not take for one number
    "#### 6 * 3",
    "#### 6 ÷ 3",
    "#### 18 or 20",
    "#### 18 apples or 20 apples",
    "#### 18 to 20",
    "#### 18-20",
    "#### between 18 and 20",
    "#### 18 and 20",
    "#### 18, 20",
    "#### (5, 6)",
    "#### 1 2 3",
    "#### 18 dollars and 50 cents",
    "#### 2 hours 30 minutes",
    "#### 10:30",
    "#### 1.000",
    "#### 2.500",
    "#### 18.5.2",
    "#### 1,5",
    "#### 1, 000",
    "#### 1,000 000",
    "#### 1 234,5",
    "#### 100 000/2",
    "#### 1e400",
    "#### 5k",
    "#### 5(3)",
    "#### 18²",
    "#### √16",
    "#### sqrt(16)",
    r"#### \sqrt{16}",
    r"#### 2\pi",
    "#### 18 remainder 2",
    "#### 1/3 of 18",
    "#### 50% of 20",
    "#### twenty",
    "#### " + "9" * 5000,
    "9" * 5000,
    "1/" + "9" * 5000,
]


@pytest.mark.parametrize(("text", "answer"), STATED.items())
def test_extract_finds_the_stated_answer(text, answer):
    assert extract(text) == answer


@pytest.mark.parametrize("text", UNSTATED)
def test_extract_finds_no_answer(text):
    assert extract(text) is None


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("#### 18", "18", True),
        ("#### 18", "so it is 9 * 2 = 18\n#### 18", True),
        ("#### 1,234", "1234", True),
        ("#### 1234", "1,234", True),
        ("#### 18.0", "18", True),
        ("#### 0.5", "1/2", True),
        ("#### 18.5", "18", False),
        ("so it is 15", "5", False),
        ("so it is 5", "15", False),
        ("#### -18", "18", False),
        ("#### 180", "18", False),
        ("#### unknown", "18", False),
        ("#### 4 mıllion", "4", True),  # not the word, and no failure
        ("#### 4 million", "4", True),  # "how many millions?"
        ("#### 4 million", "4000000", True),
        ("#### $1.5 million", "1500000", True),
        ("so it is 20 thousand dollars", "20,000", True),
        ("#### 4 million", "4000", False),
        ("4 million\n#### 5", "4000000", False),
        ("#### 2 million and 5", "2000000", False),
    ],
)
def test_is_correct_compares_numbers(text, gold, right):
    assert is_correct(text, gold) is right


def test_a_gold_answer_without_a_number_is_refused():
    with pytest.raises(UserError, match="'none' has no number"):
        is_correct("#### 18", "none")


WRITTEN = ("{n}", "{n:,}", "{n}.00", "{n:,}.0", "${n}", "${n:,}.00", "{n} dollars", "**{n}**", "{n}%", "{n}.", "`{n}`")
MARKED = (
    "#### {}",
    "The answer is {}",
    "The answer is: {}\n",
    "Final answer: {}",
    "**Final Answer:** {}",
    "\\boxed{{{}}}",
    "\\(\\boxed{{{}}}\\)",
    "Therefore, the answer is {} in all.",
    "so we get {}",
    "Answer: {}",
    "The answer is 1 + 2 = {}",
)


@given(st.integers(-(10**9), 10**9), st.sampled_from(WRITTEN), st.sampled_from(MARKED), st.sampled_from("-\u2212"))
@settings(deadline=None, max_examples=300)
def test_every_way_to_write_an_integer_means_it(n, written, marked, minus):
    text = marked.format(written.format(n=n).replace("-", minus))
    assert is_correct(text, str(n))
    assert not is_correct(text, str(n + 1))
    assert not is_correct(text, str(-n or 1))


PIECES = st.sampled_from([*STATED, "####", "\\boxed{", "answer", "answer is", "Answer:", "{", "}", "=", "\n", "1,"])


@given(st.lists(PIECES | st.text(max_size=8)).map("".join), st.integers(-999, 999))
@example("#", 1)
@example("The answer is", 1)
@settings(deadline=None, max_examples=150)
def test_a_last_line_with_the_answer_decides_whatever_came_before(before, n):
    assert extract(f"{before}\n#### {n}") == n
    assert extract(f"{before}\n\\boxed{{{n}}}") == n


HUGE = {
    "digits": "9" * 200_000,
    "commas": "1," * 100_000,
    "slashes": "1/" * 100_000,
    "hashes": "#" * 200_000 + " Step 1\nfoo",
    "headings": "#### a 1 b\n" * 20_000 + "x",
    "markers": "#### " * 40_000,
    "answers": "the answer: a 1 2 3 " * 10_000 + "\n",
    "boxes": "\\boxed{" * 30_000,
    "fractions": "\\frac{" * 30_000 + "1",
    "blanks": "answer" + " " * 200_000 + "1",
    "lines": "####" + "\n" * 200_000,
    "minuses": "-" * 200_000 + "1",
}


@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE)
def test_a_huge_text_takes_no_long_time(text):
    began = time.perf_counter()
    extract(text)
    is_correct(text + " million", "18")
    assert time.perf_counter() - began < 5  # a quadratic search takes minutes


@pytest.mark.parametrize(("split", "size"), [("train", 7473), ("test", 1319)])
def test_real_solutions_are_accepted_and_their_neighbours_rejected(real_data, split, size):
    lines = (real_data("gsm8k") / f"{split}.jsonl").read_text(encoding="utf-8").strip().split("\n")
    solutions = [json.loads(line)["answer"] for line in lines]
    golds = [re.search(r"#### (\S+)$", solution)[1].replace(",", "") for solution in solutions]
    assert len(solutions) == size
    wrong = [solution for solution, gold in zip(solutions, golds) if not is_correct(solution, gold)]
    assert wrong == []
    for change in (1, -1):
        near = [f"{text.rpartition('####')[0]}#### {int(gold) + change:,}" for text, gold in zip(solutions, golds)]
        assert [text for text, gold in zip(near, golds) if is_correct(text, gold)] == []


# -- loading -------------------------------------------------------------------------------------------------------


def write(folder: Path, *rows) -> Path:
    path = folder / "test.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


GOOD = {"question": "What is 9 * 2?", "answer": "9 * 2 = <<9*2=18>>18\n#### 18"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"test.jsonl:2: malformed JSON"),
        ("[]", r"test.jsonl:2: expected a JSON object"),
        ({"question": "Q"}, r"test.jsonl:2: answer must be a .* got None"),
        ({"answer": "#### 1"}, r"test.jsonl:2: question must be .* got None"),
        ({"question": " ", "answer": "#### 1"}, r"test.jsonl:2: question must be .* got ' '"),
        ({"question": "Q", "answer": 18}, r"test.jsonl:2: answer must be a non-empty string, got 18"),
        ({"question": "Q", "answer": "it is 18"}, r"test.jsonl:2: answer must end .* ends with 'it is 18'"),
        ({"question": "Q", "answer": "3\n#### none"}, r"test.jsonl:2: answer must end with `#### number`"),
        ({"question": "Q", "answer": "#### 3\nor 4"}, r"test.jsonl:2: answer must end with `#### number`"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, row, message):
    with pytest.raises(UserError, match=message):
        tasks.load(write(tmp_path, GOOD, row))


def test_rows_become_topics(tmp_path):
    task = tasks.load(write(tmp_path, GOOD, {"question": "And 1,000 - 2,000?", "answer": "#### -1,000"}))
    assert list(task.topics.columns) == ["query_id", "query", "answers", "solution"]
    assert task.topics["answers"].tolist() == [["18"], ["-1000"]]
    assert task.topics["solution"].iloc[0] == GOOD["answer"]
    assert task.verifier(GOOD["answer"], "18") and not task.verifier(GOOD["answer"], "19")
    assert "#### N" in task.instruction
    assert task.unrelated == "facts"  # a file may be all there is: no network asked for
