"""Questions to a server of the OpenAI protocol whose answers are wanted whole: log-probabilities of other tokens, calls.

As the openai engine's, requests go out from several threads, and what a busy server spoils is asked for again with
backoff. One question that the server refuses is that question's affair; a refused key or an unknown model ends all.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from irlens.base.errors import UserError
from irlens.retrieve.engines.openai import LONGEST_PAUSE, TRIES, TRY_AGAIN

FATAL = (401, 403, 404, 405)
LONGEST_TOLD = 300.0  # seconds that a server may ask to wait
WORDS = 160  # characters of a server's own words in a line


@dataclass(frozen=True)
class Answer:
    """What a server said: a choice of the protocol, or why it refused. tokens: as its usage counts them."""

    choice: dict
    refused: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class Stopped(Exception):
    """The server was closed while a question was on its way."""


class JudgeServer:
    """Servers at `urls` (each ending in /v1) that all serve `model`. Used as `with`."""

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        *,
        concurrency: int = 64,
        timeout: float = 600.0,
        key: str | None = None,
        tries: int = TRIES,
        pause: float = 0.5,
    ):
        import httpx2

        self.urls, self.model, self.tries, self.pause = list(urls), model, tries, pause
        self.stop = threading.Event()
        self.threads = concurrency
        self.client = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(timeout, connect=min(10.0, timeout)),
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )

    def __enter__(self) -> JudgeServer:
        return self

    def __exit__(self, *error) -> None:
        self.stop.set()
        self.client.close()

    def ask(self, questions: Sequence[tuple[Hashable, dict]], heard: Callable[[Hashable, Answer], None]) -> None:
        """Asks all (key, body of the request), and calls `heard(key, answer)` of each, here, as the answers come.

        Raises UserError once a server is given up, refuses the key, or does not know the model; what had come by then
        was heard.
        """
        jobs: queue.SimpleQueue = queue.SimpleQueue()
        answers: queue.SimpleQueue = queue.SimpleQueue()
        for question in questions:
            jobs.put(question)
        for _ in range(min(self.threads, len(questions))):  # daemons: a question that hangs holds no process up
            threading.Thread(target=self._work, args=(jobs, answers), daemon=True).start()
        for done in range(len(questions)):
            key, found = answers.get()
            if isinstance(found, BaseException):
                self.stop.set()
                self._drain(answers, len(questions) - done - 1, heard)
                raise found
            heard(key, found)

    def _drain(self, answers: queue.SimpleQueue, most: int, heard: Callable[[Hashable, Answer], None]) -> None:
        """Hears what has come already."""
        for _ in range(most):
            try:
                key, found = answers.get_nowait()
            except queue.Empty:
                return
            if isinstance(found, Answer):
                heard(key, found)

    def _work(self, jobs: queue.SimpleQueue, answers: queue.SimpleQueue) -> None:
        """One thread: asks for what is queued until nothing is, or until all ends."""
        while not self.stop.is_set():
            try:
                key, body = jobs.get_nowait()
            except queue.Empty:
                return
            try:
                answers.put((key, self._asked(body)))
            except Stopped:
                return
            except BaseException as error:
                answers.put((key, error))

    def _asked(self, body: dict) -> Answer:
        """One question, tried again where that can help. Raises UserError where nothing will."""
        why, url = "", self.urls[0]
        for attempt in range(self.tries):
            if self.stop.is_set():
                raise Stopped
            url, told = random.choice(self.urls), None
            try:
                found, why, told = self._once(url, body)
            except ValueError as error:
                found, why = None, f"an answer that cannot be read ({error})"
            if found is not None:
                return found
            if attempt + 1 < self.tries:
                longest = min(LONGEST_PAUSE, self.pause * 2**attempt)
                self.stop.wait(longest * random.uniform(0.5, 1.0) if told is None else told + random.uniform(0, 0.1))
        raise UserError(
            f"{_place(url)}: gave up after {self.tries} tries: {why}; the judgements so far are kept, and the same command continues"
        )

    def _once(self, url: str, body: dict) -> tuple[Answer | None, str, float | None]:
        """(the answer or None, why not, seconds that the server asks to wait). Raises ValueError for nonsense."""
        import httpx2

        started = time.monotonic()
        try:
            response = self.client.post(url + "/chat/completions", json={"model": self.model, "n": 1} | body)
        except httpx2.TransportError as error:
            return None, f"{type(error).__name__} {error}".strip(), None
        except RuntimeError as error:  # the client was closed under us
            if self.stop.is_set():
                raise Stopped from error
            raise
        if response.status_code == 200:
            return _read(response.json(), time.monotonic() - started), "", None
        why = f"{response.status_code} {_words(response.text)}"
        if response.status_code in TRY_AGAIN:
            return None, why, _wait(response.headers.get("retry-after"))
        if response.status_code in FATAL:
            raise UserError(f"{_place(url)}: refused ({why}); check --api-key-env, --base-url and --served-model")
        return Answer({}, refused=why, seconds=time.monotonic() - started), "", None


def _read(found, seconds: float) -> Answer:
    """The first choice of an answer. Raises ValueError for one that has none."""
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ValueError("no choices")
    choice = choices[0]
    usage = found.get("usage") if isinstance(found.get("usage"), dict) else {}
    counts = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    refused = (choice.get("message") or {}).get("refusal") if isinstance(choice.get("message"), dict) else None
    told = [count if type(count) is int and 0 <= count < 2**53 else 0 for count in counts]
    return Answer(choice, _words(str(refused)) if refused else "", *told, seconds)


def _place(url: str) -> str:
    """A URL in a message, without what may be a secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _words(text: str) -> str:
    """A server's own words, in one short line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 8 * WORDS]).split())[:WORDS]


def _wait(told: str | None) -> float | None:
    """Seconds of a Retry-After that is a number."""
    try:
        return min(max(float(told or ""), 0.0), LONGEST_TOLD)
    except ValueError:
        return None
