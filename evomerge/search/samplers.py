"""Samplers by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge.config import Campaign
from evomerge.errors import CampaignError
from evomerge.kinds import SearchSpace
from evomerge.objective import Direction, Objectives
from evomerge.search.bandit_sampler import BanditSampler
from evomerge.search.cmaes_sampler import SIGMA, CmaEsSampler
from evomerge.search.contributions import Contributions, contributions_of
from evomerge.search.descent_sampler import AROUND, DescentSampler
from evomerge.search.gradient_bandit import GradientBandit
from evomerge.search.optuna_sampler import RANDOM_TRIALS, OptunaSampler
from evomerge.search.random_sampler import RandomSampler
from evomerge.search.sampler import Sampler
from evomerge.search.sobol_sampler import SobolSampler

Distributions = Mapping[str, FloatDistribution]

_PATHS_TO_A_FRONT = 4
_UNIFORM = ("random", "qmc")  # which spread over methods and subsets by themselves
_FEWEST_RANDOM = 3


def open_sampler(
    campaign: Campaign,
    space: SearchSpace,
    aims: Objectives,
    counts: Mapping[str, int],
    trials: int,
) -> Sampler:
    """Set up the campaign's sampler.

    Args:
        campaign: Its `search` names the sampler and the seed.
        space: Where to search.
        aims: Of the `search` items: the directions, and what items contribute to the objective.
        counts: Task → number of its search items with a gold answer, if any; only for `gradient`.
        trials: What the sampler plans for: as it was when the campaign began, whatever was added since.

    Raises:
        CampaignError: Nothing is searched, the sampler cannot handle several objectives, or nothing has a
            gradient.
    """
    if not space.distributions:
        raise CampaignError(
            "nothing is searched; give a parameter as a range, such as "
            "weight: {low: 0.0, high: 1.0}",
            field="space.parameters",
        )
    name = campaign.search.sampler
    if name == "cmaes" and len(aims.directions) > 1:
        raise CampaignError(
            "cmaes searches for one best value, found mode: pareto; use gradient, nsga2, tpe, gp, "
            "random or qmc, or mode: mean",
            field="search.sampler",
        )
    samplers = _Samplers(campaign, aims.directions, counts, trials, contributions_of(aims))
    if name == "gradient":
        _check_gradients(space, counts)
    return samplers.over(space)


@dataclass(frozen=True)
class _Samplers:
    """Opens the campaign's sampler over a space, or over a part of one."""

    campaign: Campaign
    directions: tuple[Direction, ...]
    counts: Mapping[str, int]
    trials: int
    contributions: Contributions

    def over(self, space: SearchSpace) -> Sampler:
        """Open it over a space: where a method or a subset is chosen there, one for each choice."""
        name = self.campaign.search.sampler
        choices = space.choices
        if choices is None or name in _UNIFORM:
            return self._one(space.distributions, space.differentiable)
        kind = GradientBandit if name == "gradient" else BanditSampler
        methods = len(choices.settings.method)
        return kind(
            choices,
            lambda distributions, differentiable: self._one(distributions, differentiable, methods),
            self.trials,
            self.contributions,
            several=len(self.directions) > 1,
        )

    def _one(
        self, distributions: Distributions, differentiable: Sequence[str], arms: int = 1
    ) -> Sampler:
        name = self.campaign.search.sampler
        if name != "gradient":
            return self._plain(name, distributions, arms=arms)
        rest = "cmaes" if len(self.directions) == 1 else "nsga2"
        return (
            self._gradient(distributions, differentiable, rest)
            if differentiable
            else self._plain(rest, distributions)
        )

    def _plain(
        self, name: str, distributions: Distributions, sigma: float = SIGMA, arms: int = 1
    ) -> Sampler:
        seed = self.campaign.search.seed
        if name == "cmaes":
            return CmaEsSampler(distributions, self.trials, seed, sigma)
        if name == "random":
            return RandomSampler(distributions, seed)
        if name == "qmc":
            return SobolSampler(distributions, seed)
        startup = max(_FEWEST_RANDOM, RANDOM_TRIALS // arms)
        return OptunaSampler(name, distributions, self.directions, self.trials, seed, startup)

    def _gradient(
        self, distributions: Distributions, differentiable: Sequence[str], rest: str
    ) -> Sampler:
        search, counts = self.campaign.search, self.counts
        goals = self.campaign.objectives
        weights = {goal.task: goal.weight for goal in goals if goal.task in counts}
        return DescentSampler(
            distributions,
            differentiable,
            {task: counts[task] for task in weights},
            _shares(weights, search.seed, several=len(self.directions) > 1),
            self.trials,
            search.seed,
            lambda last: self._plain(rest, distributions, AROUND if last else SIGMA),
            batch=search.gradient_items,
        )


def _check_gradients(space: SearchSpace, counts: Mapping[str, int]) -> None:
    if space.differentiable and counts:
        return
    what = "no searched number" if not space.differentiable else "no task"
    raise CampaignError(
        f"{what} has a gradient (weights and factors do, by the gold answers of tasks); use cmaes",
        field="search.sampler",
    )


def _shares(weights: Mapping[str, float], seed: int, *, several: bool) -> list[dict[str, float]]:
    """Return the shares of the tasks' losses, one mapping a path.

    To a Pareto front lead paths of other shares: the weights' own, then draws from the simplex.
    """
    total = sum(weights.values())
    shares = [{task: weight / total for task, weight in weights.items()}]
    if several:
        draws = np.random.default_rng((seed, len(weights))).dirichlet(
            np.full(len(weights), 0.5), size=max(_PATHS_TO_A_FRONT, len(weights)) - 1
        )
        shares += [dict(zip(weights, draw.tolist(), strict=True)) for draw in draws]
    return shares
