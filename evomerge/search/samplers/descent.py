"""One path along the gradient of the gold answers' loss, in mini-batches of search items.

A path's state is a function of its start, its seed and the gradients that it noted, so repeating the recorded
ones again rebuilds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge.candidate import Coefficients
from evomerge.candidate.tables import Array
from evomerge.search.samplers.scales import MEAN_DECAY, SQUARE_DECAY, TINY, FineScales
from evomerge.search.samplers.unit_cube import Vector

BATCH = 8
"""Items of each task that one step reads; all of them where a task has fewer."""

FIRST_STEP = 0.05
"""How far each number moves at the first step (in its own unit; of a log range, in its logarithm).

Adam's steps do not depend on the scale of the loss, and a weight's unit is a whole task vector. A path whose
checkpoint scores worse than the one before goes on with steps half as long.
"""

CHECKPOINTS = (5, 10, 20, 40, 80)
"""After so many steps the point is scored in full, as a trial; the last one ends the path."""


@dataclass(frozen=True)
class Step:
    """One gradient to be taken.

    Attributes:
        descent: Which path, from 0.
        number: Which step of it, from 0.
        params: Where.
        items: Task → positions among the task's search items that have a gold answer, ascending.
        shares: Task → share of its mean loss in the total.
        rows: Whether the gradients by the weights of single rows are wanted, too.
        coefficients: What tensors and rows add to the weights there.
    """

    descent: int
    number: int
    params: Mapping[str, float]
    items: Mapping[str, tuple[int, ...]]
    shares: Mapping[str, float]
    rows: bool = False
    coefficients: Coefficients | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"descent {self.descent}, step {self.number}"

    @property
    def count(self) -> int:
        """How many items it reads."""
        return sum(map(len, self.items.values()))


@dataclass
class Descent:
    """Adam (Kingma and Ba 2014, 1412.6980) on those numbers of a point that have a gradient.

    Numbers that leave their range are put back on its end; the others of the point stay as they are.

    Attributes:
        index: Which path of the search.
        start: A value for each dimension of the space.
        distributions: The dimensions that have a gradient.
        counts: Task → number of its search items that have a gold answer.
        shares: Task → share of its mean loss.
        seed: Of the mini-batches.
        batch: Items of each task that one step reads.
        fine: The coefficients of tensors and rows.
        steps: How many were taken.
        busy: A step is being scored.
        due: The point is to be scored in full.
        over: It ended, at its last checkpoint or because a step failed.
        length: Of the steps to come, as `FIRST_STEP`.
    """

    index: int
    start: Mapping[str, float]
    distributions: Mapping[str, FloatDistribution]
    counts: Mapping[str, int]
    shares: Mapping[str, float]
    seed: int
    batch: int = BATCH
    fine: FineScales = field(default_factory=FineScales)
    steps: int = 0
    busy: bool = False
    due: bool = False
    over: bool = False
    length: float = FIRST_STEP
    _last_loss: float = math.inf
    _at: Vector = field(init=False)
    _mean: Vector = field(init=False)
    _square: Vector = field(init=False)

    def __post_init__(self) -> None:
        self._at = self._inward([self.start[name] for name in self.distributions])
        self._mean = np.zeros_like(self._at)
        self._square = np.zeros_like(self._at)

    @property
    def point(self) -> dict[str, float]:
        """A value for each dimension of the space."""
        moved = {
            name: self._outward(value, self.distributions[name])
            for name, value in zip(self.distributions, self._at.tolist(), strict=True)
        }
        return {**self.start, **(moved if self.steps else {})}

    def next_step(self) -> Step:
        """Return the step to be taken now."""
        items = {task: self._batch(task) for task in self.counts}
        return self.at(self.steps, self.point, items)

    def at(
        self, number: int, params: Mapping[str, float], items: Mapping[str, tuple[int, ...]]
    ) -> Step:
        """Return a step, with the coefficients as they are now."""
        rows = bool(self.fine.scales)
        fine = self.fine.coefficients
        return Step(self.index, number, params, items, self.shares, rows, fine)

    def learn(
        self, gradients: Mapping[str, float] | None, rows: Mapping[str, Array] | None = None
    ) -> None:
        """Go a step down.

        Args:
            gradients: Dimension → gradient of the loss; None where it could not be taken: the path ends.
            rows: Tensor → gradient by the weight of each row, `[experts, rows]`; None: not at hand, since the
                step is repeated and `fine` is restored afterwards.
        """
        self.busy = False
        if gradients is None or not all(map(math.isfinite, gradients.values())):
            self.over = True
            return
        along = np.array(
            [self._chained(name, gradients.get(name, 0.0)) for name in self.distributions]
        )
        self.steps += 1
        self._mean = MEAN_DECAY * self._mean + (1 - MEAN_DECAY) * along
        self._square = SQUARE_DECAY * self._square + (1 - SQUARE_DECAY) * along**2
        mean = self._mean / (1 - MEAN_DECAY**self.steps)
        square = self._square / (1 - SQUARE_DECAY**self.steps)
        moved = self._at - self.length * mean / (np.sqrt(square) + TINY)
        self._at = np.clip(moved, *self._ends())
        if rows is not None:
            self.fine.learn(rows, self.length, self.steps)
        self.due = self.steps in CHECKPOINTS
        self.over = self.steps >= CHECKPOINTS[-1]

    def aims(self, loss: float) -> None:
        """Take the loss of a checkpoint, scored in full."""
        if loss > self._last_loss:
            self.length /= 2
        self._last_loss = loss

    def _batch(self, task: str) -> tuple[int, ...]:
        """Draw from a task's items without replacement, again once they are used up."""
        count = self.counts[task]
        size = min(self.batch, count)
        per_epoch = count // size
        epoch, position = divmod(self.steps, per_epoch)
        order = np.random.default_rng((self.seed, self.index, epoch)).permutation(count)
        return tuple(sorted(order[position * size : (position + 1) * size].tolist()))

    def _ends(self) -> tuple[Vector, Vector]:
        low = self._inward([one.low for one in self.distributions.values()])
        high = self._inward([one.high for one in self.distributions.values()])
        return low, high

    def _inward(self, values: Sequence[float]) -> Vector:
        return np.array(
            [
                math.log(value) if distribution.log else float(value)
                for value, distribution in zip(values, self.distributions.values(), strict=True)
            ]
        )

    def _chained(self, name: str, gradient: float) -> float:
        if not self.distributions[name].log:
            return gradient
        position = list(self.distributions).index(name)
        return gradient * math.exp(float(self._at[position]))

    @staticmethod
    def _outward(value: float, distribution: FloatDistribution) -> float:
        value = math.exp(value) if distribution.log else value
        return min(max(value, float(distribution.low)), float(distribution.high))
