"""Entrants of the comparison that are no samplers of the package: mergekit's settings, ideas that were tried.

All but `mergekit` start at the best point known, with the package's first step and size of a generation,
so that what differs is the one thing that each is named after.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from cmaes import CMA, SepCMA
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution

from benchmarks.search._mixed import MixedSampler, start_at
from evomerge.merge.layout import Layout
from evomerge.preflight.check import Preflight
from evomerge.search.samplers.cmaes import SIGMA, is_separable, population_size
from evomerge.search.samplers.sampler import Measurement, Params, Sampler, seed_of
from evomerge.search.samplers.unit_cube import UnitCube, Vector
from evomerge.space import Space

DRAWS = 8
"""Of which the surrogate chooses one."""
RIDGES = np.logspace(-3, 1, 9)
WEIGHT = "weight"


def mergekit(ready: Preflight) -> Sampler:
    """CMA-ES with the settings of mergekit-evolve."""
    space = ready.space
    return MergekitSettings(space.distributions, len(space.family.experts), _seed(ready))


def catcmawm(ready: Preflight) -> Sampler:
    """CatCMA with margin; densities in levels, methods and experts that take part as categories."""
    return MixedSampler(ready.space, _seed(ready))


def cmaes_blocks(ready: Preflight) -> Sampler:
    """CMA-ES with a covariance for each group of layers."""
    blocks = layer_blocks(ready.space)
    cube = UnitCube(ready.space.distributions)
    return CmaSampler(cube, _seed(ready), lambda mean: Blocks(mean, blocks))


def cmaes_norms(ready: Preflight) -> Sampler:
    """CMA-ES with smaller steps where an expert moved the tensors further."""
    scales = steps(ready.space, task_vector_norms(ready))
    cube = UnitCube(ready.space.distributions)
    trials = ready.campaign.planned_trials
    return CmaSampler(cube, _seed(ready), lambda mean: Stretched(mean, scales, trials))


def cmaes_screened(ready: Preflight) -> Sampler:
    """CMA-ES whose draws are screened by a linear model."""
    cube = UnitCube(ready.space.distributions)
    trials = ready.campaign.planned_trials
    plain = np.ones(len(cube))
    return ScreenedSampler(cube, _seed(ready), lambda mean: Stretched(mean, plain, trials))


ENTRANTS: Mapping[str, Callable[[Preflight], Sampler]] = {
    "mergekit": mergekit,
    "catcmawm": catcmawm,
    "cmaes-blocks": cmaes_blocks,
    "cmaes-norms": cmaes_norms,
    "cmaes-screened": cmaes_screened,
}
"""Name on the command line → what makes the sampler of a checked campaign."""


class MergekitSettings:
    """CMA-ES as mergekit-evolve 0.1.5 sets it up: x0 = 1/n, σ = 1/6, a full covariance, no bounds."""

    def __init__(
        self, distributions: Mapping[str, FloatDistribution], experts: int, seed: int
    ) -> None:
        self._distributions, self._seed = distributions, seed
        start = [1 / experts if name.startswith(WEIGHT) else 1.0 for name in distributions]
        self._cma = CMA(mean=np.array(start), sigma=1 / 6, seed=seed)
        self._told: list[tuple[Vector, float]] = []

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Draw a point; one outside the ranges is put back on their ends."""
        self._cma.reseed_rng(seed_of(self._seed, number, attempt))
        point = self._cma.ask()
        return {
            name: float(min(max(value, one.low), one.high))
            for value, (name, one) in zip(point, self._distributions.items(), strict=True)
        }

    def asked(self, number: int, params: Params) -> None:
        """Nothing depends on it."""

    def told(self, number: int, params: Params, result: Measurement | None) -> None:
        """Wait for the whole generation, then move."""
        if result is None:
            return
        self._told.append((np.array(list(params.values())), result.loss))
        if len(self._told) == self._cma.population_size:
            self._cma.tell(self._told)
            self._told = []

    def known(self, params: Params, result: Measurement) -> None:
        """It starts at its own point."""


class Optimizer(ABC):
    """What draws points of the unit cube, and moves once it has noted of λ of them."""

    population_size: int

    @abstractmethod
    def ask(self, seed: int) -> Vector:
        """Draw a point; each coordinate that left the cube is put back on its end."""

    @abstractmethod
    def tell(self, told: Sequence[tuple[Vector, float]]) -> None:
        """Take λ points and their losses."""


class CmaSampler(Sampler):
    """The package's CMA-ES around another distribution: same start, every result counts; no restarts.

    Args:
        cube: Of the whole space.
        seed: Of the random numbers.
        new: Makes the optimizer that starts at a point of the unit cube.
    """

    def __init__(self, cube: UnitCube, seed: int, new: Callable[[Vector], Optimizer]) -> None:
        self._cube, self._seed, self._new = cube, seed, new
        self._optimizer: Optimizer | None = None
        self._told: list[tuple[Vector, float]] = []
        self._heard: list[tuple[Vector, float]] = []

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Draw a point."""
        return self._cube.from_unit(self._started().ask(seed_of(self._seed, number, attempt)))

    def asked(self, number: int, params: Params) -> None:
        """Begin with the first trial: at the best point known by then."""
        self._started()

    def told(self, number: int, params: Params, result: Measurement | None) -> None:
        """Take a result; with λ of them move the distribution. A failed trial tells nothing."""
        if result is None:
            return
        self.known(params, result)
        self._told.append(self._heard[-1])
        optimizer = self._started()
        if len(self._told) == optimizer.population_size:
            optimizer.tell(self._told)
            self._told = []

    def known(self, params: Params, result: Measurement) -> None:
        """Remember the point."""
        self._heard.append((self._cube.to_unit(params), result.loss))

    def _started(self) -> Optimizer:
        if self._optimizer is None:
            self._optimizer = self._new(start_at(self._heard, len(self._cube)))
        return self._optimizer


class ScreenedSampler(CmaSampler):
    """Of some draws, the one that a ridge regression on all points noted of so far thinks best.

    The linear model of lq-CMA-ES (Hansen 2019, "A global surrogate assisted CMA-ES"), which begins with it
    too while points are few; its ridge is the one with the least leave-one-out error.
    """

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Draw points and return the most promising."""
        optimizer = self._started()
        draws = np.stack(
            [
                optimizer.ask(seed_of(self._seed, number, attempt * DRAWS + draw))
                for draw in range(DRAWS)
            ]
        )
        best = int(np.argmin(draws @ gradient_of(self._heard))) if len(self._heard) > 2 else 0
        return self._cube.from_unit(draws[best])


class Stretched(Optimizer):
    """CMA-ES with a first step of its own in each dimension.

    Args:
        mean: Start, a point of the unit cube.
        scales: Share of the package's first step that each dimension takes, shape [dimensions].
        trials: The budget, which decides whether a full covariance can be learned.
    """

    def __init__(self, mean: Vector, scales: Vector, trials: int) -> None:
        self._scales = scales
        cma = SepCMA if is_separable(len(mean), trials) else CMA
        size = population_size(len(mean))
        self._cma = cma(**_settings(mean / scales, 1 / scales, size))
        self.population_size = size

    def ask(self, seed: int) -> Vector:
        """Draw a point."""
        self._cma.reseed_rng(seed)
        point: Vector = self._cma.ask() * self._scales
        return point

    def tell(self, told: Sequence[tuple[Vector, float]]) -> None:
        """Move."""
        self._cma.tell([(point / self._scales, loss) for point, loss in told])


class Blocks(Optimizer):
    """One CMA-ES a block of dimensions, each with a full covariance and a step size of its own.

    All draw a part of the same points and rank them by the loss of the whole: a covariance that is block
    diagonal, in the manner of cooperative coevolution (Potter and De Jong 1994), but with joint samples.

    Args:
        mean: Start, a point of the unit cube.
        blocks: Positions of the dimensions of each block; two at least in each.
    """

    def __init__(self, mean: Vector, blocks: Sequence[NDArray[np.int64]]) -> None:
        self._mean, self._blocks = mean, blocks
        self.population_size = population_size(len(mean))
        self._parts = [
            CMA(**_settings(mean[block], np.ones(len(block)), self.population_size))
            for block in blocks
        ]

    def ask(self, seed: int) -> Vector:
        """Draw a point, a part from each block."""
        point = self._mean.copy()
        for number, (block, part) in enumerate(zip(self._blocks, self._parts, strict=True)):
            part.reseed_rng(seed_of(seed, number))
            point[block] = part.ask()
        return point

    def tell(self, told: Sequence[tuple[Vector, float]]) -> None:
        """Move every block."""
        for block, part in zip(self._blocks, self._parts, strict=True):
            part.tell([(point[block], loss) for point, loss in told])


def layer_blocks(space: Space) -> list[NDArray[np.int64]]:
    """Return the positions of the dimensions of each group of layers; those of no layer are one more."""
    rows = {name: place[0] for one in space.searched for name, place in one.places.items()}
    of = np.array([rows.get(name, -1) for name in space.distributions])
    return [np.flatnonzero(of == row) for row in np.unique(of)]


def task_vector_norms(ready: Preflight) -> dict[str, float]:
    """Return, for each dimension of a weight, the norm of the part of the task vector that it scales."""
    space, family = ready.space, ready.family
    weight = space.named[WEIGHT]
    layout, base = Layout.of(family.base), family.base
    squares = np.zeros((len(weight.groups), len(weight.components), len(weight.experts)))
    for position, model in enumerate(space.family.experts.values()):
        expert = family.checkpoints[model]
        for name in base.tensors:
            layer = layout.layer_of(name)
            depth = layer if layer is not None else (layout.num_layers - 1) * (name in layout.last)
            row = next(at for at, (_, stop) in enumerate(weight.groups) if depth < stop)
            column = next(
                (at for at, part in enumerate(weight.components[:-1]) if part and part in name),
                len(weight.components) - 1,
            )
            moved = expert.tensor(name).double() - base.tensor(name).double()
            squares[row, column, position % len(weight.experts)] += float(moved.square().sum())
    return {name: float(np.sqrt(squares[place])) for name, place in weight.places.items()}


def steps(space: Space, norms: Mapping[str, float]) -> Vector:
    """Return the steps that move the tensors equally far, with mean 1 over the weights; 1 for the rest."""
    inverse = {name: 1 / norm for name, norm in norms.items()}
    mean = sum(inverse.values()) / len(inverse)
    return np.array([inverse.get(name, mean) / mean for name in space.distributions])


def gradient_of(noted: Sequence[tuple[Vector, float]]) -> Vector:
    """Return the gradient of the loss by a ridge regression, shape [dimensions]."""
    points, losses = np.stack([point for point, _ in noted]), np.array([loss for _, loss in noted])
    points, losses = points - points.mean(axis=0), losses - losses.mean()
    gram = points @ points.T

    def error(ridge: float) -> float:
        hat = gram @ np.linalg.inv(gram + ridge * np.eye(len(gram))) + 1 / len(gram)
        return float(np.square((losses - hat @ losses) / (1 - np.diag(hat))).sum())

    ridge = min(RIDGES.tolist(), key=error)
    gradient: Vector = points.T @ np.linalg.solve(gram + ridge * np.eye(len(gram)), losses)
    return gradient


def _settings(mean: Vector, high: Vector, size: int) -> dict[str, Any]:
    """Settings of the package's CMA-ES in a box that begins at 0."""
    return {
        "mean": mean,
        "sigma": SIGMA,
        "bounds": np.stack([np.zeros(len(high)), high], axis=1),
        "n_max_resampling": 0,
        "seed": 0,  # every draw is seeded again
        "population_size": size,
    }


def _seed(ready: Preflight) -> int:
    return ready.campaign.search.seed
