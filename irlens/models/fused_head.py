"""The head fused with log-softmax: log-probabilities of given tokens without a tensor of tokens × vocabulary.

The head's weight is walked tile by tile along the vocabulary. Forward keeps one log-sum-exp per token; backward computes
each tile again, turns it into that tile's gradient and drops it.

`fused_head` puts this inside a model for one call: while it is open, the model's own head module returns token
log-probabilities, and `model(...)` hands them on as its `logits`. The call still enters at the outermost module and
leaves through it, and the head is still called as a module, so the hooks of DDP and FSDP run where they must, and the
model that is saved is the model that was loaded. (Calling the decoder and the head's weight apart would pass them by.)
"""

from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

TILE = {"cpu": 2**20, "cuda": 2**25}  # numbers of one tile of logits: a few megabytes stay in a core's cache

# What a model does to its logits after the head, as the names of its settings and the values that turn each off.
CAP, DIVISOR, FACTOR = "final_logit_softcapping", "logits_scaling", "logit_scale"
NEUTRAL = {CAP: None, DIVISOR: 1.0, FACTOR: 1.0}


def fused_logprobs(
    hidden, weight, bias, target, divisor: float = 1.0, cap: float | None = None, squared: bool = False
) -> torch.Tensor:
    """Log-probabilities [T], at least float32, of tokens target[T] given hidden[T, H] and a head weight[V, H], bias[V].

    Logits are divided by `divisor` and then soft-capped at `cap`. Products are taken in hidden's dtype (under autocast
    in autocast's), sums and exponentials in float32, or in float64 for float64 input. `squared`: [T, 2], with
    log Σ_v p(v)² beside them, without gradient.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        found = _Fused.apply(hidden, weight, bias, target, 1.0 / divisor, cap, dtype)
        if not squared:
            return found
        with torch.no_grad():
            beside = _log_squares(hidden.to(dtype), weight, bias, 1.0 / divisor, cap)
        return torch.stack([found, beside], -1)


def _log_squares(cast, weight, bias, scale: float, cap: float | None) -> torch.Tensor:
    """log Σ_v p(v)² [T], tile by tile: log Σ e^(2 logit) − 2 log Σ e^logit."""
    exact = torch.promote_types(cast.dtype, torch.float32)
    once, twice = [], []
    for start, stop in _tiles(cast, weight):
        logits = _logits(cast, weight[start:stop], None if bias is None else bias[start:stop], scale, cap, exact)
        once.append(logits.logsumexp(1))
        twice.append((2 * logits).logsumexp(1))
    return torch.stack(twice).logsumexp(0) - 2 * torch.stack(once).logsumexp(0)


def chosen(logits: torch.Tensor, target: torch.Tensor, squared: bool = False) -> torch.Tensor:
    """What `fused_logprobs` gives, of logits [T, V] that are there."""
    normaliser = logits.logsumexp(-1)
    found = logits.gather(-1, target[:, None])[:, 0] - normaliser
    if not squared:
        return found
    beside = (2 * logits.detach()).logsumexp(-1) - 2 * normaliser.detach()
    return torch.stack([found, beside], -1)


def _tiles(hidden: torch.Tensor, weight: torch.Tensor):
    """(start, stop) along the vocabulary, so that a tile of logits stays near TILE numbers."""
    width = max(128, TILE.get(hidden.device.type, TILE["cuda"]) // max(1, hidden.shape[0]))
    return [(start, min(start + width, weight.shape[0])) for start in range(0, weight.shape[0], width)]


def _logits(hidden, weight, bias, scale, cap, exact):
    """One tile of logits [T, width] in dtype `exact`."""
    out = (hidden @ weight.to(hidden.dtype).T).to(exact)
    if bias is not None:
        out += bias
    if scale != 1.0:
        out *= scale
    return out if cap is None else out.div_(cap).tanh_().mul_(cap)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, target, scale, cap, dtype):
        exact = torch.promote_types(hidden.dtype, torch.float32)
        cast = hidden.to(dtype)
        top = torch.full(target.shape, -torch.inf, dtype=exact, device=hidden.device)  # running maximum, and
        total = torch.zeros_like(top)  # the sum of exp(logit − top)
        chosen = torch.zeros_like(top)
        for start, stop in _tiles(hidden, weight):
            logits = _logits(cast, weight[start:stop], None if bias is None else bias[start:stop], scale, cap, exact)
            column, inside = _columns(target, start, stop)
            chosen = torch.where(inside, logits.gather(1, column[:, None])[:, 0], chosen)
            higher = torch.maximum(top, logits.amax(1))
            total = total * (top - higher).exp() + logits.sub_(higher[:, None]).exp_().sum(1)
            top = higher
        normaliser = top + total.log()
        ctx.save_for_backward(hidden, weight, bias, target, normaliser)
        ctx.scale, ctx.cap, ctx.dtype = scale, cap, dtype
        return chosen - normaliser

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        hidden, weight, bias, target, normaliser = ctx.saved_tensors
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        exact, cast = normaliser.dtype, hidden.to(ctx.dtype)
        to_hidden = torch.zeros(hidden.shape, dtype=exact, device=hidden.device) if for_hidden else None
        to_weight = torch.empty_like(weight) if for_weight else None
        to_bias = torch.empty_like(bias) if for_bias else None
        gradient = gradient.to(exact)
        with torch.autocast(hidden.device.type, enabled=False):
            for start, stop in _tiles(hidden, weight):
                rows = weight[start:stop]
                part = None if bias is None else bias[start:stop]
                logits = _logits(cast, rows, part, ctx.scale, ctx.cap, exact)
                slope = None if ctx.cap is None else 1 - (logits / ctx.cap).square_()
                column, inside = _columns(target, start, stop)
                tile = logits.sub_(normaliser[:, None]).exp_().mul_(-gradient[:, None])
                tile.scatter_add_(1, column[:, None], (gradient * inside)[:, None])
                if slope is not None:
                    tile *= slope
                if ctx.scale != 1.0:
                    tile *= ctx.scale
                if for_bias:
                    to_bias[start:stop] = tile.sum(0)
                if for_hidden:
                    _add_product(to_hidden, tile, rows, ctx.dtype)
                if for_weight:
                    _set_product(to_weight[start:stop], tile.T.to(ctx.dtype), cast)
        return None if to_hidden is None else to_hidden.to(hidden.dtype), to_weight, to_bias, None, None, None, None


def _columns(target, start, stop):
    """Where a target lies in a tile, and whether it does."""
    inside = (target >= start) & (target < stop)
    return (target - start).clamp(0, stop - start - 1), inside


def _add_product(out, a, b, dtype) -> None:
    """out += a @ b without rounding a tile's product to half precision: there are many tiles, and errors add up."""
    if dtype == out.dtype:
        out.addmm_(a, b.to(dtype))
    elif out.is_cuda:
        out += torch.mm(a.to(dtype), b.to(dtype), out_dtype=out.dtype)
    else:
        out.addmm_(a, b.to(out.dtype))


def _set_product(out, a, b) -> None:
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)


def core(model) -> nn.Module:
    """The language model inside what distributes, compiles or adapts it."""
    from accelerate.utils import extract_model_from_parallel

    return extract_model_from_parallel(model, keep_torch_compile=False)


@contextmanager
def fused_head(model, source: torch.Tensor, target: torch.Tensor, squared: bool = False):
    """While open, `model(...).logits` is the log-probabilities [T] of tokens `target` at flat positions `source`, or with
    `squared` [T, 2], as `fused_logprobs` has them.

    A stock linear head goes through `fused_logprobs`. Any other (with adapters, quantised, offloaded) is called as it is
    on a few tokens at a time, each call repeated in backward. The model must do to its logits only what NEUTRAL names.
    """
    model = core(model)
    head, config = model.get_output_embeddings(), model.config.get_text_config()
    after = {name: getattr(config, name) for name in NEUTRAL if getattr(config, name, None) is not None}
    divisor, cap = after.get(DIVISOR, 1.0) / after.get(FACTOR, 1.0), after.get(CAP)
    read = [(vars(config), after)]  # past the setters, as a setting's type may forbid the neutral value
    read += [(vars(m), {FACTOR: m.logit_scale}) for m in model.modules() if FACTOR in vars(m)]  # Cohere copies it
    stock, replaced = head.forward, head.__dict__.get("forward")

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden.flatten(0, 1)[source]
        weight = getattr(head, "weight", None)
        plain = replaced is None and type(head).forward is nn.Linear.forward
        if plain and type(weight) in (torch.Tensor, nn.Parameter):
            return fused_logprobs(hidden, weight, head.bias, target, divisor, cap, squared)
        return _called(stock, hidden, target, config.vocab_size, divisor, cap, squared)

    try:
        head.forward = forward
        for settings, some in read:
            settings.update({name: NEUTRAL[name] for name in some})
        yield
    finally:
        if replaced is None:
            del head.forward
        else:
            head.forward = replaced
        for settings, some in read:
            settings.update(some)


def _called(
    head, hidden, target, vocabulary: int, divisor: float, cap: float | None, squared: bool = False
) -> torch.Tensor:
    """As `fused_logprobs`, with a head that can only be called."""

    def some(hidden, target):
        logits = head(hidden).float() / divisor
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        return chosen(logits, target, squared)

    at_once = max(1, TILE.get(hidden.device.type, TILE["cuda"]) // vocabulary)
    parts = zip(hidden.split(at_once), target.split(at_once))
    return torch.cat([checkpoint(some, h, t, use_reentrant=False) for h, t in parts])
