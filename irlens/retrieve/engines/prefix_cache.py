"""A key-value cache for rows that split, end and move: only what changes is copied."""

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

CHUNK = 64  # tokens by which a buffer grows


class RowLayer(DynamicLayer):
    """One layer's keys and values [rows, heads, tokens, size], as views into buffers that have room to grow."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.length, self.buffers = 0, (key_states.new_empty(0), value_states.new_empty(0))
        rows, _, new, _ = key_states.shape
        self._reserve(rows, self.length + new, (key_states, value_states))
        for buffer, states in zip(self.buffers, (key_states, value_states)):
            buffer[:rows, :, self.length : self.length + new] = states
        self.length += new
        self._expose(rows)
        return self.keys, self.values

    def rearrange(self, parents: torch.Tensor, moved: torch.Tensor) -> None:
        """Row i becomes what row parents[i] was; `moved` lists the i at which that differs from i."""
        self._reserve(len(parents), self.length, self.buffers)
        for buffer in self.buffers:
            buffer[moved, :, : self.length] = buffer[:, :, : self.length].index_select(0, parents[moved])
        self._expose(len(parents))

    def _expose(self, rows: int) -> None:
        self.keys, self.values = (buffer[:rows, :, : self.length] for buffer in self.buffers)

    def _reserve(self, rows: int, tokens: int, like: tuple[torch.Tensor, torch.Tensor]) -> None:
        if self.buffers[0].ndim == 4 and self.buffers[0].shape[0] >= rows and self.buffers[0].shape[2] >= tokens:
            return
        held = self.buffers[0].shape[0] if self.length else 0
        rows, tokens = max(rows, held) if rows <= held else max(rows, 3 * held // 2), -(-tokens // CHUNK) * CHUNK
        grown = tuple(t.new_empty(rows, t.shape[1], tokens, t.shape[3]) for t in like)
        if self.length:
            for new, old in zip(grown, self.buffers):
                new[:held, :, : self.length] = old[:, :, : self.length]
        self.buffers = grown


def new_cache(config) -> Cache:
    """A cache of RowLayers where every layer attends to everything, else transformers' own for the architecture."""
    text = config.get_text_config()
    types = getattr(text, "layer_types", None)
    plain = set(types) == {"full_attention"} if types else not getattr(text, "sliding_window", None)
    return Cache(layer_class_to_replicate=RowLayer) if plain else DynamicCache(config=config)


def rearrange(cache: Cache, parents: torch.Tensor) -> None:
    """Row i of the cache becomes what row parents[i] was; parents [rows after]."""
    moved = torch.nonzero(parents != torch.arange(len(parents), device=parents.device))[:, 0]
    for layer in cache.layers:
        if isinstance(layer, RowLayer):
            layer.rearrange(parents, moved)
        else:
            layer.batch_select_indices(parents)


def place(parents: torch.Tensor) -> torch.Tensor:
    """The row for each child so that few rows move: parents [children], grouped, → row [children], a permutation.

    A parent's first child stays where the parent was; the others fill the gaps that ended rows left, then the end.
    """
    count = len(parents)
    first = torch.ones_like(parents, dtype=torch.bool)
    first[1:] = parents[1:] != parents[:-1]
    stays = first & (parents < count)
    taken = torch.zeros_like(stays)
    taken[parents[stays]] = True
    row = torch.empty_like(parents)
    row[stays] = parents[stays]
    row[~stays] = torch.nonzero(~taken)[:, 0]
    return row
