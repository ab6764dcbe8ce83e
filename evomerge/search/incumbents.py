"""The best so far, whose per-item scores candidates are raced against."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.candidate.trial import Outcome
from evomerge.objective import Direction, feasible

_MOST = 8  # rivals of one race; of a large front the latest


class Incumbents:
    """The best outcome that meets every constraint; with several objectives, the front of them.

    Args:
        directions: One an objective value.
    """

    def __init__(self, directions: Sequence[Direction]) -> None:
        self._signs = [1.0 if direction == "maximize" else -1.0 for direction in directions]
        self._front: list[tuple[list[float], Outcome]] = []

    def note(self, values: Sequence[float], violations: Sequence[float], outcome: Outcome) -> None:
        """Take an outcome that was scored in full; of equals the earlier stays."""
        if not feasible(violations) or outcome.pruned is not None:
            return
        upward = [sign * value for sign, value in zip(self._signs, values, strict=True)]
        if any(_covers(other, upward) for other, _ in self._front):
            return
        self._front = [pair for pair in self._front if not _covers(upward, pair[0])]
        self._front.append((upward, outcome))

    @property
    def outcomes(self) -> list[Outcome]:
        """Their outcomes, the earlier first."""
        return [outcome for _, outcome in self._front[-_MOST:]]


def _covers(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True))
