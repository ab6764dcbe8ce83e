"""CMA-ES as an Optuna sampler that starts at the best baseline and loses no solution.

Optuna's own sampler drops results that come after their generation closed (optuna issue 2574), keeps
its state as a pickle in the study, and cannot start at a point that was evaluated already. Here every
result counts: the next update takes the first λ results that have come, whoever asked for them and
when. A late one is a sample of an earlier distribution, as if injected (Hansen 2011, 1110.4181).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from cmaes import CMA, SepCMA
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from evomerge.search.unit_cube import Vector, from_unit, to_unit

SIGMA = 0.15
"""First step size, as a share of each range."""


class CmaEsSampler(BaseSampler):  # type: ignore[misc] # optuna is not checked
    """CMA-ES on the unit cube; its state is a function of what was told, in order, and of the seeds.

    Args:
        distributions: The whole space; at least one dimension.
        trials: The budget, which decides whether a full covariance can be learned.
    """

    def __init__(self, distributions: Mapping[str, FloatDistribution], trials: int) -> None:
        self._distributions = dict(distributions)
        self._separable = is_separable(len(self._distributions), trials)
        self._optimizer: CMA | SepCMA | None = None
        self._told: list[tuple[Vector, float]] = []
        self._best: tuple[float, Vector] | None = None
        self._seed = 0

    def reseed(self, seed: int) -> None:
        """Set the random numbers of the next point."""
        self._seed = seed

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole space: every parameter is present in every trial."""
        return dict(self._distributions)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Begin at the best point told so far, the middle of the space if there is none."""
        if self._optimizer is None:
            for known in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
                self._note(study, known.params, known.values)
            self._start()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw x ~ N(m, σ²C), each coordinate that left its range put back on its end."""
        optimizer = self._started()
        optimizer.reseed_rng(self._seed)
        return from_unit(optimizer.ask(), self._distributions)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401 - Optuna's signature
        """Refuse what is not in the space.

        Raises:
            ValueError: Always; every parameter of the space is drawn together with the others.
        """
        raise ValueError(f'"{param_name}" is not a parameter of this space')

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Take a result; with λ of them move the distribution. A failed trial tells nothing."""
        if self._optimizer is None or state != TrialState.COMPLETE or values is None:
            return
        self._told.append(self._note(study, trial.params, values))
        size = self._optimizer.population_size
        if len(self._told) >= size:
            self._optimizer.tell(self._told[:size])
            del self._told[:size]
            if self._optimizer.should_stop():
                self._start()

    def _note(
        self, study: optuna.Study, params: Mapping[str, float], values: Sequence[float]
    ) -> tuple[Vector, float]:
        """Return a result as a point and a loss, and remember it if it is the best."""
        sign = -1.0 if study.directions[0] == StudyDirection.MAXIMIZE else 1.0
        point, loss = to_unit(params, self._distributions), sign * values[0]
        if self._best is None or loss < self._best[0]:
            self._best = (loss, point)
        return point, loss

    def _start(self) -> None:
        dimensions = len(self._distributions)
        mean = self._best[1].copy() if self._best else np.full(dimensions, 0.5)
        # In many dimensions nearly every draw leaves the cube somewhere: drawing again would never end
        # well and would pull the distribution inwards, so the draw is put back on the border at once.
        settings = {
            "mean": mean,
            "sigma": SIGMA,
            "bounds": np.tile([0.0, 1.0], (dimensions, 1)),
            "n_max_resampling": 0,
            "seed": self._seed,
            "population_size": population_size(dimensions),
        }
        self._optimizer = (
            SepCMA(**settings) if self._separable else CMA(**settings, cov=None, lr_adapt=False)
        )

    def _started(self) -> CMA | SepCMA:
        if self._optimizer is None:
            raise RuntimeError("before_trial comes before sample_relative")
        return self._optimizer


def population_size(dimensions: int) -> int:
    """Return λ = 4 + ⌊3 ln n⌋ (Hansen 2016, 1604.00772, eq. 48)."""
    return 4 + math.floor(3 * math.log(dimensions))


def is_separable(dimensions: int, trials: int) -> bool:
    """Return whether to learn variances only, which is the faster for the first 100 √n evaluations.

    Ros and Hansen 2008, "A simple modification in CMA-ES achieving linear time and space complexity".
    """
    return dimensions > 1 and trials < 100 * math.sqrt(dimensions)
