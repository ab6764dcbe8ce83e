"""Random search: trial n gets a point that depends on nothing but (seed, n)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge.search.sampler import Params, Result, seed_of
from evomerge.search.unit_cube import UnitCube


class RandomSampler:
    """Points drawn uniformly (by their logarithm where a range is logarithmic), as Optuna's sampler does.

    Args:
        distributions: The whole space.
        seed: Of the random numbers.
    """

    def __init__(self, distributions: Mapping[str, FloatDistribution], seed: int) -> None:
        self._cube, self._seed = UnitCube(distributions), seed

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Draw a point."""
        rng = np.random.default_rng(seed_of(self._seed, number, attempt))
        return self._cube.from_unit(rng.random(len(self._cube)))

    def asked(self, number: int, params: Params) -> None:
        """Do nothing: the numbers are all that matters."""

    def told(self, number: int, params: Params, result: Result | None) -> None:
        """Do nothing."""

    def known(self, params: Params, result: Result) -> None:
        """Do nothing."""
