"""A stand-in of the judges at servers: answers in each protocol's form, by a digest of what is asked."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from irlens.base import files
from irlens.base.errors import UserError
from irlens.reproduce.records import Step
from irlens.rerank import mixeval_judge, pair_protocols

MIXEVAL = "mixeval"  # the form of an answer to MixEval's judge
TEMPLATE = "A request: {instruction}\nThe first answer: {output_1}\nThe second answer: {output_2}\nWhich is better?"
NO_KEY = "IRLENS_REHEARSAL_KEY"  # a variable that nobody sets: the user's key stays where it is


def asks(step: Step) -> bool:
    """Whether a step asks a judge at a server."""
    if step.stage == "winrate":
        return step.settings.judge in pair_protocols.NAMES
    return step.stage == "mixeval" and step.settings.judge != "rules"


def has_template(step: Step) -> bool:
    """Whether what the judge is told is at hand: our own, named by the user, or in the package alpaca-eval."""
    settings = step.settings
    if step.stage == "mixeval":
        return settings.judge == "own" or settings.templates is not None
    if settings.template or settings.judge == pair_protocols.OWN:
        return True
    try:
        pair_protocols.packaged(settings.judge, pair_protocols.PUBLISHED[settings.judge].template)
    except UserError:
        return False
    return True


def told(steps: Sequence[Step], url: str, home: Path) -> list[Step]:
    """The steps with the stand-in at `url` in the place of their judges' servers, and with words of ours, in `home`, where
    the authors' are not at hand."""
    return [_told(step, url, home) if asks(step) else step for step in steps]


def _told(step: Step, url: str, home: Path) -> Step:
    settings, new = step.settings, {"api_key_env": NO_KEY, "yes": True}
    if step.stage == "mixeval":
        form, model = MIXEVAL, settings.served_model
        if not has_template(step):
            own = mixeval_judge.OWN
            words = {"judge_freeform": own.free, "judge_multichoice": own.choice}
            files.write_text(json.dumps(words), home / "templates.json")
            new["templates"] = str(home / "templates.json")
    else:
        published = pair_protocols.PUBLISHED.get(settings.judge)
        form = published.reader if published else "letter"
        model = settings.served_model or (published and published.model)
        if not has_template(step):
            files.write_text(TEMPLATE, home / "judge.txt")
            new["template"] = str(home / "judge.txt")
    new |= {"base_url": f"{url}/{form}/v1", "served_model": model or "judge"}
    return replace(step, settings=replace(settings, **new))


# -- the server ----------------------------------------------------------------------------------------------------


@contextmanager
def serving() -> Iterator[str]:
    """The URL of a server of this process, as long as the block runs; a form's judge is at URL/FORM/v1."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """It serves whatever is asked for, so it lists nothing."""
        self._send({"object": "list", "data": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        form = self.path.strip("/").partition("/")[0]
        text = "\n".join(str(message.get("content")) for message in body["messages"])
        usage = {"prompt_tokens": len(text) // 4, "completion_tokens": 3}
        self._send({"choices": [choice(form, text)], "usage": usage, "model": body.get("model")})

    def _send(self, content: dict) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""


def choice(form: str, text: str) -> dict:
    """The answer to a question, as a choice of the protocol: the first is better for half of all texts."""
    digest = hashlib.sha256(text.encode()).digest()
    first, share = digest[0] % 2 == 0, digest[1] / 255
    message: dict = {"role": "assistant", "content": "A" if first else "B"}
    found = {"index": 0, "message": message, "finish_reason": "stop"}
    ranks = (1, 2) if first else (2, 1)
    if form == "list":
        message["content"] = str([{"model": f"model_{i}", "rank": rank} for i, rank in zip((1, 2), ranks)])
    elif form == "call":
        models = [{"model": name, "rank": rank} for name, rank in zip("mM", ranks)]
        call = {"name": pair_protocols.TOOL["name"], "arguments": json.dumps({"ordered_models": models})}
        message |= {"content": None, "tool_calls": [{"id": "call", "type": "function", "function": call}]}
    elif form == "weights":
        tops = [{"token": name, "logprob": value} for name, value in (("m", -share), ("M", share - 1))]
        message["content"] = "m"
        found["logprobs"] = {"content": [{"token": "m", "logprob": -share, "top_logprobs": tops}]}
    elif form == MIXEVAL:  # a letter for a choice, a grade for an answer of one's own
        message["content"] = f"[[{'AB'[not first]}]], or in a number [[{share:.1f}]]"
    return found
