"""What a study optimises, and when it has enough: a campaign's aims as the search room calls them."""

from __future__ import annotations

from evomerge.campaign import Campaign
from evomerge.goals import Better, Judge, higher_is_better, weighted_mean
from evomerge.store import Direction
from evomerge.trial import Outcome, Split

__all__ = [
    "Better",
    "directions",
    "higher_is_better",
    "objective_values",
    "reached",
    "weighted_mean",
]


def directions(campaign: Campaign, better: Better = higher_is_better) -> tuple[Direction, ...]:
    """Return the study's directions: one of the weighted mean; or (Pareto) one an objective and a cost.

    Args:
        campaign: Its `mode`, objectives and costs.
        better: Direction of each task's metric, such as `Items.higher_is_better`.
    """
    return Judge(campaign, better=better).directions


def objective_values(
    campaign: Campaign, outcome: Outcome, split: Split = "search", better: Better = higher_is_better
) -> tuple[float, ...]:
    """Return what the study is told of an outcome when nothing is measured by the parents.

    Args:
        campaign: Without `normalize`, `keep` and `costs`; with them, ask a `Judge`.
        outcome: Without a failure.
        split: Of the items.
        better: Direction of each task's metric.

    Returns:
        As `Judge.values`.
    """
    return Judge(campaign, split=split, better=better).values(outcome)


def reached(campaign: Campaign, best_value: float | None) -> bool:
    """Tell whether the search has what it was asked for, `search.target`.

    Args:
        campaign: Its target; None is never reached.
        best_value: The best value so far of a trial that meets every condition; None: there is none yet.
    """
    target = campaign.search.target
    return target is not None and best_value is not None and best_value >= target
