"""Candidates in flight, and what was scored before: so that nothing is done twice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xxhash
from optuna.distributions import FloatDistribution

from evomerge.recipe import Recipe
from evomerge.search.unit_cube import Vector, to_unit
from evomerge.trial import Outcome

NEAR = 1e-3
"""Root mean square distance, in shares of the ranges, below which two candidates are as good as one."""


class Flights:
    """Who is in flight, by recipe and by place.

    Args:
        distributions: The space.
    """

    def __init__(self, distributions: Mapping[str, FloatDistribution]) -> None:
        self._distributions = dict(distributions)
        self._places: dict[int, Vector] = {}
        self._keys: dict[int, str] = {}
        self._flying: dict[str, int] = {}  # recipe → the trial that is evaluated for all its twins
        self._twins: dict[int, list[int]] = {}
        self._done: dict[str, Outcome] = {}

    def is_near(self, params: Mapping[str, float]) -> bool:
        """Tell whether something in flight is as good as the same."""
        if not self._places:
            return False
        apart = np.stack(list(self._places.values())) - to_unit(params, self._distributions)
        return bool((np.sqrt((apart**2).mean(axis=1)) < NEAR).any())

    def start(self, number: int, params: Mapping[str, float], recipe: Recipe) -> Outcome | None:
        """Put a trial in flight; return the outcome of an earlier trial with the same recipe."""
        key = self._keys[number] = key_of(recipe)
        self._places[number] = to_unit(params, self._distributions)
        return self._done.get(key)

    def is_twin(self, number: int) -> bool:
        """Tell whether another trial of the same recipe is in flight already; then this one waits for it."""
        leader = self._flying.setdefault(self._keys[number], number)
        if leader == number:
            return False
        self._twins.setdefault(leader, []).append(number)
        return True

    def land(self, number: int, outcome: Outcome) -> list[int]:
        """Take an outcome; return the twins that waited for it.

        Failures and partial outcomes are no answer for later trials.
        """
        key = self._keys.pop(number)
        del self._places[number]
        if self._flying.get(key) == number:
            del self._flying[key]
        if outcome.failure is None and outcome.pruned is None:
            self._done.setdefault(key, outcome)
        return self._twins.pop(number, [])


def key_of(recipe: Recipe) -> str:
    """Return a text that is equal for equal recipes, within one run."""
    return xxhash.xxh3_128_hexdigest(repr(recipe).encode())
