"""Entries near each other go over."""

from __future__ import annotations

import torch


def test_by_hand(merge):
    base = torch.tensor([1.0, 1.0, 1.0, 1.0])
    other = torch.tensor([1.0, 1.25, 2.0, -1.0])
    found = merge("nearswap", [base, other], [{}, {}], t=0.5)
    assert torch.equal(found, torch.tensor([1.0, 1.25, 1.5, 0.5]))


def test_a_large_t_is_the_other_model_and_none_the_base(merge):
    base, other = torch.randn(2, 30)
    assert torch.equal(merge("nearswap", [base, other], [{}, {}], t=100.0), other)
    assert torch.equal(merge("nearswap", [base, other], [{}, {}], base=1, t=100.0), base)
    for t in (0.0, -1.0):
        assert torch.equal(merge("nearswap", [base, other], [{}, {}], t=t), base)


def test_equal_models_are_as_they_are(merge, gradients):
    one = torch.randn(30)
    assert torch.equal(merge("nearswap", [one, one.clone()], [{}, {}], t=0.1), one)
    assert gradients("nearswap", one, [one, one.clone()], [{}, {}], t=0.1).shared == {"t": 0.0}


def test_entries_on_their_way_have_a_gradient(gradients):
    base, other = torch.zeros(3), torch.tensor([0.1, 2.0, -3.0])
    gradient = torch.tensor([10.0, 1.0, 5.0])
    found = gradients("nearswap", gradient, [base, other], [{}, {}], t=0.5)
    assert found.shared == {"t": -4.0}  # the first has arrived
