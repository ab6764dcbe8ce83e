"""Sums over whole tensors and over task vectors: the arithmetic that the methods share.

Element-wise operations are correctly rounded and in a fixed order, without fused multiply-add or matrix
product, and sums over a tensor are float64: the result is the same to the bit on any device and with any
number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

NORM_AS_0 = 1e-8  # of a vector whose angle is asked for
MIN_NORM = 1e-7  # rescaling is skipped below (mergekit)
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
    scale = (norm_a if norm_a > NORM_AS_0 else 1.0) * (norm_b if norm_b > NORM_AS_0 else 1.0)
    return max(-1.0, min(1.0, dot(a, b) / scale))


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the inner product of two tensors as vectors, multiplied and summed in float64."""
    x, y = _summable(a).reshape(-1), _summable(b).reshape(-1)
    pieces = zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True)
    return sum((float((one.double() * other.double()).sum()) for one, other in pieces), 0.0)


def inner(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the inner product of two tensors of one shape: products in their dtype, summed in float64.

    Some times faster than `dot`, and a float32 product's last bit less exact.
    """
    x, y = _summable(a).reshape(-1), _summable(b).reshape(-1)
    piece = PIECES.get(x.device.type, PIECE_ELSEWHERE)
    total = x.new_zeros((), dtype=torch.float64)
    for one, other in zip(torch.split(x, piece), torch.split(y, piece), strict=True):
        total += (one * other).sum(dtype=torch.float64)
    return float(total)


def rescaled(sparse: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """Give a sparsified task vector the L1 norm it had, unless that or its own is all but 0.

    Args:
        sparse: The task vector; scaled in place.
        norm: Of the whole one; float64, no dimensions.
    """
    own = l1_norm(sparse)
    usable = (norm >= MIN_NORM) & (own >= MIN_NORM)
    factor = torch.where(usable, norm / own, torch.ones_like(own))
    return sparse.mul_(factor.to(sparse.dtype))


def weighted_sum(tensors: Iterable[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Return Σ w t in the order given, each product and each sum rounded once; tensors one at a time."""
    pairs = zip(tensors, weights, strict=True)
    first, factor = next(pairs)
    total = first * factor
    product = torch.empty_like(total)
    for tensor, weight in pairs:
        total.add_(torch.mul(tensor, weight, out=product))
    return total


def masked(delta: torch.Tensor, numbers: torch.Tensor, density: float) -> torch.Tensor:
    """Return a task vector without the entries whose number is not below `density`."""
    kept = torch.empty_like(delta)
    torch.lt(numbers, density, out=kept)  # 0 or 1
    return kept.mul_(delta)


def elected_signs(deltas: Iterable[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Return the sign, 1 or -1, of each entry of the sum of weighted deltas; 1 where the sum is 0."""
    total = weighted_sum(deltas, weights)
    return torch.ge(total, 0, out=total).mul_(2).sub_(1)


def elected_sum(
    deltas: Iterable[torch.Tensor], weights: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Elect a sign for each entry and sum what agrees with it (TIES' elect and disjoint merge).

    Exact zeros agree with neither sign.

    Args:
        deltas: Read twice.
        weights: One a delta.

    Returns:
        The sum of the agreeing weighted deltas, and the sum of their weights; both shaped as a delta.
    """
    signs = elected_signs(deltas, weights)
    total, agreeing = torch.zeros_like(signs), torch.zeros_like(signs)
    along, agrees = torch.empty_like(signs), torch.empty_like(signs)
    for delta, weight in zip(deltas, weights, strict=True):
        torch.mul(delta, weight, out=along).mul_(signs)  # > 0 where it agrees
        agreeing.add_(torch.gt(along, 0, out=agrees).mul_(weight))
        total.add_(along.clamp_(min=0))
    return total.mul_(signs), agreeing


def summed_gradients(
    gradient: torch.Tensor,
    tensors: Iterable[torch.Tensor],
    weights: Sequence[float],
    normalize: bool,
) -> tuple[list[float], float]:
    """Return ⟨g, ∂m/∂w_i⟩ for each tensor, and ⟨g, m⟩, of m = Σ w t / W, W being Σ w (`normalize`) or 1."""
    along = [inner(gradient, tensor) for tensor in tensors]
    mixed = sum(w * a for w, a in zip(weights, along, strict=True))
    if normalize:
        total = sum(weights)
        mixed /= total
        along = [(each - mixed) / total for each in along]
    return along, mixed


def elected_gradients(
    gradient: torch.Tensor,
    deltas: Iterable[torch.Tensor],
    weights: Sequence[float],
    normalize: bool,
) -> tuple[list[float], float]:
    """As `summed_gradients`, entry by entry over the deltas that agree with the elected sign.

    The elected signs are held fixed, so the gradients are exact wherever no entry is about to change its
    sign, and say nothing of what such a change would bring. A weight of 0 is taken to be about to rise: its
    model agrees where its delta has the elected sign, and where no other model has a say.
    """
    if any(weights):  # a weight of 0 has no say in the sums
        signs = elected_signs(deltas, weights)
        mixed, divisor = elected_sum(deltas, weights)
    else:
        signs, mixed = torch.ones_like(gradient), torch.zeros_like(gradient)
        divisor = mixed
    unopposed = mixed == 0
    pull, average = gradient, torch.zeros_like(mixed)
    if normalize:
        indivisible = divisor == 0
        average = mixed.masked_fill(indivisible, 0)
        divisor = divisor.masked_fill(indivisible, 1)
        pull, average = gradient / divisor, average.div_(divisor)
        mixed = mixed / divisor
    gradients = []
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = (delta * signs) * (weight or 1.0) > 0
        if not weight:
            agrees |= unopposed & (delta != 0)
        gradients.append(inner(pull, (delta - average).mul_(agrees)))
    return gradients, inner(gradient, mixed)


def _summable(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.cpu() if tensor.device.type in _WITHOUT_FLOAT64 else tensor
