"""Model Stock (arXiv 2403.19522): between base and average, as far as the experts agree (mergekit 0.1.5)."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from evomerge.merge.methods.method import Inputs, Method, Parameter

if TYPE_CHECKING:
    import torch

MIN_NORMS = 1e-6  # a smaller product of two norms counts as this (mergekit)
SINGULAR = 1e-6  # a smaller denominator leaves the base (mergekit)


def model_stock(inputs: Inputs) -> torch.Tensor:
    """Return the base plus t times the mean task vector, t = N cos θ / (1 + (N - 1) cos θ).

    cos θ is the mean cosine of all pairs of the N task vectors: of whole tensors, or row by row along the
    last axis (`filter_wise`). Of task vectors that disagree cos θ is below 0, and t too: as in mergekit, the
    result then lies beyond the base. Where the denominator is all but 0, it is the base.
    """
    from evomerge.merge.methods.tensors import weighted_sum

    assert inputs.base is not None  # needs_base
    base, count = inputs.tensor(inputs.base), len(inputs.others)
    by_row = bool(inputs.shared["filter_wise"])
    t = inputs.fixed(f"stock {by_row}", lambda: _interpolation(inputs, by_row=by_row))
    factor = (t / count).to(base.device, base.dtype)
    return weighted_sum(map(inputs.delta, inputs.others), [factor] * count).add_(base)


def _interpolation(inputs: Inputs, *, by_row: bool) -> torch.Tensor:
    """Return t of the tensor or of each row, of length 1 along what it holds for; float64, on the CPU."""
    import torch

    from evomerge.merge.methods.tensors import dots_along

    def dots(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        if by_row:
            return dots_along(one, other, -1)
        return dots_along(one.reshape(-1), other.reshape(-1), -1).view([1] * one.ndim)

    norms = {}
    for index in inputs.others:
        delta = inputs.delta(index)
        norms[index] = dots(delta, delta).sqrt_()
    cosines = []
    for one, other in combinations(inputs.others, 2):
        products = (norms[one] * norms[other]).clamp_(min=MIN_NORMS)
        cosines.append(dots(inputs.delta(one), inputs.delta(other)).div_(products).clamp_(-1, 1))
    cos, count = torch.stack(cosines).mean(0), len(inputs.others)
    denominator = 1 + (count - 1) * cos
    t: torch.Tensor = count * cos / denominator
    return t.masked_fill_(denominator.abs() < SINGULAR, 0)


MODEL_STOCK = Method(
    name="model_stock",
    merge=model_stock,
    parameters={
        "filter_wise": Parameter(
            "boolean", "one angle for each row of a tensor, not one for all of it", default=False
        )
    },
    needs_base=True,
    uses_base=True,
    min_models=2,
    reads_deltas=True,
)
