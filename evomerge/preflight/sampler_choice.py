"""Which sampler a campaign gets where it leaves that open, and whether it can race."""

from __future__ import annotations

from evomerge.config import Campaign
from evomerge.errors import CampaignError
from evomerge.kinds import SearchSpace
from evomerge.scoring import backend_type, gold_count
from evomerge.search.opening import scales_of
from evomerge.search.racing import race_faults
from evomerge.search.samplers import sampler_class
from evomerge.tasks import Items


def with_sampler(campaign: Campaign, space: SearchSpace, items: Items) -> Campaign:
    """Choose the sampler where the campaign leaves it open; refuse one that needs gradients where none are.

    Args:
        campaign: The settings.
        space: Its space.
        items: Its items.

    Returns:
        The campaign with a sampler other than `auto`.

    Raises:
        CampaignError: Its sampler needs gradients, and there are none, or none at a scale that it asks for.
    """
    search = campaign.search
    if search.sampler != "auto" and not sampler_class(campaign).needs_gold:
        return campaign
    if not backend_type(campaign.scorer.backend).gradients:
        fault = f"the backend {campaign.scorer.backend} gives no gradients"
    elif campaign.scorer.quantise is not None:
        fault = f"weights quantised to {campaign.scorer.quantise} have no gradients"
    elif not space.differentiable:
        fault = "no searched number has one (weights and factors do)"
    elif not any(gold_count(items, goal.task) for goal in campaign.objectives):
        fault = "no task has a gold text"
    else:
        fault = None
    other = "cmaes" if campaign.mode == "mean" else "nsga2"
    if search.sampler != "auto":
        if fault is None:
            scales_of(campaign, space)
            return campaign
        raise CampaignError(
            f'found "{search.sampler}", but {fault}; use {other}, or auto', field="search.sampler"
        )
    if fault is None:
        scales_of(campaign, space)
    chosen = search.model_copy(update={"sampler": "gradient" if fault is None else other})
    return campaign.model_copy(update={"search": chosen})


def check_race(campaign: Campaign, items: Items) -> None:
    """Refuse racing where a candidate cannot be judged by part of its items.

    Raises:
        CampaignError: The campaign races, and here is why it cannot.
    """
    if campaign.search.pruner == "none":
        return
    faults = race_faults(campaign, items, items.higher_is_better)
    if faults:
        raise CampaignError(
            f'found "{campaign.search.pruner}", but {faults[0]}; use none', field="search.pruner"
        )
