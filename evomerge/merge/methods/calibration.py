"""Singular-value calibration (arXiv 2602.05536): shrink what several experts add in the same direction.

Where task vectors share a direction, their sum is longer in it than any of them needs; the merged task vector
is scaled back there, direction by direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from evomerge.merge.methods.method import (
    Effect,
    Inputs,
    Method,
    NumberGradients,
    Parameter,
    Values,
    unless,
)

if TYPE_CHECKING:
    import torch

CALIBRATE = Parameter(
    "boolean",
    "shrink the merged task vector of linear layers in directions that several experts share",
    default=False,
    beyond_mergekit=True,
)


def calibrated(method: Method) -> Method:
    """Return a method of task vectors with the parameter `calibrate`.

    With D = U S Vᵀ the merged task vector of a linear layer's matrix, and τᵢ those of the n experts that take
    part, row r of Uᵀ D is multiplied by γᵣ = n / Σᵢ max(1, sᵣᵢ), where sᵣᵢ = ⟨uᵣᵀD, uᵣᵀτᵢ⟩ / ‖uᵣᵀτᵢ‖².
    Gradients hold U and γ fixed, as they do masks and elected signs.
    """
    gradients = None if method.gradients is None else partial(_gradients, method)
    return replace(
        method,
        merge=partial(_merge, method),
        gradients=gradients,
        total=unless("calibrate", method.total),
        effect=partial(_effect, method),
        parameters={**method.parameters, "calibrate": CALIBRATE},
        matrix_bytes=partial(_bytes, method),
    )


def _merge(method: Method, inputs: Inputs) -> torch.Tensor:
    from evomerge.merge.methods.algebra import is_linear

    merged = method.merge(inputs)
    if not inputs.shared["calibrate"] or not is_linear(inputs.name, merged.shape):
        return merged
    from evomerge.merge.methods.algebra import matrix

    assert inputs.base is not None  # needs_base
    base = matrix(inputs.tensor(inputs.base))
    delta = matrix(merged) - base
    found = _shrunk(delta, *_excess(method, inputs, delta)).add_(base)
    return found.to(merged.device, merged.dtype)


def _gradients(method: Method, inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    from evomerge.merge.methods.algebra import is_linear, matrix

    assert method.gradients is not None
    assert inputs.base is not None  # needs_base
    if inputs.shared["calibrate"] and is_linear(inputs.name, gradient.shape):
        delta = matrix(method.merge(inputs)) - matrix(inputs.tensor(inputs.base))
        shrunk = _shrunk(matrix(gradient), *_excess(method, inputs, delta))
        gradient = shrunk.to(gradient.device, gradient.dtype)
    return method.gradients(inputs, gradient)


def _effect(method: Method, shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    found = method.effect(shared, own, base)
    return replace(found, rule=("calibrated", found.rule)) if shared["calibrate"] else found


def _bytes(method: Method, rows: int, columns: int, experts: int) -> int:
    """Return the memory at the peak: base, merged, task vector, and the decomposition of that."""
    own = 0 if method.matrix_bytes is None else method.matrix_bytes(rows, columns, experts)
    return max(own, 66 * rows * columns)


def _excess(
    method: Method, inputs: Inputs, delta: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return U `[out, r]`, and 1 - γ `[r, 1]`."""
    import torch

    from evomerge.merge.methods.algebra import one_thread, product, svd

    left = svd(delta)[0]
    within = product(left.T, delta)
    active = [i for i in inputs.others if "weight" not in method.parameters or _counts(inputs, i)]
    total = torch.zeros(len(within), 1, dtype=torch.float64)
    for index in active:
        own = product(left.T, inputs.delta(index))
        with one_thread():
            squares = own.square().sum(1, keepdim=True)
            along = own.mul_(within).sum(1, keepdim=True)
        total += (along / squares.masked_fill_(squares == 0, 1)).clamp_(min=1)
    return left, 1 - len(active) / total.clamp_(min=1)


def _shrunk(tensor: torch.Tensor, left: torch.Tensor, excess: torch.Tensor) -> torch.Tensor:
    """Return X - U (1 - γ) Uᵀ X, which leaves what is orthogonal to U."""
    from evomerge.merge.methods.algebra import product

    return tensor - product(left, product(left.T, tensor).mul_(excess))


def _counts(inputs: Inputs, index: int) -> bool:
    weight = inputs.weight(index)
    return not isinstance(weight, float) or weight != 0
