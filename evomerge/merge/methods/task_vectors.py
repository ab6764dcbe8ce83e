"""Task vectors that are read more than once: held where they are small, else computed at each reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HELD = 2**29
"""Numbers of one tensor's task vectors that are held while signs are elected; of larger tensors each task
vector is computed twice instead."""


class TaskVectors:
    """An iterable of task vectors, in the order of `indices`.

    Args:
        indices: Whose.
        build: Index → task vector.
    """

    def __init__(self, indices: Sequence[int], build: Callable[[int], torch.Tensor]) -> None:
        self._indices, self._build = indices, build
        self._held: dict[int, torch.Tensor] = {}

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield one task vector after the other, and keep none that is not held."""
        return map(self._get, self._indices)

    def _get(self, index: int) -> torch.Tensor:
        if index in self._held:
            return self._held[index]
        delta = self._build(index)
        if delta.numel() * len(self._indices) <= HELD:
            self._held[index] = delta
        return delta
