"""Weighted averages."""

from __future__ import annotations

import pytest
import torch

from evomerge.errors import MergeError


def test_the_average_and_the_sum(merge):
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])
    own = [{"weight": 1}, {"weight": 3}]
    assert torch.equal(merge("linear", [a, b], own), torch.tensor([2.5, 5.0]))
    assert torch.equal(merge("linear", [a, b], own, normalize=False), torch.tensor([10.0, 20.0]))


def test_weights_that_sum_to_0(merge):
    tensors, own = [torch.ones(2)] * 2, [{"weight": 1}, {"weight": -1}]
    with pytest.raises(MergeError, match=r"w: the weights \[1\.0, -1\.0\] sum to 0"):
        merge("linear", tensors, own)
    assert torch.equal(merge("linear", tensors, own, normalize=False), torch.zeros(2))


def test_gradients_by_hand(gradients):
    a, b, gradient = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0]), torch.tensor([1.0, 0.0])
    own = [{"weight": 1}, {"weight": 3}]
    assert gradients("linear", gradient, [a, b], own, normalize=False).own["weight"] == (1.0, 3.0)
    # the average is 2.5: (1 - 2.5) / 4 and (3 - 2.5) / 4
    assert gradients("linear", gradient, [a, b], own).own["weight"] == (-0.375, 0.125)


def test_a_weight_of_0_has_a_gradient(gradients):
    a, b, gradient = torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([1.0])
    assert gradients("linear", gradient, [a, b], [{"weight": 1}, {"weight": 0}]).own["weight"] == (
        0,
        2,
    )
