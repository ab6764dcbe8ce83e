"""What a model takes, relative to the base: 1 is as much, less is better."""

from __future__ import annotations

from evomerge.candidate import Candidate, Size
from evomerge.candidate.trial import Outcome
from evomerge.config import CostName
from evomerge.objective.references import References


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
        1 where the base spent nothing to compare with, or nothing was counted.
    """
    if cost == "generated_tokens":
        theirs = 0.0 if references.base is None else references.base.cost.tokens_per_item
        counted = outcome.cost.items > 0 or outcome.cost.copied_tokens > 0
        return outcome.cost.tokens_per_item / theirs if theirs and counted else 1.0
    if candidate is None or not size.total:
        return 1.0
    return candidate.size(size) if cost == "parameters" else candidate.active(size)
