"""What a rehearsal cuts from a step (prompts, tokens, epochs), what it keeps (n, list shapes), and what it cannot run here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec

from irlens.base.errors import UserError
from irlens.base.options import parse_json
from irlens.commands.chat import WinRate
from irlens.commands.settings import Index, Mine, PassK, Recall, Sample, Train
from irlens.reproduce import chat
from irlens.reproduce.records import Recipe, Step
from irlens.reproduce.rehearsal import stub_judge
from irlens.reproduce.rehearsal.furnish import here_alone, made_up, mixeval
from irlens.tasks import alpacaeval

CAPS = {  # setting → what remains of it at most
    "prompts": 6,
    "iterations": 2,
    "epochs": 1,
    "limit": 4,
    "eval_limit": 4,
    "test_limit": 4,
    "max_tokens": 48,
    "rerank_depth": 20,
    "train_size": 300,
    "resamples": 20,
}
ALL = {"limit": "all", "max_tokens": "the model's"}  # what a setting means that was not given
EMBEDDED = {
    "prompts": 40,
    "max_tokens": 96,
}  # of `tiny`, which draws for itself: its answers are longer, and half are wrong
LIMITS = {Mine: 12, Recall: 8}  # a command that needs more topics than the cap on `limit`
ON_GPUS = ("fsdp", "fsdp_config", "deepspeed", "bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval")


@dataclass(frozen=True)
class Cut:
    """A step as it is and as it is rehearsed. changed: setting → (real, rehearsed); not_rehearsed: in words."""

    real: Step
    step: Step
    changed: dict[str, tuple] = field(default_factory=dict)
    not_rehearsed: tuple[str, ...] = ()


def recipe(real: Recipe) -> tuple[Recipe, list[Cut]]:
    """The recipe with every step cut, and each cut; a grid of learning rates is left out.

    Raises UserError for a step that asks a server, which is not at hand in a rehearsal.
    """
    cuts = [step(one) for one in real.steps]
    if real.tune:
        grid = f"the grid of learning rates ({len(real.tune.learning_rate)} for each arm): one training of each"
        cuts = [replace(c, not_rehearsed=(*c.not_rehearsed, grid)) if c.step.stage == "train" else c for c in cuts]
    return replace(real, steps=tuple(cut.step for cut in cuts), tune=None), cuts


def step(real: Step) -> Cut:
    """One step cut. Raises UserError for a judge at a server."""
    settings, names = real.settings, {f.name for f in fields(real.settings)}
    asked = str(getattr(settings, "reranker", None) or "").split(",")
    if any(name.removeprefix("vote:").partition(":")[0] == "judge" for name in asked):
        raise UserError(
            f"{real.name}: reranker {settings.reranker}: a judge at a server has no stand-in: not rehearsed"
        )
    new, changed = {}, {}
    few = getattr(settings, "dataset", None) == alpacaeval.NAME or mixeval(settings)  # their stand-ins are
    for name, most in CAPS.items():
        most = LIMITS.get(type(settings), most) if name == "limit" else most
        most = EMBEDDED.get(name, most) if getattr(settings, "model", None) == "tiny" else most
        if name not in names or (name == "limit" and (few or isinstance(settings, Index))):
            continue
        found = getattr(settings, name)
        if (found is None and name == "train_size") or name in _unused(settings):
            continue
        if found is None or found > most:
            new[name], changed[name] = most, (ALL.get(name, found) if found is None else found, most)
    other, without = _machine(settings)
    if real.stage in chat.JUDGES:
        judged, words = _judging(real)
        other, without = other | judged, without + words
    other = {name: value for name, value in other.items() if name in names}
    if (dataset := getattr(settings, "dataset", None)) and made_up(dataset):
        without.append(f"the data set {dataset}: a made-up BEIR folder in its place")
    return Cut(real, replace(real, settings=replace(settings, **new, **other)), changed, tuple(without))


def _judging(real: Step) -> tuple[dict, list[str]]:
    """(settings of a step that judges as a rehearsal has them, what is not rehearsed): prompts that were cut are missing."""
    settings, new, without = real.settings, {"allow_missing": True}, []
    if stub_judge.asks(real):
        without.append(f"the judge {settings.judge} at a server: a stand-in here answers by a digest of the question")
        if not stub_judge.has_template(real):
            without.append(f"the words of {settings.judge}, which are its authors' and not here: ours in their place")
    elif real.stage == "winrate" and here_alone(settings.judge):
        new["judge"] = "length"
        without.append(f"the judge {settings.judge}, of which there is no stand-in: the longer answer wins")
    return new, without


def _unused(settings) -> set[str]:
    """Settings that say nothing beside others, or not how many."""
    tests_in_between = getattr(settings, "eval_split", None) == "test"
    no_second = isinstance(settings, Recall) and settings.reranker is None
    a_file = isinstance(settings, WinRate)  # and no count
    found = (("test_limit", tests_in_between), ("rerank_depth", no_second), ("prompts", a_file))
    return {name for name, unused in found if unused}


def _machine(settings) -> tuple[dict, list[str]]:
    """(settings for a CPU in the place of what needs more, what is not rehearsed by that)."""
    new, without = {}, []
    engine = getattr(settings, "engine", None)
    if engine == "openai":
        new |= {"engine": "transformers", "base_url": None, "served_model": None, "chat": False, "engine_args": None}
        without.append("the server (engine openai): transformers draws in its place")
    if engine == "vllm" and find_spec("vllm") is None:
        new |= {"engine": "transformers", "engine_args": None, "tensor_parallel": 1}
        without.append("vLLM: it is not installed here; transformers draws in its place")
    if str(getattr(settings, "devices", None)).startswith("ray") and find_spec("ray") is None:
        new["devices"] = None
        without.append("Ray: it is not installed here; this process works in its place")
    if engine is None and isinstance(settings, (Sample, PassK, Mine, Train)):
        without.append("vLLM, which draws where it is installed beside a GPU: transformers draws here")
    if getattr(settings, "quantize", None):
        new["quantize"] = None
        without.append("4-bit weights (bitsandbytes needs a GPU)")
    if arguments := parse_json(getattr(settings, "trainer_args", None), "--trainer-args"):
        left = {name: value for name, value in arguments.items() if name not in ON_GPUS}
        if gone := sorted(arguments.keys() - left.keys()):
            new["trainer_args"] = json.dumps(left) if left else None
            without.append(f"--trainer-args {', '.join(gone)}, which need GPUs")
    if getattr(settings, "index", None) not in (None, "Flat"):
        new |= {"index": None} | {name: None for name in ("nprobe", "ef_search", "refine") if hasattr(settings, name)}
        without.append(f"the index {settings.index}, which so few passages cannot train: exact search in its place")
    return new, list(dict.fromkeys(without))
