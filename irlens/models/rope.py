"""RoPE whose frequencies depend on a sequence's length: every row gets those of its own length, whatever is beside it.

longrope (Phi-3) has one set of frequencies up to the length of pretraining and another beyond it; dynamic NTK scales them
with every token beyond. transformers takes the longest row of a call for all its rows, and for dynamic NTK the longest
call before it as well (`modeling_rope_utils.dynamic_rope_update`), so that a value would depend on its company.

What is left: a sampler's key-value cache holds keys as they were turned when they were made, so the log-probability of a
draw that crosses the boundary is not the one that a pass over the whole draw gives it. It cannot be, by the model's own
definition: tokens before the boundary were drawn with the frequencies of a short sequence, and the pass over all of them
turns them by the long one's. Computing the cache anew at the boundary would mend only the tokens after it.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch

LONGROPE, DYNAMIC = "longrope", "dynamic"


@dataclass(frozen=True)
class LengthRope:
    """Up to `boundary` tokens the frequencies are one set; beyond, another one, or with `scales` one per length."""

    boundary: int
    scales: bool

    def side(self, tokens: int) -> int:
        """Sequences of equal sides have the same frequencies."""
        return max(tokens, self.boundary) if self.scales else int(tokens > self.boundary)


def length_ropes(model) -> tuple[LengthRope, ...]:
    """The ways in which this model's frequencies depend on length; none for most models."""
    found = {rope for _, ropes in _modules(model) for rope in ropes}
    return tuple(sorted(found, key=lambda rope: (rope.boundary, rope.scales)))


@contextmanager
def lengths_apart(model):
    """While open, `model(...)` turns every row by the frequencies that it would have in a call of its own.

    A row's length is its largest position and one; rows of several branches need branches of one side.
    """
    found = [(module, ropes, module.__dict__.get("forward")) for module, ropes in _modules(model)]
    for module, ropes, _ in found:
        module.forward = _by_side(module.forward, ropes)
    try:
        yield
    finally:
        for module, _, replaced in found:
            if replaced is None:
                del module.forward
            else:
                module.forward = replaced


def _by_side(forward, ropes: list[LengthRope]):
    """`forward(x, position_ids [R, S])` of a rotary embedding, for rows of one side at a time, unmarked by those before."""

    def rows(x: torch.Tensor, position_ids: torch.Tensor, *args, **kwargs):
        sides = [tuple(rope.side(end + 1) for rope in ropes) for end in position_ids.amax(1).tolist()]
        found: dict[int, tuple[torch.Tensor, ...]] = {}
        for side in dict.fromkeys(sides):
            where = [row for row, other in enumerate(sides) if other == side]
            forward(x[:1], position_ids.new_zeros(1, 1), *args, **kwargs)  # one token: back to the original frequencies
            parts = forward(x[:1], position_ids[where], *args, **kwargs)
            found |= {row: tuple(part[i] for part in parts) for i, row in enumerate(where)}
        return tuple(torch.stack(some) for some in zip(*(found[row] for row in range(len(sides)))))

    return rows


def _modules(model):
    """(rotary embedding, how its frequencies depend on length) of every one whose do."""
    from accelerate.utils import extract_model_from_parallel

    for module in extract_model_from_parallel(model, keep_torch_compile=False).modules():
        kinds = getattr(module, "rope_type", None)
        if isinstance(kinds, str):
            kinds, parameters = {"": kinds}, {"": _parameters(module)}
        elif isinstance(kinds, dict):
            parameters = _parameters(module)
        else:
            continue
        ropes = [LengthRope(module.original_max_seq_len, True) for kind in kinds.values() if DYNAMIC in kind]
        ropes += [
            LengthRope(parameters[name]["original_max_position_embeddings"], False)
            for name, kind in kinds.items()
            if kind == LONGROPE
        ]
        if ropes:
            yield module, ropes


def _parameters(module) -> dict:
    return getattr(module.config, "rope_parameters", None) or {}
