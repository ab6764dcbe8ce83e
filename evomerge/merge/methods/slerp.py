"""Spherical interpolation of two models, as mergekit 0.1.5 computes it."""

from __future__ import annotations

import math

import torch

from evomerge.merge.methods.method import Group, Method, ParameterSpec
from evomerge.merge.methods.reductions import cosine

PARALLEL = 0.9995  # |cos| above this: straight interpolation


def slerp(group: Group) -> torch.Tensor:
    """Go from the base (t = 0) to the other model (t = 1) along the great circle between them.

    Each tensor is one vector; both keep their own norm; (anti-)parallel ones are interpolated straight.
    """
    assert group.base is not None  # needs_base
    start, end = group.tensor(group.base), group.tensor(group.others[0])
    t = float(group.shared["t"])
    at_start, at_end = coefficients(cosine(start, end), t)
    return (start * at_start).add_(end * at_end)


def coefficients(cos: float, t: float) -> tuple[float, float]:
    """Return the factors of the two vectors at `t`."""
    if abs(cos) > PARALLEL:
        return 1 - t, t
    angle = math.acos(cos)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


SLERP = Method(
    name="slerp",
    merge=slerp,
    parameters={
        "t": ParameterSpec("number", "0 gives the base, 1 the other model", required=True),
    },
    needs_base=True,
    uses_base=True,
    min_models=1,
    max_models=1,
)
