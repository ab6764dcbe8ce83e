"""SCE (arXiv 2408.07990): select entries by variance, calculate weights, erase signs (mergekit 0.1.5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evomerge.merge.methods.method import Inputs, Method, Parameter
from evomerge.merge.methods.task_vectors import TaskVectors

if TYPE_CHECKING:
    import torch

MIN_SQUARES = 1e-6  # of a smaller sum of mean squares all task vectors weigh the same (mergekit)
MIN_DIVISOR = 1e-6  # a smaller sum of agreeing weights divides as this (mergekit)


def sce(inputs: Inputs) -> torch.Tensor:
    """Return the base plus the elected, weighted task vectors.

    Of the entries that differ between the experts, the share `select_topk` of largest variance is kept (of
    equal ones the first); a task vector weighs as the mean square of what is kept of it; the sign of each
    entry is elected by the plain sum; and what agrees is divided by its weights.
    """
    from evomerge.merge.methods.tensors import elected_sum

    assert inputs.base is not None  # needs_base
    base, share = inputs.tensor(inputs.base), float(inputs.shared["select_topk"])
    deltas = TaskVectors(inputs.others, inputs.delta)
    if share < 1:
        kept = _selected(deltas, share)
        if kept is None:
            return base
        deltas = TaskVectors(inputs.others, lambda index: inputs.delta(index) * kept)
    mixed, divisor = elected_sum(deltas, _weights(deltas), [1.0] * len(inputs.others))
    return mixed.div_(divisor.clamp_(min=MIN_DIVISOR)).add_(base)


def _selected(deltas: Iterable[torch.Tensor], share: float) -> torch.Tensor | None:
    """Return 1 where the variance over task vectors is among the largest, 0 elsewhere; None: nowhere."""
    from evomerge.merge.masks import largest

    variance = _variance(deltas)
    count = int(share * int(variance.count_nonzero()))
    if not count:
        return None
    kept = largest(variance.view(-1), count).view_as(variance)
    return kept.ne_(0)


def _variance(deltas: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the variance of each entry times their number, by Welford's updates: 0 where all are equal."""
    import torch

    mean, squares = None, None
    for count, delta in enumerate(deltas, 1):
        if mean is None or squares is None:
            mean, squares = delta.clone(), torch.zeros_like(delta)
            continue
        away = delta - mean
        mean.add_(away / count)
        squares.add_(away.mul_(delta - mean))
    assert squares is not None  # min_models
    return squares


def _weights(deltas: Iterable[torch.Tensor]) -> list[float]:
    """Return the share of each task vector in the sum of their mean squares."""
    squares = list(map(_mean_square, deltas))
    total = sum(squares)
    if total < MIN_SQUARES:
        return [1 / len(squares)] * len(squares)
    return [square / total for square in squares]


def _mean_square(delta: torch.Tensor) -> float:
    from evomerge.merge.methods.tensors import dot

    return dot(delta, delta) / max(1, delta.numel())


SCE = Method(
    name="sce",
    merge=sce,
    parameters={
        "select_topk": Parameter(
            "number",
            "share of the entries that are kept, by their variance over the experts; 0.1 to 1 is usual",
            default=1.0,
            low=0.0,
            high=1.0,
        )
    },
    needs_base=True,
    uses_base=True,
    reads_deltas=True,
    elects=True,
    temporaries=7,
    recomputing=1,
)
