"""Thinking models: what is judged of a response, where the tags come from, and what an unclosed thought is."""

import json

import pandas as pd
import pytest

from irlens import tables
from irlens.base.errors import UserError
from irlens.commands import settings
from irlens.commands.mine_negatives import mine_negatives as run_mine_negatives
from irlens.commands.passk import passk as run_passk
from irlens.commands.rerank import rerank as run_rerank
from irlens.commands.rerank import verify as run_verify
from irlens.models import thoughts
from irlens.models.thoughts import Thought, answer_part, marked, of_tokenizer, parse, settled
from irlens.negatives.lists import Cut, cut_lists
from irlens.rerank.verifiers import get
from irlens.rerank.verify import unreadable, verify
from irlens.rerank.vote import answers_of
from irlens.tasks import gsm8k

THINK = Thought("<think>", "</think>")
OPENED = Thought("<think>", "</think>", True)
PLAIN_GPT_OSS = Thought("^analysis", "assistantfinal", False)
TOPICS = pd.DataFrame({"query_id": ["q"], "query": ["1+2?"], "answers": [["3"]], "solution": ["1+2=3\n#### 3"]})


@pytest.mark.parametrize(
    ("text", "tags", "answer"),
    [
        ("#### 3", None, "#### 3"),
        ("#### 3", THINK, "#### 3"),  # a model that did not think
        ("<think>4?</think>\n\n#### 3", THINK, "#### 3"),
        ("<think></think>", THINK, ""),
        ("4? no</think>#### 3", THINK, "#### 3"),  # the prompt opened it
        ("4? no</think>#### 3", OPENED, "#### 3"),
        ("<think>a</think>b<think>c</think>d", THINK, "d"),
        ("a</think>b</think>c", THINK, "c"),
        ("<think>#### 3", THINK, None),
        ("so it is #### 3", OPENED, None),
        ("<think>a</think>#### 3<think>or #### 4", THINK, None),
        ("<think>a</think>#### 3", OPENED, "#### 3"),  # it opened one more
        ("text </think> more", None, "text </think> more"),
        ("analysisWe add.assistantfinal3", PLAIN_GPT_OSS, "3"),
        ("analysisWe add", PLAIN_GPT_OSS, None),
        ("An analysis gives 3", PLAIN_GPT_OSS, "An analysis gives 3"),
    ],
)
def test_the_answer_is_what_follows_the_last_closed_thought(text, tags, answer):
    assert answer_part(text, tags) == answer


def test_the_option():
    assert parse(None) is None and parse("none") is None
    assert parse("<think>,</think>") == THINK and parse(",</think>") == Thought("", "</think>", True)
    for text in ("<think>", "<think>,", "a,b,c", "a,a", ""):
        with pytest.raises(UserError, match="--thought"):
            parse(text)


def test_responses_tell_whether_the_prompt_opens_the_thought():
    assert settled(THINK, ["a</think>3", "cut off"]).opened is True
    assert settled(THINK, ["<think>a</think>3", "3"]).opened is False
    assert settled(OPENED, ["<think>a</think>3"]).opened is True


# -- what is judged ------------------------------------------------------------------------------------------------


def run_of(*texts, **more):
    names = [f"d{i}" for i in range(len(texts))]
    return pd.DataFrame({"query_id": "q", "doc_id": names, "score": 0.0, "rank": 0, "text": list(texts), **more})


def test_math_does_not_read_a_box_inside_a_thought():
    pytest.importorskip("math_verify", reason="needs the extra irlens[math]")
    plain, own = get("math"), thoughts.of_verifier(get("math"), THINK)
    thinking = r"<think>Maybe \boxed{3}? No.</think> I do not know."
    assert plain.judge(thinking, "3") and not own.judge(thinking, "3")
    assert plain.extract(thinking) == "3" and own.extract(thinking) is None
    assert own.judge(r"<think>\boxed{4}?</think> \boxed{3}", "3") and not own.judge(r"<think>\boxed{3}", "3")


@pytest.mark.parametrize("name", ["gsm8k", "nq-exact", "nq-has-answer", "choice", r"regex:####\s*(\w+)", "regex:3|B"])
def test_no_verifier_reads_an_unclosed_thought(name):
    gold = "B" if name == "choice" else "3"
    right = "B" if name == "choice" else "#### 3" if name.startswith(("gsm", "regex")) else "3"
    verifier = thoughts.of_verifier(get(name), THINK)
    assert verifier.judge(f"<think>hm</think>\n{right}", gold)
    assert not verifier.judge(f"<think>hm {right}", gold) and not verifier.judge(f"<think>{right}</think>no", gold)
    if verifier.extract:
        assert verifier.extract(f"<think>{right}") is None


def test_an_unclosed_thought_is_wrong_unfinished_in_no_list_and_does_not_vote():
    run = run_of("<think>#### 3", "<think>a</think>#### 3", "<think>#### 3</think>#### 4", finish_reason="stop")
    task_verifier = thoughts.of_verifier(get("gsm8k"), THINK)
    ready = marked(run, THINK)
    assert ready["finish_reason"].tolist() == ["length", "stop", "stop"] and (run["finish_reason"] == "stop").all()
    qrels = verify(ready, TOPICS, task_verifier.judge)
    assert qrels["relevance"].tolist() == [0, 1, 0]
    assert verify(ready, TOPICS, task_verifier.judge, judge_unfinished=True)["relevance"].tolist() == [0, 1, 0]
    lists = cut_lists(ready, qrels, TOPICS, Cut(1, 3))
    assert lists["doc_id"].tolist() == ["d1", "d2"]
    assert answers_of(ready, task_verifier.extract) == [None, 3, 4]
    assert marked(run.drop(columns="finish_reason"), THINK)["finish_reason"].tolist() == ["length", "stop", "stop"]


def test_a_gold_solution_has_no_thought_though_the_prompt_opens_one():
    verifier = thoughts.of_verifier(get("gsm8k"), OPENED)
    assert verifier.extract("1+2=3\n#### 3") == 3 and not verifier.judge("1+2=3\n#### 3", "3")


def test_what_cannot_be_read_is_counted_apart_from_what_is_wrong():
    run = run_of("#### 18 or 20", "#### 4", "#### 3", "no", finish_reason=["stop", "stop", "stop", "length"])
    qrels = verify(run, TOPICS, gsm8k.is_correct)
    assert unreadable(run, qrels, gsm8k.extract).tolist() == [True, False, False, False]
    assert not unreadable(run, qrels, None).any()


# -- where the tags come from --------------------------------------------------------------------------------------

USER = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
START = "{% if add_generation_prompt %}<|im_start|>assistant\n"
QWEN3 = (  # the structure of its template: history without thoughts, and an empty thought where none is wanted
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'].split('</think>')[-1] }}{% else %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}" + START + "{% if "
    "enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DEEPSEEK = QWEN3.replace("{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}", "<think>\n")  # fmt: skip
EMPTY_THOUGHT = QWEN3.replace("{% if enable_thinking is defined and enable_thinking is false %}", "{% if true %}")
GPT_OSS = "{# <|start|>assistant<|channel|>final<|message|> #}<|start|>user<|message|>{{ messages[0]['content'] }}<|end|>{% if add_generation_prompt %}<|start|>assistant{% endif %}"  # fmt: skip


def tokenizer_of(template, tokens=(), special=()):
    """A tokenizer of words and single characters, with a chat template and added tokens, special or not."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "analysis", "assistant", "final", *map(chr, range(32, 127)), "\n"]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("analysis|assistant|final|.|\n"), "isolated")
    raw.decoder = decoders.Fuse()
    out = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    out.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])
    if special:
        out.add_special_tokens({"additional_special_tokens": list(special)})
    out.chat_template = template
    return out


@pytest.mark.parametrize(
    ("template", "tokens", "special", "tags"),
    [
        (QWEN3, ["<think>", "</think>"], [], Thought("<think>", "</think>", False)),
        (DEEPSEEK, ["<think>", "</think>"], [], OPENED),
        (EMPTY_THOUGHT, [], [], Thought("<think>", "</think>", False)),  # opened and closed by the prompt
        (USER, ["<think>", "</think>"], [], Thought("<think>", "</think>", False)),
        (None, ["<think>", "</think>"], [], Thought("<think>", "</think>", False)),
        (USER, [], [], None),
        (USER, [], ["[THINK]", "[/THINK]"], None),  # special tokens: no text holds them
        (GPT_OSS, [], ["<|start|>", "<|end|>", "<|channel|>", "<|message|>"], PLAIN_GPT_OSS),
    ],
    ids=["qwen3", "deepseek-r1", "no thought", "tokens", "base", "none", "hidden", "gpt-oss"],
)
def test_the_tokenizer_or_its_template_names_the_tags(template, tokens, special, tags):
    tokenizer = tokenizer_of(template, tokens, special)
    assert of_tokenizer(tokenizer) == tags
    assert (thoughts.hidden(tokenizer) is not None) == ("[THINK]" in special)
    assert thoughts.chosen("none", tokenizer) is None
    given = thoughts.chosen("<think>,</think>", tokenizer)
    assert given == Thought("<think>", "</think>", template == DEEPSEEK)


def test_gpt_oss_text_as_it_is_decoded():
    tokenizer = tokenizer_of(GPT_OSS, [], ["<|start|>", "<|end|>", "<|channel|>", "<|message|>"])
    drawn = "<|channel|>analysis<|message|>hm 4<|end|><|start|>assistant<|channel|>final<|message|>#### 3"
    text = tokenizer.decode(tokenizer(drawn)["input_ids"], skip_special_tokens=True)
    assert answer_part(text, of_tokenizer(tokenizer)) == "#### 3"


def test_the_embedded_model_does_not_think():
    from transformers import AutoTokenizer

    from irlens.models import catalog

    assert of_tokenizer(AutoTokenizer.from_pretrained(catalog.fetch(catalog.model("tiny")))) is None


# -- the commands --------------------------------------------------------------------------------------------------

ENGINE = """
from irlens.retrieve.engines import Draw, Engine

TEXTS = ["<think>#### {a}", "<think>hm</think>#### {a}", "<think>#### {a}</think>#### 0", "<think></think>#### 18 or 20"]

class Thinker(Engine):
    def __init__(self, right):
        self.right = right
    def sample(self, asked, draws, sampling, on_progress=lambda *_: None):
        return [Draw(p.query_id, d, TEXTS[d % 4].format(a=self.right[p.query_id]), 5, -1.0, "stop") for p in asked for d in draws]

def load(options, folder):
    from irlens import tasks
    both = [tasks.load("sums", split, 50).topics for split in ("train", "test")]
    return Thinker({q: a[0] for topics in both for q, a in zip(topics["query_id"], topics["answers"])})
"""


@pytest.fixture
def thinker(tmp_path, monkeypatch):
    (tmp_path / "thinker.py").write_text(ENGINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "thinker:load"


def test_passk_verify_and_a_vote_read_the_answer_only(tmp_path, thinker):
    told = []
    asked = {"limit": 4, "n": 4, "temperature": (1.0,), "engine": thinker, "thought": "<think>,</think>"}
    out, _ = run_passk(settings.PassK(out=str(tmp_path / "p"), **asked), told.append)
    run, qrels = tables.read_run(out), tables.read_qrels(out)
    assert qrels["relevance"].tolist() == [0, 1, 0, 0] * 4
    assert run["finish_reason"].tolist() == ["length", "stop", "stop", "stop"] * 4
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["unfinished"], manifest["unclosed_thoughts"], manifest["unreadable"]) == (4, 4, 4)
    assert manifest["settings"]["thought"] == ["<think>", "</think>", False]
    assert any("4 of 16 responses never closed their thought" in line for line in told)
    assert any("4 of 16 responses finished without an answer that can be read" in line for line in told)

    told.clear()  # the tags of the run's folder
    judged, _ = run_verify(settings.Verify(run=str(out), out=str(tmp_path / "v")), told.append)
    verdicts = pd.read_parquet(judged / "qrels.parquet")
    assert verdicts["relevance"].tolist() == [0, 1, 0, 0] * 4
    assert verdicts["unreadable"].tolist() == [False, False, False, True] * 4
    assert any("never closed their thought" in line for line in told) and any("that can be read" in t for t in told)
    voted, _ = run_rerank(settings.Rerank(run=str(out), out=str(tmp_path / "r")), told.append)
    best = tables.read_run(voted).query("rank == 0")
    assert best["doc_id"].str.endswith("/00002").all()  # one vote each for two answers: the larger doc_id goes first

    bare = tmp_path / "bare.parquet"  # nothing beside it says what a thought is: a line does
    run.assign(finish_reason="stop").to_parquet(bare)
    told.clear()
    data = {"run": str(bare), "dataset": "sums"}
    run_verify(settings.Verify(**data, out=str(tmp_path / "w")), told.append)
    assert any("12 of 16 responses hold </think>, and nothing says that it ends a thought" in line for line in told)
    told.clear()
    judged, _ = run_verify(settings.Verify(**data, thought="<think>,</think>", out=str(tmp_path / "x")), told.append)
    assert tables.read_qrels(judged)["relevance"].tolist() == [0, 1, 0, 0] * 4
    with pytest.raises(UserError, match="was made with thought"):
        run_verify(settings.Verify(**data, out=str(tmp_path / "x")), str)


def test_mined_lists_hold_no_unclosed_thought(tmp_path, thinker):
    asked = {"limit": 4, "n": 4, "tier": "hard", "engine": thinker, "thought": "<think>,</think>", "hardness": False}
    _, lists, _ = run_mine_negatives(settings.Mine(out=str(tmp_path / "m"), **asked), str)
    wrong = lists[lists["tier"] == "hard"]["text"]
    assert len(wrong) and wrong.str.contains("</think>").all()
