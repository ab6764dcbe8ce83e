"""Entries where two models are near each other go over to the other one, as mergekit 0.1.5 has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.merge.methods.method import (
    Effect,
    Inputs,
    Method,
    NumberGradients,
    Parameter,
    Values,
    as_written,
    summed,
)

if TYPE_CHECKING:
    import torch

MIN_DISTANCE = 1e-6  # a smaller distance counts as this (mergekit)


def nearswap(inputs: Inputs) -> torch.Tensor:
    """Return the other model's entry where it is within `t` of the base's, elsewhere one `t` nearer to it."""
    base, other = _models(inputs)
    share = _distances(inputs).reciprocal_().mul_(float(inputs.shared["t"])).clamp_(0, 1)
    merged = other * share
    return merged.add_(share.neg_().add_(1).mul_(base))


def gradients(inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    """Return ⟨g, (other - base) / distance⟩ by `t`, over the entries that go part of the way."""
    from evomerge.merge.methods.tensors import inner

    base, other = _models(inputs)
    distances, t = _distances(inputs), float(inputs.shared["t"])
    moving = (distances > t).to(distances.dtype) if t >= 0 else distances.new_zeros(())
    direction = (other - base).div_(distances).mul_(moving)
    return NumberGradients(shared={"t": inner(gradient, direction)})


def effect(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return the base alone where `t` is 0."""
    if shared["t"] <= 0:
        return summed({i: float(i == base) for i in range(len(own))})
    return as_written(shared, own, base)


def _models(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    assert inputs.base is not None  # needs_base
    return inputs.tensor(inputs.base), inputs.tensor(inputs.others[0])


def _distances(inputs: Inputs) -> torch.Tensor:
    base, other = _models(inputs)
    return (base - other).abs_().clamp_(min=MIN_DISTANCE)


NEARSWAP = Method(
    name="nearswap",
    merge=nearswap,
    gradients=gradients,
    effect=effect,
    parameters={
        "t": Parameter(
            "number",
            "entries that differ by less become the other model's, all others go that far; 0.0001 is usual",
            required=True,
            differentiable=True,
        ),
    },
    needs_base=True,
    uses_base=True,
    min_models=1,
    max_models=1,
)
