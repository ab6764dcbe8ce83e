"""What can be left out of a merge, by its method: experts by weight 0, groups by the base's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from evomerge.candidate import Merge
from evomerge.candidate.ablation import (
    WEIGHT,
    Ablation,
    Ablations,
    Place,
    places,
    with_number,
    without_group,
    without_weight,
)
from evomerge.merge.methods import Method, method

if TYPE_CHECKING:
    from evomerge.merge.checkpoint import Checkpoint

T = "t"
"""Of methods that go from the base, at 0, to one other model."""
Without = Callable[[Place, list[str]], Merge]


def ablations(merge: Merge, checkpoints: Mapping[str, Checkpoint]) -> Ablations:
    """Return a merge without each expert, and with the base in each group of layers and component."""
    chosen = method(merge.method)
    spec = chosen.parameters.get(WEIGHT)
    if spec is not None and spec.per_source:
        experts = tuple(Ablation(without_weight(merge, name), name) for name in merge.experts)
        how = _how(merge, chosen)
        if not chosen.needs_base:
            reason = "needs no base, which would take a group's place, so groups cannot be left out"
            return Ablations(how, experts, notes=(f"{merge.method} {reason}.",))

        def without(place: Place, tensors: list[str]) -> Merge:
            return without_group(merge, place, tensors)

    elif T in chosen.parameters and chosen.max_models == 1:
        expert = merge.experts[0]
        experts = (Ablation(with_number(merge, T, 0.0), expert),)
        how = f"The expert is left out by {T} = 0, which is the base."

        def without(place: Place, tensors: list[str]) -> Merge:
            return with_number(merge, T, 0.0, place)

    else:
        reason = "takes no weights of experts, so nothing of it is left out"
        return Ablations(notes=(f"{merge.method} {reason}.",))
    groups = tuple(_groups(merge, checkpoints, without))
    if len(groups) < 2:
        note = "An expert's numbers hold for all layers and tensors, so groups cannot be left out."
        return Ablations(how, experts, notes=(note,))
    return Ablations(how, experts, groups)


def _groups(
    merge: Merge, checkpoints: Mapping[str, Checkpoint], without: Without
) -> Iterator[Ablation]:
    """Leave out each group that has tensors."""
    from evomerge.merge.plan import plan_merge

    tensors: dict[Place, list[str]] = {}
    for piece in plan_merge(merge, checkpoints).tensors:
        tensors.setdefault(piece.place, []).append(piece.name)
    for place, (of_layers, of_tensors) in places(merge).items():
        if place in tensors:
            left = without(place, tensors[place])
            yield Ablation(left, layers=of_layers, tensors=of_tensors)


def _how(merge: Merge, chosen: Method) -> str:
    spec = chosen.parameters.get("normalize")
    normalised = spec is not None and bool(merge.fixed.get("normalize", spec.default))
    what = "it adds nothing"
    if chosen.elects:
        what += " and leaves the election of signs"
    if not chosen.reads_deltas and not normalised:
        what += ", and the sum of the weights is smaller"
    elif normalised:
        what += (
            ", and the sum of the others is divided by their own weights, so that their shares grow"
        )
    return f"An expert is left out by weight 0: {what}."
