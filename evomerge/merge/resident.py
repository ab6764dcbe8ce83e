"""Inputs of a merge as its method sees them, and what is computed from them, kept as long as there is room.

The live model and the disk go through the same functions; the only difference is how much is kept. What
is kept never changes a bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from itertools import compress
from typing import Any

import numpy as np
import torch

from evomerge.candidate.tables import Array
from evomerge.errors import MergeError
from evomerge.merge.masks import (
    FindEqual,
    compact_order,
    largest,
    largest_by,
    magnitude_order,
    mask_key,
    ranked,
    row_ranks,
    uniform,
)
from evomerge.merge.memory import Memory
from evomerge.merge.methods.method import Values
from evomerge.merge.methods.tensors import MIN_NORM, Weight, difference, l1_norm
from evomerge.merge.statistics import Statistics
from evomerge.merge.stored import Source, StoredInputs


class ResidentInputs(StoredInputs):
    """Inputs of one output tensor, as a merge method sees them (`methods.Inputs`).

    Attributes:
        read: Tells it from the inputs of the same tensor in merges of other models (`MergeRun`).
        views: What the machine code reads, by input (`fused`, `fused_gpu`); the same for all merges of them.

    Args:
        name: As `methods.Inputs`; `base`, `shared` and `own` likewise.
        sources: Per input the checkpoint, its tensor's name, and the model's position, which keys its masks.
        seed: Keys random masks.
        memory: What is kept from one merge to the next.
        device: Where the maths is done.
        dtype: float32 or float64.
        added: As `TensorPlan.added`.
        merge: Tells the merge from all others; None: no gradients are to follow.
        statistics: Of the experts' activations; None: there are none.
        experts: Per input its place in them; None: it is the base.
    """

    def __init__(
        self,
        *,
        name: str,
        sources: tuple[Source, ...],
        base: int | None,
        shared: Values,
        own: tuple[Values, ...],
        seed: int,
        memory: Memory,
        device: torch.device,
        dtype: torch.dtype,
        added: tuple[Array | None, ...] = (),
        merge: Hashable = None,
        statistics: Statistics | None = None,
        experts: tuple[int | None, ...] = (),
    ) -> None:
        super().__init__(sources, base=base, memory=memory, device=device, dtype=dtype)
        self.name = name
        self.others = tuple(index for index in range(len(sources)) if index != base)
        self.shared = shared
        self.own = own
        self.by_row = False
        self.merge = merge
        self._statistics, self._experts = statistics, experts or (None,) * len(sources)
        self.added = added
        self._weights: dict[int, Weight] = {}
        self.seed = seed
        self._deltas: dict[int, torch.Tensor] = {}  # of those that are kept
        self.read: Hashable = None
        self.views: list[Any] = []

    def again(self, **changed: object) -> ResidentInputs:
        """Return the same inputs, with nothing of them on the device that is not kept there.

        Args:
            changed: `by_row`, and what another merge of the same tensors has of its own: `shared`, `own`,
                `added`, `seed`, `merge`, as given to the constructor.
        """
        inputs = object.__new__(ResidentInputs)
        inputs.__dict__.update(self.__dict__, _copied={}, _lent=set(), _weights={}, **changed)
        return inputs

    def weight(self, index: int) -> Weight:
        """Return the weight of an input; by row where something else than zeros is added to it."""
        if not self._weights:
            self._weights.update(self._weights_by_input())
        return self._weights[index]

    def delta(self, index: int) -> torch.Tensor:
        """Return the task vector of an input."""
        assert self.base is not None  # only methods that need a base ask
        base = self.base
        if index in self._deltas:
            return self._deltas[index]
        if self.is_base(index):
            return torch.zeros_like(self.tensor(base))
        checkpoint, name, _ = self._sources[index]
        if self.device.type != "cpu" or not checkpoint.is_mapped(name):
            return difference(self.stored(index), self.stored(base), self.dtype)

        def build() -> tuple[torch.Tensor]:
            return (difference(self._read(index), self.stored(base), self.dtype),)

        form = ("delta", self._key(base), self.dtype)
        delta = self._lend(self._only_form(index, form, build))
        if self._memory.variant(("input", *self._key(index))) == form:
            self._deltas[index] = delta
        return delta

    def norm(self, index: int) -> torch.Tensor:
        """Return the L1 norm of the task vector of an input; float64, no dimensions."""
        return self._memory.get(
            ("norm", *self._delta_key(index)), 8, lambda: (l1_norm(self.delta(index)),)
        )[0]

    def largest(
        self, index: int, count: int, skipped: int = 0, *, by_importance: bool = False
    ) -> torch.Tensor:
        """Return the task vector with all but `count` of its largest magnitudes set to 0."""
        if self.is_base(index):
            return self.delta(index)
        by = self._statistics_key if by_importance else None
        importance = self.importance(index) if by_importance else None

        def build() -> tuple[torch.Tensor]:
            delta = self.delta(index)
            flat = delta.reshape(-1)
            ranked = flat if importance is None else (delta * importance).abs_().view(-1)
            order = self._order(index, ranked, by)
            if importance is None:
                return (largest(flat, count, order, skipped).view_as(delta),)
            return (largest_by(flat, ranked, count, order, skipped).view_as(delta),)

        place, nbytes = self._largest_place(index, by), self.numel * self.dtype.itemsize
        variant = (count, skipped)
        return self._lend(self._memory.get(place, nbytes, build, variant, derived=True)[0])

    def ranks(self, index: int, *, by_importance: bool = False) -> torch.Tensor:
        """Return the places of a task vector's entries by rising magnitude, row by row."""
        assert self.base is not None
        base = self.base
        importance = self.importance(index) if by_importance else None

        def build() -> tuple[torch.Tensor]:
            delta = self._deltas.get(index)  # none is kept for the ranks alone
            if delta is None:
                delta = difference(self.stored(index), self.stored(base), self.dtype)
            return (row_ranks(delta if importance is None else delta * importance),)

        if self.is_base(index):
            return build()[0]
        by = self._statistics_key if by_importance else None
        place = ("ranks", by, *self._delta_key(index))
        return self._memory.get(place, None, build, derived=True)[0]

    def importance(self, index: int) -> torch.Tensor | None:
        """Return what the magnitudes of a task vector count; None: nothing is known of this tensor."""
        expert, (_, name, _) = self._experts[index], self._sources[index]
        if self._statistics is None or expert is None:
            return None
        found = self._statistics.importance(expert, name)
        return None if found is None else found.to(self.device, self.dtype)

    def moment(self, index: int, *, merged: bool = False) -> torch.Tensor:
        """Return the mean of x xT over the vectors that entered this linear layer in an input."""
        found, expert, (_, name, _) = None, self._experts[index], self._sources[index]
        if self._statistics is not None and expert is not None:
            found = self._statistics.moment(expert, name, merged=merged)
        if found is None:
            why = "there is no statistics file" if self._statistics is None else "it has none"
            raise MergeError(
                f"{self.name}: the method reads second moments of the activations of {self.models[index]}, "
                f"and {why}"
            )
        return found.to(self.device, torch.float32)

    @property
    def _statistics_key(self) -> Hashable:
        return None if self._statistics is None else self._statistics.key

    def fixed(self, what: str, build: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return what depends on nothing but the inputs' tensors."""
        inputs = tuple(map(self._key, range(len(self._sources))))
        place = ("fixed", what, inputs, self.base, self.dtype, self._statistics_key)
        return self._memory.get(place, None, lambda: (build(),))[0]

    def derived(
        self, what: str, build: Callable[[], torch.Tensor], variant: Hashable = None
    ) -> torch.Tensor:
        """Return what is computed from the inputs' tensors and `variant`."""
        inputs = tuple(map(self._key, range(len(self._sources))))
        place = ("derived", what, inputs, self.base, self.dtype, self._statistics_key)
        return self._memory.get(place, None, lambda: (build(),), variant, derived=True)[0]

    def once(
        self, count: int, build: Callable[[], tuple[torch.Tensor, ...]]
    ) -> tuple[torch.Tensor, ...] | None:
        """Return what `build` makes for one merge and its gradients; None: they keep nothing."""
        place, nbytes = ("once", self.name, count), count * self.numel * self.dtype.itemsize
        fits = self._memory.has(place) or self._memory.has_room(nbytes, derived=True)
        if self.merge is None or not fits:
            return None
        return self._memory.get(place, nbytes, build, self.merge, derived=True)

    def uniform(self, index: int, first: int | None = None) -> torch.Tensor:
        """Return one number in [0, 1) for each element of the task vector, or the first of them."""
        checkpoint, name, position = self._sources[index]
        shape = checkpoint.tensors[name].shape if first is None else (first,)
        count = math.prod(shape)

        def build() -> tuple[torch.Tensor]:
            return (uniform(self.mask_key(index), count, self.device).view(shape),)

        if self.is_base(index):
            return build()[0]
        place = ("uniform", first, position, *self._key(index))
        return self._memory.get(place, 4 * count, build, self.seed, derived=True)[0]

    def mask_key(self, index: int) -> int:
        """Return the key of an input's random numbers."""
        _, name, position = self._sources[index]
        return mask_key(self.seed, position, name)

    def limit(
        self,
        index: int,
        count: int,
        select: Callable[[], tuple[float, int]],
        find: FindEqual,
        slot: int = 0,
    ) -> list[float]:
        """Return where the last of a task vector's `count` largest entries is, and what its magnitude is.

        Position, the next lower float32, and the magnitude itself.

        Args:
            index: Which input.
            count: 1 to n.
            select: Finds position and magnitude where the order of magnitudes has no place in memory.
            find: As of `masks.ranked`.
            slot: Of several counts for one merge; the last one in each is kept.
        """
        assert self.base is not None
        base = self.base

        def read(start: int, stop: int) -> torch.Tensor:
            a, b = (self.stored(one).view(-1)[start:stop] for one in (index, base))
            return difference(a, b, self.dtype)

        def order() -> tuple[torch.Tensor, ...]:
            return compact_order(read, self.numel, self._memory.room)

        def build() -> tuple[torch.Tensor]:
            known = self._memory.get(("compact order", *key), None, order, derived=True)
            magnitude, last = ranked(known, count, find) if known else select()
            below = float(np.nextafter(np.float32(magnitude), np.float32(-np.inf)))
            return (torch.from_numpy(np.array((last, below, magnitude))),)

        key = self._delta_key(index)
        found: list[float] = self._memory.get(("limit", slot, *key), 24, build, count)[0].tolist()
        return found

    def scale(
        self, index: int, kept: Hashable, whole: Callable[[], float], own: Callable[[], float]
    ) -> float:
        """Return what gives the rest of a task vector the L1 norm of the whole, unless one is all but 0.

        Args:
            index: Which input.
            kept: Tells what is kept of it from all else that may be.
            whole: Computes the norm of the task vector.
            own: Computes that of what is kept.
        """
        key = self._delta_key(index)

        def built(number: float) -> tuple[torch.Tensor]:
            return (torch.from_numpy(np.array(number)),)

        def build() -> tuple[torch.Tensor]:
            norm = self._memory.get(("norm", *key), 8, lambda: built(whole()))[0].item()
            rest = own()
            return built(norm / rest if norm >= MIN_NORM and rest >= MIN_NORM else 1.0)

        return float(self._memory.get(("scale", *key), 8, build, kept)[0].item())

    def known(self, what: str, index: int, variant: Hashable) -> torch.Tensor | None:
        """Return what was computed from a task vector and kept; None: nothing, or another variant."""
        found = self._memory.find((what, *self._delta_key(index)), variant)
        return None if found is None else found[0]

    def keep(self, what: str, index: int, found: torch.Tensor, variant: Hashable) -> torch.Tensor:
        """Keep what was computed from a task vector, in place of another variant of it; return it."""
        place = (what, *self._delta_key(index))
        return self._memory.get(place, found.nbytes, lambda: (found,), variant)[0]

    def _weights_by_input(self) -> dict[int, Weight]:
        found: dict[int, Weight] = {
            index: float(values["weight"])
            for index, values in enumerate(self.own)
            if "weight" in values
        }
        added = {index: rows for index, rows in enumerate(self.added) if rows is not None}
        if added:
            checkpoint, name, _ = self._sources[0]
            dimensions = len(checkpoint.tensors[name].shape)
            shape = (-1, *[1] * (dimensions - 1)) if dimensions else ()
            table = torch.from_numpy(np.stack(list(added.values()))).to(self.dtype)
            own = torch.tensor([[found[index]] for index in added], dtype=self.dtype)
            weights, differs = (own + table).to(self.device), table.any(1).tolist()
            for index, row in zip(compress(added, differs), weights[differs], strict=True):
                found[index] = row.view(shape)
        return found

    def _order(
        self, index: int, flat: torch.Tensor, by: Hashable
    ) -> tuple[torch.Tensor, ...] | None:
        """Return the order of magnitudes from the second count on: for a single one it does not pay."""
        place = ("order", by, *self._delta_key(index))
        nbytes = flat.numel() * (flat.dtype.itemsize + 4)
        is_first = self._memory.variant(self._largest_place(index, by)) is None
        fits = self._memory.has(place) or self._memory.has_room(nbytes, derived=True)
        if is_first or not fits:
            return None
        return self._memory.get(place, nbytes, lambda: magnitude_order(flat), derived=True)

    def is_base(self, index: int) -> bool:
        """Tell whether an input is the base's own tensor, which its adapter does not change."""
        return self.base is not None and self._key(index) == self._key(self.base)

    def _largest_place(self, index: int, by: Hashable) -> tuple[Hashable, ...]:
        return ("largest", by, *self._delta_key(index))

    def _delta_key(self, index: int) -> tuple[Hashable, ...]:
        assert self.base is not None
        return (*self._key(index), *self._key(self.base), self.dtype)
