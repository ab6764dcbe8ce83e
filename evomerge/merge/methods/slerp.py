"""Spherical interpolation of two models, as mergekit 0.1.5 computes it."""

from __future__ import annotations

import math

import torch

from evomerge.merge.methods.method import Group, Method, ParameterSpec

PARALLEL = 0.9995  # |cos| above this: straight interpolation
MIN_NORM = 1e-8
CHUNK = 1 << 20  # elements; bounds the float64 copies


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


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the cosine of two tensors as vectors; summed in float64, a norm of 0 counts as 1."""
    norm_a, norm_b = math.sqrt(dot(a, a)), math.sqrt(dot(b, b))
    scale = (norm_a if norm_a > MIN_NORM else 1.0) * (norm_b if norm_b > MIN_NORM else 1.0)
    return max(-1.0, min(1.0, dot(a, b) / scale))


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the inner product of two tensors as vectors, in float64."""
    x, y = a.reshape(-1), b.reshape(-1)
    total = 0.0
    for start in range(0, x.numel(), CHUNK):
        piece = slice(start, start + CHUNK)
        total += float((x[piece].double() * y[piece].double()).sum())
    return total


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
