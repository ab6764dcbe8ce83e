"""Trials from best to worst: by conditions, then by value, or by fronts where there are several values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evomerge.objective import Direction, Objectives, feasible, total_violation


@dataclass(frozen=True)
class Scored:
    """A completed trial.

    Attributes:
        number: Of the trial.
        values: Its objective values.
        violations: By how much it misses each condition; met where at most 0.
    """

    number: int
    values: tuple[float, ...]
    violations: tuple[float, ...] = ()


@dataclass(frozen=True)
class Ranked:
    """A completed trial in a ranking.

    Attributes:
        number: Of the trial.
        values: Its objective values.
        front: 0: no other trial is better in one value and as good in all; 1: none once those are
            taken away; and so on. Behind the last front stand those that miss a condition.
        violations: By how much it misses each condition; met where at most 0.
    """

    number: int
    values: tuple[float, ...]
    front: int
    violations: tuple[float, ...] = ()


def ranking(aims: Objectives, trials: Iterable[Scored]) -> list[Ranked]:
    """Rank completed trials, best first.

    Args:
        aims: Of the `search` items.
        trials: In the order in which equals shall stand.
    """
    found = list(trials)
    ordered = aims.order([one.values for one in found], [one.violations for one in found])
    return [
        Ranked(found[row].number, found[row].values, front, found[row].violations)
        for row, front in ordered
    ]


def best_value(aims: Objectives, trials: Iterable[Scored]) -> float | None:
    """Return the best value of a trial that meets every condition; None: there is none, or a front."""
    if aims.campaign.mode == "pareto":
        return None
    return max((one.values[0] for one in trials if feasible(one.violations)), default=None)


def finalists(aims: Objectives, ranked: Sequence[Ranked]) -> list[int]:
    """Return the numbers of the trials in the order in which they deserve to be scored on `select`.

    That of the ranking; of a Pareto front the one with the best mean, then the best in each
    objective and cost, so that its ends are among them, then the others by mean.

    Args:
        aims: Of the `search` items.
        ranked: As `ranking` returns it.
    """
    if aims.campaign.mode == "mean":
        return [one.number for one in ranked]
    front = [one for one in ranked if one.front == 0]
    ends = [
        _end(front, position, direction)
        for position, direction in enumerate(aims.directions)
        if front
    ]
    return list(dict.fromkeys(one.number for one in (*front[:1], *ends, *ranked)))


def ranked_loss(value: float, violations: Sequence[float]) -> float:
    """Return one number to minimise, for samplers that know no conditions.

    Every trial that misses a condition stands behind all that miss none, the nearer ones first (the
    feasibility rules of Deb 2000). Samplers that go by rank, as CMA-ES does, see nothing else of it.

    Args:
        value: The objective, more is better.
        violations: By how much each condition is missed; empty: no conditions.

    Returns:
        `-value` without conditions; with them -value / (1 + |value|), within (-1, 1), where all are met,
        else 1 + the total violation.
    """
    if not violations:
        return -value
    if feasible(violations):
        return -value / (1 + abs(value))
    return 1 + total_violation(violations)


def _end(front: Sequence[Ranked], position: int, direction: Direction) -> Ranked:
    """Return the first of those with the best value of one objective."""
    sign = 1.0 if direction == "maximize" else -1.0
    return max(front, key=lambda one: sign * one.values[position])
