"""The task-arithmetic family: sparsify task vectors, weigh, elect signs, sum, add to the base.

Task arithmetic (arXiv 2212.04089), TIES (2306.01708), DARE (2311.03099) as mergekit 0.1.5 computes them
(`generalized_task_arithmetic`), in float32 instead of the inputs' dtype.

Only correctly rounded element-wise operations in a fixed order, no fused multiply-add and no matrix
product: the result is the same to the bit on any device and with any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from evomerge.merge.methods.method import Group, Method, ParameterSpec
from evomerge.merge.methods.reductions import l1_norm

Sparsifier = Callable[[Group, int, float], torch.Tensor]

MIN_NORM = 1e-7  # rescaling is skipped below (mergekit)
MIN_WEIGHTS = 1e-8  # a smaller sum of weights does not divide (mergekit)

WEIGHT = ParameterSpec(
    "number",
    "factor of this model's task vector; 0 leaves it out, 1 adds all of it; 0.2 to 1 is usual",
    required=True,
    per_source=True,
)
DENSITY = ParameterSpec(
    "number",
    "share of the task vector's entries that are kept; 1 keeps all; 0.2 to 1 is usual",
    default=1.0,
    low=0.0,
    high=1.0,
    per_source=True,
)
LAMBDA = ParameterSpec("number", "factor of the merged task vector as a whole", default=1.0)


def family_member(
    name: str, sparsifier: Sparsifier | None, *, elect: bool, normalize: bool, rescale: bool
) -> Method:
    """Build one method of the family.

    Args:
        name: Its name.
        sparsifier: Which entries of a task vector are kept, by density; None: all.
        elect: Sum only the entries that agree with the elected sign (TIES).
        normalize: Default of dividing by the (agreeing) weights.
        rescale: Default of restoring a sparsified task vector's L1 norm.
    """
    parameters = {
        "weight": WEIGHT,
        "normalize": ParameterSpec(
            "boolean", "divide by the sum of the (agreeing) weights", default=normalize
        ),
        "lambda": LAMBDA,
    }
    ignored: tuple[str, ...] = ("int8_mask", "density", "rescale")
    if sparsifier is not None:
        parameters["density"] = DENSITY
        parameters["rescale"] = ParameterSpec(
            "boolean", "give a sparsified task vector its L1 norm back", default=rescale
        )
        ignored = ("int8_mask",)

    def merge(group: Group) -> torch.Tensor:
        return _merge(group, sparsifier, elect)

    return Method(
        name=name,
        merge=merge,
        parameters=parameters,
        needs_base=True,
        uses_base=True,
        draws_masks=sparsifier is random_entries,
        ignored=ignored,
    )


def largest_entries(group: Group, index: int, density: float) -> torch.Tensor:
    """Keep the top max(1, floor(density · n)) entries by magnitude; none at density 0 (TIES' trim)."""
    delta = group.delta(index)
    if density <= 0 or delta.numel() == 0:
        return torch.zeros_like(delta)
    return group.largest(index, max(1, int(density * delta.numel())))


def random_entries(group: Group, index: int, density: float) -> torch.Tensor:
    """Keep each entry whose uniform number is below `density` (DARE's drop)."""
    delta = group.delta(index)
    kept = torch.empty_like(delta)
    torch.lt(group.uniform(index), density, out=kept)  # 0 or 1
    return kept.mul_(delta)


def rescaled(sparse: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """Give a sparsified task vector the L1 norm it had, unless that or its own is all but 0.

    Args:
        sparse: The task vector; scaled in place.
        norm: Of the whole one; float64, no dimensions.
    """
    own = l1_norm(sparse)
    usable = (norm >= MIN_NORM) & (own >= MIN_NORM)
    factor = torch.where(usable, norm / own, torch.ones_like(own))
    return sparse.mul_(factor.to(sparse.dtype))


def weighted_sum(deltas: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Return Σ w δ in the order given, each product and each sum rounded once."""
    total = deltas[0] * weights[0]
    product = torch.empty_like(total)
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        total.add_(torch.mul(delta, weight, out=product))
    return total


def elected_sum(
    deltas: Sequence[torch.Tensor], weights: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Elect a sign for each entry and sum what agrees with it (TIES' elect and disjoint merge).

    The sign is that of the sum of weighted deltas, + where the sum is 0; exact zeros agree with neither.

    Returns:
        The sum of the agreeing weighted deltas, and the sum of their weights; both shaped as a delta.
    """
    signs = torch.empty_like(deltas[0])
    torch.ge(weighted_sum(deltas, weights), 0, out=signs)
    signs.mul_(2).sub_(1)
    total, agreeing = torch.zeros_like(signs), torch.zeros_like(signs)
    along, agrees = torch.empty_like(signs), torch.empty_like(signs)
    for delta, weight in zip(deltas, weights, strict=True):
        torch.mul(delta, weight, out=along).mul_(signs)  # > 0 where it agrees
        agreeing.add_(torch.gt(along, 0, out=agrees).mul_(weight))
        total.add_(along.clamp_(min=0))
    return total.mul_(signs), agreeing


def _merge(group: Group, sparsifier: Sparsifier | None, elect: bool) -> torch.Tensor:
    assert group.base is not None  # needs_base
    base = group.tensor(group.base)
    # A weight of 0 adds nothing to any sum, elects nothing and agrees with nothing.
    active = [index for index in group.others if group.own[index]["weight"] != 0]
    if not active:
        return base
    weights = [float(group.own[index]["weight"]) for index in active]
    deltas = [_sparsified(group, index, sparsifier) for index in active]
    if elect:
        mixed, divisor = elected_sum(deltas, weights)
        if group.shared["normalize"]:
            mixed.div_(divisor.masked_fill_(divisor == 0, 1))
    else:
        mixed = weighted_sum(deltas, weights)
        total = sum(weights)
        if group.shared["normalize"] and abs(total) >= MIN_WEIGHTS:
            mixed.div_(total)
    if group.shared["lambda"] != 1:
        mixed.mul_(float(group.shared["lambda"]))
    return mixed.add_(base)


def _sparsified(group: Group, index: int, sparsifier: Sparsifier | None) -> torch.Tensor:
    density = float(group.own[index].get("density", 1.0))
    if sparsifier is None or density >= 1:
        return group.delta(index)
    sparse = sparsifier(group, index, density)
    return rescaled(sparse, group.norm(index)) if group.shared["rescale"] else sparse
