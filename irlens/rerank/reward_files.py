"""The files of a reward model: found, known to be one, and loaded as a scorer; for rerankers and for training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.files import digest
from irlens.models import catalog
from irlens.retrieve.policy import quiet_if_small

if TYPE_CHECKING:
    from irlens.rerank.scoring import Scorer


@dataclass(frozen=True)
class RewardFiles:
    """The files of a reward model, known to be one: scalar, or PairRM, whose scores hold within one list only."""

    name: str
    folder: Path
    pairs: bool
    digest: str

    @property
    def made_by(self) -> dict:
        """What makes its scores what they are."""
        return {"model_digest": self.digest, "kind": "pairrm" if self.pairs else "reward"}

    def load(self, conversations: dict[str, list[dict]], batch: int | None = None) -> Scorer:
        """Its scorer, on the device. conversations: query_id → the messages before a response."""
        from irlens.rerank import pairrm, reward

        quiet_if_small(self.folder)
        return (pairrm if self.pairs else reward).load(self.folder, conversations, batch)


def reward_model(chosen: catalog.Reward, name: str) -> RewardFiles:
    """The reward model that the catalog chose. Raises UserError for one that is not to be had, or has not one label."""
    from irlens.rerank import pairrm, reward

    folder = catalog.fetch(chosen)
    pairs = chosen.form == "pairrm" or pairrm.is_layout(folder)
    if not pairs:
        reward.check(folder, name)
    return RewardFiles(name, folder, pairs, digest(folder))
