"""Attention over packed rows by blocks (FlexAttention): a mask of 128 × 128 tokens a block, never of row × row.

A packed row's mask says of nearly every pair of tokens that they do not meet. As a BlockMask it is a table of the blocks in
which some do, and a function that is asked inside those which are not whole; both are made from the rows themselves, so
nothing of the size of row × row exists, and blocks that nobody looks at cost nothing.

`take_blocks` gives a model an attention that reads both: a BlockMask by FlexAttention (compiled on a GPU), any other mask
by what the model had. `objection` says where that cannot be.
"""

import sys
from functools import cache

import torch

BLOCK = 128  # tokens; rows that go by blocks are padded to a multiple
PREFIX = "irlens_blocks_or_"  # before the name of the attention that a model had
BASES = ("sdpa", "eager")


def base(attention: str) -> str:
    """The name of the attention that reads masks which are no BlockMask."""
    return attention.removeprefix(PREFIX)


def objection(model) -> str:
    """Why this model's packed rows cannot go by blocks; empty if they can, which a small pass on its device has shown."""
    config = model.config.get_text_config()
    if model.device.type != "cuda":
        return "not on a GPU"
    if base(config._attn_implementation) not in BASES:
        return f'attention "{config._attn_implementation}"'
    if any("sinks" in vars(module).get("_parameters", ()) for module in model.modules()):
        return "attention sinks"
    if getattr(config, "attention_dropout", 0.0):
        return "dropout in its attention"
    heads, shared = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    sizes = {size, getattr(config, "global_head_dim", None) or size}
    dtypes = [model.dtype, *([torch.bfloat16] if model.dtype == torch.float32 else [])]  # the latter under autocast
    tried = (_tried(model.device, d, heads, shared or heads, s) for d in dtypes for s in sorted(sizes))
    return next(filter(None, tried), "")


@cache
def _tried(device: torch.device, dtype: torch.dtype, heads: int, shared: int, size: int) -> str:
    """What went wrong in a pass of two blocks and its gradient beside a dense mask; empty if nothing did."""
    generator = torch.Generator(device).manual_seed(0)
    shapes = [(1, count, 2 * BLOCK, size) for count in (heads, shared, shared)]
    states = [torch.randn(s, generator=generator, device=device).to(dtype).requires_grad_() for s in shapes]
    branch = torch.arange(3, device=device).repeat_interleave(torch.tensor([100, 60, 96], device=device))[None]
    position = torch.arange(2 * BLOCK, device=device)[None]
    mask = block_mask(branch, position)
    dense = allowed(branch, position)(0, 0, position[0][:, None], position[0])
    try:
        found = _by_blocks(*states, mask, size**-0.5, None)
        expected = torch.nn.functional.scaled_dot_product_attention(
            *states, attn_mask=dense, scale=size**-0.5, enable_gqa=heads != shared
        )
        for values in zip(*([out, *torch.autograd.grad(out.sum(), states)] for out in (found, expected))):
            torch.testing.assert_close(*values, atol=0.1, rtol=0.1)
    except Exception as error:  # of whatever kind: the compiler's, Triton's, a kernel that does not fit
        return f"FlexAttention fails here: {' '.join(str(error).split())[:120] or type(error).__name__}"
    return ""


def allowed(branch: torch.Tensor, position: torch.Tensor, window: int | None = None):
    """mask(row, head, query, key): whether a token looks at another; of its own prompt and branch, before it, in the window.

    branch, position [R, S] as in `logprobs.Packed`. A padding token looks at itself.
    """

    def mask(row, head, query, key):
        own, other = branch[row, query], branch[row, key]
        meets = (query >= key) & (own >= 0) & ((other == 0) | (other == own))
        if window is not None:
            meets = meets & (position[row, query] - position[row, key] < window)
        return meets | (query == key)

    return mask


def block_mask(branch: torch.Tensor, position: torch.Tensor, window: int | None = None):
    """The BlockMask of `allowed` for rows [R, S] of whole blocks.

    Branches stand in order, padding last, so a block's least and largest branch and position tell which blocks meet.
    A block that is told to meet and does not costs its time; inside, `allowed` decides.
    """
    from torch.nn.attention.flex_attention import BlockMask

    rows, size = branch.shape
    parts = branch.masked_fill(branch < 0, branch.max() + 1).view(rows, size // BLOCK, BLOCK)
    places = position.view(rows, size // BLOCK, BLOCK)
    low, high, early, late = parts.amin(2), parts.amax(2), places.amin(2), places.amax(2)
    query, key = (slice(None), slice(None), None), (slice(None), None, slice(None))
    real = (branch >= 0).view(parts.shape)
    number = torch.arange(size // BLOCK, device=branch.device)
    same, before = number[:, None] == number, number[:, None] > number
    meets = before & real.any(2)[query] & ((low[key] == 0) | (high[key] >= low[query]))
    one = (low == high)[query] & (low == high)[key] & (low[query] == low[key])
    whole = before & real.all(2)[query] & ((high[key] == 0) | one)
    if window is not None:
        meets &= early[query] - late[key] < window
        whole &= late[query] - early[key] < window
    partly = same | (meets & ~whole)
    return BlockMask.from_kv_blocks(
        *_ordered(partly), *_ordered(whole), BLOCK_SIZE=BLOCK, mask_mod=allowed(branch, position, window)
    )


def _ordered(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many key blocks each query block has, and which, those first: [R, Q, K] → int32 [R, 1, Q], [R, 1, Q, K]."""
    which = chosen.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32)[:, None], which.to(torch.int32)[:, None].contiguous()


def take_blocks(model) -> None:
    """Gives `model` the attention that also reads BlockMasks. It stays: a checkpointed layer is called again in backward."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    config = model.config.get_text_config()
    had = base(config._attn_implementation)
    if config._attn_implementation == had:
        AttentionInterface.register(PREFIX + had, _attention(had))
        AttentionMaskInterface.register(PREFIX + had, ALL_MASK_ATTENTION_FUNCTIONS[had])
        config._attn_implementation = PREFIX + had


def _attention(had: str):
    """An attention of transformers' signature: by blocks where the mask is a BlockMask, else as `had`."""
    from torch.nn.attention.flex_attention import BlockMask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attend(module, query, key, value, attention_mask, scaling=None, softcap=None, **kwargs):
        if isinstance(attention_mask, BlockMask):
            return _by_blocks(query, key, value, attention_mask, scaling, softcap).transpose(1, 2).contiguous(), None
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        kwargs |= {} if softcap is None else {"softcap": softcap}
        plain = ALL_ATTENTION_FUNCTIONS.get_interface(had, eager)
        return plain(module, query, key, value, attention_mask, scaling=scaling, **kwargs)

    return attend


def _by_blocks(query, key, value, mask, scaling: float | None, softcap: float | None) -> torch.Tensor:
    """[R, heads, S, size]. FlexAttention is not on autocast's list, and wants heads in powers of two to share keys."""
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        query, key, value = (states.to(torch.get_autocast_dtype(kind)) for states in (query, key, value))
    heads, shared = query.shape[1], key.shape[1]
    if heads & (heads - 1):
        key, value = (states.repeat_interleave(heads // shared, dim=1) for states in (key, value))

    def capped(score, row, head, query, key):
        return softcap * torch.tanh(score / softcap)

    return _flex(kind)(
        query,
        key,
        value,
        score_mod=None if softcap is None else capped,
        block_mask=mask,
        scale=scaling,
        enable_gqa=heads != key.shape[1],
    )


@cache
def _flex(kind: str):
    """FlexAttention, compiled where that is worth it; on the CPU as it is, which is dense and has no gradient."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if kind == "cuda" else flex_attention
