"""An answer of OpenAI's completions protocol, checked: what breaks the protocol is no draw."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from irlens.retrieve.engines.http import Broken, plain

TOKEN_ID = re.compile(r"token_id:(\d{1,10})")  # a token as `vllm serve --return-tokens-as-token-ids` writes it


@dataclass(frozen=True)
class Choice:
    """One response. logprobs: of its sampled tokens, in nats; tokens: their ids. None where the server tells none."""

    text: str
    finish_reason: str
    logprobs: list[float] | None
    tokens: tuple[int, ...] | None

    @property
    def logprob(self) -> float:
        return math.nan if self.logprobs is None else math.fsum(self.logprobs)


@dataclass(frozen=True)
class Answer:
    """All choices of an answer, by index, and the tokens of the prompt and of all choices, where it tells them."""

    choices: list[Choice]
    prompt_tokens: int | None
    completion_tokens: int | None


def read(found) -> Answer:
    """The answer that a JSON document is. Raises Broken for what is none.

    Its choices have the numbers from 0 on, each once: the seed of a draw goes with its number.
    """
    choices = _dict(found, "the answer").get("choices")
    if not isinstance(choices, list) or not choices:
        raise Broken("an answer without choices")
    for choice in choices:
        _dict(choice, "a choice")
    if any("index" in choice for choice in choices):
        numbers = [choice.get("index") for choice in choices]
        if any(type(number) is not int for number in numbers) or sorted(numbers) != list(range(len(numbers))):
            raise Broken(f"an answer whose choices are numbered {', '.join(map(_shown, numbers[:8]))}")
        choices = sorted(choices, key=lambda choice: choice["index"])
    usage = found.get("usage")
    usage = {} if usage is None else _dict(usage, "the usage")
    counts = [_count(usage, name) for name in ("prompt_tokens", "completion_tokens")]
    return Answer([_choice(choice) for choice in choices], *counts)


def token_counts(answer: Answer, tokenizer) -> list[int]:
    """Tokens of each choice: as its log-probabilities show, as the only one's usage says, else counted from the text."""
    shown = [len(choice.logprobs or ()) for choice in answer.choices]
    if all(shown):
        return shown
    total = answer.completion_tokens
    if len(answer.choices) == 1 and total:
        return [total]
    texts = [choice.text for choice in answer.choices]
    if tokenizer is not None:
        own = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [len(ids) + (choice.finish_reason == "stop") for ids, choice in zip(own, answer.choices)]
    share = (total or 0) / max(1, sum(map(len, texts)))
    return [max(1, round(len(text) * share)) for text in texts]


# -- a choice ------------------------------------------------------------------------------------------------------


def _choice(choice: dict) -> Choice:
    logprobs = _token_logprobs(choice)
    return Choice(_text(choice), _finish(choice), logprobs, _tokens(choice, logprobs))


def _text(choice: dict) -> str:
    """The text; "" for null, which a server writes where a model ended at once."""
    holder = _dict(choice["message"], "a message") if "message" in choice else choice
    name = "content" if "message" in choice else "text"
    if "message" not in choice and name not in choice:
        raise Broken("a choice without text")
    text = holder.get(name)
    if text is not None and not isinstance(text, str):
        raise Broken(f"a choice whose text is {_shown(text)}")
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise Broken("a choice whose text has half of a surrogate pair") from error
    return text or ""


def _finish(choice: dict) -> str:
    reason = choice.get("finish_reason", 0)
    if reason is not None and not isinstance(reason, str):
        raise Broken("a choice that does not say why it ended")
    return "stop" if reason == "stop" else "length"


def _token_logprobs(choice: dict) -> list[float] | None:
    """Log-probabilities of the sampled tokens in either form (completions', chat's); None without them."""
    given = choice.get("logprobs")
    given = {} if given is None else _dict(given, "logprobs")
    found = given.get("token_logprobs")
    if given.get("content"):
        found = [_dict(token, "a token").get("logprob") for token in _list(given["content"], "logprobs")]
    if not found or None in _list(found, "logprobs"):
        return None
    for value in found:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise Broken(f"a choice with the log-probability {_shown(value)}")
    return [float(value) for value in found]


def _tokens(choice: dict, shown: Sequence[float] | None) -> tuple[int, ...] | None:
    """The ids drawn, as vLLM tells them (`return_token_ids`, or `token_id:7` in the place of a token); else None.

    None too where there are not as many as log-probabilities: then one of the two leaves something out.
    """
    ids = choice.get("token_ids")
    if not ids:
        given = choice.get("logprobs") or {}
        content = given.get("content")
        names = [token.get("token") for token in content] if content else given.get("tokens") or []
        found = [TOKEN_ID.fullmatch(str(name)) for name in _list(names, "tokens")]
        ids = [int(match[1]) for match in found] if all(found) else []
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < 2**31 for i in ids):
        return None
    return tuple(ids) if ids and len(ids) == len(shown or ids) else None


# -- what JSON holds -----------------------------------------------------------------------------------------------


def _shown(value) -> str:
    """A value of JSON in a message: containers by their kind, as they may be deep."""
    return {dict: "an object", list: "a list"}.get(type(value)) or plain(json.dumps(value), 40)


def _dict(value, what: str) -> dict:
    if not isinstance(value, dict):
        raise Broken(f"an answer in which {what} is {_shown(value)}")
    return value


def _list(value, what: str) -> list:
    if not isinstance(value, list):
        raise Broken(f"an answer in which {what} is {_shown(value)}")
    return value


def _count(usage: dict, name: str) -> int | None:
    value = usage.get(name)
    if value is not None and (type(value) is not int or not 0 <= value < 2**53):
        raise Broken(f"an answer whose usage says {name}: {_shown(value)}")
    return value
