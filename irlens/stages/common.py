"""What the stages share: a model at hand with its task, an engine for it, and the settings that name a result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens import catalog
from irlens.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from irlens.retrieve.engines import Prompt
    from irlens.settings import Mine, PassK, Train
    from irlens.tasks import Task

Say = Callable[[str], None]


@dataclass(frozen=True)
class Policy:
    """A model at hand with its task: what sampling needs."""

    model: catalog.Model
    folder: Path
    task: Task
    tokenizer: object
    max_tokens: int
    batch_size: int | None

    def prompts(self, task: Task) -> list[Prompt]:
        """The task's topics as this model reads them."""
        from irlens.retrieve.sample import prompts

        return prompts(task.topics, self.tokenizer, task.instruction)

    def draw(
        self,
        asked: list[Prompt],
        n: int,
        temperatures: Sequence[float],
        seed: int,
        shards: Path,
        say: Say,
        name: str | None = None,
        weights: Path | None = None,
    ) -> pd.DataFrame:
        """A run of n draws per prompt, by this model or by the copy of it that was trained into `weights`."""
        from irlens.retrieve.engines.transformers import TransformersEngine
        from irlens.retrieve.sample import sample_run

        def load_engine() -> TransformersEngine:
            return TransformersEngine.load(weights or self.folder, self.batch_size)

        return sample_run(
            load_engine, asked, n, temperatures, seed, self.max_tokens, shards, name or self.model.name, say
        )

    def facts(self) -> dict:
        """What the manifest records of the model, the data and the prompt."""
        from irlens.retrieve.sample import template

        return {
            "model_files": str(self.folder),
            "model_digest": _digest(self.folder),
            "data_revision": self.task.revision,
            "prompt_template": template(self.tokenizer),
        }


def load_policy(settings: PassK | Mine | Train, split: str | None, limit: int | None) -> Policy:
    """Everything but the weights, so that what can fail fails before a folder is made.

    Raises UserError: an unknown model or data set, no network, no usable tokenizer, no verifier, a prompt that leaves
    no room for the response.
    """
    from irlens import tasks

    model = catalog.model(settings.model)
    task = tasks.load(settings.dataset or model.dataset, split, limit)
    if task.verifier is None:
        raise UserError(f"data set {task.name!r} has no verifier, so right and wrong cannot be told; use sums or gsm8k")
    folder = catalog.fetch(model)
    quiet_if_small(folder)
    policy = Policy(
        model, folder, task, _tokenizer(folder), settings.max_tokens or model.max_tokens, settings.batch_size
    )
    _check_lengths(policy, policy.prompts(task))
    return policy


def _check_lengths(policy: Policy, asked: list[Prompt]) -> None:
    from transformers import AutoConfig

    from irlens.retrieve.engines import check_lengths, token_ids

    limit = getattr(AutoConfig.from_pretrained(policy.folder).get_text_config(), "max_position_embeddings", None)
    check_lengths(asked, token_ids(policy.tokenizer, asked), policy.max_tokens, limit)


def _digest(folder: Path) -> str:
    """Short SHA-256 over the weights of a small model; for a hub snapshot its revision."""
    if folder.parent.name == "snapshots":
        return folder.name
    sha = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                sha.update(block)
    return sha.hexdigest()[:16]


def quiet_if_small(folder: Path) -> None:
    """No progress bars for loading and saving weights that take no time."""
    from transformers.utils import logging

    if sum(path.stat().st_size for path in folder.glob("*.safetensors")) < 1e9:
        logging.disable_progress_bar()


def _tokenizer(folder: Path):
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: no usable tokenizer ({str(error).splitlines()[0]})") from error


def identity(settings, policy: Policy, **more) -> dict:
    """The settings that make the result what it is, resolved: not where it goes nor how it is batched."""
    task = policy.task
    resolved = {"dataset": task.name, "split": task.split, "data": task.revision, "max_tokens": policy.max_tokens}
    resolved |= {"model_digest": _digest(policy.folder), **more}
    kept = {k: v for k, v in asdict(settings).items() if k not in ("out", "batch_size")}
    return kept | resolved


def default_out(settings, *parts: str) -> Path:
    """`settings.out`, or a folder under irlens-out/ named after the stage and `parts`."""
    return Path(settings.out or Path("irlens-out") / "-".join([type(settings).__name__.lower(), *parts]))


def concat(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Rows of all frames, numbered anew."""
    import pandas as pd

    return pd.concat(frames, ignore_index=True)


def train_split(settings: Mine | Train) -> str | None:
    """Training material comes from `train`, unless the data set is a single file or another split is asked for."""
    from irlens import tasks

    if settings.split:
        return settings.split
    return "train" if "train" in tasks.splits(settings.dataset or catalog.model(settings.model).dataset) else None
