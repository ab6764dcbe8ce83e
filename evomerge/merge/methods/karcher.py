"""Karcher mean of models on the sphere (arXiv 2603.04972), as mergekit 0.1.5 computes it.

Every step of the iteration is a combination of the models' unit vectors, so it is done on their factors, by
inner products in float64; of the tensors only one weighted sum is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.merge.methods.method import Inputs, Method, Parameter

if TYPE_CHECKING:
    import torch

OPPOSED = 1e-6  # an input this near to the mean's opposite (radians) has no direction from it
Numbers = list[float]


def karcher(inputs: Inputs) -> torch.Tensor:
    """Return the mean direction of the models times their mean norm; all weigh the same.

    Models of a norm of at most `tol` have no direction, but count in the mean norm; where all are so, the
    result is 0. One model is as it is.
    """
    from evomerge.merge.methods.tensors import gram, weighted_sum

    places = range(len(inputs.models))
    if len(places) == 1:
        return inputs.tensor(0)
    tol = float(inputs.shared["tol"])
    products = inputs.fixed("gram", lambda: gram(inputs.tensor, places)).tolist()
    norms = [math.sqrt(products[i][i]) for i in places]
    used = [i for i in places if norms[i] > tol]
    if not used:
        first = inputs.tensor(0)
        return first.new_zeros(first.shape)
    units = [[products[i][j] / (norms[i] * norms[j]) for j in used] for i in used]
    mean = mean_direction(units, int(inputs.shared["max_iter"]), tol)
    scale = sum(norms) / len(norms)
    factors = [scale * one / norms[i] for one, i in zip(mean, used, strict=True)]
    return weighted_sum(map(inputs.tensor, used), factors)


def mean_direction(units: Sequence[Numbers], max_iter: int, tol: float) -> Numbers:
    """Return the factors of unit vectors in their Karcher mean.

    Args:
        units: Inner products of each with each.
        max_iter: Steps at most.
        tol: A step shorter than this is the last; angles below it count as 0.
    """
    share = 1 / len(units)
    mean = [share] * len(units)
    length = _length(mean, units)
    first = [1.0] + [0.0] * (len(units) - 1)
    mean = first if length < tol or not length else [one / length for one in mean]
    for _ in range(max_iter):
        tangent = _tangent(mean, units, tol)
        step = _length(tangent, units)
        if step < tol or not step:
            break
        mean = [
            math.cos(step) * one + math.sin(step) * other / step
            for one, other in zip(mean, tangent, strict=True)
        ]
        length = _length(mean, units)
        if length > tol:
            mean = [one / length for one in mean]
    return mean


def _tangent(mean: Numbers, units: Sequence[Numbers], tol: float) -> Numbers:
    """Return the mean of the unit vectors' logarithms at `mean`: Σ share · θ / sin θ · (u - cos θ · mean)."""
    tangent = [0.0] * len(units)
    for i, row in enumerate(units):
        cos = max(-1.0, min(1.0, sum(one * dot for one, dot in zip(mean, row, strict=True))))
        angle = math.acos(cos)
        if angle < tol or not angle or math.pi - angle < OPPOSED:
            continue
        factor = angle / math.sin(angle) / len(units)
        tangent = [total - factor * cos * one for total, one in zip(tangent, mean, strict=True)]
        tangent[i] += factor
    return tangent


def _length(factors: Numbers, units: Sequence[Numbers]) -> float:
    """Return the norm of Σ factor · unit vector."""
    products = (
        one * sum(other * dot for other, dot in zip(factors, row, strict=True))
        for one, row in zip(factors, units, strict=True)
    )
    return math.sqrt(max(0.0, math.fsum(products)))


KARCHER = Method(
    name="karcher",
    merge=karcher,
    parameters={
        "max_iter": Parameter(
            "integer", "most steps of the iteration; a few are enough", default=10, low=0
        ),
        "tol": Parameter(
            "number",
            "a step shorter than this is the last one, and norms up to it count as 0; leave it",
            default=1e-5,
            low=0.0,
        ),
    },
)
