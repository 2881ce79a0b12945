"""A policy's own likelihood as a reranker: the summed log-probability of each response, computed anew with a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from irlens.chat import response_ids
from irlens.errors import UserError

TOKENS = 4096  # of one pass, padding included, where no batch size is given


class Logprobs(Protocol):
    """What `irlens.train.logprobs` offers; handed in, since rerankers and training do not import each other."""

    pack: Callable
    response_logprobs: Callable
    shares_prefix: Callable


class Likelihood:
    """A scorer (see `scoring.Scorer`): rows → `score`, log π(response | prompt) in nats at temperature 1, and `n_tokens`.

    `prompt_ids`: query_id → token ids of the prompt as the policy reads it. A response is read by the ids that were drawn
    where the run knows them (column `as_drawn`), else by its text (`chat.response_ids`). Raises UserError for a
    response that does not fit into the model's positions.
    """

    def __init__(
        self,
        model,
        tokenizer,
        prompt_ids: dict[str, list[int]],
        functions: Logprobs,
        batch_size: int | None = None,
    ):
        self.model, self.tokenizer, self.prompt_ids = model.eval(), tokenizer, prompt_ids
        self.functions, self.batch_size = functions, batch_size
        self.share = functions.shares_prefix(model)

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        """See the class."""
        import torch

        responses = response_ids(rows, self.model, self.tokenizer)
        ids = responses.ids
        self._check(rows, ids)
        of: dict[tuple[str, tuple[int, ...]], float] = {}
        for query_id, some in zip(rows["query_id"], ids):
            of.setdefault((query_id, tuple(some)), 0.0)  # equal draws are read once
        for lists in self._passes(list(of)):
            packed = self.functions.pack(
                [self.prompt_ids[query_id] for query_id, _ in lists],
                [[list(response) for response in some] for _, some in lists],
                self.tokenizer.pad_token_id or 0,
                self.share,
            )
            with torch.inference_mode():
                values = self.functions.response_logprobs(self.model, packed.to(self.model.device)).float().tolist()
            for (query_id, some), found in zip(lists, values):
                of |= {(query_id, response): value for response, value in zip(some, found)}
        scores = [of[query_id, tuple(some)] for query_id, some in zip(rows["query_id"], ids)]
        sizes = [len(some) for some in ids]
        return pd.DataFrame({"score": np.array(scores), "n_tokens": sizes, "as_drawn": responses.drawn})

    def _check(self, rows: pd.DataFrame, ids: Sequence[list[int]]) -> None:
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        for query_id, doc_id, some in zip(rows["query_id"], rows["doc_id"], ids):
            size = len(self.prompt_ids[query_id]) + len(some)
            if limit and size > limit:
                raise UserError(
                    f"query_id={query_id}, doc_id={doc_id}: prompt and response have {size} tokens, the model reads at "
                    f"most {limit}"
                )

    def _passes(self, keys: Sequence[tuple[str, tuple[int, ...]]]) -> list[list[tuple[str, list[tuple[int, ...]]]]]:
        """The (query, response) pairs as lists of one query each, several such lists a pass."""
        by_query: dict[str, list[tuple[int, ...]]] = {}
        for query_id, response in keys:
            by_query.setdefault(query_id, []).append(response)
        lists: list[tuple[str, list[tuple[int, ...]], int]] = []
        for query_id, responses in by_query.items():
            start, room = len(self.prompt_ids[query_id]), 0
            for response in sorted(responses, key=len):
                more = len(response) if self.share else start + len(response)
                if not room or room < more:
                    lists.append((query_id, [], start))
                    room = TOKENS // 4 - start
                lists[-1][1].append(response)
                room -= more
        sized = sorted(lists, key=lambda one: one[2] + sum(map(len, one[1])))
        passes, current = [], []
        for query_id, some, start in sized:
            size = start + sum(map(len, some)) if self.share else len(some) * (start + max(map(len, some)))
            full = len(current) >= self.batch_size if self.batch_size else (len(current) + 1) * size > TOKENS
            if current and full:
                passes.append(current)
                current = []
            current.append((query_id, some))
        return [*passes, current] if current else passes
