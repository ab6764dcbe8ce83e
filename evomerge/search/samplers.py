"""Samplers by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge.campaign import Campaign
from evomerge.errors import CampaignError
from evomerge.goals import Judge
from evomerge.search.bandit_proposer import BanditProposer
from evomerge.search.cmaes_proposer import SIGMA, CmaEsProposer
from evomerge.search.coarse_proposer import CoarseProposer
from evomerge.search.contributions import Contributions, contributions_of
from evomerge.search.gradient_bandit import GradientBandit
from evomerge.search.optuna_proposer import RANDOM_TRIALS, OptunaProposer
from evomerge.search.proposer import Proposer
from evomerge.search.random_proposer import RandomProposer
from evomerge.search.slope_proposer import AROUND, SlopeProposer
from evomerge.search.sobol_proposer import SobolProposer
from evomerge.space import Space
from evomerge.store import Direction

Distributions = Mapping[str, FloatDistribution]

_PATHS_TO_A_FRONT = 4
_UNIFORM = ("random", "qmc")  # which spread over methods and subsets by themselves
_FEWEST_RANDOM = 3


def open_proposer(
    campaign: Campaign,
    space: Space,
    judge: Judge,
    counts: Mapping[str, int],
    trials: int,
) -> Proposer:
    """Set up the campaign's sampler.

    Args:
        campaign: Its `search` names the sampler and the seed.
        space: Where to search.
        judge: Of the `search` items: the directions, and what items contribute to the objective.
        counts: Task → number of its search items with a gold answer, if any; only for `slope`.
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
    if name == "cmaes" and len(judge.directions) > 1:
        raise CampaignError(
            "cmaes searches for one best value, found mode: pareto; use slope, nsga2, tpe, gp, "
            "random or qmc, or mode: mean",
            field="search.sampler",
        )
    samplers = _Samplers(campaign, judge.directions, counts, trials, contributions_of(judge))
    if name == "slope":
        _check_gradients(space, counts)
        return samplers.over(space)
    coarse = space.coarse()
    if coarse is None:
        return samplers.over(space)
    return CoarseProposer(space, trials, samplers.over(coarse), lambda: samplers.over(space))


@dataclass(frozen=True)
class _Samplers:
    """Opens the campaign's sampler over a space, or over a part of one."""

    campaign: Campaign
    directions: tuple[Direction, ...]
    counts: Mapping[str, int]
    trials: int
    contributions: Contributions

    def over(self, space: Space) -> Proposer:
        """Open it over a space: where a method or a subset is chosen there, one for each choice."""
        name = self.campaign.search.sampler
        apart = len(space.settings.method) > 1 or space.settings.subsets
        if not apart or name in _UNIFORM:
            return self._one(space.distributions, space.sloped)
        kind = GradientBandit if name == "slope" else BanditProposer
        methods = len(space.settings.method)
        return kind(
            space,
            lambda distributions, sloped: self._one(distributions, sloped, methods),
            self.trials,
            self.contributions,
            several=len(self.directions) > 1,
        )

    def _one(self, distributions: Distributions, sloped: Sequence[str], arms: int = 1) -> Proposer:
        name = self.campaign.search.sampler
        if name != "slope":
            return self._plain(name, distributions, arms=arms)
        rest = "cmaes" if len(self.directions) == 1 else "nsga2"
        return (
            self._gradient(distributions, sloped, rest)
            if sloped
            else self._plain(rest, distributions)
        )

    def _plain(
        self, name: str, distributions: Distributions, sigma: float = SIGMA, arms: int = 1
    ) -> Proposer:
        seed = self.campaign.search.seed
        if name == "cmaes":
            return CmaEsProposer(distributions, self.trials, seed, sigma)
        if name == "random":
            return RandomProposer(distributions, seed)
        if name == "qmc":
            return SobolProposer(distributions, seed)
        startup = max(_FEWEST_RANDOM, RANDOM_TRIALS // arms)
        return OptunaProposer(name, distributions, self.directions, self.trials, seed, startup)

    def _gradient(self, distributions: Distributions, sloped: Sequence[str], rest: str) -> Proposer:
        search, counts = self.campaign.search, self.counts
        goals = self.campaign.objectives
        weights = {goal.task: goal.weight for goal in goals if goal.task in counts}
        return SlopeProposer(
            distributions,
            sloped,
            {task: counts[task] for task in weights},
            _shares(weights, search.seed, several=len(self.directions) > 1),
            self.trials,
            search.seed,
            lambda last: self._plain(rest, distributions, AROUND if last else SIGMA),
            batch=search.slope_items,
        )


def _check_gradients(space: Space, counts: Mapping[str, int]) -> None:
    if space.sloped and counts:
        return
    what = "no searched number" if not space.sloped else "no task"
    raise CampaignError(
        f"{what} has a slope (weights and factors do, by the gold answers of tasks); use cmaes",
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
