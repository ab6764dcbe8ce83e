"""CatCMA with margin as a sampler of merges: numbers, levels and categories in one distribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cmaes import CatCMAwM

from evomerge.search.samplers.cmaes import SIGMA, population_size
from evomerge.search.samplers.sampler import Measurement, Params, Sampler, seed_of
from evomerge.search.samplers.unit_cube import UnitCube, Vector
from evomerge.space import Space

LEVELS = 6
"""Of a density that is searched as an integer."""


class MixedSampler(Sampler):
    """CatCMA with margin (Hamano et al. 2025, 2504.07884), as the `cmaes` library has it.

    Numbers with a gradient are its continuous variables, in the unit cube; other numbers of a method, such
    as densities, its integers, in `LEVELS` levels; the method and whether an expert takes part its
    categories, of which the best point's begins with half of the probability and a share of the rest.

    Args:
        space: Where to search.
        seed: Of the random numbers.
    """

    def __init__(self, space: Space, seed: int) -> None:
        names = list(space.distributions)
        self._cube, self._seed = UnitCube(space.distributions), seed
        numbers = {name for one in space.searched for name in one.places} - set(
            space.differentiable
        )
        self._levels = [at for at, name in enumerate(names) if name in numbers]
        methods = [at for at, name in enumerate(names) if name.startswith("method/")]
        uses = [at for at, name in enumerate(names) if name.startswith("use/")]
        self._one_of = [methods] if methods else []
        self._switches = uses
        rest = {*self._levels, *methods, *uses}
        self._plain = [at for at in range(len(names)) if at not in rest]
        self._optimizer: CatCMAwM | None = None
        self._heard: list[tuple[Vector, float]] = []
        self._drawn: dict[int, CatCMAwM.Solution] = {}
        self._told: list[tuple[CatCMAwM.Solution, float]] = []

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Draw a point."""
        optimizer = self._started()
        optimizer.reseed_rng(seed_of(self._seed, number, attempt))
        drawn = self._drawn[number] = optimizer.ask()
        point = np.zeros(len(self._cube))
        point[self._plain] = drawn.x
        if self._levels:
            point[self._levels] = drawn.z
        categories = [] if drawn.c is None else list(drawn.c)
        for group in self._one_of:
            point[group] = categories.pop(0)[: len(group)]
        for at, category in zip(self._switches, categories, strict=True):
            point[at] = category[1]
        return self._cube.from_unit(point)

    def asked(self, number: int, params: Params) -> None:
        """Begin with the first trial: at the best point known by then."""
        self._started()

    def told(self, number: int, params: Params, result: Measurement | None) -> None:
        """Wait for a whole generation, then move; a trial that failed or was not drawn here tells nothing."""
        drawn = self._drawn.pop(number, None)
        if result is None or drawn is None:
            return
        self._told.append((drawn, result.loss))
        optimizer = self._started()
        if len(self._told) == optimizer.population_size:
            optimizer.tell(self._told)
            self._told = []

    def known(self, params: Params, result: Measurement) -> None:
        """Remember the point."""
        self._heard.append((self._cube.to_unit(params), result.loss))

    def _started(self) -> CatCMAwM:
        if self._optimizer is None:
            start = start_at(self._heard, len(self._cube))
            chosen = [(len(group), int(start[group].argmax())) for group in self._one_of]
            chosen += [(2, int(start[at] >= 0.5)) for at in self._switches]
            levels = np.linspace(0.0, 1.0, LEVELS).tolist()
            gaussian = [*self._plain, *self._levels]
            self._optimizer = CatCMAwM(
                x_space=[[0.0, 1.0]] * len(self._plain),
                z_space=[levels] * len(self._levels) or None,
                c_space=[count for count, _ in chosen] or None,
                population_size=population_size(len(self._cube)),
                mean=start[gaussian],
                sigma=SIGMA,
                cov=np.eye(len(gaussian)),
                cat_param=_probabilities(chosen) if chosen else None,
                seed=0,  # every draw is seeded again
            )
        return self._optimizer


def start_at(noted: Sequence[tuple[Vector, float]], dimensions: int) -> Vector:
    """Return a copy of the best point noted of, shape [dimensions]; the middle where there is none."""
    best = min(noted, key=lambda one: one[1], default=(np.full(dimensions, 0.5), 0.0))
    return best[0].copy()


def _probabilities(chosen: Sequence[tuple[int, int]]) -> Vector:
    """Half for the chosen one of so many categories, the rest shared by all; padded with 0."""
    table = np.zeros((len(chosen), max(count for count, _ in chosen)))
    for row, (count, at) in zip(table, chosen, strict=True):
        row[:count] = 0.5 / count
        row[at] += 0.5
    return table
