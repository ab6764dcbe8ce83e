"""What is known of a trial that was given up before its last item: what the sampler was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evomerge.candidate.trial import Outcome
from evomerge.objective import Objectives
from evomerge.report.rows import Goal, SplitScores, Value, higher_is_better


def estimated_scores(
    aims: Objectives, goals: Sequence[Goal], values: Sequence[float], outcome: Outcome
) -> SplitScores:
    """Return a pruned trial's scores on the search items: estimates, without intervals.

    Its values on the items that it was scored on are not shown: these come in an order that puts the
    telling ones first, so that they are no sample.

    Args:
        aims: Of the search items.
        goals: The objectives.
        values: The estimates that the sampler was told.
        outcome: Scores on some of the items.
    """
    campaign = aims.campaign
    items = sum(len(scores.items) for scores in outcome.scores.values())
    costs = aims.costs(outcome)
    mean = aims.mean(values)
    if campaign.mode == "mean":
        mean += sum(cost.weight * c for cost, c in zip(campaign.costs, costs, strict=True))
    upward = higher_is_better(goals, searched=True)
    estimate = Value(mean if upward else -mean, n=items)
    same = all(goal.metric == goal.report for goal in goals)
    tasks: Mapping[str, Mapping[str, Value]] = {}
    if campaign.mode == "pareto":
        pairs = zip(goals, values[: len(goals)], strict=True)
        tasks = {
            goal.task: {goal.metric: Value(value, n=len(outcome.scores[goal.task].items))}
            for goal, value in pairs
            if goal.task in outcome.scores
        }
    return SplitScores(
        objective=estimate if same else None,
        searched=None if same else estimate,
        tasks=tasks,
        outcome=outcome,
        costs={cost.cost: c for cost, c in zip(campaign.costs, costs, strict=True)},
        net=values[0] if campaign.costs and campaign.mode == "mean" else None,
        violations=aims.violations(outcome),
        estimated=True,
    )
