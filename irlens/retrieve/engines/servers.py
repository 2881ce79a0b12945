"""Servers that all serve one model, asked until one answers: what a busy or dying one spoils is asked for again."""

from __future__ import annotations

import json
import random
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from irlens.base.errors import UserError
from irlens.retrieve.engines import http
from irlens.retrieve.engines.http import Broken, Response

TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)
TRIES = 10  # of one request; with the longest pauses about four minutes
LONGEST_PAUSE = 30.0  # seconds between tries
TOKEN_BODY = 4096  # bytes of an answer that a token may take, with its log-probabilities and ids
DOWN = 10.0  # seconds for which a server that dropped a connection is passed over

Read = TypeVar("Read")


class Refused(UserError):
    """The server will not do it, however often it is asked."""


class Servers:
    """Servers at `urls` (each ending in /v1). Any thread may ask; once `stop` is set nothing is asked any more.

    kept: how a message ends that a request was given up with: what is kept, and how to go on.
    """

    def __init__(
        self, urls: Sequence[str], key: str | None, *, concurrency: int, timeout: float, tries: int, pause: float, kept: str
    ):  # fmt: skip
        self.urls, self.tries, self.pause, self.kept = list(urls), tries, pause, kept
        self.down = dict.fromkeys(self.urls, 0.0)
        self.stop = threading.Event()
        self.failure: BaseException | None = None  # what made it stop
        self.client = http.client(key, timeout, concurrency)

    def post(
        self,
        path: str,
        body: dict,
        name: str,
        tokens: int,
        read: Callable[[object], Read],
        refused: Callable[[str, Response], Read],
    ) -> Read:
        """What `read` makes of the JSON that answers a request of this name, of up to so many tokens.

        `read` raises Broken for what is worth another try; `refused(url, response)` gives, or raises, what comes of a
        refusal. Raises UserError: given up, stopped.
        """
        import httpx2

        why, most = "", http.LEAST_BODY + TOKEN_BODY * tokens
        sent = {"content": json.dumps(body).encode(), "headers": {"Content-Type": "application/json"}}
        for attempt in range(self.tries):
            if self.stop.is_set():
                raise self.failure or UserError("interrupted")
            url, told = self._server(name), None
            try:
                response = http.fetch(self.client, "POST", http.at(url, path), most, **sent)
                if 200 <= response.status < 300:
                    return read(http.parsed(response.body))
                if response.status not in TRY_AGAIN:
                    return refused(url, response)
                why = f"{response.status} {http.message(response)}"
                told = http.retry_after(response.headers)
            except httpx2.TransportError as error:
                why = http.plain(f"{type(error).__name__} {error}")
                self.down[url] = time.monotonic() + DOWN
            except Broken as error:
                why = str(error)
            except RuntimeError as error:  # the client was closed under us
                if not self.stop.is_set():
                    raise
                raise self.failure or UserError("interrupted") from error
            if attempt + 1 < self.tries:
                longest = min(LONGEST_PAUSE, self.pause * 2**attempt)
                self.stop.wait(longest * random.uniform(0.5, 1.0) if told is None else told + random.uniform(0, 0.1))
        raise UserError(
            f"{place(url)}: gave up after {self.tries} tries for {http.plain(name, 40)}: {http.plain(why, 100)}; {self.kept}"
        )

    def _server(self, name: str) -> str:
        """The server of a name, the same one as long as it is up (it holds the prompt's prefix), else another."""
        now, first = time.monotonic(), zlib.crc32(name.encode())
        turn = [self.urls[(first + i) % len(self.urls)] for i in range(len(self.urls))]
        return next((url for url in turn if self.down[url] <= now), turn[0])


def explain(url: str, status: int, why: str, name: str, key_env: str = "the --api-key-env variable") -> str:
    """A refusal in words."""
    where, why = place(url), http.plain(why, 80)
    if status in (401, 403):
        return f"{where}: refused the key ({status}): {why}; set {key_env} to one that it takes"
    if status == 404:
        return f"{where}: not found: {why}; check --base-url and --served-model"
    return f"{where}: refused the request for {http.plain(name, 40)}: {why}"


def place(url: str) -> str:
    """A URL in a message."""
    return http.plain(url, 70)
