"""Log-probabilities of the responses of a list: the prompt is read once and every response branches off it.

A list is packed into one row, `prompt r_1 r_2 … r_m`, each response without its last token (nothing is predicted from
it). A mask lets a response see the prompt and itself only, and positions restart at the prompt's end, so the result is
that of m separate sequences. Architectures whose attention cannot take such a mask get one row per response.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Packed:
    """A batch of lists as tensors. `B` lists of at most `L` responses become `R` rows of at most `S` tokens.

    source[t], target[t], owner[t]: response token t is predicted at flat position source[t] of the [R·S] grid, is
    target[t], and belongs to flat candidate owner[t] of the [B·L] grid.
    """

    input_ids: torch.Tensor  # [R, S]
    position_ids: torch.Tensor  # [R, S]
    mask: (
        torch.Tensor
    )  # bool: [R, 1, S, S], query position (row) may look at key position; [R, S] for a row per response
    source: torch.Tensor  # [T]
    target: torch.Tensor  # [T]
    owner: torch.Tensor  # [T]
    shape: tuple[int, int]  # B, L

    def to(self, device) -> "Packed":
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return Packed(**moved, shape=self.shape)


def shares_prefix(model) -> bool:
    """Whether a model's stock attention takes a 4-D mask that is true to a packed row: full causal attention only."""
    config = model.config.get_text_config()
    types = getattr(config, "layer_types", None)
    full = set(types) == {"full_attention"} if types else not getattr(config, "sliding_window", None)
    return full and config._attn_implementation in ("sdpa", "eager")


def pack(prompts: list[list[int]], responses: list[list[list[int]]], pad: int = 0, share: bool = True) -> Packed:
    """Token ids of B prompts and of their responses (each non-empty) → Packed; `share=False`: a row per response."""
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
        torch.tensor(source),
        torch.tensor(target),
        torch.tensor(owner),
        (len(prompts), width),
    )


def response_logprobs(model, packed: Packed) -> torch.Tensor:
    """Sums of the log-probabilities of the responses' tokens, float32 [B, L], in nats; 0 where a list has no candidate."""
    mask = packed.mask
    if mask.ndim == 4:  # as the number that stock attention adds to its scores
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
    logits = model(
        input_ids=packed.input_ids, attention_mask=mask, position_ids=packed.position_ids, use_cache=False
    ).logits
    chosen = logits.flatten(0, 1)[packed.source].float().log_softmax(-1)
    token_logprobs = chosen.gather(-1, packed.target[:, None])[:, 0]
    out = token_logprobs.new_zeros(packed.shape[0] * packed.shape[1])
    return out.index_add(0, packed.owner, token_logprobs).view(packed.shape)
