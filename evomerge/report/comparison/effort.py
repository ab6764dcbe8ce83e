"""What searches had found after as many item evaluations, and after as long a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from evomerge.report.comparison.comparable import Sides, same_items
from evomerge.report.curve import Axis
from evomerge.report.material import Material

SHARES = (0.25, 0.5, 1.0)
EFFORTS: tuple[Axis, ...] = ("item_evaluations", "seconds")


@dataclass(frozen=True)
class Milestone:
    """The best so far of each search at an equal effort.

    Attributes:
        axis: What is equal.
        limit: How much of it; the last one is all that the shortest search spent.
        best: Of each campaign; None where it had nothing yet.
    """

    axis: Axis
    limit: float
    best: tuple[float | None, ...]


def checkpoints(sides: Sides) -> tuple[Milestone, ...]:
    """Return the best so far at a quarter, half and all of the effort that every search spent."""
    curves = [one.curve for one in sides.values()]
    found = []
    for axis in EFFORTS:
        least = min(curve.total(axis) for curve in curves)
        limits = [share * least for share in SHARES if least > 0]
        if axis == "item_evaluations":
            limits = [float(int(limit)) for limit in limits]
        found += [
            Milestone(axis, limit, tuple(curve.best_at(axis, limit) for curve in curves))
            for limit in limits
        ]
    return tuple(found)


def search_faults(sides: Sides) -> tuple[str, ...]:
    """Say why the values that samplers saw cannot be compared, a clause each; none where they can."""
    labels, materials = list(sides), list(sides.values())
    return tuple(
        f"{what} differ between {labels[0]} and {label}"
        for label, other in zip(labels[1:], materials[1:], strict=True)
        for what in _unlike(materials[0], other)
    )


def _unlike(first: Material, second: Material) -> Iterator[str]:
    one, other = first.campaign, second.campaign
    goals = [{g.task: (g.metric, g.weight) for g in each.objectives} for each in (one, other)]
    if goals[0] != goals[1]:
        yield "the searched metrics or their weights"
    if (one.mode, one.normalize, one.costs) != (other.mode, other.normalize, other.costs):
        yield "what is made of them (mode, normalize, costs)"
    elif one.normalize != "none" and first.facts.get("models") != second.facts.get("models"):
        yield "the experts whose values they are shares of"
    shared = [goal.task for goal in one.objectives if goal.task in goals[1]]
    if not all(same_items(first, second, task, "search") for task in shared):
        yield "the search items"
