"""An outcome's scores → the values that a study optimises."""

from __future__ import annotations

from collections.abc import Callable

from evomerge.campaign import Campaign, Objective
from evomerge.store import Direction
from evomerge.trial import Outcome, Split

Better = Callable[[str, str], bool]
"""(task, metric) → whether a higher value is better."""

LOWER_IS_BETTER = frozenset(
    {"bits_per_byte", "brier_score", "byte_perplexity", "perplexity", "ter", "word_perplexity"}
)
"""Those of lm-eval's registered metrics that are better when lower."""


def higher_is_better(task: str, metric: str) -> bool:
    """Return lm-eval's own direction of a metric, for tasks that state none."""
    return metric.split(",")[0] not in LOWER_IS_BETTER


def directions(campaign: Campaign, better: Better = higher_is_better) -> tuple[Direction, ...]:
    """Return the study's directions: one of the weighted mean, or one an objective (Pareto).

    Args:
        campaign: Its `mode` and objectives.
        better: Direction of each task's metric, such as `Items.higher_is_better`.
    """
    if campaign.mode == "mean":
        return ("maximize",)
    return tuple(
        "maximize" if better(goal.task, goal.metric) else "minimize" for goal in campaign.objectives
    )


def objective_values(
    campaign: Campaign, outcome: Outcome, split: Split = "search", better: Better = higher_is_better
) -> tuple[float, ...]:
    """Return what the study is told of an outcome.

    Args:
        campaign: Its `mode` and objectives.
        outcome: Without a failure.
        split: `search`: the searched metrics; `select` and `holdout`: those that are reported.
        better: Direction of each task's metric.

    Returns:
        The weighted mean, a metric that is better when lower counted negatively; or in Pareto mode one
        value an objective, as it is. Either may be NaN or infinite where a metric is.
    """
    metrics = [goal.metric if split == "search" else goal.report for goal in campaign.objectives]
    values = [
        outcome.scores[goal.task].values[metric].value
        for goal, metric in zip(campaign.objectives, metrics, strict=True)
    ]
    if campaign.mode == "pareto":
        return tuple(values)
    signs = [
        1 if better(goal.task, metric) else -1
        for goal, metric in zip(campaign.objectives, metrics, strict=True)
    ]
    upward = [sign * value for sign, value in zip(signs, values, strict=True)]
    return (weighted_mean(campaign.objectives, upward),)


def weighted_mean(objectives: tuple[Objective, ...], values: list[float]) -> float:
    """Return Σ weight · value / Σ weight."""
    total = sum(goal.weight for goal in objectives)
    return sum(goal.weight * value for goal, value in zip(objectives, values, strict=True)) / total
