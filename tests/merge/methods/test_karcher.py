"""The Karcher mean, against its iteration on whole vectors in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch


def reference(vectors, max_iter, tol):
    """The iteration on the vectors themselves."""
    flat = [vector.double().numpy().ravel() for vector in vectors]
    units = [vector / np.linalg.norm(vector) for vector in flat]
    mean = sum(units) / len(units)
    mean /= np.linalg.norm(mean)
    for _ in range(max_iter):
        tangent = np.zeros_like(mean)
        for unit in units:
            angle = math.acos(np.clip(mean @ unit, -1, 1))
            if angle >= tol:
                tangent += angle / math.sin(angle) * (unit - (mean @ unit) * mean) / len(units)
        step = np.linalg.norm(tangent)
        if step < tol:
            break
        mean = np.cos(step) * mean + np.sin(step) * tangent / step
        mean /= np.linalg.norm(mean)
    scale = sum(map(np.linalg.norm, flat)) / len(flat)
    return torch.from_numpy((scale * mean).reshape(vectors[0].shape))


@pytest.mark.parametrize(("max_iter", "tol"), [(0, 1e-5), (1, 1e-5), (3, 1e-9), (50, 1e-12)])
@pytest.mark.parametrize("spread", [0.05, 3.0])
def test_against_float64(spread, max_iter, tol, merge):
    tensors = [torch.randn(5, 6) * spread + 1 for _ in range(4)]
    found = merge("karcher", tensors, [{}] * 4, base=None, max_iter=max_iter, tol=tol)
    assert torch.allclose(found.double(), reference(tensors, max_iter, tol), atol=1e-6)


def test_it_is_where_the_directions_balance(merge):
    """The logarithms of all inputs at the mean sum to 0, of inputs that are not in one plane."""
    tensors = [torch.randn(40, dtype=torch.float64) + 1 for _ in range(5)]
    mean = merge("karcher", tensors, [{}] * 5, base=None, max_iter=100, tol=1e-10)
    mean /= mean.norm()
    total = torch.zeros_like(mean)
    for tensor in tensors:
        unit = tensor / tensor.norm()
        angle = torch.acos(mean @ unit)
        total += angle / angle.sin() * (unit - (mean @ unit) * mean)
    assert total.norm() < 1e-8


def test_one_model_and_equal_ones_are_as_they_are(merge):
    one = torch.randn(3, 4)
    assert torch.equal(merge("karcher", [one], [{}], base=None), one)
    assert torch.allclose(merge("karcher", [one, one.clone()], [{}] * 2, base=None), one)


def test_opposed_models_keep_the_first_direction(merge):
    """mergekit's rule: the mean has no direction, so it starts at the first, and no step leads away."""
    one = torch.randn(3, 4)
    found = merge("karcher", [one, -3 * one], [{}] * 2, base=None)
    assert torch.allclose(found, 2 * one, atol=1e-5)


def test_zeros_count_in_the_norm_only(merge):
    one, zeros = torch.randn(3, 4), torch.zeros(3, 4)
    assert torch.allclose(merge("karcher", [one, zeros], [{}] * 2, base=None), one / 2)
    assert not merge("karcher", [zeros, zeros], [{}] * 2, base=None).any()
    small = torch.full((3, 4), 1e-8)  # a norm below tol is none, as in mergekit
    assert not merge("karcher", [small, zeros], [{}] * 2, base=None).any()


@pytest.mark.parametrize("tol", [0.0, 1e-5])
def test_tensors_of_one_number(tol, merge):
    one, two = torch.tensor([[2.0]]), torch.tensor([[4.0]])
    assert merge("karcher", [one, two], [{}] * 2, base=None, tol=tol).item() == pytest.approx(3)
    assert merge("karcher", [one, -two], [{}] * 2, base=None, tol=tol).item() == pytest.approx(3)
