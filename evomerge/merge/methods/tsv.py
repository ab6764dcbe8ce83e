"""TSV-Merge (arXiv 2412.00081): the experts' largest singular directions, made orthogonal to each other.

The directions depend on the task vectors only, so what an expert adds is computed once for all weights, and
the merge is a weighted sum of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

if TYPE_CHECKING:
    import torch


def tsv(inputs: Inputs) -> torch.Tensor:
    """Return the base plus lambda · Σ wᵢ Tᵢ.

    For the matrix of a linear layer Tᵢ = Uᵢ Σᵢ Vᵢᵀ: the largest singular values of the task vector, as many
    as `rank_share` says, and their singular vectors, after those of all experts together are replaced by the
    nearest orthonormal ones. An expert of weight 0 adds nothing, but the others' directions are orthogonal to
    its own as well. For embeddings, output head and all that is no matrix Tᵢ is the task vector divided by
    the number of experts.
    """
    from evomerge.merge.methods.tensors import weighted_sum

    assert inputs.base is not None  # needs_base
    base, weights = inputs.tensor(inputs.base), _weights(inputs)
    if not any(weights):
        return base
    factor, vectors = _vectors(inputs)
    return weighted_sum(vectors, weights).mul_(factor * float(inputs.shared["lambda"])).add_(base)


def gradients(inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    """Return the gradients by the weights and by lambda."""
    from evomerge.merge.methods.tensors import dot

    found = [0.0] * len(inputs.models)
    factor, vectors = _vectors(inputs)
    for index, vector in zip(inputs.others, vectors, strict=True):
        found[index] = factor * dot(gradient, vector)
    by_factor = sum(found[i] * w for i, w in zip(inputs.others, _weights(inputs), strict=True))
    scale = float(inputs.shared["lambda"])
    return NumberGradients({"weight": tuple(scale * one for one in found)}, {"lambda": by_factor})


def effect(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return the factor of each expert; those of factor 0 count, as they have directions."""
    assert base is not None  # needs_base
    scale = float(shared["lambda"])
    factors = {i: rounded(scale * float(one["weight"])) for i, one in enumerate(own) if i != base}
    parts = (
        {index: (False, factor) for index, factor in factors.items()}
        if any(factors.values())
        else {}
    )
    return Effect(numbers({**shared, "lambda": 1.0}), {base: (True, 0.0), **parts})


def _weights(inputs: Inputs) -> list[float]:
    return [float(inputs.own[index]["weight"]) for index in inputs.others]


def _vectors(inputs: Inputs) -> tuple[float, Iterable[torch.Tensor]]:
    """Return a factor, and what each expert adds over that factor at a weight of 1."""
    from evomerge.merge.methods.algebra import is_linear

    if not is_linear(inputs.name, inputs.delta(inputs.others[0]).shape):
        return 1 / len(inputs.others), map(inputs.delta, inputs.others)
    share = inputs.shared.get("rank_share")
    return 1.0, inputs.derived("singular task vectors", lambda: _decorrelated(inputs, share), share)


def _decorrelated(inputs: Inputs, share: float | None) -> torch.Tensor:
    """Return Tᵢ of every expert, `[experts, out, in]`."""
    import torch

    from evomerge.merge.methods.algebra import joined, product, svd

    first = inputs.delta(inputs.others[0])
    rank = min(first.shape)
    count = rank // len(inputs.others) if share is None else int(share * rank)
    parts = [svd(inputs.delta(index), max(1, count)) for index in inputs.others]
    left = joined([part[0] for part in parts], 1)
    right = joined([part[2] for part in parts], 0)
    found = torch.empty(len(parts), *first.shape, dtype=first.dtype)
    start = 0
    for place, (_, values, _) in enumerate(parts):
        own = slice(start, start := start + len(values))
        found[place] = product(left[:, own] * values, right[own])
    return found.to(first.device)


def _bytes(rows: int, columns: int, experts: int) -> int:
    """Return the memory at the peak: all singular vectors and their decomposition, at a `rank_share` of 1."""
    return (16 + 52 * experts) * rows * columns


WEIGHT = Parameter(
    "number",
    "factor of this model's task vector; 0 leaves it out; 0.3 to 1.5 is usual",
    required=True,
    per_source=True,
    differentiable=True,
)
LAMBDA = Parameter(
    "number",
    "factor of the merged task vector as a whole; 0.5 to 2 is usual",
    default=1.0,
    differentiable=True,
)
TSV = Method(
    name="tsv",
    beyond_mergekit=True,
    merge=tsv,
    gradients=gradients,
    effect=effect,
    parameters={
        "weight": WEIGHT,
        "lambda": LAMBDA,
        "rank_share": Parameter(
            "number",
            "share of each task vector's singular directions that is kept; without it one over the number of "
            "experts",
            low=0.0,
            high=1.0,
        ),
    },
    needs_base=True,
    uses_base=True,
    reads_deltas=True,
    temporaries=4,
    derived_bytes=4,
    matrix_bytes=_bytes,
)
