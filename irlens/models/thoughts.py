"""Thinking models: which part of a response is its answer, and which responses never came to one.

A thought stands between two tags, and what follows the last closed one is the answer. Some templates open the thought in
the prompt (DeepSeek-R1's), so that a response holds the closing tag alone. A thought that is never closed has no answer:
such a response is unfinished, whatever made it stop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from irlens.base.errors import UserError
from irlens.base.limits import linear

if TYPE_CHECKING:
    import pandas as pd

    from irlens.rerank.verifiers import Verifier
    from irlens.tasks.contract import Task

NONE = "none"  # --thought none: nothing is a thought
KNOWN = (  # in the order in which they are looked for
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3, QwQ, SmolLM3, GLM-4.5, Nemotron …
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere
    ("<|channel|>analysis<|message|>", "<|start|>assistant<|channel|>final<|message|>"),  # GPT-OSS
)


@dataclass(frozen=True)
class Thought:
    """The tags of a model's thoughts. An `open` that begins with ^ counts at the beginning of a response only.

    opened: whether the prompt opens the thought already; None where nobody says, then the responses tell (`settled`).
    """

    open: str
    close: str
    opened: bool | None = None


def parse(text: str | None) -> Thought | None:
    """`--thought OPEN,CLOSE`; an empty OPEN says that the prompt opens it. None for None and "none".

    Raises UserError for anything else.
    """
    if text is None or text == NONE:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not parts[1] or parts[0] == parts[1]:
        raise UserError(
            f"--thought {text!r}: expected an opening and a closing tag, such as '<think>,</think>', or none"
        )
    return Thought(*parts, None if parts[0] else True)


def of_tokenizer(tokenizer) -> Thought | None:
    """The tags that a tokenizer or its chat template knows, as its decoded texts show them; None without any.

    Special tokens are not part of a decoded text: of GPT-OSS's channels the plain words remain, of others nothing, and
    then there is nothing to tell a thought by (`hidden`).
    """
    if not (tags := _tags(tokenizer)):
        return None
    seen = [_decoded(tokenizer, tag) for tag in tags]
    if not all(seen):
        return None
    start = "^" if seen[0] != tags[0] else ""  # a plain word, such as analysis, is a tag at the beginning only
    return Thought(start + seen[0], seen[1], _opened(tokenizer, *tags))


def hidden(tokenizer) -> str | None:
    """A line for a model whose tags are not in its decoded texts."""
    tags = _tags(tokenizer)
    if not tags or all(_decoded(tokenizer, tag) for tag in tags):
        return None
    return f"{' '.join(tags)} are special tokens, which texts do not keep: thoughts are judged as part of the answer"


def _tags(tokenizer) -> tuple[str, str] | None:
    template = str(getattr(tokenizer, "chat_template", None) or "")
    added = tokenizer.get_added_vocab()
    for opening, close in KNOWN:
        parts = re.findall(r"<\|\w+\|>", opening + close) if "<|channel|>" in close else (opening, close)
        if close in template or all(part in added for part in parts):
            return opening, close
    return None


def _decoded(tokenizer, tag: str) -> str:
    """A tag as it stands in a decoded text."""
    ids = tokenizer(tag, add_special_tokens=False)["input_ids"]
    special = set(tokenizer.all_special_ids)
    if not any(number in special and number != tokenizer.unk_token_id for number in ids):
        return tag
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()


def _opened(tokenizer, opening: str, close: str) -> bool | None:
    """Whether the prompt of a response ends inside a thought; None where the template does not say."""
    if not getattr(tokenizer, "chat_template", None):
        return False
    try:
        talk = [{"role": "user", "content": "1 + 1 = ?"}]
        text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    except Exception:  # a template raises what it likes; then the responses tell
        return None
    return text.rfind(opening) > text.rfind(close)


def chosen(option: str | None, tokenizer) -> Thought | None:
    """The tags asked for by `--thought`, else the tokenizer's; a server's model has no tokenizer here."""
    found = None if tokenizer is None or option == NONE else of_tokenizer(tokenizer)
    given = parse(option)
    if given is None or tokenizer is None or given.opened:
        return given or found
    opens = given.open.removeprefix("^")
    return replace(given, opened=_opened(tokenizer, opens, given.close))


def record(thought: Thought | None) -> list | None:
    """What a manifest holds of the tags."""
    return None if thought is None else list(astuple(thought))


def recorded(found) -> Thought | None:
    """The tags that a manifest holds."""
    return Thought(*found) if isinstance(found, list) and len(found) == 3 else None


# -- what is judged ------------------------------------------------------------------------------------------------


def answer_part(text: str, thought: Thought | None) -> str | None:
    """What follows the last closed thought of a response; all of one that has none. None if a thought never closes."""
    if thought is None:
        return text
    end = text.rfind(thought.close)
    rest = text if end < 0 else text[end + len(thought.close) :]
    if end < 0 and (thought.opened or (thought.open[:1] == "^" and text.lstrip().startswith(thought.open[1:]))):
        return None
    if thought.open and thought.open in rest:
        return None
    return rest if end < 0 else rest.lstrip()


def settled(thought: Thought | None, texts: Iterable[str]) -> Thought | None:
    """`thought` with `opened` decided by the responses: one that closes what it never opened shows that the prompt did."""
    if thought is None or thought.opened is not None:
        return thought
    opens = thought.open.removeprefix("^")
    alone = any(opens not in text.partition(thought.close)[0] for text in texts if thought.close in text)
    return replace(thought, opened=alone)


def unclosed(run: pd.DataFrame, thought: Thought | None) -> np.ndarray:
    """[rows] whether a response never closed its thought."""
    if thought is None or "text" not in run.columns:
        return np.zeros(len(run), dtype=bool)
    texts = run["text"].tolist()
    thought = settled(thought, (text for text in texts if isinstance(text, str)))
    return np.array([isinstance(text, str) and answer_part(text, thought) is None for text in texts], dtype=bool)


def marked(run: pd.DataFrame, thought: Thought | None) -> pd.DataFrame:
    """`run` whose responses with an unclosed thought are unfinished (finish_reason "length"): no verdict, in no list."""
    never = unclosed(run, thought)
    if not never.any():
        return run
    reasons = run["finish_reason"] if "finish_reason" in run.columns else np.full(len(run), "stop", dtype=object)
    return run.assign(finish_reason=np.where(never, "length", reasons))


def of_task(task: Task, thought: Thought | None) -> Task:
    """`task` whose verifier and extractor read what follows the thought."""
    if thought is None:
        return task
    judge = task.verifier and partial(_judged, task.verifier, thought)
    return replace(task, verifier=judge, extract=_extractor(task.extract, thought))


def of_verifier(verifier: Verifier, thought: Thought | None) -> Verifier:
    """`verifier` that reads what follows the thought."""
    if thought is None:
        return verifier
    judge = partial(_judged, verifier.judge, thought)
    return replace(verifier, judge=judge, extract=_extractor(verifier.extract, thought))


def _extractor(extract: Callable[[str], Hashable | None] | None, thought: Thought):
    """`extract` of the answer part. Gold solutions are read by it too: a text without tags is all answer."""
    return extract and partial(_extracted, extract, replace(thought, opened=False))


@linear
def _judged(judge: Callable[[str, str | None], bool | float], thought: Thought, text: str, gold: str | None):
    part = answer_part(text, thought)
    return False if part is None else judge(part, gold)


@linear
def _extracted(extract: Callable[[str], Hashable | None], thought: Thought, text: str) -> Hashable | None:
    part = answer_part(text, thought)
    return None if part is None else extract(part)


# -- in words ------------------------------------------------------------------------------------------------------


def in_words(never: int, responses: int) -> str:
    """How many responses never closed their thought."""
    return f"{never:,} of {responses:,} responses never closed their thought: unfinished, so no answer of theirs counts"


def suspicion(run: pd.DataFrame, thought: Thought | None, option: str | None) -> str | None:
    """A line where responses hold tags that nobody named: their thoughts are judged as if they were answers."""
    if thought is not None or option == NONE or "text" not in run.columns:
        return None
    texts = [text for text in run["text"].tolist() if isinstance(text, str)]
    for opening, close in KNOWN:
        if count := sum(close in text for text in texts):  # three times quicker than str.contains
            return (
                f"{count:,} of {len(run):,} responses hold {close}, and nothing says that it ends a thought: "
                f"--thought '{opening},{close}' judges what follows it, --thought none says that it is text"
            )
    return None
