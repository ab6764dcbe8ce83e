"""The gates of a mixture of experts, and their file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evomerge.candidate.tables import Array, Tables

GATES_FILE = "gates.safetensors"
"""Beside the recipe of a mixture."""
_GATE, _SHARED_GATE, _ACCURACY = "gate.{}", "shared_gate.{}", "accuracy"


@dataclass(frozen=True, eq=False, repr=False)
class Gates(Tables):
    """What the router of each layer multiplies its input with; the temperature is divided out of it.

    Attributes:
        tables: `gate.LAYER`: float32 `[experts, hidden]`; `shared_gate.LAYER`: `[1, hidden]`, where the
            shared expert has a gate other than 0; `accuracy`: `[1, layers]`, the share of the prompts'
            tokens that each layer routes to the best expert, where it was measured.
    """

    about: ClassVar[str] = "gates"
    axes: ClassVar[str] = "[experts, hidden]"

    @classmethod
    def of(
        cls,
        gates: Mapping[int, Array],
        shared: Mapping[int, Array] | None = None,
        accuracy: Array | None = None,
    ) -> Gates:
        """Return the gates of layers, of the shared expert, and how well they route."""
        tables = {_GATE.format(layer): gate for layer, gate in gates.items()}
        tables |= {_SHARED_GATE.format(layer): gate for layer, gate in (shared or {}).items()}
        return cls(tables if accuracy is None else {**tables, _ACCURACY: accuracy})

    def layer(self, number: int) -> Array | None:
        """Return the gate of a layer, `[experts, hidden]`; None: there is none."""
        return self.tables.get(_GATE.format(number))

    def shared(self, number: int) -> Array | None:
        """Return the gate of a layer's shared expert, `[1, hidden]`; None: 0, which halves it."""
        return self.tables.get(_SHARED_GATE.format(number))

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Per layer the share of the prompts' tokens that go to the best expert; empty: not measured."""
        found = self.tables.get(_ACCURACY)
        return () if found is None else tuple(found[0].tolist())

    def without(self, expert: int) -> Gates:
        """Return the gates of the other experts, by position; how well they route is not known."""
        gate = _GATE.format("")
        return Gates(
            {
                name: np.delete(table, expert, axis=0) if name.startswith(gate) else table
                for name, table in self.tables.items()
                if name != _ACCURACY
            }
        )

    def remark(self) -> str:
        """Return how well each layer routes, as a sentence; empty: it was not measured."""
        shown = ", ".join(f"{value:.2f}" for value in self.accuracy)
        return (
            f"Share of the prompts' tokens that go to the best expert, layer by layer: {shown}."
            * bool(shown)
        )
