"""What a sampler is to the study: it proposes points, and is told what came of them.

A sampler's state is a function of what it noted, in the order in which it noted it; every random number
is one of (seed, trial number). So hearing the recorded events again rebuilds it exactly, with no pickles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from evomerge.candidate.trial import Outcome
from evomerge.search.descent import Step

Params = Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """What came of a point.

    Attributes:
        values: Objective values, in the study's directions; estimates where a trial was pruned.
        loss: One number to minimise that orders points as the campaign does, conditions included.
        violations: By how much each condition is missed; met where at most 0.
        outcome: With the score of each item; None: not at hand.
    """

    values: tuple[float, ...]
    loss: float
    violations: tuple[float, ...] = ()
    outcome: Outcome | None = field(default=None, compare=False, repr=False)


class Sampler(Protocol):
    """A source of points. `asked`, `told` and `known` are repeated at a replay, `propose` is not."""

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Return a point for trial `number`; another `attempt` may give another point."""

    def asked(self, number: int, params: Params) -> None:
        """Note that trial `number` is in flight, at the point proposed or another."""

    def told(self, number: int, params: Params, result: Result | None) -> None:
        """Take the result of a trial; None: it failed."""

    def known(self, params: Params, result: Result) -> None:
        """Take a point that no trial asked for, such as a baseline's."""


@runtime_checkable
class DescendingSampler(Sampler, Protocol):
    """A source of points that also asks for gradients. All but `next_step` and `step` are repeated."""

    def next_step(self) -> Step | None:
        """Return a step for an idle worker; None: ask for a trial instead."""

    def step(
        self, descent: int, number: int, params: Params, items: Mapping[str, tuple[int, ...]]
    ) -> Step:
        """Return a step as it was asked for before."""

    def step_asked(self, step: Step) -> None:
        """Note that a step is in flight."""

    def step_told(self, descent: int, gradients: Mapping[str, float] | None) -> None:
        """Take the gradient of the step in flight of a descent; None: it failed."""


@runtime_checkable
class Restartable(Protocol):
    """A source of points that draws around one of them."""

    def restart(self) -> None:
        """Go on around the best point known."""


def seed_of(seed: int, number: int, attempt: int = 0) -> int:
    """Return a 32-bit seed of its own for each trial (and attempt) of a study."""
    entropy = (seed, number) if attempt == 0 else (seed, number, attempt)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
