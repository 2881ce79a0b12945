"""The task `math`: problems and boxed answers from a file, judged by math-verify."""

import json

import pytest

from irlens import tasks
from irlens.base.errors import UserError

pytest.importorskip("math_verify")
ROWS = [
    {"problem": "What is $1/2 + 1/4$?", "solution": r"It is $\boxed{\frac{3}{4}}$."},
    {"problem": "How many?", "solution": r"Not \boxed{1}, but $\boxed{12}$."},
    {"problem": "And without a box?", "solution": "It is $7$."},
]


def test_a_file_is_a_task_with_a_verifier(tmp_path):
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    task = tasks.load(tmp_path)
    assert task.topics["answers"].tolist() == [[r"\frac{3}{4}"], ["12"], ["It is $7$."]]
    assert task.topics["solution"].tolist() == [row["solution"] for row in ROWS]
    assert task.verifier(r"so \boxed{0.75}", r"\frac{3}{4}") and not task.verifier(r"\boxed{0.7}", r"\frac{3}{4}")
    assert task.verifier(r"\boxed{7}", "It is $7$.") and task.extract(r"\boxed{ 1 2 }") == "12"


def test_a_damaged_row_is_named(tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS[0]) + "\n" + json.dumps({"problem": "", "solution": "x"}))
    with pytest.raises(UserError, match=r"test.jsonl:2: problem must be a non-empty string"):
        tasks.load(tmp_path)
