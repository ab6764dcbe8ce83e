"""Random search: trial n gets a point that depends on nothing but (seed, n)."""

from __future__ import annotations

import numpy as np

from evomerge.search.samplers.sampler import Problem, Sampler, seed_of
from evomerge.search.samplers.unit_cube import UnitCube


class RandomSampler(Sampler):
    """Points drawn uniformly (by their logarithm where a range is logarithmic), as Optuna's sampler does."""

    learns = False

    def __init__(self, problem: Problem) -> None:
        self._cube, self._seed = UnitCube(problem.distributions), problem.seed

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Draw a point."""
        rng = np.random.default_rng(seed_of(self._seed, number, attempt))
        return self._cube.from_unit(rng.random(len(self._cube)))
