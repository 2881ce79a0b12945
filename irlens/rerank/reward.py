"""Scalar reward models: any sequence classifier with one label reads prompt and response and gives a raw logit.

A model whose tokenizer has a chat template (FsfairX and its kind) reads the conversation as the template writes it,
without a generation prompt; the BOS that the template writes is taken out of the text and put in once by the tokenizer.
A model without one (a BERT, a DeBERTa) reads prompt and response as a pair.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from irlens.base.errors import UserError
from irlens.rerank.scoring import as_text, batches

LONGEST = 1_000_000  # a tokenizer without a limit names an astronomical one


class Reader:
    """What a reward model reads of a prompt and its response. `conversations`: query_id → messages before the response.

    `limit`: tokens that it can read; `pad`: the token that pads, None where nobody names one; `causal`: whether it reads
    the reward at the last token that is not padding.
    """

    def __init__(self, config, tokenizer, conversations: dict[str, list[dict]], causal: bool):
        self.tokenizer, self.conversations, self.causal = tokenizer, conversations, causal
        config = config.get_text_config()
        limits = (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length)
        self.limit = min((int(v) for v in limits if v and 0 < v < LONGEST), default=LONGEST)
        if not getattr(
            config, "position_biased_input", True
        ):  # DeBERTa-v3's positions are relative: no limit of its own
            self.limit = min(tokenizer.model_max_length, LONGEST)
        self.pad = config.pad_token_id if config.pad_token_id is not None else tokenizer.pad_token_id

    def text(self, query_id: str, response: str) -> str:
        """What a model with a chat template reads, as the template writes it."""
        messages = [*self.conversations[query_id], {"role": "assistant", "content": response}]
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        except Exception as error:  # a template raises what it likes
            raise UserError(
                f"{query_id}: the reward model's chat template refuses the conversation ({error})"
            ) from error

    def encode(self, rows: pd.DataFrame) -> list[dict[str, list[int]]]:
        """`input_ids` (and `token_type_ids`, where the tokenizer makes them) of each row, whole."""
        if not getattr(self.tokenizer, "chat_template", None):
            sources = [as_text(self.conversations[query_id]) for query_id in rows["query_id"]]
            found = self.tokenizer(sources, rows["text"].tolist())
            names = [name for name in ("input_ids", "token_type_ids") if name in found]
            return [{name: found[name][i] for name in names} for i in range(len(rows))]
        bos, number = self.tokenizer.bos_token, self.tokenizer.bos_token_id
        texts = [self.text(query_id, text) for query_id, text in zip(rows["query_id"], rows["text"])]
        ids = self.tokenizer([text.replace(bos, "") if bos else text for text in texts])["input_ids"]
        wants = [bool(bos) and text.startswith(bos) for text in texts]  # though its tokenizer may not add it
        return [
            {"input_ids": [number, *some] if want and some[:1] != [number] else some} for some, want in zip(ids, wants)
        ]


class RewardModel(Reader):
    """A scorer (see `scoring.Scorer`): rows → `score`, the raw logit, and `truncated`, whether the text was cut.

    A response that was drawn several times is read once. Text beyond the model's positions is cut from its beginning, so
    that the response's end, where a causal model reads the reward, stays.
    """

    def __init__(self, model, tokenizer, conversations: dict[str, list[dict]], batch_size: int | None = None):
        super().__init__(model.config, tokenizer, conversations, hasattr(model, "score"))
        self.model, self.batch_size = model.eval(), batch_size

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        """See the class."""
        import torch

        same = rows.groupby(["query_id", "text"], sort=False).ngroup().to_numpy()  # numbered as they first occur
        encoded = self.encode(rows[~rows.duplicated(["query_id", "text"])])
        cut = [len(some["input_ids"]) > self.limit for some in encoded]
        encoded = [self._cut(some) if long else some for some, long in zip(encoded, cut)]
        scores = [0.0] * len(encoded)
        for chosen in batches([len(some["input_ids"]) for some in encoded], self.batch_size):
            with torch.inference_mode():
                logits = self.model(**self._padded([encoded[i] for i in chosen])).logits
            for i, value in zip(chosen, logits[:, 0].float().tolist()):
                scores[i] = value
        return pd.DataFrame({"score": scores, "truncated": cut}).iloc[same].reset_index(drop=True)

    def _cut(self, some: dict[str, list[int]]) -> dict[str, list[int]]:
        """At most `limit` tokens: the first one (BOS, CLS) and the last ones."""
        return {name: ids[:1] + ids[len(ids) - self.limit + 1 :] for name, ids in some.items()}

    def _padded(self, some: Sequence[dict[str, list[int]]]) -> dict:
        """A batch, padded on the right with a token that no text of a causal model ends with."""
        config, pad = self.model.config.get_text_config(), self.pad
        if self.causal:
            last = {one["input_ids"][-1] for one in some}
            if pad is None or pad < 0 or pad in last:
                pad = next(i for i in range(config.vocab_size) if i not in last)
            self.model.config.pad_token_id = config.pad_token_id = pad
        return {name: values.to(self.model.device) for name, values in padded(some, pad or 0).items()}


def padded(some: Sequence[dict[str, list[int]]], pad: int) -> dict:
    """Texts of token ids as tensors [texts, longest], padded on the right, and their `attention_mask`."""
    import torch

    width = max(len(one["input_ids"]) for one in some)
    fill = {"input_ids": pad, "token_type_ids": 0}
    batch = {name: [one[name] + [fill[name]] * (width - len(one[name])) for one in some] for name in some[0]}
    batch["attention_mask"] = [[1] * len(one["input_ids"]) + [0] * (width - len(one["input_ids"])) for one in some]
    return {name: torch.tensor(values) for name, values in batch.items()}


def labels(folder: Path) -> int:
    """How many labels the classifier in `folder` has. Raises UserError for a folder that holds none."""
    from irlens.models import load

    return int(load.config(folder).num_labels)


def check(folder: Path, name: str) -> None:
    """Raises UserError for a model in `folder` that is no sequence classifier with exactly one label."""
    count = labels(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kinds = config.get("architectures") or []
    if kinds and not any("Classification" in kind or "Reward" in kind for kind in kinds):
        raise UserError(f"reranker {name}: {kinds[0]} is no sequence classifier, so it gives no reward")
    if count != 1:
        raise UserError(f"reranker {name}: the model has {count} labels; a scalar reward model has exactly one")


def load(folder: Path, conversations: dict[str, list[dict]], batch_size: int | None = None) -> RewardModel:
    """The reward model in `folder`: bfloat16 on a GPU, float32 on the CPU.

    Raises UserError: another number of labels than one, weights without a trained head, no usable tokenizer.
    """
    from irlens.models import load as loader

    check(folder, str(folder))
    model, absent = loader.classifier(folder)
    tokenizer = loader.tokenizer(folder)
    missing = [key for key in absent if key.startswith(("score", "classifier"))]
    if missing:
        raise UserError(f"{folder}: its weights have no {missing[0]}, so it was never trained to give a reward")
    return RewardModel(model, tokenizer, conversations, batch_size)
