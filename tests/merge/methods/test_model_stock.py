"""Between base and average, as far as the experts agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch


def reference(base, experts, *, by_row):
    """The published ratio in float64, of whole tensors or of each row."""
    shape = base.shape
    deltas = [(expert.double() - base.double()).numpy() for expert in experts]
    rows = [delta.reshape(-1, shape[-1]) if by_row else delta.reshape(1, -1) for delta in deltas]
    count, found = len(rows), np.empty_like(rows[0])
    for row in range(len(rows[0])):
        vectors = [each[row] for each in rows]
        cosines = [
            a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            for i, a in enumerate(vectors)
            for b in vectors[:i]
        ]
        cos = np.mean(cosines)
        t = count * cos / (1 + (count - 1) * cos)
        found[row] = t * np.mean(vectors, axis=0)
    return base.double() + torch.from_numpy(found.reshape(shape))


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("shape", [(30,), (5, 8), (2, 3, 4)])
@pytest.mark.parametrize("agreement", [0.0, 1.0])
def test_against_float64(by_row, count, shape, agreement, merge):
    base, common = torch.randn(2, *shape)
    experts = [base + agreement * common + torch.randn(shape) for _ in range(count)]
    found = merge("model_stock", [base, *experts], [{}] * (count + 1), filter_wise=by_row)
    expected = reference(base, experts, by_row=by_row)
    assert torch.allclose(found.double(), expected, atol=1e-5, rtol=1e-4)


def test_experts_that_agree_are_averaged(merge):
    """The same expert twice: the angle is 0, the ratio 1."""
    base, one = torch.randn(2, 4, 5)
    found = merge("model_stock", [base, one, one.clone()], [{}] * 3)
    assert torch.allclose(found, one, atol=1e-6)


@pytest.mark.parametrize("by_row", [False, True])
def test_opposed_and_unchanged_experts_leave_the_base(by_row, merge):
    """cos θ = -1 of two is the singularity; task vectors of zeros have no angle at all."""
    base, delta = torch.randn(2, 4, 5)
    opposed = [base, base + delta, base - delta]
    found = merge("model_stock", opposed, [{}] * 3, filter_wise=by_row)
    assert torch.allclose(found, base, atol=1e-6)
    same = [base, base.clone(), base.clone()]
    assert torch.equal(merge("model_stock", same, [{}] * 3, filter_wise=by_row), base)


def test_experts_that_disagree_lead_beyond_the_base(merge):
    """t is not clamped, as in mergekit: of a mean cosine of -0.25 it is -2/3."""
    base = torch.zeros(2)
    angle = np.arccos(-0.25)
    one, two = torch.tensor([1.0, 0.0]), torch.tensor([np.cos(angle), np.sin(angle)]).float()
    found = merge("model_stock", [base, one, two], [{}] * 3)
    assert torch.allclose(found, -2 / 3 * (one + two) / 2, atol=1e-6)


def test_columns_of_one_number_are_rows_of_one(merge):
    base, one, two = (
        torch.tensor([[0.0], [0.0]]),
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([[3.0], [-2.0]]),
    )
    found = merge("model_stock", [base, one, two], [{}] * 3, filter_wise=True)
    assert torch.allclose(found, torch.tensor([[2.0], [0.0]]))
