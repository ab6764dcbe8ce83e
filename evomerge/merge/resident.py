"""Inputs of a merge: read, converted and subtracted once, kept as long as there is room.

The live model and the disk go through the same functions; the only difference is how much is kept. What
is kept never changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch

from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.masks import largest, magnitude_order, mask_key, uniform
from evomerge.merge.methods.method import Values
from evomerge.merge.methods.reductions import l1_norm


class Memory:
    """Tensors by key, admitted until a budget is spent; what was admitted stays.

    Args:
        budget: Bytes; 0 keeps nothing.
    """

    def __init__(self, budget: int = 0) -> None:
        self.budget = budget
        self.used = 0
        self._kept: dict[Hashable, tuple[Hashable, tuple[torch.Tensor, ...]]] = {}

    def get(
        self,
        key: Hashable,
        nbytes: int,
        build: Callable[[], tuple[torch.Tensor, ...]],
        variant: Hashable = None,
    ) -> tuple[torch.Tensor, ...]:
        """Return what is kept under `key`, or build it and keep it if there is room.

        Args:
            key: Place in memory.
            nbytes: What the result occupies.
            build: Makes it.
            variant: Of several results for one place, such as masks of another seed; only the last is
                kept.
        """
        found = self._kept.get(key)
        if found is not None and found[0] == variant:
            return found[1]
        built = build()
        if found is not None or self.has_room(nbytes):
            self.used += nbytes if found is None else 0
            self._kept[key] = (variant, built)
        return built

    def has(self, key: Hashable) -> bool:
        """Tell whether something is kept under `key`."""
        return key in self._kept

    def has_room(self, nbytes: int) -> bool:
        """Tell whether that many bytes more would be kept."""
        return self.used + nbytes <= self.budget


class Inputs:
    """Inputs of one output tensor, as a merge method sees them (`methods.Group`).

    Args:
        name: Of the output tensor.
        sources: Per input the checkpoint, its tensor's name, and the model's position in the recipe.
        base: Which input is the base.
        shared: Parameters that hold for all.
        own: Parameters per input.
        seed: The recipe's, for random masks.
        memory: What is kept from one merge to the next.
        device: Where the maths is done.
        dtype: float32 or float64.
    """

    def __init__(
        self,
        *,
        name: str,
        sources: tuple[tuple[Checkpoint, str, int], ...],
        base: int | None,
        shared: Values,
        own: tuple[Values, ...],
        seed: int,
        memory: Memory,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.name = name
        self.models = tuple(checkpoint.name for checkpoint, _, _ in sources)
        self.base = base
        self.others = tuple(index for index in range(len(sources)) if index != base)
        self.shared = shared
        self.own = own
        self._sources = sources
        self._keys = tuple((checkpoint.name, tensor, dtype) for checkpoint, tensor, _ in sources)
        self._seed = seed
        self._memory = memory
        self._device = device
        self._dtype = dtype
        self._lent: set[int] = set()

    def lends(self, tensor: torch.Tensor) -> bool:
        """Tell whether a tensor shares memory with an input or task vector that a method was given."""
        return tensor.untyped_storage().data_ptr() in self._lent

    def tensor(self, index: int) -> torch.Tensor:
        """Return an input in the dtype of the maths."""
        checkpoint, name, _ = self._sources[index]
        key = ("tensor", *self._keys[index])
        as_stored = checkpoint.tensors[name].dtype == self._dtype and self._device.type == "cpu"
        if (
            checkpoint.mapped and as_stored
        ):  # a view: its bytes are in the page cache, for all processes
            return self._lend(self._memory.get(key, 0, lambda: (checkpoint.tensor(name),)))

        def build() -> tuple[torch.Tensor]:
            return (checkpoint.tensor(name).to(device=self._device, dtype=self._dtype),)

        return self._lend(self._memory.get(key, self._nbytes(index), build))

    def delta(self, index: int) -> torch.Tensor:
        """Return the task vector of an input."""
        assert self.base is not None  # only methods that need a base ask
        base = self.base

        def build() -> tuple[torch.Tensor]:
            return (self.tensor(index) - self.tensor(base),)

        return self._lend(self._memory.get(self._delta_key(index), self._nbytes(index), build))

    def norm(self, index: int) -> torch.Tensor:
        """Return the L1 norm of the task vector of an input; float64, no dimensions."""
        key = ("norm", *self._delta_key(index))
        return self._memory.get(key, 8, lambda: (l1_norm(self.delta(index)),))[0]

    def largest(self, index: int, count: int) -> torch.Tensor:
        """Return the task vector with all but its `count` largest magnitudes set to 0."""
        delta = self.delta(index)
        flat = delta.reshape(-1)
        key = ("order", *self._delta_key(index))
        nbytes = flat.numel() * (flat.dtype.itemsize + 4)
        order = None
        if self._memory.has(key) or self._memory.has_room(nbytes):
            rising, positions = self._memory.get(key, nbytes, lambda: magnitude_order(flat))
            order = (rising, positions)
        return largest(flat, count, order).view_as(delta)

    def uniform(self, index: int) -> torch.Tensor:
        """Return one number in [0, 1) for each element of the task vector."""
        checkpoint, name, position = self._sources[index]
        shape, count = checkpoint.tensors[name].shape, checkpoint.tensors[name].numel

        def build() -> tuple[torch.Tensor]:
            key = mask_key(self._seed, position, name)
            return (uniform(key, count, self._device).view(shape),)

        place = ("uniform", *self._keys[index])
        return self._memory.get(place, 4 * count, build, variant=(self._seed, position))[0]

    def _lend(self, kept: tuple[torch.Tensor, ...]) -> torch.Tensor:
        self._lent.add(kept[0].untyped_storage().data_ptr())
        return kept[0]

    def _nbytes(self, index: int) -> int:
        checkpoint, name, _ = self._sources[index]
        return checkpoint.tensors[name].numel * self._dtype.itemsize

    def _delta_key(self, index: int) -> tuple[Hashable, ...]:
        assert self.base is not None
        return ("delta", *self._keys[index], *self._keys[self.base])
