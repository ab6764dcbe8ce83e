"""Weighted average of models (model soups, arXiv 2203.05482), as mergekit 0.1.5 computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.errors import MergeError
from evomerge.merge.methods.method import (
    Effect,
    Inputs,
    Method,
    NumberGradients,
    Parameter,
    Sum,
    Term,
    Values,
    as_written,
    summed,
)

if TYPE_CHECKING:
    import torch


def linear(inputs: Inputs) -> torch.Tensor:
    """Return Σ w θ, divided by Σ w where `normalize`; the base is an ordinary input.

    Raises:
        MergeError: The weights sum to 0 and are to be normalised.
    """
    from evomerge.merge.methods.low_rank import sum_of_inputs
    from evomerge.merge.methods.tensors import divided

    places = range(len(inputs.models))
    weights = [inputs.weight(index) for index in places]
    divisor = _divisor(inputs, weights)
    total = sum_of_inputs(inputs, places, weights)
    return total if isinstance(divisor, float) and divisor == 1 else divided(total, divisor)


def total(inputs: Inputs) -> Sum | None:
    """Return the same as a sum; raises as `linear` does."""
    weights = [inputs.weight(index) for index in range(len(inputs.models))]
    whole = [weight for weight in weights if isinstance(weight, float)]
    divisor = _divisor(inputs, weights)
    if len(whole) < len(weights) or not isinstance(divisor, float):
        return None
    return Sum(tuple(map(Term, range(len(whole)), whole)), base=None, divisor=divisor)


def _divisor(inputs: Inputs, weights: Sequence[float | torch.Tensor]) -> float | torch.Tensor:
    divisor = sum(weights) if inputs.shared["normalize"] else 1.0
    if not _all(divisor):
        found = weights if isinstance(divisor, float) else "of a row"
        raise MergeError(
            f"{inputs.name}: the weights {found} sum to 0 and cannot be normalised; change one, or set "
            "normalize: false"
        )
    return divisor


def gradients(inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    """Return ⟨g, θ_i⟩ by the weight of model i; where `normalize`, (⟨g, θ_i⟩ - ⟨g, merged⟩) / Σ w."""
    from evomerge.merge.methods.low_rank import input_products
    from evomerge.merge.methods.tensors import summed_gradients, weight_gradients

    places = range(len(inputs.models))
    weights = [inputs.weight(index) for index in places]
    smallest = 0.0 if inputs.shared["normalize"] else None
    products = input_products(inputs, places, gradient)
    found, _ = summed_gradients(products, weights, smallest)
    own, rows = weight_gradients(inputs, places, found)
    return NumberGradients({"weight": own}, rows=rows)


def effect(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return the factors; weights that are normalised count relative to each other."""
    weights = _weights(own)
    divisor = sum(weights) if shared["normalize"] else 1.0
    if divisor == 0:
        return as_written(shared, own, base)
    return summed({index: weight / divisor for index, weight in enumerate(weights)})


def _all(weight: float | torch.Tensor) -> bool:
    return bool(weight) if isinstance(weight, float | int) else bool(weight.all())


def _weights(own: Sequence[Values]) -> list[float]:
    return [float(values["weight"]) for values in own]


LINEAR = Method(
    name="linear",
    merge=linear,
    gradients=gradients,
    total=total,
    one_pass_bytes=0,
    effect=effect,
    rows=True,
    parameters={
        "weight": Parameter(
            "number",
            "share of this model, the base included, in the average",
            required=True,
            per_source=True,
            differentiable=True,
        ),
        "normalize": Parameter("boolean", "divide by the sum of the weights", default=True),
    },
)
