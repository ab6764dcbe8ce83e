"""What is kept from one merge to the next, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from evomerge.merge.resident import ResidentInputs


class Memory:
    """Tensors by key, admitted until a budget is spent; what was admitted stays.

    Attributes:
        inputs: By tensor what the last merge read: names and views, which take no room to speak of.

    Args:
        budget: Bytes; 0 keeps nothing.
        for_inputs: How much of it only inputs may take; what is computed from them gets the rest.
        on_host: Bytes more for what is computed on the CPU, where the budget is of a GPU.
    """

    def __init__(self, budget: int = 0, *, for_inputs: int = 0, on_host: int = 0) -> None:
        self.budget, self.for_inputs, self.on_host = budget, for_inputs, on_host
        self.used = self.derived = self.used_on_host = 0
        self.inputs: dict[str, ResidentInputs] = {}
        self._kept: dict[Hashable, tuple[Hashable, tuple[torch.Tensor, ...]]] = {}

    def get(
        self,
        key: Hashable,
        nbytes: int | None,
        build: Callable[[], tuple[torch.Tensor, ...]],
        variant: Hashable = None,
        *,
        derived: bool = False,
    ) -> tuple[torch.Tensor, ...]:
        """Return what is kept under `key`, or build it and keep it if there is room.

        Args:
            key: Place in memory.
            nbytes: What it occupies where the budget is; None: as much as its tensors, where they are.
            build: Makes it.
            variant: Of several results for one place, such as masks of another seed; the last one is kept.
            derived: It is computed from inputs: an order, random numbers.
        """
        found = self.find(key, variant)
        if found is not None:
            return found
        built = build()
        if key in self._kept or self._admitted(built, nbytes, derived):
            self._kept[key] = (variant, built)
        return built

    def _admitted(self, built: tuple[torch.Tensor, ...], nbytes: int | None, derived: bool) -> bool:
        """Tell whether what was built finds room, and count it then."""
        size = sum(tensor.nbytes for tensor in built) if nbytes is None else nbytes
        if self.on_host and nbytes is None and all(one.device.type == "cpu" for one in built):
            fits = self.used_on_host + size <= self.on_host
            self.used_on_host += size if fits else 0
            return fits
        fits = self.has_room(size, derived=derived)
        self.used += size if fits else 0
        self.derived += size if fits and derived else 0
        return fits

    def find(self, key: Hashable, variant: Hashable = None) -> tuple[torch.Tensor, ...] | None:
        """Return what is kept under `key`, if it is this variant."""
        found = self._kept.get(key)
        return found[1] if found is not None and found[0] == variant else None

    def variant(self, key: Hashable) -> Hashable:
        """Return which variant is kept under `key`; None: none."""
        found = self._kept.get(key)
        return None if found is None else found[0]

    @property
    def room(self) -> int:
        """How many bytes more that are computed from inputs would be kept."""
        of_derived = self.budget - self.for_inputs - self.derived
        return max(0, min(self.budget - self.used, of_derived))

    def has(self, key: Hashable) -> bool:
        """Tell whether something is kept under `key`."""
        return key in self._kept

    def has_room(self, nbytes: int, *, derived: bool = False) -> bool:
        """Tell whether that many bytes more would be kept."""
        fits = self.used + nbytes <= self.budget
        return fits and (not derived or self.derived + nbytes <= self.budget - self.for_inputs)
