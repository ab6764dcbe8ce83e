"""Samplers by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evomerge.campaign import Campaign
from evomerge.errors import CampaignError
from evomerge.search.cmaes_proposer import SIGMA, CmaEsProposer
from evomerge.search.coarse_proposer import CoarseProposer
from evomerge.search.optuna_proposer import OptunaProposer
from evomerge.search.proposer import Proposer
from evomerge.search.random_proposer import RandomProposer
from evomerge.search.slope_proposer import AROUND, SlopeProposer
from evomerge.search.sobol_proposer import SobolProposer
from evomerge.space import Space
from evomerge.store import Direction

_PATHS_TO_A_FRONT = 4


def open_proposer(
    campaign: Campaign,
    space: Space,
    directions: Sequence[Direction],
    counts: Mapping[str, int],
    trials: int,
) -> Proposer:
    """Set up the campaign's sampler.

    Args:
        campaign: Its `search` names the sampler and the seed.
        space: Where to search.
        directions: One an objective value.
        counts: Task → number of its search items with a gold answer, if any; only for `slope`.
        trials: What the sampler plans for: as it was when the campaign began, whatever was added since.

    Raises:
        CampaignError: Nothing is searched, the sampler cannot handle several objectives, or nothing has a
            slope.
    """
    if not space.distributions:
        raise CampaignError(
            "nothing is searched; give a parameter as a range, such as "
            "weight: {low: 0.0, high: 1.0}",
            field="space.parameters",
        )
    name = campaign.search.sampler
    if name == "slope":
        return _slope(campaign, space, directions, counts, trials)
    coarse = space.coarse()
    if coarse is None:
        return _plain(name, campaign, space, directions, trials)
    return CoarseProposer(
        space,
        trials,
        _plain(name, campaign, coarse, directions, trials),
        lambda: _plain(name, campaign, space, directions, trials),
    )


def _plain(
    name: str,
    campaign: Campaign,
    space: Space,
    directions: Sequence[Direction],
    trials: int,
    sigma: float = SIGMA,
) -> Proposer:
    settings = campaign.search
    if name == "cmaes":
        if len(directions) > 1:
            raise CampaignError(
                "cmaes searches for one best value, found mode: pareto; use slope, nsga2, tpe, gp, "
                "random or qmc, or mode: mean",
                field="search.sampler",
            )
        return CmaEsProposer(space.distributions, trials, settings.seed, sigma)
    if name == "random":
        return RandomProposer(space.distributions, settings.seed)
    if name == "qmc":
        return SobolProposer(space.distributions, settings.seed)
    return OptunaProposer(name, space.distributions, directions, trials, settings.seed)


def _slope(
    campaign: Campaign,
    space: Space,
    directions: Sequence[Direction],
    counts: Mapping[str, int],
    trials: int,
) -> Proposer:
    if not space.sloped or not counts:
        what = "no searched number" if not space.sloped else "no task"
        raise CampaignError(
            f"{what} has a slope (weights and factors do, by the gold answers of tasks); use cmaes",
            field="search.sampler",
        )
    weights = {goal.task: goal.weight for goal in campaign.objectives if goal.task in counts}
    several = len(directions) > 1
    rest = "nsga2" if several else "cmaes"
    return SlopeProposer(
        space.distributions,
        space.sloped,
        {task: counts[task] for task in weights},
        _shares(weights, campaign.search.seed, several=several),
        trials,
        campaign.search.seed,
        lambda last: _plain(rest, campaign, space, directions, trials, AROUND if last else SIGMA),
        batch=campaign.search.slope_items,
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
