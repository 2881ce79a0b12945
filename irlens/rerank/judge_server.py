"""Questions to a judge's servers whose answers are wanted whole: log-probabilities of other tokens, calls.

As the openai engine's, requests go out from several threads, and what a busy server spoils is asked for again with
backoff. One question that the server refuses is that question's affair; a refused key or an unknown model ends all.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from irlens.base.errors import UserError
from irlens.base.options import at_least, positive
from irlens.retrieve.engines import answers, http
from irlens.retrieve.engines.http import Broken
from irlens.retrieve.engines.servers import TRIES, Servers, explain
from irlens.retrieve.options import EngineOptions

OWN_AFFAIR = (400, 413, 422, 451)  # what a server says to one question alone: its filter, its length
KEPT = "the answers so far are kept, and the same command continues them"
LONGEST = 2**14  # tokens that an answer may have where the question does not say


class Reachable(Protocol):
    """Settings that say where a judge is."""

    @property
    def base_url(self) -> str | None: ...
    @property
    def served_model(self) -> str | None: ...
    @property
    def api_key_env(self) -> str: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def timeout(self) -> float: ...
    @property
    def engine_args(self) -> str | None: ...


def reached(settings: Reachable, option: str, model: str | None = None, instead: str = "") -> EngineOptions:
    """The judge's servers, asked what they serve. `option`: what names the judge; `model`: its own, where none is named.

    Raises UserError: no --base-url, numbers out of range, no answer there, a model that is not served.
    """
    from irlens.models import catalog
    from irlens.retrieve.engines import openai

    positive(timeout=settings.timeout)
    at_least(1, concurrency=settings.concurrency)
    if not settings.base_url:
        raise UserError(f"{option} needs --base-url, such as http://localhost:8000/v1{instead}")
    names = ("base_url", "api_key_env", "concurrency", "timeout", "engine_args", "served_model")
    options = EngineOptions(engine="openai", chat=True, **{name: getattr(settings, name) for name in names})
    return openai.prepare(options, catalog.served(settings.served_model or model or "judge"))


@dataclass(frozen=True)
class Answer:
    """What a server said: a choice of the protocol, or why it refused. tokens: as its usage counts them."""

    choice: dict
    refused: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


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
        self.model, self.threads = model, concurrency
        told = {"concurrency": concurrency, "timeout": timeout, "tries": tries, "pause": pause}
        self.servers = Servers(urls, key, **told, kept=KEPT)

    def __enter__(self) -> JudgeServer:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more is asked; questions in flight are left to themselves."""
        self.servers.stop.set()
        self.servers.client.close()

    def ask(self, questions: Sequence[tuple[Hashable, dict]], heard: Callable[[Hashable, Answer], None]) -> None:
        """Asks all (key, body of the request), and calls `heard(key, answer)` of each, here, as the answers come.

        Raises UserError once a server is given up, refuses the key, or does not know the model; what had come by then
        was heard.
        """
        jobs: queue.SimpleQueue = queue.SimpleQueue()
        found: queue.SimpleQueue = queue.SimpleQueue()
        for question in questions:
            jobs.put(question)
        for _ in range(min(self.threads, len(questions))):  # daemons: a question that hangs holds no process up
            threading.Thread(target=self._work, args=(jobs, found), daemon=True).start()
        for done in range(len(questions)):
            key, answer = found.get()
            if isinstance(answer, BaseException):
                self.servers.stop.set()
                self._drain(found, len(questions) - done - 1, heard)
                raise answer
            heard(key, answer)

    def _drain(self, found: queue.SimpleQueue, most: int, heard: Callable[[Hashable, Answer], None]) -> None:
        """Hears what has come already."""
        for _ in range(most):
            try:
                key, answer = found.get_nowait()
            except queue.Empty:
                return
            if isinstance(answer, Answer):
                heard(key, answer)

    def _work(self, jobs: queue.SimpleQueue, found: queue.SimpleQueue) -> None:
        """One thread: asks for what is queued until nothing is, or until all ends."""
        while not self.servers.stop.is_set():
            try:
                key, body = jobs.get_nowait()
            except queue.Empty:
                return
            try:
                found.put((key, self._asked(f"question {key}", body)))
            except BaseException as error:
                found.put((key, error))

    def _asked(self, name: str, body: dict) -> Answer:
        """One question. Raises UserError where no answer will come."""
        started = time.monotonic()

        def read(document) -> Answer:
            return _read(document, time.monotonic() - started)

        def refused(url: str, response: http.Response) -> Answer:
            why = f"{response.status} {http.message(response)}"
            if response.status not in OWN_AFFAIR:
                raise UserError(f"{explain(url, response.status, why, name)}; {KEPT}")
            return Answer({}, refused=why, seconds=time.monotonic() - started)

        body = {"model": self.model, "n": 1} | body
        most = body.get("max_tokens")
        tokens = most if isinstance(most, int) and most > 0 else LONGEST
        return self.servers.post("/chat/completions", body, name, tokens, read, refused)


def _read(document, seconds: float) -> Answer:
    """The first choice of an answer, as it came. Raises Broken for what breaks the protocol."""
    found = answers.read(document)
    choice = min(document["choices"], key=lambda one: one.get("index", 0))
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Broken("a choice without a message")
    refused = message.get("refusal")
    counts = [count or 0 for count in (found.prompt_tokens, found.completion_tokens)]
    return Answer(choice, http.plain(str(refused)) if refused else "", *counts, seconds)
