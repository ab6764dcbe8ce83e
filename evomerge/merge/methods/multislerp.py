"""Spherical mean of several models, or of their task vectors, as mergekit 0.1.5 computes it.

mergekit takes one step in the tangent space at the normalised weighted mean of unit vectors. Of the same
weights that step has length 0, so what is left is that mean, times the weighted mean norm. It is a
combination of the models, whose factors follow from their inner products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.errors import MergeError
from evomerge.merge.methods.method import (
    Effect,
    Inputs,
    Method,
    NumberGradients,
    Parameter,
    Values,
    as_written,
    numbers,
    rounded,
)

if TYPE_CHECKING:
    import torch

RESOLVED = (
    1e-15  # of the magnitudes that add up to a square: below, float64 does not tell it from 0
)


@dataclass(frozen=True)
class _Mean:
    """Σ factor · vector, and what its derivatives take.

    Attributes:
        weights: One a vector, normalised where that is wanted.
        norms: One a vector.
        inverses: 1 / (norm + eps).
        along: The mean of unit vectors times each of them.
        length: Of that mean; 0: there is no direction, and vectors are averaged as they are.
        norm: Weighted mean norm, times what the shortest step leaves of it.
    """

    weights: list[float]
    norms: list[float]
    inverses: list[float]
    along: list[float]
    length: float
    norm: float

    @property
    def factors(self) -> list[float]:
        """The factor of each vector."""
        if not self.length:
            return self.weights
        pairs = zip(self.weights, self.inverses, strict=True)
        return [self.norm * weight * inverse / self.length for weight, inverse in pairs]


def multislerp(inputs: Inputs) -> torch.Tensor:
    """Return the mean direction times the mean norm; the base, where there is one, is the origin.

    Two opposed vectors are averaged straight, vectors that are all 0 stay 0, and one model is as it is.

    Raises:
        MergeError: The weights sum to 0 and are to be normalised, or more than two vectors are opposed.
    """
    from evomerge.merge.methods.tensors import weighted_sum

    if len(inputs.others) == 1:
        return inputs.tensor(inputs.others[0])
    vectors = map(_vector(inputs), inputs.others)
    merged = weighted_sum(vectors, _mean(inputs).factors)
    return merged if inputs.base is None else merged.add_(inputs.tensor(inputs.base))


def gradients(inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    """Return the gradients by the weights, from ⟨g, vector⟩ and the vectors' inner products."""
    from evomerge.merge.methods.tensors import inner

    by_weight = [0.0] * len(inputs.models)
    if len(inputs.others) > 1:
        found = [inner(gradient, vector) for vector in map(_vector(inputs), inputs.others)]
        mean = _mean(inputs)
        derived = _derivatives(mean, found, math.cos(float(inputs.shared["eps"])))
        if inputs.shared["normalize_weights"]:
            total = sum(float(inputs.own[index]["weight"]) for index in inputs.others)
            middle = sum(w * d for w, d in zip(mean.weights, derived, strict=True))
            derived = [(one - middle) / total for one in derived]
        for index, one in zip(inputs.others, derived, strict=True):
            by_weight[index] = one
    return NumberGradients({"weight": tuple(by_weight)})


def effect(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return the weights, relative to each other where they are normalised."""
    weights = {i: float(values["weight"]) for i, values in enumerate(own) if i != base}
    divisor = sum(weights.values()) if shared["normalize_weights"] else 1.0
    if divisor == 0:
        return as_written(shared, own, base)
    parts = {index: (index == base, rounded(weight / divisor)) for index, weight in weights.items()}
    rule = numbers({"eps": shared["eps"]})
    return Effect(rule, parts if base is None else {base: (True, 0.0), **parts})


def _vector(inputs: Inputs) -> Callable[[int], torch.Tensor]:
    return inputs.tensor if inputs.base is None else inputs.delta


def _mean(inputs: Inputs) -> _Mean:
    from evomerge.merge.methods.tensors import gram

    weights = _weights(inputs)
    eps, places = float(inputs.shared["eps"]), range(len(weights))
    products = inputs.fixed("gram", lambda: gram(_vector(inputs), inputs.others)).tolist()
    norms = [math.sqrt(products[i][i]) for i in places]
    inverses = [1 / (norm + eps) if norm + eps else 0.0 for norm in norms]
    units = [
        [products[i][j] * inverses[i] * inverses[j] for j in places] for i in places
    ]  # their inner products
    along = [sum(weights[j] * units[i][j] for j in places) for i in places]
    square = sum(weights[i] * along[i] for i in places)
    magnitude = sum(abs(weights[i] * weights[j] * units[i][j]) for i in places for j in places)
    length = math.sqrt(square) if square > max(eps**2, RESOLVED * magnitude) else 0.0
    if not length and len(weights) > 2 and any(norms):
        raise MergeError(
            f"{inputs.name}: the weighted unit vectors of {len(weights)} models cancel out, and have no "
            "mean direction; change a weight"
        )
    norm = math.cos(eps) * sum(weights[i] * norms[i] for i in places)
    return _Mean(weights, norms, inverses, along, length, norm)


def _weights(inputs: Inputs) -> list[float]:
    weights = [float(inputs.own[index]["weight"]) for index in inputs.others]
    if not inputs.shared["normalize_weights"]:
        return weights
    total = sum(weights)
    if not total:
        raise MergeError(
            f"{inputs.name}: the weights {weights} sum to 0 and cannot be normalised; change one, or set "
            "normalize_weights: false"
        )
    return [weight / total for weight in weights]


def _derivatives(mean: _Mean, found: Sequence[float], shortest: float) -> list[float]:
    """Return the gradient by each (normalised) weight.

    The result is c s M / |M| with M = Σ w u, s = Σ w n, u the unit vectors, n their norms: by w_i that is
    c n_i M / |M| + c s (u_i / |M| - M ⟨M, u_i⟩ / |M|³).

    Args:
        mean: The mean.
        found: ⟨g, vector⟩ of each.
        shortest: c, the cosine of the shortest step.
    """
    if not mean.length:
        return list(found)
    units = [one * inverse for one, inverse in zip(found, mean.inverses, strict=True)]
    by_mean = sum(weight * unit for weight, unit in zip(mean.weights, units, strict=True))
    return [
        shortest * norm * by_mean / mean.length
        + mean.norm * (unit / mean.length - by_mean * along / mean.length**3)
        for norm, unit, along in zip(mean.norms, units, mean.along, strict=True)
    ]


MULTISLERP = Method(
    name="multislerp",
    merge=multislerp,
    gradients=gradients,
    effect=effect,
    parameters={
        "weight": Parameter(
            "number",
            "share of this model in the mean; 0 leaves it out",
            required=True,
            per_source=True,
            differentiable=True,
        ),
        "normalize_weights": Parameter("boolean", "divide the weights by their sum", default=True),
        "eps": Parameter(
            "number",
            "is added to norms; a mean direction shorter than this is none; leave it",
            default=1e-8,
            low=0.0,
        ),
    },
    uses_base=True,
    reads_deltas=True,
)
