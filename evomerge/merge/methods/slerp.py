"""Spherical interpolation of two models, as mergekit 0.1.5 computes it."""

from __future__ import annotations

import math
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

PARALLEL = 0.9995  # |cos| above this: straight interpolation


def slerp(inputs: Inputs) -> torch.Tensor:
    """Go from the base (t = 0) to the other model (t = 1) along the great circle between them.

    Each tensor is one vector; both keep their own norm; (anti-)parallel ones are interpolated straight.
    """
    from evomerge.merge.methods.tensors import cosine

    assert inputs.base is not None  # needs_base
    start, end = inputs.tensor(inputs.base), inputs.tensor(inputs.others[0])
    t = float(inputs.shared["t"])
    at_start, at_end = coefficients(cosine(start, end), t)
    return (start * at_start).add_(end * at_end)


def coefficients(cos: float, t: float) -> tuple[float, float]:
    """Return the factors of the two vectors at `t`."""
    if abs(cos) > PARALLEL:
        return 1 - t, t
    angle = math.acos(cos)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def gradients(inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    """Return a'(t) ⟨g, start⟩ + b'(t) ⟨g, end⟩ by `t`, where a and b are the two vectors' factors."""
    from evomerge.merge.methods.tensors import cosine, inner

    assert inputs.base is not None  # needs_base
    start, end = inputs.tensor(inputs.base), inputs.tensor(inputs.others[0])
    by_start, by_end = coefficient_gradients(cosine(start, end), float(inputs.shared["t"]))
    derivative = by_start * inner(gradient, start) + by_end * inner(gradient, end)
    return NumberGradients(shared={"t": derivative})


def coefficient_gradients(cos: float, t: float) -> tuple[float, float]:
    """Return the derivatives of `coefficients` by `t`.

    With ω the angle, -ω cos((1 - t) ω) / sin ω and ω cos(t ω) / sin ω.
    """
    if abs(cos) > PARALLEL:
        return -1.0, 1.0
    angle = math.acos(cos)
    pace = angle / math.sin(angle)
    return -pace * math.cos((1 - t) * angle), pace * math.cos(t * angle)


def effect(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return one model alone at both ends; in between the vectors' angle counts too."""
    if shared["t"] in (0, 1):
        return summed({i: float((i != base) == (shared["t"] == 1)) for i in range(len(own))})
    return as_written(shared, own, base)


SLERP = Method(
    name="slerp",
    merge=slerp,
    gradients=gradients,
    effect=effect,
    parameters={
        "t": Parameter(
            "number", "0 gives the base, 1 the other model", required=True, differentiable=True
        ),
    },
    needs_base=True,
    uses_base=True,
    min_models=1,
    max_models=1,
)
