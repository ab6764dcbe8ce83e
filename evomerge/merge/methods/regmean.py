"""RegMean (arXiv 2212.09849): the linear layer that answers every expert's inputs most like that expert.

Published with the second moments of the experts' inputs. Without data they are estimated by those of the task
vectors' rows (WUDI, 2503.08099; ACTMat, 2604.01329): training moves each row by a combination of the inputs.
RegMean++ (2508.03121) takes the moments where the layers before are merged already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from evomerge.errors import MergeError
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

LEAST_RIDGE = 1e-6
"""A smaller ridge counts as this, as the sum of the moments may be singular."""


def regmean(inputs: Inputs) -> torch.Tensor:
    """Return the base plus lambda · M, M the regression of the experts' layers on their inputs.

    For the matrix of a linear layer, task vectors τᵢ `[out, in]` and second moments Cᵢ `[in, in]`,
    M = (Σ wᵢ τᵢ Cᵢ + μ P) (Σ wᵢ Cᵢ + μ I)⁻¹ with the weighted mean P = Σ wᵢ τᵢ / Σ wᵢ, and μ the ridge times
    the mean diagonal entry of Σ wᵢ Cᵢ. Cᵢ is τᵢᵀτᵢ / ‖τᵢ‖², or with `activations` the mean of x xᵀ over the
    layer's inputs x, or with `merged_features` over those that the merged layers before give. In directions
    in which the sum of the moments is 0, M is P: the limit of a vanishing ridge. For embeddings, output head
    and all that is no matrix M is P. Weights count relative to each other; where all are 0, the result is
    the base.

    Raises:
        MergeError: There are no activations, or the sum of the moments is not positive definite.
    """
    assert inputs.base is not None  # needs_base
    base, shares = inputs.tensor(inputs.base), _shares(inputs.own, inputs.base)
    if not shares:
        return base
    return (_merged(inputs, shares) * float(inputs.shared["lambda"])).add_(base)


def gradients(inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    """Return the gradients by the weights and by lambda; 0 where all weights are 0.

    That by wᵢ is lambda ⟨g A⁻¹, (τᵢ - M) Cᵢ + ∂μ/∂wᵢ (P - M) + μ ∂P/∂wᵢ⟩, A the sum that is inverted.
    """
    from evomerge.merge.methods.tensors import dot

    assert inputs.base is not None  # needs_base
    found, shares = [0.0] * len(inputs.models), _shares(inputs.own, inputs.base)
    if not shares:
        return NumberGradients({"weight": tuple(found)}, {"lambda": 0.0})
    merged = _merged(inputs, shares)
    factor = float(inputs.shared["lambda"]) / sum(float(inputs.own[i]["weight"]) for i in shares)
    by_share = _by_shares(inputs, shares, gradient, merged)
    for index, value in zip(inputs.others, by_share, strict=True):
        found[index] = factor * value
    return NumberGradients({"weight": tuple(found)}, {"lambda": dot(gradient, merged)})


def effect(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return each expert's share in the sum of the weights; one that is alone is added as it is."""
    assert base is not None  # needs_base
    shares, factor = _shares(own, base), float(shared["lambda"])
    if len(shares) < 2:
        return summed({base: 1 - factor * len(shares), **dict.fromkeys(shares, factor)})
    parts = {index: (False, rounded(share)) for index, share in shares.items()}
    rule = numbers({**shared, "ridge": _ridge(shared)})
    return Effect(rule, {base: (True, 0.0), **parts})


def _shares(own: Sequence[Values], base: int) -> dict[int, float]:
    """Return the share of each expert in the sum of the weights, of those whose weight is not 0."""
    weights = {index: float(values["weight"]) for index, values in enumerate(own) if index != base}
    total = sum(weights.values())
    return {index: weight / total for index, weight in weights.items() if weight}


def _ridge(shared: Values) -> float:
    return max(LEAST_RIDGE, float(shared["ridge"]))


def _merged(inputs: Inputs, shares: Mapping[int, float]) -> torch.Tensor:
    """Return M, computed once for a merge and its gradients."""

    def build() -> tuple[torch.Tensor]:
        found = _regression(inputs, shares) if len(shares) > 1 else None
        return (_mean(inputs, shares) if found is None else found,)

    return (inputs.once(1, build) or build())[0]


def _mean(inputs: Inputs, shares: Mapping[int, float]) -> torch.Tensor:
    from evomerge.merge.methods.tensors import weighted_sum

    return weighted_sum(map(inputs.delta, shares), list(shares.values()))


def _regression(inputs: Inputs, shares: Mapping[int, float]) -> torch.Tensor | None:
    """Return M, rounded; None: the tensor is no linear layer's matrix, or all moments are 0."""
    from evomerge.merge.methods.algebra import matrix, solve

    found = _sum(inputs, shares)
    if found is None:
        return None
    moments, ridge = found
    prior = _mean(inputs, shares)
    numerator = matrix(prior) * ridge
    for index, share in shares.items():
        numerator.add_(_answers(inputs, index) * share)
    try:
        return solve(moments, numerator).to(prior.device, prior.dtype)
    except MergeError:
        raise MergeError(
            f"{inputs.name}: the sum of the experts' second moments is not positive definite with a ridge "
            f"of {float(inputs.shared['ridge']):g}; raise the ridge"
        ) from None


def _by_shares(
    inputs: Inputs, shares: Mapping[int, float], gradient: torch.Tensor, merged: torch.Tensor
) -> list[float]:
    """Return the gradient of ⟨g, M⟩ by each expert's weight, times the sum of the weights.

    With G = g A⁻¹ that is ⟨G, τᵢ Cᵢ⟩ - ⟨Gᵀ M, Cᵢ⟩, and what the ridge and the prior add.
    """
    from evomerge.merge.methods.algebra import matrix, product, solve
    from evomerge.merge.methods.tensors import dot

    found = _sum(inputs, shares)
    if found is None:
        by_mean = dot(gradient, merged)
        return [dot(gradient, inputs.delta(index)) - by_mean for index in inputs.others]
    moments, ridge = found
    through, merged = solve(moments, gradient), matrix(merged)
    del moments, found
    by_prior = dot(through, matrix(_mean(inputs, shares)))
    by_ridge = by_prior - dot(through, merged)
    by_moment = product(through.T, merged)
    _keep_off_diagonal(inputs, by_moment)
    values = []
    for index in inputs.others:
        moment = _moment(inputs, index)
        by_own_moment = dot(through, _answers(inputs, index)) - dot(by_moment, moment)
        by_own_ridge = _ridge(inputs.shared) * _mean_diagonal(moment) * by_ridge
        by_own_prior = ridge * (dot(through, inputs.delta(index).cpu()) - by_prior)
        values.append(by_own_moment + by_own_ridge + by_own_prior)
    return values


def _sum(inputs: Inputs, shares: Mapping[int, float]) -> tuple[torch.Tensor, float] | None:
    """Return the sum of the moments with the ridge on its diagonal, and the ridge; None as `_regression`."""
    import torch

    from evomerge.merge.methods.algebra import is_linear, matrix

    first = inputs.delta(inputs.others[0])
    if not is_linear(inputs.name, first.shape):
        return None
    size = first.shape[1]
    total = torch.zeros(size, size, dtype=torch.float64)
    for index, share in shares.items():
        total.add_(matrix(_moment(inputs, index)) * share)
    mean = _mean_diagonal(total)
    _keep_off_diagonal(inputs, total)
    ridge = _ridge(inputs.shared) * mean
    total.diagonal().add_(ridge)
    return (total, ridge) if mean > 0 else None


def _keep_off_diagonal(inputs: Inputs, moment: torch.Tensor) -> None:
    """Multiply what is not on the diagonal of a square matrix by `off_diagonal`, in place."""
    kept = float(inputs.shared["off_diagonal"])
    if kept != 1:
        diagonal = moment.diagonal().clone()
        moment.mul_(kept).diagonal().copy_(diagonal)


def _answers(inputs: Inputs, index: int) -> torch.Tensor:
    """Return an expert's task vector times its second moments, these as `off_diagonal` makes them."""
    from evomerge.merge.methods.algebra import matrix, product

    def build() -> torch.Tensor:
        return product(inputs.delta(index), _moment(inputs, index))

    found = build() if _reads(inputs) else inputs.derived(f"answers of {index}", build)
    kept = float(inputs.shared["off_diagonal"])
    if kept == 1:
        return found
    diagonal = _moment(inputs, index).diagonal().double() * (1 - kept)
    return (found * kept).add_(matrix(inputs.delta(index)) * diagonal)


def _moment(inputs: Inputs, index: int) -> torch.Tensor:
    """Return the second moments of an expert's inputs, `[in, in]` on the CPU.

    Those of task vectors are float64: rounded to float32, they would not be 0 where the sum is singular.
    """
    from evomerge.merge.methods.algebra import product

    if _reads(inputs):
        return inputs.moment(index, merged=bool(inputs.shared["merged_features"])).cpu()

    def build() -> torch.Tensor:
        delta = inputs.delta(index)
        squares = product(delta.T, delta)
        return squares.div_(float(squares.trace()) or 1.0)

    return inputs.derived(f"second moment of {index}", build)


def _reads(inputs: Inputs) -> bool:
    """Tell whether the moments are those of activations."""
    return bool(inputs.shared["activations"] or inputs.shared["merged_features"])


def _mean_diagonal(moment: torch.Tensor) -> float:
    return float(moment.diagonal().double().mean())


def _bytes(rows: int, columns: int, experts: int) -> int:
    """Return the memory at the peak: a moment, the sum and its factor; and seven task vectors."""
    del experts
    return 24 * columns**2 + 56 * rows * columns


REGMEAN = Method(
    name="regmean",
    beyond_mergekit=True,
    merge=regmean,
    gradients=gradients,
    effect=effect,
    parameters={
        "weight": Parameter(
            "number",
            "share of this model in the regression, relative to the others'; 0 leaves it out",
            required=True,
            low=0.0,
            per_source=True,
            differentiable=True,
        ),
        "lambda": Parameter(
            "number",
            "factor of the merged task vector as a whole; 0.5 to 2 is usual",
            default=1.0,
            differentiable=True,
        ),
        "ridge": Parameter(
            "number",
            "pull towards the weighted mean of the task vectors, relative to the mean diagonal entry of the "
            "sum of the moments; 0.001 to 1 is usual",
            default=0.01,
            low=0.0,
        ),
        "off_diagonal": Parameter(
            "number",
            "factor of the moments' off-diagonal entries; 0 regresses each column by itself",
            default=1.0,
            low=0.0,
            high=1.0,
        ),
        "activations": Parameter(
            "boolean",
            "take the moments of the layers' inputs on search prompts, not of the task vectors",
            default=False,
            reads="moment",
        ),
        "merged_features": Parameter(
            "boolean",
            "take the moments of what enters an expert's layer where the layers before it are merged "
            "(RegMean++)",
            default=False,
            reads="merged",
        ),
    },
    needs_base=True,
    uses_base=True,
    reads_deltas=True,
    temporaries=5,
    derived_bytes=24,
    matrix_bytes=_bytes,
)
