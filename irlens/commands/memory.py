"""What a command needs of each device's memory, phase by phase, before a weight is downloaded; what cannot fit is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from irlens.base import devices
from irlens.base.errors import UserError
from irlens.models import catalog, memory, sizes
from irlens.models.memory import CONTEXT, GIB, Training
from irlens.models.weights import SMALL
from irlens.train.options import AT_ONCE

if TYPE_CHECKING:
    from irlens.commands.settings import Mine, PassK, Train

LIBRARIES = {"libraries": CONTEXT}
LEARNING = "learning the reward from"
PROMPT, SHORT = 1000, 64  # tokens of the longest prompt where none is set; of the shortest list that anyone trains on
STEP = 256  # tokens by which a shorter --max-length is looked for
UNITS = {"": GIB, "GIB": GIB, "G": GIB, "GB": 10**9, "MIB": 2**20, "MB": 10**6, "TIB": 2**40, "TB": 10**12}


@dataclass(frozen=True)
class Need:
    """What a phase needs of one device: bytes by what holds them, and in all at `least`, however short its texts are."""

    phase: str
    model: str
    parts: dict[str, float]
    least: float

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.parts.values())

    @property
    def words(self) -> str:
        """`training mistral-7b-it: 124 GiB (weights 27, …)`."""
        some = ", ".join(f"{name} {value / GIB:.1f}" for name, value in self.parts.items() if value >= 0.05 * GIB)
        return f"{self.phase} {self.model}: {self.total / GIB:,.1f} GiB{some and f' ({some})'}"


def parse(text: str) -> int:
    """Bytes of `80GiB`, `80GB` or `80` (GiB). Raises UserError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = found and UNITS.get(found[2].upper())
    if not unit or not float(found[1]):
        raise UserError(f"--device-memory {text!r}: expected a size such as 80GiB")
    return int(float(found[1]) * unit)


def of_device(settings) -> int | None:
    """Bytes of a device's memory: as asked, or of the smallest GPU here; None on a CPU, whose memory can be swapped out and
    is shared, so that nothing certain can be said of it."""
    if given := getattr(settings, "device_memory", None):
        return parse(given)
    import torch

    if not torch.cuda.is_available():
        return None
    return min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))


def needs(settings: Train | PassK | Mine, count: int = 1, ask: bool = True) -> Iterator[Need]:
    """What each phase needs of each of `count` devices, of models that are known or, if `ask`, whose config.json can be had."""
    from irlens.commands.settings import Train

    entry = catalog.served(settings.model)
    size = sizes.read(entry.name, entry.repo, entry.revision, entry.parameters, ask=ask)
    if size is None:
        return
    longest = (settings.max_prompt_length or PROMPT) + (settings.max_tokens or entry.max_tokens)
    if settings.engine != "openai":
        yield _drawing(settings, entry.name, size, longest)
    rewards = (getattr(settings, option, None) for option in ("reward", "eval_reward"))
    for name in dict.fromkeys(name for name in rewards if name):
        yield from _scoring(name, ask)
    if isinstance(settings, Train):
        yield _training(settings, entry.name, size, longest, count)
        if settings.loss.learns_reward:
            yield from _learning(settings, longest, count, ask)


def _drawing(settings, name: str, size: sizes.Size, longest: int) -> Need:
    from irlens.retrieve import engines

    vllm = (settings.engine or "vllm") == "vllm"
    if limit := engines.engine_args(settings).get("max_model_len"):
        size = replace(size, positions=limit)
    parts = memory.drawing(size, longest, vllm, settings.tensor_parallel)
    least = sum(parts.values()) if vllm else parts["weights"] + CONTEXT  # vLLM insists on its cache
    return Need("drawing from", name, parts if vllm else parts | LIBRARIES, least)


def _scoring(name: str, ask: bool) -> Iterator[Need]:
    if (found := catalog.reward(name)) is None:
        return
    kind = sizes.ENCODER if found.form == "pairrm" else sizes.CLASSIFIER
    size = sizes.read(found.name, found.repo, found.revision, found.parameters, kind, ask)
    if size is not None:
        parts = memory.scoring(size) | LIBRARIES
        yield Need("scoring by", name, parts, parts["weights"] + CONTEXT)


def _training(settings: Train, name: str, size: sizes.Size, longest: int, count: int) -> Need:
    length = min(longest, settings.max_length or size.positions or longest)
    at_once = settings.lists_at_once or (AT_ONCE if size.parameters < SMALL else 1)
    lists = min(at_once, settings.batch_lists)
    kept = settings.arguments.get("gradient_checkpointing")
    how = Training(lists * settings.size, length, count, settings.shard, settings.lora_rank, settings.quantize, kept)
    parts = memory.training(size, how) | LIBRARIES
    short = memory.activations(size, replace(how, rows=settings.size, length=min(SHORT, length)))
    return Need("training", name, parts, sum(parts.values()) - parts["activations"] + short)


def _learning(settings: Train, longest: int, count: int, ask: bool) -> Iterator[Need]:
    """Training the reward model of RFT, on a demonstration and all draws of a prompt, and scoring by it."""
    name = settings.learning.model or settings.model
    entry = catalog.served(name) if name in (settings.model, *catalog.MODELS) else catalog.reward(name)
    size = entry and sizes.read(entry.name, entry.repo, entry.revision, entry.parameters, sizes.CLASSIFIER, ask)
    if size is None:
        return
    name, rows = entry.name, settings.drawn + 1
    at_once = settings.lists_at_once or (AT_ONCE if size.parameters < SMALL else 1)
    length = min(longest, size.positions or longest)
    how = Training(min(at_once, settings.batch_lists) * rows, length, count, False, settings.lora_rank)
    parts = memory.training(size, how) | LIBRARIES
    short = memory.activations(size, replace(how, rows=rows, length=min(SHORT, length)))
    yield Need(LEARNING, name, parts, sum(parts.values()) - parts["activations"] + short)
    parts = memory.scoring(size) | LIBRARIES
    yield Need("scoring by", name, parts, parts["weights"] + CONTEXT)


def check(settings: Train | PassK | Mine, say: Callable[[str], None]) -> None:
    """Says what each phase needs of a device, where there is one. Raises UserError if a phase cannot fit into it, naming
    what would; where only the longest lists may not, a line says so."""
    room = of_device(settings)
    if room is None:
        return
    count = devices.choose(settings.devices).count or 1
    for need in needs(settings, count):
        say(f"memory of each device, of {room / GIB:,.0f} GiB: {need.words}")
        if need.total <= room:
            continue
        found = "; ".join(_instead(settings, need, count, room)) or "a larger device"
        if need.least > room:
            raise UserError(f"{need.words} do not fit into the {room / GIB:,.0f} GiB of a device; what would: {found}")
        say(f"warning: {need.phase} {need.model} may run out of memory on the longest texts; what would not: {found}")


def _instead(settings, need: Need, count: int, room: float) -> Iterator[str]:
    """Options with which this phase would fit."""
    if need.phase == "drawing from":
        yield from _more_room_to_draw(settings, need, room)
    elif need.phase in ("training", LEARNING):
        tried = {"--lora-rank 16": {"lora_rank": 16}}
        if not settings.loss.learns_reward:  # whose reward model is neither divided nor quantised
            divided = {"--shard": {"shard": True}} if count > 1 else {}
            divided |= {f"--shard on {n} devices": {"shard": True, "count": n} for n in (2, 4, 8) if n > count}
            tried = divided | tried | {"--lora-rank 16 --quantize 4bit": {"lora_rank": 16, "quantize": "4bit"}}
        named = set()
        for option, change in tried.items():
            kind = option.split()[0]
            other = dict(change)
            if kind not in named and (total := _total(settings, need, other.pop("count", count), **other)) <= room:
                named.add(kind)
                yield f"{option} ({total / GIB:,.0f} GiB)"
        if need.least <= room and need.phase == "training":
            yield from _shorter(settings, need, count, room)


def _more_room_to_draw(settings, need: Need, room: float) -> Iterator[str]:
    left = memory.VLLM * room - memory.STARTED - need.parts["weights"]
    cache = need.parts["cache of one text"]
    entry = catalog.served(settings.model)
    size = sizes.read(entry.name, entry.repo, entry.revision, entry.parameters)
    tokens = int(left // (cache / size.positions)) // STEP * STEP if size and size.positions else 0
    if tokens > 0:
        yield f"--engine-args '{{\"max_model_len\": {tokens}}}'"
    yield "--tensor-parallel 2"


def _shorter(settings: Train, need: Need, count: int, room: float) -> Iterator[str]:
    """The longest --max-length that fits."""
    entry = catalog.served(settings.model)
    longest = (settings.max_prompt_length or PROMPT) + (settings.max_tokens or entry.max_tokens)
    for length in range(longest // STEP * STEP, 0, -STEP):
        if _total(settings, need, count, max_length=length) <= room:
            yield f"--max-length {length}"
            return


def _total(settings: Train, need: Need, count: int, **change) -> float:
    """Bytes that training would need with other settings."""
    change = {"quantize": None} | change if change.get("shard") else change
    return next(n.total for n in needs(replace(settings, **change), count) if n.phase == need.phase)
