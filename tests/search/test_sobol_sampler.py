from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution

from evomerge.search.sobol_sampler import SobolSampler

SPACE = {name: FloatDistribution(0.0, 1.0) for name in "abc"}


def point(seed: int, number: int) -> list[float]:
    study = optuna.create_study(sampler=SobolSampler(SPACE, seed, number))
    return list(study.ask(fixed_distributions=SPACE).params.values())


def test_the_points_of_a_seed_fill_the_cube_evenly() -> None:
    points = np.array([point(5, number) for number in range(64)])
    for column in points.T:  # one in each 64th, which random numbers never manage
        assert sorted((column * 64).astype(int)) == list(range(64))


def test_a_point_depends_on_seed_and_number_only() -> None:
    assert point(5, 17) == point(5, 17)
    assert point(5, 17) != point(5, 18)
    assert point(5, 17) != point(6, 17)


def test_a_parameter_of_another_space_is_refused() -> None:
    study = optuna.create_study(sampler=SobolSampler(SPACE, 0, 0))
    with pytest.raises(ValueError, match='"y" is not a parameter of this space'):
        study.ask({"y": FloatDistribution(0, 1)})
