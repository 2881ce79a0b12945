"""A key-value cache for rows that split, end and move: only what changes is copied."""

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

CHUNK = 64  # tokens by which a buffer grows


class RowLayer(DynamicLayer):
    """One layer's keys and values [rows, heads, tokens, size], as views into buffers that have room to grow.

    Tokens `start` to `stop` of the buffers are held.
    """

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.start = self.stop = 0
            self.buffers = (key_states.new_empty(0), value_states.new_empty(0))
        rows, _, new, _ = key_states.shape
        self._forget()
        self._reserve(rows, new, (key_states, value_states))
        for buffer, states in zip(self.buffers, (key_states, value_states)):
            buffer[:rows, :, self.stop : self.stop + new] = states
        self.stop += new
        self._expose(rows)
        return self.keys, self.values

    def rearrange(self, parents: torch.Tensor, moved: torch.Tensor) -> None:
        """Row i becomes what row parents[i] was; `moved` lists the i at which that differs from i."""
        self._forget()
        self._reserve(len(parents), 0, self.buffers)
        for buffer in self.buffers:
            held = buffer[:, :, self.start : self.stop]
            held[moved] = held.index_select(0, parents[moved])
        self._expose(len(parents))

    def _forget(self) -> None:
        """Moves `start` past what no later token looks at: nothing here."""

    def _expose(self, rows: int) -> None:
        self.keys, self.values = (buffer[:rows, :, self.start : self.stop] for buffer in self.buffers)

    def _reserve(self, rows: int, new: int, like: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Room for `rows` rows and `new` tokens more: where it lacks, other buffers that begin with what is held."""
        if self.stop and self.buffers[0].shape[0] >= rows and self.buffers[0].shape[2] >= self.stop + new:
            return
        known, held = self.keys.shape[0] if self.stop else 0, self.stop - self.start  # of rows that did not end
        rows, tokens = known if rows <= known else max(rows, 3 * known // 2), self._room(held + new)
        grown = tuple(t.new_empty(rows, t.shape[1], tokens, t.shape[3]) for t in like)
        if held:
            for larger, old in zip(grown, self.buffers):
                larger[:known, :, :held] = old[:known, :, self.start : self.stop]
        self.buffers, self.start, self.stop = grown, 0, held

    def _room(self, tokens: int) -> int:
        return -(-tokens // CHUNK) * CHUNK


class WindowLayer(RowLayer, DynamicSlidingWindowLayer):
    """A RowLayer of which a token looks at the last `sliding_window` tokens only, itself among them.

    The view moves over the buffers; what it has left is dropped when they are full, once in CHUNK tokens. What a pass
    is given, and so its mask, is what transformers' own layer gives it.
    """

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        self.cumulative_length += key_states.shape[-2]
        return super().update(key_states, value_states)

    def _forget(self) -> None:
        self.start = max(self.start, self.stop - self.sliding_window + 1)

    def _room(self, tokens: int) -> int:
        return super()._room(tokens) + CHUNK


def new_cache(config) -> Cache:
    """A cache for the architecture: RowLayers and WindowLayers where its layers attend, else transformers' own."""
    cache = DynamicCache(config=config)
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[i] = RowLayer()
        elif type(layer) is DynamicSlidingWindowLayer:
            cache.layers[i] = WindowLayer(layer.sliding_window)
    return cache


def rearrange(cache: Cache, parents: torch.Tensor) -> None:
    """Row i of the cache becomes what row parents[i] was; parents [rows after]."""
    moved = torch.nonzero(parents != torch.arange(len(parents), device=parents.device))[:, 0]
    for layer in cache.layers:
        if not isinstance(layer, RowLayer):
            layer.reorder_cache(parents)  # recurrent states too, where a layer has them beside its keys
        elif layer.is_initialized:  # one that borrows another's keys never is
            layer.rearrange(parents, moved)


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
