"""Samplers by name, every argument stated, every random number a function of (seed, trial number).

A sampler is built anew for each trial, so that none has a state beside what the study tells it. The
one exception, CMA-ES, has a state that depends only on what it was told, in which order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import UniformCrossover

from evomerge.campaign import Search
from evomerge.errors import CampaignError
from evomerge.search.cmaes_sampler import CmaEsSampler
from evomerge.search.sobol_sampler import SobolSampler

RANDOM_TRIALS = 10
"""Drawn at random by `tpe` and `gp` before they trust a model of the baselines and these."""

BASELINE_ATTRS = {"NSGAIISampler:generation": 0}
"""Optuna's mark of a trial of the first generation: the baselines take part in the evolution."""

Build = Callable[[int, int], BaseSampler]


class Samplers:
    """The sampler of a campaign, trial by trial.

    Args:
        settings: Name, seed and budget.
        distributions: The whole space.
        values: How many objective values a trial has.

    Raises:
        CampaignError: Nothing is searched, or the sampler cannot handle several objectives.
    """

    def __init__(
        self, settings: Search, distributions: Mapping[str, FloatDistribution], values: int
    ) -> None:
        if not distributions:
            raise CampaignError(
                "nothing is searched; give a parameter as a range, such as "
                "weight: {low: 0.0, high: 1.0}",
                field="space.parameters",
            )
        if settings.sampler == "cmaes" and values > 1:
            raise CampaignError(
                "cmaes searches for one best value, found mode: pareto; use nsga2, tpe, gp, random or "
                "qmc, or mode: mean",
                field="search.sampler",
            )
        self._settings, self._distributions = settings, distributions
        self._cmaes = CmaEsSampler(distributions, settings.trials)
        self._build: Mapping[str, Build] = {
            "cmaes": self._reseeded_cmaes,
            "tpe": self._tpe,
            "nsga2": self._nsga2,
            "gp": self._gp,
            "random": self._random,
            "qmc": self._qmc,
        }

    def at(self, number: int, baselines: int) -> BaseSampler:
        """Return the sampler for one trial.

        Args:
            number: The trial's number.
            baselines: How many points were told that no trial asked for.
        """
        return self._build[self._settings.sampler](number, baselines)

    def _reseeded_cmaes(self, number: int, _baselines: int) -> BaseSampler:
        self._cmaes.reseed(self._seed(number))
        return self._cmaes

    def _tpe(self, number: int, baselines: int) -> BaseSampler:
        return TPESampler(
            n_startup_trials=RANDOM_TRIALS + baselines,
            n_ei_candidates=24,
            multivariate=True,
            group=False,
            constant_liar=True,
            constraints_func=None,
            seed=self._seed(number),
        )

    def _nsga2(self, number: int, _baselines: int) -> BaseSampler:
        return NSGAIISampler(
            population_size=min(50, max(10, self._settings.trials // 10)),
            mutation=None,
            mutation_prob=None,  # 1 / dimensions
            crossover=UniformCrossover(swapping_prob=0.5),
            crossover_prob=0.9,
            swapping_prob=0.5,
            constraints_func=None,
            elite_population_selection_strategy=None,
            child_generation_strategy=None,
            after_trial_strategy=None,
            seed=self._seed(number),
        )

    def _gp(self, number: int, baselines: int) -> BaseSampler:
        return GPSampler(
            independent_sampler=RandomSampler(seed=self._seed(number)),
            n_startup_trials=RANDOM_TRIALS + baselines,
            deterministic_objective=False,
            constraints_func=None,
            warn_independent_sampling=False,
            seed=self._seed(number),
        )

    def _random(self, number: int, _baselines: int) -> BaseSampler:
        return RandomSampler(seed=self._seed(number))

    def _qmc(self, number: int, _baselines: int) -> BaseSampler:
        return SobolSampler(self._distributions, self._settings.seed, number)

    def _seed(self, number: int) -> int:
        sequence = np.random.SeedSequence((self._settings.seed, number))
        return int(sequence.generate_state(1)[0])
