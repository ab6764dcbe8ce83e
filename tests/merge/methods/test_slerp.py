"""Interpolation on the sphere."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.merge.methods.slerp import coefficient_gradients, coefficients


def test_the_ends_are_the_models(merge):
    a, b = torch.randn(4, 5), torch.randn(4, 5)
    assert torch.allclose(merge("slerp", [a, b], [{}, {}], t=0.0), a, atol=1e-6)
    assert torch.allclose(merge("slerp", [a, b], [{}, {}], t=1.0), b, atol=1e-6)
    assert torch.allclose(merge("slerp", [a, b], [{}, {}], base=1, t=0.0), b, atol=1e-6)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1))
def test_unit_vectors_stay_on_the_sphere_at_equal_speed(merge, t):
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    found = merge("slerp", [a, b], [{}, {}], t=t)
    assert found.norm().item() == pytest.approx(1, abs=1e-6)
    assert math.atan2(found[1], found[0]) == pytest.approx(t * math.pi / 2, abs=1e-5)


@pytest.mark.parametrize("factor", [2.0, -1.0])
def test_parallel_and_opposed_models_are_interpolated_straight(factor, merge):
    a = torch.randn(6)
    found = merge("slerp", [a, factor * a], [{}, {}], t=0.25)
    assert torch.allclose(found, 0.75 * a + 0.25 * factor * a)


def test_zeros_are_interpolated_as_mergekit_does(merge):
    """A norm of 0 counts as 1: the cosine is 0, the angle a right one."""
    found = merge("slerp", [torch.zeros(3), torch.ones(3)], [{}, {}], t=0.5)
    assert torch.allclose(found, torch.full((3,), math.sqrt(0.5)))


def test_coefficients_at_the_threshold():
    assert coefficients(0.9996, 0.25) == (0.75, 0.25)
    assert coefficients(0.0, 0.5) == pytest.approx((math.sqrt(0.5),) * 2)


@given(st.floats(-1, 1), st.floats(0, 1))
def test_gradients_of_the_coefficients(cos, t):
    found = coefficient_gradients(cos, t)
    ahead, behind = (coefficients(cos, t + step) for step in (1e-6, -1e-6))
    expected = tuple((a - b) / 2e-6 for a, b in zip(ahead, behind, strict=True))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
