"""Linear algebra against numpy, and the same bits with any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.errors import MergeError
from evomerge.merge.methods.algebra import (
    is_linear,
    joined,
    matrix,
    orthogonal,
    product,
    solve,
    svd,
)


def positive(size):
    found = torch.randn(size, size, dtype=torch.float64)
    return found @ found.T + size * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("model.layers.0.mlp.up_proj.weight", (4, 3), True),
        ("transformer.h.3.attn.output.weight", (4, 3), True),
        ("model.layers.0.input_layernorm.weight", (4,), False),
        ("model.layers.0.mlp.experts.gate_up_proj", (2, 4, 3), False),
        ("model.layers.0.conv.weight", (4, 3, 2, 2), False),
        ("model.embed_tokens.weight", (4, 3), False),
        ("transformer.wte.weight", (4, 3), False),
        ("gpt_neox.embed_in.weight", (4, 3), False),
        ("embed_out.weight", (4, 3), False),
        ("lm_head.weight", (4, 3), False),
        ("output.weight", (4, 3), False),
        ("model.layers.0.empty", (0, 3), False),
    ],
)
def test_which_tensors_are_matrices_of_linear_layers(name, shape, expected):
    assert is_linear(name, shape) is expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products_and_inverses(dtype):
    a, b = torch.randn(7, 5).to(dtype), torch.randn(5, 9).to(dtype)
    assert np.allclose(product(a, b), a.double().numpy() @ b.double().numpy(), atol=1e-14)
    assert np.allclose(product(b.T, a.T), product(a, b).T, atol=1e-14)
    square = positive(5)
    expected = a.double().numpy() @ np.linalg.inv(square.numpy())
    assert np.allclose(solve(square, a), expected, atol=1e-12)


def test_operands_are_aligned_whatever_they_were():
    memory = torch.randn(41, dtype=torch.float64)
    shifted = memory[1:].view(8, 5)
    found = matrix(shifted)
    assert found.data_ptr() % 64 == 0
    assert torch.equal(found, shifted)
    strided = torch.randn(6, 8)[:, ::2]
    assert torch.equal(matrix(strided), strided.double())
    assert torch.equal(product(shifted, shifted.T), product(shifted.clone(), shifted.clone().T))


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (1, 5), (5, 1)])
def test_singular_vectors(shape):
    tensor = torch.randn(shape)
    left, values, right = svd(tensor)
    assert np.allclose(values, np.linalg.svd(tensor.double().numpy())[1], atol=1e-12)
    assert torch.allclose((left * values) @ right, tensor.double(), atol=1e-12)
    few = svd(tensor, 2)
    assert [one.shape for one in few] == [
        (shape[0], min(2, min(shape))),
        (min(2, min(shape)),),
        (min(2, min(shape)), shape[1]),
    ]
    assert torch.equal(few[1], values[:2])


def test_directions_that_are_rounding_are_left_out():
    low = torch.randn(8, 2, dtype=torch.float64) @ torch.randn(2, 6, dtype=torch.float64)
    noisy = low + 1e-9 * torch.randn(8, 6)
    left, values, right = svd(noisy)
    assert len(values) == left.shape[1] == len(right) == 2
    assert torch.allclose((left * values) @ right, low, atol=1e-7)
    left, values, right = svd(torch.zeros(4, 3))
    assert (left.shape, len(values), right.shape) == ((4, 0), 0, (0, 3))
    assert torch.equal(orthogonal(torch.zeros(4, 3)), torch.zeros(4, 3, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_the_orthogonal_factor(shape):
    """Its product with the positive factor is the matrix, and it is the nearest orthogonal one."""
    tensor = torch.randn(shape, dtype=torch.float64)
    found = orthogonal(tensor)
    values = torch.linalg.svdvals(found)
    assert torch.allclose(values, torch.ones_like(values), atol=1e-12)
    other = found.T @ tensor
    assert torch.allclose(other, other.T, atol=1e-12)
    assert torch.linalg.eigvalsh(other).min() > -1e-12
    assert torch.allclose(orthogonal(3 * tensor), found, atol=1e-12)
    halves = [tensor[:, :2], tensor[:, 2:]]
    assert torch.allclose(joined(halves, 1), found, atol=1e-12)


def test_what_cannot_be_computed_is_one_error():
    with pytest.raises(MergeError, match="singular or not positive definite"):
        solve(torch.zeros(3, 3), torch.randn(2, 3))
    with pytest.raises(MergeError, match="singular or not positive definite"):
        solve(-torch.eye(3), torch.randn(2, 3))
    broken = torch.full((3, 3), float("nan"))
    with pytest.raises(MergeError, match="singular values of a matrix cannot be computed"):
        svd(broken)


def test_the_number_of_threads_changes_no_bit_and_is_given_back():
    a, b, square = torch.randn(200, 300), torch.randn(300, 150), positive(300)
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append((product(a, b), solve(square, a), *svd(a), orthogonal(a)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))
