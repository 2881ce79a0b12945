"""Training from a folder with weights into another: it resumes, says what it leaves out, and works under a launcher."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.devices import HERE, Devices, first
from irlens.base.errors import NothingToRank, UserError
from irlens.base.files import write_csv, write_text
from irlens.train.iterations import Kept, read_skipped
from irlens.train.options import TrainOptions

if TYPE_CHECKING:
    import pandas as pd


MADE_WITH = ("account.json", "log.csv")  # a model without these is trained again: nothing else tells what is in them


@dataclass(frozen=True)
class Folders:
    """Trains policies into `kept.folder(s)/model`; each is one rename, so a model that is there is whole.

    base: the catalog name whose defaults the trained models inherit. devices: where it trains; unless that is here, in
    processes of their own, which end with it (`train.phase`). Beside the model lie account.json, log.csv and the
    prompts that lost their lists (skipped.csv); checkpoints/ is there while it trains.
    """

    options: TrainOptions
    kept: Kept
    base: str
    devices: Devices = HERE

    def fit(self, weights: Path, lists: pd.DataFrame, prompts: dict[str, list[int]], s: int) -> Path:
        """The folder of the policy that iteration s trains from `weights`. prompts: query_id → token ids.

        Raises NothingToRank if no list fits or can be compared, UserError if the loss is not finite.
        """

        path = self.kept.folder(s) / "model"
        whole = all((self.kept.folder(s) / name).is_file() for name in MADE_WITH)
        if path.is_dir() and whole:
            self.kept.say(f"iteration {s}: reused the model in {path}")
            self._clean(s)  # a kill may have come after the model and before that
            for left in ("phase.json", "phase.ended"):
                (self.kept.folder(s) / left).unlink(missing_ok=True)
        elif self.devices.here:
            self.train(weights, lists, prompts, s)
        else:
            from irlens.train import launch

            phase = launch.Phase(self.options, self.kept.out, self.base, weights, prompts, s)
            launch.run(phase, self.devices, self.kept.say)
        return path

    def train(self, weights: Path, lists: pd.DataFrame, prompts: dict[str, list[int]], s: int) -> None:
        """Trains in this process, and in those that a launcher has started beside it: each calls it."""
        from irlens.models.chat import origins
        from irlens.models.weights import saved_as
        from irlens.train import adapters
        from irlens.train.trainer import train

        here, options = self.kept.folder(s), self.options
        model, tokenizer = load(weights, options, s)
        if options.loss.mismatched and lists["query_id"].nunique() < 2:
            raise NothingToRank(
                f"iteration {s}: one prompt gives lists, and {options.objective} compares with responses to another"
            )
        examples, account = self._examples(model, tokenizer, lists, prompts, s)
        account |= {"tokens_trained": options.epochs * sum(e.tokens for e in examples)}
        account |= {"prompts": len(prompts), "prompts_without_list": self._reasons(account.pop("lost"), s)}
        try:
            trainer = train(model, tokenizer, examples, options, here / "checkpoints", s)
        except FloatingPointError as error:
            raise UserError(f"iteration {s}: {error}") from error
        if first():
            read = origins(lists, model, tokenizer)
            write_text(json.dumps(account | read) + "\n", here / "account.json")
            write_csv(log_of(trainer), here / "log.csv")
        dtype = saved_as(options.save_dtype, weights)
        if first():
            shutil.rmtree(here / "model", ignore_errors=True)  # without what was made with it
        adapters.save(trainer, weights, tokenizer, self.base, here / "model", dtype)
        trainer.accelerator.wait_for_everyone()
        if first():
            self._clean(s)
            for warning in displaced(log_of(trainer)):
                self.kept.say(f"iteration {s}: {warning}")

    def _clean(self, s: int) -> None:
        """Removes what only a training needs that is not finished."""
        shutil.rmtree(self.kept.folder(s) / "checkpoints", ignore_errors=True)

    def _examples(self, model, tokenizer, lists: pd.DataFrame, prompts: dict, s: int) -> tuple[list, dict]:
        """(the lists that fit, as token ids; their number, how many are too long, and the prompts that lost all)."""
        from irlens.models.load import device_and_dtype
        from irlens.models.logprobs import explain
        from irlens.train.data import check_vocabulary, fitting, tokenise

        options, say = self.options, self.kept.say
        every = tokenise(lists, prompts, tokenizer, options.loss.mismatched, model)
        examples = fitting(every, options.max_length)
        if len(examples) < len(every):
            say(
                f"iteration {s}: left out {len(every) - len(examples):,} of {len(every):,} lists, whole: a response "
                f"with its prompt is longer than {options.max_length:,} tokens"
            )
        if not examples:
            self._reasons([e.query_id for e in every], s)
            raise NothingToRank(f"iteration {s}: no list fits into --max-length {options.max_length}")
        check_vocabulary(model, examples, lambda: model.name_or_path)
        lengths = [(len(e.prompt), [len(r) for r in e.responses]) for e in examples]
        explain(model, say, options.pack_up_to, lengths, device_and_dtype()[0])
        kept = {e.query_id for e in examples}
        lost = [query_id for query_id in dict.fromkeys(e.query_id for e in every) if query_id not in kept]
        return examples, {"lists": len(examples), "too_long": len(every) - len(examples), "lost": lost}

    def _reasons(self, too_long: list[str], s: int) -> dict[str, int]:
        """How many prompts gave no list for which reason; those that are too long are added to skipped.csv."""
        import pandas as pd

        here = self.kept.folder(s)
        skipped = read_skipped(here)
        skipped = skipped[skipped["why"] != "too long"]  # of a start that was killed
        if too_long:
            lost = pd.DataFrame({"query_id": list(dict.fromkeys(too_long)), "why": "too long"})
            skipped = pd.concat([skipped, lost], ignore_index=True)
            if first():
                write_csv(skipped, here / "skipped.csv")
        return {why: int(count) for why, count in skipped["why"].value_counts().items()}


def load(weights: Path, options: TrainOptions, s: int = 0):
    """(model, tokenizer) to train; new adapters begin with the random numbers of iteration s."""
    import torch

    from irlens.base import seeds
    from irlens.train import adapters

    torch.manual_seed(seeds.folded(seeds.derive(options.seed, s, "weights")))
    return adapters.load(weights, options.lora_rank, options.quantize, options.shard)


def log_of(trainer) -> pd.DataFrame:
    """What was logged of a training, a row per entry; columns in an order that a checkpoint, which sorts them, keeps."""
    import pandas as pd

    log = pd.DataFrame(entry for entry in trainer.state.log_history if "loss" in entry)
    return log[sorted(log.columns, key=lambda name: (name != "step", name != "loss", name))]


def displaced(log: pd.DataFrame) -> list[str]:
    """A warning in words if training made the positives a quarter of a nat or more less likely than the reference has
    them (the mean of the last quarter of the log): likelihood displacement."""
    if "logratio_positive" not in log.columns or log.empty:  # no reference, or nothing logged
        return []
    last = log.tail(max(1, len(log) // 4))
    up, down = last["logratio_positive"].mean(), last["logratio_negative"].mean()
    if up >= -0.25:  # what single steps wander by
        return []
    return [
        f"warning: the positives' log-probability fell by {-up:.2f} nats per response below the reference's "
        f"(the negatives' by {-down:.2f}): likelihood displacement; a term --nll 0.1, a lower learning rate or harder "
        "negatives help"
    ]
