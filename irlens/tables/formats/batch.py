"""Batch outputs of OpenAI's API and of `vllm run-batch`: a line per request, with all its choices.

A line is `custom_id, response: {status_code, body: {model, choices}}, error`. It does not hold the prompt: that is in the
file of requests (`custom_id, body: {messages or prompt, temperature}`). Source: OpenAI's Batch API, vLLM's run_batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from irlens.base.errors import UserError
from irlens.base.files import read_jsonl
from irlens.tables.formats.draws import About, Draw, Log, count, number, objects, part, prompt, text_of

KEYS = "custom_id, response (or error)"


def fits(row: dict) -> bool:
    """Whether a row is a batch's answer to one request."""
    return "custom_id" in row and ("response" in row or "error" in row)


def read(rows: Iterable[tuple[str, dict]], about: About) -> Log:
    """Raises UserError, naming the line: an id twice, one that no request has, a body without choices.

    Requests of one prompt are one query. Failed requests are left out and counted.
    """
    asked = _requests(about.requests) if about.requests else None
    log, seen = Log([]), dict[str, str]()
    for where, row in rows:
        if not fits(row):
            raise UserError(f"{where}: a batch's output needs {KEYS}; found: {', '.join(row)}")
        key = str(row["custom_id"])
        if seen.setdefault(key, where) != where:
            raise UserError(f"{where}: custom_id {key!r} again, as in {seen[key]}")
        answer = part(row, "response", dict, where)
        if row.get("error") or answer.get("status_code", 200) != 200:
            log.left_out["requests that failed"] += 1
            continue
        if asked is not None and key not in asked:
            raise UserError(f"{where}: custom_id {key!r} is in no line of --requests {about.requests}")
        body = part(answer, "body", dict, where) if "body" in answer else answer
        choices = objects(part(body, "choices", list, where), "choices", where)
        if not choices:
            raise UserError(f"{where}: the response has no choices; found: {', '.join(body)}")
        log.model = log.model or body.get("model")
        told = {"query_id": key} if asked is None else asked[key]
        tokens = count(part(body, "usage", dict, where).get("completion_tokens")) if len(choices) == 1 else None
        for choice in sorted(choices, key=lambda choice: number(choice.get("index")) or 0):
            log.draws.append(_draw(choice, where, told, tokens))
    if asked is None:
        log.notes.append("a batch's output holds no prompts: --requests FILE, the batch's input, tells them")
    return log


def _draw(choice: dict, where: str, told: dict, tokens: int | None) -> Draw:
    message = part(choice, "message", dict, where)
    text = message.get("content") if message else choice.get("text")
    if text is None and not message:
        raise UserError(f"{where}: a choice needs message or text; found: {', '.join(choice)}")
    told_of = part(part(choice, "logprobs", dict, where), "content", list, where)
    objects(told_of, "logprobs", where)
    logprobs = [value for token in told_of if (value := number(token.get("logprob"))) is not None]
    logprob = sum(logprobs) if told_of and len(logprobs) == len(told_of) else None
    return Draw(
        where,
        text_of(text, where),
        finish_reason=choice.get("finish_reason"),
        n_tokens=tokens,
        logprob=logprob,
        **told,
    )


def _requests(path: Path) -> dict[str, dict]:
    """custom_id → query, messages, temperature (the API's default is 1)."""
    found = {}
    for line, row in read_jsonl(path):
        where, body = f"{path}:{line}", row.get("body")
        if "custom_id" not in row or not isinstance(body, dict) or not {"messages", "prompt"} & body.keys():
            raise UserError(
                f"{where}: a request needs custom_id and body with messages or prompt; found: {', '.join(row)}"
            )
        query, messages = prompt(body.get("messages", body.get("prompt")), where)
        heat = number(body.get("temperature"))
        found[str(row["custom_id"])] = {
            "query": query,
            "messages": messages,
            "temperature": 1.0 if heat is None else heat,
        }
    return found
