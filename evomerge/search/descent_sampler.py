"""Descents from the best points known, then another sampler around what they found.

Paths are followed side by side, as many as there are idle workers for (`MOST_PATHS` at most); their
checkpoints are ordinary trials. What has no gradient (densities, methods, mask seeds, subsets) stays as it is
along a path, and is searched by the sampler that goes on around the best point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge.search.cmaes_sampler import CmaEsSampler
from evomerge.search.descent import BATCH, Descent, Step
from evomerge.search.sampler import Params, Result, Sampler

AROUND = 0.05
"""First step size of CMA-ES around what the descents found, as a share of each range."""

MOST_PATHS = 8
_PATHS_IN_TURN = 2
_SHORT_BUDGET = 50  # trials; below, one path in turn


def paths_followed(trials: int, workers: int, shares: int = 1) -> int:
    """Return how many paths a search begins, if its budget lets it.

    Args:
        trials: The budget.
        workers: How many there are; one that is idle while another follows a path begins the next.
        shares: Several to go to several places of a Pareto front.
    """
    return max(_in_turn(trials, shares), MOST_PATHS if workers > 1 else 0)


def _in_turn(trials: int, shares: int) -> int:
    return max(shares, 1 if trials < _SHORT_BUDGET else _PATHS_IN_TURN)


class DescentSampler:
    """Paths along the gradient, then `rest`.

    Args:
        distributions: The whole space.
        differentiable: Its dimensions that have a gradient; at least one.
        counts: Task → number of its search items with a gold answer, for the tasks that have any.
        shares: Task → share of its loss, one mapping a path in turn: a single one for one objective value,
            several to go to several places of a Pareto front.
        trials: The budget.
        seed: Of the mini-batches.
        rest: Makes the sampler beside the paths (False) and after them (True).
        batch: Items of each task that one step reads.
    """

    def __init__(
        self,
        distributions: Mapping[str, FloatDistribution],
        differentiable: Sequence[str],
        counts: Mapping[str, int],
        shares: Sequence[Mapping[str, float]],
        trials: int,
        seed: int,
        rest: Callable[[bool], Sampler],
        *,
        batch: int = BATCH,
    ) -> None:
        self._distributions = dict(distributions)
        self._gradientd = {name: distributions[name] for name in differentiable}
        self._counts, self._shares, self._seed = dict(counts), list(shares), seed
        self._in_turn = _in_turn(trials, len(shares))
        self._build_rest, self._batch = rest, batch
        self._rest, self._rest_is_last = rest(False), False
        self._paths: list[Descent] = []
        self._mine: dict[int, Descent] = {}  # trials that are checkpoints
        self._others: dict[int, Sampler] = {}  # trials in flight of the sampler beside or after
        self._heard: list[tuple[float, dict[str, float], Result]] = []  # every point, in order

    @property
    def is_due(self) -> bool:
        """Whether a checkpoint is to be scored before anything else."""
        return any(path.due for path in self._paths)

    @property
    def descents(self) -> int:
        """How many descents began."""
        return len(self._paths)

    @property
    def is_descending(self) -> bool:
        """Whether a descent is under way, or its last checkpoint not scored yet."""
        return any(not path.over for path in self._paths) or self.is_due or bool(self._mine)

    @property
    def in_turn(self) -> int:
        """How many descents there will be where they are followed one by one."""
        return self._in_turn

    def next_step(self) -> Step | None:
        """Return a step for an idle worker; None: ask for a trial instead."""
        if self.is_due:
            return None
        going = any(not path.over for path in self._paths)
        found = self.idle_step()
        if found is None and len(self._paths) < (MOST_PATHS if going else self._in_turn):
            return self.first_step()
        return found

    def idle_step(self) -> Step | None:
        """Return the next step of the descent that is least far, of those that wait for a worker."""
        idle = [path for path in self._paths if not (path.busy or path.due or path.over)]
        return min(idle, key=lambda path: path.steps).next_step() if idle else None

    def first_step(self) -> Step:
        """Return the first step of another descent."""
        return self._path(self._start()).next_step()

    def restart(self) -> None:
        """Let the sampler beside or after the descents begin again at the best point known."""
        if isinstance(self._rest, CmaEsSampler):
            self._rest.restart()

    def step_asked(self, step: Step) -> None:
        """Note that a step is in flight."""
        if step.descent == len(self._paths):
            self._paths.append(self._path(step.params))
        self._paths[step.descent].busy = True

    def step_told(self, descent: int, gradients: Mapping[str, float] | None) -> None:
        """Take the gradients of a path's step in flight; None: it failed."""
        self._paths[descent].learn(gradients)

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Return the point of a checkpoint, or what the sampler beside the paths or after them proposes."""
        for path in self._paths:
            if path.due:
                return path.point
        self._turn()
        return self._rest.propose(number, attempt)

    def asked(self, number: int, params: Params) -> None:
        """Note that a trial is in flight, a checkpoint or one of the other sampler's."""
        for path in self._paths:
            if path.due and path.point == params:
                path.due = False
                self._mine[number] = path
                return
        self._turn()
        self._others[number] = self._rest
        self._rest.asked(number, params)

    def told(self, number: int, params: Params, result: Result | None) -> None:
        """Take the result of a trial."""
        if result is not None:
            self._heard.append((result.loss, dict(params), result))
        other, path = self._others.pop(number, None), self._mine.pop(number, None)
        if other is not None:
            other.told(number, params, result)
        if path is not None and result is not None:
            path.aims(result.loss)
        if other is not self._rest and result is not None:
            self._rest.known(params, result)

    def known(self, params: Params, result: Result) -> None:
        """Take a point that no trial asked for."""
        self._heard.append((result.loss, dict(params), result))
        self._rest.known(params, result)

    def step(
        self, descent: int, number: int, params: Params, items: Mapping[str, tuple[int, ...]]
    ) -> Step:
        """Return a step as it was asked for before."""
        return Step(descent, number, dict(params), dict(items), self._shares_of(descent))

    def _shares_of(self, descent: int) -> Mapping[str, float]:
        return self._shares[descent % len(self._shares)]

    def _path(self, start: Params) -> Descent:
        index = len(self._paths)
        return Descent(
            index,
            dict(start),
            self._gradientd,
            self._counts,
            self._shares_of(index),
            self._seed,
            batch=self._batch,
        )

    def _start(self) -> dict[str, float]:
        """Return the best point from which no path began; the middle of the space if there is none."""
        begun = [path.start for path in self._paths]
        fresh = [(loss, params) for loss, params, _ in self._heard if params not in begun]
        if fresh and len(self._shares) == 1:
            return min(fresh, key=lambda pair: pair[0])[1]
        if self._heard:
            return min(self._heard, key=lambda noted: noted[0])[1]
        return {name: float(np.mean([d.low, d.high])) for name, d in self._distributions.items()}

    def _turn(self) -> None:
        """Once every path is over, go on around the best point."""
        over = len(self._paths) >= self._in_turn and all(path.over for path in self._paths)
        if over and not self._rest_is_last:
            self._rest, self._rest_is_last = self._build_rest(True), True
            for _, params, result in self._heard:
                self._rest.known(params, result)
