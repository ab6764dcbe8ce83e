"""Inputs of a merge as they are stored: read once, kept in one form each, as long as there is room.

On a CPU an input is a view of its file, which takes no memory of the process, and what is kept is its task
vector. What an adapter makes of the base is kept as it is, and on any other device an input as it is stored;
its task vector is computed when it is needed. No input is kept in both forms.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch

from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.memory import Memory
from evomerge.merge.methods.low_rank import Factors
from evomerge.merge.staging import to_device

Source = tuple[Checkpoint, str, int]
"""Checkpoint, its tensor's name, and the model's position, which keys its masks."""


class StoredInputs:
    """Tensors of several models that make one.

    Attributes:
        common: Key of what inputs of low rank are made of: the base's, or the one that all have; None: none.

    Args:
        sources: One an input.
        base: Which of them task vectors are relative to; None: none.
        memory: What is kept from one merge to the next.
        device: Where the maths is done.
        dtype: Of the maths: float32 or float64.
    """

    def __init__(
        self,
        sources: tuple[Source, ...],
        *,
        base: int | None,
        memory: Memory,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        header = sources[0][0].tensors[sources[0][1]]
        self.shape, self.numel = header.shape, header.numel
        self.models = tuple(checkpoint.name for checkpoint, _, _ in sources)
        self.base, self.device, self.dtype = base, device, dtype
        self._sources, self._memory = sources, memory
        self._copied: dict[int, torch.Tensor] = {}
        self._lent: set[int] = set()
        self._keys: dict[int, tuple[Hashable, ...]] = {}
        keys = [checkpoint.origin_key(name) for checkpoint, name, _ in sources]
        self.common = self._common(keys)
        self._has_common = [key is not None and key == self.common for key in keys]

    def lends(self, tensor: torch.Tensor) -> bool:
        """Tell whether a tensor shares memory with an input or task vector that a method was given."""
        return tensor.untyped_storage().data_ptr() in self._lent

    def tensor(self, index: int) -> torch.Tensor:
        """Return an input in the dtype of the maths."""
        return self._lend(self.stored(index)).to(self.dtype)

    def stays(self, index: int) -> bool:
        """Tell whether an input is a view of a file, or is kept as it is stored once it has been computed."""
        checkpoint, name, _ = self._sources[index]
        if checkpoint.is_mapped(name):
            return True
        nbytes = self.numel * checkpoint.tensors[name].dtype.itemsize
        form = self._memory.variant(("input", *self._key(index)))
        return form == "stored" or (form is None and self._memory.has_room(nbytes))

    def is_kept(self, index: int) -> bool:
        """Tell whether an input stays as it is stored from one merge to the next."""
        return self._memory.variant(("input", *self._key(index))) == "stored"

    def stored(self, index: int) -> torch.Tensor:
        """Return an input as it is stored, on the device of the maths."""
        checkpoint, name, _ = self._sources[index]
        if self.device.type == "cpu":
            if checkpoint.is_mapped(name):
                # A view: its bytes are in the page cache, for all processes.
                key = ("view", *self._key(index))
                return self._memory.get(key, 0, lambda: (self._read(index),))[0]
            return self._only_form(index, "stored", lambda: (self._read(index),))
        if index not in self._copied:
            # What does not stay on the device is copied there once a merge.
            self._copied[index] = self._only_form(
                index, "stored", lambda: (to_device(self._read(index), self.device),)
            )
        return self._copied[index]

    def _only_form(
        self, index: int, form: Hashable, build: Callable[[], tuple[torch.Tensor]]
    ) -> torch.Tensor:
        """Keep an input in this form, unless it is kept in another one."""
        place = ("input", *self._key(index))
        if self._memory.variant(place) not in (None, form):
            return build()[0]
        checkpoint, name, _ = self._sources[index]
        dtype = checkpoint.tensors[name].dtype if form == "stored" else self.dtype
        return self._memory.get(place, self.numel * dtype.itemsize, build, form)[0]

    def _read(self, index: int) -> torch.Tensor:
        checkpoint, name, _ = self._sources[index]
        return checkpoint.tensor(name)

    def _key(self, index: int) -> tuple[Hashable, ...]:
        if index not in self._keys:
            checkpoint, name, _ = self._sources[index]
            self._keys[index] = checkpoint.key(name)
        return self._keys[index]

    def low_rank(self, index: int) -> Factors | None:
        """Return what makes an input of `origin`, as factors; None: it is not of low rank."""
        if not self._has_common[index]:
            return None
        checkpoint, name, _ = self._sources[index]
        rows, columns = (*checkpoint.tensors[name].shape, 1, 1)[:2]
        nothing = Factors(torch.empty(rows, 0), torch.empty(0, columns))
        return checkpoint.updates.get(name, nothing)

    def origin(self) -> torch.Tensor:
        """Return the base, or the tensor that all inputs of low rank are made of."""
        if self.base is not None:
            return self.tensor(self.base)
        assert self.common is not None  # inputs of low rank have it in common
        checkpoint, name, _ = self._sources[0]
        found = checkpoint.origin(name)
        if self.device.type != "cpu":
            place, held = ("input", *self.common), found
            (found,) = self._memory.get(
                place, held.nbytes, lambda: (to_device(held, self.device),), "stored"
            )
        return self._lend(found).to(self.dtype)

    def _common(self, keys: Sequence[tuple[Hashable, ...] | None]) -> tuple[Hashable, ...] | None:
        if self.base is None:
            return keys[0] if len(set(keys)) == 1 else None
        checkpoint, name, _ = self._sources[self.base]
        return keys[self.base] if checkpoint.is_mapped(name) else None

    def _lend(self, kept: torch.Tensor) -> torch.Tensor:
        self._lent.add(kept.untyped_storage().data_ptr())
        return kept
