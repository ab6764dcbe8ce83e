"""Sums over whole tensors, in float64: the order of summation then moves no bit of a float32 result."""

from __future__ import annotations

import math

import torch

MIN_NORM = 1e-8
CHUNK = 1 << 20  # elements; bounds the float64 copies
PIECES = {"cpu": 1 << 16}  # elements whose products stay in the cache
PIECE_ELSEWHERE = 1 << 24
_WITHOUT_FLOAT64 = ("mps",)


def l1_norm(tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum of magnitudes; float64, no dimensions, on the tensor's device (of MPS: on the CPU)."""
    return _summable(tensor).abs().sum(dtype=torch.float64)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the cosine of two tensors as vectors; a norm of 0 counts as 1."""
    norm_a, norm_b = math.sqrt(dot(a, a)), math.sqrt(dot(b, b))
    scale = (norm_a if norm_a > MIN_NORM else 1.0) * (norm_b if norm_b > MIN_NORM else 1.0)
    return max(-1.0, min(1.0, dot(a, b) / scale))


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the inner product of two tensors as vectors."""
    x, y = _summable(a).reshape(-1), _summable(b).reshape(-1)
    total = 0.0
    for start in range(0, x.numel(), CHUNK):
        piece = slice(start, start + CHUNK)
        total += float((x[piece].double() * y[piece].double()).sum())
    return total


def inner(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the inner product of two tensors of one shape: products in their dtype, summed in float64.

    Some times faster than `dot`, and a float32 product's last bit less exact.
    """
    x, y = _summable(a).reshape(-1), _summable(b).reshape(-1)
    piece = PIECES.get(x.device.type, PIECE_ELSEWHERE)
    total = x.new_zeros((), dtype=torch.float64)
    for start in range(0, x.numel(), piece):
        part = slice(start, start + piece)
        total += (x[part] * y[part]).sum(dtype=torch.float64)
    return float(total)


def _summable(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.cpu() if tensor.device.type in _WITHOUT_FLOAT64 else tensor
