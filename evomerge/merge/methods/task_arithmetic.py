"""The task-arithmetic family: sparsify task vectors, weigh, elect signs, sum, add to the base.

Task arithmetic (arXiv 2212.04089), TIES (2306.01708), DARE (2311.03099), Model Breadcrumbs (2312.06795) and
DELLA (2406.11617) as mergekit 0.1.5 computes them (`generalized_task_arithmetic`), in float32 instead of the
inputs' dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from evomerge.merge.methods.method import (
    Effect,
    Inputs,
    Kept,
    Method,
    NumberGradients,
    Parameter,
    Sum,
    Term,
    Value,
    Values,
    numbers,
    rounded,
    summed,
)
from evomerge.merge.methods.sparsifiers import (
    BY_RANK,
    LARGEST,
    RANDOM,
    WITHOUT_OUTLIERS,
    Sparsifier,
)
from evomerge.merge.methods.task_vectors import TaskVectors

if TYPE_CHECKING:
    import torch

MIN_WEIGHTS = 1e-8  # a smaller sum of weights does not divide (mergekit)


@dataclass(frozen=True)
class _Member:
    """What tells one method of the family from another.

    Attributes:
        sparsifier: Which entries of a task vector are kept, by density; None: all.
        elect: Sum only the entries that agree with the elected sign (TIES).
    """

    sparsifier: Sparsifier | None
    elect: bool


def merge(member: _Member, inputs: Inputs) -> torch.Tensor:
    """Return the base plus the weighted, sparsified task vectors."""
    from evomerge.merge.methods.tensors import divided, divisor_of, elected_sum

    assert inputs.base is not None  # needs_base
    base = inputs.tensor(inputs.base)
    # A weight of 0 adds nothing to any sum, elects nothing and agrees with nothing.
    every = [(index, inputs.weight(index)) for index in inputs.others]
    active = [index for index, weight in every if not isinstance(weight, float) or weight]
    if not active:
        return base
    weights = [inputs.weight(index) for index in active]
    normalize = bool(inputs.shared["normalize"])
    kept = _kept_derivatives(member, inputs) if member.elect else None
    if kept is not None:
        mixed = kept[0]
    elif member.elect:
        mixed, divisor = elected_sum(_task_vectors(member, inputs, active), weights)
        if normalize:
            mixed.div_(divisor.masked_fill_(divisor == 0, 1))
    else:
        summed = _sum(member, inputs, active, weights, base.device)
        if summed is None:
            return base
        mixed = summed
        if normalize:
            divided(mixed, divisor_of(weights, MIN_WEIGHTS))
    if inputs.shared["lambda"] != 1:
        mixed = mixed * float(inputs.shared["lambda"])
    return mixed + base if kept is not None else mixed.add_(base)


def total(member: _Member, inputs: Inputs) -> Sum | None:
    """Return the same as a sum, entry by entry."""
    from evomerge.merge.methods.tensors import divisor_of

    terms = []
    for index in inputs.others:
        weight, kept = inputs.weight(index), _rule(member, inputs, index)
        if kept is None or not isinstance(weight, float):
            return None
        if weight:
            terms.append(Term(index, weight, kept))
    if not terms:
        return None
    divisor: float | None = 1.0
    if inputs.shared["normalize"]:
        divisor = None
        if not member.elect:
            divisor = float(divisor_of([term.weight for term in terms], MIN_WEIGHTS))
    factor = float(inputs.shared["lambda"])
    return Sum(tuple(terms), inputs.base, member.elect, divisor, factor)


def gradients(member: _Member, inputs: Inputs, gradient: torch.Tensor) -> NumberGradients:
    """Return the gradients by the weights and by lambda; masks stand as drawn, factors that rescale too.

    A weight of 0 counts like any other, though the merge leaves its model out.
    """
    from evomerge.merge.methods.low_rank import delta_products
    from evomerge.merge.methods.tensors import (
        elected_gradients,
        row_products,
        summed_gradients,
        weight_gradients,
    )

    if member.elect:
        found, by_factor = elected_gradients(
            gradient, _kept_derivatives(member, inputs) or _derivatives(member, inputs)
        )
    else:
        products = (
            delta_products(inputs, inputs.others, gradient)
            if member.sparsifier is None
            else row_products(gradient, _each(member, inputs, inputs.others))
        )
        found, by_factor = summed_gradients(
            products,
            [inputs.weight(index) for index in inputs.others],
            MIN_WEIGHTS if inputs.shared["normalize"] else None,
        )
    found.mul_(float(inputs.shared["lambda"]))
    own, rows = weight_gradients(inputs, inputs.others, found)
    return NumberGradients({"weight": own}, {"lambda": by_factor}, rows)


def _sum(
    member: _Member,
    inputs: Inputs,
    active: Sequence[int],
    weights: Sequence[float | torch.Tensor],
    device: torch.device,
) -> torch.Tensor | None:
    """Return the sum of the sparsified, weighted task vectors; None: it is 0."""
    from evomerge.merge.methods.low_rank import sum_of_deltas
    from evomerge.merge.methods.tensors import weighted_sum

    if member.sparsifier is None:
        return sum_of_deltas(inputs, active, weights, device)
    return weighted_sum(_each(member, inputs, active), weights)


def _each(member: _Member, inputs: Inputs, indices: Sequence[int]) -> Iterator[torch.Tensor]:
    return (_sparsified(member, inputs, index) for index in indices)


def _kept_derivatives(member: _Member, inputs: Inputs) -> tuple[torch.Tensor, ...] | None:
    """Return what a merge leaves for its gradients, if anything."""
    count = 2 + len(inputs.others)
    return inputs.once(count, lambda: tuple(_derivatives(member, inputs, together=True)))


def _derivatives(
    member: _Member, inputs: Inputs, *, together: bool = False
) -> Iterator[torch.Tensor]:
    from evomerge.merge.methods.tensors import elected_derivatives

    deltas = _task_vectors(member, inputs, inputs.others)
    weights = [inputs.weight(index) for index in inputs.others]
    normalize = bool(inputs.shared["normalize"])
    return elected_derivatives(deltas, weights, normalize=normalize, together=together)


def effect(member: _Member, shared: Values, own: Sequence[Values], base: int | None) -> Effect:
    """Return a sum of models where nothing is dropped and no sign elected; else what active models have."""
    assert base is not None  # needs_base
    weights = {
        index: float(values["weight"])
        for index, values in enumerate(own)
        if index != base and values["weight"] != 0
    }
    densities = {index: min(1.0, float(own[index].get("density", 1.0))) for index in weights}
    whole = member.sparsifier is None or all(density == 1 for density in densities.values())
    factor = float(shared["lambda"])
    if whole and not member.elect:
        if _divides(bool(shared["normalize"]), list(weights.values())):
            factor /= sum(weights.values())
        factors = {index: factor * weight for index, weight in weights.items()}
        return summed({base: 1.0 - sum(factors.values()), **factors})
    parts = {
        i: (False, rounded(weight), *_thinning(member, own[i], densities[i]))
        for i, weight in weights.items()
    }
    idle = {name: bool(shared.get(name)) and not whole for name in ("rescale", "importance")}
    rule = numbers({**shared, **idle})
    masked = member.sparsifier is not None and member.sparsifier.random and not whole
    return Effect(rule, {base: (True, 0.0, 1.0), **parts}, masked)


def _divides(normalize: bool, weights: Sequence[float]) -> bool:
    return normalize and abs(sum(weights)) >= MIN_WEIGHTS


def _thinning(member: _Member, own: Values, density: float) -> tuple[Value, ...]:
    """Return the numbers that tell which entries of a task vector are kept."""
    further = member.sparsifier.parameters if member.sparsifier and density < 1 else ()
    return (rounded(density), *(rounded(own[name]) for name in further))


def _task_vectors(member: _Member, inputs: Inputs, indices: Sequence[int]) -> TaskVectors:
    return TaskVectors(indices, lambda index: _sparsified(member, inputs, index))


def _sparsified(member: _Member, inputs: Inputs, index: int) -> torch.Tensor:
    density = float(inputs.own[index].get("density", 1.0))
    if member.sparsifier is None or density >= 1:
        return inputs.delta(index)
    from evomerge.merge.methods.tensors import rescaled

    sparse = member.sparsifier.keep(inputs, index, density)
    return rescaled(sparse, inputs.norm(index)) if inputs.shared["rescale"] else sparse


def _rule(member: _Member, inputs: Inputs, index: int) -> Kept | None:
    density = float(inputs.own[index].get("density", 1.0))
    if member.sparsifier is None or density >= 1:
        return Kept()
    if member.sparsifier.rule is None or inputs.shared.get("importance"):
        return None
    kept = member.sparsifier.rule(inputs, index, density)
    return replace(kept, rescale=bool(inputs.shared["rescale"]))


def _method(
    name: str, member: _Member, *, normalize: bool = False, rescale: bool | None = None
) -> Method:
    """Declare one method of the family, with its defaults; `rescale` of a method that sparsifies."""
    parameters = {
        "weight": Parameter(
            "number",
            "factor of this model's task vector; 0 leaves it out, 1 adds all of it; 0.2 to 1 is usual",
            required=True,
            per_source=True,
            differentiable=True,
        ),
        "normalize": Parameter(
            "boolean", "divide by the sum of the (agreeing) weights", default=normalize
        ),
        "lambda": Parameter(
            "number",
            "factor of the merged task vector as a whole",
            default=1.0,
            differentiable=True,
        ),
    }
    if member.sparsifier is not None:
        parameters["density"] = Parameter(
            "number",
            "share of the task vector's entries that are kept; 1 keeps all; 0.2 to 1 is usual",
            default=1.0,
            low=0.0,
            high=1.0,
            per_source=True,
        )
        parameters["rescale"] = Parameter(
            "boolean", "give a sparsified task vector its L1 norm back", default=rescale
        )
        parameters |= member.sparsifier.parameters
        if member.sparsifier.ranks:
            parameters["importance"] = Parameter(
                "boolean",
                "rank entries by magnitude times importance: what enters their column in the expert on "
                "its prompts (root mean square), or what a file of yours says",
                default=False,
                reads="importance",
                beyond_mergekit=True,
            )
    return Method(
        name=name,
        merge=partial(merge, member),
        gradients=partial(gradients, member),
        total=partial(total, member),
        effect=partial(effect, member),
        parameters=parameters,
        needs_base=True,
        uses_base=True,
        reads_deltas=True,
        elects=member.elect,
        rows=True,
        temporaries=_temporaries(member),
        recomputing=member.sparsifier.recomputing if member.sparsifier and member.elect else 0,
        derived_bytes=_derived_bytes(member),
        one_pass_bytes=_one_pass_bytes(member),
        one_pass_on_gpus=member.sparsifier is not BY_RANK,
        ignored=("int8_mask", *(() if member.sparsifier else ("density", "rescale"))),
    )


def _temporaries(member: _Member) -> int:
    if member.sparsifier is None:
        return 4
    return member.sparsifier.elected if member.elect else member.sparsifier.temporaries


def _derived_bytes(member: _Member) -> int:
    if member.sparsifier is None:
        return 0
    return member.sparsifier.derived_bytes + 6 * (member.elect and member.sparsifier.random)


def _one_pass_bytes(member: _Member) -> int | None:
    if member.sparsifier is None:
        return 0
    if member.sparsifier.rule is None:
        return None
    return member.sparsifier.one_pass_bytes


TASK_ARITHMETIC = _method("task_arithmetic", _Member(None, elect=False))
TIES = _method("ties", _Member(LARGEST, elect=True), normalize=True, rescale=False)
DARE_LINEAR = _method("dare_linear", _Member(RANDOM, elect=False), rescale=True)
DARE_TIES = _method("dare_ties", _Member(RANDOM, elect=True), rescale=True)
BREADCRUMBS = _method("breadcrumbs", _Member(WITHOUT_OUTLIERS, elect=False), rescale=False)
BREADCRUMBS_TIES = _method("breadcrumbs_ties", _Member(WITHOUT_OUTLIERS, elect=True), rescale=False)
DELLA = _method("della", _Member(BY_RANK, elect=True), normalize=True, rescale=True)
DELLA_LINEAR = _method("della_linear", _Member(BY_RANK, elect=False), rescale=True)
