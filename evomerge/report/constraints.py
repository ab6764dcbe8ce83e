"""The campaign's conditions as a report states them: what is asked for, what is reached, what is missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from evomerge.candidate.trial import SPLITS, Split
from evomerge.config import Campaign
from evomerge.objective import Objectives, feasible, limits
from evomerge.report.rows import Row


@dataclass(frozen=True)
class Condition:
    """A condition of `keep`, with what it asks for on each split.

    Attributes:
        task: One of the objectives' tasks.
        metric: The reported one, which counts on select and holdout.
        at_least: Share of the reference's value.
        of: `best_expert`, `base` or `best_baseline`.
        limits: Split → the value asked for; absent where the model compared with has no value.
    """

    task: str
    metric: str
    at_least: float
    of: str
    limits: Mapping[Split, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and numbers."""
        return asdict(self)


def conditions_of(
    campaign: Campaign, aims_by_split: Mapping[Split, Objectives]
) -> tuple[Condition, ...]:
    """Return a campaign's conditions with their limits on every split that was scored."""
    asked = {
        split: limits(campaign, aims.references, split, aims.better)
        for split, aims in aims_by_split.items()
    }
    reports = {goal.task: goal.report for goal in campaign.objectives}
    return tuple(
        Condition(
            task=keep.task,
            metric=reports[keep.task],
            at_least=keep.at_least,
            of=keep.of,
            limits={
                split: value
                for split in SPLITS
                if (value := asked[split][position] if split in asked else None) is not None
            },
        )
        for position, keep in enumerate(campaign.keep)
    )


def misses(row: Row, split: Split) -> bool:
    """Tell whether a merge was scored on a split and misses a condition there; parents never do."""
    scores = row.splits.get(split)
    merged = row.kind not in ("base", "expert")
    return merged and scores is not None and not feasible(scores.violations)


def condition_notes(conditions: Sequence[Condition], rows: Sequence[Row]) -> list[str]:
    """Say of each condition what the winner reaches, and whether any finalist meets them all."""
    winners = [row for row in rows if row.kind == "winner"]
    notes = []
    for position, condition in enumerate(conditions):
        of = condition.of.replace("_", " ")
        parts = []
        for split in ("select", "holdout"):
            needed = condition.limits.get(split)
            if needed is not None:
                reached = [_reached(row, condition, position, split) for row in winners]
                parts.append(f"{split} {needed:.3f}{''.join(reached)}")
            elif any(split in row.splits for row in winners):
                parts.append(f"{split} unknown, as {of} was not scored there: not met")
        asked = f"keep {condition.task}: at least {condition.at_least:g} of {of}"
        notes.append(f"{asked} ({'; '.join(parts) or 'not scored yet'})")
    if any(misses(row, "select") for row in winners):
        notes.append(
            "no finalist meets every condition on the select items: the winner is the one that misses "
            "them least"
        )
    return notes


def _reached(row: Row, condition: Condition, position: int, split: Split) -> str:
    scores = row.splits.get(split)
    value = None if scores is None else scores.tasks.get(condition.task, {}).get(condition.metric)
    if scores is None or position >= len(scores.violations):
        return ""
    if value is None:
        return f", {row.name} has no value: not met"
    met = "met" if scores.violations[position] <= 0 else "missed"
    return f", {row.name} has {value.value:.3f}: {met}"
