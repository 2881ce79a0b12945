"""Training a reranker from a folder with weights into another: it resumes, and works under a launcher."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from irlens.base.devices import HERE, Devices, first
from irlens.base.errors import UserError
from irlens.base.files import write_csv, write_text
from irlens.base.progress import Say
from irlens.train.reranker.options import Training

if TYPE_CHECKING:
    import pandas as pd

    from irlens.train.reranker.texts import Texts

LISTS, MODEL, CHECKPOINTS = "lists.parquet", "model", "checkpoints"
MADE_WITH = ("account.json", "log.csv")  # a model without these is trained again: nothing else tells what is in them


@dataclass(frozen=True)
class Phase:
    """One training of a reranker: of the base `weights` on the lists in `out`, into out/model. base: what it is called.

    Beside the model lie account.json and log.csv; checkpoints/ is there while it trains. root: the folder whose checksums
    tell what is there, `out` or one above it. called: in messages. instruction: what a data set adds to its questions, which
    a language model without a chat template does not read. The rest is what `train.launch` asks of a phase.
    """

    options: Training
    out: Path
    base: str
    weights: Path
    pad_token: str | None = None
    root: Path | None = None
    called: str = "the reranker"
    instruction: str = ""
    process: ClassVar[str] = "irlens.train.reranker.phase"

    @property
    def file(self) -> Path:
        """Where it is written for its processes; what comes of it lies beside it, `.ended`."""
        return self.out / "phase.json"

    def as_json(self) -> str:
        """What its processes read."""
        told = {name: value and str(value) for name, value in self._places().items()}
        told |= {"base": self.base, "pad_token": self.pad_token, "called": self.called}
        told |= {"instruction": self.instruction}
        return json.dumps(told | {"options": asdict(self.options)})

    def _places(self) -> dict[str, Path | None]:
        return {"out": self.out, "weights": self.weights, "root": self.root}

    @classmethod
    def of_json(cls, text: str) -> Phase:
        """The training that `as_json` told."""
        told = json.loads(text)
        places = {name: told[name] and Path(told[name]) for name in ("out", "weights", "root")}
        return cls(**told | places | {"options": Training(**told["options"])})


def fit(phase: Phase, devices: Devices = HERE, say: Say = print) -> Path:
    """The folder of the trained reranker: trained here or on the devices, or found as an earlier start left it.

    Raises UserError: a base of which no classifier can be made, no list that fits, a loss that is not finite.
    """
    path = phase.out / MODEL
    if path.is_dir() and all((phase.out / name).is_file() for name in MADE_WITH):
        say(f"reused {phase.called} in {path}")
        for left in (phase.file, phase.file.with_suffix(".ended")):
            left.unlink(missing_ok=True)
    elif devices.here:
        train(phase, say)
    else:
        from irlens.train import launch

        launch.run(phase, devices, say)
    shutil.rmtree(phase.out / CHECKPOINTS, ignore_errors=True)
    return path


def train(phase: Phase, say: Say) -> None:
    """Trains in this process, and in those that a launcher has started beside it: each calls it."""
    import pandas as pd

    from irlens.models.load import quiet_if_small
    from irlens.models.weights import saved_as
    from irlens.train import adapters
    from irlens.train.in_folder import log_of
    from irlens.train.reranker import base, trainer

    quiet_if_small(phase.weights)
    options, out = phase.options, phase.out
    tokenizer = base.tokenizer(phase.weights, phase.pad_token, phase.instruction)
    examples, account = fitting(pd.read_parquet(out / LISTS), phase.weights, tokenizer, options)
    if account["too_long"]:
        say(
            f"{phase.called}: left out {account['too_long']:,} lists, whole: a text of theirs is longer than "
            f"{options.max_length:,} tokens"
        )
    model = base.model(phase.weights, tokenizer, options.seed, options.lora_rank)
    rows = model.get_input_embeddings().num_embeddings
    if (largest := max(max(one["input_ids"]) for each in examples for one in each.texts)) >= rows:
        raise UserError(f"{phase.base}: the tokenizer gives token id {largest}, the model knows {rows} tokens only")
    try:
        done = trainer.train(model, tokenizer.pad_token_id, examples, options, out / CHECKPOINTS)
    except FloatingPointError as error:
        raise UserError(str(error)) from error
    if first():
        tokens = {"tokens_trained": options.epochs * sum(one.tokens for one in examples)}
        write_text(json.dumps(account | tokens) + "\n", out / "account.json")
        write_csv(log_of(done), out / "log.csv")
        shutil.rmtree(out / MODEL, ignore_errors=True)  # without what was made with it
    dtype = saved_as(options.save_dtype, phase.weights)
    adapters.save(done, phase.weights, tokenizer, phase.base, out / MODEL, dtype)
    done.accelerator.wait_for_everyone()


def fitting(lists: pd.DataFrame, weights: Path, tokenizer, options: Training) -> tuple[list[Texts], dict[str, int]]:
    """(the lists of which every text fits into `options.max_length` tokens; how many there are and how many do not).

    Raises UserError where none does, or none of those says anything to an objective that compares.
    """
    from irlens.train.reranker import base, texts

    reader = base.reader(weights, tokenizer, conversations(lists))
    if options.every_token and not reader.causal:
        raise UserError(f"--every-token: {weights.name} is an encoder, which scores a text as a whole; leave it out")
    every = texts.read(lists, reader, starts=options.every_token > 0)
    fit = [one for one in every if options.max_length is None or one.longest <= options.max_length]
    if not fit:
        shortest = min(one.longest for one in every)
        raise UserError(
            f"none of {len(every):,} lists fits into --max-length {options.max_length}; the shortest has {shortest:,} tokens"
        )
    if options.loss.needs_negative and not any(len(set(one.grades)) > 1 for one in fit):
        raise UserError(
            f"no list that fits into --max-length {options.max_length} has two different grades, and {options.objective} "
            "compares"
        )
    counts = {"lists": len(fit), "too_long": len(every) - len(fit), "responses": sum(len(one.grades) for one in fit)}
    return fit, counts


def conversations(lists: pd.DataFrame) -> dict[str, list[dict]]:
    """query_id → the messages that its responses answer."""
    once = lists.drop_duplicates("query_id")
    return {query: [dict(turn) for turn in turns] for query, turns in zip(once["query_id"], once["messages"])}
