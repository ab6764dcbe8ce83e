"""Interpolation of two models by weights, whole or by rows, of models or of task vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evomerge.merge.methods import METHODS
from evomerge.testing.methods import plain_inputs

HALVES = [{"weight": 1.0}, {"weight": 1.0}]


def reference(start, end, t):
    """One great circle in float64, both vectors with their own norm."""
    angle = math.acos(np.clip(start @ end / np.linalg.norm(start) / np.linalg.norm(end), -1, 1))
    return (math.sin((1 - t) * angle) * start + math.sin(t * angle) * end) / math.sin(angle)


@pytest.mark.parametrize("axis", [None, -1, 0])
@pytest.mark.parametrize("with_base", [False, True])
def test_against_float64(axis, with_base, merge):
    base, one, two = torch.randn(3, 5, 6)
    own = [{"weight": 0.6}, {"weight": 0.2}]
    flags = {"nuslerp_flatten": axis is None, "nuslerp_row_wise": axis == 0}
    if with_base:
        found = merge("nuslerp", [base, one, two], [{}, *own], base=0, **flags)
    else:
        found = merge("nuslerp", [one, two], own, base=None, **flags)
    origin = base.double() * with_base
    a, b = ((each.double() - origin).numpy() for each in (one, two))
    if axis is None:
        expected = reference(a.ravel(), b.ravel(), 0.25).reshape(5, 6)
    elif axis == -1:
        expected = np.stack([reference(*rows, 0.25) for rows in zip(a, b, strict=True)])
    else:
        columns = zip(a.T, b.T, strict=True)
        expected = np.stack([reference(*each, 0.25) for each in columns]).T
    assert torch.allclose(found.double(), torch.from_numpy(expected) + origin, atol=1e-6)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("factor", [2.0, -1.0])
def test_parallel_and_opposed_vectors_are_interpolated_straight(factor, flat, merge):
    one = torch.randn(4, 6)
    own = [{"weight": 3.0}, {"weight": 1.0}]
    found = merge("nuslerp", [one, factor * one], own, base=None, nuslerp_flatten=flat)
    assert torch.allclose(found, 0.75 * one + 0.25 * factor * one, atol=1e-6)


@pytest.mark.parametrize("flat", [True, False])
def test_the_same_expert_twice_is_that_expert(flat, merge):
    base, one = torch.randn(2, 4, 6)
    own = [{}, {"weight": 0.2}, {"weight": 0.7}]
    found = merge("nuslerp", [base, one, one.clone()], own, nuslerp_flatten=flat)
    assert torch.allclose(found, one, atol=1e-6)


@pytest.mark.parametrize("flat", [True, False])
def test_zeros_stay_finite(flat, merge):
    """A norm of 0 counts as a small one: the cosine is 0, the angle a right one."""
    zeros, ones = torch.zeros(3, 2), torch.ones(3, 2)
    found = merge("nuslerp", [zeros, ones], HALVES, base=None, nuslerp_flatten=flat)
    assert torch.allclose(found, torch.full((3, 2), math.sqrt(0.5)))
    assert not merge("nuslerp", [zeros, zeros], HALVES, base=None, nuslerp_flatten=flat).any()


@pytest.mark.parametrize("flat", [True, False])
def test_rows_of_one_number_are_interpolated_straight(flat, merge):
    one, two = torch.tensor([[1.0], [-2.0]]), torch.tensor([[3.0], [5.0]])
    own = [{"weight": 0.5}, {"weight": 0.5}]
    found = merge("nuslerp", [one, two], own, base=None, nuslerp_flatten=flat)
    if not flat:
        assert torch.equal(found, (one + two) / 2)
    assert torch.isfinite(found).all()


def test_weights_that_sum_to_0_meet_half_way(merge, gradients):
    one, two = torch.randn(2, 6)
    opposed = [{"weight": 0.5}, {"weight": -0.5}]
    found = merge("nuslerp", [one, two], opposed, base=None)
    assert torch.equal(found, merge("nuslerp", [one, two], HALVES, base=None))
    assert gradients("nuslerp", one, [one, two], opposed, base=None).own["weight"] == (0.0, 0.0)


def test_gradients_without_a_base_are_what_a_small_step_changes(merge, gradients):
    one, two, gradient = torch.randn(3, 4, 5, dtype=torch.float64)

    def at(first, second):
        return [{"weight": first}, {"weight": second}]

    for flags in (
        {},
        {"nuslerp_flatten": False},
        {"nuslerp_flatten": False, "nuslerp_row_wise": True},
    ):
        found = gradients("nuslerp", gradient, [one, two], at(0.3, 0.5), base=None, **flags)
        for place, moved in enumerate((at(0.3 + 1e-6, 0.5), at(0.3, 0.5 + 1e-6))):
            after = merge("nuslerp", [one, two], moved, base=None, **flags)
            step = after - merge("nuslerp", [one, two], at(0.3, 0.5), base=None, **flags)
            change = float((step * gradient).sum()) / 1e-6
            assert found.own["weight"][place] == pytest.approx(change, rel=1e-4)


def test_effects_are_shares():
    def effect(one, two, base=0, **flags):
        own = [{}] * (base is not None) + [{"weight": one}, {"weight": two}]
        tensors = [torch.zeros(1)] * len(own)
        inputs = plain_inputs(METHODS["nuslerp"], tensors, own, flags, base)
        return METHODS["nuslerp"].effect(inputs.shared, inputs.own, inputs.base)

    assert effect(1.0, 3.0) == effect(0.25, 0.75)
    assert effect(1.0, 3.0) != effect(1.0, 2.0)
    assert effect(1.0, 3.0).rule != effect(1.0, 3.0, nuslerp_flatten=False).rule
    assert effect(1.0, 3.0) == effect(1.0, 3.0, nuslerp_row_wise=True)  # flattened all the same
    assert dict(effect(0.0, 3.0).parts) == {2: 1.0}  # the second model alone
    assert dict(effect(2.0, 0.0, base=None).parts) == {0: 1.0}
