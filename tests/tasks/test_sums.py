"""sums: splits that share nothing, solutions in GSM8K's format that are right, the same problems everywhere."""

import re
import subprocess
import sys
from itertools import combinations

import pytest

from irlens import tasks
from irlens.tasks import gsm8k, sums

PROBLEMS = {split: sums.take(split) for split in sums.SPLITS}
MARK = re.compile(r"<<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)")


def test_splits_have_their_sizes():
    assert {split: len(rows) for split, rows in PROBLEMS.items()} == sums.SIZES


@pytest.mark.parametrize(("one", "other"), list(combinations(sums.SPLITS, 2)))
def test_splits_share_no_problem(one, other):
    for field in ("key", "query"):
        assert {row[field] for row in PROBLEMS[one]}.isdisjoint(row[field] for row in PROBLEMS[other])


@pytest.mark.parametrize("split", sums.SPLITS)
def test_a_split_repeats_no_problem(split):
    assert len({row["key"] for row in PROBLEMS[split]}) == len(PROBLEMS[split])
    assert len({row["query"] for row in PROBLEMS[split]}) == len(PROBLEMS[split])


def test_every_problem_is_of_the_split_that_its_hash_says():
    for split, rows in PROBLEMS.items():
        assert {sums.split_of(family, dict(numbers)) for family, numbers in (row["key"] for row in rows)} == {split}


@pytest.mark.parametrize("split", sums.SPLITS)
def test_solutions_are_gsm8k_and_right(split):
    for row in PROBLEMS[split]:
        *steps, last = row["solution"].split("\n")
        assert 2 <= len(steps) <= 4
        for step in steps:
            left, sign, right, result, printed = MARK.search(step).groups()
            assert step.count("<<") == 1
            assert result == printed
            assert {
                "+": int(left) + int(right),
                "-": int(left) - int(right),
                "*": int(left) * int(right),
                "/": int(left) / int(right),
            }[sign] == int(result)
        assert last == f"#### {row['answer']}"
        assert printed == row["answer"]  # the last step is the answer
        assert gsm8k.is_correct(row["solution"], row["answer"])
        assert not gsm8k.is_correct(row["solution"], str(int(row["answer"]) + 1))


def test_all_numbers_of_a_problem_are_in_its_text():
    for row in PROBLEMS["test"]:
        assert sorted(re.findall(r"\d+", row["query"])) == sorted(str(n) for _, n in row["key"][1])


def test_a_smaller_limit_is_a_prefix():
    whole, some = tasks.load("sums"), tasks.load("sums", limit=7)
    assert whole.topics.head(7).to_dict("list") == some.topics.to_dict("list")
    assert len(whole.topics) == 1000
    assert whole.topics["query_id"].iloc[6] == "sums-test-00006"


def test_the_task_is_judged_as_gsm8k():
    task = tasks.load("sums", "validation", 3)
    assert task.verifier is gsm8k.is_correct
    assert (task.instruction, task.unrelated, task.split) == (gsm8k.INSTRUCTION, "facts", "validation")
    judged = [task.verifier(text, gold) for text, (gold,) in zip(task.topics["solution"], task.topics["answers"])]
    assert judged == [True] * 3


def test_another_process_makes_the_same_problems():
    code = "from irlens.tasks import sums; print(repr(sums.take('test', 50)))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {repr(sums.take("test", 50))}
