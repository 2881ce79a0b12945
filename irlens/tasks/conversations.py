"""A row's conversation up to its last user message: what a policy is asked, from a text or from chat messages."""

from __future__ import annotations

from irlens.base import jsons
from irlens.base.errors import UserError

PROMPTS = ("context_messages", "prompt", "messages", "question", "problem", "query")  # the first that a row has counts
CHATS = ("context_messages", "prompt", "messages")
WHERE_A_LIST = ("context_messages", "messages")  # a table without nested values holds them as JSON


def fields_of(row: dict) -> tuple[str, ...]:
    """Where rows like this one have their prompt: chats under any of their names, else what this row has; or nowhere."""
    found = next((name for name in PROMPTS if name in row), None)
    return CHATS if found in CHATS else (found,) if found else ()


def of_row(row: dict, where: str, fields: tuple[str, ...] = CHATS) -> tuple[list[dict[str, str]], bool]:
    """(messages, whether an answer follows them): the prompt of a row, or without fields what its two responses share.

    Raises UserError, beginning with `where`: no prompt, messages that are none, no user message or an empty one.
    """
    if not fields:
        return _shared(row, where)
    field = next((name for name in fields if name in row), "prompt" if fields == CHATS else fields[0])
    return up_to_last_user(row.get(field), field, where)


def up_to_last_user(found, field: str, where: str) -> tuple[list[dict[str, str]], bool]:
    """The conversation in `found`, a text or a list of messages; what comes after the last user message is an answer."""
    messages = read(found, field, where)
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    if last < 0 or not messages[last]["content"].strip():
        raise UserError(f"{where}: {field} has no user message, or an empty one")
    return messages[: last + 1], last + 1 < len(messages)


def read(found, field: str, where: str) -> list[dict[str, str]]:
    """Messages of role and content, both texts; a text alone is what a user says."""
    if isinstance(found, str) and field in WHERE_A_LIST:
        try:
            found = jsons.loads(found)
        except ValueError:
            raise UserError(f"{where}: {field} must be a list of messages, got {found!r:.80}") from None
    if isinstance(found, str):
        found = [{"role": "user", "content": found}]
    found = found.tolist() if hasattr(found, "tolist") else found  # Parquet may give arrays
    if not isinstance(found, list) or not found:
        what = "be a list of messages (or prompt a string)" if field in ("prompt", *WHERE_A_LIST) else "be a text"
        raise UserError(f"{where}: {field} must {what}, got {found!r:.80}")
    return [_message(message, where) for message in found]


def _message(message, where: str) -> dict[str, str]:
    role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
    content = content.tolist() if hasattr(content, "tolist") else content
    if isinstance(content, list):
        content = _of_parts(content, where)
    if not isinstance(role, str) or not isinstance(content, str):
        raise UserError(f"{where}: a message needs role and content, both strings, got {message!r:.80}")
    return {"role": role, "content": content}


def _of_parts(parts: list, where: str) -> str:
    """OpenAI's content parts as one text, a line apart. Raises UserError for a part that is no text, such as an image."""
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind not in ("text", "input_text") or not isinstance(part.get("text"), str):
            raise UserError(f"{where}: a message has a part of type {kind!r}; only text can be read")
        texts.append(part["text"])
    return "\n".join(texts)


def _shared(row: dict, where: str) -> tuple[list[dict[str, str]], bool]:
    """The prompt that stands in both conversations of a pair, as TRL takes it where none is given."""
    if isinstance(row.get("chosen"), str):
        raise UserError(f"{where}: chosen is a text, so the row needs a prompt; say which: --columns prompt=COLUMN")
    chosen, _ = up_to_last_user(row["chosen"], "chosen", where)
    rejected = read(row.get("rejected"), "rejected", where)
    if rejected[: len(chosen)] != chosen:
        raise UserError(f"{where}: chosen and rejected do not answer the same messages")
    return chosen, True
