"""The descents of `gradient` for any Optuna study: `optuna.create_study(sampler=GradientSampler(...))`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from evomerge.search.samplers.gradient import DescentSampler
from evomerge.search.samplers.sampler import Measurement, Params, Problem, seed_of

Gradient = Callable[[Params, int], Mapping[str, float]]
"""(point, seed of a mini-batch) → gradient of the loss by each dimension; left out: it has none."""

_FIXED = "fixed_params"  # Optuna's mark of a trial that was enqueued


class GradientSampler(BaseSampler):  # type: ignore[misc] # optuna is not checked
    """Adam along the gradient of a loss, a trial at each checkpoint, then CMA-ES around the best.

    Between two trials of a path lie several steps, each of which takes one gradient. Trials that the study
    already has, or that were enqueued, are noted too: paths begin at the best point known.

    Args:
        distributions: The whole space; `suggest_float` of a trial must name these ranges.
        gradient: The gradient of a loss that falls as the study's objective gets better; it may be noisy,
            such as that of a mini-batch. Where it is none (a number is not finite) the path ends.
        seed: Of the random numbers, and of the mini-batches.
        trials: The budget, which decides how many paths are followed and how CMA-ES learns.
    """

    def __init__(
        self,
        distributions: Mapping[str, FloatDistribution],
        gradient: Gradient,
        seed: int = 0,
        *,
        trials: int = 200,
    ) -> None:
        self._distributions, self._gradient, self._seed = dict(distributions), gradient, seed
        # No tasks: which items a seed means is the caller's business.
        names = tuple(self._distributions)
        problem = Problem(self._distributions, ("maximize",), trials, seed, names)
        self._sampler = DescentSampler(problem)
        self._asked: dict[int, Params] = {}
        self._began = False
        self._lock = threading.Lock()  # `optimize` with n_jobs calls from several threads

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Take, once, the trials that the study had before.

        Raises:
            ValueError: The study has several objectives.
        """
        if len(study.directions) > 1:
            raise ValueError(f"expected a study of one objective, found {len(study.directions)}")
        with self._lock:
            if self._began:
                return
            self._began = True
            for old in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
                self._know(study, old, old.values)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole space; nothing of a trial that was enqueued."""
        return {} if _FIXED in trial.system_attrs else dict(self._distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Take steps until a point is due, and return it."""
        if not search_space:
            return {}
        with self._lock:
            while (step := self._sampler.next_step()) is not None:
                self._sampler.step_asked(step)
                seed = seed_of(self._seed, step.descent, step.number)
                self._sampler.step_told(step.descent, self._gradient(step.params, seed))
            params = self._sampler.propose(trial.number)
            self._sampler.asked(trial.number, params)
            self._asked[trial.number] = params
        return dict(params)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:  # noqa: ANN401 - as the base class has it
        """Return what an enqueued trial leaves open, as a point that is due has it.

        Raises:
            ValueError: The space does not have the dimension, or has another range for it.
        """
        if self._distributions.get(param_name) == param_distribution:
            with self._lock:
                return self._sampler.propose(trial.number)[param_name]
        raise ValueError(
            f"{param_name} in {param_distribution} is not in the space of this sampler; expected one of "
            f"{', '.join(self._distributions)}, in its range"
        )

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Take the result of a trial; a pruned or failed one tells nothing."""
        with self._lock:
            result = _result(study, values) if state == TrialState.COMPLETE and values else None
            params = self._asked.pop(trial.number, None)
            if params is not None:
                self._sampler.told(trial.number, params, result)
            elif state == TrialState.COMPLETE and values:
                self._know(study, trial, values)

    def _know(self, study: Study, trial: FrozenTrial, values: Sequence[float]) -> None:
        if self._distributions.keys() <= trial.params.keys():
            self._sampler.known(trial.params, _result(study, values))


def _result(study: Study, values: Sequence[float]) -> Measurement:
    sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
    return Measurement(tuple(values), sign * values[0])
