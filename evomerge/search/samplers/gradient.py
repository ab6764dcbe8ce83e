"""Descents from the best points known, then another sampler around what they found.

Paths are followed side by side, as many as there are idle workers for (`MOST_PATHS` at most); their
checkpoints are ordinary trials. What has no gradient (densities, methods, subsets) stays as it is along a
path, and is searched by the sampler that goes on around the best point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evomerge.candidate import Coefficients
from evomerge.candidate.tables import Array
from evomerge.search.samplers.cmaes import SIGMA, CmaEsSampler
from evomerge.search.samplers.descent import Descent, Step
from evomerge.search.samplers.optuna_samplers import NsgaSampler
from evomerge.search.samplers.sampler import Measurement, Params, Problem, Sampler
from evomerge.search.samplers.scales import FineScales
from evomerge.search.samplers.unit_cube import UnitCube

AROUND = 0.05
"""First step size of CMA-ES around what the descents found, as a share of each range."""

MOST_PATHS = 8
_PATHS_IN_TURN = 2
_SHORT_BUDGET = 50  # trials; below, one path in turn
_PATHS_TO_A_FRONT = 4


def paths_followed(trials: int, workers: int, shares: int = 1) -> int:
    """Return how many paths a search begins, if its budget lets it.

    Args:
        trials: The budget.
        workers: How many there are; one that is idle while no path has ended yet begins the next.
        shares: Several to go to several places of a Pareto front.
    """
    return max(_in_turn(trials, shares), min(workers, MOST_PATHS))


def _in_turn(trials: int, shares: int) -> int:
    return max(shares, 1 if trials < _SHORT_BUDGET else _PATHS_IN_TURN)


class DescentSampler(Sampler):
    """Paths along the gradient, then CMA-ES, or NSGA-II to a Pareto front.

    Args:
        problem: With at least one dimension that has a gradient.
    """

    needs_gold = True

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._shares = shares_of(problem)
        self._in_turn = _in_turn(problem.trials, len(self._shares))
        self._rest, self._rest_is_last = self._other(SIGMA), False
        self._paths: list[Descent] = []
        self._checkpoints: dict[int, Descent] = {}  # by trial that is being scored
        self._scored: dict[int, list[int]] = {}  # path → the trials at its checkpoints
        self._others: dict[int, Sampler] = {}  # trials being scored of the sampler beside or after
        self._results: list[
            tuple[float, dict[str, float], Measurement]
        ] = []  # of every point, in order

    @property
    def is_due(self) -> bool:
        """Whether a checkpoint is to be scored before anything else."""
        return any(path.due for path in self._paths)

    @property
    def is_descending(self) -> bool:
        """Whether a descent is under way, or its last checkpoint not scored yet."""
        return any(not path.over for path in self._paths) or self.is_due or bool(self._checkpoints)

    def path(self, number: int) -> Sequence[int]:
        """Return the checkpoints of the path that a trial is one of."""
        return next((trials for trials in self._scored.values() if number in trials), ())

    def next_step(self, *, begin: bool = True) -> Step | None:
        """Return a step of the path that is least far, of those that wait for a worker, or of another."""
        if self.is_due:
            return None
        idle = [path for path in self._paths if not (path.busy or path.over)]
        if idle:
            return min(idle, key=lambda path: path.steps).next_step()
        going = self._paths and not any(path.over for path in self._paths)
        if begin and len(self._paths) < (MOST_PATHS if going else self._in_turn):
            return self._path(self._start()).next_step()
        return None

    def restart(self) -> None:
        """Let the sampler beside or after the descents begin again at the best point known."""
        self._rest.restart()

    def step_asked(self, step: Step) -> None:
        """Note that a step is being scored."""
        if step.descent == len(self._paths):
            self._paths.append(self._path(step.params))
        self._paths[step.descent].busy = True

    def step_told(
        self,
        descent: int,
        gradients: Mapping[str, float] | None,
        rows: Mapping[str, Array] | None = None,
    ) -> None:
        """Take the gradients of the step that a path waits for; None: it failed."""
        self._paths[descent].learn(gradients, rows)

    def state(self, descent: int) -> bytes | None:
        """Return the coefficients of a path's tensors and rows; None where it learns none."""
        fine = self._paths[descent].fine
        return fine.state if fine.tables else None

    def restore(self, descent: int, state: bytes) -> None:
        """Take back the `state` of a path."""
        self._paths[descent].fine.restore(state)

    def coefficients(self, params: Params) -> Coefficients | None:
        """Return those of the path whose checkpoint the point is, else those of the best point known."""
        for path in self._paths:
            if path.due and path.point == params:
                return path.fine.coefficients
        best = min(self._results, key=lambda noted: noted[0], default=None)
        return None if best is None else best[2].coefficients

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Return the point of a checkpoint, or what the sampler beside the paths or after them proposes."""
        for path in self._paths:
            if path.due:
                return path.point
        self._turn()
        return self._rest.propose(number, attempt)

    def asked(self, number: int, params: Params) -> None:
        """Note that a trial is being scored, a checkpoint or one of the other sampler's."""
        for path in self._paths:
            if path.due and path.point == params:
                path.due = False
                self._checkpoints[number] = path
                self._scored.setdefault(path.index, []).append(number)
                return
        self._turn()
        self._others[number] = self._rest
        self._rest.asked(number, params)

    def told(self, number: int, params: Params, result: Measurement | None) -> None:
        """Take the result of a trial."""
        if result is not None:
            self._results.append((result.loss, dict(params), result))
        other, path = self._others.pop(number, None), self._checkpoints.pop(number, None)
        if other is not None:
            other.told(number, params, result)
        if path is not None and result is not None:
            path.aims(result.loss)
        if other is not self._rest and result is not None:
            self._rest.known(params, result)

    def known(self, params: Params, result: Measurement) -> None:
        """Take a point that no trial asked for."""
        self._results.append((result.loss, dict(params), result))
        self._rest.known(params, result)

    def step(
        self, descent: int, number: int, params: Params, items: Mapping[str, tuple[int, ...]]
    ) -> Step:
        """Return a step as it was asked for before."""
        path = self._paths[descent] if descent < len(self._paths) else self._path(params)
        return path.at(number, dict(params), dict(items))

    def _path(self, start: Params) -> Descent:
        problem, index = self._problem, len(self._paths)
        return Descent(
            index,
            dict(start),
            {name: problem.distributions[name] for name in problem.differentiable},
            {task: problem.gold[task] for task in problem.weights},
            self._shares[index % len(self._shares)],
            problem.seed,
            batch=problem.batch,
            fine=FineScales([one for one in problem.scales if one != "group"]),
        )

    def _start(self) -> dict[str, float]:
        """Return the best point from which no path began; the problem's own start if there is none.

        Where tensors and rows add nothing: so paths differ.
        """
        begun = [path.start for path in self._paths]
        plain = [(loss, at) for loss, at, result in self._results if result.coefficients is None]
        fresh = [pair for pair in plain if pair[1] not in begun]
        for found in (fresh if len(self._shares) == 1 else [], plain):
            if found:
                return min(found, key=lambda pair: pair[0])[1]
        if self._problem.start is not None:
            return dict(self._problem.start)
        cube = UnitCube(self._problem.distributions)
        return cube.from_unit(np.full(len(cube), 0.5))

    def _other(self, sigma: float) -> Sampler:
        """Return the sampler beside the paths, or after them."""
        if len(self._problem.directions) > 1:
            return NsgaSampler(self._problem)
        return CmaEsSampler(self._problem, sigma)

    def _turn(self) -> None:
        """Once every path is over, go on around the best point."""
        over = len(self._paths) >= self._in_turn and all(path.over for path in self._paths)
        if over and not self._rest_is_last:
            self._rest, self._rest_is_last = self._other(AROUND), True
            for _, params, result in self._results:
                self._rest.known(params, result)


def shares_of(problem: Problem) -> list[dict[str, float]]:
    """Return the shares of the tasks' losses, one mapping a path in turn.

    To a Pareto front lead paths of other shares: the weights' own, then draws from the simplex.
    """
    weights = problem.weights
    total = sum(weights.values())
    shares = [{task: weight / total for task, weight in weights.items()}]
    if len(problem.directions) > 1 and problem.tasks_apart:
        draws = np.random.default_rng((problem.seed, len(weights))).dirichlet(
            np.full(len(weights), 0.5), size=max(_PATHS_TO_A_FRONT, len(weights)) - 1
        )
        shares += [dict(zip(weights, draw.tolist(), strict=True)) for draw in draws]
    return shares
