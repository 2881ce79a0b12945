"""Arena-Hard's judge: labels as they are read, the authors' words out of a checkout, which is read and never run."""

import pytest

from irlens.base.errors import UserError
from irlens.rerank import arena_hard

SETTINGS = """import os
os.environ["RAN"] = "yes"
WORDS = "Be fair.\\nEnd with a label."
JUDGE_SETTINGS = {
    "hard_prompt": {"baseline": "o3", "system_prompt": WORDS},
    "creative_writing": {"baseline": "flash", "system_prompt": "Be kind."},
}
"""
CONFIG = 'judge_model: gpt-4.1\ntemperature: 0.5\nmax_tokens: 16000\nprompt_template: "Q {QUESTION}\\nA {ANSWER_A}\\nB {ANSWER_B}"\n'


@pytest.fixture
def checkout(tmp_path):
    def write(settings=SETTINGS, config=CONFIG):
        for name, text in (("utils/judge_utils.py", settings), ("config/arena-hard-v2.0.yaml", config)):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    "answer, value",
    [
        ("[[A>>B]]", 1.0), ("so [[A>B]].", 1.25), ("[[A=B]]", 1.5), ("[[B=A]]", 1.5), ("[[B>A]]", 1.75), ("[[A<B]]", 1.75),
        ("[[B>>A]]", 2.0), ("[[A<<B]]", 2.0), ("[[B<<A]]", 1.0), ("first [[A>B]], no: [[B>>A]]", 2.0), ("[[a>b]]", 1.25),
        ("only [B>A]", 1.75), ("[A>B] but [[A=B]]", 1.5), ("<think>[[A>>B]]</think> [[B>A]]", 1.75), ("[[AB]]", None),
        ("[[A>>>B]]", None), ("I cannot say.", None), ("", None),
    ],
)  # fmt: skip
def test_the_last_label_counts(answer, value):
    assert arena_hard.read_label(answer) == value


def test_the_authors_words_are_read_from_a_checkout_and_nothing_is_run(checkout, monkeypatch):
    import os

    monkeypatch.delenv("RAN", raising=False)
    found = arena_hard.of_checkout(checkout())
    assert "RAN" not in os.environ
    assert (found.temperature, found.tokens) == (0.5, 16000)
    assert found.baselines == {"hard_prompt": "o3", "creative_writing": "flash"}
    system, user = found.messages("hard_prompt", "{ANSWER_A}?", "one {ANSWER_B}", "two")
    assert system == {"role": "system", "content": "Be fair.\nEnd with a label."}
    assert user["content"] == "Q {ANSWER_A}?\nA one {ANSWER_B}\nB two"  # braces of an answer are no places
    assert found.messages("creative_writing", "q", "a", "b")[0]["content"] == "Be kind."
    with pytest.raises(UserError, match="says nothing of category 'poems'"):
        found.messages("poems", "q", "a", "b")


def test_our_own_words_are_for_every_category():
    system, user = arena_hard.OWN.messages("poems", "q", "a", "b")
    assert "[[A>>B]]" in system["content"] and user["content"].endswith("[Answer A]\na\n\n[Answer B]\nb")


@pytest.mark.parametrize(
    "told, files",
    [
        ("no JUDGE_SETTINGS", {"settings": "x = 1\n"}),
        ("no JUDGE_SETTINGS", {"settings": 'JUDGE_SETTINGS = {"a": {"baseline": "b"}}\n'}),
        ("cannot be read as assignments", {"settings": "JUDGE_SETTINGS = {"}),
        ("cannot be read as assignments", {"settings": "JUDGE_SETTINGS = dict(a=1)\n"}),
        ("cannot be read as assignments", {"settings": "JUDGE_SETTINGS = JUDGE_SETTINGS\n"}),
        ("prompt_template must be a text", {"config": "prompt_template: '{QUESTION} {ANSWER_A}'\n"}),
        ("not a readable YAML file", {"config": "a: ["}),
        ("must be numbers", {"config": CONFIG + "max_tokens: many\n"}),
    ],
)  # fmt: skip
def test_a_checkout_that_is_none_is_refused(checkout, told, files):
    with pytest.raises(UserError, match=told):
        arena_hard.of_checkout(checkout(**files))


def test_a_folder_that_is_no_checkout_is_named(tmp_path):
    with pytest.raises(UserError, match="no checkout of lmarena/arena-hard-auto"):
        arena_hard.of_checkout(tmp_path)
