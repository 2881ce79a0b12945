"""The openai engine: any server of OpenAI's completions protocol (vLLM, SGLang, llama.cpp, transformers, hosted ones).

Requests go out from `concurrency` threads. What a busy or dying server spoils is asked for again, with backoff and
jitter; what it refuses ends the run at once. A draw's seed is its own (`engines.request_seed`) however the draws of a
prompt are cut into requests, so a repeated request repeats its draws and none is kept twice.
"""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from irlens.base.errors import UserError
from irlens.retrieve.engines import (
    Draw,
    Engine,
    OnBatch,
    Prompt,
    Sampling,
    engine_args,
    greedy_once,
    http,
    request_seed,
    token_ids,
)
from irlens.retrieve.engines.answers import Answer, read, token_counts
from irlens.retrieve.engines.http import Broken
from irlens.retrieve.engines.servers import TRIES, Refused, Servers, explain, place
from irlens.retrieve.options import EngineOptions

CONTINUES = "the draws so far are kept, and the same command continues them"
GUARANTEE = (
    "as repeatable as the server's own per-request seeds: draw d of a prompt is always asked for with the same seed "
    "(vLLM keeps this up to rounding; transformers serve and most hosted servers do not)"
)
MODELS_BODY = 2**24  # bytes of a list of models
PLAIN_SAMPLING = {  # against what servers take from the model's generation config or habits of their own; and vLLM's ids
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True},
    "sglang": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "llamacpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
}


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
        self.model, self.chat, self.tokenizer, self.body = model, chat, tokenizer, body or {}
        self.at_once = 2 + concurrency // 16
        self.per_request: int | None = None  # draws that one request gives, once a server has given fewer than asked
        told = {"concurrency": concurrency, "timeout": timeout, "tries": tries, "pause": pause}
        self.servers = Servers(urls, key, **told, kept=CONTINUES)
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
            self.servers.failure = self.servers.failure or error
            self.servers.stop.set()
            raise
        finally:
            self.answers.discard(answers)
        return [found[i, d] for i in range(len(prompts)) for d in draws]

    def close(self) -> None:
        """Ends every call of `sample` at once; requests in flight are left to themselves."""
        self.servers.stop.set()
        for answers in list(self.answers):
            answers.put((0, range(0), self.servers.failure or UserError("interrupted")))
        for _ in self.threads:
            self.jobs.put(None)
        self.servers.client.close()

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

        def refused(url: str, response: http.Response):
            why = f"{response.status} {http.message(response)}"
            raise Refused(f"{explain(url, response.status, why, prompt.query_id)}; {CONTINUES}")

        answer = self.servers.post(path, body, prompt.query_id, len(numbers) * sampling.max_tokens, read, refused)
        self._check_bos(prompt, answer)
        counts = token_counts(answer, self.tokenizer)
        return [
            Draw(prompt.query_id, number, c.text, count, c.logprob, c.finish_reason, c.tokens)
            for number, c, count in zip(numbers, answer.choices, counts)
        ]

    def _text(self, prompt: Prompt) -> str:
        """The prompt without a BOS that the server's tokenizer writes itself."""
        bos = getattr(self.tokenizer, "bos_token", None)
        if bos and prompt.text.startswith(bos) and _adds_bos(self.tokenizer):
            return prompt.text[len(bos) :]
        return prompt.text

    def _check_bos(self, prompt: Prompt, answer: Answer) -> None:
        """Raises UserError if the server read one token more than the prompt has and the tokenizer knows a BOS."""
        read = answer.prompt_tokens
        if self.chat or not read or not getattr(self.tokenizer, "bos_token", None):
            return
        own = len(token_ids(self.tokenizer, [prompt])[0])
        if read == own + 1:
            raise Refused(
                f"{prompt.query_id}: the server reads {read} tokens where the prompt has {own}, so it seems to put a "
                f"second {self.tokenizer.bos_token} before it; start it without, or use --chat"
            )


# -- a server ------------------------------------------------------------------------------------------------------


def prepare(options: EngineOptions, model) -> EngineOptions:
    """Asks every server what it serves; the result names the model as they do.

    Raises UserError: no --base-url, no answer, a refused key, a model that is not served.
    """
    if not options.base_url:
        raise UserError("--engine openai needs --base-url, such as http://localhost:8000/v1 (several: comma-separated)")
    engine_args(options)
    key, urls, served = http.key_of(options.api_key_env, options.base_url), [], options.served_model
    with http.client(key, 30.0, 1) as client:
        for url in filter(None, (part.strip() for part in options.base_url.split(","))):
            url, known = _models(client, url, options.api_key_env)
            ids = [str(entry["id"]) for entry in known]
            if served is None:
                served = next((name for name in (model.repo, model.name) if name in ids), None)
                served = served or (ids[0] if len(ids) == 1 else None)
            if ids and served not in ids:
                wanted = served or model.repo or model.name
                raise UserError(f"{place(url)}: does not serve {wanted!r:.60}; it serves: {http.plain(', '.join(ids))}")
            urls.append(url)
    if not urls:
        raise UserError(f"--base-url {options.base_url!r}: names no server")
    return replace(options, base_url=",".join(urls), served_model=served or model.repo or model.name)


def load(options: EngineOptions, weights: Path | None) -> OpenAIEngine:
    """The engine for options that `prepare` has seen. `weights` only give the tokenizer; a chat needs none."""
    key, urls = http.key_of(options.api_key_env, options.base_url), options.base_url.split(",")
    body, tokenizer = body_of(options), None
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
        body=body,
        tokenizer=tokenizer,
    )


def body_of(options: EngineOptions) -> dict:
    """What every request to the servers says beside its own: plain sampling, as the first of them calls it, and the user's."""
    key, first = http.key_of(options.api_key_env, options.base_url), (options.base_url or "").partition(",")[0]
    with http.client(key, 30.0, 1) as client:
        known = _models(client, first, options.api_key_env)[1]
    entry = next((entry for entry in known if str(entry["id"]) == options.served_model), {})
    return PLAIN_SAMPLING.get(str(entry.get("owned_by")).lower(), {}) | engine_args(options)


def _models(client, url: str, key_env: str) -> tuple[str, list[dict]]:
    """(the URL that the protocol lives at, what is served there; [] if the server does not tell)."""
    url = http.at(url, "")
    for base in dict.fromkeys((url, url if url.partition("?")[0].endswith("/v1") else http.at(url, "/v1"))):
        response = _listed(client, http.at(base, "/models"), url)
        if response is None:
            continue
        if response.status in (401, 403):
            raise UserError(explain(base, response.status, http.message(response), "", key_env))
        try:
            found = http.parsed(response.body) if response.status == 200 else None
        except Broken:
            continue
        if isinstance(found, dict) and isinstance(found.get("data"), list):
            return base, [entry for entry in found["data"] if isinstance(entry, dict) and entry.get("id")]
    return url, []


def _listed(client, there: str, url: str) -> http.Response | None:
    """What a server answers to the question which models it has, asked up to three times; None for nonsense."""
    import httpx2

    for left in (2, 1, 0):
        try:
            return http.fetch(client, "GET", there, MODELS_BODY)
        except Broken:
            return None
        except (httpx2.TransportError, httpx2.InvalidURL, UnicodeError) as error:
            if not left or not isinstance(error, httpx2.TransportError):
                why = http.plain(str(error) or type(error).__name__)
                if isinstance(error, httpx2.InvalidURL):  # whose words may be a part of a password
                    why = "not a URL; in a password write @ : / ? # as %40 %3A %2F %3F %23"
                raise UserError(f"--base-url {place(url)}: no server answers there ({why})") from error
        time.sleep(0.1)
    return None


def _adds_bos(tokenizer) -> bool:
    return tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
