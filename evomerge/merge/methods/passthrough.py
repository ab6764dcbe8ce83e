"""One model's tensors as they are: for stacking layers of several models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.merge.methods.method import (
    Effect,
    Inputs,
    Method,
    NumberGradients,
    Parameter,
    Values,
    summed,
)

if TYPE_CHECKING:
    import torch


def passthrough(inputs: Inputs) -> torch.Tensor:
    """Return the only input, times `scale` where one is given."""
    scale = inputs.own[0].get("scale")
    return inputs.tensor(0) if scale is None else inputs.tensor(0) * float(scale)


def gradients(inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    """Return ⟨g, θ⟩ by `scale`, where one is given."""
    from evomerge.merge.methods.tensors import inner

    if "scale" not in inputs.own[0]:
        return NumberGradients()
    return NumberGradients({"scale": (inner(gradient, inputs.tensor(0)),)})


def effect(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return the one factor."""
    return summed({0: float(own[0].get("scale", 1.0))})


PASSTHROUGH = Method(
    name="passthrough",
    merge=passthrough,
    gradients=gradients,
    effect=effect,
    parameters={
        "scale": Parameter(
            "number", "factor of the tensor; none leaves it", per_source=True, differentiable=True
        ),
    },
    max_models=1,
)
