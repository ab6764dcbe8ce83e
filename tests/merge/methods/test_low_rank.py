"""Products of factors that no order of sums, no blocks and no number of threads change."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from evomerge.merge.methods import low_rank
from evomerge.merge.methods.linear import LINEAR
from evomerge.merge.methods.low_rank import Factors, joined, product
from evomerge.merge.methods.method import Method
from evomerge.merge.methods.task_arithmetic import TASK_ARITHMETIC
from evomerge.testing.inputs import PlainInputs, plain_inputs


def pair(rows: int, rank: int, columns: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = torch.logspace(-3, 2, rows, dtype=torch.float64)[:, None]  # rows of unlike sizes
    left = size * torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    return left, torch.randn(rank, columns, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 2, 9, 96, 129, 700])
def test_every_order_of_sums_gives_the_same_bits(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = pair(40, rank, 30, seed=rank)
    found = product(left, right)
    order = torch.randperm(rank)
    assert torch.equal(product(left[:, order], right[order]), found)
    monkeypatch.setattr(low_rank, "BLOCK", 70)
    assert torch.equal(product(left, right), found)
    torch.set_num_threads(3)
    try:
        assert torch.equal(product(left, right), found)
    finally:
        torch.set_num_threads(1)


def test_nothing_is_rounded_but_factors_and_result() -> None:
    """Exact in rational numbers, which no float64 sum in any order could leave."""
    left, right = pair(4, 37, 3, seed=1)
    bits = (53 - 6) // 2
    found = product(left, right, torch.float64)
    rounded = low_rank._on_grid(left, 1, bits), low_rank._on_grid(right, 0, bits)
    for row in range(4):
        for column in range(3):
            exact = sum(
                Fraction(a) * Fraction(b)
                for a, b in zip(
                    rounded[0][row].tolist(), rounded[1][:, column].tolist(), strict=True
                )
            )
            assert Fraction(float(found[row, column])) == exact


@pytest.mark.parametrize("rank", [1, 8, 96, 1000])
def test_it_is_the_product_to_single_precision(rank: int) -> None:
    left, right = pair(50, rank, 60, seed=2)
    found, exact = product(left, right).double(), left @ right
    largest = left.abs().amax(1, keepdim=True) * right.abs().amax(0)
    assert ((found - exact).abs() / (rank**0.5 * largest)).max() < 2.0**-20
    assert (found - exact).norm() / exact.norm() < 1e-6


def test_zeros_and_the_smallest_numbers() -> None:
    left, right = pair(3, 4, 5, seed=3)
    left[1] = 0
    right[:, 2] = 0
    found = product(left, right)
    assert not found[1].any()
    assert not found[:, 2].any()
    assert found.isfinite().all()
    assert product(1e-200 * left, right).abs().max() == 0  # below float32
    assert product(torch.empty(3, 0).double(), torch.empty(0, 5).double()).abs().sum() == 0


def test_weights_of_rows_multiply_rows() -> None:
    left, right = pair(6, 2, 5, seed=4)
    factors, by_row = Factors(left, right, 0.5), torch.rand(6, 1)
    found = product(*joined([factors, factors], [by_row, -1.5]))
    torch.testing.assert_close(
        found.double(), 0.5 * (by_row.double() - 1.5) * (left @ right), atol=1e-4, rtol=1e-6
    )


METHODS = (LINEAR, TASK_ARITHMETIC)


def family(
    method: Method, normalize: bool, *, low: bool, by_row: bool = False
) -> tuple[PlainInputs, torch.Tensor]:
    """A base and three updates of it of ranks 1, 0 and 2, as factors or not."""
    base = torch.randn(16, 20, generator=torch.Generator().manual_seed(9))
    updates = {}
    for index, rank in ((1, 1), (2, 0), (3, 2)):
        left, right = pair(16, rank, 20, seed=index)
        updates[index] = Factors(left.sign(), right.float(), 0.25)
    nothing = Factors(torch.empty(16, 0), torch.empty(0, 20))
    tensors = [base, *(base + one.dense() for one in updates.values())]
    own = [{"weight": 0.4}, {"weight": 0.3}, {"weight": 0.9}, {"weight": -0.2}]
    added = {3: 0.1 * torch.arange(16.0)[:, None]} if by_row else None
    shared = {"normalize": normalize}
    inputs = plain_inputs(method, tensors, own, shared, added=added, by_row=by_row)
    if low:
        inputs.factors = {0: nothing, **updates}
    return inputs, base


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.name)
def test_sums_of_factors_are_sums_of_tensors(
    method: Method, normalize: bool, by_row: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, _ = family(method, normalize, low=False, by_row=by_row)
    low, _ = family(method, normalize, low=True, by_row=by_row)
    gradient = torch.randn(16, 20)
    expected, slopes = method.merge(full), method.gradients(full, gradient)
    monkeypatch.setattr(PlainInputs, "delta", None)  # no task vector is formed
    found = method.merge(low)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    own = method.gradients(low, gradient)
    assert own.own["weight"] == pytest.approx(slopes.own["weight"], rel=1e-4, abs=1e-4)
    assert own.shared == pytest.approx(slopes.shared, rel=1e-4, abs=1e-4)
    if by_row:
        torch.testing.assert_close(own.rows, slopes.rows, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.name)
def test_where_nothing_is_changed_the_base_is_left(method: Method) -> None:
    inputs, base = family(method, normalize=True, low=True)
    nothing = inputs.factors[0]
    inputs.factors = dict.fromkeys(range(4), nothing)
    torch.testing.assert_close(method.merge(inputs), base, rtol=1e-6, atol=0)


def test_high_ranks_are_summed_as_tensors() -> None:
    inputs, _ = family(TASK_ARITHMETIC, normalize=False, low=True)
    left, right = pair(16, 9, 20, seed=5)
    inputs.factors = {**inputs.factors, 3: Factors(left, right)}
    full, _ = family(TASK_ARITHMETIC, normalize=False, low=False)
    assert torch.equal(TASK_ARITHMETIC.merge(inputs), TASK_ARITHMETIC.merge(full))
