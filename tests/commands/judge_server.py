"""The stub server as a judge of pairs that likes the longer answer: by weights, by a call, by a list, by a letter, by a label.

    python judge_server.py '{"refuse": "secret", "nonsense": "odd"}'

refuse: 400 for a question with this word; nonsense: an answer out of format for one with this word; log: a file that gets
a line for each question. filter: 400 for any message with this word; verdict: what is said where no answers are compared.
"""

import asyncio
import importlib.util
import json
from pathlib import Path

spec = importlib.util.spec_from_file_location("stub_server", Path(__file__).parents[1] / "retrieve" / "stub_server.py")
stub = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stub)


class JudgeStub(stub.Stub):
    async def answer(self, writer, path, headers, body):
        asked = json.loads(body) if body else {}
        words = question_of(asked) if "messages" in asked else ""
        if words and self.settings.get("log"):
            with open(self.settings["log"], "a") as file:
                file.write(json.dumps(asked) + "\n")
        told = " ".join(m["content"] for m in asked.get("messages", ()))
        if self.settings.get("filter") and self.settings["filter"] in told:
            return stub.send(writer, 400, {"error": {"message": "content policy"}})
        if self.settings.get("refuse") and self.settings["refuse"] in words:
            return stub.send(writer, 400, {"error": {"message": "content policy"}})
        return await super().answer(writer, path, headers, body)


def question_of(asked):
    """The message that shows the answers; "" where none does."""
    return next((m["content"] for m in asked["messages"] if "[Answer A]" in m["content"]), "")


def lengths(question):
    """Characters of the first and the second answer of a question."""
    first, _, second = question.partition("[Answer A]")[2].partition("[Answer B]")
    return len(first.strip()), len(second.partition("Reply with nothing but")[0].strip())


def complete(asked, settings, chat):
    question = question_of(asked)
    if not question and settings.get("verdict"):
        settings = settings | {"reply": settings["verdict"]}
        return plain(asked, settings, chat)
    a, b = lengths(question)
    odd = bool(settings.get("nonsense")) and settings["nonsense"] in question
    message, choice = {"role": "assistant", "content": "A" if a > b else "B" if b > a else "C"}, {"index": 0}
    if "[list]" in question:
        ranks = (1, 2) if a >= b else (2, 1)
        message["content"] = str([{"model": f"model_{i}", "rank": r} for i, r in zip((1, 2), ranks)])
    if any("[[A>>B]]" in m["content"] for m in asked["messages"]):
        message["content"] = (
            "So: [["
            + ("A>>B" if a > 2 * b else "A>B" if a > b else "B>>A" if b > 2 * a else "B>A" if b > a else "A=B")
            + "]]"
        )
    if asked.get("tools"):
        told = [{"model": name, "rank": r} for name, r in zip("mM", (1, 2) if a >= b else (2, 1))]
        call = {"name": "make_partial_leaderboard", "arguments": json.dumps({"ordered_models": told})}
        message |= {"content": None, "tool_calls": [{"type": "function", "function": call}]}
    if asked.get("top_logprobs"):
        tokens = [{"token": t, "logprob": v} for t, v in (("m", a / 100 - 3), ("M", b / 100 - 3), (" m", -0.1))]
        choice["logprobs"] = {"content": [{"token": "m", "logprob": -3, "top_logprobs": tokens}]}
    if odd:
        message, choice = {"role": "assistant", "content": "I would rather not say."}, {"index": 0}
    usage = {"prompt_tokens": len(question) // 4, "completion_tokens": 3}
    return {"choices": [choice | {"message": message, "finish_reason": "stop"}], "usage": usage}


plain = stub.complete
stub.Stub, stub.complete = JudgeStub, complete

if __name__ == "__main__":
    asyncio.run(stub.main())
