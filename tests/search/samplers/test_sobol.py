from __future__ import annotations

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge.search.samplers.sampler import Measurement, Problem
from evomerge.search.samplers.sobol import SobolSampler

SPACE = {name: FloatDistribution(0.0, 1.0) for name in "abc"}


def point(seed: int, number: int) -> list[float]:
    return list(SobolSampler(Problem(SPACE, seed=seed)).propose(number).values())


def test_the_points_of_a_seed_fill_the_cube_evenly() -> None:
    sampler = SobolSampler(Problem(SPACE, seed=5))
    points = np.array([list(sampler.propose(number).values()) for number in range(64)])
    for column in points.T:  # one in each 64th, which random numbers never manage
        assert sorted((column * 64).astype(int)) == list(range(64))


def test_a_point_depends_on_seed_and_number_only() -> None:
    assert point(5, 17) == point(5, 17)
    assert point(5, 17) != point(5, 18)
    assert point(5, 17) != point(6, 17)
    noted = SobolSampler(Problem(SPACE, seed=5))
    noted.known(dict.fromkeys(SPACE, 0.5), Measurement((1.0,), -1.0))
    noted.asked(0, noted.propose(0))
    noted.told(0, noted.propose(0), None)
    assert list(noted.propose(17).values()) == point(5, 17)
