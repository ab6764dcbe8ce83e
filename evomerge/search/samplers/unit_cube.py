"""Points of a space ↔ points of the unit cube, on which samplers of our own work."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution

Vector = NDArray[np.float64]


class UnitCube:
    """The unit cube of a space; a logarithmic range is laid out by its logarithm.

    Args:
        distributions: Name → range.
    """

    def __init__(self, distributions: Mapping[str, FloatDistribution]) -> None:
        self._names = list(distributions)
        ranges = distributions.values()
        self._ends = np.array([(one.low, one.high) for one in ranges], dtype=np.float64).T
        self._log = np.array([one.log for one in ranges], dtype=np.bool_)
        self._any_log = bool(self._log.any())
        low, high = self._scaled(self._ends)
        self._low, self._span = low, high - low

    def __len__(self) -> int:
        """Return the number of dimensions."""
        return len(self._names)

    def to_unit(self, params: Mapping[str, float]) -> Vector:
        """Map a point into the unit cube.

        Args:
            params: A value for each dimension; one outside its range counts as the end of it.

        Returns:
            Coordinates in [0, 1], shape [dimensions], in the order of the distributions.
        """
        values = np.array([params[name] for name in self._names], dtype=np.float64)
        low, high = self._ends
        values.clip(low, high, out=values)
        shares: Vector = (self._scaled(values) - self._low) / self._span
        return shares

    def from_unit(self, point: Vector) -> dict[str, float]:
        """Map a point of the unit cube, shape [dimensions], to a value for each dimension."""
        values = self._low + point * self._span
        if self._any_log:
            values[self._log] = np.exp(values[self._log])
        low, high = self._ends
        values.clip(low, high, out=values)  # rounding may step over an end
        return dict(zip(self._names, values.tolist(), strict=True))

    def _scaled(self, values: Vector) -> Vector:
        if not self._any_log:
            return values
        scaled = values.copy()
        scaled[..., self._log] = np.log(values[..., self._log])
        return scaled
