"""Log-probabilities of the responses of a list: the prompt is read once and every response branches off it.

A list is packed into one row, `prompt r_1 r_2 … r_m`, each response without its last token (nothing is predicted from
it). A mask lets a response see the prompt and itself only, and positions restart at the prompt's end, so the result is
that of m separate sequences. On a GPU it is a mask of blocks (irlens.models.block_mask), else one of row × row. Logits
exist a tile at a time and only where a response is predicted (irlens.models.fused_head). Where that is not exact (models for which it was not tested, lists that cross the length at which a model changes its
RoPE) or not worth it (long lists), every response gets a row, padded at the right; untested models use their own logits.
`layout` decides, for training, the likelihood reranker and the report on hardness alike.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from irlens.models import block_mask
from irlens.models.fused_head import chosen, core, fused_head
from irlens.models.rope import LengthRope, length_ropes, lengths_apart

# Architectures whose attention takes a 4-D mask per kind of layer, whose positions are `position_ids`, and whose logits
# are the head's, but for what irlens.models.fused_head.NEUTRAL names. tests/train/test_logprobs.py compares every one of them.
TESTED = (
    "cohere", "cohere2", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n_text", "gemma4", "gemma4_text", "glm4", "gpt_oss",
    "granite", "granitemoe", "llama", "ministral3", "mistral", "mixtral", "olmo", "olmo2", "olmo3", "olmoe", "phi3",
    "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3",
)  # fmt: skip
FULL, SLIDING = "full_attention", "sliding_attention"
PIVOT = 10  # a row of PIVOT × the model's width tokens spends as much on attention as on its linear layers: measured by
# experiments/bench/packing.py


@dataclass(frozen=True)
class Layout:
    """How a model's lists become rows: all responses of a list in one row, or a row per response.

    refusal: why this model takes no packed rows; empty if it does. pack_up_to: tokens of the longest packed row; None packs
    what an estimate finds faster packed, from the model's width (numbers per token between its layers). blocks: whether
    packed rows go by blocks, where attention only costs what tokens look at, so that one row is never slower.
    """

    refusal: str
    pack_up_to: int | None
    width: int = 0
    ropes: tuple[LengthRope, ...] = ()
    blocks: bool = False

    def objection(self, prompt: int, responses: Sequence[int]) -> str:
        """Why a list of `prompt` tokens and responses of so many goes one row per response; empty if it shares one."""
        if self.refusal:
            return self.refusal
        if self.pack_up_to is not None and packed_tokens(prompt, responses) > self.pack_up_to:
            return f"more than --pack-up-to {self.pack_up_to:,} tokens in a row"
        if self.pack_up_to is None and not self.blocks and not self._faster(prompt, responses):
            return "one row would be slower, as attention goes over all of it; --pack-up-to decides otherwise"
        for rope in self.ropes:
            if len({rope.side(prompt + length - 1) for length in responses}) > 1:
                return f"lengths differ beyond the {rope.boundary:,} tokens up to which its RoPE is one"
        return ""

    def _faster(self, prompt: int, responses: Sequence[int]) -> bool:
        """Whether one row is estimated to cost less than a row per response, these padded to the longest."""

        def cost(tokens: int) -> float:
            return tokens + tokens**2 / (PIVOT * self.width)

        return cost(packed_tokens(prompt, responses)) <= len(responses) * cost(prompt + max(responses) - 1)


def packed_tokens(prompt: int, responses: Sequence[int]) -> int:
    """Tokens of the row that a list makes: the prompt once, every response without its last token."""
    return prompt + sum(responses) - len(responses)


def layout(model, pack_up_to: int | None = None, device: str | None = None) -> Layout:
    """How this model's lists are laid out on `device`, where it is by default; `pack_up_to` 0: a row per response always."""
    refusal = _refusal(model)
    width = 0 if refusal else core(model).config.get_text_config().hidden_size
    blocks = not refusal and pack_up_to != 0 and not block_mask.objection(core(model), device)
    return Layout(refusal, pack_up_to, width, length_ropes(model), blocks)


@dataclass(frozen=True)
class Packed:
    """A batch of lists as tensors. `B` lists of at most `L` responses become `R` rows of at most `S` tokens.

    source[t], target[t], owner[t]: response token t is predicted at flat position source[t] of the [R·S] grid, is
    target[t], and belongs to flat candidate owner[t] of the [B·L] grid. shared: whether any row has several branches.
    blocks: whether those rows go by blocks, S then being a multiple of `block_mask.BLOCK`.
    """

    input_ids: torch.Tensor  # [R, S]
    position_ids: torch.Tensor  # [R, S]
    branch: torch.Tensor  # [R, S]: −1 padding, 0 prompt, 1 … the responses of the row
    source: torch.Tensor  # [T]
    target: torch.Tensor  # [T]
    owner: torch.Tensor  # [T]
    length: torch.Tensor  # [B, L], tokens of each response, EOS included; 0 where a list has no candidate
    shared: bool
    blocks: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.length.shape)

    def to(self, device) -> "Packed":
        return Packed(**{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in vars(self).items()})


def _refusal(model) -> str:
    """Why the responses of a list may not branch off one prompt in this model; empty if they may."""
    config = core(model).config.get_text_config()
    kinds, attention = _kinds(config), config._attn_implementation
    if not _tested(model):
        return "sharing the prompt was not tested for this architecture"
    if block_mask.base(attention) not in block_mask.BASES:
        return f'attention "{attention}" takes no mask of ours; load the model with "sdpa" or "eager"'
    if not set(kinds) <= {FULL, SLIDING}:
        return f"layers of kind {', '.join(sorted(set(kinds) - {FULL, SLIDING}))} cannot branch"
    if getattr(config, "use_bidirectional_attention", None) not in (None, False, "vision"):  # "vision": of images only
        return "its attention is bidirectional"
    return ""


def _tested(model) -> bool:
    """Both what the model is and the language model in it: some wrap one that was tested alone."""
    config = core(model).config
    return {config.model_type, config.get_text_config().model_type} <= set(TESTED)


def fuses_head(model) -> tuple[bool, str]:
    """Whether this model's head may be fused with the log-softmax, and if not, why."""
    if not _tested(model):
        return False, "what it does to its logits was not tested"
    if core(model).get_output_embeddings() is None:
        return False, "it names no output embeddings"
    return True, ""


def explain(
    model,
    say: Callable[[str], None],
    pack_up_to: int | None = None,
    lists: Iterable[tuple] = (),
    device: str | None = None,
) -> None:
    """Says in one line each what `model` falls back to on `device` and why, and which of `lists` do where it would share.

    lists: (tokens of the prompt, tokens of each response) of every list that is to be trained on.
    """
    config, rows, (fused, why_full) = core(model).config, layout(model, pack_up_to, device), fuses_head(model)
    name = config.get_text_config().model_type
    parts = [f"one row per response ({rows.refusal})"] if rows.refusal else []
    parts += [] if fused else [f"all logits at once ({why_full})"]
    if parts:
        say(f"{name}: trains the plain way, slower and with more memory: {'; '.join(parts)}")
    if getattr(config.get_text_config(), "output_router_logits", False):
        say(f"{name}: its load-balancing loss of experts is not part of the objective, so it is left out")
    on_gpu = torch.device(device or core(model).device).type == "cuda" and pack_up_to != 0 and not rows.refusal
    if on_gpu and (dense := block_mask.objection(core(model), device)):
        say(f"{name}: masks of packed rows are dense, as blocks are not for it ({dense})")
    lists = list(lists)
    why = Counter(rows.objection(*some) for some in lists if not rows.refusal)
    if alone := sum(why.values()) - why.pop("", 0):
        reasons = "; ".join(f"{count:,}: {reason}" for reason, count in why.most_common())
        told = f"{alone:,} of {len(lists):,} lists, and those that share a pass"
        say(f"{name}: {told}, go one row per response ({reasons})")


def _kinds(config) -> list[str]:
    """The kind of attention of every layer."""
    kind = FULL if getattr(config, "sliding_window", None) is None else SLIDING
    return getattr(config, "layer_types", None) or [kind] * config.num_hidden_layers


def pack(prompts: list[list[int]], responses: list[list[list[int]]], rows: Layout, pad: int = 0) -> Packed:
    """Token ids of B prompts and of their responses (none of them empty) → Packed.

    A list that `rows` objects to puts its whole batch into a row per response. Equal responses of a list stand there once,
    and are read by each of them.
    """
    if not all(prompts):
        raise ValueError("a prompt has no tokens, so nothing predicts the first token of its responses")
    width = max(map(len, responses))
    branches = [[(b, r) for r in dict.fromkeys(map(tuple, some))] for b, some in enumerate(responses)]
    share = not any(rows.objection(len(p), [len(r) for _, r in some]) for p, some in zip(prompts, branches))
    if not share:
        prompts = [p for p, some in zip(prompts, branches) for _ in some]
        branches = [[branch] for branch in chain.from_iterable(branches)]
    size = max(packed_tokens(len(p), [len(r) for _, r in some]) for p, some in zip(prompts, branches))
    shared = any(len(some) > 1 for some in branches)
    blocks = rows.blocks and shared
    grid = (len(prompts), -(-size // block_mask.BLOCK) * block_mask.BLOCK if blocks else size)
    ids, positions = torch.full(grid, pad), torch.zeros(grid, dtype=torch.long)
    branch_of = torch.full(grid, -1)
    places: dict[tuple[int, tuple[int, ...]], list[int]] = {}  # (list, response) → where its tokens are predicted
    for row, (prompt, some) in enumerate(zip(prompts, branches)):
        start = len(prompt)
        ids[row, :start] = torch.tensor(prompt)
        positions[row, :start] = torch.arange(start)
        branch_of[row, :start] = 0
        for number, (b, response) in enumerate(some, 1):
            stop = start + len(response) - 1
            ids[row, start:stop] = torch.tensor(response[:-1], dtype=torch.long)
            positions[row, start:stop] = torch.arange(len(prompt), len(prompt) + len(response) - 1)
            branch_of[row, start:stop] = number
            places[b, response] = [row * grid[1] + len(prompt) - 1, *range(row * grid[1] + start, row * grid[1] + stop)]
            start = stop
    every = [(b, i, tuple(response)) for b, some in enumerate(responses) for i, response in enumerate(some)]
    source = list(chain.from_iterable(places[b, response] for b, _, response in every))
    target = list(chain.from_iterable(response for *_, response in every))
    owner = list(chain.from_iterable([b * width + i] * len(response) for b, i, response in every))
    return Packed(
        ids,
        positions,
        branch_of,
        source=torch.tensor(source),
        target=torch.tensor(target),
        owner=torch.tensor(owner),
        length=torch.tensor([[len(r) for r in some] + [0] * (width - len(some)) for some in responses]),
        shared=shared,
        blocks=blocks,
    )


def response_logprobs(model, packed: Packed) -> torch.Tensor:
    """Sums of the log-probabilities of the responses' tokens, float32 [B, L], in nats; 0 where a list has no candidate.

    Raises ValueError for packed rows that this model does not take.
    """
    return summed(packed, token_logprobs(model, packed))


def summed(packed: Packed, tokens: torch.Tensor) -> torch.Tensor:
    """[B, L]: the sums over each response of a value per token, [T]; 0 where a list has no candidate."""
    return tokens.new_zeros(packed.length.numel()).index_add(0, packed.owner, tokens).view(packed.shape)


def token_logprobs(model, packed: Packed, squared: bool = False) -> torch.Tensor:
    """Log-probabilities of the responses' tokens one by one, float32 [T], in nats, in the order of `packed.target`.

    `squared` gives [T, 2], beside them log Σ_v p(v)² of what was predicted there, without gradient. Raises ValueError for
    packed rows that this model does not take.
    """
    if packed.shared and (refusal := _refusal(model)):
        raise ValueError(f"rows of several responses, but {refusal}")
    inputs = {
        "input_ids": packed.input_ids,
        "attention_mask": _masks(model, packed) if packed.shared else packed.branch >= 0,
        "position_ids": packed.position_ids,
        "use_cache": False,
    }
    if (
        not packed.shared and _tested(model) and not length_ropes(model)
    ):  # causal: no token looks at padding, which is last
        places = torch.arange(packed.input_ids.shape[1], device=packed.input_ids.device)
        inputs |= {"attention_mask": None, "position_ids": places.expand_as(packed.input_ids)}
    if getattr(core(model).config.get_text_config(), "output_router_logits", False):
        inputs["output_router_logits"] = False  # for a loss that is not ours, and that knows no mask of ours
    with lengths_apart(model):
        if fuses_head(model)[0]:
            with fused_head(model, packed.source, packed.target, squared):
                return model(**inputs).logits
        return chosen(model(**inputs).logits.flatten(0, 1)[packed.source].float(), packed.target, squared)


def _masks(model, packed: Packed):
    """What the model takes as its attention mask: one, or one per kind of layer where it mixes them.

    A mask says which key position (last axis) a query position may look at: bool [R, 1, S, S]. A sliding window is
    measured between true positions: offsets in a packed row would count the branches in between. Blocks say the same.
    """
    config = core(model).config.get_text_config()
    kinds, query, key = set(_kinds(config)), packed.branch[:, :, None], packed.branch[:, None, :]
    if packed.blocks:
        block_mask.take_blocks(core(model))
        windows = {FULL: None, SLIDING: getattr(config, "sliding_window", None)}
        found = {kind: block_mask.block_mask(packed.branch, packed.position_ids, windows[kind]) for kind in kinds}
        return found[kinds.pop()] if len(kinds) == 1 else found
    causal = torch.ones(query.shape[1], query.shape[1], dtype=torch.bool, device=query.device).tril()
    mask = causal & ((key == 0) | (key == query) & (key > 0))
    mask.diagonal(dim1=1, dim2=2).fill_(True)  # padding looks at itself: a softmax over nothing is NaN
    found = {FULL: mask[:, None]}
    if SLIDING in kinds:
        distance = packed.position_ids[:, None, :, None] - packed.position_ids[:, None, None, :]
        found[SLIDING] = found[FULL] & (distance < config.sliding_window)
    if block_mask.base(config._attn_implementation) == "eager":  # adds its mask to its scores
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        low = torch.finfo(dtype).min
        found = {k: torch.zeros(m.shape, dtype=dtype, device=m.device).masked_fill_(~m, low) for k, m in found.items()}
    return found[kinds.pop()] if len(kinds) == 1 else found
