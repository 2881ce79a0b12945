"""A stand-in for a server of the OpenAI protocol: answers at once, or fails in the ways that servers fail.

    python stub_server.py '{"ignore_n": true, "faults": 0.3}'

prints its port and serves until it is ended. The text of a choice is a function of its prompt and seed alone, so a test
sees which draws were asked for. Settings: see DEFAULTS.
"""

import asyncio
import base64
import json
import os
import random
import sys

DEFAULTS = {
    "model": "stub",
    "owned_by": "vllm",
    "key": None,  # the only one that is let in
    "user": None,  # user:password, the only ones that are let in
    "query": None,  # of every request's URL
    "echo": False,  # errors tell what was sent: headers, URL
    "ignore_n": False,  # one choice whatever n
    "logprobs": True,
    "token_ids": "when asked",  # "named": as `token_id:7` in the place of tokens; "short": one too few
    "faults": 0.0,  # share of requests that go wrong
    "kinds": ["429", "500", "truncated", "cut", "dropped", "slow", "empty"],
    "die_after": None,  # requests
    "status": None,  # the only answer to a completion
    "delay": 0.0,
    "reply": None,  # the text of every choice; "longer": a judge of pairs who likes the longer answer
}


class Stub:
    """One server; `count` requests for completions came in."""

    def __init__(self, settings: dict):
        self.settings, self.count, self.chance = DEFAULTS | settings, 0, random.Random(0)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self.answer(writer, first.split()[1], headers, body):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def answer(self, writer, path: str, headers: dict, body: bytes) -> bool:
        """Writes one answer; False ends the connection."""
        s = self.settings
        given = base64.b64encode(str(s["user"]).encode()).decode()
        wanted = f"Basic {given}" if s["user"] else s["key"] and f"Bearer {s['key']}"
        if wanted and headers.get("authorization") != wanted:
            told = f": {headers} {path}" if s["echo"] else ""
            return send(writer, 401, {"error": {"message": f"Incorrect API key provided{told}"}})
        path, _, query = path.partition("?")
        if s["query"] and query != s["query"]:
            return send(writer, 403, {"error": {"message": f"no entry with {query}"}})
        if path == "/v1/models":
            return send(writer, 200, {"data": [{"id": s["model"], "owned_by": s["owned_by"]}]})
        if path not in ("/v1/completions", "/v1/chat/completions"):
            return send(writer, 404, {"error": {"message": f"no route {path}"}})
        self.count += 1
        if s["die_after"] and self.count > s["die_after"]:
            os._exit(1)
        if s["status"]:
            return send(
                writer,
                s["status"],
                {"error": {"message": f"as the test wants it {(headers, path, query) if s['echo'] else ''}"}},
            )
        if json.loads(body)["temperature"] == 0 and json.loads(body)["n"] > 1:
            return send(writer, 400, {"error": {"message": "n must be 1 when using greedy sampling"}})  # as vLLM has it
        if s["delay"]:
            await asyncio.sleep(s["delay"])
        asked = json.loads(body)
        s = s | asked.get("stub", {})  # a request may bring settings of its own
        answer = complete(asked, s, chat="chat" in path)
        if self.chance.random() < s["faults"]:
            return await self.fail(writer, s["kinds"][self.count % len(s["kinds"])], answer)
        return send(writer, 200, answer)

    async def fail(self, writer, kind: str, answer: dict) -> bool:
        text = json.dumps(answer).encode()
        if kind == "429":
            return send(writer, 429, {"error": {"message": "slow down"}}, "Retry-After: 0.02\r\n")
        if kind == "500":
            return send(writer, 500, {"error": {"message": "oops"}})
        if kind == "empty":
            return send(writer, 200, {"choices": []})
        if kind == "truncated":  # half a document, properly framed
            return send(writer, 200, text[: len(text) // 2])
        if kind == "cut":  # the connection ends in the middle
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text[: len(text) // 2])
        if kind == "slow":
            await asyncio.sleep(2.0)
            return send(writer, 200, answer)
        return False


def complete(asked: dict, settings: dict, chat: bool) -> dict:
    """What a good server answers."""
    n = 1 if settings["ignore_n"] else asked.get("n", 1)
    prompt = asked["messages"][-1]["content"] if chat else asked["prompt"]
    choices = []
    for i in range(n):
        text = f"{len(prompt)} {asked['seed'] + i} {asked['temperature']}\n#### 5"
        text = judgement(asked["messages"], settings["reply"]) if settings["reply"] else text
        choice = {"index": i, "finish_reason": "stop"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        if settings["logprobs"]:
            tokens = [-0.5, -0.25]
            names = ["token_id:11", f"token_id:{i}"] if settings["token_ids"] == "named" else ["a", "b"]
            content = [{"token": name, "logprob": v} for name, v in zip(names, tokens)]
            choice["logprobs"] = {"content": content} if chat else {"token_logprobs": tokens, "tokens": names}
        if asked.get("return_token_ids") and settings["token_ids"] != "named":
            choice["token_ids"] = [11, i][: 1 if settings["token_ids"] == "short" else 2]
        choices.append(choice)
    random.shuffle(choices)  # `index` tells their order
    usage = {"prompt_tokens": 0, "completion_tokens": 2 * n}
    return {"choices": choices, "usage": usage, "model": settings["model"]}


def judgement(messages: list[dict], reply: str) -> str:
    """`reply`, or for "longer" the letter of the longer answer in the question."""
    if reply != "longer":
        return reply
    first, _, second = messages[0]["content"].partition("[Answer A]")[2].partition("[Answer B]")
    second = second.partition("Reply with nothing but")[0]
    a, b = len(first.strip()), len(second.strip())
    return "A" if a > b else "B" if b > a else "C"


def send(writer, status: int, body: dict | bytes, more: str = "") -> bool:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{more}Content-Length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    return True


async def main() -> None:
    settings = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    port = settings.pop("port", 0)
    server = await asyncio.start_server(Stub(settings).handle, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
