"""Candidates that are being evaluated, and what was scored before: so that nothing is done twice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xxhash
from optuna.distributions import FloatDistribution

from evomerge.candidate.trial import Outcome
from evomerge.search.samplers.unit_cube import UnitCube, Vector

NEAR = 1e-3
"""Root mean square distance, in shares of the ranges, below which two candidates are as good as one."""


class InFlight:
    """What is being evaluated, by candidate and by place.

    Attributes:
        repeats: How many of the latest trials in a row had the candidate of an earlier one.

    Args:
        distributions: The space.
    """

    def __init__(self, distributions: Mapping[str, FloatDistribution]) -> None:
        self.repeats = 0
        self._cube = UnitCube(distributions)
        self._places: dict[int, Vector] = {}  # by trial
        self._keys: dict[int, bytes] = {}
        self._running: dict[
            bytes, int
        ] = {}  # candidate → the trial that is evaluated for all duplicates
        self._waiting: dict[int, list[int]] = {}  # that trial → its duplicates
        self._done: dict[bytes, Outcome] = {}
        self._seen: set[bytes] = set()

    def is_near(self, params: Mapping[str, float]) -> bool:
        """Tell whether something that is being evaluated is as good as the same."""
        if not self._places:
            return False
        apart = np.array(list(self._places.values())) - self._cube.to_unit(params)
        return bool((apart**2).mean(axis=1).min() < NEAR**2)

    def knows(self, text: str) -> bool:
        """Tell whether a candidate was asked for, by its text form."""
        return xxhash.xxh3_128_digest(text.encode()) in self._seen

    def start(self, number: int, params: Mapping[str, float], text: str) -> Outcome | None:
        """Begin a trial; return the outcome of an earlier trial of the same candidate.

        Args:
            number: Of the trial.
            params: Its point.
            text: Its candidate's text form, by which candidates are told apart.
        """
        key = self._keys[number] = xxhash.xxh3_128_digest(text.encode())
        self.repeats = self.repeats + 1 if key in self._seen else 0
        self._seen.add(key)
        self._places[number] = self._cube.to_unit(params)
        return self._done.get(key)

    def is_duplicate(self, number: int) -> bool:
        """Tell whether the same candidate is being evaluated already; then this trial waits for it."""
        first = self._running.setdefault(self._keys[number], number)
        if first == number:
            return False
        self._waiting.setdefault(first, []).append(number)
        return True

    def land(self, number: int, outcome: Outcome) -> list[int]:
        """Take an outcome; return the duplicates that waited for it.

        Failures and partial outcomes do not answer later trials.
        """
        key = self._keys.pop(number)
        del self._places[number]
        if self._running.get(key) == number:
            del self._running[key]
        if outcome.failure is None and outcome.pruned is None:
            self._done.setdefault(key, outcome)
        return self._waiting.pop(number, [])
