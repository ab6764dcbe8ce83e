"""Candidates in flight, and what was scored before: so that nothing is done twice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xxhash
from optuna.distributions import FloatDistribution

from evomerge.candidate.trial import Outcome
from evomerge.search.unit_cube import UnitCube, Vector

NEAR = 1e-3
"""Root mean square distance, in shares of the ranges, below which two candidates are as good as one."""

Key = bytes


class InFlight:
    """Who is in flight, by candidate and by place.

    Attributes:
        repeats: How many of the latest trials in a row were the candidate of an earlier one.

    Args:
        distributions: The space.
    """

    def __init__(self, distributions: Mapping[str, FloatDistribution]) -> None:
        self.repeats = 0
        self._cube = UnitCube(distributions)
        self._last: tuple[Mapping[str, float], Vector] | None = None  # a point and its place
        self._places = np.empty((8, len(self._cube)))  # [at least the trials in flight, dimensions]
        self._rows: dict[int, int] = {}  # trial → its row of `_places`; the rows are 0 to n - 1
        self._keys: dict[int, Key] = {}
        self._running: dict[
            Key, int
        ] = {}  # candidate → the trial that is evaluated for all its twins
        self._twins: dict[int, list[int]] = {}
        self._done: dict[Key, Outcome] = {}
        self._seen: set[Key] = set()

    def is_near(self, params: Mapping[str, float]) -> bool:
        """Tell whether something in flight is as good as the same."""
        if not self._rows:
            return False
        apart = self._places[: len(self._rows)] - self._place(params)
        squares = np.einsum("ij,ij->i", apart, apart)
        return bool(squares.min() < NEAR**2 * len(self._cube))

    def start(self, number: int, params: Mapping[str, float], text: str) -> Outcome | None:
        """Put a trial in flight; return the outcome of an earlier trial of the same candidate."""
        key = self._keys[number] = xxhash.xxh3_128_digest(text.encode())
        self.repeats = self.repeats + 1 if key in self._seen else 0
        self._seen.add(key)
        if len(self._rows) == len(self._places):
            self._places = np.concatenate([self._places, np.empty_like(self._places)])
        self._places[len(self._rows)] = self._place(params)
        self._rows[number] = len(self._rows)
        return self._done.get(key)

    def is_twin(self, number: int) -> bool:
        """Tell whether another trial of the candidate is in flight already; this one waits for it then."""
        leader = self._running.setdefault(self._keys[number], number)
        if leader == number:
            return False
        self._twins.setdefault(leader, []).append(number)
        return True

    def land(self, number: int, outcome: Outcome) -> list[int]:
        """Take an outcome; return the twins that waited for it.

        Failures and partial outcomes are no answer for later trials.
        """
        key = self._keys.pop(number)
        self._leave(number)
        if self._running.get(key) == number:
            del self._running[key]
        if outcome.failure is None and outcome.pruned is None:
            self._done.setdefault(key, outcome)
        return self._twins.pop(number, [])

    def _place(self, params: Mapping[str, float]) -> Vector:
        """Whichever worker is near is often started next: its place is known then."""
        if self._last is None or self._last[0] is not params:
            self._last = (params, self._cube.to_unit(params))
        return self._last[1]

    def _leave(self, number: int) -> None:
        """The last row moves to where the trial was."""
        row, last = self._rows.pop(number), len(self._rows)
        if row < last:
            moved = next(other for other, at in self._rows.items() if at == last)
            self._places[row] = self._places[last]
            self._rows[moved] = row
