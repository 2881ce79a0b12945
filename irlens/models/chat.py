"""The one way from a topic to token ids: topic → messages → text → ids of a prompt, and the ids of its responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from irlens.base.errors import UserError
from irlens.models.catalog import PLAIN_PROMPT

if TYPE_CHECKING:
    import pandas as pd

MESSAGES_AS = {  # how messages are put where a chat template does not take them as they are
    "user": "a system prompt goes before the first user turn",
    "text": "all messages become one user turn, with their roles",
}
SYSTEM = ("system", "developer")
REPLY = "reply"  # what an assistant says where only the text after it matters


# -- prompts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """A templated prompt: exactly the text whose tokens the model reads, and the messages that it was made from."""

    query_id: str
    text: str
    messages: tuple[dict, ...] = ()


def prompts(
    topics: pd.DataFrame, tokenizer, instruction: str = "", messages_as: str | None = None, model: str = "the model"
) -> list[Prompt]:
    """The text that the model reads for each topic: the tokenizer's chat template, else `PLAIN_PROMPT`.

    `instruction` follows the question in a chat; a model without a template is not told it. A topic's own `messages`
    are used as they are, or as `messages_as` says (`MESSAGES_AS`). A chat server's model has no tokenizer here (None):
    it gets the messages. Raises UserError, naming `model`, for messages that cannot be put.
    """
    own = topics["messages"] if "messages" in topics.columns else [None] * len(topics)
    talks = conversations(topics, instruction)
    out = []
    for query_id, query, given in zip(topics["query_id"], topics["query"], own):
        messages, text = put(talks[query_id], messages_as), PLAIN_PROMPT.format(query=query)
        if tokenizer is not None:
            alone = query if given is None else None
            text = prompt_text(tokenizer, messages, alone, f"{query_id}, read by {model}")
        out.append(Prompt(query_id, text, tuple(messages)))
    return out


def template(tokenizer) -> str:
    """What the manifest records as the prompt template."""
    return getattr(tokenizer, "chat_template", None) or PLAIN_PROMPT


def conversations(topics: pd.DataFrame, instruction: str = "") -> dict[str, list[dict]]:
    """query_id → the messages that are answered: the topic's own, else its query and what the task adds to it."""
    given = topics["messages"] if "messages" in topics.columns else [None] * len(topics)
    plain = (f"{query}\n\n{instruction}".rstrip() for query in topics["query"])
    return {
        query_id: [{"role": "user", "content": text}] if messages is None else [dict(m) for m in messages]
        for query_id, text, messages in zip(topics["query_id"], plain, given)
    }


def as_text(messages: Sequence[dict]) -> str:
    """A conversation in plain text, for what has no chat template: a single message as it is, else with the roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def put(messages: list[dict], messages_as: str | None) -> list[dict]:
    """`messages` in the form of MESSAGES_AS; as they are for None, or if there is no user turn to put one before."""
    if messages_as == "text":
        return [{"role": "user", "content": as_text(messages)}]
    turns = [dict(m) for m in messages if m["role"] not in SYSTEM]
    first = next((m for m in turns if m["role"] == "user"), None)
    if messages_as is None or first is None:
        return messages
    first["content"] = "\n\n".join([*(m["content"] for m in messages if m["role"] in SYSTEM), first["content"]])
    return turns


def prompt_text(tokenizer, messages: list[dict], query: str | None, what: str) -> str:
    """The text that a model reads: by the tokenizer's chat template, else `PLAIN_PROMPT` with `query`.

    query: the question alone; None for a topic with messages of its own. Raises UserError, beginning with `what`, for
    messages that the template refuses, or that a model without one would lose: a system prompt, a history.
    """
    if getattr(tokenizer, "chat_template", None):
        from jinja2 import TemplateError

        try:
            return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            why = " ".join(str(error).split())
            raise UserError(f"{what}: the model's chat template refuses its messages ({why}); {_say_how()}") from error
    if query is not None:
        return PLAIN_PROMPT.format(query=query)
    if len(messages) > 1 or messages[0]["role"] != "user":
        roles = ", ".join(message["role"] for message in messages)
        raise UserError(
            f"{what}: the model has no chat template, and there are several messages ({roles}); {_say_how()}"
        )
    return PLAIN_PROMPT.format(query=messages[0]["content"])


def _say_how() -> str:
    return "say how they are put: " + ", ".join(f"--messages-as {k} ({v})" for k, v in MESSAGES_AS.items())


def token_ids(tokenizer, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of templated prompts (`text`, `query_id`); a template that writes BOS itself does not get a second one.

    Raises UserError, naming the prompt, if two BOS come out all the same.
    """
    bos = tokenizer.bos_token
    out = [tokenizer(p.text, add_special_tokens=not (bos and p.text.startswith(bos)))["input_ids"] for p in prompts]
    number = getattr(tokenizer, "bos_token_id", None)
    for prompt, ids in zip(prompts, out):
        if number is not None and ids[:2] == [number, number]:
            raise UserError(f"{prompt.query_id}: the templated prompt begins with {bos} twice; check the chat template")
    return out


# -- responses -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Responses:
    """Token ids of responses, and of each whether they are those that were drawn (else its text, tokenised)."""

    ids: list[list[int]]
    drawn: list[bool]


def response_ids(rows: pd.DataFrame, model, tokenizer) -> Responses:
    """The ids of each response in `rows` (text; tokens and finish_reason where known), as sampling would have drawn it.

    The ids drawn (column `tokens`) are taken if this tokenizer reads them as the text and, in a response that ended, the
    last of them stops this model: another model's ids say nothing here. Else the text is tokenised and, unless the
    response was cut off, followed by `end_token`. The model gives its generation_config only; without a model (None) the
    tokenizer's EOS is the only end.
    """
    stops, texts = stop_tokens(model, tokenizer), rows["text"].tolist()
    ended = [True] * len(rows)
    if "finish_reason" in rows.columns:
        ended = [reason != "length" for reason in rows["finish_reason"]]
    given = [known(some) for some in rows["tokens"]] if "tokens" in rows.columns else [None] * len(rows)
    fit = [i for i, ids in enumerate(given) if ids and (ids[-1] in stops or not ended[i])]
    bare = [given[i][:-1] if given[i][-1] in stops else given[i] for i in fit]
    read = tokenizer.batch_decode(bare, skip_special_tokens=True, clean_up_tokenization_spaces=False) if fit else []
    out = {i: given[i] for i, text in zip(fit, read) if _letters(text) == _letters(texts[i])}
    rest = [i for i in range(len(rows)) if i not in out]
    if rest:
        end = end_token(model, tokenizer)
        plain = tokenizer([texts[i] for i in rest], add_special_tokens=False)["input_ids"]
        out |= {i: [*ids, end] if ended[i] or not ids else ids for i, ids in zip(rest, plain)}
    tokenised = set(rest)
    return Responses([out[i] for i in range(len(rows))], [i not in tokenised for i in range(len(rows))])


def origins(rows: pd.DataFrame, model, tokenizer) -> dict[str, int]:
    """How many responses were read by the ids drawn, how many by their text, and how many texts of the former tokenise to
    other ids."""
    found = response_ids(rows, model, tokenizer)
    plain = response_ids(rows.drop(columns="tokens", errors="ignore"), model, tokenizer)
    other = [drawn and one != two for drawn, one, two in zip(found.drawn, found.ids, plain.ids)]
    drawn = sum(found.drawn)
    return {
        "responses_as_drawn": drawn,
        "responses_tokenised": len(rows) - drawn,
        "drawn_that_retokenise_otherwise": sum(other),
    }


def known(tokens) -> list[int] | None:
    """Token ids as a list; None where a table knows none (missing, or empty)."""
    return list(map(int, tokens)) if isinstance(tokens, (list, tuple, np.ndarray)) and len(tokens) else None


def column(some: Sequence[Sequence[int] | None]) -> list[np.ndarray | None]:
    """Token ids as a table holds them: int32, None where unknown."""
    return [np.array(ids, dtype=np.int32) if ids else None for ids in some]


def stop_tokens(model, tokenizer) -> set[int]:
    """The tokens at which sampling from this model ends: those of its generation config, and the tokenizer's EOS."""
    config = getattr(model, "generation_config", None)
    stops = config.eos_token_id if config else None
    return {*(stops if isinstance(stops, list) else [stops]), tokenizer.eos_token_id} - {None}


def end_token(model, tokenizer) -> int:
    """The token that ends a response: of those that stop this model, the first that its chat template writes after one;
    else EOS.

    Raises UserError for a tokenizer without an end-of-sequence token.
    """
    stops = stop_tokens(model, tokenizer)
    if getattr(tokenizer, "chat_template", None) and len(stops) > 1:
        turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": REPLY}]
        after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(REPLY)[2]
        ids = [i for i in tokenizer(after, add_special_tokens=False)["input_ids"] if i in stops]
        if ids:
            return ids[0]
    if tokenizer.eos_token_id is None:
        raise UserError("the model's tokenizer has no end-of-sequence token, so no response of it ever ends")
    return tokenizer.eos_token_id


def _letters(text: str) -> str:
    """A text without white space and half characters, which engines write in their own ways."""
    return "".join(text.split()).replace("\ufffd", "")
