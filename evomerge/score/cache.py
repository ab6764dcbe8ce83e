"""Keys and values of many sequences of unlike lengths, in memory that is laid out once.

transformers' own DynamicCache copies everything at every token, its StaticCache attends to all that was
laid out; this one writes in place, attends to what is there, and drops a finished sequence by moving the
last one into its slot.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache


class SlotCache(Cache):  # type: ignore[misc]
    """One slot a sequence, filled from the left.

    Args:
        slots: Number of sequences.
        capacity: Most tokens of one.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        super().__init__(layers=[])
        self._slots, self._capacity = slots, capacity
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._first = 0
        self._columns: Tensor | None = None
        self._seen = 0

    def fill(self, first: int) -> None:
        """Say that prompts come next, for the slots from `first` on, each from its first token."""
        self._first, self._columns, self._seen = first, None, 0

    def extend(self, columns: Tensor, seen: int) -> None:
        """Say that one token for each of the first slots comes next.

        Args:
            columns: `[n]`, int64: how many tokens each slot holds.
            seen: The largest of them.
        """
        self._columns, self._seen = columns, seen

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Put the sequences of slots `sources` into slots `targets`, both `[k]`, int64."""
        for store in (self._keys, self._values):
            for layer in store.values():
                layer.index_copy_(0, targets, layer.index_select(0, sources))

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Keep what was announced; return all keys and values that it may attend to."""
        if layer_idx not in self._keys:
            for store, states in ((self._keys, key_states), (self._values, value_states)):
                _, heads, _, width = states.shape
                store[layer_idx] = torch.zeros(
                    self._slots,
                    heads,
                    self._capacity,
                    width,
                    dtype=states.dtype,
                    device=states.device,
                )
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        count, _, length, _ = key_states.shape
        if self._columns is None:
            keys[self._first : self._first + count, :, :length] = key_states
            values[self._first : self._first + count, :, :length] = value_states
            return key_states, value_states
        slots = torch.arange(count, device=key_states.device)
        keys[slots, :, self._columns] = key_states[:, :, 0]
        values[slots, :, self._columns] = value_states[:, :, 0]
        return keys[:count, :, : self._seen + 1], values[:count, :, : self._seen + 1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens come before the next."""
        return self._seen

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return how many tokens the next ones may attend to, and at which the first of them stands."""
        return self._seen + query_length, 0
