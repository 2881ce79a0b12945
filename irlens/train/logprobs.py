"""Log-probabilities of the responses of a list: the prompt is read once and every response branches off it.

A list is packed into one row, `prompt r_1 r_2 … r_m`, each response without its last token (nothing is predicted from
it). A mask lets a response see the prompt and itself only, and positions restart at the prompt's end, so the result is
that of m separate sequences. Logits exist a tile at a time and only where a response is predicted (irlens.train.head).
Models for which this was not tested get one row per response and their own logits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from irlens.train.head import core, fused_head

# Architectures whose attention takes a 4-D mask per kind of layer, whose positions are `position_ids`, and whose logits
# are the head's, but for what irlens.train.head.NEUTRAL names. tests/train/test_logprobs.py compares every one of them.
TESTED = ("gemma", "gemma2", "gemma3_text", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Packed:
    """A batch of lists as tensors. `B` lists of at most `L` responses become `R` rows of at most `S` tokens.

    source[t], target[t], owner[t]: response token t is predicted at flat position source[t] of the [R·S] grid, is
    target[t], and belongs to flat candidate owner[t] of the [B·L] grid. mask says which key position (last axis) a query
    position may look at: bool [R, 1, S, S], or [R, S] for a row per response.
    """

    input_ids: torch.Tensor  # [R, S]
    position_ids: torch.Tensor  # [R, S]
    mask: torch.Tensor
    source: torch.Tensor  # [T]
    target: torch.Tensor  # [T]
    owner: torch.Tensor  # [T]
    length: torch.Tensor  # [B, L], tokens of each response, EOS included; 0 where a list has no candidate

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.length.shape)

    def to(self, device) -> "Packed":
        return Packed(**{name: value.to(device) for name, value in vars(self).items()})


def shares_prefix(model) -> tuple[bool, str]:
    """Whether the responses of a list may branch off one prompt in this model, and if not, why."""
    config = core(model).config.get_text_config()
    kinds, attention = _kinds(config), config._attn_implementation
    if config.model_type not in TESTED:
        return False, "sharing the prompt was not tested for this architecture"
    if attention not in ("sdpa", "eager"):
        return False, f'attention "{attention}" takes no mask of ours; load the model with "sdpa" or "eager"'
    if not set(kinds) <= {FULL, SLIDING}:
        return False, f"layers of kind {', '.join(sorted(set(kinds) - {FULL, SLIDING}))} cannot branch"
    if getattr(config, "use_bidirectional_attention", False):
        return False, "its attention is bidirectional"
    return True, ""


def fuses_head(model) -> tuple[bool, str]:
    """Whether this model's head may be fused with the log-softmax, and if not, why."""
    model = core(model)
    if model.config.get_text_config().model_type not in TESTED:
        return False, "what it does to its logits was not tested"
    if model.get_output_embeddings() is None:
        return False, "it names no output embeddings"
    return True, ""


def explain(model, say: Callable[[str], None]) -> None:
    """Says in one line what `model` falls back to and why, if it does."""
    name = core(model).config.get_text_config().model_type
    (share, why_not), (fused, why_full) = shares_prefix(model), fuses_head(model)
    parts = [] if share else [f"one row per response ({why_not})"]
    parts += [] if fused else [f"all logits at once ({why_full})"]
    if parts:
        say(f"{name}: trains the plain way, slower and with more memory: {'; '.join(parts)}")


def _kinds(config) -> list[str]:
    """The kind of attention of every layer."""
    kind = FULL if getattr(config, "sliding_window", None) is None else SLIDING
    return getattr(config, "layer_types", None) or [kind] * config.num_hidden_layers


def pack(prompts: list[list[int]], responses: list[list[list[int]]], pad: int = 0, share: bool = True) -> Packed:
    """Token ids of B prompts and of their responses (none of them empty) → Packed; `share=False`: a row per response."""
    if not all(prompts):
        raise ValueError("a prompt has no tokens, so nothing predicts the first token of its responses")
    width = max(map(len, responses))
    rows = []  # (prompt, [(flat candidate, response)])
    for b, (prompt, some) in enumerate(zip(prompts, responses)):
        branches = [(b * width + i, response) for i, response in enumerate(some)]
        rows += [(prompt, branches)] if share else [(prompt, [branch]) for branch in branches]
    size = max(len(p) + sum(len(r) - 1 for _, r in branches) for p, branches in rows)
    ids = torch.full((len(rows), size), pad)
    positions = torch.zeros(len(rows), size, dtype=torch.long)
    branch_of = torch.full((len(rows), size), -1)  # −1 padding, 0 prompt, 1 … responses
    source, target, owner = [], [], []
    for row, (prompt, branches) in enumerate(rows):
        start = len(prompt)
        ids[row, :start] = torch.tensor(prompt)
        positions[row, :start] = torch.arange(start)
        branch_of[row, :start] = 0
        for number, (candidate, response) in enumerate(branches, 1):
            stop = start + len(response) - 1
            ids[row, start:stop] = torch.tensor(response[:-1], dtype=torch.long)
            positions[row, start:stop] = torch.arange(len(prompt), len(prompt) + len(response) - 1)
            branch_of[row, start:stop] = number
            source += [row * size + len(prompt) - 1, *range(row * size + start, row * size + stop)]
            target += response
            owner += [candidate] * len(response)
            start = stop
    mask = branch_of >= 0
    if share:
        query, key = branch_of[:, :, None], branch_of[:, None, :]
        mask = torch.ones(size, size, dtype=torch.bool).tril() & (key >= 0) & ((key == 0) | (key == query))
        mask |= torch.eye(size, dtype=torch.bool)  # padding looks at itself: a softmax over nothing is NaN
        mask = mask[:, None]
    return Packed(
        ids,
        positions,
        mask,
        source=torch.tensor(source),
        target=torch.tensor(target),
        owner=torch.tensor(owner),
        length=torch.tensor([[len(r) for r in some] + [0] * (width - len(some)) for some in responses]),
    )


def response_logprobs(model, packed: Packed) -> torch.Tensor:
    """Sums of the log-probabilities of the responses' tokens, float32 [B, L], in nats; 0 where a list has no candidate."""
    inputs = {
        "input_ids": packed.input_ids,
        "attention_mask": packed.mask if packed.mask.ndim == 2 else _masks(model, packed),
        "position_ids": packed.position_ids,
        "use_cache": False,
    }
    if fuses_head(model)[0]:
        with fused_head(model, packed.source, packed.target):
            tokens = model(**inputs).logits
    else:
        logits = model(**inputs).logits.flatten(0, 1)[packed.source].float()
        tokens = logits.gather(-1, packed.target[:, None])[:, 0] - logits.logsumexp(-1)
    out = tokens.new_zeros(packed.length.numel())
    return out.index_add(0, packed.owner, tokens).view(packed.shape)


def _masks(model, packed: Packed):
    """What the model takes as its attention mask: one, or one per kind of layer where it mixes them.

    A sliding window is measured between true positions: offsets in a packed row would count the branches in between.
    """
    config = core(model).config.get_text_config()
    kinds = set(_kinds(config))
    found = {FULL: packed.mask}
    if SLIDING in kinds:
        distance = packed.position_ids[:, None, :, None] - packed.position_ids[:, None, None, :]
        found[SLIDING] = packed.mask & (distance < config.sliding_window)
    if config._attn_implementation == "eager":  # adds its mask to its scores
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        low = torch.finfo(dtype).min
        found = {k: torch.zeros(m.shape, dtype=dtype, device=m.device).masked_fill_(~m, low) for k, m in found.items()}
    return found[kinds.pop()] if len(kinds) == 1 else found
