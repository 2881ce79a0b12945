"""One request to a server: its answer whole, within limits of time and size, and what it says where it says no."""

import json
import math
import os
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial

from irlens.base import secrets
from irlens.base.errors import UserError

LONGEST_TOLD = 300.0  # seconds, as a server's Retry-After may ask
LEAST_BODY = 2**20  # bytes that any answer may have
WORDS = 120  # characters of a server's own words in a message


class Broken(ValueError):
    """An answer that breaks the protocol; asking again may help."""


@dataclass(frozen=True)
class Response:
    """Status, headers (names in lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes


def key_of(name: str, base_url: str | None) -> str | None:
    """The server's key, in the variable `name`. It, and what --base-url holds, is left out of every line from here on.

    Raises UserError for what is no name of a variable, since it may be the key itself, and for a key that no header holds.
    """
    if name not in os.environ and not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
        secrets.learn(name)
        raise UserError(
            "--api-key-env: takes the name of an environment variable that holds the key, not the key itself"
        )
    key = (os.environ.get(name) or "").strip() or None
    secrets.learn(key)
    secrets.learn_from(base_url)
    if key and not (key.isascii() and key.isprintable()):
        raise UserError(f"--api-key-env {name}: what it holds has characters that no header can hold")
    return key


def at(url: str, path: str) -> str:
    """A path below a server's URL, whose query, where it has one, stays."""
    place, mark, query = url.partition("?")
    return place.rstrip("/") + path + mark + query


def client(key: str | None, timeout: float, concurrency: int):
    """An HTTP client for so many requests at once."""
    import httpx2

    headers = {"Accept-Encoding": "identity"}  # a small packed answer may be a huge one
    return httpx2.Client(
        headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
        timeout=httpx2.Timeout(timeout, connect=min(10.0, timeout)),
        limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
    )


def fetch(client, method: str, url: str, most: int = LEAST_BODY, **more) -> Response:
    """The answer to one request, read within the client's time limit and up to `most` bytes.

    Raises Broken: too long, too slow, in an encoding that it does not have; and httpx2.TransportError.
    """
    import httpx2

    seconds = client.timeout.read
    ends = time.monotonic() + seconds
    held: list = []  # the connection, once there is an answer
    try:
        with client.stream(method, url, extensions={"trace": partial(_check_end, held)}, **more) as response:
            held.append(_connection(response.stream))
            parts, size = [], 0
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > most:
                    raise Broken(f"an answer of more than {most:,} bytes")
                if time.monotonic() > ends:  # each part came in time, the whole does not
                    raise Broken(f"an answer that is not over after {seconds:g} seconds")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Response(response.status_code, headers, b"".join(parts))
    except httpx2.DecodingError as error:
        raise Broken(f"an answer that is not in the encoding that it names: {plain(str(error))}") from error


def _connection(stream):
    """What a stream of httpx2 reads from; None where it is not found: it has no public way there."""
    for name in ("_stream", "_httpcore_stream", "_stream", "_connection"):
        stream = getattr(stream, name, None)
    return stream


def _check_end(held: list, event: str, told: dict) -> None:
    """Closes a connection on which more came than the answer: it would be taken for the answer to the next request.

    Raises Broken then. What comes later than that is seen by the pool, which drops a connection that speaks unasked.
    """
    if event != "http11.receive_response_body.complete" or not held or held[0] is None:
        return
    if held[0]._h11_state.trailing_data[0]:
        held[0].close()
        raise Broken("more than one answer to a request")


def parsed(body: bytes):
    """A body's JSON. Raises Broken, with its first words, for anything else."""
    try:
        return json.loads(body)
    except RecursionError as error:
        raise Broken("an answer that cannot be read: its JSON is nested too deeply") from error
    except ValueError as error:
        text = plain(body[: 4 * WORDS].decode("utf-8", errors="replace"))
        raise Broken(f"an answer that cannot be read as JSON: {text or 'nothing'}") from error


def message(response: Response) -> str:
    """The server's own words, in one short line; where it points to another place, which."""
    if 300 <= response.status < 400 and "location" in response.headers:
        return plain(f"it points to {response.headers['location']}")
    try:
        found = parsed(response.body)
    except Broken:
        return plain(response.body[: 4 * WORDS].decode("utf-8", errors="replace"))
    error = found.get("error", found) if isinstance(found, dict) else found
    try:
        return plain(str(error.get("message", error) if isinstance(error, dict) else error))
    except RecursionError:
        return ""


def plain(text: str, most: int = WORDS) -> str:
    """`text` in one line without secrets and control characters, cut after `most` characters."""
    told = secrets.redact(text[: 64 * most])[: 8 * most]
    line = " ".join("".join(c if c.isprintable() else " " for c in told).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def retry_after(headers: dict[str, str]) -> float | None:
    """Seconds that the server asks to wait (a number or a date), at most LONGEST_TOLD; None if it does not ask."""
    told = headers.get("retry-after")
    if told is None:
        return None
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_TOLD) if math.isfinite(seconds) else None
