"""A campaign's sampler: by its name, one over the whole space or one for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evomerge.config import Campaign
from evomerge.errors import CampaignError
from evomerge.kinds import SearchSpace
from evomerge.objective import Objectives
from evomerge.search.bandit import Bandit
from evomerge.search.contributions import contributions_of
from evomerge.search.samplers import SAMPLERS, Problem, Sampler, sampler_class

SCALES = ("group", "tensor", "row")


def open_sampler(
    campaign: Campaign,
    space: SearchSpace,
    aims: Objectives,
    counts: Mapping[str, int],
    trials: int,
) -> Sampler:
    """Set up the campaign's sampler: where a method or a subset is chosen, one for each method.

    Args:
        campaign: Its `search` names the sampler and the seed.
        space: Where to search.
        aims: Of the `search` items: the directions, and what items contribute to the objective.
        counts: Task → number of its search items with a gold answer, if any.
        trials: What the sampler plans for: as it was when the campaign began, whatever was added since.

    Raises:
        CampaignError: Nothing is searched, there is no such sampler, or it cannot do what is asked.
    """
    if not space.distributions:
        raise CampaignError(
            "nothing is searched; give a parameter as a range, such as "
            "weight: {low: 0.0, high: 1.0}",
            field="space.parameters",
        )
    kind, settings = sampler_class(campaign), campaign.search
    if kind.needs_gold and not (space.differentiable and counts):
        what = "no task" if space.differentiable else "no searched number"
        raise CampaignError(
            f"{what} has a gradient (weights and factors do, by the gold answers of tasks); use cmaes",
            field="search.sampler",
        )
    regions = space.regions
    problem = Problem(
        distributions=space.distributions,
        directions=aims.directions,
        trials=trials,
        seed=settings.seed,
        differentiable=space.differentiable,
        gold=counts,
        weights={goal.task: goal.weight for goal in campaign.objectives if goal.task in counts},
        batch=settings.gradient_items,
        scales=scales_of(campaign, space),
        arms=1 if regions is None else len(regions.first()),
        start=next(iter(space.first()), None),
        tasks_apart=campaign.mode == "pareto",
    )
    several = len(aims.directions) > 1
    if regions is None or not kind.learns:
        return kind(problem)

    def build(start: Mapping[str, float], differentiable: Sequence[str]) -> Sampler:
        chosen = {name: space.distributions[name] for name in start}
        part = replace(problem, distributions=chosen, differentiable=differentiable, start=start)
        if kind.needs_gold and not differentiable:
            return SAMPLERS["nsga2" if several else "cmaes"](part)
        return kind(part)

    return Bandit(regions, build, trials, contributions_of(aims), several=several)


def scales_of(campaign: Campaign, space: SearchSpace) -> tuple[str, ...]:
    """Return the scales of the coefficients that descents learn.

    Raises:
        CampaignError: It asks for tensors or rows, which its space does not take.
    """
    asked = campaign.search.scales
    if asked is None:
        return SCALES if space.takes_rows else SCALES[:1]
    if len(asked) > 1 and not space.takes_rows:
        methods = " and ".join(campaign.space.methods)
        raise CampaignError(
            f"found [{', '.join(asked)}], expected [group]: weights by tensor and row need a searched "
            f"weight, no core_space, and a method that takes them; found {methods}",
            field="search.scales",
        )
    return asked
