"""What a judge of two answers is asked and how its answer is read: AlpacaEval's protocols by name, and one of our own.

AlpacaEval's templates are its authors' and are not carried here: they are read from the files of the package alpaca_eval,
which is never imported, or from a file that the user names. Source: alpaca_eval's evaluators_configs.
"""

from __future__ import annotations

import ast
import json
import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from irlens.base.errors import UserError
from irlens.rerank import llm_judge

PLACES = ("instruction", "output_1", "output_2")
OWN = "pairwise"
LONGEST = 20_000  # characters of an answer that are read as a list: what is longer is none
MODEL_AND_RANK = {"model": {"type": "string"}, "rank": {"type": "number", "description": "1 is the better answer"}}
TOOL = {  # of the judge that answers by a call, where the package does not tell its own
    "name": "make_partial_leaderboard",
    "description": "Take the two models, the one with the better answer first.",
    "parameters": {
        "type": "object",
        "properties": {
            "ordered_models": {
                "type": "array",
                "items": {"type": "object", "properties": MODEL_AND_RANK, "required": ["model", "rank"]},
            }
        },
        "required": ["ordered_models"],
    },
}

Read = Callable[[dict], float | None]  # a choice of a server → 1 to 2, as shown; None for what cannot be read


@dataclass(frozen=True)
class Protocol:
    """A judge of pairs: its template, the settings of every request, and how a choice is read.

    model: the one that the published judge is. again: what is said after an answer that cannot be read; without it the
    question is put once more as it was.
    """

    name: str
    template: str
    body: Mapping[str, object]
    reader: str
    model: str | None = None
    again: str | None = None

    def messages(self, instruction: str, first: str, second: str) -> list[dict]:
        """The conversation about two answers, in this order: each place is filled once, the first that there is."""
        found = _messages(self.template)
        for place, text in zip(PLACES, (instruction, first, second)):
            for message in found:
                if "{" + place + "}" in message["content"]:
                    message["content"] = message["content"].replace("{" + place + "}", text, 1)
                    break
        return found

    @property
    def read(self) -> Read:
        """A choice → its preference from 1 (the first) to 2 (the second); None for what cannot be read."""
        return READERS[self.reader]

    @property
    def identity(self) -> dict:
        """What its answers depend on."""
        return {"protocol": self.name, "template": self.template, "body": dict(self.body), "reader": self.reader}


# -- reading -------------------------------------------------------------------------------------------------------


def read_weights(choice: dict) -> float | None:
    """2 - p, p the share of `m` of the probabilities of exactly `m` and `M` among the first token's likeliest ones."""
    try:
        top = choice["logprobs"]["content"][0]["top_logprobs"]
        found = {token["token"]: float(token["logprob"]) for token in top if token["token"] in ("m", "M")}
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    if not found or any(math.isnan(value) for value in found.values()):
        return None
    most = max(found.values())
    m, other = (math.exp(found[name] - most) if name in found else 0.0 for name in ("m", "M"))
    return 2 - m / (m + other)


def read_call(choice: dict) -> float | None:
    """The rank of `m` in the forced tool's `ordered_models`."""
    try:
        told = choice["message"]["tool_calls"][0]["function"]["arguments"]
        return _rank(json.loads(told)["ordered_models"], "m")
    except (KeyError, IndexError, TypeError, ValueError, RecursionError):
        return None


def read_list(choice: dict) -> float | None:
    """The rank of `model_1` in an answer that is a Python list of `{'model', 'rank'}`."""
    text = text_of(choice).strip()
    try:
        return _rank(ast.literal_eval(text), "model_1") if len(text) <= LONGEST else None
    except (KeyError, IndexError, TypeError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def read_letter(choice: dict) -> float | None:
    """A for the first, B for the second, C for neither, as `llm_judge` reads them."""
    value = llm_judge.read_pair(text_of(choice))
    return None if value is None else 2 - value


def _rank(models, name: str) -> float | None:
    rank = next(model for model in models if model["model"] == name)["rank"] if models else None
    return float(rank) if type(rank) in (int, float) and rank in (1, 2) else None


def text_of(choice: dict) -> str:
    """What a choice says; "" where that is no text."""
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    return text if isinstance(text, str) else ""


READERS: dict[str, Read] = {"weights": read_weights, "call": read_call, "list": read_list, "letter": read_letter}


# -- by name -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """A judge of AlpacaEval: its template's place in the package, its reader, and the requests' settings."""

    template: str
    reader: str
    model: str
    body: Mapping[str, object] = field(default_factory=dict)


def _weighted(model: str) -> Published:
    body = {"max_tokens": 1, "temperature": 1.0, "top_p": 1.0, "logprobs": True, "top_logprobs": 5}
    return Published("alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt", "weights", model, body)


def _discrete(folder: str, reader: str, model: str, **more) -> Published:
    return Published(
        f"{folder}/alpaca_eval_fn.txt", reader, model, {"max_tokens": 100, "temperature": 0.0, "top_p": 1.0} | more
    )


FORCED = {"tool_choice": {"type": "function", "function": {"name": TOOL["name"]}}}
LLAMA = "meta-llama/Meta-Llama-3-70B-Instruct"
PUBLISHED = {
    "weighted_alpaca_eval_gpt4_turbo": _weighted("gpt-4-1106-preview"),
    "weighted_alpaca_eval_gpt4_turbo_new": _weighted("gpt-4-turbo"),
    "weighted_alpaca_eval_gpt-4o-mini-2024-07-18": _weighted("gpt-4o-mini-2024-07-18"),
    "weighted_alpaca_eval_gpt4.1": _weighted("gpt-4.1"),
    "weighted_alpaca_eval_vllm_llama3_70b": _weighted(LLAMA),
    "alpaca_eval_gpt4_turbo_fn": _discrete("alpaca_eval_gpt4_turbo_fn", "call", "gpt-4-1106-preview", **FORCED),
    "alpaca_eval_llama3_70b_fn": _discrete("alpaca_eval_llama3_70b_fn", "list", "meta-llama/Llama-3-70b-chat-hf"),
}
NAMES = (OWN, *PUBLISHED)


def protocol(name: str, template: Path | None = None, tokens: int = 64) -> Protocol:
    """The judge of this name. template: a file in the place of the published one, or of our own wording; tokens: the
    longest answer of `pairwise`. Raises UserError: a template that is not to be had, or lacks a place."""
    if name == OWN:
        wording = llm_judge.PAIR.format(prompt="{instruction}", first="{output_1}", second="{output_2}")
        text = _checked(_read(template), str(template)) if template else wording
        body = {"max_tokens": tokens, "temperature": 0.0, "top_p": 1.0}
        return Protocol(name, text, body, "letter", again=llm_judge.AGAIN["pairwise"])
    found = PUBLISHED[name]
    path = template or packaged(name, found.template)
    body = dict(found.body) | ({"tools": [_tool(name)]} if found.reader == "call" else {})
    return Protocol(name, _checked(_read(path), str(path)), body, found.reader, found.model)


def _tool(name: str) -> dict:
    """The tool that the judge is made to call: as the package has it, else TOOL."""
    import yaml

    try:
        text = _read(packaged(name, f"{name}/configs.yaml"))
        return yaml.safe_load(text)[name]["completions_kwargs"]["tools"][0]
    except (UserError, yaml.YAMLError, KeyError, IndexError, TypeError):
        return {"type": "function", "function": TOOL}


def packaged(name: str, inside: str) -> Path:
    """Where the installed alpaca_eval has a file of its evaluators. Raises UserError where it is not installed or has none."""
    spec = find_spec("alpaca_eval")
    places = list(spec.submodule_search_locations or ()) if spec else []
    path = next((Path(place) / "evaluators_configs" / inside for place in places), None)
    if path is None or not path.is_file():
        raise UserError(
            f"--judge {name}: its template is its authors': `pip install --no-deps alpaca-eval` brings it, or name a "
            f"file by --template"
        )
    return path


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--template {path}: cannot be read ({error})") from error


def _checked(text: str, where: str) -> str:
    """`text` if each place stands in it once. Raises UserError else."""
    counts = {place: text.count("{" + place + "}") for place in PLACES}
    if wrong := [place for place, count in counts.items() if count != 1]:
        raise UserError(f"--template {where}: needs {{{wrong[0]}}} once, and has it {counts[wrong[0]]} times")
    return text


MARK = re.compile(r"<\|im_start\|>[ \t]*(\w+)[^\n]*\n(.*?)<\|im_end\|>", re.S)


def _messages(template: str) -> list[dict]:
    """The messages of a template: those of its ChatML marks, else one of the user."""
    found = [{"role": role, "content": text.strip()} for role, text in MARK.findall(template)]
    return found or [{"role": "user", "content": template.strip()}]


def is_switched(instruction: str) -> bool:
    """Whether AlpacaEval shows the system's answer before the baseline's: a coin that the instruction throws."""
    return random.Random("is_switched_outputs" + instruction + "0").choices([False, True], k=1)[0]
