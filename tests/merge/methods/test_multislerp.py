"""The spherical mean, against mergekit's steps in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.errors import MergeError


def reference(vectors, weights, eps):
    """Project to the tangent space at the mean of unit vectors, average there, and come back."""
    flat = np.stack([vector.double().numpy().ravel() for vector in vectors])
    norms = np.linalg.norm(flat, axis=1)
    units = flat / (norms + eps)[:, None]
    mean = weights @ units
    mean /= np.linalg.norm(mean)
    tangents = units - (units @ mean)[:, None] * mean
    step = weights @ tangents
    length = np.linalg.norm(step) + eps
    found = (np.cos(length) * mean + np.sin(length) / length * step) * (weights @ norms)
    return torch.from_numpy(found.reshape(vectors[0].shape))


@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("eps", [1e-8, 0.02])
def test_against_float64(with_base, normalize, eps, merge):
    tensors = list(torch.randn(4, 5, 6))
    weights = np.array([0.2, 0.9, -0.3, 0.5])[1 if with_base else 0 :]
    own = [{}] * with_base + [{"weight": float(weight)} for weight in weights]
    flags = {"normalize_weights": normalize, "eps": eps}
    found = merge("multislerp", tensors, own, base=0 if with_base else None, **flags)
    origin = tensors[0].double() * with_base
    vectors = [tensor.double() - origin for tensor in tensors[with_base:]]
    expected = reference(vectors, weights / weights.sum() if normalize else weights, eps)
    assert torch.allclose(found.double(), expected + origin, atol=2e-6)


def test_one_model_is_as_it_is(merge, gradients):
    base, one = torch.randn(2, 3, 4)
    assert torch.equal(merge("multislerp", [base, one], [{}, {"weight": 0.3}]), one)
    found = gradients("multislerp", one, [base, one], [{}, {"weight": 0.3}])
    assert found.own["weight"] == (0.0, 0.0)


def test_the_same_expert_twice_is_that_expert(merge):
    base, one = torch.randn(2, 3, 4)
    own = [{}, {"weight": 0.3}, {"weight": 0.9}]
    assert torch.allclose(merge("multislerp", [base, one, one.clone()], own), one, atol=1e-6)


def test_two_opposed_models_are_averaged_straight_and_more_are_an_error(merge, gradients):
    one = torch.randn(3, 4)
    half = {"weight": 0.5}
    found = merge("multislerp", [one, -3 * one], [half, half], base=None)
    assert torch.allclose(found, -one, atol=1e-6)
    gradient = torch.randn(3, 4)
    slopes = gradients(
        "multislerp", gradient, [one, -3 * one], [half, half], None, normalize_weights=False
    ).own["weight"]
    along = float((gradient * one).sum())
    assert slopes == pytest.approx((along, -3 * along), rel=1e-5)
    two = torch.randn(3, 4)
    with pytest.raises(MergeError, match=r"^w: the weighted unit vectors of 4 models cancel out"):
        merge("multislerp", [one, -one, two, -two], [half] * 4, base=None)


@pytest.mark.parametrize("count", [2, 3])
def test_what_no_expert_changed_stays_the_base(count, merge, gradients):
    """mergekit raises for three task vectors of zeros, as if they were opposed."""
    base = torch.randn(3, 4)
    own = [{}, *[{"weight": 0.5}] * count]
    tensors = [base, *[base.clone()] * count]
    assert torch.equal(merge("multislerp", tensors, own), base)
    assert not any(gradients("multislerp", base, tensors, own).own["weight"])


def test_one_of_zeros_has_no_direction_but_a_norm(merge):
    one, two, zeros = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.zeros(2)
    found = merge("multislerp", [one, two, zeros], [{"weight": 1.0}] * 3, base=None, eps=0.0)
    assert torch.allclose(found, torch.full((2,), 2 / 3 * 0.5**0.5))


def test_weights_that_sum_to_0_are_an_error(merge):
    one, two = torch.randn(2, 6)
    own = [{"weight": 0.5}, {"weight": -0.5}]
    with pytest.raises(MergeError, match=r"sum to 0 .* set normalize_weights: false"):
        merge("multislerp", [one, two], own, base=None)
    assert merge("multislerp", [one, two], own, base=None, normalize_weights=False).isfinite().all()
