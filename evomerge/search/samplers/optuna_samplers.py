"""Optuna's samplers, every argument stated, every random number one of (seed, trial number).

They work on an Optuna study in memory (Optuna's database storage takes up to seconds a trial). A sampler
is rebuilt for each trial, so that none has a state beside what the study in memory tells it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.samplers.nsgaii import UniformCrossover
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge.search.samplers.sampler import Measurement, Params, Problem, Sampler, seed_of

RANDOM_TRIALS = 10
"""Drawn at random by `tpe` and `gp` before they trust a model of the baselines and these."""

FEWEST_RANDOM = 3
"""Drawn at least where several samplers share the trials."""

CONSTRAINT = "constraints:"
"""Of the system attributes from which Optuna 5 reads a trial's constraints; met where at most 0."""

BASELINE_ATTRS = {"NSGAIISampler:generation": 0}
"""Optuna's mark of a trial of the first generation: the baselines take part in the evolution."""


class _WholeSpace(BaseSampler):  # type: ignore[misc]
    """Every trial has every dimension: Optuna need not look through all trials for those in common."""

    space: Mapping[str, BaseDistribution]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole space, in the order in which Optuna has what it finds."""
        return dict(sorted(self.space.items()))


_TPE: Callable[..., _WholeSpace]
_NSGA2: Callable[..., _WholeSpace]
_GP: Callable[..., _WholeSpace]
_TPE, _NSGA2, _GP = (
    type(kind.__name__, (_WholeSpace, kind), {})  # Optuna marks generations by the class's name
    for kind in (TPESampler, NSGAIISampler, GPSampler)
)


class OptunaSampler(Sampler, ABC):
    """One of Optuna's samplers.

    Attributes:
        kept: Finished trials that a sampler learns from whose cost grows with every trial: half of them the
            best so far, the others the latest. Up to a quarter more come together before some are forgotten.
    """

    kept: ClassVar[int | None] = None

    def __init__(self, problem: Problem) -> None:
        self._distributions = dict(problem.distributions)
        self._startup = max(FEWEST_RANDOM, RANDOM_TRIALS // problem.arms)
        self._trials, self._seed = problem.trials, problem.seed
        self._known = 0
        self._directions = list(problem.directions)
        self._study = optuna.create_study(directions=self._directions, sampler=self._build(0))
        self._numbers: dict[int, int] = {}  # ours → that of the study in memory
        self._losses: dict[int, float] = {}  # by number there, of those that did not fail

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

    def told(self, number: int, params: Params, result: Measurement | None) -> None:
        """End a trial of the study in memory."""
        mine = self._numbers[number]
        if result is None:
            self._study.tell(mine, state=TrialState.FAIL)
            return
        # `Trial.set_constraint` would do, but a replayed trial has no `Trial`, and making one draws.
        trial = self._study.get_trials(deepcopy=False)[mine]
        for name, violation in (_constraints(result) or {}).items():
            self._study._storage.set_trial_system_attr(
                trial._trial_id, CONSTRAINT + name, violation
            )
        self._study.tell(mine, list(result.values))
        self._learnt(mine, result)

    def known(self, params: Params, result: Measurement) -> None:
        """Add a finished trial to the study in memory."""
        self._known += 1
        self._study.add_trial(
            create_trial(
                params=dict(params),
                distributions=self._distributions,
                values=list(result.values),
                system_attrs=dict(BASELINE_ATTRS),  # Optuna adds the constraints to it
                constraints=_constraints(result),
            )
        )
        self._learnt(self._study.get_trials(deepcopy=False)[-1].number, result)

    def _learnt(self, number: int, result: Measurement) -> None:
        """Forget some of many finished trials: begin another study in memory with the others."""
        self._losses[number] = result.loss
        if self.kept is None or len(self._losses) <= 1.25 * self.kept:
            return
        best = sorted(self._losses, key=lambda one: (self._losses[one], one))[: self.kept // 2]
        latest = sorted(self._losses.keys() - best)[len(best) - self.kept :]
        kept, losses = {*best, *latest}, self._losses
        ours = {mine: number for number, mine in self._numbers.items()}
        trials = self._study.get_trials(deepcopy=False)
        self._study = optuna.create_study(directions=self._directions, sampler=self._build(0))
        self._numbers, self._losses = {}, {}
        for trial in trials:
            running = not trial.state.is_finished()
            if not running and trial.number not in kept:
                continue
            new = len(self._study.get_trials(deepcopy=False))
            self._study.add_trial(trial)
            if running:
                self._numbers[ours[trial.number]] = new
            else:
                self._losses[new] = losses[trial.number]

    def _build(self, number: int) -> BaseSampler:
        sampler = self._seeded(seed_of(self._seed, number))
        sampler.space = self._distributions
        return sampler

    @abstractmethod
    def _seeded(self, seed: int) -> _WholeSpace:
        """Return the sampler that draws with a seed."""


class TpeSampler(OptunaSampler):
    """Multivariate TPE; running trials count as bad ones (`constant_liar`)."""

    kept = 500

    def _seeded(self, seed: int) -> _WholeSpace:
        return _TPE(
            n_startup_trials=self._startup + self._known,
            n_ei_candidates=24,
            multivariate=True,
            group=False,
            constant_liar=True,
            constraints_func=None,
            seed=seed,
        )


class NsgaSampler(OptunaSampler):
    """NSGA-II; the budget sizes its population."""

    def _seeded(self, seed: int) -> _WholeSpace:
        return _NSGA2(
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
            seed=seed,
        )


class GpSampler(OptunaSampler):
    """A Gaussian process."""

    kept = 200

    def _seeded(self, seed: int) -> _WholeSpace:
        return _GP(
            independent_sampler=RandomSampler(seed=seed),
            n_startup_trials=self._startup + self._known,
            deterministic_objective=False,
            constraints_func=None,
            warn_independent_sampling=False,
            seed=seed,
        )


def _constraints(result: Measurement) -> dict[str, float] | None:
    """Return `create_trial`'s argument `constraints`; None where the campaign has none."""
    return {str(place): float(one) for place, one in enumerate(result.violations)} or None
