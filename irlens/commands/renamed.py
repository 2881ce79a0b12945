"""Old names of options and what they are called now: a line for who types or writes one, and folders that still continue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from irlens.base import options
from irlens.base.errors import UserError
from irlens.train.options import BEFORE


@dataclass(frozen=True)
class Renamed:
    """An option of a command that has another name now. old, new: as they are typed. key: of recipes, where the old name
    was one; note: what else has changed."""

    old: str
    new: str
    key: str | None = None
    note: str = ""

    def line(self, command: str, as_key: bool = False) -> str:
        """One line that names the new one, as an option or as a recipe's key."""
        old, new = (self.key, KEYS.get(self.new, _key(self.new))) if as_key else (self.old, self.new)
        return f"{command}: {old} is now called {new}{self.note and '; ' + self.note}"


def _key(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _plain(old: str, new: str, note: str = "") -> Renamed:
    return Renamed(old, new, _key(old), note)


KEYS = {"-n": "n"}
DRAWS = Renamed("--draws", "-n")
ENGINE = (
    _plain("--num-workers", "--devices", "ray:N for N workers of a Ray cluster"),
    _plain("--inner-engine", "--engine", "with --devices ray"),
    _plain("--data-parallel", "--devices", "copies of the model, one per device"),
)
SCORING = (_plain("--judge-model", "--served-model"), _plain("--scoring-batch", "--batch-size"))
VECTORS = _plain("--store", "--vector-dtype")
HIGH_LOW = "the high temperature (of easy and hard), then the low one (of hardest), such as 1.0,0.7"
RENAMED = {
    "passk": (DRAWS, *ENGINE),
    "index": (VECTORS,),
    "recall": (_plain("--rerank", "--reranker"), VECTORS),
    "mine-negatives": (
        DRAWS,
        *ENGINE,
        _plain("--tiers", "--tier"),
        _plain("--positives", "--positives-from", "of gold, own (what was called correct) or both"),
        _plain("--hard-temperature", "--temperature", HIGH_LOW),
        _plain("--hardest-temperature", "--temperature", HIGH_LOW),
    ),
    "train": (DRAWS, *ENGINE),
    "rerank": SCORING,
    "best-of-n": (*SCORING, _plain("--rerankers", "--reranker")),
}


def option(command: str, typed: str) -> str | None:
    """The line about an old option; None where the command never had one of that name."""
    found = next((one for one in RENAMED.get(command, ()) if one.old == typed), None)
    return found and found.line(command)


def check_keys(stage: str, keys: Iterable[str], where: str) -> None:
    """Raises UserError, naming `where`, for an old key of a recipe's stage."""
    old = {one.key: one for one in RENAMED.get(stage, ()) if one.key}
    for key in keys:
        if key in old:
            raise UserError(f"{where}: {old[key].line(stage, as_key=True)}")


# -- folders of before ---------------------------------------------------------------------------------------------


def continued(command: str, before: dict, now: dict) -> dict:
    """The settings in the manifest of an older folder, by the names of today; those that change no result are left out
    where today's do not tell them (`now`). A recipe's are its steps."""
    if command == "reproduce" and isinstance(before.get("steps"), list) and isinstance(now.get("steps"), list):
        pairs = zip(before["steps"], [*now["steps"], *({} for _ in before["steps"])])
        return before | {"steps": [continued(old.get("stage", ""), old, new) for old, new in pairs]}
    before = NEW_SETTINGS.get(command, dict)(before)
    if (
        command == "train" and "save_dtype" in now
    ):  # policies were float32; a recipe's steps say only what was asked, and their folders decide
        before = {"save_dtype": "auto" if now["save_dtype"] == "auto" else "float32"} | before
    if command == "train":
        new = {**BEFORE, "eval_every": 1}
        before = {name: value for name, value in new.items() if name in now} | before
    if command == "fit-reranker":
        new = {"every_token": 0.0, "optimiser": "adamw", "balanced": False}
        before = {name: value for name, value in new.items() if name in now} | before
    return {name: value for name, value in before.items() if name in now or name not in _free(command)}


def _free(command: str) -> set[str]:
    from irlens.commands import settings

    return options.free(settings.STAGES[command]) if command in settings.STAGES else set()


def _mined(before: dict) -> dict:
    found = dict(before)
    if "hard_temperature" in found:
        found["temperature"] = [found.pop("hard_temperature"), found.pop("hardest_temperature", None)]
    if "positives" in found:
        source = found.pop("positives")
        found["positives_from"] = "own" if source == "correct" else source
    return _moved(found, tiers="tier")


def _picked(before: dict) -> dict:
    found = _moved(before, judge_model="served_model", scoring_batch="batch_size")
    return _moved(found, rerankers="reranker") if isinstance(found.get("rerankers"), str) else found


def _moved(before: dict, **names: str) -> dict:
    return {names.get(name, name): value for name, value in before.items()}


NEW_SETTINGS: dict[str, Callable[[dict], dict]] = {
    "mine-negatives": _mined,
    "recall": lambda before: _moved(before, rerank="reranker", store="vector_dtype"),
    "rerank": lambda before: _moved(before, judge_model="served_model", scoring_batch="batch_size"),
    "best-of-n": _picked,
}
