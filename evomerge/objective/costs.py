"""What a model takes, relative to the base: 1 is as much, less is better."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evomerge.candidate import Candidate, Merge, Size
from evomerge.candidate.trial import Outcome, Split
from evomerge.config import CostName
from evomerge.objective.references import References

TIME_STEP = 0.05
"""What is within the noise of a measurement is one value: equal models shall not form a front."""


def relative_cost(
    cost: CostName,
    outcome: Outcome,
    candidate: Candidate | None,
    references: References,
    size: Size,
) -> float:
    """Return one cost, relative to the base's on the same split.

    Args:
        cost: Which one.
        outcome: Without a failure.
        candidate: The model; None: of the base's size.
        references: The base among them.
        size: Of the base.

    Returns:
        1 where the base spent nothing to compare with, or nothing was counted; infinite where the time was
        not measured.
    """
    if cost == "time":
        return relative_time(outcome, candidate)
    if cost == "generated_tokens":
        theirs = 0.0 if references.base is None else references.base.cost.tokens_per_item
        counted = outcome.cost.items > 0 or outcome.cost.copied_tokens > 0
        return outcome.cost.tokens_per_item / theirs if theirs and counted else 1.0
    if candidate is None or not size.total:
        return 1.0
    return candidate.size(size) if cost == "parameters" else candidate.active(size)


def relative_time(outcome: Outcome, candidate: Candidate | None) -> float:
    """Return the time to continue a prompt, relative to the base's, in steps of `TIME_STEP`.

    Infinite where it was not timed.
    A merge is computed as the base is, so it takes as long by construction.
    """
    if candidate is None or isinstance(candidate, Merge):
        return 1.0
    if outcome.timing is None:
        return math.inf
    return max(1, round(outcome.timing.relative / TIME_STEP)) * TIME_STEP


def is_timed(candidate: Candidate, asked: Sequence[CostName], split: Split) -> bool:
    """Tell whether a candidate is to be timed: where its time counts, and once for the report."""
    return not isinstance(candidate, Merge) and ("time" in asked or split == "select")
