"""Reinforced agent merging (arXiv 2601.13572): an entry is averaged over the experts that moved it.

`ram` and `ramplus_tl` (tensor-local) as mergekit 0.1.5 computes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge.merge.methods.method import Inputs, Method, NumberGradients, Parameter

if TYPE_CHECKING:
    import torch


def ram(inputs: Inputs) -> torch.Tensor:
    """Return the base plus, entry by entry, the mean task vector of the experts that moved it."""
    assert inputs.base is not None  # needs_base
    total, count = None, None
    for index in inputs.others:
        delta = inputs.delta(index)
        moved = _moved(inputs, delta)
        count = moved.clone() if count is None else count.add_(moved)
        total = moved.mul_(delta) if total is None else total.add_(moved.mul_(delta))
    assert total is not None  # min_models
    assert count is not None
    return total.div_(count.clamp_(min=1)).add_(inputs.tensor(inputs.base))


def ramplus(inputs: Inputs) -> torch.Tensor:
    """As `ram`, with what one expert alone moved scaled by 1 + r · clamp(shared / unique, 0, alpha).

    shared and unique count the entries that this expert moved with others, and alone.
    """
    assert inputs.base is not None  # needs_base
    count = _counts(inputs)
    r, alpha = float(inputs.shared["r"]), float(inputs.shared["alpha"])
    total = None
    for index in inputs.others:
        delta = inputs.delta(index)
        moved = _moved(inputs, delta)
        alone = _alone(moved, count)
        factor = 1 + r * min(_ratio(moved, alone), alpha)
        scale = alone.mul_(factor - 1).add_(moved).mul_(delta)
        total = scale if total is None else total.add_(scale)
    assert total is not None  # min_models
    return total.div_(count.clamp_(min=1)).add_(inputs.tensor(inputs.base))


def gradients(inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    """Return the gradients by `r` and `alpha`: which entries an expert moved does not depend on them."""
    from evomerge.merge.methods.tensors import inner

    count = _counts(inputs)
    r, alpha = float(inputs.shared["r"]), float(inputs.shared["alpha"])
    by_r = by_alpha = 0.0
    for index in inputs.others:
        delta = inputs.delta(index)
        moved = _moved(inputs, delta)
        alone = _alone(moved, count)
        ratio = _ratio(moved, alone)
        along = inner(gradient, alone.mul_(delta))
        by_r += min(ratio, alpha) * along
        by_alpha += r * (ratio > alpha) * along
    return NumberGradients(shared={"r": by_r, "alpha": by_alpha})


def _moved(inputs: Inputs, delta: torch.Tensor) -> torch.Tensor:
    """Return 1 where a task vector's magnitude exceeds `epsilon`, 0 elsewhere."""
    moved = delta.abs()
    return moved.gt_(float(inputs.shared["epsilon"]))


def _counts(inputs: Inputs) -> torch.Tensor:
    """Return how many experts moved each entry."""
    first, *rest = inputs.others
    count = _moved(inputs, inputs.delta(first))
    for index in rest:
        count.add_(_moved(inputs, inputs.delta(index)))
    return count


def _alone(moved: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return 1 where an expert is the only one that moved an entry, 0 elsewhere."""
    return (moved * count).eq_(1)


def _ratio(moved: torch.Tensor, alone: torch.Tensor) -> float:
    """Return shared / unique; 0 where nothing was moved alone, so that it matters nowhere."""
    unique = int(alone.count_nonzero())
    return (int(moved.count_nonzero()) - unique) / unique if unique else 0.0


EPSILON = Parameter(
    "number",
    "an expert has moved an entry if its task vector's magnitude is above this; 0.00001 is usual",
    default=1e-5,
    low=0.0,
)
RAM = Method(
    name="ram",
    merge=ram,
    parameters={"epsilon": EPSILON},
    needs_base=True,
    uses_base=True,
    reads_deltas=True,
    temporaries=5,
)
RAMPLUS_TL = Method(
    name="ramplus_tl",
    merge=ramplus,
    gradients=gradients,
    parameters={
        "epsilon": EPSILON,
        "r": Parameter(
            "number",
            "how much entries that one expert alone moved are amplified; 0 makes it ram",
            default=0.1,
            differentiable=True,
        ),
        "alpha": Parameter(
            "number",
            "largest ratio of shared to unique entries that counts; 0.2 is usual",
            default=0.2,
            low=0.0,
            differentiable=True,
        ),
    },
    needs_base=True,
    uses_base=True,
    reads_deltas=True,
    temporaries=6,
)
