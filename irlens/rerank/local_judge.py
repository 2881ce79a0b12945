"""A language model of this machine as a judge: what `llm_judge.Judge` asks, answered by an engine in this process."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from irlens.base.devices import Devices
from irlens.base.errors import UserError, did_you_mean
from irlens.models import catalog
from irlens.rerank.llm_judge import Judge
from irlens.rerank.options import ScoringOptions

MODES = ("pairwise", "pointwise")


def parsed(name: str, argument: str) -> tuple[str, str | None]:
    """(mode, model or None) of what follows `judge:`: a mode, a model, or both by a colon; a model alone compares pairs.

    Raises UserError for what is neither.
    """
    mode, _, model = argument.partition(":")
    if mode not in MODES:
        mode, model = MODES[0], argument
    if model and "/" not in model and model not in catalog.MODELS and not Path(model).is_dir():
        raise UserError(f"--reranker {name}: {did_you_mean(model, (*MODES, *catalog.MODELS))} (or a hub id or folder)")
    return mode, model or None


class LocalJudge:
    """A model ready to be asked, greedily, by the engine that is there; nothing is loaded before `load`."""

    def __init__(self, model: str, options: ScoringOptions, devices: Devices):
        from irlens.retrieve.policy import Policy

        told = {"max_tokens": options.judge_tokens, "batch_size": options.batch_size}
        self.options, self.policy = options, Policy(model, **told)
        if not getattr(self.policy.tokenizer, "chat_template", None):  # a second try is several messages
            self.policy = Policy(model, **told, messages_as="text")
        self.policy.devices = devices
        self.policy.prepare()

    @property
    def identity(self) -> dict:
        """What its answers depend on."""
        return {"judge": self.policy.name, "judge_digest": self.policy.digest, "tokens": self.options.judge_tokens}

    def load(self, conversations: dict[str, list[dict]], mode: str) -> Judge:
        """The scorer, its engine open until it is closed."""
        from irlens.retrieve.engines import Sampling, check_lengths, token_ids
        from irlens.retrieve.engines.spread import opened

        policy, tokens = self.policy, self.options.judge_tokens
        engine = opened(policy.options, policy.folder, policy.devices)

        def ask(talks: list[list[dict]], number: int) -> list[str]:
            names = [f"question {i} to the judge {policy.name}" for i in range(len(talks))]
            asked = policy.prompts(pd.DataFrame({"query_id": names, "query": "", "messages": talks}))
            check_lengths(asked, token_ids(policy.tokenizer, asked), tokens, policy.positions)
            return [draw.text for draw in engine.sample(asked, range(1), Sampling(0.0, 0, tokens))]

        return Judge(ask, conversations, mode, self.options.judge_opponents, engine.close)
