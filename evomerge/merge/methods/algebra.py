"""Linear algebra that gives the same bits with any number of threads: float64, on the CPU, in one thread.

BLAS and LAPACK share out their sums among threads, and so add in another order with each number of them; some
kernels also go by the alignment of their operands. Here one thread computes, on aligned copies. CPUs of
another type may still differ, in the last bits of float64; a merge rounds them to float32.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from evomerge.errors import MergeError

ALIGNMENT = 64  # bytes
NEGLIGIBLE = 1e-6
"""Singular values below this share of the largest are rounding of float32: their vectors mean nothing."""
_NUMBERED = re.compile(r"\.\d+\.")
_OUTSIDE = re.compile(r"embed|(^|\.)(wte|wpe|lm_head|output|head)(\.|$)")


def is_linear(name: str, shape: Sequence[int]) -> bool:
    """Tell whether a tensor is a linear layer's matrix: two dimensions, neither embeddings nor output head.

    Args:
        name: Of the tensor.
        shape: `[out, in]`, as `torch.nn.Linear` stores it.
    """
    outside = _NUMBERED.search(name) is None and _OUTSIDE.search(name) is not None
    return len(shape) == 2 and 0 not in shape and not outside


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def matrix(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as float64 on the CPU, aligned, in the same layout; a copy unless it is that."""
    found = tensor.cpu().to(torch.float64)
    return found if found.data_ptr() % ALIGNMENT == 0 else found.clone()


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the matrix product of `[m, k]` and `[k, n]`, of any dtype and device, as float64 on the CPU."""
    with one_thread():
        return matrix(a) @ matrix(b)


def solve(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return X with X A = B, of a symmetric positive definite A, by its Cholesky factor.

    Args:
        a: `[n, n]`.
        b: `[m, n]`.

    Returns:
        `[m, n]`, float64 on the CPU.

    Raises:
        MergeError: A is singular to working precision, or not positive definite.
    """
    with one_thread():
        factor, failed = torch.linalg.cholesky_ex(matrix(a))
        if failed:
            raise MergeError("the matrix to be inverted is singular or not positive definite")
        return torch.cholesky_solve(matrix(b).T, factor).T


def svd(
    tensor: torch.Tensor, count: int | None = None, *, scale: float = 0.0
) -> tuple[torch.Tensor, ...]:
    """Return left singular vectors, singular values in falling order, and right singular vectors.

    Args:
        tensor: `[m, n]`.
        count: How many at most; None: all. Those that are `NEGLIGIBLE` are left out.
        scale: Of what the matrix is the rest of: its largest singular value.

    Returns:
        `[m, r]`, `[r]` and `[r, n]`, float64 on the CPU; r is 0 of a matrix of zeros.

    Raises:
        MergeError: It does not converge, as where a number is not finite.
    """
    with one_thread():
        try:
            left, values, right = torch.linalg.svd(matrix(tensor), full_matrices=False)
        except RuntimeError:
            raise MergeError("the singular values of a matrix cannot be computed") from None
    kept = int((values > NEGLIGIBLE * values[:1].clamp(min=scale)).sum())
    kept = kept if count is None else min(count, kept)
    if kept < len(values):  # a view would hold all of them
        left, values, right = left[:, :kept].clone(), values[:kept].clone(), right[:kept].clone()
    return left, values, right


def orthogonal(tensor: torch.Tensor) -> torch.Tensor:
    """Return the orthogonal factor of a matrix's polar decomposition: U Vᵀ of its singular vectors.

    Of all matrices whose singular values are 1 it is the nearest one; in directions in which the matrix is 0
    it is 0, too. By singular values, as Newton-Schulz iterations took four times as long in float64.

    Args:
        tensor: `[m, n]`.
    """
    left, _, right = svd(tensor)
    return product(left, right)


def joined(parts: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
    """Return blocks of columns (axis 1) or rows (0) in one matrix with its singular values set to 1."""
    return orthogonal(torch.cat(list(parts), axis))
