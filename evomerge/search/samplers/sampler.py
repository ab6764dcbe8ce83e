"""What a sampler is to the study: it proposes points, and is told what came of them.

A sampler's state is a function of the calls of `asked`, `told`, `known` and the steps, in their order; every
random number is one of (seed, trial number). So repeating the recorded calls rebuilds it, with no pickles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge.candidate import Coefficients
from evomerge.candidate.tables import Array
from evomerge.candidate.trial import Outcome
from evomerge.objective import Direction
from evomerge.search.samplers.descent import BATCH, Step

Params = Mapping[str, float]


@dataclass(frozen=True)
class Problem:
    """What a sampler searches.

    Attributes:
        distributions: Dimension → range, at least one; every trial has all of them.
        directions: One an objective value.
        trials: The budget as it was when the campaign began, whatever was added since.
        seed: Of the random numbers.
        differentiable: The dimensions that have a gradient.
        gold: Task → number of its search items with a gold answer, for the tasks that have any.
        weights: Task → weight of its objective, for the tasks of `gold`.
        batch: Items of each task that one gradient reads.
        scales: Of the coefficients that a descent learns: `group`, and `tensor` and `row` where candidates
            take them.
        arms: Searches among which the trials are shared out.
        start: Where to begin while no point is known; None: in the middle of all ranges.
        tasks_apart: Where there are several objectives, whether each task is one; else their mean is.
    """

    distributions: Mapping[str, FloatDistribution]
    directions: Sequence[Direction] = ("maximize",)
    trials: int = 200
    seed: int = 0
    differentiable: Sequence[str] = ()
    gold: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    batch: int = BATCH
    scales: Sequence[str] = ("group",)
    arms: int = 1
    start: Mapping[str, float] | None = None
    tasks_apart: bool = True


@dataclass(frozen=True)
class Measurement:
    """What came of a point.

    Attributes:
        values: Objective values, in the study's directions; estimates where a trial was pruned.
        loss: One number to minimise that orders points as the campaign does, constraints included.
        violations: By how much each constraint is missed; met where at most 0.
        outcome: With the score of each item; None: not at hand.
        coefficients: What single tensors and rows add to the weights at the point.
    """

    values: tuple[float, ...]
    loss: float
    violations: tuple[float, ...] = ()
    outcome: Outcome | None = field(default=None, compare=False, repr=False)
    coefficients: Coefficients | None = None


class Sampler:
    """A source of points; derive from it and override what the sampler learns from.

    Every call but `propose`, `coefficients`, `path`, `next_step`, `step` and `state` is repeated when a
    campaign is resumed, without the gradients by rows; what these made is restored at the end.

    Attributes:
        learns: From results. One that does not spreads over methods and subsets by itself.
        needs_gold: It asks for gradients, which need tasks with gold answers.
        several_objectives: It can search for a Pareto front.
    """

    learns: ClassVar[bool] = True
    needs_gold: bool = False
    several_objectives: ClassVar[bool] = True

    def __init__(self, problem: Problem) -> None:
        """Begin a search."""

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Return a point for trial `number`; another `attempt` may give another point."""
        raise TypeError(f"{type(self).__name__} must override `propose`")

    def coefficients(self, params: Params) -> Coefficients | None:
        """Return what single tensors and rows add to the weights at a point that was proposed last."""
        return None

    def asked(self, number: int, params: Params) -> None:
        """Note that trial `number` is running, at the point proposed or another."""

    def told(self, number: int, params: Params, result: Measurement | None) -> None:
        """Take the result of a trial; None: it failed."""

    def known(self, params: Params, result: Measurement) -> None:
        """Take a point that no trial asked for, such as a baseline's."""

    def restart(self) -> None:
        """Go on around the best point known, if the sampler draws around one."""

    @property
    def is_due(self) -> bool:
        """Whether a point of a descent is to be scored before anything else."""
        return False

    @property
    def is_descending(self) -> bool:
        """Whether a descent is under way, or its last point not scored yet."""
        return False

    def path(self, number: int) -> Sequence[int]:
        """Return the trials of the descent that a trial belongs to, in their order; none: to no descent."""
        return ()

    def next_step(self, *, begin: bool = True) -> Step | None:
        """Return a gradient to be taken by an idle worker; None: ask for a trial instead.

        Args:
            begin: Whether another descent may begin.
        """
        return None

    def step(
        self, descent: int, number: int, params: Params, items: Mapping[str, tuple[int, ...]]
    ) -> Step:
        """Return a step as it was asked for before.

        Raises:
            TypeError: The sampler takes no gradients.
        """
        raise TypeError(f"{type(self).__name__} takes no gradients")

    def step_asked(self, step: Step) -> None:
        """Note that a step is being scored."""

    def step_told(
        self,
        descent: int,
        gradients: Mapping[str, float] | None,
        rows: Mapping[str, Array] | None = None,
    ) -> None:
        """Take the gradient of the step that a descent waits for; None: it failed.

        Args:
            descent: Which one.
            gradients: Dimension → gradient.
            rows: Tensor → gradient by the weight of each row, `[experts, rows]`; None: not at hand.
        """

    def state(self, descent: int) -> bytes | None:
        """Return what the gradients by rows made of a descent; None: nothing."""
        return None

    def restore(self, descent: int, state: bytes) -> None:
        """Take back the `state` of a descent."""


def seed_of(seed: int, number: int, attempt: int = 0) -> int:
    """Return a 32-bit seed of its own for each trial (and attempt) of a study."""
    entropy = (seed, number) if attempt == 0 else (seed, number, attempt)
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
