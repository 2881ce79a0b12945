"""A language model at a server as a judge: what `llm_judge.Judge` asks, each answer kept as it comes.

The answers stand in a journal beside the scores: a killed command asks nothing twice, and the next start asks again what
the server refused, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from irlens.base.checksums import ANSWERS
from irlens.base.errors import UserError
from irlens.rerank.judge_server import Answer, JudgeServer, reached
from irlens.rerank.llm_judge import Judge, Refusal
from irlens.rerank.options import ScoringOptions
from irlens.rerank.pair_protocols import text_of
from irlens.rerank.questions import FIRST, Journal, Question, Said
from irlens.retrieve.engines import http, openai, request_seed


class ServedJudge:
    """Servers that were found to serve the judge, who is asked greedily. Raises UserError: see `judge_server.reached`."""

    def __init__(self, name: str, options: ScoringOptions, seed: int):
        self.options, self.seed = options, seed
        self.served = reached(options, f"--reranker {name}", instead=", or judge:MODEL, a model of this machine")
        self.model = self.served.served_model or ""

    def load(self, conversations: dict[str, list[dict]], mode: str, folder: Path | None) -> Judge:
        """The scorer, ready to ask until it is closed. folder: where answers are kept, None for nowhere."""
        served = self.served
        key, urls = http.key_of(served.api_key_env, served.base_url), (served.base_url or "").split(",")
        told = {"key": key, "concurrency": served.concurrency, "timeout": served.timeout}
        body = {"temperature": 0.0, "top_p": 1.0, "max_tokens": self.options.judge_tokens} | openai.body_of(served)
        journal, server = Journal(folder and folder / ANSWERS), JudgeServer(urls, self.model, **told)
        ask = _Asker(server, journal, body, self.seed)
        return Judge(ask, conversations, mode, self.options.judge_opponents, server.close)


class _Asker:
    """An `llm_judge.Ask`: asks what the journal does not know. What the server refuses is not kept."""

    def __init__(self, server: JudgeServer, journal: Journal, body: dict, seed: int):
        self.server, self.journal, self.body, self.seed = server, journal, body, seed
        self.refused: dict[str, Refusal] = {}

    def __call__(self, talks: Sequence[list[dict]], number: int) -> list[str | Refusal]:
        """The answers. Raises UserError: the server's, or where it refuses all of the first questions."""
        told = {"seed": request_seed(self.seed, "judging", 0.0, number)} | self.body
        asked = [Question.of({"messages": talk} | told, self.server.model) for talk in talks]
        todo = {one.key: one.body for one in asked if one.key not in self.journal.said}
        self.server.ask(list(todo.items()), self._heard)
        return [self._answer(one.key) for one in asked]

    def _heard(self, key: str, answer: Answer) -> None:
        if not answer.refused:
            told = (answer.prompt_tokens, answer.completion_tokens, round(answer.seconds, 3))
            self.journal.add(key, Said(None, "", json.dumps(answer.choice), *told))
            return
        self.refused[key] = Refusal(answer.refused)
        if not self.journal.said and len(self.refused) >= FIRST:
            raise UserError(f"the judge's server refused each of the first {FIRST} questions: {answer.refused:.200}")

    def _answer(self, key: str) -> str | Refusal:
        known = self.journal.said.get(key)
        return self.refused[key] if known is None else text_of(json.loads(known.answer))
