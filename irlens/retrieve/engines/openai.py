"""The openai engine: any server of OpenAI's completions protocol (vLLM, SGLang, llama.cpp, transformers, hosted ones).

Requests go out from `concurrency` threads. What a busy or dying server spoils is asked for again, with backoff and
jitter; what it refuses ends the run at once. A draw's seed is its own (`engines.request_seed`) however the draws of a
prompt are cut into requests, so a repeated request repeats its draws and none is kept twice.
"""

import math
import os
import queue
import random
import re
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path

from irlens.base import secrets
from irlens.base.errors import UserError
from irlens.retrieve.engines import (
    Draw,
    Engine,
    OnBatch,
    Prompt,
    Sampling,
    engine_args,
    greedy_once,
    request_seed,
    token_ids,
)
from irlens.retrieve.options import EngineOptions

GUARANTEE = (
    "as repeatable as the server's own per-request seeds: draw d of a prompt is always asked for with the same seed "
    "(vLLM keeps this up to rounding; transformers serve and most hosted servers do not)"
)
TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)
TRIES = 10  # of one request; with the longest pauses about four minutes
LONGEST_PAUSE, LONGEST_TOLD = 30.0, 300.0  # seconds: between tries, and as a server's Retry-After may ask
TOKEN_ID = re.compile(r"token_id:(\d+)")  # a token as `vllm serve --return-tokens-as-token-ids` writes it
DOWN = 10.0  # seconds for which a server that dropped a connection is passed over
PLAIN_SAMPLING = {  # against what servers take from the model's generation config or habits of their own; and vLLM's ids
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True},
    "sglang": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "llamacpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
}


class Refused(UserError):
    """The server will not do it, however often it is asked."""


class OpenAIEngine(Engine):
    """Servers at `urls` (each ending in /v1) that all serve `model`. `tokenizer`, if known, only checks and counts."""

    gpus = None
    shard_tokens = 2**22  # of servers that batch many requests

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        *,
        key: str | None = None,
        chat: bool = False,
        concurrency: int = 64,
        timeout: float = 600.0,
        body: dict | None = None,
        tokenizer=None,
        tries: int = TRIES,
        pause: float = 0.5,
    ):
        self.urls, self.model, self.chat, self.tokenizer = list(urls), model, chat, tokenizer
        self.body, self.tries, self.pause = body or {}, tries, pause
        self.at_once = 2 + concurrency // 16
        self.per_request: int | None = None  # draws that one request gives, once a server has given fewer than asked
        self.down = dict.fromkeys(self.urls, 0.0)
        self.stop = threading.Event()
        self.failure: BaseException | None = None  # what made it stop
        self.client = _client(key, timeout, concurrency)
        self.jobs: queue.SimpleQueue = queue.SimpleQueue()
        self.answers: set[queue.SimpleQueue] = set()  # one for each call of `sample` that runs
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(concurrency)]
        for thread in self.threads:  # daemons: a request that hangs must not hold up an interrupted process
            thread.start()

    def sample(
        self, prompts: Sequence[Prompt], draws: range, sampling: Sampling, on_batch: OnBatch | None = None
    ) -> list[Draw]:
        """See `engines.Engine`. Raises UserError for what a server refuses, and once it is given up."""
        if sampling.temperature == 0 and len(draws) > 1:  # servers refuse n > 1 there, or answer n times the same
            return greedy_once(lambda one, seen: self.sample(prompts, one, sampling, seen), draws, on_batch)
        found: dict[tuple[int, int], Draw] = {}
        answers: queue.SimpleQueue = queue.SimpleQueue()
        self.answers.add(answers)
        todo = [(i, part) for i in range(len(prompts)) for part in self._parts(draws)]
        missing = len(prompts) * len(draws)
        try:
            while missing:
                for i, part in todo:
                    self.jobs.put((answers, i, part, prompts[i], sampling))
                i, part, drawn = answers.get()
                if isinstance(drawn, BaseException):
                    raise drawn
                found |= {(i, draw.draw): draw for draw in drawn}
                missing -= len(drawn)
                if on_batch:
                    on_batch(len(drawn), sum(draw.n_tokens for draw in drawn))
                todo = []
                if len(drawn) < len(part):  # a server that ignores or caps n
                    self.per_request = min(len(drawn), self.per_request or len(drawn))
                    todo = [(i, rest) for rest in self._parts(part[len(drawn) :])]
        except BaseException as error:
            self.failure = self.failure or error
            self.stop.set()
            raise
        finally:
            self.answers.discard(answers)
        return [found[i, d] for i in range(len(prompts)) for d in draws]

    def close(self) -> None:
        """Ends every call of `sample` at once; requests in flight are left to themselves."""
        self.stop.set()
        for answers in list(self.answers):
            answers.put((0, range(0), self.failure or UserError("interrupted")))
        for _ in self.threads:
            self.jobs.put(None)
        self.client.close()

    def _work(self) -> None:
        """One thread: asks for what is queued until the engine is closed."""
        while job := self.jobs.get():
            answers, i, part, prompt, sampling = job
            try:
                answers.put((i, part, self._ask(prompt, part, sampling)))
            except BaseException as error:
                answers.put((i, part, error))

    def _parts(self, draws: range) -> list[range]:
        step = self.per_request or len(draws)
        return [draws[first : first + step] for first in range(0, len(draws), step)]

    def _ask(self, prompt: Prompt, numbers: range, sampling: Sampling) -> list[Draw]:
        """One request for the draws `numbers` of a prompt: the first of them, at least one."""
        if self.chat:
            path = "/chat/completions"
            what = {"messages": list(prompt.messages), "logprobs": True}
        else:
            path, what = "/completions", {"prompt": self._text(prompt), "logprobs": 1}
        body = what | {
            "model": self.model,
            "n": len(numbers),
            "temperature": sampling.temperature,
            "top_p": 1.0,
            "max_tokens": sampling.max_tokens,
            "seed": request_seed(sampling.seed, prompt.query_id, sampling.temperature, numbers[0]),
        }
        body = {name: value for name, value in (body | self.body).items() if value is not None}
        answer = self._post(path, body, prompt.query_id)
        self._check_bos(prompt, answer)
        choices = sorted(answer["choices"], key=lambda c: c.get("index", 0))[: len(numbers)]
        counts = _token_counts(choices, answer.get("usage") or {}, self.tokenizer)
        return [
            Draw(prompt.query_id, number, _text_of(choice), count, _logprob(choice), _finish(choice), _tokens(choice))
            for number, choice, count in zip(numbers, choices, counts)
        ]

    def _text(self, prompt: Prompt) -> str:
        """The prompt without a BOS that the server's tokenizer writes itself."""
        bos = getattr(self.tokenizer, "bos_token", None)
        if bos and prompt.text.startswith(bos) and _adds_bos(self.tokenizer):
            return prompt.text[len(bos) :]
        return prompt.text

    def _check_bos(self, prompt: Prompt, answer: dict) -> None:
        """Raises UserError if the server read one token more than the prompt has and the tokenizer knows a BOS."""
        read = (answer.get("usage") or {}).get("prompt_tokens")
        if self.chat or not read or not getattr(self.tokenizer, "bos_token", None):
            return
        own = len(token_ids(self.tokenizer, [prompt])[0])
        if read == own + 1:
            raise Refused(
                f"{prompt.query_id}: the server reads {read} tokens where the prompt has {own}, so it seems to put a "
                f"second {self.tokenizer.bos_token} before it; start it without, or use --chat"
            )

    def _post(self, path: str, body: dict, query_id: str) -> dict:
        """The checked JSON of an answer; tries again where that can help. Raises UserError where it cannot."""
        import httpx2

        why = ""
        for attempt in range(self.tries):
            if self.stop.is_set():
                raise self.failure or UserError("interrupted")
            url, told = self._server(query_id), None
            try:
                response = self.client.post(_at(url, path), json=body)
                if response.status_code == 200:
                    return _checked(response.json())
                why = f"{response.status_code} {_message(response)}"
                if response.status_code not in TRY_AGAIN:
                    raise Refused(_explain(url, response.status_code, why, query_id))
                told = _retry_after(response)
            except httpx2.TransportError as error:
                why = f"{type(error).__name__} {error}".strip()
                self.down[url] = time.monotonic() + DOWN
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                why = f"an answer that cannot be read ({error})"
            except RuntimeError as error:  # the client was closed under us
                if not self.stop.is_set():
                    raise
                raise self.failure or UserError("interrupted") from error
            if attempt + 1 < self.tries:
                longest = min(LONGEST_PAUSE, self.pause * 2**attempt)
                self.stop.wait(longest * random.uniform(0.5, 1.0) if told is None else told + random.uniform(0, 0.1))
        raise UserError(
            f"{url}: gave up after {self.tries} tries for {query_id}: {why}; the draws so far are kept, and the same "
            f"command continues them"
        )

    def _server(self, query_id: str) -> str:
        """The server of a query, the same one as long as it is up (it holds the prompt's prefix), else another."""
        now, first = time.monotonic(), zlib.crc32(query_id.encode())
        turn = [self.urls[(first + i) % len(self.urls)] for i in range(len(self.urls))]
        return next((url for url in turn if self.down[url] <= now), turn[0])


# -- an answer -----------------------------------------------------------------------------------------------------


def _checked(answer: dict) -> dict:
    """`answer` if it holds at least one whole choice. Raises ValueError, KeyError or TypeError."""
    if not answer["choices"]:
        raise ValueError("no choices")
    for choice in answer["choices"]:
        _text_of(choice), _finish(choice), _logprob(choice), _tokens(choice)
    return answer


def _text_of(choice: dict) -> str:
    text = choice["message"].get("content") if "message" in choice else choice["text"]
    if text is not None and not isinstance(text, str):
        raise ValueError("a choice without text")
    return text or ""


def _finish(choice: dict) -> str:
    return "stop" if choice["finish_reason"] == "stop" else "length"


def _token_logprobs(choice: dict) -> list[float] | None:
    """Log-probabilities of the sampled tokens in either form (completions', chat's); None without them."""
    given = choice.get("logprobs") or {}
    if given.get("content"):
        return [float(token["logprob"]) for token in given["content"]]
    found = given.get("token_logprobs")
    return None if not found or None in found else [float(value) for value in found]


def _tokens(choice: dict) -> tuple[int, ...] | None:
    """The ids drawn, as vLLM tells them (`return_token_ids`, or `token_id:7` in the place of a token); else None.

    None too where there are not as many as log-probabilities: then one of the two leaves something out.
    """
    ids, shown = choice.get("token_ids"), _token_logprobs(choice)
    if not ids:
        given = choice.get("logprobs") or {}
        content = given.get("content")
        names = [token.get("token") for token in content] if content else given.get("tokens") or []
        found = [TOKEN_ID.fullmatch(str(name)) for name in names]
        ids = [int(match[1]) for match in found] if all(found) else []
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < 2**31 for i in ids):
        return None
    return tuple(ids) if ids and len(ids) == len(shown or ids) else None


def _logprob(choice: dict) -> float:
    found = _token_logprobs(choice)
    return math.nan if found is None else math.fsum(found)


def _token_counts(choices: list[dict], usage: dict, tokenizer) -> list[int]:
    """Tokens of each choice: as its log-probabilities show, as the only one's usage says, else counted from the text."""
    shown = [len(_token_logprobs(choice) or ()) for choice in choices]
    if all(shown):
        return shown
    total = usage.get("completion_tokens")
    if len(choices) == 1 and total:
        return [int(total)]
    texts = [_text_of(choice) for choice in choices]
    if tokenizer is not None:
        own = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [len(ids) + (_finish(choice) == "stop") for ids, choice in zip(own, choices)]
    share = (total or 0) / max(1, sum(map(len, texts)))
    return [max(1, round(len(text) * share)) for text in texts]


# -- a server ------------------------------------------------------------------------------------------------------


def prepare(options: EngineOptions, model) -> EngineOptions:
    """Asks every server what it serves; the result names the model as they do.

    Raises UserError: no --base-url, no answer, a refused key, a model that is not served.
    """
    if not options.base_url:
        raise UserError("--engine openai needs --base-url, such as http://localhost:8000/v1 (several: comma-separated)")
    engine_args(options)
    key, urls, served = _key(options), [], options.served_model
    with _client(key, 30.0, 1) as client:
        for url in filter(None, (part.strip() for part in options.base_url.split(","))):
            url, known = _models(client, url, options.api_key_env)
            ids = [entry.get("id") for entry in known]
            if served is None:
                served = next((name for name in (model.repo, model.name) if name in ids), None)
                served = served or (ids[0] if len(ids) == 1 else None)
            if ids and served not in ids:
                wanted = served or model.repo or model.name
                raise UserError(f"{url}: does not serve {wanted!r}; it serves: {', '.join(map(str, ids))}")
            urls.append(url)
    if not urls:
        raise UserError(f"--base-url {options.base_url!r}: names no server")
    return replace(options, base_url=",".join(urls), served_model=served or model.repo or model.name)


def load(options: EngineOptions, weights: Path | None) -> OpenAIEngine:
    """The engine for options that `prepare` has seen. `weights` only give the tokenizer; a chat needs none."""
    key, urls = _key(options), options.base_url.split(",")
    with _client(key, 30.0, 1) as client:
        known = _models(client, urls[0], options.api_key_env)[1]
    entry = next((entry for entry in known if entry.get("id") == options.served_model), {})
    tokenizer = None
    if weights and not options.chat:
        from irlens.models import load as loader

        tokenizer = loader.tokenizer(weights)
    return OpenAIEngine(
        urls,
        options.served_model,
        key=key,
        chat=options.chat,
        concurrency=options.concurrency,
        timeout=options.timeout,
        body=PLAIN_SAMPLING.get(str(entry.get("owned_by")).lower(), {}) | engine_args(options),
        tokenizer=tokenizer,
    )


def _key(options: EngineOptions) -> str | None:
    """The server's key. It, and what --base-url holds, is left out of every line from here on.

    Raises UserError where --api-key-env is no name of a variable: it may be the key itself.
    """
    name = options.api_key_env
    if name not in os.environ and not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
        secrets.learn(name)
        raise UserError(
            "--api-key-env: takes the name of an environment variable that holds the key, not the key itself"
        )
    key = (os.environ.get(name) or "").strip() or None
    secrets.learn(key)
    secrets.learn_from(options.base_url)
    if key and not (key.isascii() and key.isprintable()):
        raise UserError(f"--api-key-env {name}: what it holds has letters that no key has")
    return key


def _at(url: str, path: str) -> str:
    """A path below a server's URL, whose query, where it has one, stays."""
    place, mark, query = url.partition("?")
    return place.rstrip("/") + path + mark + query


def _client(key: str | None, timeout: float, concurrency: int):
    import httpx2

    return httpx2.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx2.Timeout(timeout, connect=min(10.0, timeout)),
        limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
    )


def _models(client, url: str, key_env: str) -> tuple[str, list[dict]]:
    """(the URL that the protocol lives at, what is served there; [] if the server does not tell)."""
    import httpx2

    url = _at(url, "")
    for base in dict.fromkeys((url, url if url.partition("?")[0].endswith("/v1") else _at(url, "/v1"))):
        try:
            response = client.get(_at(base, "/models"))
        except httpx2.InvalidURL as error:  # whose words may be a part of a password
            raise UserError(
                f"--base-url {url}: not a URL; in a password write @ : / ? # as %40 %3A %2F %3F %23"
            ) from error
        except httpx2.TransportError as error:
            raise UserError(f"--base-url {url}: no server answers there ({error or type(error).__name__})") from error
        if response.status_code in (401, 403):
            raise UserError(_explain(base, response.status_code, _message(response), "", key_env))
        try:
            if response.status_code == 200:
                return base, list(response.json()["data"])
        except (ValueError, KeyError, TypeError):
            continue
    return url, []


def _explain(url: str, status: int, why: str, query_id: str, key_env: str = "the --api-key-env variable") -> str:
    if status in (401, 403):
        return f"{url}: refused the key ({status}): {why}; set {key_env} to one that it takes"
    if status == 404:
        return f"{url}: not found: {why}; check --base-url and --served-model"
    return f"{url}: refused the request for {query_id}: {why}"


def _message(response) -> str:
    """The server's own words, in one short line."""
    try:
        found = response.json()
        error = found.get("error", found)
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(secrets.redact(str(text)).split())[:300]


def _retry_after(response) -> float | None:
    """Seconds that the server asks to wait (a number or a date), at most LONGEST_TOLD; None if it does not ask."""
    told = response.headers.get("retry-after")
    if told is None:
        return None
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(told).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), LONGEST_TOLD) if math.isfinite(seconds) else None


def _adds_bos(tokenizer) -> bool:
    return tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
