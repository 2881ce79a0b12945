"""What a language model finds likely: the summed log-probability of each response to a prompt, computed anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.models.chat import response_ids
from irlens.models.load import positions

TOKENS = 4096  # of one pass, padding included, where no batch size is given


class Likelihood:
    """A scorer: rows of a run → `score`, log π(response | prompt) in nats at temperature 1, and `n_tokens`.

    `prompt_ids`: query_id → token ids of the prompt as the policy reads it. A response is read by the ids that were drawn
    where the run knows them (column `as_drawn`), else by its text (`chat.response_ids`). Raises UserError for a
    response that does not fit into the model's positions.
    """

    def __init__(self, model, tokenizer, prompt_ids: dict[str, list[int]], batch_size: int | None = None):
        from irlens.models import logprobs

        self.model, self.tokenizer, self.prompt_ids = model.eval(), tokenizer, prompt_ids
        self.functions, self.batch_size = logprobs, batch_size
        self.rows = logprobs.layout(model)

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
                self.rows,
                self.tokenizer.pad_token_id or 0,
            )
            with torch.inference_mode():
                values = self.functions.response_logprobs(self.model, packed.to(self.model.device)).float().tolist()
            for (query_id, some), found in zip(lists, values):
                of |= {(query_id, response): value for response, value in zip(some, found)}
        scores = [of[query_id, tuple(some)] for query_id, some in zip(rows["query_id"], ids)]
        sizes = [len(some) for some in ids]
        return pd.DataFrame({"score": np.array(scores), "n_tokens": sizes, "as_drawn": responses.drawn})

    def _check(self, rows: pd.DataFrame, ids: Sequence[list[int]]) -> None:
        limit = positions(self.model.config)
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
        lists: list[tuple[str, list[tuple[int, ...]]]] = []
        for query_id, responses in by_query.items():
            lists += [(query_id, some) for some in self._lists(len(self.prompt_ids[query_id]), responses)]
        sized = sorted((not self._shares(*one), self._size(*one), i) for i, one in enumerate(lists))
        passes, current, before = [], [], None
        for alone, size, i in sized:
            full = len(current) >= self.batch_size if self.batch_size else (len(current) + 1) * size > TOKENS
            if current and (full or alone != before):  # a list with a row per response would give its pass one
                passes.append(current)
                current = []
            current.append(lists[i])
            before = alone
        return [*passes, current] if current else passes

    def _lists(self, start: int, responses: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
        """The responses to a prompt of `start` tokens as lists that a pass has room for, and that share a row if any do."""
        lists: list[list[tuple[int, ...]]] = []
        room = 0
        for response in sorted(responses, key=len):
            lengths = [len(r) for r in lists[-1]] if lists else []
            alone = bool(self.rows.objection(start, [*lengths, len(response)]))
            parts = lists and alone and not self.rows.objection(start, lengths)
            more = start + len(response) if alone else len(response)
            if not lists or parts or room < more:
                lists.append([])
                room, more = TOKENS // 4, start + len(response)
            lists[-1].append(response)
            room -= more
        return lists

    def _shares(self, query_id: str, some: Sequence[tuple[int, ...]]) -> bool:
        return not self.rows.objection(len(self.prompt_ids[query_id]), [len(r) for r in some])

    def _size(self, query_id: str, some: Sequence[tuple[int, ...]]) -> int:
        """Tokens of a list in a pass, padding included."""
        start = len(self.prompt_ids[query_id])
        if self._shares(query_id, some):
            return start + sum(map(len, some))
        return len(some) * (start + max(map(len, some)))
