"""A candidate with one part left out: what the part is worth is what is lost without it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from evomerge.candidate.candidate import Candidate
from evomerge.candidate.coefficients import Coefficients
from evomerge.candidate.merge import Merge, Own, Row, at
from evomerge.candidate.tables import Array

T = TypeVar("T")
WEIGHT = "weight"
ALL = "all"
Place = tuple[int, int]
"""Group of layers and component."""


@dataclass(frozen=True)
class Ablation:
    """A candidate without one part.

    Attributes:
        candidate: What is left; the very candidate where the part adds nothing.
        expert: What is left out: a model of a merge, or a member; empty: all experts of a group.
        layers: Of the group, such as `0-1`.
        tensors: The component of the group, such as `mlp`.
    """

    candidate: Candidate
    expert: str = ""
    layers: str = ALL
    tensors: str = ALL


@dataclass(frozen=True)
class Ablations:
    """All that can be left out of a candidate.

    Attributes:
        how: What it means that an expert is left out; a sentence, empty where none can be.
        experts: The candidate without each of its experts.
        groups: The candidate with the base's weights in each group of layers and component.
        notes: Why something does not apply; sentences.
    """

    how: str = ""
    experts: tuple[Ablation, ...] = ()
    groups: tuple[Ablation, ...] = ()
    notes: tuple[str, ...] = ()


def without_weight(merge: Merge, expert: str) -> Merge:
    """Return a merge in which one expert has weight 0 everywhere, single tensors and rows included.

    Returns:
        The merge itself where that changes nothing.
    """
    place = merge.experts.index(expert)

    def cut(row: Row) -> Row:
        return (*row[:place], 0.0, *row[place + 1 :])

    table = tuple(tuple(map(cut, group)) for group in _weights(merge))
    return _with_weights(merge, table, dict.fromkeys(_tables(merge), place))


def without_group(merge: Merge, place: Place, tensors: Collection[str]) -> Merge:
    """Return a merge in which all experts have weight 0 in one group of layers and component.

    Args:
        merge: With a number `weight` for each expert.
        place: Of the numbers.
        tensors: Which of the merged model's tensors have their numbers there.

    Returns:
        The merge itself where that changes nothing.
    """
    table = _spread(merge, _weights(merge), place, (0.0,) * len(merge.experts))
    return _with_weights(merge, table, dict.fromkeys(tensors, slice(None)))


def with_number(merge: Merge, parameter: str, value: float, place: Place | None = None) -> Merge:
    """Return a merge with another value of a parameter that all experts share.

    Args:
        merge: It has the parameter under `shared` or `fixed`.
        parameter: Its name.
        value: The value.
        place: Group and component where it holds; None: everywhere.

    Returns:
        The merge itself where that changes nothing.
    """
    now = merge.shared.get(parameter) or ((float(merge.fixed[parameter]),),)
    table = ((value,),) if place is None else _spread(merge, now, place, value)
    if _same(merge, table, now):
        return merge
    fixed = {name: one for name, one in merge.fixed.items() if name != parameter}
    return replace(merge, shared={**merge.shared, parameter: table}, fixed=fixed)


def places(merge: Merge) -> dict[Place, tuple[str, str]]:
    """Return each group of layers and component, and what tables call the two."""
    layers = ["{}-{}".format(*group) for group in merge.groups] or [ALL]
    tensors = [*merge.components, "rest"] if merge.components else [ALL]
    return {
        (group, component): (of_layers, of_tensors)
        for group, of_layers in enumerate(layers)
        for component, of_tensors in enumerate(tensors)
    }


def _weights(merge: Merge) -> Own:
    if WEIGHT in merge.own:
        return merge.own[WEIGHT]
    return (((float(merge.fixed[WEIGHT]),) * len(merge.experts),),)


def _tables(merge: Merge) -> Mapping[str, Array]:
    return {} if merge.coefficients is None else merge.coefficients.tables


def _spread(
    merge: Merge, table: Sequence[Sequence[T]], place: Place, value: T
) -> tuple[tuple[T, ...], ...]:
    """Return a table with an entry of its own for each group and component, one of them replaced."""
    groups, components = (1 + max(axis) for axis in zip(*places(merge), strict=True))
    return tuple(
        tuple(
            value if (group, component) == place else at(at(table, group), component)
            for component in range(components)
        )
        for group in range(groups)
    )


def _same(merge: Merge, one: Sequence[Sequence[T]], other: Sequence[Sequence[T]]) -> bool:
    """Tell whether two tables say the same, whichever of their axes have length 1."""
    return all(at(at(one, g), c) == at(at(other, g), c) for g, c in places(merge))


def _with_weights(merge: Merge, table: Own, left_out: Mapping[str, int | slice]) -> Merge:
    """Return a merge with other weights; of some tensors nothing is added any more to experts' weights."""
    tables = _tables(merge)
    changed = {}
    for name, experts in left_out.items():
        if name in tables and tables[name][experts].any():
            changed[name] = tables[name].copy()
            changed[name][experts] = 0.0
    if changed:
        merge = replace(merge, coefficients=Coefficients({**tables, **changed}))
    if _same(merge, table, _weights(merge)):
        return merge
    fixed = {name: value for name, value in merge.fixed.items() if name != WEIGHT}
    return replace(merge, own={**merge.own, WEIGHT: table}, fixed=fixed)
