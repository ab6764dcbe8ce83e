"""Task vectors of low rank: sums of products of factors, the same to the bit on any device and any threads.

A matrix product depends on the order of its sums. Here it does not: factors are rounded to so few bits below
the largest number of their row (of the right one: their column) that all products and partial sums are exact
in float64 (the idea of Ozaki et al. 2012, with one slice). 20 bits are left at a rank of 8192, 23 at 128, 25
at 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evomerge.merge.methods.method import Inputs
from evomerge.merge.methods.tensors import Weight, row_products, summable, weighted_sum

MANTISSA = 53
EXPONENT = 0x7FF << 52
TINY = 2.0**-900  # a row of zeros is as one of such numbers
BLOCK = 1 << 18  # numbers of a product that are float64 at once
WORTH = 2
"""Factors are multiplied for each merge where their ranks sum to at most this part of the tensor's smaller
side; of higher ranks task vectors are formed, and kept."""


@dataclass(frozen=True)
class Factors:
    """A matrix as `scale · left · right`.

    Attributes:
        left: `[rows, rank]`, any dtype, on the CPU.
        right: `[rank, columns]`, likewise.
        scale: Of the product.
    """

    left: torch.Tensor
    right: torch.Tensor
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """Number of columns of `left`; 0: the matrix is 0."""
        return self.left.shape[1]

    def dense(self) -> torch.Tensor:
        """Return the matrix, float32."""
        left, right = joined([self], [1.0])
        return product(left, right)


def product(
    left: torch.Tensor,
    right: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Return a matrix product, rounded once.

    Args:
        left: `[rows, rank]`, float64, on any device that has it.
        right: `[rank, columns]`, likewise.
        dtype: Of the result.
        device: Of the result, where it is computed if there is float64.
    """
    rank, columns = right.shape
    if not rank:
        return torch.zeros(len(left), columns, dtype=dtype, device=device)
    bits = (MANTISSA - max(0, rank - 1).bit_length()) // 2
    found = torch.empty(len(left), columns, dtype=dtype, device=device)
    where = summable(found[:0]).device
    exact_left, exact_right = _on_grid(left.to(where), 1, bits), _on_grid(right.to(where), 0, bits)
    step = max(1, BLOCK // max(1, columns))
    for start in range(0, len(left), step):
        found[start : start + step] = (exact_left[start : start + step] @ exact_right).to(device)
    return found


def joined(
    factors: Sequence[Factors], weights: Sequence[Weight], device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the two factors of Σ weight · matrix, float64; weights may be by row."""
    lefts = [
        one.left.to(device).double()
        * (one.scale * (w.to(device).double() if isinstance(w, torch.Tensor) else float(w)))
        for one, w in zip(factors, weights, strict=True)
    ]
    return torch.cat(lefts, 1), torch.cat([one.right.to(device).double() for one in factors])


def sum_of_inputs(
    inputs: Inputs, indices: Sequence[int], weights: Sequence[Weight]
) -> torch.Tensor:
    """Return Σ weight · input: of low ranks over what they have in common, in one product."""
    factors = _all_low(inputs, indices)
    if factors is None:
        return weighted_sum(map(inputs.tensor, indices), weights)
    total = inputs.origin() * sum(weights)
    update = _update(factors, weights, total.device)
    return total if update is None else total.add_(update)


def sum_of_deltas(
    inputs: Inputs, indices: Sequence[int], weights: Sequence[Weight], device: torch.device
) -> torch.Tensor | None:
    """Return Σ weight · task vector: of low ranks in one product; None: it is 0, as all of them are.

    Args:
        inputs: The inputs.
        indices: Which.
        weights: One each; of whole tensors, or by row.
        device: Of the maths.
    """
    factors = _all_low(inputs, indices)
    if factors is None:
        return weighted_sum(map(inputs.delta, indices), weights)
    return _update(factors, weights, device)


def input_products(inputs: Inputs, indices: Sequence[int], gradient: torch.Tensor) -> torch.Tensor:
    """Return ⟨g[row], input[row]⟩, as `row_products`."""
    factors = _all_low(inputs, indices)
    if factors is None:
        return row_products(gradient, map(inputs.tensor, indices))
    return row_products(gradient, [inputs.origin()]) + _products(factors, gradient)


def delta_products(inputs: Inputs, indices: Sequence[int], gradient: torch.Tensor) -> torch.Tensor:
    """Return ⟨g[row], task vector[row]⟩, as `row_products`."""
    factors = _all_low(inputs, indices)
    if factors is None:
        return row_products(gradient, map(inputs.delta, indices))
    return _products(factors, gradient)


def _all_low(inputs: Inputs, indices: Sequence[int]) -> list[Factors] | None:
    """Return the factors of all inputs; None: some have none, or the ranks are too high to pay.

    A float64 merge sums task vectors, whose weights are not rounded.
    """
    found = []
    if inputs.dtype != torch.float32:
        return None
    for index in indices:
        factors = inputs.low_rank(index)
        if factors is None:
            return None
        found.append(factors)
    ranks = sum(one.rank for one in found)
    changed = [one for one in found if one.rank]
    side = min(len(changed[0].left), changed[0].right.shape[1]) if changed else 0
    return found if WORTH * ranks <= side else None


def _update(
    factors: Sequence[Factors], weights: Sequence[Weight], device: torch.device
) -> torch.Tensor | None:
    pairs = [(one, w) for one, w in zip(factors, weights, strict=True) if one.rank]
    if not pairs:
        return None
    where = summable(torch.empty(0, device=device)).device
    left, right = joined([one for one, _ in pairs], [w for _, w in pairs], where)
    return product(left, right, device=device)


def _products(factors: Sequence[Factors], gradient: torch.Tensor) -> torch.Tensor:
    rows = len(gradient) if gradient.ndim else 1
    found = torch.zeros(len(factors), rows, dtype=torch.float64)
    for place, one in enumerate(factors):
        if one.rank:
            left, right = (each.to(gradient) for each in (one.left, one.right))
            found[place] = (gradient @ right.T * left).sum(1).double().cpu() * one.scale
    return found


def _on_grid(factor: torch.Tensor, axis: int, bits: int) -> torch.Tensor:
    """Round to multiples of 2^-bits of the power of 2 above the largest magnitude along an axis."""
    largest = factor.abs().amax(axis, keepdim=True).clamp_(min=TINY)
    power = (largest.view(torch.int64) & EXPONENT).view(torch.float64)  # largest < 2 · power
    unit = power * 2.0 ** (1 - bits)
    return (factor / unit).round_() * unit
