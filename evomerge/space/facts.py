"""What a space must know of the models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.candidate import Vocabulary

WEIGHT = "weight"
"""The parameter that leaves a model out at 0."""


@dataclass(frozen=True)
class Family:
    """The models, as recipes name them.

    Attributes:
        base: A folder or a Hub id.
        experts: Name → folder, Hub id, or `MODEL+ADAPTER`.
        num_layers: Layers of each.
        dtype: Of the merged weights.
        vocabulary: Whose tokens the merged models have; None: they all have the same.
    """

    base: str
    experts: Mapping[str, str]
    num_layers: int
    dtype: str
    vocabulary: Vocabulary | None = None
