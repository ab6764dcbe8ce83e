from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution

from evomerge.search.unit_cube import from_unit, to_unit

RANGES = {
    "linear": FloatDistribution(-0.5, 1.2),
    "log": FloatDistribution(1e-3, 10.0, log=True),
}


@given(st.floats(0, 1), st.floats(0, 1))
def test_there_and_back(x: float, y: float) -> None:
    params = from_unit(np.array([x, y]), RANGES)
    assert to_unit(params, RANGES) == pytest.approx([x, y], abs=1e-12)
    for name, value in params.items():
        assert RANGES[name].low <= value <= RANGES[name].high


def test_ends_and_middles() -> None:
    assert from_unit(np.zeros(2), RANGES) == pytest.approx({"linear": -0.5, "log": 1e-3})
    assert from_unit(np.ones(2), RANGES) == pytest.approx({"linear": 1.2, "log": 10.0})
    assert from_unit(np.full(2, 0.5), RANGES) == pytest.approx({"linear": 0.35, "log": 0.1})


def test_points_outside_are_put_on_the_border() -> None:
    assert to_unit({"linear": 2.0, "log": 1e-9}, RANGES).tolist() == [1.0, 0.0]
