"""The task-arithmetic family: sparsify task vectors, weigh, elect signs, sum, add to the base.

Task arithmetic (arXiv 2212.04089), TIES (2306.01708), DARE (2311.03099) as mergekit 0.1.5 computes them
(`generalized_task_arithmetic`), in float32 instead of the inputs' dtype.

Only correctly rounded element-wise operations in a fixed order, no fused multiply-add and no matrix
product: the result is the same to the bit on any device and with any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from evomerge.merge.methods.effect import Effect, numbers, rounded, summed
from evomerge.merge.methods.method import Group, Method, NumberGradients, ParameterSpec, Values
from evomerge.merge.methods.reductions import inner, l1_norm

Sparsifier = Callable[[Group, int, float], torch.Tensor]

MIN_NORM = 1e-7  # rescaling is skipped below (mergekit)
MIN_WEIGHTS = 1e-8  # a smaller sum of weights does not divide (mergekit)
HELD = 2**29
"""Numbers of one tensor's task vectors that are held while signs are elected; of larger tensors each task
vector is computed twice instead."""

WEIGHT = ParameterSpec(
    "number",
    "factor of this model's task vector; 0 leaves it out, 1 adds all of it; 0.2 to 1 is usual",
    required=True,
    per_source=True,
    differentiable=True,
)
DENSITY = ParameterSpec(
    "number",
    "share of the task vector's entries that are kept; 1 keeps all; 0.2 to 1 is usual",
    default=1.0,
    low=0.0,
    high=1.0,
    per_source=True,
)
LAMBDA = ParameterSpec(
    "number", "factor of the merged task vector as a whole", default=1.0, differentiable=True
)


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

    def gradients(group: Group, gradient: torch.Tensor) -> NumberGradients:
        return _gradients(group, gradient, sparsifier, elect)

    def effect(shared: Values, own: Sequence[Values], base: int | None) -> Effect:
        return _effect(shared, own, base, sparsifier, elect)

    return Method(
        name=name,
        merge=merge,
        gradients=gradients,
        effect=effect,
        parameters=parameters,
        needs_base=True,
        uses_base=True,
        reads_deltas=True,
        elects=elect,
        temporaries=8 if elect else 4,
        derived_bytes=0 if sparsifier is None else 4 if sparsifier is random_entries else 8,
        ignored=ignored,
    )


def largest_entries(group: Group, index: int, density: float) -> torch.Tensor:
    """Keep the top max(1, floor(density · n)) entries by magnitude; none at density 0 (TIES' trim).

    Of equal magnitudes at the threshold the first are kept (`masks.largest` on mergekit's pick).
    """
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


def weighted_sum(deltas: Iterable[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Return Σ w δ in the order given, each product and each sum rounded once; deltas one at a time."""
    pairs = zip(deltas, weights, strict=True)
    first, factor = next(pairs)
    total = first * factor
    product = torch.empty_like(total)
    for delta, weight in pairs:
        total.add_(torch.mul(delta, weight, out=product))
    return total


def elected_signs(deltas: Iterable[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Return the sign, 1 or -1, of each entry of the sum of weighted deltas; 1 where the sum is 0."""
    total = weighted_sum(deltas, weights)
    return torch.ge(total, 0, out=total).mul_(2).sub_(1)


def elected_sum(
    deltas: Iterable[torch.Tensor], weights: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Elect a sign for each entry and sum what agrees with it (TIES' elect and disjoint merge).

    Exact zeros agree with neither sign.

    Args:
        deltas: Read twice.
        weights: One a delta.

    Returns:
        The sum of the agreeing weighted deltas, and the sum of their weights; both shaped as a delta.
    """
    signs = elected_signs(deltas, weights)
    total, agreeing = torch.zeros_like(signs), torch.zeros_like(signs)
    along, agrees = torch.empty_like(signs), torch.empty_like(signs)
    for delta, weight in zip(deltas, weights, strict=True):
        torch.mul(delta, weight, out=along).mul_(signs)  # > 0 where it agrees
        agreeing.add_(torch.gt(along, 0, out=agrees).mul_(weight))
        total.add_(along.clamp_(min=0))
    return total.mul_(signs), agreeing


class _TaskVectors:
    """Sparsified task vectors: held where they are small, else computed whenever they are read."""

    def __init__(self, group: Group, indices: Sequence[int], sparsifier: Sparsifier | None) -> None:
        self._group, self._indices, self._sparsifier = group, indices, sparsifier
        self._held: dict[int, torch.Tensor] = {}

    def __iter__(self) -> Iterator[torch.Tensor]:
        for index in self._indices:
            if index in self._held:
                yield self._held[index]
                continue
            delta = _sparsified(self._group, index, self._sparsifier)
            if delta.numel() * len(self._indices) <= HELD:
                self._held[index] = delta
            yield delta


def _merge(group: Group, sparsifier: Sparsifier | None, elect: bool) -> torch.Tensor:
    assert group.base is not None  # needs_base
    base = group.tensor(group.base)
    # A weight of 0 adds nothing to any sum, elects nothing and agrees with nothing.
    active = [index for index in group.others if group.own[index]["weight"] != 0]
    if not active:
        return base
    weights = [float(group.own[index]["weight"]) for index in active]
    if elect:
        mixed, divisor = elected_sum(_TaskVectors(group, active, sparsifier), weights)
        if group.shared["normalize"]:
            mixed.div_(divisor.masked_fill_(divisor == 0, 1))
    else:
        deltas = (_sparsified(group, index, sparsifier) for index in active)
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


def _effect(
    shared: Values,
    own: Sequence[Values],
    base: int | None,
    sparsifier: Sparsifier | None,
    elect: bool,
) -> Effect:
    """A sum of models wherever nothing is dropped and no sign elected; else what the active models have."""
    assert base is not None  # needs_base
    weights = {
        index: float(values["weight"])
        for index, values in enumerate(own)
        if index != base and values["weight"] != 0
    }
    total = sum(weights.values())
    densities = {index: min(1.0, float(own[index].get("density", 1.0))) for index in weights}
    whole = sparsifier is None or all(density == 1 for density in densities.values())
    factor = float(shared["lambda"])
    if whole and not elect:
        if shared["normalize"] and abs(total) >= MIN_WEIGHTS:
            factor /= total
        factors = {index: factor * weight for index, weight in weights.items()}
        return summed({base: 1.0 - sum(factors.values()), **factors})
    parts = {i: (False, rounded(w), rounded(densities[i])) for i, w in weights.items()}
    rule = numbers({**shared, "rescale": bool(shared.get("rescale")) and not whole})
    masked = sparsifier is random_entries and not whole
    return Effect(rule, {base: (True, 0.0, 1.0), **parts}, masked)


def _gradients(
    group: Group, gradient: torch.Tensor, sparsifier: Sparsifier | None, elect: bool
) -> NumberGradients:
    """Gradients by the weights and by lambda; the masks stand as drawn, and no rescaling knows of weights.

    A weight of 0 counts like any other, though the merge leaves its model out.
    """
    weights = [float(group.own[index]["weight"]) for index in group.others]
    deltas = _TaskVectors(group, group.others, sparsifier)
    normalize = bool(group.shared["normalize"])
    take = _elected_gradients if elect else _summed_gradients
    by_weight, by_factor = take(gradient, deltas, weights, normalize)
    factor = float(group.shared["lambda"])
    own = [0.0] * len(group.models)
    for index, derivative in zip(group.others, by_weight, strict=True):
        own[index] = factor * derivative
    return NumberGradients({"weight": tuple(own)}, {"lambda": by_factor})


def _summed_gradients(
    gradient: torch.Tensor,
    deltas: Iterable[torch.Tensor],
    weights: Sequence[float],
    normalize: bool,
) -> tuple[list[float], float]:
    """With m = Σ w δ / W, W being Σ w or 1: (⟨g, δ_i⟩ - ⟨g, m⟩) / W, or ⟨g, δ_i⟩; by lambda ⟨g, m⟩."""
    along = [inner(gradient, delta) for delta in deltas]
    mixed = sum(w * a for w, a in zip(weights, along, strict=True))
    total = sum(weights)
    if normalize and abs(total) >= MIN_WEIGHTS:
        mixed /= total
        along = [(each - mixed) / total for each in along]
    return along, mixed


def _elected_gradients(
    gradient: torch.Tensor,
    deltas: Iterable[torch.Tensor],
    weights: Sequence[float],
    normalize: bool,
) -> tuple[list[float], float]:
    """As `_summed_gradients`, entry by entry over the deltas that agree with the elected sign.

    The elected signs are held fixed, so the gradients are exact wherever no entry is about to change its
    sign, and say nothing of what such a change would bring. A weight of 0 is taken to be about to rise: its
    model agrees where its delta has the elected sign, and where no other model has a say.
    """
    if any(weights):  # a weight of 0 has no say in the sums
        signs = elected_signs(deltas, weights)
        mixed, divisor = elected_sum(deltas, weights)
    else:
        signs, mixed = torch.ones_like(gradient), torch.zeros_like(gradient)
        divisor = mixed
    unopposed = mixed == 0
    pull, average = gradient, torch.zeros_like(mixed)
    if normalize:
        indivisible = divisor == 0
        average = mixed.masked_fill(indivisible, 0)
        divisor = divisor.masked_fill(indivisible, 1)
        pull, average = gradient / divisor, average.div_(divisor)
        mixed = mixed / divisor
    gradients = []
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = (delta * signs) * (weight or 1.0) > 0
        if not weight:
            agrees |= unopposed & (delta != 0)
        gradients.append(inner(pull, (delta - average).mul_(agrees)))
    return gradients, inner(gradient, mixed)
