"""Adam on the coefficients of single tensors and rows, along one descent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from safetensors.numpy import load, save

from evomerge.candidate import Coefficients
from evomerge.candidate.tables import Array

MEAN_DECAY, SQUARE_DECAY = 0.9, 0.999  # Adam's own
TINY = 1e-12

STEPS = {"tensor": 0.5, "row": 0.2}
"""Length of a step of each finer scale, as a share of a group's: few items move the coarse ones, many the
fine ones."""


@dataclass
class FineScales:
    """What tensors and rows add to the weights, and Adam's moments of it.

    Attributes:
        scales: `tensor`, `row` or both; none: there is nothing.
        tables: Scale → tensor → value, mean and square of the gradient, float32 `[3, experts, rows]`
            (of `tensor` one row). Empty before the first gradient.
    """

    scales: Sequence[str] = ()
    tables: dict[str, dict[str, Array]] = field(default_factory=dict)

    def learn(self, rows: Mapping[str, Array], length: float, step: int) -> None:
        """Go a step down.

        Args:
            rows: Tensor → gradient by the weight of each row, float32 `[experts, rows]`.
            length: How far a group's weight moves at most.
            step: Which step of the descent it is, from 1.
        """
        for scale in self.scales:
            for name, gradient in rows.items():
                along = gradient.sum(axis=1, keepdims=True) if scale == "tensor" else gradient
                known = self.tables.setdefault(scale, {})
                if name not in known:
                    known[name] = np.zeros((3, *along.shape), dtype=np.float32)
                value, mean, square = known[name]
                mean += (1 - MEAN_DECAY) * (along - mean)
                square += (1 - SQUARE_DECAY) * (along**2 - square)
                corrected = np.sqrt(square / (1 - SQUARE_DECAY**step)) + TINY
                value -= STEPS[scale] * length * (mean / (1 - MEAN_DECAY**step)) / corrected

    @property
    def coefficients(self) -> Coefficients | None:
        """What is added to the weights; None before the first step."""
        parts = [
            {name: table[0] for name, table in tables.items()} for tables in self.tables.values()
        ]
        if not parts:
            return None
        first, *rest = parts
        total = {name: sum((one[name] for one in rest), first[name].copy()) for name in first}
        return Coefficients(total)

    @property
    def state(self) -> bytes:
        """Everything, so that `restore` makes the same object elsewhere."""
        return bytes(save(dict(self._flat())))

    def restore(self, state: bytes) -> None:
        """Become what had this `state`."""
        self.tables = {}
        for key, table in load(state).items():
            scale, _, name = key.partition("/")
            self.tables.setdefault(scale, {})[name] = table

    def _flat(self) -> Iterator[tuple[str, Array]]:
        for scale, tables in self.tables.items():
            for name, table in tables.items():
                yield f"{scale}/{name}", table
