"""Entries by how many experts moved them, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch


def reference(base, experts, epsilon, r=0.0, alpha=0.0):
    deltas = np.stack([(expert.double() - base.double()).numpy() for expert in experts])
    moved = np.abs(deltas) > epsilon
    count = moved.sum(0)
    total = np.zeros(base.shape)
    for delta, mine in zip(deltas, moved, strict=True):
        alone, shared = mine & (count == 1), mine & (count > 1)
        ratio = shared.sum() / alone.sum() if alone.sum() else 0.0
        total += delta * alone * (1 + r * min(ratio, alpha)) + delta * shared / np.maximum(count, 1)
    return base.double() + torch.from_numpy(total)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.5, 9.0])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_against_float64(epsilon, count, merge):
    base = torch.zeros(20, 15)
    experts = [torch.randn(20, 15) for _ in range(count)]
    tensors, own = [base, *experts], [{}] * (count + 1)
    found = merge("ram", tensors, own, epsilon=epsilon)
    assert torch.allclose(found.double(), reference(base, experts, epsilon), atol=1e-6)
    for r, alpha in ((0.1, 0.2), (0.7, 3.0), (0.0, 1.0)):
        found = merge("ramplus_tl", tensors, own, epsilon=epsilon, r=r, alpha=alpha)
        expected = reference(base, experts, epsilon, r, alpha)
        assert torch.allclose(found.double(), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["ram", "ramplus_tl"])
def test_the_same_expert_twice_and_none_that_moved(method, merge):
    base, one = torch.randn(2, 4, 5)
    assert torch.allclose(merge(method, [base, one, one.clone()], [{}] * 3), one, atol=1e-6)
    assert torch.equal(merge(method, [base, base.clone(), base.clone()], [{}] * 3), base)


def test_an_epsilon_of_0_is_no_fault_where_nothing_was_moved_alone(merge):
    """mergekit divides 0 by it there."""
    base, one = torch.zeros(6), torch.randn(6)
    found = merge("ramplus_tl", [base, one, base.clone()], [{}] * 3, epsilon=0.0)
    assert torch.allclose(found, one)


def test_gradients_by_hand(gradients):
    """The first expert moved two entries alone and one with the second."""
    base = torch.zeros(4)
    one, two = torch.tensor([[1.0, 2.0, 3.0, 0.0], [0.0, 0.0, 3.0, 5.0]])
    gradient = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    found = gradients("ramplus_tl", gradient, [base, one, two], [{}] * 3, r=0.1, alpha=0.6)
    # Ratios of 1/2 and 1, the second clamped.
    assert found.shared["r"] == pytest.approx(0.5 * 21 + 0.6 * 5000)
    assert found.shared["alpha"] == pytest.approx(0.1 * 5000)
