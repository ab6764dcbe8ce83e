"""A scrambled Sobol sequence: trial n gets the n-th point.

Optuna's own sampler draws the first trial elsewhere and counts its points in the study; here a point is
a function of (seed, number), so that a resumed study goes on with the next one.
"""

from __future__ import annotations

import scipy  # its parts are imported where they are first used

from evomerge.search.samplers.sampler import Problem, Sampler
from evomerge.search.samplers.unit_cube import UnitCube


class SobolSampler(Sampler):
    """Quasi-random points."""

    learns = False

    def __init__(self, problem: Problem) -> None:
        self._cube = UnitCube(problem.distributions)
        self._sequence = scipy.stats.qmc.Sobol(len(self._cube), scramble=True, rng=problem.seed)

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Return the point of this number."""
        if self._sequence.num_generated > number:
            self._sequence.reset()
        if self._sequence.num_generated < number:
            self._sequence.fast_forward(number - self._sequence.num_generated)
        return self._cube.from_unit(self._sequence.random(1)[0])
