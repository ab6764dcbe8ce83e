"""Which sampler a campaign gets where it leaves that open, and whether it can race."""

from __future__ import annotations

from evomerge.config import Campaign
from evomerge.errors import CampaignError
from evomerge.kinds import SearchSpace
from evomerge.scoring import backend_type, gold_count
from evomerge.search.racing import race_faults
from evomerge.tasks import Items


def with_sampler(campaign: Campaign, space: SearchSpace, items: Items) -> Campaign:
    """Choose the sampler where the campaign leaves it open; refuse `gradient` where nothing has a gradient.

    Args:
        campaign: The settings.
        space: Its space.
        items: Its items.

    Returns:
        The campaign with a sampler other than `auto`.

    Raises:
        CampaignError: It asks for `gradient`, and no searched number has one.
    """
    search = campaign.search
    if search.sampler not in ("auto", "gradient"):
        return campaign
    if not backend_type(campaign.scorer.backend).gradients:
        fault = f"the backend {campaign.scorer.backend} takes none"
    elif not space.differentiable:
        fault = "no searched number has one (weights and factors do)"
    elif not any(gold_count(items, goal.task) for goal in campaign.objectives):
        fault = "no task has a gold text"
    else:
        fault = None
    other = "cmaes" if campaign.mode == "mean" else "nsga2"
    if fault is not None and search.sampler == "gradient":
        raise CampaignError(
            f'found "gradient", but {fault}; use {other}, or auto', field="search.sampler"
        )
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
