"""A merge with one expert more, or less: where a search need not begin again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from evomerge.candidate.coefficients import Coefficients
from evomerge.candidate.merge import Merge, Row
from evomerge.candidate.recipe import split_places, with_places
from evomerge.candidate.tables import Array

WEIGHT = "weight"


def with_expert(merge: Merge, model: str, weight: float, place: int | None = None) -> Merge | None:
    """Return a merge into which one more expert goes with one weight everywhere.

    What else each expert has a number of (density, …) the new one has the mean of the others'. A weight that
    is one for all experts holds for the new one, too, and `weight` does not count.

    Args:
        merge: Of some experts on a base.
        model: The expert.
        weight: Its weight.
        place: Of its statistics in their file; None: the merge reads none.

    Returns:
        None where the merge lacks a base, or contains the expert already.
    """
    if merge.base is None or model in merge.model_names() or merge.vocabulary is not None:
        return None

    def longer(name: str) -> Callable[[Row], Row]:
        return lambda row: (*row, weight if name == WEIGHT else sum(row) / len(row))

    def added(table: Array) -> Array:
        return np.concatenate([table, np.zeros_like(table[:1])])

    places = [] if place is None else [*_places(merge), place]
    return _changed(merge, (*merge.experts, model), longer, added, places)


def without_expert(merge: Merge, model: str) -> Merge | None:
    """Return a merge without one of its experts, the numbers of the others as they were.

    Returns:
        The merge itself where the model takes no part; None where nothing would be left, or not the base
        that the merge is made on.
    """
    if model not in merge.model_names():
        return merge
    if model == merge.base or merge.experts == (model,) or merge.vocabulary is not None:
        return None
    place = merge.experts.index(model)

    def shorter(name: str) -> Callable[[Row], Row]:
        return lambda row: (*row[:place], *row[place + 1 :])

    def cut(table: Array) -> Array:
        return np.delete(table, place, axis=0)

    left = (*merge.experts[:place], *merge.experts[place + 1 :])
    places = _places(merge)
    return _changed(merge, left, shorter, cut, [*places[:place], *places[place + 1 :]])


def _places(merge: Merge) -> list[int]:
    """Return the experts' places in the statistics file."""
    places = split_places(merge.statistics or "")[1]
    return list(places or range(len(merge.experts)))


def _changed(
    merge: Merge,
    experts: tuple[str, ...],
    row: Callable[[str], Callable[[Row], Row]],
    table: Callable[[Array], Array],
    places: list[int],
) -> Merge:
    own = {
        name: tuple(tuple(map(row(name), group)) for group in groups)
        for name, groups in merge.own.items()
    }
    coefficients = merge.coefficients
    if coefficients is not None:
        tables = {name: table(found) for name, found in coefficients.tables.items()}
        coefficients = Coefficients(tables)
    read = merge.statistics and with_places(split_places(merge.statistics)[0], tuple(places))
    return replace(merge, experts=experts, own=own, coefficients=coefficients, statistics=read)
