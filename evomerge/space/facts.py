"""What a space must know of the models and of the merge methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from evomerge.candidate import Vocabulary

WEIGHT = "weight"
"""The parameter that leaves a model out at 0."""


class ParameterFacts(Protocol):
    """What the space must know of a method's parameter."""

    @property
    def per_source(self) -> bool:
        """Whether each model has a value of its own."""

    @property
    def differentiable(self) -> bool:
        """Whether the merged weights change smoothly with it, as they do with weights and factors."""

    @property
    def default(self) -> bool | float | None:
        """Its value where none is given."""


class MethodFacts(Protocol):
    """What the space must know of a method."""

    @property
    def parameters(self) -> Mapping[str, ParameterFacts]:
        """The parameters that it takes."""

    @property
    def needs_base(self) -> bool:
        """Whether it merges task vectors, or anything else that needs the base."""

    @property
    def gradients(self) -> object | None:
        """What computes its gradients; None where it has none."""


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
