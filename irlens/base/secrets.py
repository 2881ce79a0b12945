"""Secrets left out: of every line, message, manifest, log and key; the one place that knows what one looks like.

A secret is what stands in a URL before the @ or as a value of its query, the value of a name such as `api_key` in JSON or
a header, a key of a known form, and the value of every environment variable that is named like a secret, wherever it
turns up: a server may echo it.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote, unquote

MARK = "***"  # what stands in the place of a secret
LEAST, SHORT = 8, 6  # letters from which a value is looked for anywhere, and in messages where it stands alone
PLACEHOLDERS = frozenset(  # what is given where none is needed
    ["no-key-required", "sk-no-key-required", "placeholder", "undefined", "token-abc123", "dummy-key"]
)
WORDS = frozenset(
    [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "secrets",
        "credential",
        "credentials",
        "authorization",
        "bearer",
        "apikey",
        "cookie",
        "pat",
        "auth",
    ]
)
KEYS = frozenset(  # api_key, access_key, …
    [
        "api",
        "access",
        "secret",
        "private",
        "account",
        "auth",
        "service",
        "subscription",
        "encryption",
        "session",
        "ssh",
        "signing",
        "master",
        "client",
    ]
)
NOT_TOKENS = frozenset(  # a model's own: pad_token
    [
        "pad",
        "eos",
        "bos",
        "unk",
        "cls",
        "sep",
        "mask",
        "end",
        "start",
        "stop",
        "per",
        "image",
        "audio",
        "video",
        "special",
        "first",
        "last",
        "next",
        "think",
        "generation",
    ]
)
VARIABLES = WORDS | {"key", "keys", "token", "tokens", "pass"}
PROSE = WORDS - {"secret", "secrets", "bearer", "pat", "auth"}  # a secret before a plain colon too
URL = re.compile(r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]*://)([^\s\"'<>,\\]*)", re.I)
NAMED = re.compile(  # "api_key": "…", api_key=…, Authorization: Bearer …, in JSON, reprs and headers
    r"""(?P<name>[A-Za-z][\w-]{1,60})(?P<is>\\?["']?\s*[:=]\s*)"""
    r"""(?P<value>\[[^\]]*\]|\\"(?:(?!\\").)*\\"|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|(?:(?:Bearer|Basic)\s+)?[^\s,;&"'}\])]+)"""
)
FORMS = re.compile(  # OpenAI and Anthropic, Hugging Face, GitHub, AWS, Google, Slack; and what follows Bearer
    r"\bsk-[\w-]{16,}|\bhf_[A-Za-z0-9]{16,}|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bAKIA[A-Z0-9]{16}\b|\bAIza[\w-]{30,}"
    r"|\bxox[abpr]-[\w-]{10,}|\bglpat-[\w-]{16,}|(?<=\bBearer )[\w.~+/=-]{8,}|(?<=\bBasic )[\w+/=-]{8,}"
)
_learned: dict[str, None] = {}  # values that are secrets whatever stands around them


# -- what is one ---------------------------------------------------------------------------------------------------


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def is_name(name: str) -> bool:
    """Whether what has this name is a secret: api_key, hf_token, X-Api-Key, Authorization; not max_tokens, pad_token."""
    words = _words(name)
    if not words or words[-1] in ("env", "file", "path", "type", "name"):
        return False
    if WORDS & set(words):
        return True
    if words[-1] in ("key", "keys"):
        return len(words) > 1 and bool(KEYS & set(words[:-1]))
    return words[-1] == "token" and not NOT_TOKENS & set(words[:-1])


def _is_variable(name: str, value: str) -> bool:
    plain = value.isdigit() or value.lower() in PLACEHOLDERS or os.path.isabs(value)
    return not plain and bool(VARIABLES & set(_words(name)))


def _is_secret(name: str, value: object) -> bool:
    return isinstance(value, (str, bytes, list, tuple, dict)) and bool(value) and is_name(name)


def learn(*values: str | None) -> None:
    """Has these left out from now on, and what is secret in them: a URL's user and query, the values of a JSON."""
    for value in filter(None, values):
        if len(value) >= SHORT and value.lower() not in PLACEHOLDERS:
            _learned.update(dict.fromkeys(_forms(value)))


def learn_from(text: str | None) -> None:
    """Has the secrets that stand in an option's text left out wherever they turn up."""
    for _, rest in URL.findall(text or ""):
        learn(*_parts_of_url(rest))
    learn(*_in_json(text or ""))


def _forms(value: str) -> Iterator[str]:
    """A secret as it may be written: as it is, in a URL, in JSON, and as Basic authorization has it."""
    for one in {value: 0, value.strip(): 0, unquote(value): 0}:
        yield from (one, quote(one, safe=""), quote(one), json.dumps(one)[1:-1])
        yield base64.b64encode(one.encode("utf-8", "replace")).decode()


def _parts_of_url(rest: str) -> Iterator[str]:
    """user:password, the password (the user where there is none), and secret values of the query, of what follows
    `scheme://`."""
    held, at, _ = rest.rpartition("@")
    if at and held:
        user, colon, password = held.partition(":")
        yield from (held, password) if colon else (user,)
    for part in re.split(r"[?&#;]", rest)[1:]:
        name, is_, value = part.partition("=")
        if is_ and (is_name(name) or name.lower() in ("key", "sig", "signature", "code", "sas")):
            yield value


def _in_json(text: str) -> Iterator[str]:
    """The texts below names of secrets in a JSON document; none in anything else."""
    if text.lstrip()[:1] not in ("{", "["):
        return
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return
    yield from _below(found, False)


def _below(value: object, secret: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _below(one, secret or _is_secret(str(name), one))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _below(one, secret)
    elif isinstance(value, str):
        if secret:
            yield value
        else:
            for _, rest in URL.findall(value):
                yield from _parts_of_url(rest)


def _known(least: int) -> list[str]:
    """Every value that is left out as such, the longest first."""
    return _sorted(frozenset(os.environ.items()), frozenset(_learned), least)


@functools.lru_cache(maxsize=8)
def _sorted(environment: frozenset[tuple[str, str]], learned: frozenset[str], least: int) -> list[str]:
    found = set(learned)
    for name, value in environment:
        if len(value) >= SHORT and _is_variable(name, value):
            found |= set(_forms(value))
        elif "://" in value and "@" in value:
            found |= {form for _, rest in URL.findall(value) for one in _parts_of_url(rest) for form in _forms(one)}
    return sorted((value for value in found if len(value) >= least), key=lambda value: (-len(value), value))


# -- left out ------------------------------------------------------------------------------------------------------


def redact(text: str, least: int = SHORT) -> str:
    """`text` with *** in the place of every secret; those that are known by their value from `least` letters on."""
    for value in _known(least):
        if value in text:
            alone = rf"(?<!\w){re.escape(value)}(?!\w)" if len(value) < LEAST else re.escape(value)
            text = re.sub(alone, MARK, text)
    if "://" in text:
        text = URL.sub(lambda found: found[1] + _without(found[2]), text)
    if ":" in text or "=" in text:
        text = NAMED.sub(_named, text)
    return FORMS.sub(MARK, text)


def _without(rest: str) -> str:
    """What follows `scheme://`, without user and values of the query."""
    held, at, place = rest.rpartition("@")
    place, mark, query = place.partition("?")
    shown = re.sub(r"=[^&#;]*", f"={MARK}", query)
    return (f"{MARK}@" if at and held else at) + place + mark + shown


def _named(found: re.Match) -> str:
    value = found["value"].strip("\\\"'[]")
    if not value or value == MARK or value in ("None", "null", "True", "False", "true", "false"):
        return found[0]
    if found["is"].strip() == ":" and len(words := _words(found["name"])) == 1 and words[0] not in PROSE:
        return found[0]  # as in "the token: …"
    if not is_name(found["name"]) or value.isdigit():
        return found[0]
    edge = found["value"][:2] if found["value"].startswith('\\"') else found["value"][:1]
    quoted = edge in ('"', "'", '\\"')
    return found["name"] + found["is"] + (f"{edge}{MARK}{edge}" if quoted else MARK)


def redacted(value):
    """The same of what a manifest or a key holds: dictionaries and lists of plain values."""
    return _over(value, True)


def without(value):
    """What makes a result what it is: plain values from which secrets are gone with their names, so that another password
    is the same result."""
    return _over(value, False)


def _over(value, marked: bool):
    if isinstance(value, Mapping):
        secret = {name for name, one in value.items() if _is_secret(str(name), one)}
        kept = {name: _over(one, marked) for name, one in value.items() if name not in secret}
        return {name: kept.get(name, MARK) for name in value if marked or name not in secret}
    if isinstance(value, (list, tuple)):
        return [_over(one, marked) for one in value]
    if not isinstance(value, str):
        return value
    return redact(value if marked else without_text(value) or "", LEAST)


def without_text(text: str | None) -> str | None:
    """An option's JSON without its secrets; any other text as it is."""
    if text is None or next(_in_json(text), None) is None:
        return text
    return json.dumps(without(json.loads(text)), sort_keys=True)


def argv(words: list[str]) -> list[str]:
    """The words of a command line; one that follows the name of a secret is one."""
    return [
        MARK if i and words[i - 1].startswith("-") and is_name(words[i - 1]) else redact(word)
        for i, word in enumerate(words)
    ]


def held_in(text: str) -> bool:
    """Whether an option's text holds a secret: a URL with a user or a key, a name of one with its value, a known form."""
    in_url = any(next(_parts_of_url(rest), None) is not None for _, rest in URL.findall(text))
    return in_url or next(_in_json(text), None) is not None or FORMS.sub(MARK, NAMED.sub(_named, text)) != text


# -- of a process --------------------------------------------------------------------------------------------------


class _Stream:
    """A stream of this process whose lines have no secrets."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextmanager
def kept_off_streams() -> Iterator[None]:
    """While open, what this process writes on its standard streams has no secrets: the words of libraries too, and the
    trace of the fault that ends it."""
    before, known = (sys.stdout, sys.stderr), dict(_learned)
    sys.stdout, sys.stderr = _Stream(before[0]), _Stream(before[1])
    threading.excepthook = lambda told: _trace(told.exc_type, told.exc_value, told.exc_traceback)
    try:
        yield
    except Exception:
        sys.excepthook = _trace  # now, for the command-line parser has put in one of its own
        raise
    except BaseException:  # how a command ends
        _forget(known)
        raise
    else:
        _forget(known)
    finally:
        sys.stdout, sys.stderr = before


def _forget(known: dict[str, None]) -> None:
    _learned.clear()
    _learned.update(known)


def _trace(kind, error, trace) -> None:
    """The trace of a fault, as Python writes it."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
