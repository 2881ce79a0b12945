"""What a judge of pairs is called, in every command that has one: the reranker that a name means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError, did_you_mean
from irlens.models import catalog
from irlens.rerank.pair_protocols import NAMES, OWN, PUBLISHED

if TYPE_CHECKING:
    from irlens.rerank.given import Given
    from irlens.rerank.reranker import Scoring

SAYS_NOTHING = ("majority", "oracle", "score", "random")  # of two answers to one prompt


def scoring(name: str, given: Given) -> Scoring:
    """The reranker that the judge `name` is: pairwise (a chat model at --base-url), a chat model of this machine, PairRM, a
    reward model or another reranker. Raises UserError: nothing of that name, one that says nothing about two answers."""
    from irlens.rerank import by_name

    if name in PUBLISHED:
        raise UserError(f"--judge {name}: AlpacaEval's, which `irlens winrate` asks; here {OWN} does, at --base-url")
    if name in SAYS_NOTHING and given.options.verifier is None:
        raise UserError(f"--judge {name}: says nothing about two answers to one prompt")
    check(name)
    meant = reranker_name(name)
    try:
        return by_name.build(meant, given)
    except UserError as error:
        raise UserError(str(error).replace(f"--reranker {meant}", f"--judge {name}")) from error


def check(name: str) -> None:
    """Raises UserError for a name of no judge. Nothing is loaded, read or reached."""
    from irlens.rerank import by_name

    if name in NAMES or Path(name).expanduser().is_file():
        return
    try:
        by_name.check(reranker_name(name))
    except UserError as error:
        hint = did_you_mean(name, (*NAMES, *catalog.MODELS, *catalog.REWARDS))
        raise UserError(
            f"--judge {name}: no such judge; {hint}, a chat model, a reranker, or a file of annotations"
        ) from error


def reranker_name(name: str) -> str:
    """The reranker of a judge's name: what is no reranker, and a model of this machine or a hub id, is a chat model."""
    from irlens.rerank import pairrm

    if name == OWN:
        return "judge"
    folder, last = Path(name).expanduser(), name.rpartition("/")[2]
    if ":" in name or name in catalog.REWARDS:
        return name
    if folder.is_dir():
        return f"reward:{name}" if pairrm.is_layout(folder) or _classifies(folder) else f"judge:{name}"
    if name in catalog.MODELS:
        return f"judge:{name}"
    if name.count("/") != 1:
        return name
    return f"{'reward' if any(r.repo.endswith('/' + last) for r in catalog.REWARDS.values()) else 'judge'}:{name}"


def scores_alone(name: str) -> bool:
    """Whether it is known before anything is fetched that the judge scores one text at a time."""
    known = catalog.REWARDS.get(name)
    return known.form == "scalar" if known else _classifies(Path(name).expanduser())


def _classifies(folder: Path) -> bool:
    """Whether a folder's model is a classifier, as scalar reward models are."""
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return any("SequenceClassification" in name for name in told.get("architectures") or ())
