"""The Pareto front: merges that no other merge beats in every objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evomerge.report.rows import Goal, Row
from evomerge.trial import Split

MERGES = ("baseline", "finalist", "winner")


def mark_front(rows: Sequence[Row], goals: Sequence[Goal]) -> list[Row]:
    """Return the rows with `front` set for merges scored on the split that chooses.

    That split is `select`, or `search` as long as nothing was scored on `select`.
    """
    split: Split = "select" if any("select" in row.splits for row in rows) else "search"
    points = [_point(row, goals, split) if row.kind in MERGES else None for row in rows]
    others = [point for point in points if point is not None]
    return [
        row
        if point is None
        else replace(row, front=not any(_dominates(other, point) for other in others))
        for row, point in zip(rows, points, strict=True)
    ]


def _point(row: Row, goals: Sequence[Goal], split: Split) -> tuple[float, ...] | None:
    """Return the reported values, more always better; None where one is missing."""
    values: list[float] = []
    for goal in goals:
        value = row.reported(split, goal)
        if value is None:
            return None
        values.append(value.value if goal.higher_is_better else -value.value)
    return tuple(values)


def _dominates(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first != second and all(a >= b for a, b in zip(first, second, strict=True))
