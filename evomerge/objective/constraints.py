"""Constraints on a merge: by how much each is missed, relative to what it asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from evomerge.candidate.trial import Outcome, Split
from evomerge.config import Campaign, CostName, Keep, KeepCost
from evomerge.objective.references import References, value_on
from evomerge.objective.values import LOGARITHMS, Better, higher_is_better, metric_on


def violations(
    campaign: Campaign,
    outcome: Outcome,
    references: References,
    split: Split = "search",
    better: Better = higher_is_better,
    costs: Mapping[CostName, float] = MappingProxyType({}),
) -> tuple[float, ...]:
    """Return by how much an outcome misses each constraint of `keep`.

    An outcome on a part of the items (a pruned trial's) is compared with its reference on those items.

    Args:
        campaign: Its constraints and objectives.
        outcome: Without a failure.
        references: Outcomes of parents and baselines on the same split.
        split: `search`: the searched metrics are held to the constraints; else those reported.
        better: Direction of each task's metric.
        costs: What the model takes, relative to the base's, for constraints on it.

    Returns:
        One number a constraint: the shortfall as a share of the limit (of log-likelihoods: in nats); met
        where it is at most 0; infinite, so not met, where unknown: the outcome has no such value, or
        the model that it is compared with was not scored or has none.
    """
    found = []
    for keep in campaign.keep:
        if isinstance(keep, KeepCost):
            found.append((costs[keep.cost] - keep.at_most) / keep.at_most)
            continue
        metric, higher = _measured(campaign, keep, split, better)
        best = references.reference(keep.of, keep.task, metric, higher=higher)
        scores = outcome.scores.get(keep.task)
        if best is None or scores is None or metric not in scores.values:
            found.append(math.inf)
        else:
            needed = limit(value_on(best, metric, scores.items), keep, metric, higher=higher)
            value = scores.values[metric].value
            found.append(shortfall(value, needed, metric, higher=higher))
    return tuple(found)


def limits(
    campaign: Campaign, references: References, split: Split, better: Better = higher_is_better
) -> tuple[float | None, ...]:
    """Return the value that each constraint asks for, of costs relative to the base; None: unknown."""
    found: list[float | None] = []
    for keep in campaign.keep:
        if isinstance(keep, KeepCost):
            found.append(keep.at_most)
            continue
        metric, higher = _measured(campaign, keep, split, better)
        best = references.reference(keep.of, keep.task, metric, higher=higher)
        value = None if best is None else best.values[metric].value
        found.append(None if value is None else limit(value, keep, metric, higher=higher))
    return tuple(found)


def limit(best: float, keep: Keep, metric: str, *, higher: bool) -> float:
    """Return what a constraint asks for, given its reference's value.

    Better when higher: `at_least` · best; better when lower: best / `at_least`; negative values the other
    way round, so that a share below 1 is always the easier to keep. Log-likelihoods: the share is that of
    the probability, best + ln `at_least`.
    """
    if metric in LOGARITHMS:
        return best + math.log(keep.at_least)
    return best * keep.at_least if higher == (best > 0) else best / keep.at_least


def shortfall(value: float, needed: float, metric: str, *, higher: bool) -> float:
    """Return by how much a value misses a limit, as a share of the limit (log-likelihoods: in nats)."""
    missing = needed - value if higher else value - needed
    if math.isnan(missing):
        return math.inf
    return missing if metric in LOGARITHMS or needed == 0 else missing / abs(needed)


def feasible(found: Sequence[float]) -> bool:
    """Tell whether every constraint is met."""
    return all(value <= 0 for value in found)


def total_violation(found: Sequence[float]) -> float:
    """Return the sum of what is missing; 0 exactly where every constraint is met."""
    return math.fsum(max(value, 0.0) for value in found)


def _measured(campaign: Campaign, keep: Keep, split: Split, better: Better) -> tuple[str, bool]:
    goal = next(goal for goal in campaign.objectives if goal.task == keep.task)
    metric = metric_on(goal, split)
    return metric, better(goal.task, metric)
