"""The transformers engine: exact sampling with a key-value cache in which equal prefixes are computed once.

All draws of a prompt start as one row. A row splits only where its draws choose different tokens, so the work is one
forward pass per distinct prefix and not per draw: at low temperature a hundred draws cost little more than one.
Every draw consumes its own random numbers (`engines.uniforms`), by inversion of the cumulative distribution.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from irlens.models import load as loader
from irlens.models.chat import stop_tokens
from irlens.models.rope import lengths_apart
from irlens.retrieve.engines import (
    Draw,
    Engine,
    OnBatch,
    Prompt,
    Sampling,
    check_lengths,
    draw_key,
    greedy_once,
    token_ids,
    uniforms,
)
from irlens.retrieve.engines.prefix_cache import new_cache, place, rearrange
from irlens.retrieve.options import EngineOptions

GUARANTEE = (
    "the same for the same seed, whatever the batch size, the number of workers and the point of resuming, but for "
    "rounding at near-ties"
)

CPU_CACHE_BYTES = 2e9  # key-value cache of one batch on CPU
GPU_CACHE_SHARE = 0.6  # of the memory that is free once the model is loaded


class TransformersEngine(Engine):
    """A causal language model in this process.

    Raises UserError for a prompt that leaves no room for `max_tokens` within the model's positions.
    """

    shard_least = 256  # on a CPU as quick as thousands at once

    def __init__(self, model, tokenizer, batch_size: int | None = None):
        self.model, self.tokenizer, self.batch_size = model.eval(), tokenizer, batch_size
        self.gpus = int(model.device.type == "cuda")
        self.ends = torch.tensor(sorted(stop_tokens(model, tokenizer)), device=model.device)
        self.pad = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)

    @classmethod
    def load(cls, folder: Path, batch_size: int | None = None) -> "TransformersEngine":
        """The model in a folder: on a GPU bfloat16, or float16 where it has none; float32 elsewhere."""
        return cls(loader.causal_lm(folder), loader.tokenizer(folder), batch_size)

    def rows(self, tokens: int) -> int:
        """How many sequences of `tokens` tokens one batch may hold: `batch_size`, else what the cache memory allows."""
        if self.batch_size:
            return self.batch_size
        config = self.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        per_row = 2 * config.num_hidden_layers * heads * size * self.model.dtype.itemsize * tokens
        room = CPU_CACHE_BYTES
        if self.model.device.type == "cuda":
            kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # by torch, from an earlier batch
            room = GPU_CACHE_SHARE * (torch.cuda.mem_get_info()[0] + kept)
        return int(np.clip(room // per_row, 1, 2048))

    def sample(
        self, prompts: Sequence[Prompt], draws: range, sampling: Sampling, on_batch: OnBatch | None = None
    ) -> list[Draw]:
        """See `engines.Engine`."""
        if sampling.temperature == 0 and len(draws) > 1:
            return greedy_once(lambda one, seen: self.sample(prompts, one, sampling, seen), draws, on_batch)
        encoded = token_ids(self.tokenizer, prompts)
        check_lengths(prompts, encoded, sampling.max_tokens, loader.positions(self.model.config))
        rows = self.rows(max(map(len, encoded)) + sampling.max_tokens)
        per_prompt = min(len(draws), rows)
        at_once = max(1, rows // per_prompt)
        order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
        parts = [order[start : start + at_once] for start in range(0, len(order), at_once)]
        jobs = [(part, draws[i : i + per_prompt]) for part in parts for i in range(0, len(draws), per_prompt)]
        found: dict[tuple[int, int], Draw] = {}
        while jobs:
            chosen, numbers = jobs[0]
            some, ids = [prompts[i] for i in chosen], [encoded[i] for i in chosen]
            batch = self._batch_or_none(some, ids, numbers, sampling, on_batch)
            if batch is None:  # the others are as large
                jobs = [half for job in jobs for half in _halves(*job)]
                continue
            found |= {(i, d.draw): d for i, some in zip(chosen, batch) for d in some}
            jobs = jobs[1:]
        return [found[i, d] for i in range(len(prompts)) for d in draws]

    def _batch_or_none(
        self, prompts, encoded, numbers: range, sampling: Sampling, on_batch: OnBatch | None
    ) -> list[list[Draw]] | None:
        """`_sample_batch`; None where it needs more memory than the GPU has and there is more than one draw to part."""
        told = [0, 0]

        def seen(made: int, tokens: int) -> None:
            told[:] = told[0] + made, told[1] + tokens
            if on_batch:
                on_batch(made, tokens)

        try:
            with lengths_apart(self.model):
                return self._sample_batch(prompts, encoded, numbers, sampling, seen)
        except torch.OutOfMemoryError:
            if len(prompts) * len(numbers) == 1:
                raise
        if on_batch:
            on_batch(-told[0], -told[1])  # they are drawn again
        torch.cuda.empty_cache()  # here, since the error held what it had
        return None

    @torch.inference_mode()
    def _sample_batch(
        self,
        prompts: list[Prompt],
        encoded: list[list[int]],
        numbers: range,
        sampling: Sampling,
        on_batch: OnBatch | None = None,
    ) -> list[list[Draw]]:
        """One batch, prompts × draws. A node is a distinct prefix; `node[r]` is where draw row r stands.

        `on_batch` hears of the draws that end at a step.
        """
        device, total = self.model.device, len(prompts) * len(numbers)
        keys = [draw_key(sampling.seed, p.query_id, sampling.temperature, d) for p in prompts for d in numbers]
        chance = torch.from_numpy(uniforms(keys, sampling.max_tokens)).to(device)
        tokens = torch.full((total, sampling.max_tokens), self.pad, device=device)
        lengths = torch.zeros(total, dtype=torch.long, device=device)
        logprob = torch.zeros(total, dtype=torch.float64, device=device)
        finished = torch.zeros(total, dtype=torch.bool, device=device)
        live = torch.arange(total, device=device)
        node = torch.arange(len(prompts), device=device).repeat_interleave(len(numbers))
        prefixes = _Prefixes(self.model, encoded, self.pad)
        for step in range(sampling.max_tokens):
            logits = prefixes.next_logits()
            token = _invert(logits, sampling.temperature, node, chance[live, step])
            tokens[live, step] = token
            lengths[live] += 1
            logprob[live] += logits.log_softmax(-1)[node, token].double()
            stop = torch.isin(token, self.ends)
            finished[live[stop]] = True
            last, before = step + 1 == sampling.max_tokens, len(live)
            live, node, token = live[~stop], node[~stop], token[~stop]
            ended = before if last else before - len(live)
            if on_batch and ended:
                on_batch(ended, ended * (step + 1))
            if last or not len(live):
                break
            vocabulary = logits.shape[-1]
            children, node = torch.unique(node * vocabulary + token, return_inverse=True)
            row = place(children // vocabulary)
            node, children = row[node], torch.empty_like(children).scatter_(0, row, children)
            prefixes.extend(children // vocabulary, children % vocabulary)
        return self._draws(prompts, numbers, tokens, lengths, logprob, finished)

    def _draws(self, prompts, numbers, tokens, lengths, logprob, finished) -> list[list[Draw]]:
        lengths, ended = lengths.tolist(), finished.tolist()
        drawn = [tuple(row[:n]) for row, n in zip(tokens.tolist(), lengths)]
        kept = [ids[: len(ids) - e] for ids, e in zip(drawn, ended)]
        texts = self.tokenizer.batch_decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        rows = zip(texts, drawn, logprob.tolist(), ended)
        return [
            [
                Draw(p.query_id, d, text, len(ids), lp, "stop" if e else "length", ids)
                for d, (text, ids, lp, e) in zip(numbers, rows)
            ]
            for p in prompts
        ]


class _Prefixes:
    """The distinct prefixes of a batch, one row each: their last tokens, masks, positions and cached keys."""

    def __init__(self, model, encoded: list[list[int]], pad: int):
        width, device = max(map(len, encoded)), model.device
        self.model, self.cache = model, new_cache(model.config)
        self.ids = torch.tensor([[pad] * (width - len(e)) + e for e in encoded], device=device)
        self.mask = torch.tensor([[0] * (width - len(e)) + [1] * len(e) for e in encoded], device=device)
        self.position = (self.mask.cumsum(-1) - 1).clamp(min=0)

    def next_logits(self) -> torch.Tensor:
        """[prefixes, vocabulary], 32-bit: the scores of the token after each prefix."""
        out = self.model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].float()

    def extend(self, parents: torch.Tensor, tokens: torch.Tensor) -> None:
        """Row r becomes the prefix `parents[r]` and the token `tokens[r]` after it."""
        rearrange(self.cache, parents)
        self.ids = tokens[:, None]
        self.mask = torch.cat([self.mask[parents], self.mask.new_ones(len(parents), 1)], dim=-1)
        self.position = self.position[parents, -1:] + 1


def _halves(chosen: list[int], numbers: range) -> list[tuple[list[int], range]]:
    """A batch of prompts × draws in two, parted between prompts if there are several; a single draw as it is."""
    if len(chosen) > 1:
        middle = len(chosen) // 2
        return [(chosen[:middle], numbers), (chosen[middle:], numbers)]
    middle = len(numbers) // 2
    return [(chosen, part) for part in (numbers[:middle], numbers[middle:]) if part]


def prepare(options: EngineOptions, model) -> EngineOptions:
    """Nothing can be amiss."""
    return options


def load(options: EngineOptions, weights: Path) -> TransformersEngine:
    """The model in a folder, in this process."""
    return TransformersEngine.load(weights, batch_size=options.batch_size)


def _invert(logits: torch.Tensor, temperature: float, node: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    """For each draw r: the token at which the cumulative distribution of `logits[node[r]] / temperature` passes chance[r].

    logits [nodes, vocabulary], node and chance [draws] → tokens [draws]. The draws of a node are looked up together,
    so no [draws, vocabulary] tensor is made. At temperature 0 it is the likeliest token, the first of equals.
    """
    if temperature == 0:
        return logits.argmax(-1)[node]
    cumulative = torch.softmax(logits / temperature, dim=-1).cumsum(-1, dtype=torch.float64)
    order = torch.argsort(node, stable=True)
    counts = torch.bincount(node, minlength=len(logits))
    column = torch.arange(len(node), device=node.device) - (counts.cumsum(0) - counts)[node[order]]
    target = torch.zeros(len(logits), int(counts.max()), dtype=torch.float64, device=node.device)
    total = cumulative[:, -1][node[order]]
    target[node[order], column] = torch.minimum(chance[order] * total, torch.nextafter(total, total.new_zeros(())))
    found = torch.searchsorted(cumulative, target, right=True)
    token = torch.empty_like(node)
    token[order] = found[node[order], column]
    return token
