"""The stub server gone wrong: every way to break the protocol that a client may meet, each by name.

    python bad_server.py '{"faults": 0.5, "kinds": ["index null", "reset"]}'

or {} and requests that bring "stub": {"faults": 1, "kinds": ["HTML"]}.

BROKEN: no draw may come of it. ODD: the draws are good all the same. REFUSED: asking again is of no use. OTHER: other draws than a good server's.
"""

import asyncio
import copy
import gzip
import json
import socket
import struct
import sys

from stub_server import Stub, send

MEGABYTE = 2**20
WORDS = {"error": {"message": "as the test wants it\u001b[31m\nagain"}}


def changed(change):
    """A kind that changes the JSON of a good answer."""

    def write(server, writer, answer):
        answer = copy.deepcopy(answer)
        return send(writer, 200, change(answer) or answer)

    return write


def each(**parts):
    """A kind that changes every choice."""
    return changed(lambda answer: [choice.update(parts) for choice in answer["choices"]] and None)


def numbered(number):
    """A kind that numbers choice i as `number(i)`."""

    def change(answer):
        for i, choice in enumerate(answer["choices"]):
            choice["index"] = number(i)

    return changed(change)


def said(text):
    """A kind that writes `text` where the text of every choice is."""

    def change(answer):
        for choice in answer["choices"]:
            if "message" in choice:
                choice["message"]["content"] = text
            else:
                choice["text"] = text

    return changed(change)


def valued(value):
    """A kind whose log-probabilities are `value`."""

    def change(answer):
        for choice in answer["choices"]:
            choice["logprobs"] = {"token_logprobs": [value], "content": [{"token": "a", "logprob": value}]}

    return changed(change)


def raw(make, status=200, head="", close=False):
    """A kind that answers with the bytes `make(good answer)`."""

    def write(server, writer, answer):
        content = make(json.dumps(answer).encode())
        length = "" if "Content-Length" in head else f"Content-Length: {len(content)}\r\n"
        writer.write(f"HTTP/1.1 {status} X\r\n{length}{head}\r\n".encode() + content)
        return not close

    return write


def bare(content):
    """A kind that answers with `content` instead of HTTP."""

    def write(server, writer, answer):
        writer.write(content)
        return False

    return write


async def hang(server, writer, answer):
    await asyncio.sleep(30)
    return False


async def drip(server, writer, answer):
    """A byte at a time, each soon enough."""
    text = json.dumps(answer).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text))
    for i in range(len(text)):
        writer.write(text[i : i + 1])
        await writer.drain()
        await asyncio.sleep(0.1)
    return True


async def huge(server, writer, answer):
    """100 MB."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (100 * MEGABYTE))
    for _ in range(100):
        writer.write(b" " * MEGABYTE)
        await writer.drain()
    return True


def reset(server, writer, answer):
    link = writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def twice(server, writer, answer):
    """Two answers to one request: the second must not be taken for another request's."""
    text = json.dumps(answer)
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode() * 2)
    return True


def closed(server, writer, answer):
    """A good answer, after which a connection that was to stay open is closed."""
    send(writer, 200, answer)
    return False


def too_many(server, writer, answer):
    extra = [dict(copy.deepcopy(answer["choices"][0]), index=len(answer["choices"]) + i) for i in range(3)]
    return send(writer, 200, answer | {"choices": answer["choices"] + extra})


def too_few(server, writer, answer):
    return send(writer, 200, answer | {"choices": [c for c in answer["choices"] if c["index"] < 1]})


def gap(server, writer, answer):
    """Some of the choices, and not the first."""
    return send(writer, 200, answer | {"choices": [c | {"index": c["index"] + 1} for c in answer["choices"]]})


BROKEN = {
    "index null": numbered(lambda i: None),
    "index twice": numbered(lambda i: 1),
    "index in words": numbered(str),
    "index gap": gap,
    "usage a list": changed(lambda a: a | {"usage": [1]}),
    "usage nonsense": changed(lambda a: a | {"usage": {"prompt_tokens": -3, "completion_tokens": "many"}}),
    "lone surrogate": said("\ud800 #### 5"),
    "text a number": said(5),
    "deep JSON": raw(lambda text: b'{"choices": ' + b"[" * 100_000),
    "false encoding": raw(lambda text: text, head="Content-Encoding: gzip\r\n"),
    "gzip bomb": raw(lambda text: gzip.compress(b" " * (20 * MEGABYTE)), head="Content-Encoding: gzip\r\n"),
    "truncated": raw(lambda text: text[: len(text) // 2]),
    "length too long": raw(lambda text: text, head="Content-Length: 99999\r\n", close=True),
    "length too short": raw(lambda text: text, head="Content-Length: 40\r\n"),
    "length nonsense": raw(lambda text: text, head="Content-Length: many\r\n", close=True),
    "hang": hang,
    "slow drip": drip,
    "huge body": huge,
    "HTML": raw(lambda text: b"<html><body>It works!\x1b[2J</body></html>", head="Content-Type: text/html\r\n"),
    "nothing": raw(lambda text: b""),
    "204": raw(lambda text: b"", status=204),
    "null": raw(lambda text: b"null"),
    "a list": raw(lambda text: b"[" + text + b"]"),
    "no choices": changed(lambda a: a | {"choices": []}),
    "choices an object": changed(lambda a: a | {"choices": {"0": a["choices"][0]}}),
    "choices words": changed(lambda a: a | {"choices": ["yes"]}),
    "logprob NaN": valued(float("nan")),
    "logprob infinite": valued(float("-inf")),
    "logprob words": valued("low"),
    "logprobs a list": each(logprobs=[1]),
    "no reason to end": each(finish_reason=7),
    "not UTF-8": raw(lambda text: text.replace(b"####", b"\xff\xfe")),
    "wrong charset": raw(lambda text: text.decode().encode("cp500"), head="Content-Type: x/y; charset=ibm500\r\n"),
    "events": raw(lambda text: b"data: " + text + b"\n\ndata: [DONE]\n\n", head="Content-Type: text/event-stream\r\n"),
    "not HTTP": bare(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "header without end": bare(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000),
    "reset": reset,
    "answered twice": twice,
    "429 with a time": lambda s, w, a: send(w, 429, WORDS, "Retry-After: 0.01\r\n"),
    "429 without": lambda s, w, a: send(w, 429, WORDS),
    "429 deep": raw(lambda text: b"[" * 100_000, status=429),
    "500": lambda s, w, a: send(w, 500, WORDS),
    "503": lambda s, w, a: send(w, 503, WORDS),
}
ODD = {
    "a byte order mark": raw(lambda text: b"\xef\xbb\xbf" + text),
    "too few choices": too_few,
    "too many choices": too_many,
    "ids without a number": each(token_ids=["x"]),
    "ids too few": each(token_ids=[3]),
    "usage null": changed(lambda a: a | {"usage": None}),
    "closed": closed,
}
REFUSED = {
    "401": lambda s, w, a: send(w, 401, WORDS),
    "redirect": raw(lambda text: b"", status=302, head="Location: /v1/completions\r\n"),
    "400": lambda s, w, a: send(w, 400, WORDS),
}
OTHER = {"empty": said(None), "unknown end": each(finish_reason="abort")}  # draws, and not those of a good server
KINDS = BROKEN | ODD | REFUSED | OTHER


class Bad(Stub):
    """The stub, whose share `faults` of answers is of the `kinds`, and whose list of models is of the kind `models`."""

    async def answer(self, writer, path: str, headers: dict, body: bytes) -> bool:
        if path == "/v1/models" and self.settings.get("models"):
            return await self.fail(writer, self.settings["models"], {"data": [{"id": "stub"}], "choices": []})
        return await super().answer(writer, path, headers, body)

    async def fail(self, writer, kind: str, answer: dict) -> bool:
        made = KINDS[kind](self, writer, answer)
        return await made if asyncio.iscoroutine(made) else made


async def main() -> None:
    settings = json.loads(sys.argv[1])
    server = await asyncio.start_server(Bad(settings).handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
