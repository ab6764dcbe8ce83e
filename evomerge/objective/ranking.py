"""Trials from best to worst: by constraints, then by value, or by fronts where there are several values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from evomerge.objective.constraints import feasible, total_violation
from evomerge.objective.objectives import Objectives


@dataclass(frozen=True)
class Ranked:
    """A trial with its values.

    Attributes:
        number: Of the trial.
        values: Its objective values.
        violations: By how much it misses each constraint; met where at most 0.
        front: 0: no other trial is better in one value and as good in all; 1: none once those are
            taken away; and so on. Behind the last front stand those that miss a constraint.
    """

    number: int
    values: tuple[float, ...]
    violations: tuple[float, ...] = ()
    front: int = 0


def ranking(aims: Objectives, trials: Iterable[Ranked]) -> list[Ranked]:
    """Rank trials, best first, and number their fronts.

    Args:
        aims: Of the `search` items.
        trials: In the order in which equals shall stand.
    """
    found = list(trials)
    ordered = aims.order([one.values for one in found], [one.violations for one in found])
    return [replace(found[row], front=front) for row, front in ordered]


def finalists(aims: Objectives, ranked: Sequence[Ranked]) -> list[int]:
    """Return the numbers of the trials in the order in which they deserve to be scored on `select`.

    That of the ranking; of a Pareto front the one with the best mean, then the best in each
    objective and cost, so that its ends are among them, then the others by mean.

    Args:
        aims: Of the `search` items.
        ranked: As `ranking` returns it.
    """
    front = [one for one in ranked if one.front == 0]
    if aims.campaign.mode == "mean" or not front:
        return [one.number for one in ranked]
    signs = [1.0 if direction == "maximize" else -1.0 for direction in aims.directions]
    ends = [max(front, key=lambda one: sign * one.values[at]) for at, sign in enumerate(signs)]
    return list(dict.fromkeys(one.number for one in (front[0], *ends, *ranked)))


def loss_of(value: float, violations: Sequence[float]) -> float:
    """Return one number to minimise, for samplers that know no constraints.

    Every trial that misses a constraint stands behind all that miss none, the nearer ones first (the
    feasibility rules of Deb 2000). Samplers that go by rank, as CMA-ES does, see nothing else of it.

    Args:
        value: The objective, more is better.
        violations: By how much each constraint is missed; empty: no constraints.

    Returns:
        `-value` without constraints; with them -value / (1 + |value|), within (-1, 1), where all are met,
        else 1 + the total violation.
    """
    if not violations:
        return -value
    if feasible(violations):
        return -value / (1 + abs(value))
    return 1 + total_violation(violations)
