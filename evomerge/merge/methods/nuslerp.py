"""Spherical interpolation of two models or of their task vectors, whole or by rows (mergekit 0.1.5)."""

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
    numbers,
    rounded,
    summed,
)

if TYPE_CHECKING:
    import torch

MIN_WEIGHTS = 1e-6  # of a smaller sum of weights each model has a half (mergekit)
MIN_NORM = 1e-7  # a smaller norm counts as this (mergekit)
PARALLEL = (
    1e-16  # sin² of a smaller angle, in the dtype of the maths: straight interpolation (mergekit)
)


def nuslerp(inputs: Inputs) -> torch.Tensor:
    """Go from the first model to the second along the great circle; with a base, their task vectors do.

    Both keep their norms. Vectors are whole tensors (`nuslerp_flatten`), else what lies along the last axis,
    or along the first (`nuslerp_row_wise`).
    """
    start, end = (_vector(inputs, index) for index in inputs.others)
    at_start, at_end = _coefficients(inputs, start, end)
    merged = (start * at_start).add_(end * at_end)
    return merged if inputs.base is None else merged.add_(inputs.tensor(inputs.base))


def gradients(inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    """Return the gradients by the weights, through t = w2 / (w1 + w2)."""
    from evomerge.merge.methods.tensors import inner

    first, second = inputs.others
    start, end = _vector(inputs, first), _vector(inputs, second)
    by_start, by_end = _coefficients(inputs, start, end, derived=True)
    by_t = inner(gradient, (start * by_start).add_(end * by_end))
    one, other = (float(inputs.own[index]["weight"]) for index in inputs.others)
    total = one + other
    by_weight = [0.0] * len(inputs.models)
    if abs(total) >= MIN_WEIGHTS:
        by_weight[first], by_weight[second] = -by_t * other / total**2, by_t * one / total**2
    return NumberGradients({"weight": tuple(by_weight)})


def effect(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return one model alone at both ends; in between the share of each, and which vectors are meant."""
    first, second = (index for index in range(len(own)) if index != base)
    t = _position(float(own[first]["weight"]), float(own[second]["weight"]))
    if rounded(t) in (0, 1):
        return summed({first: 1 - t, second: t})
    flat = bool(shared["nuslerp_flatten"])
    rule = numbers({"flat": flat, "first axis": not flat and bool(shared["nuslerp_row_wise"])})
    parts = {first: (False, rounded(1 - t)), second: (False, rounded(t))}
    return Effect(rule, parts if base is None else {base: (True, 0.0), **parts})


def _position(one: float, other: float) -> float:
    total = one + other
    return 0.5 if abs(total) < MIN_WEIGHTS else other / total


def _vector(inputs: Inputs, index: int) -> torch.Tensor:
    return inputs.tensor(index) if inputs.base is None else inputs.delta(index)


def _coefficients(
    inputs: Inputs, start: torch.Tensor, end: torch.Tensor, *, derived: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of two vectors, or their derivatives by t; they have length 1 along the vectors."""
    import torch

    axis = 0 if inputs.shared["nuslerp_row_wise"] else -1
    flat = bool(inputs.shared["nuslerp_flatten"])
    what = f"cosine {'flat' if flat else axis}"
    cos = inputs.fixed(what, lambda: _cosine(start, end, None if flat else axis))
    t = _position(*(float(inputs.own[index]["weight"]) for index in inputs.others))
    straight = 1 - cos.to(start.dtype).square() <= PARALLEL
    angle = torch.acos(cos.masked_fill(straight, 0))
    if derived:
        pace = angle / angle.sin()
        spherical = -pace * ((1 - t) * angle).cos(), pace * (t * angle).cos()
        linear = -1.0, 1.0
    else:
        spherical = ((1 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin()
        linear = 1 - t, t
    at_start, at_end = (
        torch.where(straight, factor, curved).to(start.device, start.dtype)
        for factor, curved in zip(linear, spherical, strict=True)
    )
    return at_start, at_end


def _cosine(start: torch.Tensor, end: torch.Tensor, axis: int | None) -> torch.Tensor:
    """Return the cosines of vectors along an axis, or of whole tensors; float64, on the CPU."""
    from evomerge.merge.methods.tensors import dots_along

    a, b = (start.reshape(-1), end.reshape(-1)) if axis is None else (start, end)
    along = -1 if axis is None else axis
    squares = (dots_along(one, one, along) for one in (a, b))
    norm_a, norm_b = (square.sqrt().clamp(min=MIN_NORM) for square in squares)
    cos = dots_along(a, b, along).div_(norm_a * norm_b).clamp_(-1, 1)
    return cos.view([1] * start.ndim) if axis is None else cos


NUSLERP = Method(
    name="nuslerp",
    merge=nuslerp,
    gradients=gradients,
    effect=effect,
    parameters={
        "weight": Parameter(
            "number",
            "share of this model: the way from the first to the second goes as far as the second's share",
            required=True,
            per_source=True,
            differentiable=True,
        ),
        "nuslerp_flatten": Parameter(
            "boolean", "take each tensor as one vector, not row by row", default=True
        ),
        "nuslerp_row_wise": Parameter(
            "boolean",
            "where tensors are not flattened: vectors lie along the first axis, not the last",
            default=False,
        ),
    },
    uses_base=True,
    min_models=2,
    max_models=2,
    reads_deltas=True,
    temporaries=3,
)
