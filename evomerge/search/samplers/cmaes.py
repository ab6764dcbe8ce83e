"""CMA-ES that starts at the best point known and loses no solution.

Optuna's own sampler drops results that come after their generation closed (optuna issue 2574), keeps
its state as a pickle in the study, and cannot start at a point that was evaluated already. Here every
result counts: the next update takes the first λ results that have come, whichever worker asked for them and
when. A late one is a sample of an earlier distribution, as if injected (Hansen 2011, 1110.4181).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import ThreadpoolController

from evomerge.search.samplers.sampler import Measurement, Params, Problem, Sampler, seed_of
from evomerge.search.samplers.unit_cube import UnitCube, Vector

if TYPE_CHECKING:
    from cmaes import CMA, SepCMA

SIGMA = 0.075
"""First step size, as a share of each range; twice as much found less on the zoo in 30 trials."""


class CmaEsSampler(Sampler):
    """CMA-ES on the unit cube.

    Args:
        problem: Its budget decides whether a full covariance can be learned.
        sigma: First step size, as a share of each range.
    """

    several_objectives = False

    def __init__(self, problem: Problem, sigma: float = SIGMA) -> None:
        self._cube = UnitCube(problem.distributions)
        self._start = np.full(len(self._cube), 0.5)
        if problem.start is not None:
            self._start = self._cube.to_unit(problem.start)
        self._separable = is_separable(len(self._cube), problem.trials)
        self._threads = ThreadpoolController()
        self._seed, self._sigma = problem.seed, sigma
        self._optimizer: CMA | SepCMA | None = None
        self._told: list[tuple[Vector, float]] = []
        self._best: tuple[float, Vector] | None = None

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Draw x ~ N(m, σ²C), each coordinate that left its range put back on its end."""
        optimizer = self._started()
        optimizer.reseed_rng(seed_of(self._seed, number, attempt))
        return self._cube.from_unit(optimizer.ask())

    def asked(self, number: int, params: Params) -> None:
        """Begin with the first trial: at the best point known by then."""
        self._started()

    def told(self, number: int, params: Params, result: Measurement | None) -> None:
        """Take a result; with λ of them move the distribution. A failed trial tells nothing."""
        if result is None:
            return
        point = self._note(params, result)
        optimizer = self._started()
        self._told.append((point, result.loss))
        size = optimizer.population_size
        if len(self._told) >= size:
            with self._threads.limit(
                limits=1
            ):  # several only hinder each other on so small a matrix
                optimizer.tell(self._told[:size])
                done = optimizer.should_stop()
            del self._told[:size]
            if done:
                self._optimizer = self._new()

    def known(self, params: Params, result: Measurement) -> None:
        """Remember the point if it is the best."""
        self._note(params, result)

    def restart(self) -> None:
        """Begin again at the best point known, with the first step size."""
        self._optimizer, self._told = None, []

    def _note(self, params: Params, result: Measurement) -> Vector:
        point = self._cube.to_unit(params)
        if self._best is None or result.loss < self._best[0]:
            self._best = (result.loss, point)
        return point

    def _started(self) -> CMA | SepCMA:
        if self._optimizer is None:
            self._optimizer = self._new()
        return self._optimizer

    def _new(self) -> CMA | SepCMA:
        from cmaes import CMA, SepCMA  # with SciPy's statistics, which take a second

        dimensions = len(self._cube)
        mean = self._start if self._best is None else self._best[1]
        # In many dimensions nearly every draw leaves the cube somewhere: drawing again would never end
        # well and would pull the distribution inwards, so the draw is put back on the border at once.
        settings = {
            "mean": mean.copy(),
            "sigma": self._sigma,
            "bounds": np.tile([0.0, 1.0], (dimensions, 1)),
            "n_max_resampling": 0,
            "seed": 0,  # every draw is seeded again
            "population_size": population_size(dimensions),
        }
        return SepCMA(**settings) if self._separable else CMA(**settings, cov=None, lr_adapt=False)


def population_size(dimensions: int) -> int:
    """Return λ = 4 + ⌊3 ln n⌋ (Hansen 2016, 1604.00772, eq. 48)."""
    return 4 + math.floor(3 * math.log(dimensions))


def is_separable(dimensions: int, trials: int) -> bool:
    """Return whether to learn variances only, which is the faster for the first 100 √n evaluations.

    Ros and Hansen 2008, "A simple modification in CMA-ES achieving linear time and space complexity".
    """
    return dimensions > 1 and trials < 100 * math.sqrt(dimensions)
