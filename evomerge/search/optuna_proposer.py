"""Optuna's samplers by name, every argument stated, every random number one of (seed, trial number).

They work on an Optuna study in memory (Optuna's database storage takes up to seconds a trial). A sampler
is built anew for each trial, so that none has a state beside what the study in memory tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import UniformCrossover
from optuna.trial import TrialState, create_trial

from evomerge.search.constraints import as_constraints, set_constraints
from evomerge.search.proposer import Params, Result, seed_of
from evomerge.store import Direction

RANDOM_TRIALS = 10
"""Drawn at random by `tpe` and `gp` before they trust a model of the baselines and these."""

BASELINE_ATTRS = {"NSGAIISampler:generation": 0}
"""Optuna's mark of a trial of the first generation: the baselines take part in the evolution."""

Build = Callable[[int], BaseSampler]


class OptunaProposer:
    """One of Optuna's samplers.

    Args:
        name: `tpe`, `nsga2` or `gp`.
        distributions: The whole space.
        directions: One an objective value.
        trials: The budget, which sizes NSGA-II's population.
        seed: Of the random numbers.
    """

    def __init__(
        self,
        name: str,
        distributions: Mapping[str, FloatDistribution],
        directions: Sequence[Direction],
        trials: int,
        seed: int,
    ) -> None:
        self._distributions = dict(distributions)
        self._trials, self._seed = trials, seed
        build: Mapping[str, Build] = {
            "tpe": self._tpe,
            "nsga2": self._nsga2,
            "gp": self._gp,
        }
        self._build = build[name]
        self._known = 0
        self._study = optuna.create_study(directions=list(directions), sampler=self._build(0))
        self._numbers: dict[int, int] = {}  # ours → that of the study in memory

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Let the sampler ask; every attempt is the same."""
        if number not in self._numbers:
            self._study.sampler = self._build(number)
            trial = self._study.ask(fixed_distributions=self._distributions)
            self._numbers[number] = trial.number
        known = self._study.get_trials(deepcopy=False)[self._numbers[number]]
        return dict(known.params)

    def asked(self, number: int, params: Params) -> None:
        """Put a trial into the study in memory, with all that asking leaves behind, unless it is there."""
        if number in self._numbers:
            return
        sampler = self._build(number)
        self._study.sampler = sampler
        running = create_trial(
            state=TrialState.RUNNING, params=dict(params), distributions=self._distributions
        )
        # As `ask` does: Optuna's list of finished trials would miss those that became known since.
        self._study._thread_local.cached_all_trials = None
        sampler.before_trial(self._study, running)
        self._study.add_trial(running)
        added = self._study.get_trials(deepcopy=False)[-1]
        if isinstance(sampler, NSGAIISampler):  # it fixes the parents when a generation begins
            generation = sampler.get_trial_generation(self._study, added)
            sampler.get_parent_population(self._study, generation)
        self._numbers[number] = added.number

    def told(self, number: int, params: Params, result: Result | None) -> None:
        """End a trial of the study in memory."""
        mine = self._numbers[number]
        if result is None:
            self._study.tell(mine, state=TrialState.FAIL)
            return
        set_constraints(self._study, mine, result.violations)
        self._study.tell(mine, list(result.values))

    def known(self, params: Params, result: Result) -> None:
        """Add a finished trial to the study in memory."""
        self._known += 1
        self._study.add_trial(
            create_trial(
                params=dict(params),
                distributions=self._distributions,
                values=list(result.values),
                system_attrs=dict(BASELINE_ATTRS),  # Optuna adds the constraints to it
                constraints=as_constraints(result.violations),
            )
        )

    def _tpe(self, number: int) -> BaseSampler:
        return TPESampler(
            n_startup_trials=RANDOM_TRIALS + self._known,
            n_ei_candidates=24,
            multivariate=True,
            group=False,
            constant_liar=True,
            constraints_func=None,
            seed=seed_of(self._seed, number),
        )

    def _nsga2(self, number: int) -> BaseSampler:
        return NSGAIISampler(
            population_size=min(50, max(10, self._trials // 10)),
            mutation=None,
            mutation_prob=None,  # 1 / dimensions
            crossover=UniformCrossover(swapping_prob=0.5),
            crossover_prob=0.9,
            swapping_prob=0.5,
            constraints_func=None,
            elite_population_selection_strategy=None,
            child_generation_strategy=None,
            after_trial_strategy=None,
            seed=seed_of(self._seed, number),
        )

    def _gp(self, number: int) -> BaseSampler:
        return GPSampler(
            independent_sampler=RandomSampler(seed=seed_of(self._seed, number)),
            n_startup_trials=RANDOM_TRIALS + self._known,
            deterministic_objective=False,
            constraints_func=None,
            warn_independent_sampling=False,
            seed=seed_of(self._seed, number),
        )
