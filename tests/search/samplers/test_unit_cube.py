from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution

from evomerge.search.samplers.unit_cube import UnitCube

RANGES = {
    "linear": FloatDistribution(-0.5, 1.2),
    "log": FloatDistribution(1e-3, 10.0, log=True),
}
CUBE = UnitCube(RANGES)


@given(st.floats(0, 1), st.floats(0, 1))
def test_there_and_back(x: float, y: float) -> None:
    params = CUBE.from_unit(np.array([x, y]))
    assert CUBE.to_unit(params) == pytest.approx([x, y], abs=1e-12)
    for name, value in params.items():
        assert RANGES[name].low <= value <= RANGES[name].high


def test_ends_and_middles() -> None:
    assert CUBE.from_unit(np.zeros(2)) == pytest.approx({"linear": -0.5, "log": 1e-3})
    assert CUBE.from_unit(np.ones(2)) == pytest.approx({"linear": 1.2, "log": 10.0})
    assert CUBE.from_unit(np.full(2, 0.5)) == pytest.approx({"linear": 0.35, "log": 0.1})


def test_points_outside_are_put_on_the_border() -> None:
    assert CUBE.to_unit({"linear": 2.0, "log": 1e-9}).tolist() == [1.0, 0.0]
    assert CUBE.to_unit({"linear": -9.0, "log": -1.0}).tolist() == [0.0, 0.0]


def test_values_are_plain_numbers_by_name() -> None:
    turned = UnitCube(dict(reversed(RANGES.items())))
    assert len(turned) == 2
    assert turned.to_unit({"linear": -0.5, "log": 10.0}).tolist() == [1.0, 0.0]
    assert {type(value) for value in turned.from_unit(np.full(2, 0.25)).values()} == {float}
