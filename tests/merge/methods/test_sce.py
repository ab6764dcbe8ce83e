"""Select, calculate, erase: against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch


def reference(base, experts, share):
    deltas = np.stack([(expert.double() - base.double()).numpy().ravel() for expert in experts])
    if share < 1:
        variance = deltas.var(0)
        count = int(share * np.count_nonzero(variance))
        kept = np.zeros_like(variance)
        kept[np.argsort(-variance, kind="stable")[:count]] = 1
        deltas = deltas * kept
    squares = (deltas**2).mean(1)
    weights = (
        squares / squares.sum() if squares.sum() >= 1e-6 else np.full(len(deltas), 1 / len(deltas))
    )
    sign = np.where(deltas.sum(0) >= 0, 1, -1)
    agree = np.sign(deltas) == sign
    found = (weights[:, None] * deltas * agree).sum(0)
    found /= np.maximum((weights[:, None] * agree).sum(0), 1e-6)
    return base.double() + torch.from_numpy(found.reshape(base.shape))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99, 1.0])
@pytest.mark.parametrize("scale", [1.0, 1e-4])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_against_float64(share, scale, count, merge):
    """At a scale of 1e-4 the mean squares are too small to weigh by."""
    base = torch.zeros(20, 15)
    experts = [scale * (1 + index) * torch.randn(20, 15) for index in range(count)]
    found = merge("sce", [base, *experts], [{}] * (count + 1), select_topk=share)
    expected = reference(base, experts, share)
    assert torch.allclose(found.double(), expected, atol=1e-5 * scale, rtol=1e-5)


def test_entries_that_do_not_differ_are_not_selected(merge):
    """The same expert twice has no variance: with a share below 1 the base is left, as in mergekit."""
    base, one = torch.randn(2, 4, 5)
    tensors = [base, one, one.clone(), one.clone()]
    assert torch.equal(merge("sce", tensors, [{}] * 4, select_topk=0.9), base)
    assert torch.allclose(merge("sce", tensors, [{}] * 4), one, atol=1e-6)
    other = one.clone()
    other[0, 0] += 1
    found = merge("sce", [base, one, other], [{}] * 3, select_topk=0.999)
    assert torch.equal(found, base)  # floor(0.999 · 1) entries


def test_of_equal_variances_the_first_are_kept(merge):
    base = torch.zeros(6)
    one, two = torch.ones(6), torch.tensor([3.0, 3.0, 3.0, 3.0, 3.0, 1.0])
    found = merge("sce", [base, one, two], [{}] * 3, select_topk=0.5)
    assert found.nonzero().view(-1).tolist() == [0, 1]  # floor(0.5 · 5)


def test_signs_are_elected_by_the_plain_sum(merge):
    """The first expert is the heavier one, and outvoted in the first entry."""
    base = torch.zeros(2)
    one, two, three = torch.tensor([[-1.0, 9.0], [0.75, 0.0], [0.75, 0.0]])
    found = merge("sce", [base, one, two, three], [{}] * 4)
    assert torch.allclose(found, torch.tensor([0.75, 9.0]))


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_what_no_expert_changed_stays_the_base(share, merge):
    base = torch.randn(3, 4)
    tensors = [base, base.clone(), base.clone()]
    assert torch.equal(merge("sce", tensors, [{}] * 3, select_topk=share), base)
