"""What a study optimises, and when it has enough: a campaign's aims as the search room calls them."""

from __future__ import annotations

from evomerge.config import Campaign
from evomerge.objective import Better, Direction, Objectives, higher_is_better


def directions(campaign: Campaign, better: Better = higher_is_better) -> tuple[Direction, ...]:
    """Return the study's directions: one of the weighted mean; or (Pareto) one an objective and a cost.

    Args:
        campaign: Its `mode`, objectives and costs.
        better: Direction of each task's metric, such as `Items.higher_is_better`.
    """
    return Objectives(campaign, better=better).directions


def reached(campaign: Campaign, best_value: float | None) -> bool:
    """Tell whether the search has what it was asked for, `search.target`.

    Args:
        campaign: Its target; None is never reached.
        best_value: The best value so far of a trial that meets every condition; None: there is none yet.
    """
    target = campaign.search.target
    return target is not None and best_value is not None and best_value >= target
