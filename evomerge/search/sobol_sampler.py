"""A scrambled Sobol sequence as an Optuna sampler: trial n gets the n-th point.

Optuna's own draws the first trial elsewhere and counts its points in the study; here a point is a
function of (seed, number), so that a resumed study goes on with the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from scipy.stats.qmc import Sobol

from evomerge.search.unit_cube import from_unit


class SobolSampler(BaseSampler):  # type: ignore[misc] # optuna is not checked
    """Quasi-random points.

    Args:
        distributions: The whole space; at least one dimension.
        seed: Scrambles the sequence; the same for all trials of a study.
        number: Which point comes next, from 0.
    """

    def __init__(
        self, distributions: Mapping[str, FloatDistribution], seed: int, number: int
    ) -> None:
        self._distributions, self._seed, self._number = dict(distributions), seed, number

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole space: every parameter is present in every trial."""
        return dict(self._distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the point of this number."""
        sequence = Sobol(len(self._distributions), scramble=True, rng=self._seed)
        if self._number:
            sequence.fast_forward(self._number)
        return from_unit(sequence.random(1)[0], self._distributions)

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
