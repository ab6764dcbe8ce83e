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
        self._capacity = capacity
        self._states: dict[int, tuple[Tensor, Tensor]] = {}  # [slots, K, capacity, D] each
        self._slots: slice | Tensor = slice(0, slots)
        self._columns = torch.zeros(0, 0, dtype=torch.int64)
        self._places: dict[torch.device, tuple[slice | Tensor, Tensor, Tensor]] = {}
        self._seen = 0
        self._used = 0  # columns that any slot uses
        self._preambles: list[PreambleCache] = []
        self._preamble_of = torch.full((slots,), -1)

    def spread(self, slots: slice, preamble: PreambleCache) -> None:
        """Let slots begin with copies of a preamble."""
        for layer in preamble.layers_read:
            for store, states in zip(
                self._stores(layer, *preamble.states(layer)), preamble.states(layer), strict=True
            ):
                store[slots, :, : states.shape[2]] = states
                self._used = max(self._used, states.shape[2])

    def attach(self, slots: slice, preamble: PreambleCache) -> None:
        """Let slots begin with a preamble that is kept apart."""
        self._preamble_of[slots] = len(self._preambles)
        self._preambles.append(preamble)

    def attached(self, slots: slice | Sequence[int]) -> list[tuple[PreambleCache, Tensor | None]]:
        """Return each preamble of some slots, and which of them begin with it; None: all."""
        numbers = self._preamble_of[slots if isinstance(slots, slice) else torch.tensor(slots)]
        found: list[tuple[PreambleCache, Tensor | None]] = []
        for number in set(numbers.tolist()) - {-1}:
            (rows,) = (numbers == number).nonzero(as_tuple=True)
            found.append((self._preambles[number], None if len(rows) == len(numbers) else rows))
        return found

    def extend(self, slots: slice | Sequence[int], columns: Tensor, seen: int) -> None:
        """Say that tokens come next for some slots.

        Args:
            slots: Which n.
            columns: `[n, w]`, int64: where each token is kept.
            seen: One more than the largest of them.
        """
        self._slots = slots if isinstance(slots, slice) else torch.tensor(slots)
        self._columns, self._seen, self._used = columns, seen, max(self._used, seen)
        self._places = {}

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Put the sequences of slots `sources` into slots `targets`, both `[k]`, int64."""
        for stores in self._states.values():
            for store in stores:
                used, device = store[:, :, : self._used], store.device
                used.index_copy_(0, targets.to(device), used.index_select(0, sources.to(device)))
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
        slots, rows, columns = self._announced(key_states.device)
        keys[rows, :, columns] = key_states.transpose(1, 2)
        values[rows, :, columns] = value_states.transpose(1, 2)
        return keys[slots, :, : self._seen], values[slots, :, : self._seen]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens come before the next."""
        return self._seen - self._columns.shape[1]

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return how many tokens the next ones may attend to, and at which the first of them stands."""
        return self.get_seq_length() + query_length, 0

    def _announced(self, device: torch.device) -> tuple[slice | Tensor, Tensor, Tensor]:
        """Return slots, and rows and columns of each of their tokens, for the layers of a device."""
        if device not in self._places:
            slots = self._slots
            if isinstance(slots, slice):
                rows = torch.arange(slots.start, slots.stop, device=device)
            else:
                rows = slots = slots.to(device)
            self._places[device] = slots, rows[:, None], self._columns.to(device)
        return self._places[device]

    def _stores(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self._states:
            # Zeros, since what a mask hides must still be a number.
            self._states[layer] = (
                keys.new_zeros(self._slots_in_all, keys.shape[1], self._capacity, keys.shape[3]),
                values.new_zeros(
                    self._slots_in_all, values.shape[1], self._capacity, values.shape[3]
                ),
            )
        return self._states[layer]

    @property
    def _slots_in_all(self) -> int:
        return len(self._preamble_of)
