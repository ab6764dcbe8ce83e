"""One model's tensors as they are: for stacking layers of several models."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from evomerge.merge.methods.effect import Effect, summed
from evomerge.merge.methods.method import Group, Method, NumberGradients, ParameterSpec, Values
from evomerge.merge.methods.reductions import inner


def passthrough(group: Group) -> torch.Tensor:
    """Return the only input, times `scale` where one is given."""
    scale = group.own[0].get("scale")
    return group.tensor(0) if scale is None else group.tensor(0) * float(scale)


def gradients(group: Group, gradient: torch.Tensor) -> NumberGradients:
    """Return ⟨g, θ⟩ by `scale`, where one is given."""
    if "scale" not in group.own[0]:
        return NumberGradients()
    return NumberGradients({"scale": (inner(gradient, group.tensor(0)),)})


def effect(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return the one factor."""
    return summed({0: float(own[0].get("scale", 1.0))})


PASSTHROUGH = Method(
    name="passthrough",
    merge=passthrough,
    gradients=gradients,
    effect=effect,
    parameters={
        "scale": ParameterSpec(
            "number", "factor of the tensor; none leaves it", per_source=True, differentiable=True
        ),
    },
    max_models=1,
)
