"""What a model takes, relative to the base: 1 is as much, less is better."""

from __future__ import annotations

from evomerge.candidate import Candidate, Size
from evomerge.candidate.trial import Outcome
from evomerge.config import Campaign
from evomerge.objective.references import References


def relative_costs(
    campaign: Campaign,
    outcome: Outcome,
    candidate: Candidate | None,
    references: References,
    size: Size,
) -> tuple[float, ...]:
    """Return each of the campaign's costs, relative to the base's on the same split.

    Args:
        campaign: Its `costs`.
        outcome: Without a failure.
        candidate: The model; None: of the base's size.
        references: The base among them.
        size: Of the base.

    Returns:
        One number a cost; 1 where the base spent nothing to compare with, or nothing was measured (a copy
        of an earlier outcome).
    """
    found = []
    for cost in campaign.costs:
        if cost.cost == "parameters":
            counted = candidate is not None and size.total > 0
            found.append(candidate.size(size) if candidate and counted else 1.0)
            continue
        theirs = 0.0 if references.base is None else tokens_per_item(references.base)
        measured = theirs > 0 and outcome.cost.items > 0
        found.append(tokens_per_item(outcome) / theirs if measured else 1.0)
    return tuple(found)


def tokens_per_item(outcome: Outcome) -> float:
    """Return generated tokens an item; 0 where no item was scored."""
    spent = outcome.cost
    return spent.generated_tokens / spent.items if spent.items else 0.0
