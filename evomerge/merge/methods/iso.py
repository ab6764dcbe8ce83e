"""Isotropic merging (arXiv 2502.04959): a merged matrix whose singular values are all the same.

Iso-C flattens the spectrum of the summed task vectors; Iso-CTS replaces its smallest directions by those that
the experts have besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    numbers,
    rounded,
)
from evomerge.merge.methods.tsv import LAMBDA, WEIGHT

if TYPE_CHECKING:
    import torch

Build = Callable[[Inputs, Mapping[int, float]], "torch.Tensor"]
"""Inputs and weights → the merged matrix, float64 on the CPU."""


def isotropic(build: Build, inputs: Inputs) -> torch.Tensor:
    """Return the base plus lambda times what `build` makes of a linear layer's matrices.

    For embeddings, output head and all but matrices that is Σ wᵢ τᵢ divided by the number of experts.
    """
    from evomerge.merge.methods.algebra import is_linear
    from evomerge.merge.methods.tensors import weighted_sum

    assert inputs.base is not None  # needs_base
    base, first = inputs.tensor(inputs.base), inputs.delta(inputs.others[0])
    weights = _weights(inputs.own, inputs.base)
    if not weights:
        return base
    scale = max(map(abs, weights.values()))
    factor, ratios = float(inputs.shared["lambda"]) * scale, _divided(weights, scale)
    if not is_linear(inputs.name, first.shape):
        mixed = weighted_sum(map(inputs.delta, ratios), list(ratios.values()))
        return mixed.mul_(factor / len(inputs.others)).add_(base)
    # The result is linear in the scale of all weights: what is kept holds for any.
    variant = (build.__name__, tuple(ratios.items()), inputs.shared.get("common_share"))
    flat = inputs.derived(
        "isotropic", lambda: build(inputs, ratios).to(first.device, first.dtype), variant
    )
    return (flat * factor).add_(base)


def flattened(inputs: Inputs, weights: Mapping[int, float]) -> torch.Tensor:
    """Return Σ wᵢ τᵢ = U Σ Vᵀ with every singular value replaced by their mean (Iso-C).

    Singular values of 0 stay 0 and do not count in the mean.
    """
    from evomerge.merge.methods.algebra import product, svd

    left, values, right = svd(_sum(inputs, weights))
    return product(left, right) * _mean(values)


def gradients(inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    """Return the gradients of Iso-C by the weights and by lambda; 0 where all weights are 0.

    Singular values of 0 are taken to stay 0.
    """
    from evomerge.merge.methods.algebra import is_linear
    from evomerge.merge.methods.tensors import dot

    assert inputs.base is not None  # needs_base
    found, weights = [0.0] * len(inputs.models), _weights(inputs.own, inputs.base)
    factor = float(inputs.shared["lambda"])
    if not weights:
        return NumberGradients({"weight": tuple(found)}, {"lambda": 0.0})
    if is_linear(inputs.name, gradient.shape):
        by_sum = _gradient_by_sum(_sum(inputs, weights), gradient)
    else:
        by_sum = gradient / len(inputs.others)
    for index in inputs.others:
        found[index] = dot(by_sum, inputs.delta(index).to(by_sum.device))
    # The result grows with the scale of all weights, so that ⟨∂/∂w, w⟩ is the result itself.
    by_factor = sum(found[index] * weight for index, weight in weights.items())
    return NumberGradients({"weight": tuple(factor * one for one in found)}, {"lambda": by_factor})


def _gradient_by_sum(total: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return the gradient of ⟨g, σ U Vᵀ⟩ by the matrix U Σ Vᵀ, σ the mean of Σ.

    With A = Uᵀ dS V the polar factor changes by U ((A - Aᵀ) / (σᵢ + σⱼ)) Vᵀ, and by what dS adds outside of
    the spaces of U and V, divided by Σ.
    """
    from evomerge.merge.methods.algebra import matrix, product, svd

    left, values, right = svd(total)
    if not len(values):
        return total
    gradient, mean = matrix(gradient), float(values.mean())
    by_left, by_right = product(left.T, gradient), product(gradient, right.T)
    inner = product(by_left, right.T)
    turned = (inner - inner.T) / (values[:, None] + values)
    across = (by_left - product(inner, right)) / values[:, None] + product(turned, right)
    found = product(left, across) + product((by_right - product(left, inner)) / values, right)
    share = float(inner.trace()) / len(values)
    return found.mul_(mean).add_(product(left, right).mul_(share))


def with_own_directions(inputs: Inputs, weights: Mapping[int, float]) -> torch.Tensor:
    """Return the largest directions of Σ wᵢ τᵢ and those of each wᵢ τᵢ besides, all of one length (Iso-CTS).

    `common_share` of the directions are those of the sum; the others are shared out among the experts, whose
    task vectors are projected onto what the left singular vectors of the sum leave. All are replaced by the
    nearest orthonormal ones, and the length is the mean of their singular values.
    """
    import torch

    from evomerge.merge.methods.algebra import joined, matrix, product, svd

    total = _sum(inputs, weights)
    rank = min(total.shape)
    own = (rank - int(float(inputs.shared["common_share"]) * rank)) // len(weights)
    common = svd(total, rank - own * len(weights))
    parts, largest = [common], max(common[1].tolist(), default=0.0)
    for index, weight in weights.items() if own else ():
        delta = matrix(inputs.delta(index)) * weight
        delta -= product(common[0], product(common[0].T, delta))
        parts.append(svd(delta, own, scale=largest))
    left, right = joined([part[0] for part in parts], 1), joined([part[2] for part in parts], 0)
    return product(left, right) * _mean(torch.cat([part[1] for part in parts]))


def effect(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return the factor of each expert."""
    assert base is not None  # needs_base
    scale = float(shared["lambda"])
    factors = {index: rounded(scale * weight) for index, weight in _weights(own, base).items()}
    parts = {index: (False, factor) for index, factor in factors.items() if factor}
    return Effect(numbers({**shared, "lambda": 1.0}), {base: (True, 0.0), **parts})


def _weights(own: Sequence[Values], base: int) -> dict[int, float]:
    """Return the weights that are not 0."""
    weights = {index: float(values["weight"]) for index, values in enumerate(own) if index != base}
    return {index: weight for index, weight in weights.items() if weight}


def _divided(weights: Mapping[int, float], scale: float) -> dict[int, float]:
    return {index: weight / scale for index, weight in weights.items()}


def _sum(inputs: Inputs, weights: Mapping[int, float]) -> torch.Tensor:
    from evomerge.merge.methods.algebra import matrix

    (first, factor), *others = weights.items()
    total = matrix(inputs.delta(first)) * factor
    for index, weight in others:
        total.add_(matrix(inputs.delta(index)) * weight)
    return total


def _mean(values: torch.Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0


def _bytes(rows: int, columns: int, experts: int) -> int:
    """Return the memory at the peak: a matrix, all directions, and the decomposition of these."""
    del experts
    return 84 * rows * columns


ISO_C = Method(
    name="iso_c",
    beyond_mergekit=True,
    merge=partial(isotropic, flattened),
    gradients=gradients,
    effect=effect,
    parameters={"weight": WEIGHT, "lambda": LAMBDA},
    needs_base=True,
    uses_base=True,
    reads_deltas=True,
    derived_bytes=4,
    matrix_bytes=_bytes,
)
ISO_CTS = replace(
    ISO_C,
    name="iso_cts",
    beyond_mergekit=True,
    merge=partial(isotropic, with_own_directions),
    gradients=None,
    parameters={
        "weight": replace(WEIGHT, differentiable=False),
        "lambda": replace(LAMBDA, differentiable=False),
        "common_share": Parameter(
            "number",
            "share of the directions that are those of the summed task vectors; 0.5 to 0.9 is usual",
            default=0.8,
            low=0.0,
            high=1.0,
        ),
    },
)
