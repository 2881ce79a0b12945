"""What the training of a reranker can be told."""

from __future__ import annotations

from dataclasses import dataclass

from irlens.base.options import argument, option
from irlens.commands.settings import PASSK_OUT, Seeded, _out, _seed, _store
from irlens.rerank.options import columns
from irlens.retrieve.options import devices
from irlens.train.reranker.options import RerankerOptions


@dataclass(frozen=True)
class FitReranker(Seeded, RerankerOptions):
    """A reranker, learned from judged responses."""

    data: str = argument(
        PASSK_OUT,
        "Judged draws (the folder of a passk, verify or rerank, or a run), preference pairs or scored lists: a file, a "
        "folder, or owner/name of the hub.",
    )
    model: str = option(
        "tiny",
        "To start from: a language model, an encoder or a classifier; a name, a hub id or a folder.",
        panel="Data",
    )
    qrels: str | None = option(None, "Judgements of a run. Default: its own, else its rewards.", panel="Judging")
    dataset: str | None = option(
        None,
        "Where a run's prompts come from. Default: what its folder says. Of lists: whose instruction they miss.",
        panel="Data",
    )
    columns: str | None = columns("prompt=question,chosen=better: which to read.")
    split: str | None = option(
        None, "Of --dataset, or of the hub's data. Default: as the folder says; train.", panel="Data"
    )
    pad_token: str | None = option(
        None, "The token that pads, where the tokenizer names none that will do.", panel="Data"
    )
    devices: str | None = devices()
    seed: int = _seed()
    out: str | None = _out()
    store: str | None = _store()
