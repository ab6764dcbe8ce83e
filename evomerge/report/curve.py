"""The best so far of a study, against trials, item evaluations and seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from evomerge.candidate.cost import Cost
from evomerge.objective import Objectives, feasible
from evomerge.report.scores import mean_sign, searched
from evomerge.report.timeline import StudyClock, spans_of
from evomerge.store import StoredGradient, StoredTrial

Axis = Literal["trials", "item_evaluations", "seconds"]
AXES: tuple[Axis, ...] = ("trials", "item_evaluations", "seconds")


@dataclass(frozen=True)
class Point:
    """A study right after a trial, or a step of a descent, was told.

    Attributes:
        trials: Told so far, failed and pruned ones included; steps of descents are none.
        item_evaluations: Spent so far, as the budget counts them: an item of a gradient is three.
        seconds: Since the first work began, the time for which the study was interrupted left out; 0 where
            it is not known.
        best: The best value so far that meets the constraints; None before there is one.
        number: Of the trial; None for a step of a descent.
        value: Of the trial; of a pruned one an estimate; None where it failed, and for a step.
        state: `complete`, `pruned` or `failed`; empty for a step.
        improved: Whether it is the best so far.
    """

    trials: int
    item_evaluations: int
    seconds: float
    best: float | None
    number: int | None = None
    value: float | None = None
    state: str = ""
    improved: bool = False


@dataclass(frozen=True)
class Curve:
    """How a search went on.

    Attributes:
        points: In the order in which they were told.
        higher_is_better: Of the values, which are the weighted mean as reports show it: of the searched
            metrics, less what costs take off.
    """

    points: tuple[Point, ...]
    higher_is_better: bool = True

    @property
    def improvements(self) -> tuple[Point, ...]:
        """The points at which the best so far became better."""
        return tuple(point for point in self.points if point.improved)

    def best_at(self, axis: Axis, limit: float) -> float | None:
        """Return the best value that was found within so many trials, items or seconds; None: none was."""
        within = (p.best for p in reversed(self.points) if getattr(p, axis) <= limit)
        return next(within, None)

    def total(self, axis: Axis) -> float:
        """Return all trials, items or seconds."""
        return max((float(getattr(point, axis)) for point in self.points), default=0.0)


def curve_of(
    trials: Sequence[StoredTrial], steps: Sequence[StoredGradient], aims: Objectives
) -> Curve:
    """Return the best so far; in the modes of a front that of the weighted mean.

    Args:
        trials: Of the study.
        steps: Of its descents.
        aims: On the search items.
    """
    sign = mean_sign(searched(aims))
    return Curve(tuple(_points(trials, steps, aims, sign)), sign > 0)


def _points(
    trials: Sequence[StoredTrial],
    steps: Sequence[StoredGradient],
    aims: Objectives,
    sign: float,
) -> Iterator[Point]:
    clock = StudyClock.of(spans_of(trials, steps))
    count, items, seconds = 0, 0, 0.0
    best: float | None = None
    for _, one, cost in sorted(_told(trials, steps), key=lambda told: told[0]):
        if cost.began is not None:
            seconds = max(seconds, clock(cost.began + cost.merge_seconds + cost.score_seconds))
        if isinstance(one, StoredGradient):
            items += one.cost_items
            yield Point(count, items, seconds, best)
            continue
        count, items = count + 1, items + cost.items
        value = None if one.values is None else sign * aims.mean(one.values)
        improved = value is not None and _meets(one, aims)
        if value is not None and improved:
            improved = best is None or sign * value > sign * best
            best = value if improved else best
        yield Point(count, items, seconds, best, one.number, value, one.state, improved)


def _told(
    trials: Sequence[StoredTrial], steps: Sequence[StoredGradient]
) -> Iterator[tuple[int, StoredTrial | StoredGradient, Cost]]:
    for trial in trials:
        if trial.told_seq is not None and trial.outcome is not None:
            yield trial.told_seq, trial, trial.outcome.cost
    for step in steps:
        if step.told_seq is not None:
            yield step.told_seq, step, step.cost


def _meets(trial: StoredTrial, aims: Objectives) -> bool:
    """Tell whether a trial was scored in full and meets every constraint."""
    if trial.state != "complete" or trial.outcome is None:
        return False
    return feasible(aims.violations(trial.outcome, aims.weighed(trial)))
