"""Points of a space ↔ points of the unit cube, on which samplers of our own work."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution

Vector = NDArray[np.float64]


def to_unit(params: Mapping[str, float], distributions: Mapping[str, FloatDistribution]) -> Vector:
    """Map a point into the unit cube: linearly, or by its logarithm where the range is logarithmic.

    Args:
        params: A value for each distribution.
        distributions: Name → range.

    Returns:
        Coordinates in [0, 1], shape [dimensions], in the order of `distributions`.
    """
    return np.array(
        [_share(params[name], distribution) for name, distribution in distributions.items()],
        dtype=np.float64,
    ).clip(0.0, 1.0)


def from_unit(point: Vector, distributions: Mapping[str, FloatDistribution]) -> dict[str, float]:
    """Map a point of the unit cube, shape [dimensions], to a value for each distribution."""
    return {
        name: _value(float(share), distribution)
        for share, (name, distribution) in zip(point, distributions.items(), strict=True)
    }


def _share(value: float, distribution: FloatDistribution) -> float:
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _value(share: float, distribution: FloatDistribution) -> float:
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        value = low + share * (high - low)
    return min(max(value, low), high)  # rounding may step over an end
