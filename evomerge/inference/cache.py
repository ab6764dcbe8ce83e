"""Keys and values: of a preamble that many rows share, and of many sequences of unlike lengths.

transformers' own DynamicCache copies everything at every token, its StaticCache attends to all that was
laid out; this one writes in place, attends to what is there, and drops a finished sequence by moving the
last one into its slot.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache


class PreambleCache(Cache):  # type: ignore[misc]
    """One sequence that every row of the passes to come begins with; filled by one pass over it.

    Nothing is written in place, so gradients flow through it.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._states: dict[int, tuple[Tensor, Tensor]] = {}
        self._length = 0

    def close(self, length: int) -> None:
        """Say that the preamble, of `length` tokens, is read; rows come next."""
        self._length = length

    @property
    def layers_read(self) -> tuple[int, ...]:
        """The layers that kept something."""
        return tuple(self._states)

    def states(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values, each `[1, K, P, D]`."""
        return self._states[layer]

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Keep the preamble's states, or return them in front of the rows' own."""
        if not self._length:
            self._states[layer_idx] = (key_states, value_states)
            return key_states, value_states
        keys, values = (
            torch.cat([kept.expand(len(own), -1, -1, -1), own], dim=2)
            for kept, own in zip(self._states[layer_idx], (key_states, value_states), strict=True)
        )
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens come before the next."""
        return self._length

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return how many tokens the next ones may attend to, and at which the first of them stands."""
        return self._length + query_length, 0


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
        self._first, self._offset = 0, 0
        self._columns: Tensor | None = None
        self._chosen: Tensor | None = None
        self._seen = 0
        self._used = 0  # columns that any slot uses
        self._preambles: list[PreambleCache] = []
        self._preamble_of = torch.full((slots,), -1)

    def fill(self, first: int, offset: int = 0) -> None:
        """Say that prompts come next, for the slots from `first` on.

        Args:
            first: The first of the slots.
            offset: How many of their tokens are there already.
        """
        self._first, self._offset, self._columns, self._seen = first, offset, None, offset

    def spread(self, first: int, count: int, preamble: PreambleCache) -> None:
        """Let the `count` slots from `first` on begin with copies of a preamble."""
        for layer in preamble.layers_read:
            keys, values = preamble.states(layer)
            for store, states in zip(
                self._stores(layer, keys, values), (keys, values), strict=True
            ):
                store[first : first + count, :, : states.shape[2]] = states
            self._used = max(self._used, keys.shape[2])

    def attach(self, first: int, count: int, preamble: PreambleCache) -> None:
        """Let the `count` slots from `first` on begin with a preamble that is kept apart."""
        self._preamble_of[first : first + count] = len(self._preambles)
        self._preambles.append(preamble)

    def attached(self, slots: Sequence[int]) -> list[tuple[PreambleCache, Tensor | None]]:
        """Return each preamble of some slots, and which of them begin with it; None: all."""
        numbers = self._preamble_of[torch.tensor(slots)]
        found: list[tuple[PreambleCache, Tensor | None]] = []
        for number in set(numbers.tolist()) - {-1}:
            (rows,) = (numbers == number).nonzero(as_tuple=True)
            found.append((self._preambles[number], None if len(rows) == len(slots) else rows))
        return found

    def extend(self, columns: Tensor, seen: int, slots: Sequence[int] | None = None) -> None:
        """Say that a few tokens come next for some slots.

        Args:
            columns: `[n, w]`, int64: where each is kept.
            seen: One more than the largest of them.
            slots: Which n slots; None: the first n.
        """
        self._columns, self._seen, self._used = columns, seen, max(self._used, seen)
        self._chosen = None if slots is None else torch.tensor(slots, device=columns.device)

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Put the sequences of slots `sources` into slots `targets`, both `[k]`, int64."""
        for store in (self._keys, self._values):
            for layer in store.values():
                used = layer[:, :, : self._used]
                used.index_copy_(0, targets, used.index_select(0, sources))
        self._preamble_of[targets.cpu()] = self._preamble_of[sources.cpu()]

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Keep what was announced; return all keys and values that it may attend to."""
        keys, values = self._stores(layer_idx, key_states, value_states)
        count, _, length, _ = key_states.shape
        if self._columns is None:
            slots, stop = slice(self._first, self._first + count), self._offset + length
            keys[slots, :, self._offset : stop] = key_states
            values[slots, :, self._offset : stop] = value_states
            self._used = max(self._used, stop)
            if not self._offset:
                return key_states, value_states
            return keys[slots, :, :stop], values[slots, :, :stop]
        chosen = self._chosen
        rows = torch.arange(count, device=key_states.device) if chosen is None else chosen
        keys[rows[:, None], :, self._columns] = key_states.transpose(1, 2)
        values[rows[:, None], :, self._columns] = value_states.transpose(1, 2)
        if chosen is None:
            return keys[:count, :, : self._seen], values[:count, :, : self._seen]
        return keys[chosen, :, : self._seen], values[chosen, :, : self._seen]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens come before the next."""
        return self._before()

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return how many tokens the next ones may attend to, and at which the first of them stands."""
        return self._before() + query_length, 0

    def _stores(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self._keys:
            for kept, states in ((self._keys, keys), (self._values, values)):
                _, heads, _, width = states.shape
                # Zeros, since what a mask hides must still be a number.
                kept[layer] = states.new_zeros(self._slots, heads, self._capacity, width)
        return self._keys[layer], self._values[layer]

    def _before(self) -> int:
        return self._seen if self._columns is None else self._seen - self._columns.shape[1]
