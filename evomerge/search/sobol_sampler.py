"""A scrambled Sobol sequence: trial n gets the n-th point.

Optuna's own sampler draws the first trial elsewhere and counts its points in the study; here a point is
a function of (seed, number), so that a resumed study goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Mapping

import scipy  # its parts are imported where they are first used
from optuna.distributions import FloatDistribution

from evomerge.search.sampler import Params, Result
from evomerge.search.unit_cube import UnitCube


class SobolSampler:
    """Quasi-random points.

    Args:
        distributions: The whole space; at least one dimension.
        seed: Scrambles the sequence.
    """

    def __init__(self, distributions: Mapping[str, FloatDistribution], seed: int) -> None:
        self._cube = UnitCube(distributions)
        self._sequence = scipy.stats.qmc.Sobol(len(self._cube), scramble=True, rng=seed)

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Return the point of this number."""
        if self._sequence.num_generated > number:
            self._sequence.reset()
        if self._sequence.num_generated < number:
            self._sequence.fast_forward(number - self._sequence.num_generated)
        return self._cube.from_unit(self._sequence.random(1)[0])

    def asked(self, number: int, params: Params) -> None:
        """Do nothing: the numbers are all that matters."""

    def told(self, number: int, params: Params, result: Result | None) -> None:
        """Do nothing."""

    def known(self, params: Params, result: Result) -> None:
        """Do nothing."""
