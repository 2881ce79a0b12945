"""MT-Bench's judge: grades as they are read, the authors' prompts from their file, references where they are shown."""

import json

import pytest

from irlens.base.errors import UserError
from irlens.rerank import mt_bench

ROW = {"turn_1": "{answer}?", "turn_2": "and?", "answer_1": "one {question}", "answer_2": "two", "reference_1": "", "reference_2": ""}  # fmt: skip
PROMPTS = {
    "single-v1": "Q {question} A {answer}",
    "single-math-v1": "Q {question} R {ref_answer_1} A {answer}",
    "single-v1-multi-turn": "{question_1} {answer_1} {question_2} {answer_2}",
    "single-math-v1-multi-turn": "{ref_answer_1} {ref_answer_2} {question_1} {answer_1} {question_2} {answer_2}",
}


@pytest.fixture
def prompts(tmp_path):
    def write(**more):
        rows = [
            {"name": n, "type": "single", "system_prompt": f"S {n}", "prompt_template": t}
            for n, t in (PROMPTS | more).items()
        ]
        (tmp_path / "judge_prompts.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows if row["prompt_template"])
        )
        return tmp_path / "judge_prompts.jsonl"

    return write


@pytest.mark.parametrize(
    "answer, score",
    [
        ("Rating: [[5]]", 5), ("[[7.5]] or [[3]]", 7.5), ("Rating: [6]", 6), ("[2] but [[9]]", 9), ("[[10]]", 10), ("[[0]]", 0),
        ("[[11]]", None), ("<think>[[2]]</think>[[8]]", 8), ("Rating: 5", None), ("[[five]]", None), ("[[" + "9" * 400 + "]]", None),
    ],
)  # fmt: skip
def test_the_first_grade_counts(answer, score):
    assert mt_bench.read_score(answer) == score


def test_the_authors_prompts_by_turn_and_reference(prompts):
    found = mt_bench.of_file(prompts())
    system, user = found.messages(ROW, 1)
    assert system["content"] == "S single-v1" and user["content"] == "Q {answer}? A one {question}"  # no places
    assert found.messages(ROW, 2)[1]["content"] == "{answer}? one {question} and? two"
    shown = ROW | {"reference_1": "r1", "reference_2": "r2"}
    assert found.messages(shown, 1)[1]["content"] == "Q {answer}? R r1 A one {question}"
    assert found.messages(shown, 2)[1]["content"].startswith("r1 r2 ")


def test_our_own_words_show_the_reference_where_there_is_one():
    for turn in (1, 2):
        assert "Reference" not in mt_bench.OWN.messages(ROW, turn)[1]["content"]
        assert "\nr1\n" in mt_bench.OWN.messages(ROW | {"reference_1": "r1", "reference_2": "r2"}, turn)[1]["content"]


def test_another_file_is_refused(prompts):
    with pytest.raises(UserError, match="has no prompt single-math-v1; it is FastChat's"):
        mt_bench.of_file(prompts(**{"single-math-v1": ""}))
    with pytest.raises(UserError, match=r"the template of turn 2 has no place \{answer_2\}"):
        mt_bench.of_file(prompts(**{"single-v1-multi-turn": "{question_2}"}))
