"""Weighted average of models (model soups, arXiv 2203.05482), as mergekit 0.1.5 computes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from evomerge.errors import MergeError
from evomerge.merge.methods.effect import Effect, as_written, summed
from evomerge.merge.methods.method import Group, Method, NumberGradients, ParameterSpec, Values
from evomerge.merge.methods.reductions import inner


def linear(group: Group) -> torch.Tensor:
    """Return Σ w θ, divided by Σ w where `normalize`; the base is an ordinary input.

    Raises:
        MergeError: The weights sum to 0 and are to be normalised.
    """
    weights = [float(values["weight"]) for values in group.own]
    total = group.tensor(0) * weights[0]
    product = torch.empty_like(total)
    for index, weight in enumerate(weights[1:], start=1):
        total.add_(torch.mul(group.tensor(index), weight, out=product))
    if not group.shared["normalize"]:
        return total
    divisor = sum(weights)
    if divisor == 0:
        raise MergeError(
            f"{group.name}: the weights {weights} sum to 0 and cannot be normalised; change one, or set "
            "normalize: false"
        )
    return total.div_(divisor)


def gradients(group: Group, gradient: torch.Tensor) -> NumberGradients:
    """Return ⟨g, θ_i⟩ by the weight of model i; where `normalize`, (⟨g, θ_i⟩ - ⟨g, merged⟩) / Σ w."""
    weights = [float(values["weight"]) for values in group.own]
    along = [inner(gradient, group.tensor(index)) for index in range(len(weights))]
    if group.shared["normalize"]:
        total = sum(weights)
        merged = sum(w * a for w, a in zip(weights, along, strict=True)) / total
        along = [(each - merged) / total for each in along]
    return NumberGradients({"weight": tuple(along)})


def effect(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return the factors; weights that are normalised count relative to each other."""
    weights = [float(values["weight"]) for values in own]
    divisor = sum(weights) if shared["normalize"] else 1.0
    if divisor == 0:
        return as_written(shared, own, base)
    return summed({index: weight / divisor for index, weight in enumerate(weights)})


LINEAR = Method(
    name="linear",
    merge=linear,
    gradients=gradients,
    effect=effect,
    parameters={
        "weight": ParameterSpec(
            "number",
            "share of this model, the base included, in the average",
            required=True,
            per_source=True,
            differentiable=True,
        ),
        "normalize": ParameterSpec("boolean", "divide by the sum of the weights", default=True),
    },
)
