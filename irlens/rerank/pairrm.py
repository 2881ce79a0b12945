"""PairRM (Jiang et al. 2023, LLM-Blender) on plain transformers: compares two responses, and so ranks a list.

The encoder reads `[CLS]<|source|>x[SEP]`, `[CLS]<|candidate1|>a[SEP]` and `[CLS]<|candidate2|>b[SEP]` in a row; a head
reads its states at the source's and a candidate's mark; the difference of the two heads is above 0 where a is better.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.models.load import device_and_dtype
from irlens.models.load import tokenizer as tokenizer_in
from irlens.models.sizes import DEBERTA_LARGE
from irlens.rerank.scoring import as_text, batches, lists

if TYPE_CHECKING:
    import torch

MARKS = ("<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>")
SOURCE, CANDIDATE = 1224, 412  # tokens at most, mark, [CLS] and [SEP] among them


class PairRM:
    """A scorer (see `scoring.Scorer`): rows → `score`, the mean margin over the list of the row's query and tag.

    Scores of a list sum to zero: they say nothing across lists, so a list that grows is scored anew.
    `conversations`: query_id → messages before the response.
    """

    def __init__(
        self,
        encoder,
        head,
        tokenizer,
        conversations: dict[str, list[dict]] | None = None,
        batch_size: int | None = None,
        lengths: tuple[int, int] = (SOURCE, CANDIDATE),
    ):
        self.encoder, self.head, self.tokenizer = encoder.eval(), head.eval(), tokenizer
        self.conversations, self.batch_size, self.lengths = conversations or {}, batch_size, lengths

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        """See the class; `comparisons` counts what the model read for the row: each other response, both ways.

        `truncated`: whether it read the row's response, or what it answers, cut.
        """
        scores, comparisons = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
        truncated = np.zeros(len(rows), dtype=bool)
        texts = rows["text"].tolist()
        for at in lists(rows):
            source = as_text(self.conversations[rows["query_id"].iloc[at[0]]])
            mine = [texts[i] for i in at]
            distinct = list(dict.fromkeys(mine))  # equal texts have a margin of 0: they are compared with others once
            margin = self.margins(source, distinct)
            index = np.array([distinct.index(text) for text in mine])
            scores[at] = list_scores(margin[np.ix_(index, index)])
            comparisons[at] = 2 * (len(distinct) - 1)
            if len(distinct) > 1:  # else nothing was read
                cut = self._longer(MARKS[1], distinct, self.lengths[1])
                truncated[at] = cut[index] | self._longer(MARKS[0], [source], self.lengths[0])[0]
        return pd.DataFrame({"score": scores, "comparisons": comparisons, "truncated": truncated})

    def margins(self, source: str, candidates: Sequence[str]) -> np.ndarray:
        """[c, c]: how far candidate i beats j when i is named first; 0 on the diagonal."""
        found = np.zeros((len(candidates), len(candidates)))
        pairs = list(permutations(range(len(candidates)), 2))
        if pairs:
            marked = [self._encode(mark, candidates, self.lengths[1]) for mark in MARKS[1:3]]
            (start,) = self._encode(MARKS[0], [source], self.lengths[0])
            logits = self._logits([(start, marked[0][i], marked[1][j]) for i, j in pairs])
            for (i, j), value in zip(pairs, logits):
                found[i, j] = value
        return found

    def compare(self, source: str, first: str, second: str) -> float:
        """The logit of one pair in this order: above 0 where `first` is better."""
        return float(self.margins(source, [first, second])[0, 1])

    def _encode(self, mark: str, texts: Sequence[str], longest: int) -> list[list[int]]:
        return self.tokenizer(self._marked(mark, texts), max_length=longest, truncation=True)["input_ids"]

    def _longer(self, mark: str, texts: Sequence[str], longest: int) -> np.ndarray:
        """[texts] whether `_encode` cuts a text."""
        ids = self.tokenizer(self._marked(mark, texts), truncation=False, verbose=False)["input_ids"]
        return np.array([len(some) > longest for some in ids])

    def _marked(self, mark: str, texts: Sequence[str]) -> list[str]:
        separator = self.tokenizer.sep_token or ""  # in a text it would be read as the end of it
        return [mark + (text.replace(separator, " ") if separator else text) for text in texts]

    def _logits(self, triples: Sequence[tuple[list[int], list[int], list[int]]]) -> list[float]:
        """One number for each (source, first, second) of token ids."""
        import torch

        out = [0.0] * len(triples)
        pad, device = self.tokenizer.pad_token_id or 0, self.encoder.device
        lengths = [sum(map(len, triple)) for triple in triples]
        for chosen in batches(lengths, self.batch_size):
            width = max(lengths[i] for i in chosen)
            rows = [[*a, *b, *c] for a, b, c in (triples[i] for i in chosen)]
            ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
            firsts = [[1, len(a) + 1, len(a) + len(b) + 1] for a, b, _ in (triples[i] for i in chosen)]
            with torch.inference_mode():
                states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
                at = torch.tensor(firsts, device=device)
                source, one, two = (states[torch.arange(len(rows), device=device), at[:, k]] for k in range(3))
                logit = self.head(torch.cat([source, one], -1)) - self.head(torch.cat([source, two], -1))
            for i, value in zip(chosen, logit[:, 0].float().tolist()):
                out[i] = value
        return out


def list_scores(margin: np.ndarray) -> np.ndarray:
    """[c] from margin[c, c]: score_i = (1/c)·Σ_j (M_ij − M_ji), over both orders of every pair; they sum to 0."""
    return (margin - margin.T).sum(axis=1) / len(margin)


def is_layout(folder: Path) -> bool:
    """Whether a folder holds weights in PairRM's layout: an encoder `pretrained_model.*` and a `head_layer.*`."""
    from safetensors import SafetensorError, safe_open

    file = folder / "model.safetensors"
    if not file.is_file():
        return False
    try:
        with safe_open(file, "pt") as weights:
            parts = {key.partition(".")[0] for key in weights.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: not readable as weights ({error})") from error
    return {"pretrained_model", "head_layer"} <= parts


def load(folder: Path, conversations: dict[str, list[dict]] | None = None, batch_size: int | None = None) -> PairRM:
    """The model in `folder`, in PairRM's own layout or that of its `-hf` copy: bfloat16 on a GPU, float32 on the CPU.

    The encoder's sizes come from config.json where it has them, else they are DeBERTa-v3-large's; the vocabulary's size
    comes from the weights. Raises UserError: other weights, weights that do not fit, a tokenizer without the marks.
    """
    from safetensors.torch import load_file
    from transformers import DebertaV2Config, DebertaV2Model

    if not is_layout(folder):
        raise UserError(f"{folder}: no PairRM: its weights have no pretrained_model.* and head_layer.*")
    weights = load_file(folder / "model.safetensors")
    said = _config(folder)
    sizes = {k: v for k, v in said.items() if k not in ("model_type", "architectures", "dtype", "torch_dtype")}
    config = DebertaV2Config(**(sizes if "hidden_size" in said else DEBERTA_LARGE))
    config.vocab_size = weights["pretrained_model.embeddings.word_embeddings.weight"].shape[0]
    encoder, head = DebertaV2Model(config), head_of(config.hidden_size)
    try:
        for part, name in ((encoder, "pretrained_model."), (head, "head_layer.")):
            own = {key.removeprefix(name): value for key, value in weights.items() if key.startswith(name)}
            own.pop("embeddings.position_ids", None)
            part.load_state_dict(own)
    except RuntimeError as error:
        raise UserError(f"{folder}: the weights do not fit ({' '.join(str(error).split())[:200]})") from error
    tokenizer = tokenizer_in(folder)
    known = tokenizer.get_vocab()
    absent = [mark for mark in MARKS[:3] if mark not in known]
    if absent or max(known[mark] for mark in MARKS[:3]) >= config.vocab_size:
        raise UserError(f"{folder}: the tokenizer does not know {', '.join(absent or MARKS[:3])} as the weights do")
    device, dtype = device_and_dtype()
    lengths = (int(said.get("source_maxlength", SOURCE)), int(said.get("candidate_maxlength", CANDIDATE)))
    encoder, head = (part.to(device=device, dtype=dtype) for part in (encoder, head))
    return PairRM(encoder, head, tokenizer, conversations, batch_size, lengths)


def head_of(hidden: int) -> torch.nn.Sequential:
    """The head on the two concatenated states [2·hidden] → [1]; its parameters are numbered as in the weights."""
    from torch import nn

    return nn.Sequential(
        nn.Dropout(0.05), nn.Linear(2 * hidden, hidden), nn.Tanh(), nn.Dropout(0.05), nn.Linear(hidden, 1)
    )


def _config(folder: Path) -> dict:
    """config.json, if there is one."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'}: not readable as JSON ({error})") from error
